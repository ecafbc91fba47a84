//! `tokenize`: how a model reads a text.

use crate::host;
use anyhow::{Context, Result};
use embodios::gguf::Gguf;
use embodios::tokenizer::Tokenizer;
use std::io::{BufRead, BufReader, BufWriter, Write};

/// Show the tokens of a text.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    #[arg(value_name = "FILE")]
    model: String,
    /// The text; `-` reads standard input
    #[arg(required_unless_present = "batch")]
    text: Option<String>,
    /// Many texts at once: a file with a JSON string a line; `-` reads standard input. Implies --json
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    batch: Option<String>,
    /// One line of JSON: an array of ids
    #[arg(long)]
    json: bool,
    /// Add what the model wants at the beginning and at the end
    #[arg(long)]
    special: bool,
    /// Take "<|im_start|>" and the like as text instead of as the tokens they name
    #[arg(long)]
    literal: bool,
}

/// Carries out `tokenize`.
pub fn run(args: &Args) -> Result<()> {
    let gguf = Gguf::open(&host::open(&args.model)?).map_err(host::said)?;
    let tokenizer = Tokenizer::from_metadata(&gguf.metadata).map_err(host::said)?;
    tokenizer.warning().into_iter().for_each(|warning| eprintln!("note: {warning}"));
    if let Some(path) = &args.batch {
        return batch(path, &|text| tokenizer.encode(text, args.special, !args.literal));
    }
    let text = match args.text.as_deref().unwrap_or_default() {
        "-" => std::io::read_to_string(std::io::stdin())?,
        text => text.to_owned(),
    };
    let tokens = tokenizer.encode(&text, args.special, !args.literal);
    if args.json {
        println!("{}", serde_json::to_string(&tokens)?);
        return Ok(());
    }
    for &token in &tokens {
        println!("{token:7}  {}", shown(tokenizer.piece(token)));
    }
    println!("{} tokens", tokens.len());
    Ok(())
}

/// Writes a line of ids for each line of the file.
fn batch(path: &str, encode: &dyn Fn(&str) -> Vec<u32>) -> Result<()> {
    let lines: Box<dyn BufRead> = match path {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(BufReader::new(
            std::fs::File::open(path).with_context(|| format!("could not open {path}"))?,
        )),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (number, line) in lines.lines().enumerate() {
        let text: String = serde_json::from_str(&line?)
            .with_context(|| format!("line {} of {path} is not a JSON string", number + 1))?;
        writeln!(out, "{}", serde_json::to_string(&encode(&text))?)?;
    }
    Ok(out.flush()?)
}

/// A token's bytes in quotes: as text where they are text.
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // An apostrophe needs no escape between double quotes.
            if c == '\'' { out.push(c) } else { out.extend(c.escape_debug()) }
        }
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(shown("é'\n".as_bytes()), "\"é'\\n\"");
        assert_eq!(shown(b"a\xf0\x9f"), "\"a\\xf0\\x9f\"");
    }
}
