//! ByteSource: where a model's bytes come from.
#![allow(unsafe_code)] // a region of memory that is written under a lock, then only read

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use spin::Mutex;

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
    /// The region of memory that the bytes already are in, if it may be used for good: then nothing is copied.
    fn in_place(&self) -> Option<&'static InPlace> {
        None
    }
}

impl<S: ByteSource + ?Sized> ByteSource for Box<S> {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_at(offset, buffer)
    }
    fn in_place(&self) -> Option<&'static InPlace> {
        (**self).in_place()
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

/// A source that is a region of memory: read from it, it is copied. A test's model, mostly.
#[derive(Clone, Copy, Debug)]
pub struct Memory(pub &'static [u8]);

impl ByteSource for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        read_slice(self.0, offset, buffer)
    }
}

fn read_slice(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
    let past_end = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: bytes.len() as u64 };
    let start = usize::try_from(offset).map_err(|_| past_end.clone())?;
    let bytes = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end)).ok_or(past_end)?;
    buffer.copy_from_slice(bytes);
    Ok(())
}

/// A model file in memory that may be used where it lies: one that the boot loader has put there. Its tensors are
/// rearranged once, in place; its header stays, so that it can be loaded again.
pub struct InPlace {
    start: *mut u8,
    len: usize,
    arranged: Mutex<Arranged>,
}

/// How far the rearrangement has come.
#[derive(Clone, Copy, Debug, Default)]
struct Arranged {
    tiles: usize,
    all: bool,
}

// SAFETY: the bytes are written under the lock only, and never once `all` is set; before that, nobody has a reference.
unsafe impl Send for InPlace {}
// SAFETY: as above.
unsafe impl Sync for InPlace {}

impl InPlace {
    /// Takes a region for good.
    pub fn new(bytes: &'static mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr(), len: bytes.len(), arranged: Mutex::new(Arranged::default()) }
    }

    /// The bytes, all tiles arranged: `arrange(bytes, tiles)` is called unless it has been done before, with the number
    /// of tiles that an earlier call has arranged. It gives how many are arranged then, and whether those are all; if
    /// not, there is nothing to give.
    pub(crate) fn arranged(
        &'static self,
        arrange: impl FnOnce(&mut [u8], usize) -> (usize, bool),
    ) -> Option<&'static [u8]> {
        let mut arranged = self.arranged.lock();
        if !arranged.all {
            // SAFETY: the region was given to us for good, and nobody else has a reference: the lock is ours, and
            // `all` is not set.
            let bytes = unsafe { core::slice::from_raw_parts_mut(self.start, self.len) };
            (arranged.tiles, arranged.all) = arrange(bytes, arranged.tiles);
        }
        // SAFETY: as above; nothing writes any more.
        arranged.all.then(|| unsafe { core::slice::from_raw_parts(self.start, self.len) })
    }
}

impl ByteSource for &'static InPlace {
    fn len(&self) -> u64 {
        self.len as u64
    }
    /// Of tensors that have been arranged, the arranged bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let _writer_waits = self.arranged.lock();
        // SAFETY: the region was given to us for good, and who writes holds the lock.
        read_slice(unsafe { core::slice::from_raw_parts(self.start, self.len) }, offset, buffer)
    }
    fn in_place(&self) -> Option<&'static InPlace> {
        Some(self)
    }
}
