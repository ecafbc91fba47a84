//! A model that no 32-bit number counts the bytes of, loaded to its end. Not among the tests of every day: QEMU's card
//! gives some 5 MB/s, so that this takes a quarter of an hour and more, 14 GB of disk and 12 GB of memory. It is run by
//! `cargo embodi test large`.

use super::{Here, Rig};
use embodi::host;
use embodi::image::Card;
use embodi::project::Scratch;
use embodi::qemu::{Emulator, Machine};
use embodi::split;
use embodios::gguf::kinds::KINDS;
use embodios::synth::{Recipe, shapes};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the model is asked for the digest of.
const TEXT: &str = "The card";
/// How long it may take to load, and to make the digest: 1 MB/s.
const WHOLE: Duration = Duration::from_secs(4_600);

/// Llama 3.1 8B's shape in Q4_0, 4.2 GiB, in as many files as a card needs.
fn shards(folder: &Path) -> Vec<PathBuf> {
    let case = shapes::published("llama-3.1-8b").and_then(shapes::Published::case).expect("a known shape");
    let format = KINDS.iter().find(|kind| kind.name == "Q4_0").expect("a format of GGUF");
    let plan = Recipe { case, format, seed: 1 }.plan().expect("a model");
    assert!(plan.bytes() > 1 << 32, "{} bytes are no large model", plan.bytes());
    let whole = folder.join("whole.gguf");
    let mut file = BufWriter::new(File::create(&whole).unwrap());
    plan.write(&mut |bytes| file.write_all(bytes)).and_then(|()| file.flush()).expect("room for it");
    let source = host::open_file(&whole).unwrap();
    let shards = split::cut(&*source, 2 << 30, folder, "large").unwrap_or_else(|error| panic!("{error:#}"));
    fs::remove_file(&whole).unwrap();
    shards
}

#[test]
#[ignore = "takes a quarter of an hour, 14 GB of disk and 12 GB of memory: `cargo embodi test large`"]
fn a_model_of_more_than_4_gib_is_read_from_the_card_by_dma_into_memory_on_both_sides_of_4_gib() {
    let scratch = Scratch::new().expect("a folder for the model");
    let shards = shards(scratch.path());
    let digest = Here::load(&*host::open_file(&shards[0]).unwrap()).digest(TEXT);
    let card = Card::default().with_model(&shards[0]).unwrap_or_else(|error| panic!("{error:#}"));
    let path = scratch.path().join("card.img");
    card.write(&path).unwrap_or_else(|error| panic!("{error:#}"));
    shards.iter().for_each(|shard| fs::remove_file(shard).unwrap());

    let emulator = Emulator::new(Machine::Virt, super::kernel()).with_memory("8G").with_card(&path);
    let board = emulator.start().unwrap_or_else(|error| panic!("{error:#}"));
    let mut rig = Rig { board, _scratch: scratch };
    let result = rig.board.prompt(WHOLE);
    let text = rig.check(result);
    rig.holds(&text, "Loading large-00001-of-00003.gguf, 4312 MiB");
    rig.holds(&text, "is loaded");
    rig.answers("status", "0 KiB by the core");
    let answer = rig.ask_within(&format!("digest {TEXT}"), WHOLE);
    rig.holds(&answer, &digest);
}
