//! F32 and F16: weights that are floats. They are multiplied with the float activations.
//!
//! The definition sums in eight lanes: product `i` goes to lane `i mod 8`, each lane in order, a multiplication
//! and an addition each; then lane `j` takes lane `j + 4`, and the four are summed as (0 + 1) + (2 + 3).

use super::{Format, Input, Inputs};
use crate::pool::Band;
use crate::simd::Level;
use alloc::vec::Vec;

/// Lanes of the definition.
const LANES: usize = 8;

/// Sums the lanes in the order of the definition.
#[inline(always)]
pub fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let pair = |j: usize| lanes[j] + lanes[j + 4];
    (pair(0) + pair(1)) + (pair(2) + pair(3))
}

/// The dot product that this module defines. The lanes are independent, so a compiler may keep them in vectors.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] += a * b;
    }
    sum_lanes(lanes)
}

/// The same with binary16 on one side.
#[inline]
pub fn dot_half(level: Level, half: &[u16], b: &[f32]) -> f32 {
    match level {
        Level::Plain | Level::Fma(_) => dot_half_plain(half, b),
        #[cfg(target_arch = "aarch64")]
        Level::Neon(_) | Level::Dotprod(_) => dot_half_neon(half, b),
        #[cfg(not(target_arch = "aarch64"))]
        _ => unreachable!("a level other than plain is only made on AArch64"),
    }
}

fn dot_half_plain(half: &[u16], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    for (index, (&a, b)) in half.iter().zip(b).enumerate() {
        lanes[index % LANES] += half::f16::from_bits(a).to_f32() * b;
    }
    sum_lanes(lanes)
}

#[cfg(target_arch = "aarch64")]
fn dot_half_neon(half: &[u16], b: &[f32]) -> f32 {
    use crate::simd::neon;
    use core::arch::aarch64::*;
    let (a_whole, a_rest) = half.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    // SAFETY: each chunk is eight values long.
    unsafe {
        let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
        for (a, b) in a_whole.iter().zip(b_whole) {
            low = vaddq_f32(low, vmulq_f32(neon::load_half(a.as_ptr()), neon::load_floats(b.as_ptr())));
            high = vaddq_f32(
                high,
                vmulq_f32(neon::load_half(a.as_ptr().add(4)), neon::load_floats(b.as_ptr().add(4))),
            );
        }
        vst1q_f32(lanes.as_mut_ptr(), low);
        vst1q_f32(lanes.as_mut_ptr().add(4), high);
    }
    for (lane, (&a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] += half::f16::from_bits(a).to_f32() * b;
    }
    sum_lanes(lanes)
}

/// `out[i] += weight × half[i]`, a multiplication and an addition each.
#[inline]
pub fn add_scaled_half(level: Level, out: &mut [f32], half: &[u16], weight: f32) {
    match level {
        Level::Plain | Level::Fma(_) => add_scaled_half_plain(out, half, weight),
        #[cfg(target_arch = "aarch64")]
        Level::Neon(_) | Level::Dotprod(_) => add_scaled_half_neon(out, half, weight),
        #[cfg(not(target_arch = "aarch64"))]
        _ => unreachable!("a level other than plain is only made on AArch64"),
    }
}

fn add_scaled_half_plain(out: &mut [f32], half: &[u16], weight: f32) {
    for (out, &half) in out.iter_mut().zip(half) {
        *out += half::f16::from_bits(half).to_f32() * weight;
    }
}

#[cfg(target_arch = "aarch64")]
fn add_scaled_half_neon(out: &mut [f32], half: &[u16], weight: f32) {
    use crate::simd::neon;
    use core::arch::aarch64::*;
    let (out_whole, out_rest) = out.as_chunks_mut::<4>();
    let (half_whole, half_rest) = half.as_chunks::<4>();
    for (out, half) in out_whole.iter_mut().zip(half_whole) {
        // SAFETY: both chunks are four values long.
        unsafe {
            let product = vmulq_n_f32(neon::load_half(half.as_ptr()), weight);
            neon::store_floats(out.as_mut_ptr(), vaddq_f32(neon::load_floats(out.as_ptr()), product));
        }
    }
    add_scaled_half_plain(out_rest, half_rest, weight);
}

/// 32-bit floats.
pub struct F32;

impl Format for F32 {
    const ID: u32 = 0;
    const NAME: &'static str = "F32";
    const LEN: usize = 1;
    const BYTES: usize = 4;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (bytes, weight) in row.as_chunks::<4>().0.iter().zip(weights) {
            *weight = f32::from_le_bytes(*bytes);
        }
    }

    fn dot(row: &[u8], input: Input<'_>) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (bytes, x)) in row.as_chunks::<4>().0.iter().zip(input.floats).enumerate() {
            lanes[index % LANES] += f32::from_le_bytes(*bytes) * x;
        }
        sum_lanes(lanes)
    }

    fn multiply(_level: Level, rows: &[u8], inputs: &Inputs, out: &mut Band<'_>) {
        let row_bytes = inputs.columns() * 4;
        for row in 0..out.rows() {
            let bytes = &rows[row * row_bytes..][..row_bytes];
            // Floats of a model file are 4-byte aligned and so need no copy; if ever not, the definition serves.
            let floats = <[f32] as zerocopy::FromBytes>::ref_from_bytes(bytes);
            for column in 0..inputs.count() {
                let input = inputs.get(column);
                out.column(column)[row] = match floats {
                    Ok(floats) => dot(floats, input.floats),
                    Err(_) => Self::dot(bytes, input),
                };
            }
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        row.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
    }
}

/// 16-bit floats (binary16).
pub struct F16;

impl Format for F16 {
    const ID: u32 = 1;
    const NAME: &'static str = "F16";
    const LEN: usize = 1;
    const BYTES: usize = 2;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (bytes, weight) in row.as_chunks::<2>().0.iter().zip(weights) {
            *weight = half::f16::from_le_bytes(*bytes).to_f32();
        }
    }

    fn dot(row: &[u8], input: Input<'_>) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (bytes, x)) in row.as_chunks::<2>().0.iter().zip(input.floats).enumerate() {
            lanes[index % LANES] += half::f16::from_le_bytes(*bytes).to_f32() * x;
        }
        sum_lanes(lanes)
    }

    fn multiply(level: Level, rows: &[u8], inputs: &Inputs, out: &mut Band<'_>) {
        let row_bytes = inputs.columns() * 2;
        for row in 0..out.rows() {
            let bytes = &rows[row * row_bytes..][..row_bytes];
            let halves = <[u16] as zerocopy::FromBytes>::ref_from_bytes(bytes);
            for column in 0..inputs.count() {
                let input = inputs.get(column);
                out.column(column)[row] = match halves {
                    Ok(halves) => dot_half(level, halves, input.floats),
                    Err(_) => Self::dot(bytes, input),
                };
            }
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        row.extend(weights.iter().flat_map(|&weight| half::f16::from_f32(weight).to_le_bytes()));
    }
}
