//! IQ4_NL: 32 weights, each one of 16 values that lie closer near zero, and a scale. A weight is `scale × value`.
//!
//! Block, 18 bytes: scale (binary16), then 16 bytes whose low halves are weights 0–15 and whose high halves are weights 16–31.
//! Source: ggml block layouts (`block_iq4_nl`, `kvalues_iq4nl`).

use super::block32::{self, Block32, Unpacked, half};
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// What the quants stand for.
pub const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The format.
pub struct Iq4Nl;

impl Quads for Iq4Nl {
    const NARROW: bool = false; // 2 × 127 × 127 = 32,258
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
}

impl Block32 for Iq4Nl {
    const ID: u32 = 20;
    const NAME: &'static str = "IQ4_NL";
    const BYTES: usize = 18;
    const MINIMUM: bool = false;

    fn unpack(block: &[u8]) -> Unpacked {
        let mut quants = [0; 32];
        for (index, &byte) in block[2..18].iter().enumerate() {
            quants[index] = VALUES[usize::from(byte & 0xf)];
            quants[index + 16] = VALUES[usize::from(byte >> 4)];
        }
        Unpacked { quants, scale: half(block), minimum: 0.0 }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: four vectors.
        unsafe { values(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 64 bytes.
        unsafe { values(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            let scale = block32::peak(block) / -127.0;
            row.extend(half::f16::from_f32(scale).to_le_bytes());
            pack(block, scale, row);
        }
    }
}

/// Writes the quants of 32 weights: whose values are nearest.
pub fn pack(weights: &[f32], scale: f32, row: &mut Vec<u8>) {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let nearest = |weight: f32| {
        let off = |value: i8| (f32::from(value) - weight * inverse).abs();
        (1..16).fold(0, |best, i| if off(VALUES[i]) < off(VALUES[best]) { i } else { best }) as u8
    };
    row.extend((0..16).map(|i| nearest(weights[i]) | nearest(weights[i + 16]) << 4));
}

/// A quad of values.
///
/// # Safety
/// Four vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn values(data: &mut super::quads::From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise, and a table of 16 bytes; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let table = crate::simd::neon::load(VALUES.as_ptr().cast());
        super::quads::nibbles(data).map(|nibbles| vqtbl1q_s8(table, vreinterpretq_u8_s8(nibbles)))
    }
}

/// The same for a PC.
///
/// # Safety
/// 64 bytes must be readable at `data`, and the CPU have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn values(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise, and a table of 16 bytes.
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(VALUES.as_ptr().cast()));
        let [a, b, c, d] = block32::avx2::nibbles(data);
        // Written out: in a closure, which has no target features, each of these would be a call.
        [
            _mm256_shuffle_epi8(table, a),
            _mm256_shuffle_epi8(table, b),
            _mm256_shuffle_epi8(table, c),
            _mm256_shuffle_epi8(table, d),
        ]
    }
}
