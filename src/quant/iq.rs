//! What the IQ formats share: weights come in groups of eight (or four) whose magnitudes are an entry of a grid, with a bit
//! each for the signs. Source: ggml block layouts (`block_iq2_xxs` and those after it).
//!
//! Eight weights are a word of eight bytes, the first in the lowest, and are worked on together; no step carries from one
//! byte into the next.

use alloc::vec::Vec;

/// 1 in every byte.
pub const ONES: u64 = 0x0101_0101_0101_0101;

/// A binary16.
pub fn half(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// The 16-bit number at a place.
pub fn short(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The 32-bit number at a place.
pub fn long(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// An entry of a grid of eight: two bits to a byte each.
#[inline(always)]
pub fn spread_pairs(entry: u16) -> u64 {
    let x = u64::from(entry);
    let x = (x | x << 24) & 0x0000_00ff_0000_00ff;
    let x = (x | x << 12) & 0x000f_000f_000f_000f;
    (x | x << 6) & 0x0303_0303_0303_0303
}

/// Two entries of a grid of four: four bits to a byte each.
#[inline(always)]
pub fn spread_nibbles(first: u16, second: u16) -> u64 {
    let x = u64::from(first) | u64::from(second) << 32;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f
}

/// Turns the sign of the bytes whose bits are set. None of them is 0.
#[inline(always)]
pub fn signed(magnitudes: u64, signs: u8) -> u64 {
    let bits = u64::from(signs).wrapping_mul(ONES) & 0x8040_2010_0804_0201;
    let negative = (bits + 0x7f7f_7f7f_7f7f_7f7f) >> 7 & ONES;
    (magnitudes ^ (negative * 0xff)) + negative
}

/// Signs of eight weights of which seven are stored: an even number is negative.
#[inline(always)]
pub fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 0x7f) as u8;
    let fold = seven ^ seven >> 4;
    let fold = fold ^ fold >> 2;
    seven | (fold ^ fold >> 1) << 7
}

/// For the quantizers: what entries of a grid stand for, and how 256 weights are brought onto them.
pub struct Grid<'a> {
    /// Its entries.
    pub entries: &'a [u16],
    /// Bits of a level: 2 for groups of eight, 4 for groups of four.
    pub bits: usize,
    /// Magnitudes of the levels: 4 or 8 of them.
    pub levels: &'a [f32],
    /// Largest magnitude.
    pub peak: f32,
}

impl Grid<'_> {
    /// The entry nearest to weights that are already divided by their scale.
    pub fn nearest(&self, weights: &[f32]) -> usize {
        // What each byte of an entry would be off, so that an entry is two look-ups.
        let mut off = [[0f32; 256]; 2];
        let (each, mask) = (8 / self.bits, (1 << self.bits) - 1);
        for (off, weights) in off.iter_mut().zip(weights.chunks_exact(each)) {
            for (byte, off) in off.iter_mut().enumerate() {
                for (i, weight) in weights.iter().enumerate() {
                    let error =
                        self.levels[byte >> (i * self.bits) & mask & (self.levels.len() - 1)] - weight;
                    *off += error * error;
                }
            }
        }
        let (mut best, mut least) = (0, f32::INFINITY);
        for (index, entry) in self.entries.iter().enumerate() {
            let [low, high] = entry.to_le_bytes();
            let error = off[0][usize::from(low)] + off[1][usize::from(high)];
            if error < least {
                (best, least) = (index, error);
            }
        }
        best
    }
}

/// The scale of 256 weights (binary16, as stored) and of each `run` of them: the multiples `2 × s + 1` of it, as the IQ formats
/// have them, that bring the largest magnitudes nearest to `peak` units, with `s` up to `most`.
pub fn scales(weights: &[f32], run: usize, peak: f32, most: u8) -> (u16, Vec<u8>) {
    let wanted: Vec<f32> =
        weights.chunks_exact(run).map(|run| super::block32::peak(run).abs() / peak).collect();
    let largest = wanted.iter().copied().fold(0.0, f32::max);
    let scale = half::f16::from_f32(largest / f32::from(2 * most + 1));
    let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    let of = |wanted: &f32| libm::rintf((wanted * inverse - 1.0) / 2.0).clamp(0.0, f32::from(most)) as u8;
    let each = wanted.iter().map(of).collect();
    (scale.to_bits(), each)
}

/// Signs of eight weights; if only an even number may be negative, that of the smallest is turned where need be.
pub fn signs(weights: &[f32], even: bool) -> u8 {
    let mut signs = 0;
    let mut smallest = 0;
    for (i, weight) in weights.iter().enumerate() {
        signs |= u8::from(*weight < 0.0) << i;
        if weight.abs() < weights[smallest].abs() {
            smallest = i;
        }
    }
    if even && signs.count_ones() % 2 == 1 { signs ^ 1 << smallest } else { signs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_spread_to_bytes_in_order_and_signs_turn_single_bytes() {
        assert_eq!(spread_pairs(0b11_10_01_00_00_01_10_11), 0x0302_0100_0001_0203);
        assert_eq!(spread_nibbles(0x7012, 0x3456), 0x0304_0506_0700_0102);
        let magnitudes = 0x7f3e_2b19_0804_0201;
        for signs in 0..=255u8 {
            let bytes = signed(magnitudes, signs).to_le_bytes();
            for (i, (byte, magnitude)) in bytes.into_iter().zip(magnitudes.to_le_bytes()).enumerate() {
                let negative = signs >> i & 1 == 1;
                let expected = if negative { -magnitude.cast_signed() } else { magnitude.cast_signed() };
                assert_eq!(byte.cast_signed(), expected, "{signs:08b}, weight {i}");
            }
        }
        for seven in 0..128 {
            let signs = even_signs(seven);
            assert_eq!((u32::from(signs & 0x7f), signs.count_ones() % 2), (seven, 0));
        }
    }
}
