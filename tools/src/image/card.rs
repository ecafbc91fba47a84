//! A card as a file: partition table, FAT32, files. Made with neither root nor loop devices nor mtools.
//!
//! FAT32 always, because that is what every board's boot ROM reads. Where no size is asked for it is a power of two,
//! because QEMU takes no other; up to 2 GiB it then shows an SDSC card, above an SDHC card.

use crate::project;
use anyhow::{Context, Result, bail, ensure};
use embodios::gguf::split::ShardName;
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use fscommon::{BufStream, StreamSlice};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Smallest card: FAT32 needs 65,525 clusters, and QEMU a power of two.
pub const SMALLEST: u64 = 64 << 20;
/// Largest card we make: more would be two FATs of more than 64 MiB, and no model needs it.
const LARGEST: u64 = 256 << 30;
/// FAT32 keeps a file's size in 32 bits.
const LARGEST_FILE: u64 = u32::MAX as u64;
/// Sectors before the first FAT, as `fatfs` has it, rounded up.
const RESERVED: u64 = 32;
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

/// What a file on the card is made from.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file on this PC.
    Path(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Content {
    /// Bytes in it.
    pub fn bytes(&self) -> Result<u64> {
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
    /// Bytes, whole MiB; the smallest power of two that holds everything if not given.
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

    /// Adds a file of this PC under its own name, which no other file may have.
    pub fn with_file(mut self, path: &Path) -> Result<Self> {
        self.add(file_name(path)?, path)?;
        Ok(self)
    }

    /// Adds a model of this PC, with all its shards where it is in several files.
    pub fn with_model(mut self, path: &Path) -> Result<Self> {
        let name = file_name(path)?;
        let Some(shard) = ShardName::parse(&name) else { return self.with_file(path) };
        for number in 1..=shard.count {
            let sibling = path.with_file_name(shard.sibling(number));
            ensure!(
                sibling.is_file(),
                "{} is missing: the model is in {} files, which must lie side by side",
                project::shown(&sibling),
                shard.count
            );
            self = self.with_file(&sibling)?;
        }
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
        self.files.retain(|(other, _)| !is_same_name(other, &name));
        self.files.push((name, content));
    }

    /// Adds a file of this PC under a name that no other file has. The same file twice is there once.
    pub fn add(&mut self, name: impl Into<String>, path: &Path) -> Result<()> {
        let name = name.into();
        check_name(&name)?;
        let other = match self.files.iter().find(|(other, _)| is_same_name(other, &name)) {
            None => {
                self.files.push((name, Content::Path(path.to_path_buf())));
                return Ok(());
            }
            Some((_, Content::Path(other))) if is_same_file(other, path) => return Ok(()),
            Some((_, Content::Path(other))) => project::shown(other).to_string(),
            Some((other, Content::Bytes(_))) => format!("our own {other}"),
        };
        bail!(
            "{} and {other} would both be {name} on the card, where upper and lower case are the same: rename one, or \
             give it another name with --file SRC=NAME",
            project::shown(path)
        )
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

    /// Whether it has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(other, _)| is_same_name(other, name))
    }

    /// Bytes that a card of this size must have for its files.
    fn need(&self, size: u64) -> Result<u64> {
        let cluster = u64::from(cluster_bytes(size));
        let mut data = 0;
        // The label, and for each file its entry and one for every 13 characters of its long name.
        let mut directory = 32;
        for (name, file) in &self.files {
            data += file.bytes()?.next_multiple_of(cluster);
            directory += 32 * (1 + (name.encode_utf16().count() as u64).div_ceil(13));
        }
        let table = (size / cluster + 2) * 4;
        let start = if self.partition_table { PARTITION_START } else { 0 };
        let fixed = (start + RESERVED) * SECTOR + 2 * table.next_multiple_of(SECTOR);
        Ok(fixed + data + u64::next_multiple_of(directory, cluster))
    }

    /// The size that was asked for, or the smallest that will do.
    fn fitting_size(&self) -> Result<u64> {
        if let Some(size) = self.size {
            ensure!(
                size.is_multiple_of(1 << 20) && (SMALLEST..=LARGEST).contains(&size),
                "a card of {size} bytes can't be made: the size must be whole MiB, from 64M to 256G"
            );
            let need = self.need(size)?;
            ensure!(need <= size, "the files need {} and the card has {}", show_size(need), show_size(size));
            return Ok(size);
        }
        let mut size = SMALLEST;
        while self.need(size)? > size {
            size *= 2;
            ensure!(size <= LARGEST, "the files need more than {}", show_size(LARGEST));
        }
        Ok(size)
    }

    fn write_to(&self, path: &Path) -> Result<u64> {
        let mut content = 0;
        for (name, file) in &self.files {
            let bytes = file.bytes()?;
            ensure!(
                bytes <= LARGEST_FILE,
                "{name} has {bytes} bytes, and FAT32, which is what boards boot from, holds files of at most \
                 4 GiB - 1: split it with `cargo embodi models split {name}`, or with llama.cpp's `llama-gguf-split`, \
                 and give the first of the files that come of it"
            );
            content += bytes;
        }
        let size = self.fitting_size()?;

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
        complete(&mut volume, start)?;
        let volume = FileSystem::new(volume, FsOptions::new().time_provider(&OneDate))?;
        if volume.fat_type() != FatType::Fat32 {
            bail!("the file system came out too small for FAT32");
        }
        let bar = progress(content);
        for (name, file) in &self.files {
            bar.set_message(name.clone());
            let root = volume.root_dir();
            // `create_file` opens what is there, and a short name can be another file's: LONGNA~1.TXT.
            ensure!(
                root.open_file(name).is_err(),
                "{name} can't be made: FAT gives a file with a longer name this one as well; rename it"
            );
            let mut target = root.create_file(name).with_context(|| format!("could not make {name}"))?;
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
        16384..32768 => 16384,
        _ => 32768,
    }
}

/// Writes what the formatter leaves out of an empty FAT32 volume: how many sectors are before it, in both boot sectors, and
/// how many clusters are free, which is kept up to date from then on.
///
/// Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03 (BPB_HiddSec, BPB_BkBootSec, FSI_Free_Count).
fn complete(volume: &mut (impl Read + Write + Seek), start: u64) -> Result<()> {
    const HIDDEN_SECTORS: u64 = 28;
    const BACKUP: u64 = 6;
    const FREE_CLUSTERS: u64 = SECTOR + 488;
    let mut boot = [0; SECTOR as usize];
    volume.seek(SeekFrom::Start(0))?;
    volume.read_exact(&mut boot)?;
    let word = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
    let (reserved, tables) = (u32::from(u16::from_le_bytes([boot[14], boot[15]])), u32::from(boot[16]));
    let data = word(32) - reserved - tables * word(36);
    let clusters = data / u32::from(boot[13]);
    let hidden = u32::try_from(start)?;
    for (place, value) in [
        (HIDDEN_SECTORS, hidden),
        (BACKUP * SECTOR + HIDDEN_SECTORS, hidden),
        (FREE_CLUSTERS, clusters - 1), // the root directory has one
    ] {
        volume.seek(SeekFrom::Start(place))?;
        volume.write_all(&value.to_le_bytes())?;
    }
    volume.seek(SeekFrom::Start(0))?;
    Ok(())
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

/// Whether FAT takes two names for the same.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one.chars().flat_map(char::to_uppercase).eq(other.chars().flat_map(char::to_uppercase))
}

/// Whether two paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Refuses what FAT has no name for.
///
/// Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, section on long names.
fn check_name(name: &str) -> Result<()> {
    ensure!(!name.is_empty(), "a file on the card needs a name");
    ensure!(
        !name.contains(['/', '\\']),
        "\"{name}\" is a path: all files lie side by side on the card, and need a name without / (a path that has a \"=\" \
         itself needs =NAME behind it)"
    );
    if let Some(c) = name.chars().find(|&c| c.is_control() || "\"*:<>?|".contains(c) || c > '\u{ffff}') {
        bail!(
            "\"{name}\" can't be a name on the card: FAT has no {c:?} in names; rename it with --file SRC=NAME"
        );
    }
    ensure!(
        !name.ends_with(['.', ' ']),
        "\"{name}\" can't be a name on the card: it ends with a space or a dot"
    );
    ensure!(
        name.encode_utf16().count() <= 255,
        "\"{name}\" is longer than the 255 characters that FAT has for it"
    );
    Ok(())
}

/// The name of a file, as text.
pub fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    Ok(name.to_str().with_context(|| format!("the name of {} is not UTF-8", path.display()))?.to_owned())
}

/// "64M", "4G", "16GB" or a number of bytes. K, M and G are powers of 1024; KB, MB and GB, as printed on cards, of 1000,
/// rounded down to whole MiB.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (unit, round) = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => (1, 1),
        "K" | "KIB" => (1 << 10, 1),
        "M" | "MIB" => (1 << 20, 1),
        "G" | "GIB" => (1 << 30, 1),
        "KB" => (1_000, 1 << 20),
        "MB" => (1_000_000, 1 << 20),
        "GB" => (1_000_000_000, 1 << 20),
        unit => return Err(format!("\"{unit}\" is not K, M, G, KB, MB or GB")),
    };
    let number: u64 = digits.parse().map_err(|_| "a number is needed, as in 256M".to_owned())?;
    let bytes = number.checked_mul(unit).ok_or_else(|| "that is too large".to_owned())?;
    Ok(bytes / round * round)
}

/// A size in words.
pub fn show_size(bytes: u64) -> String {
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
    fn every_size_of_whole_mebibytes_gives_fat32_and_others_are_refused() {
        for mebibytes in [64, 65, 127, 128, 255, 256, 511, 512, 1000, 4096, 15_258, 30_517, 61_035] {
            let size = mebibytes << 20;
            let scratch = Scratch::new().unwrap();
            let image = scratch.path().join("card.img");
            let card = Card { size: Some(size), ..Card::default() }.with_bytes("x", "y");
            assert_eq!(card.write(&image).unwrap(), size);
            assert_eq!(read_back(&image, PARTITION_START * SECTOR, "x"), b"y");
        }
        let scratch = Scratch::new().unwrap();
        let odd = scratch.path().join("odd.img");
        for size in [32 << 20, (65 << 20) + 512, 1 << 40] {
            assert!(Card { size: Some(size), ..Card::default() }.write(&odd).is_err());
        }
    }

    #[test]
    fn a_card_that_the_files_just_fill_is_enough_and_one_cluster_more_is_too_much() {
        // 64 MiB have 512-byte clusters; what is left beside them was counted once, by hand: a partition start of
        // 1 MiB, 32 sectors, two tables of 131,074 entries, a cluster of directory.
        let fixed: usize = (1 << 20) + 32 * 512 + 2 * (131_074 * 4usize).next_multiple_of(512) + 512;
        let scratch = Scratch::new().unwrap();
        let image = scratch.path().join("card.img");
        let full = |bytes| Card { size: Some(SMALLEST), ..Card::default() }.with_bytes("x", vec![1; bytes]);
        let most = (64 << 20) - fixed;
        full(most).write(&image).unwrap();
        assert_eq!(read_back(&image, PARTITION_START * SECTOR, "x").len(), most);
        let error = format!("{:#}", full(most + 1).write(&image).unwrap_err());
        assert!(error.contains("the files need 65 MiB and the card has 64 MiB"), "{error}");
    }

    #[test]
    fn a_file_that_fat32_can_not_hold_is_refused_with_the_way_out() {
        let scratch = Scratch::new().unwrap();
        let model = scratch.path().join("large.gguf");
        File::create(&model).unwrap().set_len(1 << 32).unwrap(); // sparse
        let image = scratch.path().join("card.img");
        let card = Card::default().with_file(&model).unwrap();
        let error = format!("{:#}", card.write(&image).unwrap_err());
        for words in ["large.gguf has 4294967296 bytes", "FAT32", "cargo embodi models split"] {
            assert!(error.contains(words), "{error}");
        }
        assert!(
            !image.exists() && fs::read_dir(scratch.path()).unwrap().count() == 1,
            "nothing is left behind"
        );
    }

    #[test]
    fn all_shards_of_a_model_come_onto_the_card_by_the_name_of_one_and_a_missing_one_is_named() {
        let scratch = Scratch::new().unwrap();
        let path = |number: usize| scratch.path().join(format!("m-{number:05}-of-00003.gguf"));
        (1..=3).for_each(|number| fs::write(path(number), [0]).unwrap());
        let names = |card: Card| card.files.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let all = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];
        assert_eq!(names(Card::default().with_model(&path(2)).unwrap()), all);
        fs::remove_file(path(3)).unwrap();
        let error = Card::default().with_model(&path(1)).unwrap_err().to_string();
        assert!(error.contains("m-00003-of-00003.gguf is missing"), "{error}");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("16GB"), Ok(15_258 << 20));
        assert!(
            parse_size("4T").is_err() && parse_size("G").is_err() && parse_size("99999999999999G").is_err()
        );
    }
}
