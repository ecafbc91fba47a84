//! A model in the image: behind all of the image's memory, where the firmware uses it in place.
//!
//! The arm64 header of the image (Linux, "Booting AArch64 Linux") says to boot loaders how much memory the image takes, with
//! what is not in the file; that is made to cover the model. Its first reserved word says to the firmware how long the
//! model is (`firmware/src/boot.rs`); boot loaders do not look at it.

use anyhow::{Context, Result, bail, ensure};
use embodios::ByteSource;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Largest model that is embedded. A Raspberry Pi 4's boot loader brings everything into the first GiB, most of which is the
/// Arm's, and puts the device tree below 0x2f00_0000 (752 MiB; its log with `uart_2ndstage=1`: "Device tree loaded to
/// 0x2eff2f00"): up to there is room.
const LARGEST: u64 = 640 << 20;
/// What begins a header, and where.
const MAGIC: (usize, &[u8]) = (56, b"ARM\x64");
/// Where the header has the size of the image.
const IMAGE_SIZE: usize = 16;
/// Where it has the size of the model.
const MODEL_SIZE: usize = 32;
const PAGE: u64 = 4096;

/// Writes an image and a model behind it as one file.
pub fn append(image: &Path, model: &dyn ByteSource, to: &Path) -> Result<()> {
    let mut bytes = fs::read(image).with_context(|| format!("could not read {}", image.display()))?;
    let model_bytes = model.len();
    ensure!(
        model_bytes <= LARGEST,
        "it has {} MiB, and boot loaders have room for {}: leave --embed away",
        model_bytes.div_ceil(1 << 20),
        LARGEST >> 20
    );
    ensure!(model_bytes > 0, "it is empty");
    let start = prepare(&mut bytes, model_bytes)
        .with_context(|| format!("{} is no image of ours", image.display()))?;
    let write = || -> Result<()> {
        let mut file = File::create(to)?;
        file.write_all(&bytes)?;
        file.seek(SeekFrom::Start(start))?; // what is not in the file of the image alone is zero
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < model_bytes {
            let count = usize::try_from(model_bytes - done)?.min(buffer.len());
            model.read_at(done, &mut buffer[..count])?;
            file.write_all(&buffer[..count])?;
            done += count as u64;
        }
        Ok(())
    };
    write().with_context(|| format!("could not write {}", to.display()))
}

/// Says in the header that a model follows; gives its place in the file.
fn prepare(image: &mut [u8], model: u64) -> Result<u64> {
    ensure!(image.get(MAGIC.0..).is_some_and(|bytes| bytes.starts_with(MAGIC.1)), "it has no arm64 header");
    let size: [u8; 8] = image[IMAGE_SIZE..][..8].try_into()?;
    let start = u64::from_le_bytes(size);
    if start < image.len() as u64 || !start.is_multiple_of(PAGE) {
        bail!("its header says that it takes {start} bytes");
    }
    ensure!(image[MODEL_SIZE..][..8] == [0; 8], "there is a model in it already");
    image[IMAGE_SIZE..][..8].copy_from_slice(&(start + model).next_multiple_of(PAGE).to_le_bytes());
    image[MODEL_SIZE..][..8].copy_from_slice(&model.to_le_bytes());
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Scratch;
    use embodios::source::Memory;

    /// An image of 100 bytes that takes a page.
    fn image() -> Vec<u8> {
        let mut image = vec![0x11; 100];
        image[IMAGE_SIZE..][..8].copy_from_slice(&PAGE.to_le_bytes());
        image[MODEL_SIZE..][..8].fill(0);
        image[MAGIC.0..][..4].copy_from_slice(MAGIC.1);
        image
    }

    #[test]
    fn the_model_lies_behind_all_memory_of_the_image_and_the_header_covers_it() {
        let scratch = Scratch::new().unwrap();
        let (alone, both) = (scratch.path().join("alone"), scratch.path().join("both"));
        fs::write(&alone, image()).unwrap();
        let model: &'static [u8] = vec![7; 5000].leak();
        append(&alone, &Memory(model), &both).unwrap();
        let bytes = fs::read(&both).unwrap();
        assert_eq!(bytes.len(), 4096 + 5000);
        assert!(bytes[100..4096].iter().all(|&byte| byte == 0) && bytes[4096..] == *model);
        assert_eq!(bytes[IMAGE_SIZE..][..8], (3 * PAGE).to_le_bytes());
        assert_eq!(bytes[MODEL_SIZE..][..8], 5000u64.to_le_bytes());
        let again = append(&both, &Memory(model), &alone).unwrap_err();
        assert!(format!("{again:#}").contains("is no image of ours"), "{again:#}");
    }

    #[test]
    fn what_is_no_image_and_a_model_too_large_are_refused() {
        assert!(prepare(&mut [0; 40], 1).is_err() && prepare(&mut [0; 100], 1).is_err());
        let mut odd = image();
        odd[IMAGE_SIZE] = 1;
        assert!(prepare(&mut odd, 1).is_err());
        struct Vast;
        impl ByteSource for Vast {
            fn len(&self) -> u64 {
                LARGEST + 1
            }
            fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), embodios::ReadError> {
                unreachable!("it is refused by its length")
            }
        }
        let scratch = Scratch::new().unwrap();
        let alone = scratch.path().join("alone");
        fs::write(&alone, image()).unwrap();
        let error = append(&alone, &Vast, &scratch.path().join("both")).unwrap_err().to_string();
        assert!(error.contains("641 MiB") && error.contains("leave --embed away"), "{error}");
    }
}
