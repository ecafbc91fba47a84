//! Bounds-checked little-endian reading: the only place that counts bytes of a GGUF header.

use super::GgufError;

/// A position in the header of a file whose first `bytes.len()` bytes are at hand.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at `position`, a place in `bytes`.
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    /// A second cursor at the same place, to look ahead.
    pub(super) fn fork(&self) -> Self {
        Self { bytes: self.bytes, position: self.position }
    }

    /// The next byte's place among those at hand, for [`new`](Self::new).
    pub(super) fn index(&self) -> usize {
        self.position
    }

    /// Bytes read so far, counted from the start of the file.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Bytes that are left: an upper bound for any count that the file states.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], GgufError> {
        let end = usize::try_from(length).ok().and_then(|length| self.position.checked_add(length));
        match end.and_then(|end| self.bytes.get(self.position..end)) {
            Some(bytes) => {
                self.position += bytes.len();
                Ok(bytes)
            }
            None => Err(GgufError::HeaderCutShort { at: self.position(), wanted: length }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, GgufError> {
        Ok(self.array::<1>()?[0])
    }
    pub(super) fn u16(&mut self) -> Result<u16, GgufError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub(super) fn f32(&mut self) -> Result<f32, GgufError> {
        Ok(f32::from_le_bytes(self.array()?))
    }
    pub(super) fn f64(&mut self) -> Result<f64, GgufError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A length (u64) and that many bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], GgufError> {
        let length = self.u64()?;
        self.take(length)
    }

    /// A count of things that take at least `each` bytes: refused when so many can't follow, so that a
    /// wrong count never becomes an allocation.
    pub(super) fn count(&mut self, each: u64) -> Result<u64, GgufError> {
        let count = self.u64()?;
        match count.checked_mul(each) {
            Some(bytes) if bytes <= self.left() => Ok(count),
            _ => Err(GgufError::HeaderCutShort { at: self.position(), wanted: count.saturating_mul(each) }),
        }
    }
}
