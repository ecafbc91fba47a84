//! `models split`: a model in several files, for cards, whose file system holds none of 4 GiB.
//!
//! As llama.cpp's gguf-split makes them, so that it reads them, too: see `gguf/split.rs` of the engine.

use crate::image::{parse_size, show_size};
use crate::{host, models, project};
use anyhow::{Context, Result, ensure};
use embodios::ByteSource;
use embodios::gguf::writer::{ALIGNMENT, Writer};
use embodios::gguf::{Gguf, TensorInfo};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Cut a model into files that a card can hold: NAME-00001-of-00003.gguf and so on.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    #[arg(value_name = "FILE")]
    model: String,
    /// Most tensor data in a file
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    size: u64,
    /// Where to put them [default: the model's folder]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Carries out `models split`.
pub fn run(args: &Args) -> Result<()> {
    let model = models::resolve(&args.model)?;
    let folder = args.output.clone().unwrap_or_else(|| model.parent().unwrap_or(Path::new("")).to_path_buf());
    let stem = model.file_stem().and_then(|stem| stem.to_str()).context("the model's name is not UTF-8")?;
    let files = cut(&*host::open_file(&model)?, args.size, &folder, stem)
        .with_context(|| format!("{} can't be split", model.display()))?;
    for file in files {
        println!("{}: {}", project::shown(&file), show_size(file.metadata()?.len()));
    }
    Ok(())
}

/// Writes the shards of a model, with at most so many bytes of tensor data each, and gives their paths.
///
/// # Errors
///
/// What is split already, needs no splitting, or has a tensor larger than that; what can't be read or written.
pub fn cut(source: &dyn ByteSource, size: u64, folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    let gguf = Gguf::open(source).map_err(host::said)?;
    let alignment = gguf.metadata.opt_u32("general.alignment").map_err(host::said)?;
    ensure!(
        alignment.is_none_or(|bytes| bytes as usize == ALIGNMENT),
        "its tensors are not aligned to 32 bytes"
    );
    ensure!(gguf.metadata.get("split.count").is_none(), "it is split already");
    let groups = groups(&gguf.tensors, size)?;
    ensure!(
        groups.len() > 1,
        "it has no more than {} of tensor data: it needs no splitting",
        show_size(size)
    );
    let count = u16::try_from(groups.len()).ok().filter(|&count| count <= 999);
    let count = count.context("that would be more than 999 files: choose a larger --size")?;
    let mut files = Vec::new();
    for (number, tensors) in (0..count).zip(groups) {
        let mut shard = Writer::new();
        if number == 0 {
            let bytes = gguf.directory_offset - Gguf::METADATA_OFFSET;
            let mut metadata = vec![0; usize::try_from(bytes)?];
            source.read_at(Gguf::METADATA_OFFSET, &mut metadata)?;
            shard.copied(gguf.metadata.iter().count() as u64, &metadata);
        }
        shard.u16("split.no", number).u16("split.count", count);
        shard.i32("split.tensors.count", i32::try_from(gguf.tensors.len())?);
        for info in tensors {
            shard.declare(&info.name, info.kind, &info.shape, info.bytes);
        }
        let path = folder.join(format!("{stem}-{:05}-of-{count:05}.gguf", number + 1));
        let part = path.with_extension(format!("part{}", std::process::id()));
        let result =
            write(source, &shard.header(), tensors, &part).and_then(|()| Ok(fs::rename(&part, &path)?));
        if result.is_err() {
            // The error that matters is the one being returned.
            let _ = fs::remove_file(&part);
        }
        result.with_context(|| format!("could not write {}", path.display()))?;
        files.push(path);
    }
    Ok(files)
}

/// Tensors in their order, in groups that are as large as allowed.
fn groups(tensors: &[TensorInfo], size: u64) -> Result<Vec<&[TensorInfo]>> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, info) in tensors.iter().enumerate() {
        let padded = info.bytes.next_multiple_of(ALIGNMENT as u64);
        ensure!(
            padded <= size,
            "the tensor {} alone has {}: choose a larger --size",
            info.name,
            show_size(info.bytes)
        );
        if bytes + padded > size {
            groups.push(&tensors[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += padded;
    }
    groups.push(&tensors[start..]);
    Ok(groups)
}

/// Writes a header and the data of these tensors.
fn write(source: &dyn ByteSource, header: &[u8], tensors: &[TensorInfo], path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let pad = |file: &mut BufWriter<File>, bytes: u64| -> Result<()> {
        let zeros = bytes.next_multiple_of(ALIGNMENT as u64) - bytes;
        Ok(file.write_all(&[0; ALIGNMENT][..usize::try_from(zeros)?])?)
    };
    file.write_all(header)?;
    pad(&mut file, header.len() as u64)?;
    let mut buffer = vec![0; 1 << 20];
    for info in tensors {
        let mut done = 0;
        while done < info.bytes {
            let count = usize::try_from(info.bytes - done)?.min(buffer.len());
            source.read_at(info.offset + done, &mut buffer[..count])?;
            file.write_all(&buffer[..count])?;
            done += count as u64;
        }
        pad(&mut file, info.bytes)?;
    }
    file.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Scratch;
    use embodios::source::Memory;

    #[test]
    fn the_shards_of_a_model_are_no_larger_than_asked_for_and_are_read_as_the_model() {
        let whole: &'static [u8] =
            embodios::synth::tiny(1, embodios::quant::by_name("Q4_K").expect("a format of ours")).leak();
        let gguf = Gguf::open(&Memory(whole)).unwrap();
        let largest = gguf.tensors.iter().map(|info| info.bytes.next_multiple_of(32)).max().unwrap();
        let scratch = Scratch::new().unwrap();
        let files = cut(&Memory(whole), largest, scratch.path(), "m").unwrap();
        assert!(files.len() > 2 && fs::read_dir(scratch.path()).unwrap().count() == files.len());
        for file in &files {
            let one = Gguf::open(&host::FileSource::open(file).unwrap()).unwrap();
            assert!(one.file_bytes - one.data_offset <= largest && !one.tensors.is_empty());
        }
        let joined = host::open_file(&files[0]).unwrap();
        let other = Gguf::open(&joined).unwrap();
        assert_eq!(other.tensors.len(), gguf.tensors.len());
        for (info, other) in gguf.tensors.iter().zip(&other.tensors) {
            let mut bytes = vec![0; usize::try_from(info.bytes).unwrap()];
            joined.read_at(other.offset, &mut bytes).unwrap();
            assert_eq!(info.name, other.name);
            assert!(bytes == whole[usize::try_from(info.offset).unwrap()..][..bytes.len()], "{}", info.name);
        }
        let said =
            |source: &dyn ByteSource, size| cut(source, size, scratch.path(), "x").unwrap_err().to_string();
        assert!(said(&*joined, 1 << 30).contains("it is split already"));
        assert!(said(&Memory(whole), 1 << 30).contains("it needs no splitting"));
        assert!(said(&Memory(whole), largest - 32).contains("choose a larger --size"));
    }
}
