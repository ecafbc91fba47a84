//! Q5_1: 32 weights of 5 bits, a scale and a minimum. A weight is `scale × quant + minimum`.
//!
//! Block, 24 bytes: scale and minimum (binary16), then 20 bytes as in [`super::q5_0`], in a tile too: there 16 is taken off each
//! quant, and comes back from the sum of the activations. Source: ggml block layouts (`block_q5_1`).

use super::block32::{Block32, Unpacked, half};
use super::q5_0;
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

/// The format.
pub struct Q5_1;

impl Quads for Q5_1 {
    const NARROW: bool = true; // 16 × 16 × 127 = 32,512
    const ZERO: i32 = -16;
    const SIGNED: bool = true;
    const FRACTION: i32 = 3;
}

impl Block32 for Q5_1 {
    const ID: u32 = 7;
    const NAME: &'static str = "Q5_1";
    const BYTES: usize = 24;
    const MINIMUM: bool = true;
    const SORTED: bool = true;

    fn unpack(block: &[u8]) -> Unpacked {
        Unpacked { quants: q5_0::quants(&block[4..24]), scale: half(block), minimum: half(&block[2..]) }
    }

    fn sort(data: &mut [u8]) {
        q5_0::sort(data);
    }

    fn unsort(data: &mut [u8]) {
        q5_0::unsort(data);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: five vectors.
        unsafe { q5_0::fives(data) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: five vectors.
        unsafe { q5_0::fives_dotprod(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 80 bytes.
        unsafe { q5_0::fives(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            let minimum = block.iter().copied().fold(f32::INFINITY, f32::min);
            let scale = (block.iter().copied().fold(f32::NEG_INFINITY, f32::max) - minimum) / 31.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            row.extend(half::f16::from_f32(scale).to_le_bytes());
            row.extend(half::f16::from_f32(minimum).to_le_bytes());
            q5_0::pack(block, |w| (w - minimum) * inverse, row);
        }
    }
}
