//! Descriptors of ADMA2: which pieces of memory a transfer goes to.
//!
//! Source: SD Host Controller Simplified Specification 3.00, 1.13.

use core::ops::Range;

/// Bytes of a cache line, on all boards.
pub const LINE: usize = 64;
/// Bytes of a descriptor's piece of memory: half of what its 16 bits of length can say.
pub const PIECE: usize = 32 << 10;
/// Descriptors: 4 MiB a transfer.
pub const PIECES: usize = 128;
/// A descriptor that is valid and moves data: SDHCI 1.13.4, table 1-11. The last one says so.
const MOVES: u32 = 0x21;
const LAST: u32 = 1 << 1;

/// Descriptors of one transfer, of two words each, or of three where addresses have 64 bits: SDHCI 1.13.3. Cache lines of its own.
#[repr(C, align(64))]
pub struct Table([u32; 3 * PIECES]);

impl Table {
    /// A table that describes nothing.
    pub const EMPTY: Self = Self([0; 3 * PIECES]);

    /// Where it lies.
    pub fn range(&self) -> Range<usize> {
        let table = self.0.as_ptr_range();
        table.start as usize..table.end as usize
    }

    /// Describes a transfer of so many bytes, at most [`PIECE`] × [`PIECES`], to where the controller sees `to`; with addresses of
    /// 64 bits if `wide`.
    pub fn describe(&mut self, to: u64, bytes: usize, wide: bool) {
        let words = if wide { 3 } else { 2 };
        let pieces = bytes.div_ceil(PIECE);
        for (index, descriptor) in self.0.chunks_exact_mut(words).take(pieces).enumerate() {
            let length = (bytes - index * PIECE).min(PIECE) as u32;
            let address = to + (index * PIECE) as u64;
            let last = if index + 1 == pieces { LAST } else { 0 };
            descriptor[0] = length << 16 | MOVES | last;
            descriptor[1] = address as u32;
            if wide {
                descriptor[2] = (address >> 32) as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_the_last_says_so() {
        let mut table = Table::EMPTY;
        table.describe(0xffff_8000, PIECE + 512, true);
        assert_eq!(table.0[..3], [0x8000_0021, 0xffff_8000, 0]);
        assert_eq!(table.0[3..6], [0x0200_0023, 0, 1], "across 4 GiB");
        table.describe(0x1000, 512, false);
        assert_eq!(table.0[..2], [0x0200_0023, 0x1000]);
        table.describe(0, PIECE * PIECES, false);
        assert_eq!(table.0[2 * PIECES - 2], 0x8000_0023);
    }
}
