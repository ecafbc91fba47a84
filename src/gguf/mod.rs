//! Open a GGUF file: header, metadata and tensor directory. No number in the file is trusted.
//!
//! Source: GGUF specification, versions 2 and 3 (ggml docs/gguf.md). Little-endian only.

#![deny(clippy::cast_possible_truncation)]

mod cursor;
pub mod kinds;
mod metadata;
pub mod split;
pub mod writer;

pub use metadata::{Metadata, StringArray, Value};

use crate::source::{ByteSource, ReadError};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use cursor::Cursor;

/// Bytes of header read at first; doubled until the directory is complete.
const FIRST_WINDOW: u64 = 256 << 10;
/// Arrays inside arrays inside arrays: nobody writes deeper.
const MAX_DEPTH: u32 = 4;
/// Tensor dimensions that the specification allows.
const MAX_DIMENSIONS: u32 = 4;

/// What a file says about itself, and where its tensors lie.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Everything but the tensors.
    pub metadata: Metadata,
    /// The tensor directory, in the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Where the metadata ends and the tensor directory begins, in bytes from the start of the file.
    pub directory_offset: u64,
    /// Where tensor data begins, in bytes from the start of the file.
    pub data_offset: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
}

/// One tensor of the directory, its place checked against the length of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// As in the file, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// Sizes, columns (the contiguous dimension) first; 1 to 4 of them, none zero.
    pub shape: Vec<u64>,
    /// GGUF type number; a member of [`kinds::KINDS`].
    pub kind: u32,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes of data.
    pub bytes: u64,
}

impl TensorInfo {
    /// Weights in a row.
    pub fn columns(&self) -> u64 {
        self.shape.first().copied().unwrap_or(0)
    }
    /// Rows: the product of all sizes but the first.
    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }
}

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GgufError {
    /// It does not begin with "GGUF".
    NotGguf,
    /// Version 1, or one that this code does not know.
    Version(u32),
    /// Written on a big-endian machine.
    BigEndian,
    /// Header or directory end early.
    HeaderCutShort {
        /// Byte at which more was needed.
        at: u64,
        /// How many bytes were needed.
        wanted: u64,
    },
    /// Tensor data ends early.
    DataCutShort {
        /// The first tensor that is not whole.
        tensor: String,
        /// Where it ends.
        end: u64,
        /// Where the file ends.
        len: u64,
    },
    /// A name or a key is not UTF-8.
    NotText {
        /// Byte at which it begins.
        at: u64,
    },
    /// A metadata value has a type number that the specification lacks.
    ValueType {
        /// The key.
        key: String,
        /// The number.
        id: u32,
    },
    /// A tensor has a type number that the specification lacks.
    UnknownKind {
        /// The tensor.
        tensor: String,
        /// The number.
        id: u32,
    },
    /// A tensor's sizes make no sense.
    Shape {
        /// The tensor.
        tensor: String,
    },
    /// A tensor's place is not a multiple of the file's alignment.
    Misaligned {
        /// The tensor.
        tensor: String,
    },
    /// Two tensors of one name.
    Twice {
        /// The tensor.
        tensor: String,
    },
    /// `general.alignment` is not a power of two between 8 and 1 MiB.
    Alignment(u32),
    /// A key that must be there is not.
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key has a value of the wrong type.
    WrongType {
        /// The key.
        key: String,
        /// What was needed.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A key has a value that can't be.
    OutOfRange {
        /// The key.
        key: String,
        /// What was needed.
        expected: &'static str,
    },
    /// The header does not fit in memory.
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// Reading failed.
    Read(ReadError),
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGguf => f.write_str("this is not a GGUF file (it does not begin with \"GGUF\"): download the model in GGUF format"),
            Self::Version(version) => {
                write!(f, "GGUF version {version} is not supported, only 2 and 3: convert the model again with a current llama.cpp")
            }
            Self::BigEndian => f.write_str("this is a big-endian GGUF file: download the little-endian one"),
            Self::HeaderCutShort { at, wanted } => {
                write!(f, "the file is cut short or damaged: {wanted} more bytes were needed at byte {at} of its header; copy it again")
            }
            Self::DataCutShort { tensor, end, len } => {
                write!(f, "the file is cut short: tensor {tensor} ends at byte {end}, the file at {len}; copy it again")
            }
            Self::NotText { at } => write!(f, "the file is damaged: the name at byte {at} is not text"),
            Self::ValueType { key, id } => write!(f, "the file is damaged: key {key} has the unknown value type {id}"),
            Self::UnknownKind { tensor, id } => {
                write!(f, "tensor {tensor} has the unknown type {id}: this file is newer than this program, or damaged")
            }
            Self::Shape { tensor } => write!(f, "the file is damaged: the sizes of tensor {tensor} make no sense"),
            Self::Misaligned { tensor } => {
                write!(f, "the file is damaged: tensor {tensor} does not begin at a multiple of the alignment")
            }
            Self::Twice { tensor } => write!(f, "the file is damaged: tensor {tensor} is there twice"),
            Self::Alignment(value) => write!(f, "the file is damaged: general.alignment is {value}, not a power of two from 8 to 1048576"),
            Self::MissingKey { key } => write!(f, "the file lacks the key {key}"),
            Self::WrongType { key, expected, found } => write!(f, "key {key} of the file should be {expected}, but is {found}"),
            Self::OutOfRange { key, expected } => write!(f, "key {key} of the file should be {expected}, but is out of range"),
            Self::OutOfMemory { bytes } => write!(f, "the file's header needs {bytes} bytes of memory and that is not free"),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GgufError {}

impl From<ReadError> for GgufError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Gguf {
    /// Where the metadata begins, in bytes from the start of the file: behind magic, version and two counts.
    pub const METADATA_OFFSET: u64 = 24;

    /// Reads header and directory. Reads no tensor data, but checks that all of it lies inside the file.
    pub fn open(source: &dyn ByteSource) -> Result<Self, GgufError> {
        let mut header: Vec<u8> = Vec::new();
        let mut window = FIRST_WINDOW;
        let mut progress = Progress::default();
        loop {
            let upto = window.min(source.len());
            let have = header.len();
            let upto = usize::try_from(upto).map_err(|_| GgufError::OutOfMemory { bytes: upto })?;
            header
                .try_reserve_exact(upto - have)
                .map_err(|_| GgufError::OutOfMemory { bytes: upto as u64 })?;
            header.resize(upto, 0);
            source.read_at(have as u64, &mut header[have..])?;
            match Self::parse(&header, source.len(), &mut progress) {
                Err(GgufError::HeaderCutShort { .. }) if (upto as u64) < source.len() => window *= 2,
                result => return result,
            }
        }
    }

    fn parse(bytes: &[u8], file_bytes: u64, progress: &mut Progress) -> Result<Self, GgufError> {
        if progress.position == 0 {
            *progress = Progress::begin(bytes)?;
        }
        let mut cursor = Cursor::new(bytes, progress.position);
        while progress.keys_left > 0 {
            let at = cursor.position();
            let key = text(cursor.string()?, at)?;
            let kind = cursor.u32()?;
            let value = value(&mut cursor, &key, kind, 0)?;
            progress.metadata.push(key, value);
            progress.keys_left -= 1;
            progress.position = cursor.index();
        }
        let Progress { version, tensor_count, ref metadata, .. } = *progress;
        let alignment = metadata.opt_u32("general.alignment")?.unwrap_or(32);
        if !alignment.is_power_of_two() || !(8..=1 << 20).contains(&alignment) {
            return Err(GgufError::Alignment(alignment));
        }
        let directory_offset = cursor.position();
        let directory = tensor_count.checked_mul(32).filter(|&bytes| bytes <= cursor.left());
        if directory.is_none() {
            return Err(GgufError::HeaderCutShort {
                at: cursor.position(),
                wanted: tensor_count.saturating_mul(32),
            });
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(tensor(&mut cursor)?);
        }
        let data_offset = cursor
            .position()
            .checked_next_multiple_of(u64::from(alignment))
            .ok_or(GgufError::Alignment(alignment))?;
        for info in &mut tensors {
            if info.offset % u64::from(alignment) != 0 {
                return Err(GgufError::Misaligned { tensor: info.name.clone() });
            }
            let start = info.offset.checked_add(data_offset);
            match start.and_then(|start| start.checked_add(info.bytes)) {
                Some(end) if end <= file_bytes => info.offset += data_offset,
                end => {
                    return Err(GgufError::DataCutShort {
                        tensor: info.name.clone(),
                        end: end.unwrap_or(u64::MAX),
                        len: file_bytes,
                    });
                }
            }
        }
        let mut names: Vec<&str> = tensors.iter().map(|info| info.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(GgufError::Twice { tensor: pair[0].into() });
        }
        let metadata = core::mem::take(&mut progress.metadata);
        Ok(Self { version, metadata, tensors, directory_offset, data_offset, file_bytes })
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|info| info.name == name)
    }
}

/// What of a header has been read. It comes in windows, each twice the one before; a key that was whole is not read again.
#[derive(Default)]
struct Progress {
    version: u32,
    tensor_count: u64,
    keys_left: u64,
    /// Bytes from the start of the file to the next key.
    position: usize,
    metadata: Metadata,
}

impl Progress {
    /// Reads what comes before the first key.
    fn begin(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes, 0);
        if cursor.take(4).map_err(|_| GgufError::NotGguf)? != b"GGUF" {
            return Err(GgufError::NotGguf);
        }
        let version = cursor.u32()?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
            _ => return Err(GgufError::Version(version)),
        }
        // A count is checked against what could follow once all of the header is at hand; a directory entry
        // takes at least 32 bytes, a key-value pair at least 13.
        let tensor_count = cursor.u64()?;
        let keys_left = cursor.count(13)?;
        Ok(Self { version, tensor_count, keys_left, position: cursor.index(), metadata: Metadata::default() })
    }
}

fn text(bytes: &[u8], at: u64) -> Result<String, GgufError> {
    core::str::from_utf8(bytes).map(String::from).map_err(|_| GgufError::NotText { at })
}

/// Offset is still relative to the tensor data here.
fn tensor(cursor: &mut Cursor<'_>) -> Result<TensorInfo, GgufError> {
    let at = cursor.position();
    let name = text(cursor.string()?, at)?;
    let dimensions = cursor.u32()?;
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(GgufError::Shape { tensor: name });
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64()?);
    }
    let id = cursor.u32()?;
    let offset = cursor.u64()?;
    let Some(kind) = kinds::by_id(id) else { return Err(GgufError::UnknownKind { tensor: name, id }) };
    let weights = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
    let bytes = weights
        .filter(|&weights| weights > 0 && shape[0] % u64::from(kind.len) == 0)
        .and_then(|weights| (weights / u64::from(kind.len)).checked_mul(u64::from(kind.bytes)));
    match bytes {
        Some(bytes) => Ok(TensorInfo { name, shape, kind: id, offset, bytes }),
        None => Err(GgufError::Shape { tensor: name }),
    }
}

/// Value type numbers: GGUF specification, `enum gguf_metadata_value_type`.
fn value(cursor: &mut Cursor<'_>, key: &str, kind: u32, depth: u32) -> Result<Value, GgufError> {
    Ok(match kind {
        0 => Value::Unsigned(cursor.u8()?.into()),
        1 => Value::Signed(cursor.u8()?.cast_signed().into()),
        2 => Value::Unsigned(cursor.u16()?.into()),
        3 => Value::Signed(cursor.u16()?.cast_signed().into()),
        4 => Value::Unsigned(cursor.u32()?.into()),
        5 => Value::Signed(cursor.u32()?.cast_signed().into()),
        6 => Value::Float(cursor.f32()?.into()),
        7 => Value::Bool(cursor.u8()? != 0),
        8 => {
            let at = cursor.position();
            Value::String(text(cursor.string()?, at)?)
        }
        9 => array(cursor, key, depth)?,
        10 => Value::Unsigned(cursor.u64()?),
        11 => Value::Signed(cursor.u64()?.cast_signed()),
        12 => Value::Float(cursor.f64()?),
        id => return Err(GgufError::ValueType { key: key.into(), id }),
    })
}

fn array(cursor: &mut Cursor<'_>, key: &str, depth: u32) -> Result<Value, GgufError> {
    let kind = cursor.u32()?;
    let width = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10 | 11 | 12 => 8,
        9 if depth < MAX_DEPTH => 12,
        id => return Err(GgufError::ValueType { key: key.into(), id }),
    };
    let count = cursor.count(width)?;
    let no_memory = || GgufError::OutOfMemory { bytes: count.saturating_mul(4) };
    let capacity = usize::try_from(count).map_err(|_| no_memory())?;
    match kind {
        8 => {
            // Lengths are walked once before anything is allocated: the exact size, and no trust in `count`.
            let mut array =
                StringArray::with_capacity(capacity, string_bytes(cursor, count)?).ok_or_else(no_memory)?;
            for _ in 0..count {
                array.push(cursor.string()?).ok_or_else(no_memory)?;
            }
            Ok(Value::Strings(array))
        }
        6 => {
            let mut floats = Vec::new();
            floats.try_reserve_exact(capacity).map_err(|_| no_memory())?;
            for _ in 0..count {
                floats.push(cursor.f32()?);
            }
            Ok(Value::Floats(floats))
        }
        0..=5 | 7 => {
            let mut integers = Vec::new();
            integers.try_reserve_exact(capacity).map_err(|_| no_memory())?;
            for _ in 0..count {
                integers.push(match kind {
                    1 => i32::from(cursor.u8()?.cast_signed()).cast_unsigned(),
                    3 => i32::from(cursor.u16()?.cast_signed()).cast_unsigned(),
                    0 | 7 => cursor.u8()?.into(),
                    2 => cursor.u16()?.into(),
                    _ => cursor.u32()?,
                });
            }
            Ok(Value::Integers(integers))
        }
        9 => {
            for _ in 0..count {
                array(cursor, key, depth + 1)?;
            }
            Ok(Value::Skipped(count))
        }
        _ => {
            cursor.take(count * width)?;
            Ok(Value::Skipped(count))
        }
    }
}

/// Bytes of the `count` strings that follow, without consuming them.
fn string_bytes(cursor: &Cursor<'_>, count: u64) -> Result<usize, GgufError> {
    let mut ahead = cursor.fork();
    let mut total = 0;
    for _ in 0..count {
        total += ahead.string()?.len();
    }
    Ok(total)
}
