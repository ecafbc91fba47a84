//! `inspect`: what is in a file, what it needs, and which boards hold it.

use crate::host;
use crate::tokenize::shown;
use anyhow::{Context, Result, bail, ensure};
use embodios::KvFormat;
use embodios::chat::Template;
use embodios::gguf::{Gguf, Value, kinds};
use embodios::model::budget::Budget;
use embodios::model::{Opened, families};
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
    gib: u64,
}

/// All of them.
const BOARDS: &[Board] = &[
    Board { name: "pi4-1g", gib: 1 },
    Board { name: "pi4-2g", gib: 2 },
    Board { name: "pi4-4g", gib: 4 },
    Board { name: "pi4-8g", gib: 8 },
    Board { name: "pi5-2g", gib: 2 },
    Board { name: "pi5-4g", gib: 4 },
    Board { name: "pi5-8g", gib: 8 },
    Board { name: "pi5-16g", gib: 16 },
];

/// Of that, what VideoCore's firmware (76 MiB as it comes) and the kernel keep, rounded up.
const RESERVED: u64 = 128 << 20;

impl Board {
    fn named(name: &str) -> Result<&'static Self> {
        BOARDS.iter().find(|board| board.name == name).with_context(|| {
            let names = BOARDS.iter().map(|board| board.name).collect::<Vec<_>>();
            format!("there is no board {name}: there are {}", names.join(", "))
        })
    }

    /// Bytes that model and session can have.
    fn free(&self) -> u64 {
        (self.gib << 30) - RESERVED
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
    println!("\nboards ({} MiB set aside for firmware and kernel)", mib(RESERVED));
    for board in BOARDS {
        match Budget::largest_context(&gguf, args.kv, board.free()).map_err(host::said)? {
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
    let context = args.ctx.unwrap_or(spec.context);
    ensure!(context <= spec.context, "the model was made for a context of {} tokens", spec.context);
    let Budget { weights, cache, scratch, tokenizer, kv, .. } =
        Budget::of(gguf, context, args.kv).map_err(host::said)?;
    let total = weights + cache + scratch + tokenizer;
    println!(
        "{}: {} MiB free for a model, {} set aside for firmware and kernel",
        board.name,
        mib(board.free()),
        mib(RESERVED)
    );
    println!(
        "needed for a context of {context} tokens: {} MiB: weights {}, {kv} keys and values {}, scratch {}, tokenizer {}",
        mib(total),
        mib(weights),
        mib(cache),
        mib(scratch),
        mib(tokenizer)
    );
    let mut most = 0;
    for (name, kv) in KvFormat::ALL {
        let largest = Budget::largest_context(gguf, kv, board.free()).map_err(host::said)?;
        if kv.fits(&spec) {
            println!("largest context with keys and values in {name}: {largest} tokens");
            most = most.max(largest);
        }
    }
    if total <= board.free() {
        println!("{} holds it", board.name);
        return Ok(());
    }
    let larger = BOARDS.iter().find(|board| total <= board.free()).map(|board| board.name);
    let larger = larger.map_or(String::new(), |name| format!("; {name} holds it as it is"));
    match most {
        0..CONTEXT_LEAST => bail!("{} does not hold it: choose a smaller file{larger}", board.name),
        most => bail!(
            "{} does not hold it with that context: at most {most} tokens, perhaps with --kv q8_0{larger}",
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
