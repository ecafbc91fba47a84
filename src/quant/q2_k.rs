//! Q2_K: 256 weights of 2 bits; a scale and a minimum of 4 bits for every 16. A weight is `d × scale × quant − dmin × minimum`.
//!
//! Block, 84 bytes: 16 bytes with a scale (low half) and a minimum (high half) each; 64 bytes of quants; d and dmin
//! (binary16). Two bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first. Source: ggml block layouts
//! (`block_q2_K`).
//!
//! In a tile each part has 8 bytes of its own, in two words: byte `c` of word `k` is weights `4k + c`, `16 + 4k + c`, `24 + 4k + c` and
//! `8 + 4k + c`, the lowest bits first. So each vector of a quad is one mask or shift to `sdot`: the first 16 of a part as large as they are,
//! the next eight four times and the last eight 16 times.

use super::block32::half;
use super::quads::Quads;
use super::superblock::{Head, LEN, PARTS, Part, Scales, Superblock, floats};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use super::TILE;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// The format.
#[allow(non_camel_case_types)] // as people write it
pub struct Q2_K;

/// Where the quants, d and dmin are in a block.
const QUANTS: usize = 16;
const D: usize = 80;
const DMIN: usize = 82;
/// What a tile's block begins with, and a part's bytes behind it.
const HEAD: usize = 20;
const PART: usize = 8;
/// Where in a tile's bytes each eight weights of a part have their bits.
const SHIFTS: [u32; 4] = [0, 6, 2, 4];

impl Quads for Q2_K {
    const NARROW: bool = true; // 16 × 3 × 127 = 6,096
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
}

impl Superblock for Q2_K {
    const ID: u32 = 10;
    const NAME: &'static str = "Q2_K";
    const BYTES: usize = 84;
    const NUMBERS: usize = 2;
    const SMALL: usize = 16;
    const MINIMUM: bool = true;
    const SIXTEENS: bool = true; // 15 × 3 = 45

    fn unpack(block: &[u8], part: usize) -> Part {
        let quants = pairs_of(&block[QUANTS..], part).map(u8::cast_signed);
        let both = [block[2 * part], block[2 * part + 1]];
        Part {
            quants,
            factors: both.map(|both| i32::from(both & 0xf)),
            scale: half(&block[D..]),
            minimums: both.map(|both| -half(&block[DMIN..]) * f32::from(both >> 4)),
        }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sorted[..4].copy_from_slice(&block[D..]);
        sorted[4..HEAD].copy_from_slice(&block[..QUANTS]);
        for (part, sorted) in sorted[HEAD..].as_chunks_mut::<PART>().0.iter_mut().enumerate() {
            let pairs = pairs_of(&block[QUANTS..], part);
            for (byte, to) in sorted.iter_mut().enumerate() {
                *to = (0..4).fold(0, |bits, k| bits | pairs[8 * k + byte] << SHIFTS[k]);
            }
        }
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        block.fill(0);
        block[D..].copy_from_slice(&sorted[..4]);
        block[..QUANTS].copy_from_slice(&sorted[4..HEAD]);
        for (part, sorted) in sorted[HEAD..].as_chunks::<PART>().0.iter().enumerate() {
            for i in 0..32 {
                let (at, shift) = place(part, i);
                block[QUANTS + at] |= (sorted[i % 8] >> SHIFTS[i / 8] & 3) << shift;
            }
        }
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        scales.scales[0] = head.number(0);
        let minus = head.number(1).map(|dmin| -dmin);
        for index in 0..2 * PARTS {
            let both = head.small(2, index);
            let minimum = floats(both.map(|both| both >> 4), 0);
            for row in 0..super::TILE {
                scales.factors[index][row] = i32::from(both[row] & 0xf);
                scales.minimums[index][row] = minus[row] * minimum[row];
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
        use crate::simd::neon::load_near;
        // SAFETY: the caller's promise: 16 vectors; Advanced SIMD is part of every AArch64 target of this project.
        unsafe {
            let both = small.add(2 * TILE * (PARTS / 2 * half + quarter)).cast();
            let (first, last) = (load_near::<0>(both), load_near::<16>(both));
            [vreinterpretq_u8_s8(first), vreinterpretq_u8_s8(last)]
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: two vectors; Advanced SIMD is part of every AArch64 target of this project.
        unsafe {
            let three = vdupq_n_u8(3);
            let [a, b] = super::quads::two(data).map(|bytes| vreinterpretq_u8_s8(bytes));
            [
                vandq_u8(a, three),
                vandq_u8(b, three),
                vshrq_n_u8::<6>(a),
                vshrq_n_u8::<6>(b),
                vandq_u8(vshrq_n_u8::<2>(a), three),
                vandq_u8(vshrq_n_u8::<2>(b), three),
                vandq_u8(vshrq_n_u8::<4>(a), three),
                vandq_u8(vshrq_n_u8::<4>(b), three),
            ]
            .map(|bits| vreinterpretq_s8_u8(bits))
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_near<const QUAD: i32>(middle: super::quads::From) -> [int8x16_t; 8] {
        use super::quads::near;
        // SAFETY: as above.
        unsafe {
            let (a, b) = (near::<QUAD, 2, 0>(middle), near::<QUAD, 2, 1>(middle));
            let only = |bytes: int8x16_t, mask: i8| vandq_s8(bytes, vdupq_n_s8(mask));
            let upper = |bytes| vreinterpretq_s8_u8(vshrq_n_u8::<6>(vreinterpretq_u8_s8(bytes)));
            [
                only(a, 3),
                only(b, 3),
                upper(a),
                upper(b),
                only(a, 3 << 2),
                only(b, 3 << 2),
                only(a, 3 << 4),
                only(b, 3 << 4),
            ]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 32 bytes.
        unsafe {
            let (bytes, three) = (_mm256_loadu_si256(data), _mm256_set1_epi8(3));
            [
                _mm256_and_si256(bytes, three),
                _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), three),
                _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), three),
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), three),
            ]
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            // The span of 16 weights from at most 0 on.
            let spans = block.chunks_exact(16).map(|run| {
                let least = run.iter().copied().fold(0.0, f32::min);
                (run.iter().copied().fold(0.0, f32::max) - least, -least)
            });
            let spans: Vec<(f32, f32)> = spans.collect();
            let largest = |of: fn(&(f32, f32)) -> f32| spans.iter().map(of).fold(0.0, f32::max);
            let d = half::f16::from_f32(largest(|span| span.0) / 3.0 / 15.0);
            let dmin = half::f16::from_f32(largest(|span| span.1) / 15.0);
            let over = |d: half::f16| if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
            let four_bits = |value: f32| libm::rintf(value).clamp(0.0, 15.0) as u8;
            let mut quants = [0u8; 64];
            for (index, (run, (span, down))) in block.chunks_exact(16).zip(&spans).enumerate() {
                let (scale, minimum) = (four_bits(span / 3.0 * over(d)), four_bits(down * over(dmin)));
                row.push(scale | minimum << 4);
                let unit = d.to_f32() * f32::from(scale);
                let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
                let base = dmin.to_f32() * f32::from(minimum);
                for (i, weight) in run.iter().enumerate() {
                    let quant = libm::rintf((weight + base) * inverse).clamp(0.0, 3.0) as u8;
                    quants[index / 8 * 32 + index % 2 * 16 + i] |= quant << (index / 2 % 4 * 2);
                }
            }
            row.extend(quants);
            row.extend(d.to_le_bytes());
            row.extend(dmin.to_le_bytes());
        }
    }
}

/// The two bits of weight `i` of a part among 64 bytes as in a file: byte and shift.
const fn place(part: usize, i: usize) -> (usize, usize) {
    (part / 4 * 32 + i, part % 4 * 2)
}

/// A part's pairs of bits.
pub fn pairs_of(block: &[u8], part: usize) -> [u8; 32] {
    core::array::from_fn(|i| {
        let (at, shift) = place(part, i);
        block[at] >> shift & 3
    })
}

/// Gives each part's pairs of bits eight bytes of their own.
pub fn sort_pairs(block: &[u8], sorted: &mut [u8]) {
    for (part, sorted) in sorted.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let pairs = pairs_of(block, part);
        for (byte, to) in sorted.iter_mut().enumerate() {
            let bits = |k: usize| pairs[byte / 4 * 16 + 4 * k + byte % 4];
            *to = bits(0) | bits(1) << 2 | bits(2) << 4 | bits(3) << 6;
        }
    }
}

/// What [`sort_pairs`] did, backwards; the block's bytes were 0.
pub fn unsort_pairs(sorted: &[u8], block: &mut [u8]) {
    for (part, sorted) in sorted.as_chunks::<PART>().0.iter().enumerate() {
        for i in 0..32 {
            let (at, shift) = place(part, i);
            block[at] |= (sorted[i / 16 * 4 + i % 4] >> (i / 4 % 4 * 2) & 3) << shift;
        }
    }
}

/// A quad of pairs of bits.
///
/// # Safety
/// Two vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn pairs(data: &mut super::quads::From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let three = vdupq_n_u8(3);
        let [a, b] = super::quads::two(data).map(|bytes| vreinterpretq_u8_s8(bytes));
        [
            vandq_u8(a, three),
            vandq_u8(vshrq_n_u8::<2>(a), three),
            vandq_u8(vshrq_n_u8::<4>(a), three),
            vshrq_n_u8::<6>(a),
            vandq_u8(b, three),
            vandq_u8(vshrq_n_u8::<2>(b), three),
            vandq_u8(vshrq_n_u8::<4>(b), three),
            vshrq_n_u8::<6>(b),
        ]
        .map(|bits| vreinterpretq_s8_u8(bits))
    }
}

/// The same for a PC.
///
/// # Safety
/// 32 bytes must be readable at `data`, and the CPU have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let words: *const __m128i = data.cast();
        // A macro and no closure, which would have no target features and make a call of each of these.
        macro_rules! two {
            ($word:literal, $first:literal, $second:literal) => {
                _mm256_and_si256(
                    _mm256_srlv_epi64(
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(words.add($word))),
                        _mm256_setr_epi64x($first, $first, $second, $second),
                    ),
                    _mm256_set1_epi8(3),
                )
            };
        }
        [two!(0, 0, 2), two!(0, 4, 6), two!(1, 0, 2), two!(1, 4, 6)]
    }
}
