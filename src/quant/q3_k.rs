//! Q3_K: 256 weights of 3 bits and a scale of 6 bits for every 16. A weight is `d × (scale − 32) × (quant − 4)`.
//!
//! Block, 110 bytes: 32 bytes of the quants' highest bits; 64 bytes of their low two; 12 bytes of scales; d (binary16). Two
//! bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first; so is one bit of each of the first 32
//! bytes. Scale k has its low four bits in the low (k < 8) or high half of byte k mod 8, its high two in byte 8 + k mod 4.
//! Source: ggml block layouts (`block_q3_K`).
//!
//! # In a tile
//!
//! A part has 12 bytes of its own, in three words. From its highest bit down, byte `c` of word `k` is weight `4k + c`, 4 taken off;
//! weight `16 + 4k + c`, as in the file; and two bits more: of words 0 and 1 the upper bits of weights `12 + c` and `28 + c`, of word 2
//! the lowest bits of `28 + c` and `12 + c`. So most weights are a mask each to `sdot`, the first 16 of a part 32 times as large and
//! the last 16 four times.
//!
//! The 12 bytes of scales are as those of Q4_K: the lower six bits of byte `p` are the first scale of part `p`, its upper two those
//! of the second one, whose lower four are half of byte `8 + p % 4`.

use super::block32::half;
use super::quads::Quads;
use super::superblock::{Head, LEN, PARTS, Part, Scales, Superblock};
use alloc::vec::Vec;

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

/// The three bits of a part's weights.
fn three_bits(block: &[u8], part: usize) -> [u8; 32] {
    core::array::from_fn(|i| {
        let low = block[LOW + part / 4 * 32 + i] >> (part % 4 * 2) & 3;
        low | (block[i] >> part & 1) << 2
    })
}

/// The six bits of scale `k`.
fn six_bits(block: &[u8], k: usize) -> u8 {
    let low = block[SCALES + k % 8] >> (k / 8 * 4) & 0xf;
    low | (block[SCALES + 8 + k % 4] >> (k / 4 * 2) & 3) << 4
}

/// The six bits of both scales of a part, of the two bytes that a tile has them in.
#[inline(always)]
fn both_scales(byte: u8, lower: u8, part: usize) -> [u8; 2] {
    [byte & 63, lower >> (4 - part / 4 * 4) & 0xf | byte >> 6 << 4]
}

impl Quads for Q3_K {
    const NARROW: bool = true; // 16 × 4 × 127 = 8,128
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const FRACTION: i32 = 5;
    const LAST_FRACTION: i32 = 2;
    const LAST_ZERO: i32 = 4;
}

impl Superblock for Q3_K {
    const ID: u32 = 11;
    const NAME: &'static str = "Q3_K";
    const BYTES: usize = 110;
    const NUMBERS: usize = 1;
    const SMALL: usize = 12;
    const MINIMUM: bool = false;
    const LESS: u8 = 32; // of a factor
    const SIXTEENS: bool = true; // −4 × −32 is 128: `scales` turns the sign of d and of the factors

    fn unpack(block: &[u8], part: usize) -> Part {
        let quants = three_bits(block, part).map(|bits| bits.cast_signed() - 4);
        let factor = |half: usize| i32::from(six_bits(block, 2 * part + half)) - 32;
        Part { quants, factors: [factor(0), factor(1)], scale: half(&block[D..]), minimums: [0.0; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sorted.fill(0);
        sorted[..2].copy_from_slice(&block[D..]);
        for part in 0..PARTS {
            let (first, second) = (six_bits(block, 2 * part), six_bits(block, 2 * part + 1));
            sorted[2 + part] = first | second >> 4 << 6;
            sorted[2 + PARTS + part % 4] |= (second & 0xf) << (4 - part / 4 * 4);
            let bits = three_bits(block, part);
            let (words, _) = sorted[HEAD + PART * part..][..PART].as_chunks_mut::<4>();
            for c in 0..4 {
                let (fourth, eighth) = (bits[12 + c] ^ 4, bits[28 + c]);
                let rest = [fourth >> 1, eighth >> 1, (eighth & 1) << 1 | fourth & 1];
                for (k, rest) in rest.into_iter().enumerate() {
                    words[k][c] = (bits[4 * k + c] ^ 4) << 5 | bits[16 + 4 * k + c] << 2 | rest;
                }
            }
        }
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        block.fill(0);
        block[D..].copy_from_slice(&sorted[..2]);
        for part in 0..PARTS {
            let both = both_scales(sorted[2 + part], sorted[2 + PARTS + part % 4], part);
            for (k, bits) in (2 * part..).zip(both) {
                block[SCALES + k % 8] |= (bits & 0xf) << (k / 8 * 4);
                block[SCALES + 8 + k % 4] |= (bits >> 4) << (k / 4 * 2);
            }
            let words = sorted[HEAD + PART * part..][..PART].as_chunks::<4>().0;
            for i in 0..32 {
                let (last, word, c) = (i / 16, i % 16 / 4, i % 4);
                let bits = match word {
                    3 => (words[last][c] & 3) << 1 | words[2][c] >> last & 1,
                    word => words[word][c] >> (5 - 3 * last) & 7,
                } ^ (4 - 4 * last as u8);
                block[LOW + part / 4 * 32 + i] |= (bits & 3) << (part % 4 * 2);
                block[i] |= (bits >> 2) << part;
            }
        }
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        scales.scales[0] = head.number(0).map(|d| -d);
        for part in 0..PARTS {
            let (bytes, lowers) = (head.small(1, part), head.small(1, PARTS + part % 4));
            for row in 0..super::TILE {
                let both = both_scales(bytes[row], lowers[row], part);
                scales.factors[2 * part][row] = i32::from(Self::LESS) - i32::from(both[0]);
                scales.factors[2 * part + 1][row] = i32::from(Self::LESS) - i32::from(both[1]);
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { super::q4_k::part_bytes(small, half, quarter) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: three vectors.
        unsafe { uppermost(super::quads::three(data)).map(|bytes| vshrq_n_s8::<5>(bytes)) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: as above; Advanced SIMD is part of every AArch64 target of this project.
        unsafe {
            let [a, b, c, d, e, f, g, h] = uppermost(super::quads::three(data));
            let only = |bytes: int8x16_t| vandq_s8(bytes, vdupq_n_s8(!31));
            [only(a), only(b), only(c), d, only(e), only(f), only(g), only(h)]
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_near<const QUAD: i32>(middle: super::quads::From) -> [int8x16_t; 8] {
        use super::quads::near;
        // SAFETY: as above.
        unsafe {
            let words = [near::<QUAD, 3, 0>(middle), near::<QUAD, 3, 1>(middle), near::<QUAD, 3, 2>(middle)];
            let [d, h] = last_words(words);
            let first = |k: usize| vandq_s8(words[k], vdupq_n_s8(!31));
            let last = |bytes: int8x16_t| vandq_s8(bytes, vdupq_n_s8(7 << 2));
            [first(0), first(1), first(2), d, last(words[0]), last(words[1]), last(words[2]), last(h)]
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
            macro_rules! less {
                ($bits:expr) => {
                    _mm256_sub_epi8(_mm256_and_si256($bits, seven), four)
                };
            }
            macro_rules! word {
                ($k:literal) => {
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(words.add($k)))
                };
            }
            let (two, third) = (_mm256_loadu_si256(data), word!(2));
            let upper = _mm256_and_si256(_mm256_slli_epi16::<1>(two), _mm256_set1_epi8(6));
            let lowest = _mm256_and_si256(shifted!(third, 0, 1), _mm256_set1_epi8(1));
            let both = _mm256_or_si256(upper, lowest);
            let fourth = _mm256_inserti128_si256::<1>(shifted!(third, 5, 5), _mm256_castsi256_si128(both));
            let eighth = _mm256_blend_epi32::<0xf0>(shifted!(third, 2, 2), both);
            [signed!(shifted!(two, 5, 5)), signed!(fourth), less!(shifted!(two, 2, 2)), less!(eighth)]
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

/// The fourth vector of a quad, which is nothing but the three uppermost bits, and the eighth one above bit 1, of its words.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn last_words([a, b, c]: [int8x16_t; 3]) -> [int8x16_t; 2] {
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        // The upper two bits inserted above the lowest one.
        [vsliq_n_s8::<6>(vshlq_n_s8::<5>(c), a), vsliq_n_s8::<3>(vshlq_n_s8::<1>(c), b)]
    }
}

/// A quad of quants in the three uppermost bits of bytes, 4 taken off; below the fourth vector's is nothing, below the others' what
/// is left.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn uppermost(words: [int8x16_t; 3]) -> [int8x16_t; 8] {
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let [a, b, c] = words;
        let [d, h] = last_words(words);
        let next = |bytes: int8x16_t| vshlq_n_s8::<3>(veorq_s8(bytes, vdupq_n_s8(4 << 2)));
        [a, b, c, d, next(a), next(b), next(c), next(h)]
    }
}
