//! `tokenize`: how a model reads a text.

use crate::host;
use anyhow::Result;
use embodios::gguf::Gguf;
use embodios::tokenizer::Tokenizer;

/// Show the tokens of a text.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    #[arg(value_name = "FILE")]
    model: String,
    /// The text; `-` reads standard input
    text: String,
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
    let text = if args.text == "-" { std::io::read_to_string(std::io::stdin())? } else { args.text.clone() };
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
