//! Q5_0: 32 weights of 5 bits and a scale. A weight is `scale × (quant − 16)`.
//!
//! Block, 22 bytes: scale (binary16), the fifth bits of weights 0–31 as bits 0–31 of a little-endian word, then 16 bytes whose
//! low halves are weights 0–15 and whose high halves are weights 16–31. Source: ggml block layouts (`block_q5_0`).
//!
//! # In a tile
//!
//! 16 is taken off each quant. The upper five bits of byte `4k + c`, `k` from 0 to 4, are weight `4k + c`; the lower three of the
//! same five bytes hold weights `20 + c`, `24 + c` and `28 + c`, their highest bits in words 0, 2 and 4. So five vectors of a
//! quad are a shift each, or a mask where a quant may be eight times as large, and three are a few insertions.

use super::block32::{self, Block32, Unpacked, half};
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// The format.
pub struct Q5_0;

impl Quads for Q5_0 {
    const NARROW: bool = true; // 16 × 16 × 127 = 32,512
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const FRACTION: i32 = 3;
}

impl Block32 for Q5_0 {
    const ID: u32 = 6;
    const NAME: &'static str = "Q5_0";
    const BYTES: usize = 22;
    const MINIMUM: bool = false;
    const SORTED: bool = true;

    fn unpack(block: &[u8]) -> Unpacked {
        Unpacked { quants: quants(&block[2..22]).map(|quant| quant - 16), scale: half(block), minimum: 0.0 }
    }

    fn sort(data: &mut [u8]) {
        sort(data);
    }

    fn unsort(data: &mut [u8]) {
        unsort(data);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: five vectors.
        unsafe { fives(data) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: five vectors.
        unsafe { fives_dotprod(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 80 bytes.
        unsafe { fives(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            let scale = block32::peak(block) / -16.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            row.extend(half::f16::from_f32(scale).to_le_bytes());
            pack(block, |w| w * inverse + 16.0, row);
        }
    }
}

/// The quants of a block's data as in the file, 0 to 31.
pub fn quants(data: &[u8]) -> [i8; 32] {
    let mut quants = [0; 32];
    for (index, &byte) in data[4..20].iter().enumerate() {
        quants[index] = (byte & 0xf).cast_signed();
        quants[index + 16] = (byte >> 4).cast_signed();
    }
    for (index, quant) in quants.iter_mut().enumerate() {
        *quant |= (data[index / 8] >> (index % 8) & 1).cast_signed() << 4;
    }
    quants
}

/// Writes a block's data: weights turned into numbers from 0 to 31, which are rounded.
pub fn pack(weights: &[f32], number: impl Fn(f32) -> f32, row: &mut Vec<u8>) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to 5 bits
    let quant = |i: usize| libm::rintf(number(weights[i])).clamp(0.0, 31.0) as u8;
    let fifths = (0..32).fold(0, |word, i| word | u32::from(quant(i) >> 4) << i);
    row.extend(fifths.to_le_bytes());
    row.extend((0..16).map(|i| quant(i) & 0xf | (quant(i + 16) & 0xf) << 4));
}

/// Puts a block's data into a tile's order.
pub fn sort(data: &mut [u8]) {
    let quants = quants(data).map(|quant| quant.cast_unsigned() ^ 16);
    for (i, byte) in data.iter_mut().enumerate() {
        let low = (0..3).fold(0, |low, bit| {
            let (word, from) = SPREAD[i / 4][bit];
            low | (quants[4 * word + i % 4] >> from & 1) << bit
        });
        *byte = quants[i] << 3 | low;
    }
}

/// What [`sort`] did, backwards.
pub fn unsort(data: &mut [u8]) {
    let mut quants = [16u8; 32];
    for (i, byte) in data.iter().enumerate() {
        quants[i] ^= byte >> 3;
        for (bit, (word, from)) in SPREAD[i / 4].into_iter().enumerate() {
            quants[4 * word + i % 4] ^= (byte >> bit & 1) << from;
        }
    }
    let fifths = (0..32).fold(0, |word, i| word | u32::from(quants[i] >> 4) << i);
    data[..4].copy_from_slice(&fifths.to_le_bytes());
    for (i, byte) in data[4..].iter_mut().enumerate() {
        *byte = quants[i] & 0xf | quants[i + 16] << 4;
    }
}

/// What the lower three bits of a word's bytes are, from the lowest: of which word, which bit.
const SPREAD: [[(usize, usize); 3]; 5] = [
    [(5, 2), (5, 3), (5, 4)],
    [(7, 1), (5, 0), (5, 1)],
    [(6, 2), (6, 3), (6, 4)],
    [(7, 0), (6, 0), (6, 1)],
    [(7, 2), (7, 3), (7, 4)],
];

/// A quad of 5-bit weights, −16 to 15.
///
/// # Safety
/// Five vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn fives(data: &mut super::quads::From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe { eights(super::quads::five(data), |bytes| bytes).map(|bytes| vshrq_n_s8::<3>(bytes)) }
}

/// The same times eight, −128 to 120.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn fives_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe { fives_of(super::quads::five(data)) }
}

/// The same of five vectors that have been loaded.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub fn fives_of(words: [int8x16_t; 5]) -> [int8x16_t; 8] {
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    eights(words, |bytes| unsafe { vandq_s8(bytes, vdupq_n_s8(!7)) })
}

/// A quad of weights in the upper five bits; `clear` is done to the seven vectors that have something in the lower three.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn eights(words: [int8x16_t; 5], clear: impl Fn(int8x16_t) -> int8x16_t) -> [int8x16_t; 8] {
    let [a, b, c, d, e] = words;
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        // Shifted left and inserted above what is there, the highest bits last.
        let f = vsliq_n_s8::<5>(vshlq_n_s8::<2>(b), a);
        let g = vsliq_n_s8::<5>(vshlq_n_s8::<2>(d), c);
        let h = vsliq_n_s8::<5>(vsliq_n_s8::<4>(vshlq_n_s8::<3>(d), b), e);
        [clear(a), clear(b), clear(c), clear(d), clear(e), clear(f), clear(g), h]
    }
}

/// The same for a PC, not times anything.
///
/// # Safety
/// 80 bytes must be readable at `data`, and the CPU have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn fives(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let vector = |index: usize| _mm_loadu_si128(data.cast::<__m128i>().add(index));
        let [a, b, c, d, e] = [vector(0), vector(1), vector(2), vector(3), vector(4)];
        // Macros and no closures, which would have no target features and make a call of each of these.
        macro_rules! bits {
            ($of:expr, $mask:literal) => {
                _mm_and_si128($of, _mm_set1_epi8($mask))
            };
        }
        macro_rules! quants {
            ($first:expr, $second:expr) => {{
                // The upper five bits, moved down, with their sign.
                let bytes = _mm256_set_m128i($second, $first);
                let five = _mm256_and_si256(_mm256_srli_epi16::<3>(bytes), _mm256_set1_epi8(31));
                let sign = _mm256_set1_epi8(16);
                _mm256_sub_epi8(_mm256_xor_si256(five, sign), sign)
            }};
        }
        let high = |bytes: __m128i| _mm_slli_epi16::<5>(bits!(bytes, 7));
        let f = _mm_or_si128(high(a), _mm_slli_epi16::<2>(bits!(b, 6)));
        let g = _mm_or_si128(high(c), _mm_slli_epi16::<2>(bits!(d, 6)));
        let last = _mm_or_si128(_mm_slli_epi16::<4>(bits!(b, 1)), _mm_slli_epi16::<3>(bits!(d, 1)));
        let h = _mm_or_si128(high(e), last);
        [quants!(a, b), quants!(c, d), quants!(e, f), quants!(g, h)]
    }
}
