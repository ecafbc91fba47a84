//! `build`: compile the firmware and flatten it into kernel8.img.

pub mod embed;

use crate::host;
use crate::project::{self, BOARD_TARGET, Toolchain};
use anyhow::{Context, Result, bail, ensure};
use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Largest image we believe in: boot loaders put the initrd or the device tree not far above it.
const LARGEST_IMAGE: u64 = 64 << 20;

/// Compile the firmware and flatten it into kernel8.img.
///
/// The image is what a Raspberry Pi's boot partition and `qemu-system-aarch64 -kernel` take as it is.
#[derive(clap::Args)]
pub struct Args {
    /// Where to put the image [default: target/kernel8.img]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put a model into the image, which then needs neither a card nor a boot loader that brings one
    #[arg(long, value_name = "NAME|PATH", requires = "output")]
    embed: Option<String>,
}

/// Carries out `build`.
pub fn run(args: &Args) -> Result<()> {
    let kernel = kernel()?;
    if let (Some(output), Some(model)) = (&args.output, &args.embed) {
        embed::append(&kernel.image, &*host::open(model)?, output)
            .with_context(|| format!("{model} can't be embedded"))?;
        println!("with {model} in it:");
    } else if let Some(output) = &args.output {
        fs::copy(&kernel.image, output).with_context(|| format!("could not write {}", output.display()))?;
    }
    let image = args.output.as_deref().unwrap_or(&kernel.image);
    println!("{}: {}", project::shown(image), kernel.sizes);
    Ok(())
}

/// A built kernel.
pub struct Kernel {
    /// The flat image.
    pub image: PathBuf,
    /// The ELF file it was made from, with symbols.
    pub elf: PathBuf,
    /// What it weighs, in words.
    pub sizes: String,
}

/// Builds the kernel, or finds that it is up to date.
pub fn kernel() -> Result<Kernel> {
    compile("embodios-firmware", "kernel8")
}

/// Builds the Raspberry Pi 5 that tests play on QEMU's virt machine.
pub fn pi5_model() -> Result<Kernel> {
    compile("embodios-pi5-model", "pi5-model")
}

/// Builds a program for the board, and flattens it.
fn compile(package: &str, name: &str) -> Result<Kernel> {
    let output = Toolchain::for_board()?
        .cargo()
        .args(["build", "--release", "--package", package, "--bin", name])
        .args(["--target", BOARD_TARGET, "--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("{name} did not build: see the compiler's messages above");
    }
    let elf = executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("cargo did not say where {name} is"))?;
    let bytes = fs::read(&elf).with_context(|| format!("could not read {}", elf.display()))?;
    let flat = flatten(&bytes).with_context(|| format!("the ELF file of {name} makes no flat image"))?;
    let image = project::target_dir().join(name).with_extension("img");
    write_whole(&image, &flat.bytes)?;
    Ok(Kernel { image, elf, sizes: flat.sizes() })
}

/// Finds a program's path among cargo's messages.
pub fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Writes beside and renames, so that an emulator that has the file open keeps the old one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let part = path.with_extension(format!("part{}", std::process::id()));
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("could not write {}", path.display()))
}

/// An ELF file's memory as it is before the first instruction.
struct Flat {
    bytes: Vec<u8>,
    code: u64,
    data: u64,
    /// Zeroed memory behind the image, which is not in the file.
    zeroed: u64,
}

impl Flat {
    fn sizes(&self) -> String {
        let kib = |bytes: u64| bytes.div_ceil(1024);
        format!(
            "{} KiB (code {} KiB, data {} KiB), and {} KiB of zeroed memory behind it",
            kib(self.bytes.len() as u64),
            kib(self.code),
            kib(self.data),
            kib(self.zeroed)
        )
    }
}

/// Lays the loadable segments out by physical address, from the lowest on.
fn flatten(file: &[u8]) -> Result<Flat> {
    let file = ElfFile64::<Endianness>::parse(file)?;
    let endian = file.endian();
    ensure!(file.architecture() == object::Architecture::Aarch64, "it is not for a 64-bit Arm");
    let segments: Vec<_> = file
        .elf_program_headers()
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD && segment.p_memsz(endian) > 0)
        .collect();
    let Some(base) = segments.iter().map(|segment| segment.p_paddr(endian)).min() else {
        bail!("it has nothing to load");
    };
    let mut flat = Flat { bytes: Vec::new(), code: 0, data: 0, zeroed: 0 };
    let mut end = 0;
    for segment in segments {
        let data = segment
            .data(endian, file.data())
            .map_err(|()| anyhow::anyhow!("a segment lies outside the file"))?;
        let start = segment.p_paddr(endian) - base;
        ensure!(start + segment.p_memsz(endian) <= LARGEST_IMAGE, "its segments lie too far apart");
        let (start, stop) = (usize::try_from(start)?, usize::try_from(start)? + data.len());
        if flat.bytes.len() < stop {
            flat.bytes.resize(stop, 0);
        }
        flat.bytes[start..stop].copy_from_slice(data);
        end = end.max(start as u64 + segment.p_memsz(endian));
        if segment.p_flags(endian).0 & elf::PF_X.0 == 0 {
            flat.data += data.len() as u64;
        } else {
            flat.code += data.len() as u64;
        }
    }
    flat.zeroed = end - flat.bytes.len() as u64;
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian ELF64 for Arm with these `(flags, physical address, bytes, size in memory)`.
    fn elf_with(segments: &[(u32, u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for half in [2u16, 183] {
            file.extend_from_slice(&half.to_le_bytes()); // executable, AArch64
        }
        file.extend_from_slice(&1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            file.extend_from_slice(&word.to_le_bytes()); // entry, program headers, section headers
        }
        file.extend_from_slice(&0u32.to_le_bytes());
        for half in [64u16, 56, u16::try_from(segments.len()).unwrap(), 64, 0, 0] {
            file.extend_from_slice(&half.to_le_bytes());
        }
        let mut offset = 64 + 56 * segments.len() as u64;
        for (flags, address, bytes, memory) in segments {
            file.extend_from_slice(&1u32.to_le_bytes());
            file.extend_from_slice(&flags.to_le_bytes());
            for word in [offset, 0xffff_0000, *address, bytes.len() as u64, *memory, 1] {
                file.extend_from_slice(&word.to_le_bytes());
            }
            offset += bytes.len() as u64;
        }
        for (_, _, bytes, _) in segments {
            file.extend_from_slice(bytes);
        }
        file
    }

    #[test]
    fn segments_are_laid_out_by_physical_address_with_zeros_between_them() {
        let file = elf_with(&[(6, 0x80008, b"data", 0x100), (5, 0x80000, b"code", 4)]);
        let flat = flatten(&file).unwrap();
        assert_eq!(flat.bytes, b"code\0\0\0\0data");
        assert_eq!((flat.code, flat.data, flat.zeroed), (4, 4, 0x108 - 12));
    }

    #[test]
    fn a_file_without_segments_or_with_far_ones_is_refused() {
        assert!(flatten(&elf_with(&[])).is_err());
        assert!(flatten(&elf_with(&[(5, 0, b"a", 1), (5, 1 << 40, b"b", 1)])).is_err());
        assert!(flatten(b"\x7fELF").is_err());
    }

    #[test]
    fn the_kernel_is_found_among_cargos_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"spin\"},\"executable\":null}\n",
            "not json\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"kernel8\"},\"executable\":\"/t/kernel8\"}\n",
        );
        assert_eq!(executable(messages, "kernel8"), Some(PathBuf::from("/t/kernel8")));
    }
}
