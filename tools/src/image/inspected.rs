//! Card images as other people's tools see them: sfdisk, fsck.vfat, mdir and mtype.

use super::{Board, Card, boot_files};
use crate::project::Scratch;
use crate::setup::program;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Where the partition begins.
const START: u64 = 1 << 20;

/// Runs one of these tools, which must end well; what it says.
fn ask(tool: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program(tool).expect("the caller has looked"));
    let output = command.args(arguments).env("LC_ALL", "C").output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    said
}

/// Whether the tools are there; says so past the test harness where they are not.
fn tools(test: &str) -> bool {
    let missing: Vec<_> = ["sfdisk", "fdisk", "fsck.vfat", "mdir", "mtype"]
        .into_iter()
        .filter(|tool| program(tool).is_none())
        .collect();
    if !missing.is_empty() {
        let line = format!("SKIPPED {test}: no {}; `cargo embodi setup` installs them\n", missing.join(", "));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    missing.is_empty()
}

/// A folder of boot files whose content does not matter.
fn boot_folder(folder: &Path) {
    let tree = [&0xd00d_feedu32.to_be_bytes()[..], &8u32.to_be_bytes()].concat();
    for (name, bytes) in [
        ("start4.elf", &b"\x7fELF stands for start4.elf"[..]),
        ("fixup4.dat", b"stands for fixup4.dat"),
        ("LICENCE.broadcom", b"stands for the licence"),
        ("bcm2711-rpi-4-b.dtb", &tree),
        ("bcm2712-rpi-5-b.dtb", &tree),
    ] {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Makes a card for these boards and has it looked at; what `mdir` lists.
fn inspected(boards: &[Board], size: Option<u64>) -> String {
    let scratch = Scratch::new().unwrap();
    boot_folder(scratch.path());
    let kernel = scratch.path().join("kernel8.img");
    fs::write(&kernel, vec![0x5a; 1_000_001]).unwrap();
    let mut card = Card { size, ..Card::default() }
        .with_kernel(&kernel)
        .with_bytes("A model with a long name.Q4_1.gguf", vec![7; 3_000_000]);
    boot_files::add(&mut card, boards, Some(scratch.path())).unwrap();
    let path = scratch.path().join("card.img");
    let size = card.write(&path).unwrap();
    let image = path.to_str().unwrap();

    let table = ask("sfdisk", &["--dump", image]);
    let partition = format!("start=        2048, size={:>12}, type=c", size / 512 - 2048);
    assert!(table.contains("label: dos") && table.contains(&partition), "{table}");
    assert_eq!(table.matches("start=").count(), 1, "{table}");
    let list = ask("fdisk", &["--list", image]);
    assert!(list.contains("W95 FAT32 (LBA)") && list.contains(&format!("{size} bytes")), "{list}");

    // fsck.vfat takes no offset: the partition as a file of its own, as sparse as the image.
    let partition = scratch.path().join("partition");
    copy_partition(&path, &partition);
    let fsck = ask("fsck.vfat", &["-n", "-v", partition.to_str().unwrap()]);
    assert!(fsck.contains("2048 hidden sectors") && !fsck.contains("uninitialized"), "{fsck}");
    assert!(!fsck.contains("differ") && !fsck.to_lowercase().contains("dirty"), "{fsck}");

    let volume = format!("{image}@@{START}");
    let config = ask("mtype", &["-i", &volume, "::config.txt"]);
    assert_eq!(config, fs::read_to_string(crate::project::root().join("config.txt")).unwrap());
    assert_eq!(ask("mtype", &["-i", &volume, "::kernel8.img"]).len(), 1_000_001);
    let listing = ask("mdir", &["-i", &volume, "::"]);
    assert!(listing.contains("Volume in drive : is EMBODIOS"), "{listing}");
    for name in ["config.txt", "kernel8.img", "EMBODIOS.CFG", "A model with a long name.Q4_1.gguf"] {
        assert!(listing.to_lowercase().contains(&shown(name)), "{name}: {listing}");
    }
    listing.to_lowercase()
}

/// Copies what an image holds from [`START`] on, without reading its holes.
fn copy_partition(image: &Path, partition: &Path) {
    let image = File::open(image).unwrap();
    let copy = File::create(partition).unwrap();
    copy.set_len(image.metadata().unwrap().len() - START).unwrap();
    let mut at = START;
    while let Ok(data) = rustix::fs::seek(&image, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(&image, rustix::fs::SeekFrom::Hole(data)).unwrap();
        let mut bytes = vec![0; (at - data) as usize];
        image.read_exact_at(&mut bytes, data).unwrap();
        copy.write_all_at(&bytes, data - START).unwrap();
    }
}

/// How `mdir` shows a name: in two columns, unless it needs a long one.
fn shown(name: &str) -> String {
    let lower = name.to_lowercase();
    match lower.split_once('.') {
        Some((stem, extension)) if stem.len() <= 8 && extension.len() <= 3 => format!("{stem:8} {extension}"),
        _ => lower,
    }
}

#[test]
fn a_card_for_a_raspberry_pi_4_is_sound_and_has_what_that_board_loads() {
    if tools("a_card_for_a_raspberry_pi_4") {
        let listing = inspected(&[Board::Pi4], None);
        for name in ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "licence.broadcom"] {
            assert!(listing.contains(&shown(name)), "{name}: {listing}");
        }
        assert!(!listing.contains("bcm2712"), "{listing}");
    }
}

#[test]
fn a_card_for_a_raspberry_pi_5_is_sound_and_has_what_that_board_loads() {
    if tools("a_card_for_a_raspberry_pi_5") {
        let listing = inspected(&[Board::Pi5], Some(300 << 20));
        assert!(listing.contains("bcm2712-rpi-5-b.dtb"), "{listing}");
        assert!(!listing.contains("start4") && !listing.contains("bcm2711"), "{listing}");
    }
}

#[test]
fn a_card_for_both_boards_may_be_larger_than_4_gib_and_takes_little_space_on_this_pc() {
    if tools("a_card_for_both_boards") {
        let listing = inspected(&[Board::Pi4, Board::Pi5], Some(5 << 30));
        assert!(
            listing.contains(&shown("start4.elf")) && listing.contains("bcm2712-rpi-5-b.dtb"),
            "{listing}"
        );
    }
}

#[test]
fn one_config_txt_serves_both_boards_by_sections() {
    let text = fs::read_to_string(crate::project::root().join("config.txt")).unwrap();
    let mut section = "all";
    let mut keys = Vec::new();
    for line in text.lines() {
        assert!(line.len() <= 98, "the boot loader reads lines of at most 98 characters: {line}");
    }
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => section = name,
            None => keys.push((section, line)),
        }
    }
    for wanted in [
        ("all", "arm_64bit=1"),
        ("all", "kernel=kernel8.img"),
        ("all", "kernel_address=0x80000"),
        ("all", "enable_uart=1"),
        ("pi4", "enable_gic=1"),
        ("pi5", "os_check=0"),
        ("pi5", "pciex4_reset=0"),
    ] {
        assert!(keys.contains(&wanted), "{wanted:?}");
    }
    assert_eq!(section, "all", "what a user adds at the end is for both boards");
}
