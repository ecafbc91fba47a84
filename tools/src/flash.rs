//! `flash`: a card image onto a card, and read back.

mod device;

use crate::image::show_size;
use crate::{models, project};
use anyhow::{Context, Result, bail, ensure};
use device::{Machine, Target};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes written or read at once.
const CHUNK: usize = 4 << 20;
/// Bytes after which we wait for the card: the bar shows what is on it, not what is still on its way there.
const SYNC: u64 = 32 << 20;

/// Write a card image to an SD card, and read it back.
///
/// Everything on the card is lost. A device that is mounted, in use, not removable or only a partition is refused unless
/// --force is given. Linux only.
#[derive(clap::Args)]
pub struct Args {
    /// The card's device: /dev/sdb, /dev/mmcblk0. Without it, those that can be written are listed
    #[arg(value_name = "DEVICE")]
    device: Option<PathBuf>,
    /// The image [default: target/card.img]
    #[arg(value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// Write even to a device that is mounted, in use, not removable, a partition, or an ordinary file
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Carries out `flash`.
pub fn run(args: &Args) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("flash knows the devices of Linux only: write the image with your system's own tool");
    }
    let Some(device) = &args.device else {
        let cards: String = Machine::here().cards().iter().map(|card| format!("\n  {card}")).collect();
        let cards = if cards.is_empty() { " none; put a card into its reader".to_owned() } else { cards };
        bail!("name the device to write to. Cards and sticks that nothing uses:{cards}")
    };
    let path = args.image.clone().unwrap_or_else(|| project::target_dir().join("card.img"));
    let mut image = File::open(&path)
        .with_context(|| format!("could not open {}: make it with `cargo embodi image`", path.display()))?;
    let bytes = image.metadata()?.len();
    ensure!(bytes > 0, "{} is empty", path.display());
    let target = Machine::here().look(device)?;
    target.admit(bytes, args.force)?;
    check_sum(&path)?;
    eprintln!(
        "writing {} ({}) to {target}: everything on it is lost",
        project::shown(&path),
        show_size(bytes)
    );
    if !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal() {
        eprint!("Go on? [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was written");
    }
    write(&mut image, &target, args.force, bytes)
        .with_context(|| format!("could not write {}", device.display()))?;
    verify(&mut image, device, bytes)?;
    println!("{}: {} written and read back, all as in the image", device.display(), show_size(bytes));
    Ok(())
}

/// Compares an image with the SHA256SUMS beside it, if that knows it.
fn check_sum(image: &Path) -> Result<()> {
    let sums = image.with_file_name("SHA256SUMS");
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let Ok(text) = fs::read_to_string(&sums) else { return Ok(()) };
    let known = text.lines().filter_map(|line| line.split_once("  ")).find(|(_, other)| *other == name);
    if let Some((sum, _)) = known {
        ensure!(
            models::sha256(image)? == sum,
            "{} is not what {} says: make it again",
            project::shown(image),
            project::shown(&sums)
        );
    }
    Ok(())
}

fn bar(what: &'static str, bytes: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
    let bar = ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}

fn write(image: &mut File, target: &Target, force: bool, bytes: u64) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if !force {
        device::exclusively(&mut options);
    }
    let mut card = options.open(&target.path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => anyhow::anyhow!("{error}: run this again with sudo"),
        _ => error.into(),
    })?;
    let bar = bar("writing", bytes);
    image.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; CHUNK];
    let (mut done, mut synced) = (0, 0);
    while done < bytes {
        let count = usize::try_from(bytes - done)?.min(CHUNK);
        image.read_exact(&mut buffer[..count]).context("the image became shorter")?;
        card.write_all(&buffer[..count])?;
        done += count as u64;
        if done - synced >= SYNC {
            card.sync_data()?;
            synced = done;
        }
        bar.set_position(done);
    }
    card.sync_all()?;
    bar.finish_and_clear();
    Ok(())
}

/// Reads what was written, from the device itself as far as the system allows, and names the first byte that differs.
fn verify(image: &mut File, card: &Path, bytes: u64) -> Result<()> {
    let mut card_file = device::open_past_the_cache(card)
        .with_context(|| format!("{} could not be read back", card.display()))?;
    let bar = bar("reading back", bytes);
    image.seek(SeekFrom::Start(0))?;
    let mut wanted = vec![0; CHUNK];
    let mut room = vec![0; CHUNK + device::ALIGN];
    let start = room.as_ptr().align_offset(device::ALIGN).min(device::ALIGN);
    let found = &mut room[start..][..CHUNK];
    let mut done = 0;
    while done < bytes {
        let count = usize::try_from(bytes - done)?.min(CHUNK);
        image.read_exact(&mut wanted[..count]).context("the image became shorter")?;
        // Past the cache, whole blocks have to be asked for.
        let blocks = count.next_multiple_of(device::ALIGN);
        let mut there = 0;
        while there < count {
            let at = done + there as u64;
            let ended = || format!("{} ends at byte {at}: it is no card of that size", card.display());
            match card_file.read(&mut found[there..blocks]) {
                Ok(0) => bail!(ended()),
                Ok(more) => there += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Past the cache, what is not whole blocks was the end.
                Err(_) if !there.is_multiple_of(device::ALIGN) => bail!(ended()),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{} could not be read back at byte {at}", card.display()));
                }
            }
        }
        if let Some(at) = (0..count).find(|&at| found[at] != wanted[at]) {
            bail!(
                "{} gives other bytes back than were written, from byte {} on: the card is worn out, or smaller than \
                 it says; take another one",
                card.display(),
                done + at as u64
            );
        }
        done += count as u64;
        bar.set_position(done);
    }
    bar.finish_and_clear();
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::project::Scratch;

    fn args(device: &Path, image: &Path, force: bool) -> Args {
        Args { device: Some(device.into()), image: Some(image.into()), force, yes: true }
    }

    #[test]
    fn an_image_is_written_and_read_back_and_what_lies_behind_it_stays() {
        let scratch = Scratch::new().unwrap();
        let (image, card) = (scratch.path().join("card.img"), scratch.path().join("card"));
        // More than a chunk, and no multiple of one or of a block.
        let bytes: Vec<u8> = (0..CHUNK as u32 + 12_345).map(|n| (n * 31 + n / 256) as u8).collect();
        fs::write(&image, &bytes).unwrap();
        fs::write(&card, vec![9; bytes.len() + 1000]).unwrap();
        let error = run(&args(&card, &image, false)).unwrap_err().to_string();
        assert!(error.contains("is an ordinary file") && error.contains("--force"), "{error}");
        assert!(fs::read(&card).unwrap().iter().all(|&byte| byte == 9), "nothing was written");
        run(&args(&card, &image, true)).unwrap();
        let after = fs::read(&card).unwrap();
        assert!(after[..bytes.len()] == bytes && after[bytes.len()..] == [9; 1000]);
        assert!(run(&args(&scratch.path().join("nothing"), &image, true)).is_err(), "no file is made");
        assert!(!scratch.path().join("nothing").exists());
    }

    #[test]
    fn a_byte_that_comes_back_otherwise_and_a_card_that_ends_early_are_named() {
        let scratch = Scratch::new().unwrap();
        let card = scratch.path().join("card");
        let mut image = vec![5; CHUNK + 100];
        let path = scratch.path().join("image");
        fs::write(&path, &image).unwrap();
        image[CHUNK + 7] = 6;
        fs::write(&card, &image).unwrap();
        let said = |bytes| verify(&mut File::open(&path).unwrap(), &card, bytes).unwrap_err().to_string();
        assert!(said(CHUNK as u64 + 100).contains(&format!("from byte {} on", CHUNK + 7)));
        verify(&mut File::open(&path).unwrap(), &card, CHUNK as u64 + 7).unwrap();
        image.truncate(1000);
        fs::write(&card, &image).unwrap();
        assert!(said(CHUNK as u64).contains("ends at byte 1000"));
    }

    #[test]
    fn an_image_that_is_not_what_its_sum_says_is_not_written() {
        let scratch = Scratch::new().unwrap();
        let (image, card) = (scratch.path().join("card.img"), scratch.path().join("card"));
        fs::write(&image, "abc").unwrap();
        fs::write(&card, "...").unwrap();
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(scratch.path().join("SHA256SUMS"), format!("{sum}  card.img\n")).unwrap();
        run(&args(&card, &image, true)).unwrap();
        fs::write(&image, "abd").unwrap();
        let error = run(&args(&card, &image, true)).unwrap_err().to_string();
        assert!(error.contains("is not what"), "{error}");
        assert_eq!(fs::read(&card).unwrap(), b"abc");
    }
}
