//! What `--file` puts on a card, and whether it can be what its name says to a board.
//!
//! A file may take the place of one that we make: people have a config.txt of their own, and a boot loader that they trust.
//! What a boot loader, or we, could not read under its name is refused here, where it can still be told.

use super::boot_files;
use super::card::{Card, Content, file_name, is_same_name};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Files that are read as text, by the boot loader or by us.
const TEXTS: [&str; 5] = ["config.txt", "cmdline.txt", "EMBODIOS.CFG", "autoboot.txt", "tryboot.txt"];
/// Files that are started. Source: `raspberrypi/documentation`, config_txt/boot.adoc (`kernel`).
const KERNELS: [&str; 2] = ["kernel8.img", "kernel_2712.img"];
/// What a model begins with.
const GGUF: &[u8] = b"GGUF";
/// More than any text for a board has; `firmware/src/config.rs` reads as much.
const LONGEST_TEXT: u64 = 64 << 10;
/// More than any of the boot loader's files has.
const LARGEST_BOOT_FILE: u64 = 64 << 20;

/// Adds what `SRC` or `SRC=NAME` says. Where it takes the place of one of `ours`, the names of what we have made, it is
/// the user's from then on, and the sentence to be printed is returned.
pub fn add(card: &mut Card, ours: &mut Vec<String>, asked: &str) -> Result<Option<String>> {
    let (source, name) = match asked.rsplit_once('=') {
        Some((source, name)) => (Path::new(source), name.to_owned()),
        None => (Path::new(asked), file_name(Path::new(asked))?),
    };
    let place = ours.iter().position(|our| is_same_name(our, &name));
    check(&name, source, place.is_some())
        .with_context(|| format!("{} can't be {name} on the card", source.display()))?;
    let Some(place) = place else {
        card.add(name, source)?;
        return Ok(None);
    };
    ours.remove(place);
    let words = format!("{name} is yours, {}; ours is left out", source.display());
    card.put(name, Content::Path(source.to_path_buf()));
    Ok(Some(words))
}

/// Refuses a file that is not what boards, or we, take this name for. Under other names there may be anything.
fn check(name: &str, source: &Path, replaces: bool) -> Result<()> {
    let named = |names: &[&str]| names.iter().any(|known| is_same_name(known, name));
    let (text, kernel, boot_file) = (named(&TEXTS), named(&KERNELS), boot_files::knows(name));
    let bytes = Content::Path(source.to_path_buf()).bytes()?;
    let start = |most: u64| -> Result<Vec<u8>> {
        let mut start = Vec::new();
        File::open(source)?.take(most).read_to_end(&mut start)?;
        Ok(start)
    };
    if text || kernel || boot_file || replaces {
        ensure!(start(4)? != GGUF, "it is a model");
    }
    if text {
        ensure!(bytes <= LONGEST_TEXT, "it has {bytes} bytes, and a short text is wanted");
        ensure!(!start(bytes)?.contains(&0), "it is not text as boards read it: save it as UTF-8");
    } else if kernel {
        // Linux, "Booting AArch64 Linux", section 4; boot loaders unpack gzip (RFC 1952, 2.3.1).
        let start = start(60)?;
        ensure!(
            start.get(56..) == Some(b"ARM\x64") || start.starts_with(b"\x1f\x8b"),
            "it is not a kernel for 64-bit boards: it has no arm64 header"
        );
    } else if boot_file {
        ensure!(bytes <= LARGEST_BOOT_FILE, "it has {bytes} bytes, more than any file of a boot loader");
        boot_files::check(name, &start(bytes)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Scratch;
    use std::fs;

    /// A card with what `image` makes, and a folder of files that a user might name.
    fn made() -> (Card, Vec<String>, Scratch) {
        let scratch = Scratch::new().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(scratch.path().join(name), bytes).unwrap();
        put("m.gguf", b"GGUF\x03\0\0\0 stands for a model");
        put("other.gguf", b"GGUF\x03\0\0\0 stands for another");
        put("mine.txt", b"arm_64bit=1\n");
        put("wide.txt", b"\xff\xfea\0r\0m\0");
        put("long.txt", &[b'#'; 65_537]);
        put("page.html", b"<html>not found</html>");
        put("tree.dtb", &[&0xd00d_feedu32.to_be_bytes()[..], &8u32.to_be_bytes()].concat());
        put("image", &[&[0; 56][..], b"ARM\x64", &[0; 4]].concat());
        put("packed", b"\x1f\x8b\x08\0");
        let card = Card::default().with_kernel(&scratch.path().join("image"));
        let ours = card.files.iter().map(|(name, _)| name.clone()).collect();
        (card, ours, scratch)
    }

    #[test]
    fn a_file_of_ours_gives_way_to_one_that_can_be_it_and_a_sentence_says_so() {
        for (source, name) in [
            ("mine.txt", "config.txt"),
            ("mine.txt", "CONFIG.TXT"),
            ("mine.txt", "embodios.cfg"),
            ("image", "kernel8.img"),
            ("packed", "kernel8.img"),
        ] {
            let (mut card, mut ours, scratch) = made();
            let asked = format!("{}={name}", scratch.path().join(source).display());
            let words = add(&mut card, &mut ours, &asked).unwrap().expect(name);
            assert!(words.starts_with(&format!("{name} is yours")) && words.contains(source), "{words}");
            assert_eq!(card.files.len(), 3);
            assert!(card.files.iter().any(|(other, _)| other == name), "{name}");
            // Two files of the user's for it are a mistake again.
            let other = format!("{}={name}", scratch.path().join("mine.txt").display());
            if source != "mine.txt" {
                add(&mut card, &mut ours, &other).unwrap_err();
            }
        }
    }

    #[test]
    fn what_a_board_could_not_read_under_its_name_is_refused_and_the_card_is_as_it_was() {
        for (source, name, why) in [
            ("m.gguf", "config.txt", "it is a model"),
            ("m.gguf", "kernel8.img", "it is a model"),
            ("image", "config.txt", "save it as UTF-8"),
            ("page.html", "kernel_2712.img", "no arm64 header"),
            ("m.gguf", "cmdline.txt", "it is a model"),
            ("wide.txt", "embodios.cfg", "save it as UTF-8"),
            ("long.txt", "config.txt", "65537 bytes"),
            ("page.html", "start4.elf", "not an ELF file"),
            ("m.gguf", "fixup4.dat", "it is a model"),
            ("page.html", "bcm2711-rpi-4-b.dtb", "not a whole device tree"),
            ("nothing", "config.txt", "could not read"),
        ] {
            let (mut card, mut ours, scratch) = made();
            let asked = format!("{}={name}", scratch.path().join(source).display());
            let error = format!("{:#}", add(&mut card, &mut ours, &asked).unwrap_err());
            assert!(error.contains(source) && error.contains(name) && error.contains(why), "{error}");
            assert_eq!((card.files.len(), ours.len()), (3, 3), "{name}");
        }
    }

    #[test]
    fn files_of_other_names_are_added_and_two_of_one_name_are_refused() {
        let (mut card, mut ours, scratch) = made();
        let path = |name: &str| scratch.path().join(name).display().to_string();
        for asked in [path("m.gguf"), path("m.gguf"), path("tree.dtb") + "=bcm2711-rpi-4-b.dtb"] {
            assert_eq!(add(&mut card, &mut ours, &asked).unwrap(), None);
        }
        assert_eq!(card.files.len(), 5);
        let error = add(&mut card, &mut ours, &(path("other.gguf") + "=M.gguf")).unwrap_err().to_string();
        assert!(
            error.contains("other.gguf and ") && error.contains("/m.gguf would both be M.gguf"),
            "{error}"
        );
        for name in ["sub/m.gguf", "", "m.gguf.", "what?.txt"] {
            let error =
                add(&mut card, &mut ours, &format!("{}={name}", path("m.gguf"))).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
