//! How much of the card's own speed a file is read with: in the time of the strict model, which a register access,
//! a command and every bit on the lines cost.
//!
//! The measure is one long read of as many bytes through the same driver, which keeps the card busy but for one
//! command in 32 MiB.

mod strict;

use std::io::{Cursor, Seek, SeekFrom, Write};

use embodios_bsp::drivers::sd_card::SdCard;
use embodios_bsp::drivers::sdhci::Sdhci;
use embodios_bsp::storage::{Buffers, Volume};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use strict::{Model, Switches};

const SIZE: usize = 64 << 20;
/// What the engine's loader reads at once.
const CHUNK: usize = 1 << 20;
/// As `mkfs.vfat` chooses for the boot partition of a Raspberry Pi.
const CLUSTER: u32 = 4096;

fn pattern(seed: u32, size: usize) -> Vec<u8> {
    (0..size as u32 / 4).flat_map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b1) >> 3).to_le_bytes()).collect()
}

/// A FAT32 volume with `model.gguf` on it, written in turns with another file so that it is in pieces of `piece`
/// bytes with as much between them.
fn disk(content: &[u8], piece: Option<usize>) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 70_000 * CLUSTER as usize]);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(CLUSTER);
    fatfs::format_volume(&mut disk, options).unwrap();
    disk.seek(SeekFrom::Start(0)).unwrap();
    {
        let system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let mut file = system.root_dir().create_file("model.gguf").unwrap();
        let mut other = system.root_dir().create_file("other.bin").unwrap();
        for part in content.chunks(piece.unwrap_or(usize::MAX)) {
            file.write_all(part).unwrap();
            if piece.is_some() {
                other.write_all(part).unwrap();
            }
        }
        file.flush().unwrap();
        other.flush().unwrap();
        drop((file, other));
        system.unmount().unwrap();
    }
    disk.into_inner()
}

/// The file, read from `start` on in `chunk` bytes at once with so much work after each, as part of the raw rate.
struct Rates {
    raw: f64,
    file: f64,
}

impl Rates {
    fn measure(content: &[u8], piece: Option<usize>, start: usize, chunk: usize, work: u64) -> Self {
        let model = Model::with_disk(disk(content, piece));
        let card =
            SdCard::identify(Sdhci::new(model.clone(), Some(100_000_000)), &mut Switches(model.clone()));
        let mut card = card.unwrap();
        let mut buffer = vec![0; content.len()];
        let size = buffer.len() as f64;

        let before = model.nanos();
        card.read(8192, &mut buffer).unwrap();
        let raw = size / (model.nanos() - before) as f64 * 1e3;

        let windows = Buffers { table: vec![0; 64 << 10], data: vec![0; 512 << 10] };
        let volume = Volume::mount(card, windows).unwrap();
        let file = volume.open("model.gguf").unwrap();
        buffer.fill(0);
        volume.read_at(&file, 0, &mut buffer[..start]).unwrap(); // the header
        model.take_seen();
        let (before, mut at) = (model.nanos(), start);
        for part in buffer[start..].chunks_mut(chunk) {
            volume.read_at(&file, at as u64, part).unwrap();
            model.work(work);
            at += part.len();
        }
        let file = (size - start as f64) / (model.nanos() - before) as f64 * 1e3;
        assert!(buffer == content, "the bytes of the file");
        let commands = model.take_seen().iter().filter(|(index, ..)| matches!(index, 17 | 18)).count();
        println!("raw {raw:.2} MB/s, file {file:.2} MB/s: {:.1} %, {commands} commands", file / raw * 100.0);
        Self { raw, file }
    }

    fn share(&self) -> f64 {
        self.file / self.raw
    }
}

#[test]
fn a_file_is_read_with_nine_tenths_of_the_cards_own_speed() {
    let content = pattern(1, SIZE);
    let rates = Rates::measure(&content, None, 0, CHUNK, 0);
    assert!(rates.raw > 20.0, "the card itself: {} MB/s", rates.raw);
    assert!(rates.share() >= 0.98, "in one piece: {}", rates.share());
    let share = |piece, start, chunk| Rates::measure(&content, piece, start, chunk, 0).share();
    // Tensors begin behind a header of any length, and a chunk may end within a block.
    assert!(share(None, 1_800_032, 1_000_003) >= 0.95);
    // In 512 pieces of 128 KiB, each with as much of another file behind it.
    assert!(share(Some(128 << 10), 0, CHUNK) >= 0.9);
    // Core 0 rearranges each chunk itself, with 500 MB/s, while the card stands still.
    let alone = Rates::measure(&content, None, 0, CHUNK, 2_000_000);
    assert!(alone.share() >= 0.9);
}
