//! Q8_0: 32 weights of 8 bits and a scale. A weight is `scale × quant`.
//!
//! Block, 34 bytes: scale (binary16), then 32 signed bytes. Source: ggml block layouts (`block_q8_0`).

use super::block32::{self, Block32, Unpacked, half};
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

/// The format.
pub struct Q8_0;

impl Quads for Q8_0 {
    const NARROW: bool = false; // 2 × 128 × 127 = 32,512
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
}

impl Block32 for Q8_0 {
    const ID: u32 = 8;
    const NAME: &'static str = "Q8_0";
    const BYTES: usize = 34;
    const MINIMUM: bool = false;

    fn unpack(block: &[u8]) -> Unpacked {
        let mut quants = [0; 32];
        for (quant, &byte) in quants.iter_mut().zip(&block[2..34]) {
            *quant = byte.cast_signed();
        }
        Unpacked { quants, scale: half(block), minimum: 0.0 }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: eight vectors.
        unsafe { super::quads::bytes(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 128 bytes.
        unsafe { block32::avx2::bytes(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            let scale = block32::peak(block).abs() / 127.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            row.extend(half::f16::from_f32(scale).to_le_bytes());
            #[allow(clippy::cast_possible_truncation)] // at most 127
            row.extend(block.iter().map(|w| (libm::rintf(w * inverse) as i8).cast_unsigned()));
        }
    }
}
