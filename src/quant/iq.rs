//! What the IQ formats share: weights come in groups of eight (or four) whose magnitudes are an entry of a grid, with a bit
//! each for the signs. Source: ggml block layouts (`block_iq2_xxs` and those after it).
//!
//! Eight weights are a word of eight bytes, the first in the lowest, and are worked on together; no step carries from one
//! byte into the next.

#[cfg(target_arch = "aarch64")]
use super::rows::Vectors;
use super::rows::{Part, Unpack};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// A format whose weights come in groups of levels.
pub trait Grouped {
    /// Number in the GGUF tensor directory.
    const ID: u32;
    /// As people write it.
    const NAME: &'static str;
    /// Bytes in a block.
    const BYTES: usize;
    /// Whether the halves of a part have scales.
    const HALVES: bool;
    /// Bits of a level: 2 or 4.
    const BITS: usize;
    /// What a level stands for, in units; 0 where there is no such level.
    const QUANTS: [i8; 16];
    /// What a weight's flag does: turn the sign, or take off 2 units.
    const SIGNS: bool;
    /// The weights from `32 × part` on of a block.
    fn packed(block: &[u8], part: usize) -> Packed;
    /// [`Self::QUANTS`] of eight levels, a byte each.
    fn quants(levels: u64) -> u64;
    /// [`super::Format::quantize`].
    fn quantize(weights: &[f32], row: &mut Vec<u8>);
}

/// 32 weights of a row as levels and flags.
pub struct Packed {
    /// The levels, the first in the lowest bits; those of two bits are all in the first word.
    pub levels: [u64; 2],
    /// A flag for each weight, the first in the lowest bit.
    pub flags: u32,
    /// As in a [`Part`].
    pub unit: f32,
    /// As in a [`Part`]; not looked at where halves have none.
    pub scales: [i32; 2],
}

impl Packed {
    /// One scale for all.
    pub fn whole(levels: [u64; 2], flags: u32, unit: f32) -> Self {
        Self { levels, flags, unit, scales: [1; 2] }
    }
}

/// Four entries of a grid, the first in the lowest bits.
#[inline(always)]
pub fn four(entry: impl Fn(usize) -> u16) -> u64 {
    let entry = |i: usize| u64::from(entry(i));
    entry(0) | entry(1) << 16 | entry(2) << 32 | entry(3) << 48
}

impl<F: Grouped> Unpack for F {
    const ID: u32 = F::ID;
    const NAME: &'static str = F::NAME;
    const BYTES: usize = F::BYTES;
    const HALVES: bool = F::HALVES;
    // Of a weight that a flag takes 2 off, too.
    const PEAK: u32 = {
        let (mut peak, mut level) = (0, 0);
        while level < F::QUANTS.len() {
            let magnitude = F::QUANTS[level].unsigned_abs() as u32 + if F::SIGNS { 0 } else { 2 };
            peak = if magnitude > peak { magnitude } else { peak };
            level += 1;
        }
        peak
    };

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // some of the bits
    fn part(block: &[u8], part: usize) -> Part {
        let Packed { levels, flags, unit, scales } = F::packed(block, part);
        let eight = |i: usize| {
            let levels = match F::BITS {
                2 => spread_pairs((levels[0] >> (16 * i)) as u16),
                _ => spread_nibbles((levels[i / 2] >> (i % 2 * 32)) as u32),
            };
            let (quants, flags) = (F::quants(levels), (flags >> (8 * i)) as u8);
            if F::SIGNS { signed(quants, flags) } else { lowered(quants, flags) }
        };
        Part { quants: [eight(0), eight(1), eight(2), eight(3)], unit, scales }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn vectors(block: &[u8], part: usize) -> Vectors {
        let Packed { levels, flags, unit, scales } = F::packed(block, part);
        // SAFETY: Advanced SIMD is part of every AArch64 target of this project.
        let quants = unsafe {
            let levels = if F::BITS == 2 { pairs_neon(levels[0]) } else { nibbles_neon(levels) };
            let (table, flags) = (core::mem::transmute::<[i8; 16], int8x16_t>(F::QUANTS), flags_neon(flags));
            core::array::from_fn(|half| {
                let (quants, flags) = (vqtbl1q_s8(table, levels[half]), flags[half]);
                match F::SIGNS {
                    true => vsubq_s8(veorq_s8(quants, flags), flags),
                    false => vaddq_s8(vaddq_s8(quants, flags), flags),
                }
            })
        };
        Vectors { quants, unit, scales }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        F::quantize(weights, row);
    }
}

/// 32 levels of two bits, a byte each.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn pairs_neon(levels: u64) -> [uint8x16_t; 2] {
    let bytes = vcombine_u8(vcreate_u8(levels), vcreate_u8(0));
    let shifts = vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes([0, 0xfe, 0xfc, 0xfa]))); // 0, −2, −4, −6
    // Bytes 0 to 3 four times each, then bytes 4 to 7.
    let first = vcombine_u8(vcreate_u8(0x0101_0101_0000_0000), vcreate_u8(0x0303_0303_0202_0202));
    [first, vaddq_u8(first, vdupq_n_u8(4))]
        .map(|from| vandq_u8(vshlq_u8(vqtbl1q_u8(bytes, from), shifts), vdupq_n_u8(3)))
}

/// 32 levels of four bits, a byte each.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn nibbles_neon([first, last]: [u64; 2]) -> [uint8x16_t; 2] {
    let both = vcombine_u8(vcreate_u8(first), vcreate_u8(last));
    let (even, odd) = (vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both));
    [vzip1q_u8(even, odd), vzip2q_u8(even, odd)]
}

/// All bits of a byte for each flag that is set.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn flags_neon(flags: u32) -> [int8x16_t; 2] {
    let bytes = vreinterpretq_u8_u32(vdupq_n_u32(flags));
    let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let first = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
    [first, vaddq_u8(first, vdupq_n_u8(2))]
        .map(|from| vreinterpretq_s8_u8(vtstq_u8(vqtbl1q_u8(bytes, from), bit)))
}

/// 1 in every byte.
pub const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of every byte.
pub const TOPS: u64 = 0x80 * ONES;

/// A binary16.
#[inline(always)]
pub fn half(bits: u16) -> f32 {
    // An instruction of every AArch64, which the crate does without.
    #[cfg(target_arch = "aarch64")]
    // SAFETY: registers only.
    unsafe {
        let float;
        core::arch::asm!("fmov {0:s}, {1:w}", "fcvt {0:s}, {0:h}", out(vreg) float, in(reg) u32::from(bits),
            options(pure, nomem, nostack, preserves_flags));
        float
    }
    #[cfg(not(target_arch = "aarch64"))]
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
pub fn spread_nibbles(entries: u32) -> u64 {
    let x = u64::from(entries);
    let x = (x | x << 16) & 0x0000_ffff_0000_ffff;
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

/// Takes 2 off bytes of −126 and more, all eight of them or none.
#[inline(always)]
fn lowered(quants: u64, flags: u8) -> u64 {
    // 128 more, so that nothing is borrowed.
    ((quants ^ TOPS) - u64::from(flags & 1) * (2 * ONES)) ^ TOPS
}

/// Signs of four times eight weights, of which the bytes hold seven each: an even number of each eight is negative.
#[inline(always)]
pub fn even_signs(sevens: u32) -> u32 {
    let fold = sevens ^ sevens >> 4;
    let fold = fold ^ fold >> 2;
    // What was shifted in from other bytes stays above their lowest bits.
    sevens | ((fold ^ fold >> 1) & 0x0101_0101) << 7
}

/// Four times seven bits, a byte each.
#[inline(always)]
pub fn spread_sevens(bits: u32) -> u32 {
    bits & 0x7f | (bits & 0x3f80) << 1 | (bits & 0x1f_c000) << 2 | (bits & 0x0fe0_0000) << 3
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
        assert_eq!(spread_nibbles(0x3456_7012), 0x0304_0506_0700_0102);
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
            let sevens = spread_sevens(
                seven | (127 - seven) << 7 | (seven ^ 0x55) << 14 | (seven ^ 1) << 21 | 0xb << 28,
            );
            assert_eq!(sevens.to_le_bytes().map(u32::from), [seven, 127 - seven, seven ^ 0x55, seven ^ 1]);
            for (signs, seven) in even_signs(sevens).to_le_bytes().into_iter().zip(sevens.to_le_bytes()) {
                assert_eq!((signs & 0x7f, signs.count_ones() % 2), (seven, 0));
            }
        }
    }
}
