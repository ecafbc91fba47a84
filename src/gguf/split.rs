//! Split: a model in several files, `NAME-00001-of-00003.gguf` and so on, read as the one file that it was.
//!
//! FAT32 holds no file of 4 GiB, so a larger model comes to a card in shards, each a GGUF file. The first has all
//! metadata; each has a directory of its own tensors, and says which shard it is, of how many, and how many tensors
//! they have together. What is made of them here is a source of bytes with one header, whose directory is all
//! directories together, and the data behind it, shard after shard: whoever reads it need not know.
//!
//! Source: llama.cpp, tools/gguf-split and `llama_split_path`: keys `split.no` (from 0), `split.count`,
//! `split.tensors.count`; five digits at least in a name, from 1.

use super::{Gguf, GgufError, writer};
use crate::source::{ByteSource, ReadError};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// More shards than this are taken for a damaged file, and a name that speaks of more for one of another meaning.
const MAX_SHARDS: u32 = 999;

/// Bytes before the metadata: `usize` of [`Gguf::METADATA_OFFSET`].
const METADATA_OFFSET: usize = 24;

/// Data lie as far behind a multiple of this as in their shard, so that long reads end where a card's blocks and clusters
/// do, and its controller can put them into memory by whole cache lines. No card's clusters are longer.
const CLUSTER: u64 = 64 << 10;

/// The name of a shard, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardName<'n> {
    /// What all shards' names begin with.
    pub stem: &'n str,
    /// Which it is, from 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// `.gguf`, in the case that it is written in.
    extension: &'n str,
}

impl<'n> ShardName<'n> {
    /// Takes a file's name apart; `None` if it is not that of a shard of several.
    pub fn parse(name: &'n str) -> Option<Self> {
        let at = name.len().checked_sub(".gguf".len()).filter(|&at| name.is_char_boundary(at))?;
        let (rest, extension) = name.split_at(at);
        let (rest, count) = rest.rsplit_once('-')?;
        let rest = rest.get(..rest.len().checked_sub("-of".len())?).filter(|_| {
            rest.get(rest.len() - "-of".len()..).is_some_and(|of| of.eq_ignore_ascii_case("-of"))
        })?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let all = text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| all)
        };
        let (number, count): (u32, u32) = (digits(number)?, digits(count)?);
        let is_one = extension.eq_ignore_ascii_case(".gguf")
            && (2..=MAX_SHARDS).contains(&count)
            && (1..=count).contains(&number);
        is_one.then_some(Self { stem, number, count, extension })
    }

    /// The name of another shard of the same model.
    pub fn sibling(&self, number: u32) -> String {
        let Self { stem, count, extension, .. } = self;
        format!("{stem}-{number:05}-of-{count:05}{extension}")
    }

    /// Whether two names are of shards of one model.
    pub fn is_of(&self, other: &Self) -> bool {
        self.count == other.count && self.stem.to_lowercase() == other.stem.to_lowercase()
    }
}

/// Why shards were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// A shard is not there.
    Missing {
        /// Its name.
        name: String,
        /// How many there should be.
        count: u32,
    },
    /// A shard could not be opened; a sentence.
    Open(String),
    /// A shard is not a sound GGUF file.
    Shard {
        /// Its name.
        name: String,
        /// Why.
        error: GgufError,
    },
    /// A shard is another one than its name says.
    MixedUp {
        /// Its name.
        name: String,
        /// What it says of itself, from 1; nothing if it is no shard.
        says: Option<(u32, u32)>,
    },
    /// Shards of different models.
    Tensors {
        /// The first's name.
        name: String,
        /// Tensors in all.
        found: u64,
        /// Tensors that the first says there are.
        wanted: u64,
    },
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, count } => {
                write!(
                    f,
                    "the file {name} is missing: the model is in {count} files, which must lie side by side"
                )
            }
            Self::Open(why) => f.write_str(why),
            Self::Shard { name, error } => write!(f, "the file {name} can't be used: {error}"),
            Self::MixedUp { name, says: Some((number, count)) } => write!(
                f,
                "the file {name} says of itself that it is file {number} of {count}: it was renamed, or is of another model"
            ),
            Self::MixedUp { name, says: None } => {
                write!(
                    f,
                    "the file {name} is no part of a split model, as its name says: it is a whole file, or was renamed"
                )
            }
            Self::Tensors { name, found, wanted } => write!(
                f,
                "the file {name} and those beside it have {found} tensors together, but should have {wanted}: one of \
                 them is of another model"
            ),
        }
    }
}

impl core::error::Error for SplitError {}

/// Opens a model by the name of its file, or of any of its shards. `open` opens a file beside it; `None` is that there is
/// none of that name.
pub fn open<S: ByteSource + 'static>(
    name: &str,
    open: &mut dyn FnMut(&str) -> Result<Option<S>, String>,
) -> Result<Box<dyn ByteSource>, SplitError> {
    let mut get = |name: &str, count| {
        let source = open(name).map_err(SplitError::Open)?;
        source.ok_or_else(|| SplitError::Missing { name: name.into(), count })
    };
    let Some(shard) = ShardName::parse(name) else { return Ok(Box::new(get(name, 1)?)) };
    let (mut shards, mut sources) = (Vec::new(), Vec::new());
    let (mut alignment, mut wanted, mut keys) = (32, 0, 0);
    for number in 1..=shard.count {
        let name = shard.sibling(number);
        let source = get(&name, shard.count)?;
        let is_bad = |error| SplitError::Shard { name: name.clone(), error };
        let gguf = Gguf::open(&source).map_err(is_bad)?;
        let key = |key| gguf.metadata.opt_u32(key).map_err(is_bad);
        let says = key("split.no")?.zip(key("split.count")?);
        if says.is_none_or(|(no, count)| (no, count) != (number - 1, shard.count)) {
            return Err(SplitError::MixedUp {
                name,
                says: says.map(|(no, count)| (no.saturating_add(1), count)),
            });
        }
        if number == 1 {
            alignment = u64::from(key("general.alignment")?.unwrap_or(32));
            wanted = u64::from(gguf.metadata.u32("split.tensors.count").map_err(is_bad)?);
            keys = gguf.metadata.iter().count() as u64;
        }
        shards.push(Gguf { metadata: Default::default(), ..gguf });
        sources.push(source);
    }
    let found = shards.iter().map(|gguf| gguf.tensors.len() as u64).sum();
    if found != wanted {
        return Err(SplitError::Tensors { name: shard.sibling(1), found, wanted });
    }
    Ok(Box::new(Joined::new(sources, &shards, keys, alignment)))
}

/// A stretch of the joined file that is a stretch of a shard.
struct Piece {
    /// Where it begins in the joined file.
    start: u64,
    len: u64,
    /// Where it begins in the shard.
    offset: u64,
    shard: usize,
}

/// Shards as one file.
struct Joined<S> {
    shards: Vec<S>,
    /// What stands in no shard: the 24 bytes before the metadata, and the directory behind them.
    header: Vec<u8>,
    /// In order; the first is the metadata. Between them is padding, which is zero.
    pieces: Vec<Piece>,
    len: u64,
}

impl<S> Joined<S> {
    /// Lays the shards out, of which the first has so many keys. All data are aligned so.
    fn new(sources: Vec<S>, shards: &[Gguf], keys: u64, alignment: u64) -> Self {
        let tensors = || shards.iter().flat_map(|gguf| &gguf.tensors);
        let start = writer::start(tensors().count() as u64, keys);
        let first = start.len() as u64;
        let metadata = shards.first().map_or(0, |gguf| gguf.directory_offset - Gguf::METADATA_OFFSET);
        let mut pieces = Vec::new();
        pieces.push(Piece { start: first, len: metadata, offset: first, shard: 0 });
        // The directory is as long whatever the offsets in it are.
        let mut header = start.clone();
        tensors().for_each(|info| writer::put_entry(&mut header, &info.name, &info.shape, info.kind, 0));
        let data = (metadata + header.len() as u64).next_multiple_of(alignment);
        header = start;
        let mut end = data;
        for (shard, gguf) in shards.iter().enumerate() {
            let offset = gguf.data_offset;
            // Where it lies in the shard, to the cluster; but for data that are less aligned than the first's.
            let there = if offset.is_multiple_of(alignment) { offset % CLUSTER } else { 0 };
            let start = (end - there.min(end)).next_multiple_of(CLUSTER.max(alignment)) + there;
            let len = gguf.file_bytes.saturating_sub(offset);
            for info in &gguf.tensors {
                let place = info.offset - offset + (start - data);
                writer::put_entry(&mut header, &info.name, &info.shape, info.kind, place);
            }
            pieces.push(Piece { start, len, offset, shard });
            end = start.saturating_add(len);
        }
        Self { shards: sources, header, pieces, len: end }
    }
}

/// The part of a `buffer` for the bytes from `offset` on that the `len` bytes from `start` on are, and how many of them are
/// before it.
fn part(buffer: &mut [u8], offset: u64, start: u64, len: u64) -> Option<(&mut [u8], u64)> {
    let end = offset + buffer.len() as u64;
    let (from, to) = (start.max(offset), (start + len).min(end));
    let place = usize::try_from(from - offset).ok()?..usize::try_from(to.checked_sub(offset)?).ok()?;
    buffer.get_mut(place).filter(|place| !place.is_empty()).map(|place| (place, from - start))
}

impl<S: ByteSource> ByteSource for Joined<S> {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let wanted = buffer.len() as u64;
        let end = offset.checked_add(wanted).filter(|&end| end <= self.len);
        let end = end.ok_or(ReadError::PastEnd { offset, wanted, len: self.len })?;
        if !self.pieces.iter().any(|piece| piece.start <= offset && end <= piece.start + piece.len) {
            buffer.fill(0); // padding is among them
        }
        let behind = self.pieces.first().map_or(0, |metadata| metadata.start + metadata.len);
        let (start, directory) = self.header.split_at(METADATA_OFFSET);
        for (at, bytes) in [(0, start), (behind, directory)] {
            if let Some((place, before)) = part(buffer, offset, at, bytes.len() as u64) {
                let bytes = &bytes[usize::try_from(before).unwrap_or(0)..];
                place.copy_from_slice(&bytes[..place.len()]);
            }
        }
        for piece in &self.pieces {
            if let Some((place, before)) = part(buffer, offset, piece.start, piece.len) {
                self.shards[piece.shard].read_at(piece.offset + before, place)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
