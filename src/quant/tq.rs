//! TQ1_0, TQ2_0: 256 weights −1, 0 or 1 and one scale: models that were trained so. A weight is `d × (quant − 1)`.
//!
//! TQ1_0, 54 bytes: 32 bytes of five weights each, 16 more, 4 bytes of four each, d (binary16). A byte is a fraction of
//! 256 to base 3: its k-th digit is `(byte × 3ᵏ mod 256) × 3 / 256`. Digit k of neighbouring bytes are neighbouring weights.
//!
//! TQ2_0, 66 bytes: 64 bytes, d. Two bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first; 3 would be
//! a weight of 2. In a tile they stand as those of [`super::q2_k`]. Source: ggml block layouts (`block_tq1_0`, `block_tq2_0`).

use super::iq::{ONES, half, short};
use super::q2_k::{pairs_of, sort_pairs, unsort_pairs};
use super::quads::Quads;
use super::rows::{LEN, Part, Unpack};
use super::superblock::{self, Head, PARTS, Scales, Superblock};
use alloc::vec::Vec;
use core::array;

#[cfg(target_arch = "aarch64")]
use super::rows::Vectors;
#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Where weight `index` of a TQ1_0 block is: its byte and its digit.
const fn place(index: usize) -> (usize, usize) {
    match index {
        0..160 => (index % 32, index / 32),
        160..240 => (32 + (index - 160) % 16, (index - 160) / 16),
        _ => (48 + (index - 240) % 4, (index - 240) / 4),
    }
}

/// A digit of each of eight fractions, less 1: eight weights.
#[inline(always)]
fn digit_of_each(fractions: [u8; 8], digit: usize) -> u64 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    const TOPS: u64 = 0x80 * ONES;
    let power = u64::from(POWERS[digit]);
    // In 16 bits a byte times a power fits (255 × 81), and so does what is left of it times 3.
    let digits = |bytes: u64| (((((bytes & EVEN) * power) & EVEN) * 3) >> 8) & EVEN;
    let all = u64::from_le_bytes(fractions);
    let (even, odd) = (digits(all), digits(all >> 8));
    // 0, 1, 2 become 255, 0, 1: with the top bit set nothing is borrowed from the next byte, and it is turned back.
    ((even | (odd << 8) | TOPS) - ONES) ^ TOPS
}

/// −1, 0 or 1 for each weight of a block, and the scale.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 2
fn digits(block: &[f32]) -> (half::f16, Vec<u8>) {
    let scale = super::block32::peak(block).abs();
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let digit = |weight: &f32| (libm::roundf(weight * inverse) + 1.0) as u8;
    (half::f16::from_f32(scale), block.iter().map(digit).collect())
}

/// The format.
pub struct Tq1;

impl Unpack for Tq1 {
    const ID: u32 = 34;
    const NAME: &'static str = "TQ1_0";
    const BYTES: usize = 54;
    const HALVES: bool = false;
    const PEAK: u32 = 1;

    #[inline(always)]
    fn part(block: &[u8], part: usize) -> Part {
        let eight = |i: usize| {
            let index = 32 * part + 8 * i;
            let (byte, digit) = place(index);
            if index < 240 {
                let (eight, _) = block[byte..].split_first_chunk().expect("eight bytes");
                return digit_of_each(*eight, digit);
            }
            // Two digits of four bytes.
            let (four, _) = block[byte..].split_first_chunk::<4>().expect("four bytes");
            let twice = array::from_fn(|i| four[i % 4]);
            let (first, second) = (digit_of_each(twice, digit), digit_of_each(twice, digit + 1));
            (first & 0xffff_ffff) | (second << 32)
        };
        Part::whole([eight(0), eight(1), eight(2), eight(3)], half(short(block, 52)))
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn vectors(block: &[u8], part: usize) -> Vectors {
        assert_eq!(block.len(), Self::BYTES, "a block");
        let from = block.as_ptr();
        // SAFETY: whatever the part, the bytes are within the block. Advanced SIMD is part of every target of this project.
        let quants = unsafe {
            let power = |digit: usize| vdupq_n_u8(POWERS[digit]);
            let fractions = |at: usize| vreinterpretq_u8_s8(neon::load(from.add(at)));
            let [first, last] = match part {
                0..5 => [(fractions(0), power(part)), (fractions(16), power(part))],
                5 | 6 => [(fractions(32), power(2 * part - 10)), (fractions(32), power(2 * part - 9))],
                _ => {
                    let powers =
                        vcombine_u8(vcreate_u8(0x0303_0303_0101_0101), vcreate_u8(0x1b1b_1b1b_0909_0909));
                    let four = vreinterpretq_u8_u32(vdupq_n_u32(super::iq::long(block, 48)));
                    [(fractions(32), power(4)), (four, powers)]
                }
            };
            [first, last].map(|(fractions, powers)| {
                let left = vmulq_u8(fractions, powers);
                // Half of (left + left / 2), a 64th of which is 3 × left / 256, rounded down each time.
                let digits = vshrq_n_u8::<6>(vhaddq_u8(left, vshrq_n_u8::<1>(left)));
                vsubq_s8(vreinterpretq_s8_u8(digits), vdupq_n_s8(1))
            })
        };
        Vectors { quants, unit: half(short(block, 52)), scales: [1; 2] }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, digits) = digits(block);
            let mut sums = [0u16; 52];
            for (index, digit) in digits.into_iter().enumerate() {
                let (byte, place) = place(index);
                sums[byte] += u16::from(digit) * u16::from(POWERS[4 - place]);
            }
            // Rounded up, so that no digit becomes smaller.
            row.extend(sums.map(|sum| (sum * 256).div_ceil(243) as u8));
            row.extend(scale.to_le_bytes());
        }
    }
}

/// The format.
pub struct Tq2;

impl Quads for Tq2 {
    const NARROW: bool = true; // 16 × 3 × 127 = 6,096
    const ZERO: i32 = 1;
    const SIGNED: bool = false;
}

impl Superblock for Tq2 {
    const ID: u32 = 35;
    const NAME: &'static str = "TQ2_0";
    const BYTES: usize = 66;
    const NUMBERS: usize = 1;
    const SMALL: usize = 0;
    const MINIMUM: bool = false;
    const SIXTEENS: bool = false;

    fn unpack(block: &[u8], part: usize) -> superblock::Part {
        let quants = pairs_of(block, part).map(|bits| bits.cast_signed() - 1);
        superblock::Part { quants, factors: [1; 2], scale: half(short(block, 64)), minimums: [0.0; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sorted[..2].copy_from_slice(&block[64..]);
        sort_pairs(block, &mut sorted[2..]);
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        block.fill(0);
        unsort_pairs(&sorted[2..], block);
        block[64..].copy_from_slice(&sorted[..2]);
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        scales.scales = [head.number(0); PARTS];
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(_: *const u8, _: usize, _: usize) -> [uint8x16_t; 2] {
        // SAFETY: Advanced SIMD is part of every AArch64 target of this project.
        [unsafe { vdupq_n_u8(0) }; 2] // nobody looks: there are no small bytes
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: two vectors.
        unsafe { super::q2_k::pairs(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 32 bytes.
        unsafe { super::q2_k::pairs(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, digits) = digits(block);
            let mut bytes = [0u8; 64];
            for (index, digit) in digits.into_iter().enumerate() {
                bytes[index / 128 * 32 + index % 32] |= digit << (index % 128 / 32 * 2);
            }
            row.extend(bytes);
            row.extend(scale.to_le_bytes());
        }
    }
}
