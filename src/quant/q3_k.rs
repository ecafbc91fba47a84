//! Q3_K: 256 weights of 3 bits and a scale of 6 bits for every 16. A weight is `d × (scale − 32) × (quant − 4)`.
//!
//! Block, 110 bytes: 32 bytes of the quants' highest bits; 64 bytes of their low two; 12 bytes of scales; d (binary16). Two
//! bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first; so is one bit of each of the first 32
//! bytes. Scale k has its low four bits in the low (k < 8) or high half of byte k mod 8, its high two in byte 8 + k mod 4.
//! Source: ggml block layouts (`block_q3_K`).
//!
//! # In a tile
//!
//! What is taken off is taken off, and a part has 12 bytes of its own, in three words. From its highest bit down, byte `c` of word
//! `k` is weight `8k + c`, weight `8k + 4 + c` and two bits more: of words 0 and 1 the upper bits of weights `24 + c` and `28 + c`, of
//! word 2 the lowest bit of each.
//!
//! Of the 12 bytes of scales, the upper six bits of byte `p` are the first scale of part `p`, and its lower two are those of its
//! second scale, whose upper four are half of byte `8 + p / 2`.

use super::block32::half;
use super::quads::Quads;
use super::superblock::{Head, LEN, PARTS, Part, Scales, Superblock};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use super::TILE;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// The format.
#[allow(non_camel_case_types)] // as people write it
pub struct Q3_K;

/// Where the low bits, the scales and d are in a block.
const LOW: usize = 32;
const SCALES: usize = 96;
const D: usize = 108;
/// What a tile's block begins with, and a part's bytes behind it.
const HEAD: usize = 14;
const PART: usize = 12;

/// The three bits of a part's weights, 4 taken off, in two's complement.
fn three_bits(block: &[u8], part: usize) -> [u8; 32] {
    core::array::from_fn(|i| {
        let low = block[LOW + part / 4 * 32 + i] >> (part % 4 * 2) & 3;
        (low | (block[i] >> part & 1) << 2) ^ 4
    })
}

/// The six bits of scale `k`, 32 taken off, in two's complement.
fn six_bits(block: &[u8], k: usize) -> u8 {
    let low = block[SCALES + k % 8] >> (k / 8 * 4) & 0xf;
    (low | (block[SCALES + 8 + k % 4] >> (k / 4 * 2) & 3) << 4) ^ 32
}

/// Both scales of a part times four, of the two bytes that a tile has them in.
#[inline(always)]
fn both_scales(byte: u8, upper: u8, part: usize) -> [i8; 2] {
    let second = upper >> (part % 2 * 4) << 4 | (byte & 3) << 2;
    [(byte & !3).cast_signed(), second.cast_signed()]
}

impl Quads for Q3_K {
    const NARROW: bool = true; // 16 × 4 × 127 = 8,128
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const FRACTION: i32 = 5;
}

impl Superblock for Q3_K {
    const ID: u32 = 11;
    const NAME: &'static str = "Q3_K";
    const BYTES: usize = 110;
    const NUMBERS: usize = 1;
    const SMALL: usize = 12;
    const MINIMUM: bool = false;
    const SIXTEENS: bool = true; // −4 × −32 is 128: `scales` turns the sign of d and of the factors

    fn unpack(block: &[u8], part: usize) -> Part {
        let quants = three_bits(block, part).map(|bits| (bits << 5).cast_signed() >> 5);
        let factor = |half: usize| i32::from((six_bits(block, 2 * part + half) << 2).cast_signed() >> 2);
        Part { quants, factors: [factor(0), factor(1)], scale: half(&block[D..]), minimums: [0.0; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sorted.fill(0);
        sorted[..2].copy_from_slice(&block[D..]);
        for part in 0..PARTS {
            let (first, second) = (six_bits(block, 2 * part), six_bits(block, 2 * part + 1));
            sorted[2 + part] = first << 2 | second & 3;
            sorted[2 + PARTS + part / 2] |= second >> 2 << (part % 2 * 4);
            let bits = three_bits(block, part);
            let (words, _) = sorted[HEAD + PART * part..][..PART].as_chunks_mut::<4>();
            for c in 0..4 {
                let (sixth, seventh) = (bits[24 + c], bits[28 + c]);
                let rest = [sixth >> 1, seventh >> 1, (sixth & 1) << 1 | seventh & 1];
                for (k, rest) in rest.into_iter().enumerate() {
                    words[k][c] = bits[8 * k + c] << 5 | bits[8 * k + 4 + c] << 2 | rest;
                }
            }
        }
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        block.fill(0);
        block[D..].copy_from_slice(&sorted[..2]);
        for part in 0..PARTS {
            let both = both_scales(sorted[2 + part], sorted[2 + PARTS + part / 2], part);
            for (k, scale) in (2 * part..).zip(both) {
                let bits = scale.cast_unsigned() >> 2 ^ 32;
                block[SCALES + k % 8] |= (bits & 0xf) << (k / 8 * 4);
                block[SCALES + 8 + k % 4] |= (bits >> 4) << (k / 4 * 2);
            }
            let words = sorted[HEAD + PART * part..][..PART].as_chunks::<4>().0;
            for i in 0..32 {
                let (word, c) = (i / 4, i % 4);
                let bits = match word {
                    6 => (words[0][c] & 3) << 1 | words[2][c] >> 1 & 1,
                    7 => (words[1][c] & 3) << 1 | words[2][c] & 1,
                    word => words[word / 2][c] >> (5 - word % 2 * 3) & 7,
                } ^ 4;
                block[LOW + part / 4 * 32 + i] |= (bits & 3) << (part % 4 * 2);
                block[i] |= (bits >> 2) << part;
            }
        }
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        scales.scales[0] = head.number(0).map(|d| -d);
        for part in 0..PARTS {
            let (bytes, uppers) = (head.small(1, part), head.small(1, PARTS + part / 2));
            for row in 0..super::TILE {
                let both = both_scales(bytes[row], uppers[row], part);
                scales.factors[2 * part][row] = -(i32::from(both[0]) >> 2);
                scales.factors[2 * part + 1][row] = -(i32::from(both[1]) >> 2);
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
        use crate::simd::neon::load;
        // SAFETY: the caller's promise: twelve vectors; Advanced SIMD is part of every AArch64 target of this project.
        unsafe {
            let part = PARTS / 2 * half + quarter;
            let (byte, upper) = (load(small.add(TILE * part)), load(small.add(TILE * (PARTS + part / 2))));
            let upper = vshlq_s8(upper, vdupq_n_s8(if part.is_multiple_of(2) { 4 } else { 0 }));
            // Inserted below the highest four bits.
            let second = vsriq_n_s8::<4>(upper, vshlq_n_s8::<6>(byte));
            [byte, second].map(|bits| vreinterpretq_u8_s8(vshrq_n_s8::<2>(bits)))
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: three vectors.
        unsafe { uppermost(data).map(|bytes| vshrq_n_s8::<5>(bytes)) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: as above; Advanced SIMD is part of every AArch64 target of this project.
        unsafe {
            let [a, b, c, d, e, f, g, h] = uppermost(data);
            let only = |bytes: int8x16_t| vandq_s8(bytes, vdupq_n_s8(!31));
            [only(a), only(b), only(c), only(d), only(e), only(f), only(g), h]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 48 bytes.
        unsafe {
            let words: *const __m128i = data.cast();
            let (seven, four) = (_mm256_set1_epi8(7), _mm256_set1_epi8(4));
            // Macros and no closures, which would have no target features and make a call of each of these.
            macro_rules! shifted {
                ($word:expr, $first:literal, $second:literal) => {
                    _mm256_srlv_epi64($word, _mm256_setr_epi64x($first, $first, $second, $second))
                };
            }
            macro_rules! signed {
                ($bits:expr) => {
                    _mm256_sub_epi8(_mm256_xor_si256(_mm256_and_si256($bits, seven), four), four)
                };
            }
            macro_rules! word {
                ($k:literal) => {
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(words.add($k)))
                };
            }
            let third = word!(2);
            let upper =
                _mm256_and_si256(_mm256_slli_epi16::<1>(_mm256_loadu_si256(data)), _mm256_set1_epi8(6));
            let lowest = _mm256_and_si256(shifted!(third, 1, 0), _mm256_set1_epi8(1));
            [
                signed!(shifted!(word!(0), 5, 2)),
                signed!(shifted!(word!(1), 5, 2)),
                signed!(shifted!(third, 5, 2)),
                signed!(_mm256_or_si256(upper, lowest)),
            ]
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            // What a scale should be: the largest magnitude becomes −4.
            let wanted = block.chunks_exact(16).map(|run| super::block32::peak(run) / -4.0);
            let wanted: Vec<f32> = wanted.collect();
            let d = half::f16::from_f32(super::block32::peak(&wanted) / -32.0);
            let inverse = if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
            let (mut high, mut low, mut scales) = ([0u8; 32], [0u8; 64], [0u8; 12]);
            for (k, (run, wanted)) in block.chunks_exact(16).zip(&wanted).enumerate() {
                let scale = libm::rintf(wanted * inverse).clamp(-32.0, 31.0);
                let bits = (scale + 32.0) as u8;
                scales[k % 8] |= (bits & 0xf) << (k / 8 * 4);
                scales[8 + k % 4] |= (bits >> 4) << (k / 4 * 2);
                let unit = d.to_f32() * scale;
                let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
                for (i, weight) in run.iter().enumerate() {
                    let quant = (libm::rintf(weight * inverse).clamp(-4.0, 3.0) + 4.0) as u8;
                    let at = k % 2 * 16 + i;
                    low[k / 8 * 32 + at] |= (quant & 3) << (k / 2 % 4 * 2);
                    high[at] |= (quant >> 2) << (k / 2);
                }
            }
            row.extend(high);
            row.extend(low);
            row.extend(scales);
            row.extend(d.to_le_bytes());
        }
    }
}

/// A quad of quants in the three uppermost bits of bytes; below the last vector's is nothing, below the others' what is left.
///
/// # Safety
/// Three vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn uppermost(data: &mut super::quads::From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let [a, b, c] = super::quads::three(data);
        let next = |bytes: int8x16_t| vshlq_n_s8::<3>(bytes);
        // The upper two bits inserted above the lowest one.
        let sixth = vsliq_n_s8::<6>(vshlq_n_s8::<4>(c), a);
        let seventh = vsliq_n_s8::<6>(vshlq_n_s8::<5>(c), b);
        [a, next(a), b, next(b), c, next(c), sixth, seventh]
    }
}
