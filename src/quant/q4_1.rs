//! Q4_1: 32 weights of 4 bits, a scale and a minimum. A weight is `scale × quant + minimum`.
//!
//! Block, 20 bytes: scale and minimum (binary16), then 16 bytes whose low halves are weights 0–15 and whose high
//! halves are weights 16–31. Source: ggml block layouts (`block_q4_1`).

use super::block32::{Block32, Unpacked, half};
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

/// The format.
pub struct Q4_1;

impl Quads for Q4_1 {
    const NARROW: bool = true; // 16 × 15 × 127 = 30,480
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
}

impl Block32 for Q4_1 {
    const ID: u32 = 3;
    const NAME: &'static str = "Q4_1";
    const BYTES: usize = 20;
    const MINIMUM: bool = true;

    fn unpack(block: &[u8]) -> Unpacked {
        let mut quants = [0; 32];
        for (index, &byte) in block[4..20].iter().enumerate() {
            quants[index] = (byte & 0xf).cast_signed();
            quants[index + 16] = (byte >> 4).cast_signed();
        }
        Unpacked { quants, scale: half(block), minimum: half(&block[2..]) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: four vectors.
        unsafe { super::quads::nibbles(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 64 bytes.
        unsafe { super::block32::avx2::nibbles(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            let minimum = block.iter().copied().fold(f32::INFINITY, f32::min);
            let scale = (block.iter().copied().fold(f32::NEG_INFINITY, f32::max) - minimum) / 15.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to 4 bits
            let quant = |w: f32| libm::rintf((w - minimum) * inverse).clamp(0.0, 15.0) as u8;
            row.extend(half::f16::from_f32(scale).to_le_bytes());
            row.extend(half::f16::from_f32(minimum).to_le_bytes());
            row.extend((0..16).map(|i| quant(block[i]) | quant(block[i + 16]) << 4));
        }
    }
}
