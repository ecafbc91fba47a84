//! `inspect`: what is in a file, what it needs, and which boards hold it.

use crate::host;
use crate::tokenize::shown;
use anyhow::{Context, Result, bail, ensure};
use embodios::KvFormat;
use embodios::chat::Template;
use embodios::gguf::{Gguf, Value, kinds};
use embodios::model::budget::Budget;
use embodios::model::{self, Opened, families};
use embodios::tokenizer::Tokenizer;
use std::collections::BTreeMap;

/// Show what is in a GGUF file, what it needs, and which boards hold it.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    #[arg(value_name = "FILE")]
    model: String,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Say only whether this board holds it, with which contexts: pi4-1g to pi4-8g, pi5-2g to pi5-16g
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    /// For --board: the context that is wanted, in tokens [default: all that the model was made for]
    #[arg(long, value_name = "TOKENS", requires = "board")]
    ctx: Option<usize>,
    /// What keys and values are kept as: f16 or q8_0
    #[arg(long, value_name = "FORMAT", default_value = "f16", value_parser = host::kv)]
    kv: KvFormat,
}

/// A board that is sold.
struct Board {
    name: &'static str,
    /// Stretches of RAM that a model can have, in MiB. A piece lies in one where it can, else in neighbours that are free
    /// where they meet.
    stretches: &'static [u64],
}

/// Of a board's first stretch, what image, stacks and the heap for small things (32 MiB) keep, rounded up, in MiB.
const KERNEL: u64 = 52;
/// The first gigabyte of a Pi 4, without VideoCore's 76 MiB, which are at its end.
const PI4: u64 = 1024 - 76 - KERNEL;
/// The first gigabyte of a Pi 5, without VideoCore's 4 MiB, which are at its end.
const PI5: u64 = 1024 - 4 - KERNEL;
/// The rest below a Pi 4's peripherals, which hide the last 64 MiB of the first 4 GiB.
const PI4_REST: u64 = 3072 - 64;

/// All of them.
const BOARDS: &[Board] = &[
    Board { name: "pi4-1g", stretches: &[PI4] },
    Board { name: "pi4-2g", stretches: &[PI4, 1024] },
    Board { name: "pi4-4g", stretches: &[PI4, PI4_REST] },
    Board { name: "pi4-8g", stretches: &[PI4, PI4_REST, 4096] },
    Board { name: "pi5-2g", stretches: &[PI5, 1024] },
    Board { name: "pi5-4g", stretches: &[PI5, 3072] },
    Board { name: "pi5-8g", stretches: &[PI5, 7168] },
    Board { name: "pi5-16g", stretches: &[PI5, 15_360] },
];

impl Board {
    fn named(name: &str) -> Result<&'static Self> {
        BOARDS.iter().find(|board| board.name == name).with_context(|| {
            let names = BOARDS.iter().map(|board| board.name).collect::<Vec<_>>();
            format!("there is no board {name}: there are {}", names.join(", "))
        })
    }

    /// MiB that model and session can have.
    fn free(&self) -> u64 {
        self.stretches.iter().sum()
    }

    /// Whether it holds a model: weights, keys, values and the rest are a piece each and go where there is room first, as
    /// the firmware's allocator has it.
    fn holds(&self, budget: &Budget) -> bool {
        let half = budget.cache.div_ceil(2);
        // What is free of a stretch is its end, and all of it if nothing was taken yet.
        let whole: Vec<u64> = self.stretches.iter().map(|stretch| stretch << 20).collect();
        let mut free = whole.clone();
        [budget.weights, half, half, budget.scratch, budget.tokenizer].into_iter().all(|piece| {
            if let Some(place) = free.iter_mut().find(|free| **free >= piece) {
                *place -= piece;
                return true;
            }
            (0..free.len()).any(|first| {
                let untouched = (first + 1..free.len()).take_while(|&next| free[next] == whole[next]).count();
                let run = first..first + 1 + untouched;
                if free[run.clone()].iter().sum::<u64>() < piece {
                    return false;
                }
                let mut left = piece;
                for free in &mut free[run] {
                    let part = left.min(*free);
                    (*free, left) = (*free - part, left - part);
                }
                true
            })
        })
    }

    /// The largest context that it holds, up to what the model was made for; 0 for none.
    fn largest_context(&self, gguf: &Gguf, kv: KvFormat, most: usize) -> Result<usize> {
        let holds =
            |context| -> Result<bool> { Ok(self.holds(&Budget::of(gguf, context, kv).map_err(host::said)?)) };
        if holds(most)? {
            return Ok(most);
        }
        let (mut few, mut many) = (0, most);
        while many - few > 1 {
            let middle = few + (many - few) / 2;
            if holds(middle)? { few = middle } else { many = middle }
        }
        Ok(few)
    }

    /// Its free memory in words.
    fn memory(&self) -> String {
        let stretches = self.stretches.iter().map(u64::to_string).collect::<Vec<_>>();
        let in_all = self.free();
        if let [_] = self.stretches {
            format!("{in_all} MiB")
        } else {
            format!("{in_all} MiB in stretches of {}", stretches.join(" and "))
        }
    }
}

/// Carries out `inspect`.
pub fn run(args: &Args) -> Result<()> {
    let gguf =
        Gguf::open(&host::open(&args.model)?).map_err(host::said).with_context(|| args.model.clone())?;
    if let Some(board) = &args.board {
        return judge(&gguf, Board::named(board)?, args);
    }
    println!("GGUF version {}, {} bytes", gguf.version, gguf.file_bytes);
    println!("\nmetadata");
    for (key, value) in gguf.metadata.iter() {
        println!("  {key} = {}", value_shown(value));
    }
    println!("\ntensors");
    let name = |kind| kinds::by_id(kind).map_or_else(|| format!("type {kind}"), |kind| kind.name.to_owned());
    let mut by_kind = BTreeMap::<u32, (usize, u64, u64)>::new();
    for tensor in &gguf.tensors {
        let (count, weights, bytes) = by_kind.entry(tensor.kind).or_default();
        *count += 1;
        *weights += tensor.columns() * tensor.rows();
        *bytes += tensor.bytes;
        if args.tensors {
            let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
            println!("  {:32} {:8} {shape}", tensor.name, name(tensor.kind));
        }
    }
    for (kind, (count, weights, bytes)) in by_kind {
        let runs =
            if embodios::quant::FORMATS.iter().any(|row| row.id == kind) { "" } else { "  (can't be run)" };
        println!("  {count:4} {:8} {weights:>12} weights {:>9.1} MB{runs}", name(kind), bytes as f64 / 1e6);
    }
    let spec = families::spec(&gguf).map_err(host::said)?;
    println!(
        "\n{} layers, {} wide, {} heads over {} for keys and values, {} tokens, context {}",
        spec.layers, spec.embedding, spec.heads, spec.kv_heads, spec.vocabulary, spec.context
    );
    match Tokenizer::from_metadata(&gguf.metadata) {
        Err(error) => println!("the tokenizer can't be used: {error}"),
        Ok(tokenizer) => match Template::of(&gguf.metadata, &tokenizer) {
            Some((template, None)) => println!("chat template: {template}"),
            Some((template, Some(why))) => println!("chat template: {template} ({why})"),
            None => println!("chat template: none"),
        },
    }
    if let Err(error) = Opened::new(Gguf::open(&host::open(&args.model)?).map_err(host::said)?) {
        println!("it can't be run: {error}");
        return Ok(());
    }
    println!("\nmemory, in MiB, keys and values in {}", args.kv);
    println!("  context  weights   cache  scratch  tokenizer  in all");
    let contexts = [512, 2048, 4096, 8192, 32768].into_iter().filter(|&context| context < spec.context);
    for context in contexts.chain([spec.context]) {
        let budget = Budget::of(&gguf, context, args.kv).map_err(host::said)?;
        let [weights, cache, scratch, tokenizer, total] =
            [budget.weights, budget.cache, budget.scratch, budget.tokenizer, budget.total()].map(mib);
        println!("  {context:7}  {weights:7}  {cache:6}  {scratch:7}  {tokenizer:9}  {total:6}");
    }
    println!("\nboards (what firmware and kernel keep is not counted)");
    for board in BOARDS {
        match board.largest_context(&gguf, args.kv, spec.context)? {
            0..CONTEXT_LEAST => println!("  {:8} does not hold it", board.name),
            context if context == spec.context => {
                println!("  {:8} holds it with its whole context", board.name)
            }
            context => println!("  {:8} holds it with a context of {context}", board.name),
        }
    }
    Ok(())
}

/// Shorter contexts than this hold no conversation.
const CONTEXT_LEAST: usize = 256;

/// Says whether a board holds a model; an error if it does not.
fn judge(gguf: &Gguf, board: &Board, args: &Args) -> Result<()> {
    let spec = families::spec(gguf).map_err(host::said)?;
    model::check(gguf).map_err(host::said).context("it can't be run")?;
    let context = args.ctx.unwrap_or(spec.context);
    ensure!(
        (1..=spec.context).contains(&context),
        "the model was made for a context of 1 to {} tokens",
        spec.context
    );
    let budget = Budget::of(gguf, context, args.kv).map_err(host::said)?;
    let Budget { weights, cache, scratch, tokenizer, kv, .. } = budget;
    println!("{}: {} free for a model", board.name, board.memory());
    println!(
        "needed for a context of {context} tokens: {} MiB: weights {}, {kv} keys and values {}, scratch {}, tokenizer {}",
        mib(budget.total()),
        mib(weights),
        mib(cache),
        mib(scratch),
        mib(tokenizer)
    );
    let mut best = (0, "");
    for (name, kv) in KvFormat::ALL {
        if kv.fits(&spec) {
            let largest = board.largest_context(gguf, kv, spec.context)?;
            println!("largest context with keys and values in {name}: {largest} tokens");
            best = best.max((largest, name));
        }
    }
    if board.holds(&budget) {
        println!("{} holds it", board.name);
        return Ok(());
    }
    let larger = BOARDS.iter().find(|board| board.holds(&budget)).map(|board| board.name);
    let larger = larger.map_or(String::new(), |name| format!("; {name} holds it as it is"));
    match best {
        (0..CONTEXT_LEAST, _) => bail!("{} does not hold it: choose a smaller file{larger}", board.name),
        (most, name) => bail!(
            "{} does not hold it with that context: at most {most} tokens, with --kv {name}{larger}",
            board.name
        ),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// A value on one line; what is long is cut.
fn value_shown(value: &Value) -> String {
    let some = |items: Vec<String>, len: usize| {
        let more = if len > items.len() { ", …" } else { "" };
        format!("{len} of [{}{more}]", items.join(", "))
    };
    match value {
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::String(text) if text.chars().count() > 200 => {
            format!(
                "{} … ({} bytes)",
                shown(text.chars().take(200).collect::<String>().as_bytes()),
                text.len()
            )
        }
        Value::String(text) => shown(text.as_bytes()),
        Value::Strings(array) => some(array.iter().take(8).map(shown).collect(), array.len()),
        Value::Integers(array) => some(array.iter().take(8).map(u32::to_string).collect(), array.len()),
        Value::Floats(array) => some(array.iter().take(8).map(f32::to_string).collect(), array.len()),
        Value::Skipped(len) => format!("{len} values of another kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(weights: u64, cache: u64) -> Budget {
        Budget {
            weights: weights << 20,
            cache: cache << 20,
            scratch: 8 << 20,
            tokenizer: 0,
            context: 1,
            kv: KvFormat::F16,
        }
    }

    #[test]
    fn a_board_holds_pieces_in_one_stretch_of_memory_or_in_free_neighbours() {
        let holds = |name, weights, cache| Board::named(name).unwrap().holds(&budget(weights, cache));
        assert!(holds("pi4-1g", 800, 80));
        assert!(!holds("pi4-1g", 800, 90), "800 + 90 + 8 of 896");
        assert!(holds("pi4-2g", 1024, 800), "the second gigabyte is whole");
        assert!(holds("pi4-2g", 1500, 200), "in both");
        assert!(!holds("pi4-2g", 1000, 1000), "half of the cache is not free in one, nor where they meet");
        assert!(holds("pi4-2g", 880, 1022), "a half of keys and values in the second with the other");
        assert!(holds("pi4-8g", 4096, 3000));
        assert!(holds("pi4-8g", 4900, 2000), "an 8B model in four bits");
        assert!(holds("pi4-8g", 7900, 50) && !holds("pi4-8g", 8000, 50));
        assert!(holds("pi5-16g", 14_000, 1300));
        assert!(Board::named("pi4-3g").err().unwrap().to_string().contains("pi4-2g"));
    }
}
