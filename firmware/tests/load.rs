//! A model from the card to its place in memory: the engine's loader over the board's file system, card protocol and
//! host driver, with the strict model of controller and card underneath and in its time.

#[path = "../../bsp/tests/strict/mod.rs"]
mod strict;

use std::io::{Cursor, Seek, SeekFrom, Write};
use std::ops::ControlFlow;

use embodios::source::Memory;
use embodios::synth::{self, Sizes};
use embodios::{Alone, ByteSource, LoadOptions, Model, Pool, ReadError, Runtime, Session, quant};
use embodios_bsp::drivers::sd_card::SdCard;
use embodios_bsp::drivers::sdhci::Sdhci;
use embodios_bsp::storage::{Buffers, File, Volume};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use strict::{Model as Machine, Switches};

/// As `mkfs.vfat` chooses for the boot partition of a Raspberry Pi.
const CLUSTER: u32 = 4096;

struct CardFile {
    card: Volume<Vec<u8>, SdCard<Sdhci<Machine>>>,
    file: File,
}

impl ByteSource for CardFile {
    fn len(&self) -> u64 {
        self.file.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.card.read_at(&self.file, offset, buffer).map_err(|error| ReadError::Device(error.to_string()))
    }
}

/// Cores whose work beside core 0's reading takes less time than the reading; on their own they take none here.
struct Cores;

impl Pool for Cores {
    fn width(&self) -> usize {
        4
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        (0..4).for_each(job);
    }
    fn beside(&self, here: &mut dyn FnMut(), job: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            (1..4).for_each(|worker| _ = scope.spawn(move || job(worker)));
            here();
        });
    }
}

fn disk(content: &[u8]) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 70_000 * CLUSTER as usize]);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(CLUSTER);
    fatfs::format_volume(&mut disk, options).unwrap();
    disk.seek(SeekFrom::Start(0)).unwrap();
    {
        let system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        system.root_dir().create_file("model.gguf").unwrap().write_all(content).unwrap();
        system.unmount().unwrap();
    }
    disk.into_inner()
}

#[test]
fn a_model_is_loaded_with_nine_tenths_of_the_cards_own_speed_and_is_the_same_as_from_memory() {
    let format = quant::by_name("Q4_0").unwrap();
    let bytes: &'static [u8] =
        synth::sized(1, format, Sizes { embedding: 512, feed_forward: 2048, layers: 8 }).leak();
    let machine = Machine::with_disk(disk(bytes));
    let card =
        SdCard::identify(Sdhci::new(machine.clone(), Some(100_000_000)), &mut Switches(machine.clone()));
    let mut card = card.unwrap();

    let before = machine.nanos();
    card.read(8192, &mut vec![0; bytes.len().next_multiple_of(512)]).unwrap();
    let raw = machine.nanos() - before;

    // From mounting the card to the last weight in its place.
    let before = machine.nanos();
    let buffers = Buffers { table: vec![0; 64 << 10], data: vec![0; 512 << 10] };
    let card = Volume::mount(card, buffers).unwrap();
    let file = card.open("model.gguf").unwrap();
    let options = LoadOptions { pool: Some(&Cores), ..LoadOptions::default() };
    let go_on = &mut |_| ControlFlow::Continue(());
    let model = Model::load(&CardFile { card, file }, &options, go_on).unwrap();
    let loaded = machine.nanos() - before;

    let share = raw as f64 / loaded as f64;
    println!("{} bytes: {:.1} % of the card's rate", bytes.len(), share * 100.0);
    assert!(share >= 0.9, "{share}");
    let same = Model::load(&Memory(bytes), &LoadOptions::default(), go_on).unwrap();
    let logits = |model| {
        let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
        let mut session = Session::new(model, 8).unwrap();
        session.feed(&[5, 6, 7], &runtime).unwrap().to_vec()
    };
    assert!(logits(model) == logits(same), "the same weights");
}
