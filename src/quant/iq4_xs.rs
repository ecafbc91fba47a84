//! IQ4_XS: 256 weights, each one of the 16 values of [`super::iq4_nl`], and a scale of 6 bits for every 32. A weight is
//! `d × (scale − 32) × value`.
//!
//! Block, 136 bytes: d (binary16); 16 bits with the high two of each scale; 4 bytes with their low four; then, for every 32
//! weights, 16 bytes whose low halves are the first 16 weights and whose high halves are the others. Source: ggml block
//! layouts (`block_iq4_xs`).

use super::block32::{half, peak};
use super::iq4_nl::{VALUES, pack, values};
use super::quads::Quads;
use super::superblock::{Head, Part, Scales, Superblock, floats};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

/// The format.
pub struct Iq4Xs;

impl Quads for Iq4Xs {
    const NARROW: bool = false; // 2 × 127 × 127 = 32,258
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const VALUES: bool = true;
}

/// The scale of a part, 32 larger than it counts, of the byte with its high two bits and the one with its low four.
#[inline(always)]
fn six_bits(high: u8, low: u8, part: usize) -> u8 {
    low >> (part % 2 * 4) & 0xf | (high >> (2 * (part % 4)) & 3) << 4
}

impl Superblock for Iq4Xs {
    const ID: u32 = 23;
    const NAME: &'static str = "IQ4_XS";
    const BYTES: usize = 136;
    const NUMBERS: usize = 1;
    const SMALL: usize = 6;
    const MINIMUM: bool = false;
    const SIXTEENS: bool = false;
    const LESS: u8 = 32;

    fn unpack(block: &[u8], part: usize) -> Part {
        let mut quants = [0; 32];
        for (index, &byte) in block[8 + 16 * part..][..16].iter().enumerate() {
            quants[index] = VALUES[usize::from(byte & 0xf)];
            quants[index + 16] = VALUES[usize::from(byte >> 4)];
        }
        let bits = six_bits(block[2 + part / 4], block[4 + part / 2], part);
        let scale = half(block) * (f32::from(bits) - 32.0);
        Part { quants, factors: [1; 2], scale, minimums: [0.0; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sorted.copy_from_slice(block);
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        block.copy_from_slice(sorted);
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        let d = head.number(0);
        for (part, scales) in scales.scales.iter_mut().enumerate() {
            let [high, low] = [head.small(1, part / 4), head.small(1, 2 + part / 2)];
            let factors = floats(core::array::from_fn(|row| six_bits(high[row], low[row], part)), Self::LESS);
            for row in 0..super::TILE {
                scales[row] = d[row] * factors[row];
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
        use crate::simd::neon::load;
        // SAFETY: the caller's promise: six vectors; Advanced SIMD is part of every AArch64 target of this project.
        unsafe {
            let turned = |vector: usize, by: i8| {
                vshlq_u8(vreinterpretq_u8_s8(load(small.add(super::TILE * vector))), vdupq_n_s8(by))
            };
            let by = quarter.cast_signed() as i8;
            let (high, low) = (turned(half, 4 - 2 * by), turned(2 + 2 * half + quarter / 2, -4 * (by & 1)));
            let bits = vbslq_u8(vdupq_n_u8(0xf), low, high);
            [vandq_u8(bits, vdupq_n_u8(63)), bits]
        }
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

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.as_chunks::<256>().0 {
            // The largest magnitude becomes −127, the value farthest out.
            let wanted: [f32; 8] =
                core::array::from_fn(|part| peak(&block[32 * part..32 * part + 32]) / -127.0);
            let d = half::f16::from_f32(peak(&wanted) / -32.0);
            let inverse = if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
            let scales = wanted.map(|wanted| libm::rintf(wanted * inverse).clamp(-32.0, 31.0));
            let bits = |part: usize| (scales[part] + 32.0) as u16;
            row.extend(d.to_le_bytes());
            row.extend((0..8).fold(0u16, |high, part| high | (bits(part) >> 4) << (2 * part)).to_le_bytes());
            row.extend((0..4).map(|i| (bits(2 * i) & 0xf | (bits(2 * i + 1) & 0xf) << 4) as u8));
            for (weights, scale) in block.as_chunks::<32>().0.iter().zip(scales) {
                pack(weights, d.to_f32() * scale, row);
            }
        }
    }
}
