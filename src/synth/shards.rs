//! A model cut into shards, as llama.cpp's gguf-split cuts it.

use crate::gguf::writer::Writer;
use crate::gguf::{Gguf, GgufError};
use crate::source::{ByteSource, ReadError};
use alloc::vec::Vec;

/// Cuts a GGUF file into so many shards of about as many tensors each.
///
/// # Panics
/// If it is none, or has fewer tensors than that.
pub fn shards(file: &[u8], count: usize) -> Vec<Vec<u8>> {
    let tensors = opened(file).expect("a GGUF file").tensors.len();
    assert!(count <= tensors, "more shards than tensors");
    let ends: Vec<usize> = (1..count).map(|shard| tensors * shard / count).collect();
    shards_of(file, &ends)
}

/// Cuts a GGUF file behind so many tensors; the rest is one more shard.
///
/// # Panics
/// If it is none.
pub fn shards_of(file: &[u8], ends: &[usize]) -> Vec<Vec<u8>> {
    let gguf = opened(file).expect("a GGUF file");
    let count = u16::try_from(ends.len() + 1).expect("few shards");
    let tensors = i32::try_from(gguf.tensors.len()).expect("few tensors");
    let at = |offset: u64| usize::try_from(offset).expect("the file is in memory");
    let mut start = 0;
    let one = |(number, &end): (u16, &usize)| {
        let mut shard = Writer::new();
        if number == 0 {
            let metadata = &file[at(Gguf::METADATA_OFFSET)..at(gguf.directory_offset)];
            shard.copied(gguf.metadata.iter().count() as u64, metadata);
        }
        shard.u16("split.no", number).u16("split.count", count).i32("split.tensors.count", tensors);
        for info in &gguf.tensors[start..end] {
            let data = file[at(info.offset)..][..at(info.bytes)].to_vec();
            shard.tensor(&info.name, info.kind, &info.shape, data);
        }
        start = end;
        shard.finish()
    };
    (0..).zip(ends.iter().chain([&gguf.tensors.len()])).map(one).collect()
}

fn opened(file: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::open(&Borrowed(file))
}

/// Bytes that live only as long as the call.
struct Borrowed<'a>(&'a [u8]);

impl ByteSource for Borrowed<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let past_end = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: self.len() };
        let start = usize::try_from(offset).map_err(|_| past_end.clone())?;
        buffer
            .copy_from_slice(self.0.get(start..).and_then(|from| from.get(..buffer.len())).ok_or(past_end)?);
        Ok(())
    }
}
