//! `supported`: model families and weight formats that run, as README shows them.
//!
//! The tables are made from the engine's own, [`FAMILIES`] and [`FORMATS`]; a test holds README to them.

use crate::project::{self, shown};
use anyhow::{Context, Result, ensure};
use embodios::model::families::FAMILIES;
use embodios::quant::FORMATS;
use std::fmt::Write;
use std::fs;

/// Print the model families and weight formats that run, as the tables of README.
#[derive(clap::Args)]
pub struct Args {
    /// Put them into README.md, between its two marks
    #[arg(long)]
    write: bool,
}

/// Between these lines README has what [`tables`] gives.
const MARKS: [&str; 2] = ["<!-- cargo embodi supported -->\n", "<!-- end of supported -->\n"];

/// Carries out `supported`.
pub fn run(args: &Args) -> Result<()> {
    if !args.write {
        print!("{}", tables());
        return Ok(());
    }
    let path = project::root().join("README.md");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", shown(&path)))?;
    let (before, _, after) = parts(&text)?;
    fs::write(&path, format!("{before}{}{after}", tables()))
        .with_context(|| format!("could not write {}", shown(&path)))
}

/// README up to the tables, they, and what follows.
fn parts(readme: &str) -> Result<(&str, &str, &str)> {
    let place = |mark: &str| readme.find(mark).with_context(|| format!("README.md lacks the line {mark}"));
    let (start, end) = (place(MARKS[0])? + MARKS[0].len(), place(MARKS[1])?);
    ensure!(start <= end, "README.md has {} before {}", MARKS[1], MARKS[0]);
    Ok((&readme[..start], &readme[start..end], &readme[end..]))
}

/// Both tables in Markdown.
fn tables() -> String {
    let mut text = String::from("| family | `general.architecture` | for example |\n| --- | --- | --- |\n");
    for family in FAMILIES {
        let _ = writeln!(text, "| {} | `{}` | {} |", family.name, family.architecture, family.examples);
    }
    text += "\n| weight format | bits a weight | weights in a block |\n| --- | --: | --: |\n";
    for format in FORMATS {
        let bits = 8.0 * format.bytes as f64 / format.len as f64;
        let _ = writeln!(text, "| {} | {bits:.2} | {} |", format.name, format.len);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_shows_the_families_and_formats_that_there_are() {
        let readme = fs::read_to_string(project::root().join("README.md")).unwrap();
        let (_, shown, _) = parts(&readme).unwrap();
        assert_eq!(shown, tables(), "run `cargo embodi supported --write`");
    }

    #[test]
    fn a_readme_without_its_marks_is_told_so() {
        for text in ["", MARKS[0], &format!("{}{}", MARKS[1], MARKS[0])] {
            assert!(parts(text).is_err(), "{text}");
        }
    }
}
