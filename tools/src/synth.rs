//! `synth`: a random model of any family, format and size.

use anyhow::{Context, Result, bail, ensure};
use embodios::gguf::kinds::{KINDS, Kind};
use embodios::synth::shapes::{self, SHAPES};
use embodios::synth::tokenizer::Vocabulary;
use embodios::synth::{CASES, Recipe, families};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Make a random model: tiny for tests, or of the shape of a published one for measuring.
///
/// Its answers are letters without sense. The same arguments give the same file, byte by byte. A large matrix repeats
/// its rows after a million weights.
#[derive(clap::Args)]
#[command(after_help = tables())]
pub struct Args {
    /// The family
    #[arg(long, value_name = "NAME", conflicts_with = "like")]
    family: Option<String>,
    /// Sizes, family and vocabulary of a published model
    #[arg(long, value_name = "NAME")]
    like: Option<String>,
    /// The format of its matrices: F32, Q4_1, Q4_K … any that GGUF has
    #[arg(long = "type", value_name = "FORMAT", default_value = "Q8_0")]
    format: String,
    /// Another seed, other weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The vocabulary, if not the family's: bpe, spm or gemma
    #[arg(long, value_name = "KIND")]
    tokenizer: Option<String>,
    /// Transformer blocks
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    layers: Option<usize>,
    /// Numbers a token
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    embedding: Option<usize>,
    /// Query heads
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    heads: Option<usize>,
    /// Key and value heads
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    kv_heads: Option<usize>,
    /// Numbers a head [default: embedding / heads]
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    head_size: Option<usize>,
    /// Width of the feed-forward network
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    feed_forward: Option<usize>,
    /// Tokens
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    vocabulary: Option<usize>,
    /// Positions
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    context: Option<usize>,
    /// Positions that a sliding-window layer looks back
    #[arg(long, value_name = "N", help_heading = "Sizes")]
    window: Option<usize>,
    /// The file to write
    #[arg(long, short, value_name = "FILE", required_unless_present = "list")]
    output: Option<PathBuf>,
    /// List the families, one a line
    #[arg(long)]
    list: bool,
}

fn tables() -> String {
    let list = |names: Vec<&str>| names.join(", ");
    format!(
        "Families: {}.\n\nPublished models: {}.",
        list(CASES.iter().map(|case| case.name).collect()),
        list(SHAPES.iter().map(|row| row.name).collect())
    )
}

fn format(name: &str) -> Result<&'static Kind> {
    KINDS.iter().find(|kind| kind.name.eq_ignore_ascii_case(name)).with_context(|| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        format!("there is no tensor type {name}, only {}", names.join(", "))
    })
}

fn recipe(args: &Args) -> Result<Recipe> {
    let format = format(&args.format)?;
    let mut recipe = match &args.like {
        Some(name) => {
            let case = shapes::published(name).and_then(shapes::Published::case).with_context(|| {
                let names: Vec<_> = SHAPES.iter().map(|row| row.name).collect();
                format!("the shape of {name} is not known here, only of {}", names.join(", "))
            })?;
            Recipe { case, format, seed: args.seed }
        }
        None => {
            let name = args.family.as_deref().unwrap_or("llama");
            let case = families::case(name).with_context(|| {
                let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
                format!("there is no family {name} here, only {}", names.join(", "))
            })?;
            Recipe::tiny(case, format, args.seed)
        }
    };
    let case = &mut recipe.case;
    case.tokenizer = match args.tokenizer.as_deref() {
        None => case.tokenizer,
        Some("bpe") => Vocabulary::Bpe("smollm"),
        Some("spm") => Vocabulary::Spm,
        Some("gemma") => Vocabulary::Gemma,
        Some(other) => bail!("there is no vocabulary {other}, only bpe, spm and gemma"),
    };
    let shape = &mut case.shape;
    let set = |size: &mut usize, given: Option<usize>| *size = given.unwrap_or(*size);
    set(&mut shape.layers, args.layers);
    set(&mut shape.embedding, args.embedding);
    set(&mut shape.heads, args.heads);
    set(&mut shape.kv_heads, args.kv_heads);
    set(&mut shape.feed_forward, args.feed_forward);
    set(&mut shape.vocabulary, args.vocabulary);
    set(&mut shape.context, args.context);
    shape.window = args.window.or(shape.window);
    // Who changes width or heads means heads of another size, of which as much turns as before.
    let changed = args.embedding.or(args.heads).map(|_| shape.embedding / shape.heads.max(1));
    if let Some(size) = args.head_size.or(changed) {
        shape.rope_width = (shape.rope_width * size / shape.head_size.max(1)).next_multiple_of(2);
        shape.head_size = size;
    }
    Ok(recipe)
}

/// Carries out `synth`; prints the path as the last line.
pub fn run(args: &Args) -> Result<()> {
    let Some(output) = args.output.as_ref().filter(|_| !args.list) else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    };
    let recipe = recipe(args)?;
    let plan = recipe.plan()?;
    ensure!(!output.is_dir(), "{} is a folder: name a file", output.display());
    let failed = || format!("could not write {}", output.display());
    // Beside and renamed: what has the final name is whole.
    let part = output.with_extension(format!("part{}", std::process::id()));
    let written = File::create(&part).and_then(|file| {
        let mut file = BufWriter::new(file);
        plan.write(&mut |bytes| file.write_all(bytes))?;
        file.flush()?;
        std::fs::rename(&part, output)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(failed)?;
    eprintln!("{} in {}, {} MiB", recipe.case.name, recipe.format.name, plan.bytes().div_ceil(1 << 20));
    println!("{}", output.display());
    Ok(())
}
