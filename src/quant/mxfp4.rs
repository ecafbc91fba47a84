//! MXFP4: 32 weights, each a float of 4 bits (E2M1), and a power of two. A weight is `2^(exponent − 127) × float`.
//!
//! Block, 17 bytes: the exponent, then 16 bytes whose low halves are weights 0–15 and whose high halves are weights 16–31.
//! Source: OCP Microscaling Formats (MX) Specification 1.0, section 5.3; ggml block layouts (`block_mxfp4`).
//!
//! Twice the floats are whole numbers, and are worth half as much.

use super::block32::{Block32, Unpacked, half_power, peak};
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// Twice what the quants stand for.
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The format.
pub struct Mxfp4;

impl Quads for Mxfp4 {
    const NARROW: bool = true; // 16 × 12 × 127 = 24,384
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
}

impl Block32 for Mxfp4 {
    const ID: u32 = 39;
    const NAME: &'static str = "MXFP4";
    const BYTES: usize = 17;
    const POWER: bool = true;
    const MINIMUM: bool = false;

    fn unpack(block: &[u8]) -> Unpacked {
        let mut quants = [0; 32];
        for (index, &byte) in block[1..17].iter().enumerate() {
            quants[index] = VALUES[usize::from(byte & 0xf)];
            quants[index + 16] = VALUES[usize::from(byte >> 4)];
        }
        Unpacked { quants, scale: half_power(block[0]), minimum: 0.0 }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: four vectors, and a table of 16 bytes; Advanced SIMD is part of every AArch64 target of
        // this project.
        unsafe {
            let table = crate::simd::neon::load(VALUES.as_ptr().cast());
            super::quads::nibbles(data).map(|nibbles| vqtbl1q_s8(table, vreinterpretq_u8_s8(nibbles)))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 64 bytes, and a table of 16 bytes.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(VALUES.as_ptr().cast()));
            let [a, b, c, d] = super::block32::avx2::nibbles(data);
            // Written out: in a closure, which has no target features, each of these would be a call.
            [
                _mm256_shuffle_epi8(table, a),
                _mm256_shuffle_epi8(table, b),
                _mm256_shuffle_epi8(table, c),
                _mm256_shuffle_epi8(table, d),
            ]
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            // The power of two of the largest magnitude, less that of the largest float of 4 bits, which is 4.
            let exponent = (peak(block).to_bits() >> 23 & 0xff).saturating_sub(2) as u8;
            let unit = half_power(exponent);
            let nearest = |weight: f32| {
                let off = |value: i8| (f32::from(value) * unit - weight).abs();
                (1..16).fold(0, |best, i| if off(VALUES[i]) < off(VALUES[best]) { i } else { best }) as u8
            };
            row.push(exponent);
            row.extend((0..16).map(|i| nearest(block[i]) | nearest(block[i + 16]) << 4));
        }
    }
}
