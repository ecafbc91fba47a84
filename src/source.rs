//! ByteSource: where a model's bytes come from.

use alloc::string::String;
use core::fmt;

/// Where a model's bytes come from: a card, a file, a region of memory.
pub trait ByteSource {
    /// Bytes in all.
    fn len(&self) -> u64;
    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; a short read is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError>;
    /// The bytes themselves, when they already are in memory: then nothing is copied.
    fn bytes(&self) -> Option<&'static [u8]> {
        None
    }
}

/// A read that could not be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The source ends before the bytes that were asked for.
    PastEnd {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes in the source.
        len: u64,
    },
    /// The device below failed; its own words.
    Device(String),
    /// The user asked to stop.
    Interrupted,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PastEnd { offset, wanted, len } => {
                write!(
                    f,
                    "the file ends at byte {len}, but {wanted} bytes at {offset} were needed: it was cut short"
                )
            }
            Self::Device(words) => write!(f, "reading failed: {words}"),
            Self::Interrupted => f.write_str("stopped"),
        }
    }
}

impl core::error::Error for ReadError {}

/// A source that is a region of memory living as long as the program: a model that the boot loader put
/// in RAM, or a test's.
#[derive(Clone, Copy, Debug)]
pub struct Memory(pub &'static [u8]);

impl ByteSource for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let past_end = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: self.len() };
        let start = usize::try_from(offset).map_err(|_| past_end.clone())?;
        let bytes = start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end)).ok_or(past_end)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
    fn bytes(&self) -> Option<&'static [u8]> {
        Some(self.0)
    }
}
