//! Q5_0: 32 weights of 5 bits and a scale. A weight is `scale × (quant − 16)`.
//!
//! Block, 22 bytes: scale (binary16), the fifth bits of weights 0–31 as bits 0–31 of a little-endian word, then 16 bytes whose
//! low halves are weights 0–15 and whose high halves are weights 16–31. Source: ggml block layouts (`block_q5_0`).
//!
//! # In a tile
//!
//! Byte `c` of the word has the *turned* fifth bit of weight `4k + c` as bit `k`: all of them for vector `k` of a quad stand in
//! bit `k` of one vector. Where the turned bit is set, the four bits above the nibble become ones, and the quant is negative:
//! a test and an insertion a vector.

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
    unsafe fn quad(data: *const int8x16_t) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: five vectors.
        unsafe { fives(data) }
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

/// Turns the fifth bits and puts them into a tile's order.
pub fn sort(data: &mut [u8]) {
    let word = !u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
    for (c, byte) in data[..4].iter_mut().enumerate() {
        *byte = (0..8).fold(0, |byte, k| byte | (word >> (4 * k + c) & 1) << k) as u8;
    }
}

/// What [`sort`] did, backwards.
pub fn unsort(data: &mut [u8]) {
    let bit = |c: usize, k: usize| u32::from(data[c] >> k & 1) << (4 * k + c);
    let word = (0..32).fold(0, |word, i| word | bit(i % 4, i / 4));
    data[..4].copy_from_slice(&(!word).to_le_bytes());
}

/// A quad of 5-bit weights, −16 to 15: the vector of turned bits, then four of nibbles.
///
/// # Safety
/// Five vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn fives(data: *const int8x16_t) -> [int8x16_t; 8] {
    use super::quads::four;
    use crate::simd::neon;
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let high = vreinterpretq_u8_s8(neon::load(data.cast()));
        let bytes = four(data.add(1)).map(|bytes| vreinterpretq_u8_s8(bytes));
        // The masks of four bits serve all eight.
        let shifted = vshlq_n_u8::<4>(high);
        let nibble = vdupq_n_u8(0xf);
        let low = |ones: uint8x16_t, i: usize| vreinterpretq_s8_u8(vbslq_u8(nibble, bytes[i], ones));
        let upper = |ones: uint8x16_t, i: usize| vreinterpretq_s8_u8(vsriq_n_u8::<4>(ones, bytes[i]));
        let test = |bits: uint8x16_t, mask: u8| vtstq_u8(bits, vdupq_n_u8(mask));
        let sign = |bits: uint8x16_t| vcltzq_s8(vreinterpretq_s8_u8(bits));
        [
            low(test(shifted, 0x10), 0),
            low(test(shifted, 0x20), 1),
            low(test(shifted, 0x40), 2),
            low(sign(shifted), 3),
            upper(test(high, 0x10), 0),
            upper(test(high, 0x20), 1),
            upper(test(high, 0x40), 2),
            upper(sign(high), 3),
        ]
    }
}

/// The same for a PC.
///
/// # Safety
/// 80 bytes must be readable at `data`, and the CPU have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn fives(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(data.cast()));
        let nibbles = super::block32::avx2::nibbles(data.byte_add(16));
        // A macro and no closure, which would have no target features and make a call of each of these.
        macro_rules! five {
            ($i:literal, $low:literal, $upper:literal) => {{
                let mask = _mm256_set_m128i(_mm_set1_epi8($upper), _mm_set1_epi8($low));
                let ones = _mm256_cmpeq_epi8(_mm256_and_si256(high, mask), mask);
                _mm256_or_si256(nibbles[$i], _mm256_and_si256(ones, _mm256_set1_epi8(-16)))
            }};
        }
        [five!(0, 1, 2), five!(1, 4, 8), five!(2, 16, 32), five!(3, 64, -128)]
    }
}
