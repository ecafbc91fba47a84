//! Q4_K: 256 weights of 4 bits, eight scales and eight minimums of 6 bits. A weight is `d × scale × quant − dmin × minimum`.
//!
//! Block, 144 bytes: d and dmin (binary16), 12 bytes of scales and minimums, then 128 bytes: for every two parts 32, whose low
//! halves are the weights of the first and whose high halves those of the second. Source: ggml block layouts (`block_q4_K`).
//!
//! In a tile each part has 16 bytes of its own, with its first 16 weights in the low halves. Of the 12 bytes of scales and
//! minimums, byte `p` is the scale of part `p`, and the highest two bits of its minimum above that; the minimums' lower four are
//! in the last four bytes: of part `p` in the high half of byte `8 + p`, of part `4 + p` in the low one.

use super::block32::half;
use super::quads::Quads;
use super::superblock::{Head, PARTS, Part, Scales, Superblock, floats};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

/// The format.
#[allow(non_camel_case_types)] // as people write it
pub struct Q4_K;

impl Quads for Q4_K {
    const NARROW: bool = true; // 16 × 15 × 127 = 30,480
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
}

impl Superblock for Q4_K {
    const ID: u32 = 12;
    const NAME: &'static str = "Q4_K";
    const BYTES: usize = 144;
    const NUMBERS: usize = 2;
    const SMALL: usize = 12;
    const MINIMUM: bool = true;
    const SIXTEENS: bool = false;

    fn unpack(block: &[u8], part: usize) -> Part {
        let (scale, minimum) = scale_and_minimum(block, part);
        let mut quants = [0; 32];
        for (quant, byte) in quants.iter_mut().zip(&block[16 + part / 2 * 32..]) {
            *quant = (byte >> (4 * (part % 2)) & 0xf).cast_signed();
        }
        Part { quants, factors: [1; 2], scale, minimums: [minimum; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sort_scales(block, sorted);
        split_parts(&block[16..], |part, i, byte| sorted[16 + 16 * part + i] = byte);
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        unsort_scales(sorted, block);
        join_parts(&mut block[16..], |part, i| sorted[16 + 16 * part + i]);
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        six_bit_scales(head, scales);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { part_bytes(small, half, quarter) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: four vectors.
        unsafe { super::quads::nibbles(data) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_near<const QUAD: i32>(middle: super::quads::From) -> [int8x16_t; 8] {
        use super::quads::{halves, near};
        // SAFETY: the caller's promise: four vectors.
        unsafe {
            halves([
                near::<QUAD, 4, 0>(middle),
                near::<QUAD, 4, 1>(middle),
                near::<QUAD, 4, 2>(middle),
                near::<QUAD, 4, 3>(middle),
            ])
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 64 bytes.
        unsafe { super::block32::avx2::nibbles(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.as_chunks::<256>().0 {
            let quants = quantize(block, 15.0, row);
            row.extend((0..128).map(|i| {
                let at = i / 32 * 64 + i % 32;
                quants[at] | quants[at + 32] << 4
            }));
        }
    }
}

/// Scale and minimum of a part, from a block's first 16 bytes. Six bits each: those of the first four parts are the low bits of
/// bytes 0 to 3 and 4 to 7 of the twelve; the others have their low halves in bytes 8 to 11, and two bits above those six.
pub fn scale_and_minimum(block: &[u8], part: usize) -> (f32, f32) {
    let bytes = &block[4..16];
    let (scale, minimum) = if part < 4 {
        (bytes[part] & 63, bytes[part + 4] & 63)
    } else {
        let both = bytes[part + 4];
        (both & 0xf | bytes[part - 4] >> 6 << 4, both >> 4 | bytes[part] >> 6 << 4)
    };
    (half(block) * f32::from(scale), -(half(&block[2..]) * f32::from(minimum)))
}

/// Copies a block's first 16 bytes, with scales and minimums in a tile's order.
pub fn sort_scales(block: &[u8], sorted: &mut [u8]) {
    let bytes = &block[4..16];
    let six = |part: usize| match part.checked_sub(4) {
        None => (bytes[part] & 63, bytes[part + 4] & 63),
        Some(p) => (bytes[p + 8] & 0xf | bytes[p] >> 6 << 4, bytes[p + 8] >> 4 | bytes[p + 4] >> 6 << 4),
    };
    sorted[..4].copy_from_slice(&block[..4]);
    for part in 0..PARTS {
        let (scale, minimum) = six(part);
        sorted[4 + part] = scale | minimum >> 4 << 6;
    }
    for quarter in 0..PARTS / 2 {
        sorted[12 + quarter] = six(quarter).1 << 4 | six(PARTS / 2 + quarter).1 & 0xf;
    }
}

/// What [`sort_scales`] did, backwards.
pub fn unsort_scales(sorted: &[u8], block: &mut [u8]) {
    let six = |part: usize| {
        let byte = sorted[4 + part];
        (byte & 63, sorted[12 + part % 4] >> (4 - part / 4 * 4) & 0xf | byte >> 6 << 4)
    };
    block[..4].copy_from_slice(&sorted[..4]);
    for i in 0..4 {
        let ((scale, minimum), (other, lower)) = (six(i), six(i + 4));
        block[4 + i] = scale | other >> 4 << 6;
        block[8 + i] = minimum | lower >> 4 << 6;
        block[12 + i] = other & 0xf | lower << 4;
    }
}

/// [`Superblock::part_bytes`] of what [`sort_scales`] sorted.
///
/// # Safety
/// Twelve vectors must be readable.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
    use crate::simd::neon::load_near;
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let vector =
            |index: usize| vreinterpretq_u8_s8(load_near::<0>(small.add(super::TILE * index).cast()));
        let byte = vector(PARTS / 2 * half + quarter);
        let four = vshlq_u8(vector(PARTS + quarter), vdupq_n_s8(if half == 0 { 0 } else { 4 }));
        // Its highest four bits below the highest two of the byte. The compiler would do that with a mask.
        let (scale, minimum);
        core::arch::asm!("and {scale:v}.16b, {byte:v}.16b, {mask:v}.16b", "sri {byte:v}.16b, {four:v}.16b, #2",
            "ushr {byte:v}.16b, {byte:v}.16b, #2", scale = out(vreg) scale, byte = inout(vreg) byte => minimum,
            four = in(vreg) four, mask = in(vreg) vdupq_n_u8(63), options(pure, nomem, nostack, preserves_flags));
        [scale, minimum]
    }
}

/// The same for 16 rows of a tile.
#[inline(always)]
pub fn six_bit_scales(head: Head<'_>, scales: &mut Scales) {
    let (d, minus) = (head.number(0), head.number(1).map(|dmin| -dmin));
    for part in 0..PARTS {
        let (byte, four) = (head.small(2, part), head.small(2, PARTS + part % 4));
        let scale = floats(byte.map(|byte| byte & 63), 0);
        let minimum = core::array::from_fn(|row| four[row] >> (4 - part / 4 * 4) & 0xf | byte[row] >> 6 << 4);
        let minimum = floats(minimum, 0);
        for row in 0..super::TILE {
            scales.scales[part][row] = d[row] * scale[row];
            scales.minimums[part][row] = minus[row] * minimum[row];
        }
    }
}

/// Gives each part's nibbles 16 bytes of its own: part, byte and its value.
pub fn split_parts(nibbles: &[u8], mut put: impl FnMut(usize, usize, u8)) {
    for (two, bytes) in nibbles.as_chunks::<32>().0.iter().enumerate() {
        for i in 0..16 {
            put(2 * two, i, bytes[i] & 0xf | bytes[i + 16] << 4);
            put(2 * two + 1, i, bytes[i] >> 4 | bytes[i + 16] & 0xf0);
        }
    }
}

/// What [`split_parts`] did, backwards.
pub fn join_parts(nibbles: &mut [u8], get: impl Fn(usize, usize) -> u8) {
    for (two, bytes) in nibbles.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for i in 0..16 {
            let (first, second) = (get(2 * two, i), get(2 * two + 1, i));
            bytes[i] = first & 0xf | second << 4;
            bytes[i + 16] = first >> 4 | second & 0xf0;
        }
    }
}

/// Writes d, dmin and the scales of 256 weights, and tells their quants, 0 to `most`.
pub fn quantize(weights: &[f32; 256], most: f32, row: &mut Vec<u8>) -> [u8; 256] {
    let mut ranges = [(0f32, 0f32); PARTS]; // scale, and what the minimum is below zero
    for (range, weights) in ranges.iter_mut().zip(weights.as_chunks::<32>().0) {
        let minimum = weights.iter().copied().fold(0.0, f32::min); // a minimum can't be above zero
        let maximum = weights.iter().copied().fold(minimum, f32::max);
        *range = ((maximum - minimum) / most, -minimum);
    }
    let largest = ranges.iter().fold((0f32, 0f32), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let (d, dmin) = (half::f16::from_f32(largest.0 / 63.0), half::f16::from_f32(largest.1 / 63.0));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
    let rounded = |value: f32, unit: f32, most: f32| {
        if unit == 0.0 { 0 } else { libm::rintf(value / unit).clamp(0.0, most) as u8 }
    };
    let scales =
        ranges.map(|range| (rounded(range.0, d.to_f32(), 63.0), rounded(range.1, dmin.to_f32(), 63.0)));
    row.extend(d.to_le_bytes());
    row.extend(dmin.to_le_bytes());
    row.extend((0..4).map(|i| scales[i].0 | scales[i + 4].0 >> 4 << 6));
    row.extend((0..4).map(|i| scales[i].1 | scales[i + 4].1 >> 4 << 6));
    row.extend((4..8).map(|i| scales[i].0 & 0xf | scales[i].1 << 4));
    core::array::from_fn(|i| {
        let (scale, minimum) = scales[i / 32];
        let above = weights[i] + dmin.to_f32() * f32::from(minimum);
        rounded(above, d.to_f32() * f32::from(scale), most)
    })
}
