//! What a board needs on its card beside us: Raspberry Pi's boot loader and device trees.
//!
//! A Raspberry Pi 4 reads `start4.elf` and `fixup4.dat` (a matched pair) from the card; a Raspberry Pi 5 has its boot
//! loader in flash memory. Both want a device tree. Debian has the boot loader in `raspi-firmware` (component
//! non-free-firmware), whose licence allows it to be passed on unmodified, with its text, for use on a Raspberry Pi;
//! and device trees in its kernel packages. What Debian lacks is published by Raspberry Pi in the folder `boot` of the
//! repository `raspberrypi/firmware`.
//!
//! Source: `raspberrypi/documentation`, config_txt/boot.adoc; the contents of Debian's packages.

use super::Board;
use super::card::{Card, Content, is_same_name};
use crate::debian::{Apt, Package};
use crate::{models, project};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Where Raspberry Pi publishes them.
pub const PUBLISHED: &str = "the folder boot of github.com/raspberrypi/firmware";

/// A file that a board's boot loader looks for.
#[derive(Debug)]
struct BootFile {
    /// Where on the card.
    name: &'static str,
    board: Board,
    /// The folder of [`cache`] that has it, if Debian has it.
    package: Option<&'static str>,
    /// Which boards miss it.
    of: &'static str,
}

impl BootFile {
    fn is_tree(&self) -> bool {
        self.name.ends_with(".dtb")
    }
}

/// Debian's package of the boot loader, and the one that its newest kernel for 64-bit boards can be found by.
const FIRMWARE: &str = "raspi-firmware";
const KERNEL: &str = "linux-image-arm64";

/// All of them.
const FILES: &[BootFile] = &[
    BootFile { name: "start4.elf", board: Board::Pi4, package: Some(FIRMWARE), of: "every Raspberry Pi 4" },
    BootFile { name: "fixup4.dat", board: Board::Pi4, package: Some(FIRMWARE), of: "every Raspberry Pi 4" },
    BootFile {
        name: "bcm2711-rpi-4-b.dtb",
        board: Board::Pi4,
        package: Some(KERNEL),
        of: "the Raspberry Pi 4 Model B",
    },
    BootFile {
        name: "bcm2711-rpi-400.dtb",
        board: Board::Pi4,
        package: Some(KERNEL),
        of: "the Raspberry Pi 400",
    },
    BootFile {
        name: "bcm2712-rpi-5-b.dtb",
        board: Board::Pi5,
        package: Some(KERNEL),
        of: "the Raspberry Pi 5",
    },
    BootFile { name: "bcm2711-rpi-cm4.dtb", board: Board::Pi4, package: None, of: "the Compute Module 4" },
    BootFile {
        name: "bcm2712d0-rpi-5-b.dtb",
        board: Board::Pi5,
        package: None,
        of: "Raspberry Pi 5 of stepping D0",
    },
    BootFile { name: "bcm2712-rpi-500.dtb", board: Board::Pi5, package: None, of: "the Raspberry Pi 500" },
    BootFile {
        name: "bcm2712-rpi-cm5-cm5io.dtb",
        board: Board::Pi5,
        package: None,
        of: "the Compute Module 5",
    },
];

/// Texts of licences as a folder that a user names has them, and what they are about.
const LICENCES: [&str; 2] = ["LICENCE.broadcom", "COPYING.linux"];

/// What a card lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing(Vec<(&'static str, &'static str)>);

/// What a card lacks of all that these boards could look for.
pub fn missing(card: &Card, boards: &[Board]) -> Missing {
    Missing(wanted(boards).filter(|file| !card.has(file.name)).map(|file| (file.name, file.of)).collect())
}

impl Missing {
    /// Refuses a card that one of these boards can't start from: without its boot loader, or without any device tree of
    /// its kind. Trees of further boards may be missing: Debian has not all of them.
    pub fn can_start(&self, card: &Card, boards: &[Board]) -> Result<()> {
        for &board in boards {
            let files = || FILES.iter().filter(|file| file.board == board);
            let mut lacks: Vec<_> = files()
                .filter(|file| !file.is_tree() && !card.has(file.name))
                .map(|file| file.name)
                .collect();
            let first_tree = files().find(|file| file.is_tree()).map(|file| file.name);
            if !files().any(|file| file.is_tree() && card.has(file.name)) {
                lacks.extend(first_tree);
            }
            ensure!(
                lacks.is_empty(),
                "{board} can't start from this card without {}. Copy what it needs from {PUBLISHED} into a folder and name \
                 that with --boot-files, or leave all of it out with --no-boot-files and add it to the card yourself",
                lacks.join(" and ")
            );
        }
        Ok(())
    }

    /// A few lines for the person who made the card; `None` if nothing is missing.
    pub fn words(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let lines = self.0.iter().map(|(name, of)| format!("\n  {name:27} for {of}"));
        Some(format!(
            "not on the card (copy what your board needs from {PUBLISHED}):{}",
            lines.collect::<String>()
        ))
    }
}

/// Adds to a card what these boards need, from a folder of the user's or from Debian's packages.
pub fn add(card: &mut Card, boards: &[Board], folder: Option<&Path>) -> Result<()> {
    match folder {
        Some(folder) => from_folder(card, boards, folder),
        None => {
            if !are_here()
                && let Err(error) = fetch()
            {
                eprintln!("image: Raspberry Pi's boot files could not be fetched: {error:#}");
            }
            from_cache(card, boards, &cache())
        }
    }
}

fn wanted(boards: &[Board]) -> impl Iterator<Item = &'static BootFile> {
    FILES.iter().filter(|file| boards.contains(&file.board))
}

fn from_folder(card: &mut Card, boards: &[Board], folder: &Path) -> Result<()> {
    ensure!(folder.is_dir(), "--boot-files: {} is not a folder", folder.display());
    for file in wanted(boards) {
        let path = folder.join(file.name);
        if path.is_file() {
            check(file.name, &fs::read(&path)?)
                .with_context(|| format!("{} can't be used", path.display()))?;
            card.put(file.name, Content::Path(path));
        }
    }
    for name in LICENCES {
        let path = folder.join(name);
        if path.is_file() {
            card.put(name, Content::Path(path));
        } else if name == LICENCES[0] && card.has("start4.elf") {
            eprintln!(
                "image: start4.elf may be passed on with its licence only, and {name} is not beside it"
            );
        }
    }
    Ok(())
}

fn from_cache(card: &mut Card, boards: &[Board], cache: &Path) -> Result<()> {
    let mut used = Vec::new();
    for file in wanted(boards) {
        let Some(package) = file.package else { continue };
        let path = cache.join(package).join(file.name);
        if !path.is_file() {
            continue;
        }
        card.put(file.name, Content::Path(path));
        if !used.contains(&package) {
            used.push(package);
        }
    }
    for package in used {
        verify(&cache.join(package))?;
        // Debian's statement of licences, with their whole text.
        card.put(format!("{package}.copyright.txt"), Content::Path(cache.join(package).join("copyright")));
    }
    Ok(())
}

/// Where those of Debian are kept, in a folder for each of its two packages.
pub fn cache() -> PathBuf {
    models::cache().join("boot-files")
}

/// Whether all that Debian has is there. It was checked when it was put there.
pub fn are_here() -> bool {
    [FIRMWARE, KERNEL].iter().all(|package| cache().join(package).is_dir())
}

/// Brings them from Debian's archive. One package is kept even where the other can't be had.
pub fn fetch() -> Result<()> {
    eprintln!("fetching Raspberry Pi's boot files and device trees (97 MB) from Debian's packages");
    let apt = Apt::new("arm64", &["main", "non-free-firmware"])?;
    let firmware = keep(FIRMWARE, || apt.download(FIRMWARE));
    let kernel = keep(KERNEL, || apt.download(&apt.newest_dependency(KERNEL)?));
    firmware.and(kernel)
}

/// Unpacks what we want of a package into its folder of [`cache`], all at once.
fn keep(name: &str, download: impl FnOnce() -> Result<Package>) -> Result<()> {
    let folder = cache().join(name);
    if folder.is_dir() {
        return Ok(());
    }
    let package = download()?;
    let files = package.unpack(|path| kept_as(name, path))?;
    for file in FILES.iter().filter(|file| file.package == Some(name)) {
        if !files.iter().any(|(name, _)| name == file.name) {
            eprintln!("setup: {} has no {}", package.title(), file.name);
        }
    }
    ensure!(
        files.len() > 1 && files.iter().any(|(name, _)| name == "copyright"),
        "{} is not as we know it: it has no boot files with their licence",
        package.title()
    );
    let scratch = cache().join(format!(".{name}-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("could not make {}", scratch.display()))?;
    let mut sums = String::new();
    for (name, bytes) in &files {
        check(name, bytes).with_context(|| format!("{} of {} can't be used", name, package.title()))?;
        fs::write(scratch.join(name), bytes)?;
        sums += &format!("{}  {name}\n", sha256(bytes));
    }
    fs::write(scratch.join(SUMS), sums)?;
    fs::write(scratch.join("package"), package.title() + "\n")?;
    fs::rename(&scratch, &folder).with_context(|| format!("could not make {}", folder.display()))
}

/// Hashes of the files in a folder of [`cache`], as `sha256sum` writes them.
const SUMS: &str = "SHA256SUMS";

/// The name under which a file of a package is kept, if it is.
fn kept_as(package: &str, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent()?.file_name()?;
    let is_boot_file = FILES.iter().any(|file| file.package == Some(package) && file.name == name)
        && (parent == FIRMWARE || parent == "broadcom");
    (is_boot_file || (name == "copyright" && path.components().any(|part| part.as_os_str() == "doc")))
        .then(|| name.to_owned())
}

/// Whether a board's boot loader looks for a file of this name.
pub fn knows(name: &str) -> bool {
    FILES.iter().any(|file| is_same_name(file.name, name))
}

/// Whether a file is what its name says, as far as that can be told from the file.
pub fn check(name: &str, bytes: &[u8]) -> Result<()> {
    let word = |at: usize| {
        bytes.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    };
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        // Devicetree Specification 0.4, 5.2: magic, then the size of the whole.
        Some("dtb") => ensure!(
            word(0) == Some(0xd00d_feed) && word(4).is_some_and(|size| size as usize == bytes.len()),
            "it is not a whole device tree"
        ),
        Some("elf") => ensure!(bytes.starts_with(b"\x7fELF"), "it is not an ELF file"),
        _ => ensure!(!bytes.is_empty(), "it is empty"),
    }
    Ok(())
}

/// Compares what lies in a folder of [`cache`] with the hashes that were noted when it came.
fn verify(folder: &Path) -> Result<()> {
    let sums = folder.join(SUMS);
    let text = fs::read_to_string(&sums).with_context(|| format!("could not read {}", sums.display()))?;
    for line in text.lines() {
        let (sum, name) = line.split_once("  ").with_context(|| format!("{} is damaged", sums.display()))?;
        let path = folder.join(name);
        let bytes = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        if sha256(&bytes) != sum {
            bail!(
                "{} is not what came from Debian: remove the folder {}",
                project::shown(&path),
                project::shown(folder)
            );
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Scratch;

    fn device_tree() -> Vec<u8> {
        [&0xd00d_feedu32.to_be_bytes()[..], &12u32.to_be_bytes(), b"tree"].concat()
    }

    #[test]
    fn a_folder_gives_what_the_boards_need_and_what_it_lacks_is_named_with_where_it_is_published() {
        let scratch = Scratch::new().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(scratch.path().join(name), bytes).unwrap();
        put("start4.elf", b"\x7fELF...");
        put("LICENCE.broadcom", b"Redistribution");
        put("bcm2712-rpi-5-b.dtb", &device_tree());
        put("notes.txt", b"no boot file");
        let mut card = Card::default();
        add(&mut card, &[Board::Pi4], Some(scratch.path())).unwrap();
        let missing = missing(&card, &[Board::Pi4]);
        let names: Vec<_> = card.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["start4.elf", "LICENCE.broadcom"]);
        let words = missing.words().unwrap();
        assert!(words.contains("fixup4.dat") && words.contains("raspberrypi/firmware"), "{words}");
        assert!(words.contains("bcm2711-rpi-4-b.dtb") && !words.contains("bcm2712-rpi-5-b.dtb"), "{words}");

        let mut card = Card::default();
        add(&mut card, &[Board::Pi4, Board::Pi5], Some(scratch.path())).unwrap();
        assert!(card.has("bcm2712-rpi-5-b.dtb") && !card.has("bcm2712d0-rpi-5-b.dtb"));
        assert!(add(&mut card, &[Board::Pi5], Some(&scratch.path().join("nowhere"))).is_err());
    }

    #[test]
    fn a_card_without_a_boot_loader_or_any_tree_of_a_board_is_refused_and_one_without_trees_of_others_is_not()
    {
        const BOTH: &[Board] = &[Board::Pi4, Board::Pi5];
        let loader = ["start4.elf", "fixup4.dat"];
        for (files, boards, lacks) in [
            (
                &[][..],
                BOTH,
                Some(
                    "Raspberry Pi 4 can't start from this card without start4.elf and fixup4.dat and bcm2711-",
                ),
            ),
            (&loader, &[Board::Pi4], Some("without bcm2711-rpi-4-b.dtb.")),
            (&["start4.elf", "bcm2711-rpi-400.dtb"], &[Board::Pi4], Some("without fixup4.dat.")),
            (&["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"], BOTH, Some("Raspberry Pi 5 can't start")),
            (&["start4.elf", "fixup4.dat", "bcm2711-rpi-400.dtb", "bcm2712-rpi-500.dtb"], BOTH, None),
            (&["bcm2712-rpi-5-b.dtb"], &[Board::Pi5], None),
            (&[], &[], None),
        ] {
            let card = files.iter().fold(Card::default(), |card, name| card.with_bytes(name, "x"));
            match (missing(&card, boards).can_start(&card, boards), lacks) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => {
                    let error = error.to_string();
                    assert!(error.contains(words) && error.contains("--no-boot-files"), "{error}");
                }
                (result, _) => panic!("{files:?}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_boot_file_that_is_none_is_refused() {
        for (name, bytes) in [
            ("bcm2712-rpi-5-b.dtb", &device_tree()[..11]),
            ("bcm2712-rpi-5-b.dtb", b"<html>not found</html>"),
            ("start4.elf", b"<html>not found</html>"),
        ] {
            let scratch = Scratch::new().unwrap();
            fs::write(scratch.path().join(name), bytes).unwrap();
            let error =
                add(&mut Card::default(), &[Board::Pi4, Board::Pi5], Some(scratch.path())).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }

    #[test]
    fn debians_packages_are_taken_apart_by_path_and_a_changed_file_is_noticed() {
        for (package, path, name) in [
            (FIRMWARE, "./usr/lib/raspi-firmware/start4.elf", Some("start4.elf")),
            (FIRMWARE, "./usr/lib/raspi-firmware/start4x.elf", None),
            (FIRMWARE, "./usr/share/doc/raspi-firmware/copyright", Some("copyright")),
            (
                KERNEL,
                "./usr/lib/linux-image-6.12.95+deb12-arm64/broadcom/bcm2712-rpi-5-b.dtb",
                Some("bcm2712-rpi-5-b.dtb"),
            ),
            (KERNEL, "./usr/lib/linux-image-6.12.95+deb12-arm64/broadcom/bcm2837-rpi-3-b.dtb", None),
            (KERNEL, "./usr/lib/elsewhere/start4.elf", None),
        ] {
            assert_eq!(kept_as(package, Path::new(path)).as_deref(), name, "{path}");
        }
        let scratch = Scratch::new().unwrap();
        let folder = scratch.path().join(KERNEL);
        fs::create_dir(&folder).unwrap();
        let tree = device_tree();
        for (name, bytes) in [("bcm2712-rpi-5-b.dtb", &tree[..]), ("copyright", b"GPL-2")] {
            fs::write(folder.join(name), bytes).unwrap();
        }
        fs::write(folder.join(SUMS), format!("{}  bcm2712-rpi-5-b.dtb\n", sha256(&tree))).unwrap();
        let mut card = Card::default();
        from_cache(&mut card, &[Board::Pi4, Board::Pi5], scratch.path()).unwrap();
        assert!(card.has("bcm2712-rpi-5-b.dtb") && card.has("linux-image-arm64.copyright.txt"));
        assert!(!card.has("start4.elf") && !card.has("bcm2711-rpi-4-b.dtb"));
        fs::write(folder.join("bcm2712-rpi-5-b.dtb"), b"changed").unwrap();
        let error = from_cache(&mut card, &[Board::Pi5], scratch.path()).unwrap_err().to_string();
        assert!(error.contains("is not what came from Debian"), "{error}");
    }
}
