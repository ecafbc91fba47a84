//! `image`: a bootable SD card as a file, made with neither root nor mtools.
//!
//! FAT32 always, because that is what every board's boot ROM reads. Sizes are powers of two, because QEMU
//! takes no other; up to 2 GiB it then shows an SDSC card, above an SDHC card.

use crate::{build, models, project};
use anyhow::{Context, Result, bail, ensure};
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use fscommon::{BufStream, StreamSlice};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Smallest card: FAT32 needs 65,525 clusters, and QEMU a power of two.
pub const SMALLEST: u64 = 64 << 20;
/// Largest card we make; SDXC cards above it come with exFAT, which nothing here reads.
const LARGEST: u64 = 32 << 30;
/// FAT32 keeps a file's size in 32 bits.
const LARGEST_FILE: u64 = u32::MAX as u64;
const SECTOR: u64 = 512;
/// Partitions start at 1 MiB, as every partitioning tool has it: the erase blocks of cards are aligned so.
const PARTITION_START: u64 = (1 << 20) / SECTOR;

/// EMBODIOS.CFG as `image` writes it: nothing needs to be set, but these are what people ask for first.
const CONFIG: &str = "\
# EMBODIOS.CFG, read at every start: `key = value`, one a line; # begins a comment.
# `set` at the prompt shows all keys and what they are.
#
#model = NAME.gguf           which model, where several are on the card
#ctx = 4096                  tokens a conversation may hold
#temperature = 0.8           0 always takes the likeliest token
#seed = 1                    the same seed gives the same text
#system = \"You are brief.\"   what the model is told before the conversation
";

/// Build a bootable SD card image: FAT32 with config.txt, kernel8.img, EMBODIOS.CFG and models.
///
/// Write it to a card as it is, or give it to QEMU. Models keep their long names.
#[derive(clap::Args)]
pub struct Args {
    /// Where to put the image [default: target/card.img]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A model to put on the card: name from the catalog or path; may be repeated
    #[arg(long, short, value_name = "NAME|PATH")]
    model: Vec<String>,
    /// Another file to put on the card, under a name of its own if one is given; may be repeated
    #[arg(long, value_name = "SRC[=NAME]")]
    file: Vec<String>,
    /// Size of the card, a power of two: 64M … 32G [default: the smallest that holds everything]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Start with the file system itself instead of a partition table
    #[arg(long)]
    no_mbr: bool,
    /// Put nothing on the card but what --model and --file say
    #[arg(long)]
    empty: bool,
}

/// Carries out `image`.
pub fn run(args: &Args) -> Result<()> {
    let mut card = Card { size: args.size, partition_table: !args.no_mbr, ..Card::default() };
    if !args.empty {
        card = card.with_kernel(&build::kernel()?.image);
    }
    // A default model makes the image bootable to an answer; whoever names files wants those.
    let default =
        (!args.empty && args.model.is_empty() && args.file.is_empty()).then(|| models::DEFAULT.to_owned());
    for model in args.model.iter().chain(&default) {
        card = card.with_file(&models::resolve(model)?)?;
    }
    for file in &args.file {
        let (source, name) = match file.rsplit_once('=') {
            Some((source, name)) => (Path::new(source), name.to_owned()),
            None => (Path::new(file.as_str()), file_name(Path::new(file))?),
        };
        card.put(name, Content::Path(source.to_path_buf()));
    }
    let output = args.output.clone().unwrap_or_else(|| project::target_dir().join("card.img"));
    let size = card.write(&output)?;
    println!("{}: {} card", project::shown(&output), show_size(size));
    for (name, content) in &card.files {
        println!("  {:>11} bytes  {name}", content.len()?);
    }
    Ok(())
}

/// What a file on the card is made from.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file on this PC.
    Path(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Content {
    fn len(&self) -> Result<u64> {
        match self {
            Self::Path(path) => {
                let data =
                    fs::metadata(path).with_context(|| format!("could not read {}", path.display()))?;
                ensure!(data.is_file(), "{} is not a file", path.display());
                Ok(data.len())
            }
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }
}

/// A card to be written.
#[derive(Clone, Debug)]
pub struct Card {
    /// Bytes, a power of two; the smallest that holds everything if not given.
    pub size: Option<u64>,
    /// Whether it begins with a partition table or with the file system itself.
    pub partition_table: bool,
    /// Names in the root directory and what they hold.
    pub files: Vec<(String, Content)>,
}

impl Default for Card {
    fn default() -> Self {
        Self { size: None, partition_table: true, files: Vec::new() }
    }
}

impl Card {
    /// Adds what makes it bootable: config.txt, kernel8.img, and an EMBODIOS.CFG to be edited.
    pub fn with_kernel(mut self, kernel: &Path) -> Self {
        self.put("config.txt", Content::Path(project::root().join("config.txt")));
        self.put("kernel8.img", Content::Path(kernel.to_path_buf()));
        self.put("EMBODIOS.CFG", Content::Bytes(CONFIG.as_bytes().to_vec()));
        self
    }

    /// Adds a file of this PC under its own name.
    pub fn with_file(mut self, path: &Path) -> Result<Self> {
        self.put(file_name(path)?, Content::Path(path.to_path_buf()));
        Ok(self)
    }

    /// Adds a file made of `bytes`.
    pub fn with_bytes(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.put(name, Content::Bytes(bytes.into()));
        self
    }

    /// Adds a file, in the place of one of the same name.
    pub fn put(&mut self, name: impl Into<String>, content: Content) {
        let name = name.into();
        self.files.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        self.files.push((name, content));
    }

    /// Writes the image and returns its size in bytes.
    pub fn write(&self, path: &Path) -> Result<u64> {
        let part = path.with_extension(format!("part{}", std::process::id()));
        let result = self.write_to(&part);
        if result.is_err() {
            // The error that matters is the one being returned.
            let _ = fs::remove_file(&part);
        }
        let size = result.with_context(|| format!("could not write the card image {}", path.display()))?;
        fs::rename(&part, path)?;
        Ok(size)
    }

    fn write_to(&self, path: &Path) -> Result<u64> {
        let mut content = 0;
        for (name, file) in &self.files {
            let bytes = file.len()?;
            ensure!(bytes <= LARGEST_FILE, "{name} is larger than 4 GB, the most that FAT32 can hold");
            content += bytes;
        }
        // Both FATs take 8 bytes a cluster, and every file half a cluster on average.
        let need = content + content / 32 + (4 << 20);
        let size = self.size.unwrap_or_else(|| need.next_power_of_two().max(SMALLEST));
        ensure!(
            size.is_power_of_two() && (SMALLEST..=LARGEST).contains(&size),
            "a card of {size} bytes can't be emulated: the size must be a power of two from 64M to 32G"
        );
        ensure!(need <= size, "the files need {} and the card has {}", show_size(need), show_size(size));

        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        file.set_len(size)?; // sparse: only what is written takes space
        let start = if self.partition_table { PARTITION_START } else { 0 };
        if self.partition_table {
            write_partition_table(&mut file, size)?;
        }
        let mut volume = BufStream::new(StreamSlice::new(file, start * SECTOR, size)?);
        let sectors = u32::try_from(size / SECTOR - start)?;
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat32)
            .total_sectors(sectors)
            .bytes_per_cluster(cluster_bytes(size))
            .volume_label(*b"EMBODIOS   ");
        fatfs::format_volume(&mut volume, options)?;
        let volume = FileSystem::new(volume, FsOptions::new().time_provider(&OneDate))?;
        if volume.fat_type() != FatType::Fat32 {
            bail!("the file system came out too small for FAT32");
        }
        let bar = progress(content);
        for (name, file) in &self.files {
            bar.set_message(name.clone());
            let mut target =
                volume.root_dir().create_file(name).with_context(|| format!("could not make {name}"))?;
            match file {
                Content::Bytes(bytes) => copy(&mut bytes.as_slice(), &mut target, &bar),
                Content::Path(path) => copy(&mut File::open(path)?, &mut target, &bar),
            }
            .with_context(|| format!("could not write {name}"))?;
        }
        bar.finish_and_clear();
        volume.unmount()?;
        Ok(size)
    }
}

/// Every file bears one date, so that the same files make the same image.
#[derive(Debug)]
struct OneDate;

impl TimeProvider for OneDate {
    fn get_current_date(&self) -> Date {
        Date { year: 2026, month: 1, day: 1 }
    }
    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 12, min: 0, sec: 0, millis: 0 } }
    }
}

/// FAT32 needs 65,525 clusters at least; larger ones make a shorter FAT and a faster card.
fn cluster_bytes(size: u64) -> u32 {
    match size >> 20 {
        ..128 => 512,
        128..256 => 1024,
        256..512 => 2048,
        512..8192 => 4096,
        8192..16384 => 8192,
        _ => 16384,
    }
}

fn write_partition_table(file: &mut File, size: u64) -> Result<()> {
    let mut table = mbrman::MBR::new_from(file, SECTOR as u32, *b"EMBD")?;
    table[1] = mbrman::MBRPartitionEntry {
        boot: mbrman::BOOT_INACTIVE,
        first_chs: mbrman::CHS::empty(),
        sys: 0x0c, // FAT32, addressed by block number
        last_chs: mbrman::CHS::empty(),
        starting_lba: PARTITION_START as u32,
        sectors: u32::try_from(size / SECTOR - PARTITION_START)?,
    };
    table.write_into(file)?;
    Ok(())
}

fn copy(source: &mut impl Read, target: &mut impl Write, bar: &ProgressBar) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        target.write_all(&buffer[..count])?;
        bar.inc(count as u64);
    }
    target.flush()?;
    Ok(())
}

/// A bar on the terminal; nothing where there is none.
fn progress(bytes: u64) -> ProgressBar {
    if bytes < 8 << 20 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("card image: {msg} [{bar:30}] {bytes}/{total_bytes}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    Ok(name.to_str().with_context(|| format!("the name of {} is not UTF-8", path.display()))?.to_owned())
}

/// "64M", "4G" or a number of bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        unit => return Err(format!("\"{unit}\" is not K, M or G")),
    };
    let number: u64 = digits.parse().map_err(|_| "a number is needed, as in 256M".to_owned())?;
    number
        .checked_shl(shift)
        .filter(|size| size >> shift == number)
        .ok_or_else(|| "that is too large".to_owned())
}

fn show_size(bytes: u64) -> String {
    if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Scratch;
    use std::io::{Seek, SeekFrom};

    fn read_back(path: &Path, start: u64, name: &str) -> Vec<u8> {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let end = file.metadata().unwrap().len();
        let volume = FileSystem::new(StreamSlice::new(file, start, end).unwrap(), FsOptions::new()).unwrap();
        assert_eq!(volume.fat_type(), FatType::Fat32);
        let mut bytes = Vec::new();
        volume.root_dir().open_file(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_put_on_a_card_is_read_back_with_and_without_a_partition_table() {
        let pattern: Vec<u8> = (0..3_000_001u32).map(|n| (n * 7 + n / 512) as u8).collect();
        for (partition_table, start) in [(true, PARTITION_START * SECTOR), (false, 0)] {
            let scratch = Scratch::new().unwrap();
            let image = scratch.path().join("card.img");
            let card = Card { partition_table, ..Card::default() }
                .with_bytes("A model with a long name.Q4_1.gguf", pattern.clone())
                .with_bytes("EMPTY.TXT", "");
            assert_eq!(card.write(&image).unwrap(), SMALLEST);
            assert_eq!(read_back(&image, start, "A model with a long name.Q4_1.gguf"), pattern);
            assert!(read_back(&image, start, "empty.txt").is_empty());
        }
    }

    #[test]
    fn a_partition_table_names_one_fat32_partition_up_to_the_end() {
        let scratch = Scratch::new().unwrap();
        let image = scratch.path().join("card.img");
        Card::default().with_bytes("a", "b").write(&image).unwrap();
        let mut file = File::open(&image).unwrap();
        let table = mbrman::MBR::read_from(&mut file, 512).unwrap();
        assert_eq!((table[1].sys, table[1].starting_lba), (0x0c, 2048));
        assert_eq!((u64::from(table[1].starting_lba) + u64::from(table[1].sectors)) * SECTOR, SMALLEST);
        file.seek(SeekFrom::Start(510)).unwrap();
        let mut signature = [0; 2];
        file.read_exact(&mut signature).unwrap();
        assert_eq!(signature, [0x55, 0xaa]);
    }

    #[test]
    fn every_power_of_two_gives_fat32_and_other_sizes_are_refused() {
        for shift in [26, 27, 28, 29, 30, 32] {
            let scratch = Scratch::new().unwrap();
            let image = scratch.path().join("card.img");
            let card = Card { size: Some(1 << shift), ..Card::default() }.with_bytes("x", "y");
            assert_eq!(card.write(&image).unwrap(), 1 << shift);
            assert_eq!(read_back(&image, PARTITION_START * SECTOR, "x"), b"y");
        }
        let scratch = Scratch::new().unwrap();
        let odd = scratch.path().join("odd.img");
        for size in [32 << 20, 65 << 20, 1 << 40] {
            assert!(Card { size: Some(size), ..Card::default() }.write(&odd).is_err());
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(
            parse_size("4T").is_err() && parse_size("G").is_err() && parse_size("99999999999999G").is_err()
        );
    }
}
