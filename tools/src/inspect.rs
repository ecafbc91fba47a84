//! `inspect`: what is in a file, what it needs, and which boards hold it.

use crate::host;
use crate::tokenize::shown;
use anyhow::{Context, Result};
use embodios::gguf::{Gguf, Value, kinds};
use embodios::model::budget::Budget;
use embodios::model::families;
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
}

/// RAM of the boards that are sold, in GiB.
const BOARDS: [u64; 5] = [1, 2, 4, 8, 16];
/// Of that, what VideoCore's firmware (76 MiB as it comes) and the kernel keep, rounded up.
const RESERVED: u64 = 128 << 20;

/// Carries out `inspect`.
pub fn run(args: &Args) -> Result<()> {
    let gguf =
        Gguf::open(&host::open(&args.model)?).map_err(host::said).with_context(|| args.model.clone())?;
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
    println!("\nmemory, in MiB");
    println!("  context  weights   cache  scratch  tokenizer  in all");
    let contexts = [512, 2048, 4096, 8192, 32768].into_iter().filter(|&context| context < spec.context);
    for context in contexts.chain([spec.context]) {
        let budget = Budget::of(&gguf, context).map_err(host::said)?;
        let [weights, cache, scratch, tokenizer, total] =
            [budget.weights, budget.cache, budget.scratch, budget.tokenizer, budget.total()].map(mib);
        println!("  {context:7}  {weights:7}  {cache:6}  {scratch:7}  {tokenizer:9}  {total:6}");
    }
    println!("\nboards ({} MiB set aside for firmware and kernel)", mib(RESERVED));
    let budget = Budget::of(&gguf, spec.context).map_err(host::said)?;
    for board in BOARDS {
        let context = budget.largest_context((board << 30) - RESERVED).min(spec.context);
        match context {
            0 => println!("  {board:2} GB  does not hold it"),
            context if context == spec.context => println!("  {board:2} GB  holds it with its whole context"),
            context => println!("  {board:2} GB  holds it with a context of {context}"),
        }
    }
    Ok(())
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
