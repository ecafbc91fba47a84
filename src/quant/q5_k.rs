//! Q5_K: 256 weights of 5 bits, scales and minimums as in [`super::q4_k`]. A weight is `d × scale × quant − dmin × minimum`.
//!
//! Block, 176 bytes: d and dmin (binary16), 12 bytes of scales and minimums, 32 bytes whose bit `p` is the fifth bit of the
//! weights of part `p`, then 128 bytes as in Q4_K. Source: ggml block layouts (`block_q5_K`).
//!
//! In a tile each part has 20 bytes of its own, as in [`super::q5_0`]: there 16 is taken off each quant, and comes back from the
//! sum of the activations.

use super::q4_k::{
    join_parts, quantize, scale_and_minimum, six_bit_scales, sort_scales, split_parts, unsort_scales,
};
use super::q5_0;
use super::quads::Quads;
use super::superblock::{Head, PARTS, Part, Scales, Superblock};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::{int8x16_t, uint8x16_t};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

/// The format.
#[allow(non_camel_case_types)] // as people write it
pub struct Q5_K;

/// Bytes of a part in a tile: a word of fifth bits, then nibbles.
const PART: usize = 20;

impl Quads for Q5_K {
    const NARROW: bool = true; // 16 × 16 × 127 = 32,512
    const ZERO: i32 = -16;
    const SIGNED: bool = true;
    const FRACTION: i32 = 3;
}

impl Superblock for Q5_K {
    const ID: u32 = 13;
    const NAME: &'static str = "Q5_K";
    const BYTES: usize = 176;
    const NUMBERS: usize = 2;
    const SMALL: usize = 12;
    const MINIMUM: bool = true;
    const SIXTEENS: bool = false;

    fn unpack(block: &[u8], part: usize) -> Part {
        let (scale, minimum) = scale_and_minimum(block, part);
        let (fifths, nibbles) = (&block[16..48], &block[48 + part / 2 * 32..]);
        let mut quants = [0; 32];
        for (quant, (byte, fifth)) in quants.iter_mut().zip(nibbles.iter().zip(fifths)) {
            *quant = (byte >> (4 * (part % 2)) & 0xf | (fifth >> part & 1) << 4).cast_signed();
        }
        Part { quants, factors: [1; 2], scale, minimums: [minimum; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sort_scales(block, sorted);
        split_parts(&block[48..], |part, i, byte| sorted[16 + PART * part + 4 + i] = byte);
        for part in 0..PARTS {
            let fifth = |i: usize| u32::from(block[16 + i] >> part & 1) << i;
            let word: u32 = (0..32).map(fifth).sum();
            let data = &mut sorted[16 + PART * part..][..PART];
            data[..4].copy_from_slice(&word.to_le_bytes());
            q5_0::sort(data);
        }
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        unsort_scales(sorted, block);
        let mut parts = [[0; PART]; PARTS];
        for (part, from) in parts.iter_mut().zip(sorted[16..].as_chunks::<PART>().0) {
            *part = *from;
            q5_0::unsort(part);
        }
        join_parts(&mut block[48..], |part, i| parts[part][4 + i]);
        for (i, byte) in block[16..48].iter_mut().enumerate() {
            *byte = (0..PARTS).fold(0, |byte, part| byte | (parts[part][i / 8] >> (i % 8) & 1) << part);
        }
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        six_bit_scales(head, scales);
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
        // SAFETY: the caller's promise: five vectors.
        unsafe { q5_0::fives(data) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: five vectors.
        unsafe { q5_0::fives_dotprod(data) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_near<const QUAD: i32>(middle: super::quads::From) -> [int8x16_t; 8] {
        use super::quads::near;
        // SAFETY: the caller's promise: five vectors.
        let words = unsafe {
            [
                near::<QUAD, 5, 0>(middle),
                near::<QUAD, 5, 1>(middle),
                near::<QUAD, 5, 2>(middle),
                near::<QUAD, 5, 3>(middle),
                near::<QUAD, 5, 4>(middle),
            ]
        };
        q5_0::fives_of(words)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 80 bytes.
        unsafe { q5_0::fives(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.as_chunks::<256>().0 {
            let quants = quantize(block, 31.0, row);
            row.extend(
                (0..32).map(|i| (0..PARTS).map(|part| (quants[32 * part + i] >> 4) << part).sum::<u8>()),
            );
            row.extend((0..128).map(|i| {
                let at = i / 32 * 64 + i % 32;
                quants[at] & 0xf | (quants[at + 32] & 0xf) << 4
            }));
        }
    }
}
