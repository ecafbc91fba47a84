//! `image`: a bootable SD card as a file.

mod additions;
pub mod boot_files;
mod card;
#[cfg(all(test, target_os = "linux"))]
mod inspected;

pub use card::{Card, Content, SMALLEST, parse_size, show_size};

use crate::{build, host, models, project};
use anyhow::{Context, Result, bail, ensure};
use card::file_name;
use embodios::Opened;
use embodios::gguf::Gguf;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Build a bootable SD card image: FAT32 with Raspberry Pi's boot files, config.txt, kernel8.img, EMBODIOS.CFG and models.
///
/// Write it to a card with `cargo embodi flash`, or give it to QEMU, which takes sizes that are powers of two only.
/// Models keep their long names. The image's SHA-256 is in the file SHA256SUMS beside it. A card from which a board of
/// --board could not start is refused.
#[derive(clap::Args)]
pub struct Args {
    /// Where to put the image [default: target/card.img]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The board that it shall start: its boot files are put on the card
    #[arg(long, value_enum, default_value = "both")]
    board: Boards,
    /// A model to put on the card: name from the catalog or path; may be repeated
    #[arg(long, short, value_name = "NAME|PATH")]
    model: Vec<String>,
    /// Another file to put on the card, under a name of its own if one is given; may be repeated. A config.txt,
    /// EMBODIOS.CFG, kernel8.img or boot file of yours takes the place of ours
    #[arg(long, value_name = "SRC[=NAME]")]
    file: Vec<String>,
    /// Put the model into kernel8.img instead of beside it: for one model, and a small one
    #[arg(long, conflicts_with = "empty")]
    embed: bool,
    /// Size of the card: 64M to 256G, or 16GB as printed on cards [default: the smallest power of two that holds
    /// everything]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Take Raspberry Pi's boot files and device trees from this folder instead of Debian's packages
    #[arg(long, value_name = "DIR", conflicts_with_all = ["no_boot_files", "empty"])]
    boot_files: Option<PathBuf>,
    /// Leave Raspberry Pi's boot files and device trees out: an emulator needs none, or you add them yourself
    #[arg(long)]
    no_boot_files: bool,
    /// Start with the file system itself instead of a partition table
    #[arg(long)]
    no_mbr: bool,
    /// Put nothing on the card but what --model and --file say
    #[arg(long)]
    empty: bool,
}

/// A kind of board, as far as its boot files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Raspberry Pi 4 Model B, 400, Compute Module 4.
    Pi4,
    /// Raspberry Pi 5, 500, Compute Module 5.
    Pi5,
}

/// What `--board` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Boards {
    /// Raspberry Pi 4 and 400
    Pi4,
    /// Raspberry Pi 5
    Pi5,
    /// One card for all of them
    Both,
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pi4 => "a Raspberry Pi 4",
            Self::Pi5 => "a Raspberry Pi 5",
        })
    }
}

impl Boards {
    fn each(self) -> &'static [Board] {
        match self {
            Self::Pi4 => &[Board::Pi4],
            Self::Pi5 => &[Board::Pi5],
            Self::Both => &[Board::Pi4, Board::Pi5],
        }
    }
}

/// Carries out `image`.
pub fn run(args: &Args) -> Result<()> {
    let mut card = Card { size: args.size, partition_table: !args.no_mbr, ..Card::default() };
    let boards = if args.empty || args.no_boot_files { &[] } else { args.board.each() };
    let scratch = project::Scratch::new()?;
    // A default model makes the image bootable to an answer; whoever names files wants those.
    let default = (!args.empty && args.model.is_empty() && (args.file.is_empty() || args.embed))
        .then(|| models::DEFAULT.to_owned());
    let mut models = args.model.iter().chain(&default);
    if !args.empty {
        let mut kernel = build::kernel()?.image;
        if args.embed {
            let (Some(model), None) = (models.next(), models.next()) else {
                bail!("--embed takes one model: name the others without it, or leave it away")
            };
            let both = scratch.path().join("kernel8.img");
            build::embed::append(&kernel, &*host::open(model)?, &both)
                .with_context(|| format!("{model} can't be embedded"))?;
            kernel = both;
        }
        card = card.with_kernel(&kernel);
        if !boards.is_empty() {
            boot_files::add(&mut card, boards, args.boot_files.as_deref())?;
        }
    }
    let mut ours = card.files.iter().map(|(name, _)| name.clone()).collect();
    for model in models {
        let path = crate::models::resolve(model)?;
        card = card.with_model(&path)?;
        if let Err(why) = runs(&path) {
            eprintln!("image: {model} is on the card, but a board will not run it: {why:#}");
        }
    }
    for file in &args.file {
        if let Some(words) = additions::add(&mut card, &mut ours, file)? {
            eprintln!("image: {words}");
        }
    }
    ensure!(
        !args.embed || ours.iter().any(|name| name == "kernel8.img"),
        "--embed puts the model into our kernel8.img, and --file brings another: leave one of them away"
    );
    let missing = boot_files::missing(&card, boards);
    missing.can_start(&card, boards)?;
    let output = args.output.clone().unwrap_or_else(|| project::target_dir().join("card.img"));
    let size = card.write(&output)?;
    let sums = note_sum(&output)?;
    println!(
        "{}: {} card; its SHA-256 is in {}",
        project::shown(&output),
        show_size(size),
        project::shown(&sums)
    );
    for (name, content) in &card.files {
        println!("  {:>11} bytes  {name}", content.bytes()?);
    }
    if let Some(words) = missing.words() {
        println!("{words}");
    }
    Ok(())
}

/// Whether a board can run a model, as far as its header tells.
fn runs(model: &Path) -> Result<()> {
    let source = host::open_file(model)?;
    let gguf = Gguf::open(&source).map_err(host::said)?;
    Opened::new(gguf).map(drop).map_err(host::said)
}

/// Puts the SHA-256 of an image into the file SHA256SUMS beside it, as `sha256sum --check` reads it; other lines stay.
fn note_sum(image: &Path) -> Result<PathBuf> {
    let sums = image.with_file_name("SHA256SUMS");
    let name = file_name(image)?;
    ensure!(!name.contains(['\n', '\\']), "the name of the image can't be written into {}", sums.display());
    let others = fs::read_to_string(&sums).unwrap_or_default();
    let of_others =
        others.lines().filter(|line| line.split_once("  ").is_none_or(|(_, other)| other != name));
    let mut text: String = of_others.map(|line| format!("{line}\n")).collect();
    text += &format!("{}  {name}\n", models::sha256(image)?);
    fs::write(&sums, text).with_context(|| format!("could not write {}", sums.display()))?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Scratch;

    #[test]
    fn a_file_that_is_no_model_is_told_before_a_board_refuses_it() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().join("m.gguf");
        fs::write(&path, embodios::synth::tiny(1, embodios::quant::by_name("Q4_0").unwrap())).unwrap();
        runs(&path).unwrap();
        fs::write(&path, "PK").unwrap();
        assert!(runs(&path).unwrap_err().to_string().contains("not a GGUF file"));
    }

    #[test]
    fn the_sum_of_an_image_replaces_its_old_one_and_leaves_those_of_other_files() {
        let scratch = Scratch::new().unwrap();
        let image = scratch.path().join("card.img");
        let read = || fs::read_to_string(scratch.path().join("SHA256SUMS")).unwrap();
        fs::write(&image, "abc").unwrap();
        note_sum(&image).unwrap();
        // FIPS 180-2, B.1
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(read(), format!("{abc}  card.img\n"));
        fs::write(scratch.path().join("SHA256SUMS"), "00  card.img\n11  other card.img\n").unwrap();
        note_sum(&image).unwrap();
        assert_eq!(read(), format!("11  other card.img\n{abc}  card.img\n"));
    }
}
