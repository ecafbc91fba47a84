//! Dot products of floats, and the conversions between f32 and binary16.
//!
//! The definition sums in eight lanes: product `i` goes to lane `i mod 8`, each lane in order, multiplied and added with
//! one rounding; then lane `j` takes lane `j + 4`, and the four are summed as (0 + 1) + (2 + 3).
#![allow(unsafe_code)] // vector loads of chunks whose length is known

use crate::simd::Level;
use crate::simd::fused::{Fused, compiled_twice};

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// Lanes of the definition.
pub const LANES: usize = 8;

/// Sums the lanes in the order of the definition.
#[inline(always)]
pub fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let pair = |j: usize| lanes[j] + lanes[j + 4];
    (pair(0) + pair(1)) + (pair(2) + pair(3))
}

/// The dot product.
#[inline]
pub fn dot(level: Level, a: &[f32], b: &[f32]) -> f32 {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { dot_neon(a, b) },
        _ => dot_plain(level, a, b),
    }
}

/// The dot product with binary16 on one side.
#[inline]
pub fn dot_half(level: Level, half: &[u16], b: &[f32]) -> f32 {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { dot_half_neon(half, b) },
        _ => dot_half_plain(level, half, b),
    }
}

/// The dot product with bfloat16 (the upper half of an f32) on one side.
#[inline]
pub fn dot_bf16(level: Level, upper: &[u16], b: &[f32]) -> f32 {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { dot_bf16_neon(upper, b) },
        _ => dot_bf16_plain(level, upper, b),
    }
}

/// Rounds to binary16, ties to even; what is too large becomes infinite, a NaN keeps the front of its payload.
#[inline]
pub fn to_half(level: Level, halves: &mut [u16], floats: &[f32]) {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { to_half_neon(halves, floats) },
        _ => to_half_plain(level, halves, floats),
    }
}

compiled_twice! {
    fn dot_plain(a: &[f32], b: &[f32]) -> f32 = dot_body;
    fn dot_half_plain(half: &[u16], b: &[f32]) -> f32 = dot_half_body;
    fn dot_bf16_plain(upper: &[u16], b: &[f32]) -> f32 = dot_bf16_body;
    fn to_half_plain(halves: &mut [u16], floats: &[f32]) = to_half_body;
}

#[inline(always)]
fn dot_body<M: Fused>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a_whole, a_rest), (b_whole, b_rest)) = (a.as_chunks(), b.as_chunks());
    for (a, b) in a_whole.iter().zip(b_whole) {
        lanes = M::madd8(*a, *b, lanes);
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = M::madd(*a, *b, *lane);
    }
    sum_lanes(lanes)
}

#[inline(always)]
fn dot_half_body<M: Fused>(half: &[u16], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((half_whole, half_rest), (b_whole, b_rest)) = (half.as_chunks(), b.as_chunks());
    for (half, b) in half_whole.iter().zip(b_whole) {
        lanes = M::madd8(M::widen8(*half), *b, lanes);
    }
    for (lane, (half, b)) in lanes.iter_mut().zip(half_rest.iter().zip(b_rest)) {
        *lane = M::madd(half::f16::from_bits(*half).to_f32(), *b, *lane);
    }
    sum_lanes(lanes)
}

/// A bfloat16 as f32.
#[inline(always)]
pub fn widen_bf16(upper: u16) -> f32 {
    f32::from_bits(u32::from(upper) << 16)
}

#[inline(always)]
fn dot_bf16_body<M: Fused>(upper: &[u16], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((upper_whole, upper_rest), (b_whole, b_rest)) = (upper.as_chunks(), b.as_chunks());
    for (upper, b) in upper_whole.iter().zip(b_whole) {
        lanes = M::madd8(upper.map(widen_bf16), *b, lanes);
    }
    for (lane, (upper, b)) in lanes.iter_mut().zip(upper_rest.iter().zip(b_rest)) {
        *lane = M::madd(widen_bf16(*upper), *b, *lane);
    }
    sum_lanes(lanes)
}

#[inline(always)]
fn to_half_body<M: Fused>(halves: &mut [u16], floats: &[f32]) {
    let ((whole, rest), (floats_whole, floats_rest)) = (halves.as_chunks_mut(), floats.as_chunks());
    for (halves, floats) in whole.iter_mut().zip(floats_whole) {
        *halves = M::narrow8(*floats);
    }
    for (half, float) in rest.iter_mut().zip(floats_rest) {
        *half = half::f16::from_f32(*float).to_bits();
    }
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn dot_neon(a: &[f32], b: &[f32]) -> f32 {
    let ((a_whole, a_rest), (b_whole, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
    for (a, b) in a_whole.iter().zip(b_whole) {
        // SAFETY: each chunk is eight values long.
        let (a, b) = unsafe { (neon::load_floats_pair(a.as_ptr()), neon::load_floats_pair(b.as_ptr())) };
        low = vfmaq_f32(low, a.0, b.0);
        high = vfmaq_f32(high, a.1, b.1);
    }
    sum_neon(low, high, a_rest.iter().zip(b_rest).map(|(a, b)| (*a, *b)))
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn dot_half_neon(half: &[u16], b: &[f32]) -> f32 {
    let ((half_whole, half_rest), (b_whole, b_rest)) = (half.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
    for (half, b) in half_whole.iter().zip(b_whole) {
        // SAFETY: each chunk is eight values long.
        let (a, b) = unsafe { (neon::load_half_pair(half.as_ptr()), neon::load_floats_pair(b.as_ptr())) };
        low = vfmaq_f32(low, a.0, b.0);
        high = vfmaq_f32(high, a.1, b.1);
    }
    sum_neon(
        low,
        high,
        half_rest.iter().zip(b_rest).map(|(half, b)| (half::f16::from_bits(*half).to_f32(), *b)),
    )
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn dot_bf16_neon(upper: &[u16], b: &[f32]) -> f32 {
    let ((upper_whole, upper_rest), (b_whole, b_rest)) = (upper.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
    for (upper, b) in upper_whole.iter().zip(b_whole) {
        // SAFETY: each chunk is eight values long.
        let (a, b) = unsafe { (neon::load_bf16_pair(upper.as_ptr()), neon::load_floats_pair(b.as_ptr())) };
        low = vfmaq_f32(low, a.0, b.0);
        high = vfmaq_f32(high, a.1, b.1);
    }
    match upper_rest {
        [] => sum_neon(low, high, core::iter::empty()),
        _ => sum_bf16_rest_neon(low, high, upper_rest, b_rest),
    }
}

/// Apart: few rows have a rest, and inlined its code would stand around the loop.
#[cfg(target_arch = "aarch64")]
#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
fn sum_bf16_rest_neon(low: float32x4_t, high: float32x4_t, upper: &[u16], b: &[f32]) -> f32 {
    sum_neon(low, high, upper.iter().zip(b).map(|(upper, b)| (widen_bf16(*upper), *b)))
}

/// Fewer than eight products, each added to its lane. A function of its own: rows of whole chunks have none.
#[cfg(target_arch = "aarch64")]
#[cold]
#[inline(never)]
fn add_rest(lanes: &mut [f32; LANES], rest: impl Iterator<Item = (f32, f32)>) {
    for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
        *lane = crate::simd::fused::Soft::madd(a, b, *lane);
    }
}

/// Adds what is left behind the last whole chunk to its lanes, and sums them.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn sum_neon(low: float32x4_t, high: float32x4_t, rest: impl ExactSizeIterator<Item = (f32, f32)>) -> f32 {
    if rest.len() == 0 {
        let fours = vaddq_f32(low, high);
        let pairs = vpaddq_f32(fours, fours);
        return vgetq_lane_f32::<0>(vpaddq_f32(pairs, pairs));
    }
    let mut lanes = [0f32; LANES];
    // SAFETY: eight floats.
    unsafe {
        neon::store_floats(lanes.as_mut_ptr(), low);
        neon::store_floats(lanes.as_mut_ptr().add(4), high);
    }
    add_rest(&mut lanes, rest);
    sum_lanes(lanes)
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn to_half_neon(halves: &mut [u16], floats: &[f32]) {
    let ((whole, rest), (floats_whole, floats_rest)) = (halves.as_chunks_mut::<8>(), floats.as_chunks::<8>());
    for (halves, floats) in whole.iter_mut().zip(floats_whole) {
        // SAFETY: each chunk is eight values long.
        unsafe { neon::store_half_pair(halves.as_mut_ptr(), neon::load_floats_pair(floats.as_ptr())) };
    }
    for (half, float) in rest.iter_mut().zip(floats_rest) {
        *half = half::f16::from_f32(*float).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    /// The definition, one product after the other.
    fn defined(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (&a, &b)) in a.iter().zip(b).enumerate() {
            lanes[index % LANES] = libm::fmaf(a, b, lanes[index % LANES]);
        }
        sum_lanes(lanes)
    }

    proptest! {
        #[test]
        fn every_level_gives_the_definition_at_every_length(
            values in proptest::collection::vec((-10f32..10.0, -10f32..10.0), 0..131)
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let halves: Vec<u16> = a.iter().map(|&a| half::f16::from_f32(a).to_bits()).collect();
            let widened: Vec<f32> = halves.iter().map(|&half| half::f16::from_bits(half).to_f32()).collect();
            let upper: Vec<u16> = a.iter().map(|&a| (a.to_bits() >> 16) as u16).collect();
            let cut: Vec<f32> = a.iter().map(|&a| f32::from_bits(a.to_bits() & 0xffff_0000)).collect();
            for level in levels() {
                prop_assert_eq!(dot(level, &a, &b).to_bits(), defined(&a, &b).to_bits(), "{}", level);
                prop_assert_eq!(dot_half(level, &halves, &b).to_bits(), defined(&widened, &b).to_bits(), "{}", level);
                prop_assert_eq!(dot_bf16(level, &upper, &b).to_bits(), defined(&cut, &b).to_bits(), "{}", level);
            }
        }

        #[test]
        fn every_level_rounds_any_bits_to_the_same_half(bits in proptest::collection::vec(any::<u32>(), 0..37)) {
            let floats: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            let expected: Vec<u16> = floats.iter().map(|&float| half::f16::from_f32(float).to_bits()).collect();
            for level in levels() {
                let mut halves = vec![0; floats.len()];
                to_half(level, &mut halves, &floats);
                prop_assert_eq!(&halves, &expected, "{}", level);
            }
        }
    }

    #[test]
    fn halves_at_the_borders_of_their_range() {
        let cases = [
            (65_519.996, 0x7bff),
            (65_520.0, 0x7c00),
            (f32::INFINITY, 0x7c00),
            (f32::NEG_INFINITY, 0xfc00),
            (f32::NAN, 0x7e00),
            (f32::from_bits(0x7f80_0001), 0x7e00),
            (f32::from_bits(0xffc1_2345), 0xfe09),
            (5.960_464_5e-8, 1),
            (2.980_232_2e-8, 0),
            (2.980_233e-8, 1),
            (-0.0, 0x8000),
            (1.000_488_3, 0x3c00),
            (1.001_464_8, 0x3c02),
            (6.103_515_6e-5, 0x0400),
        ];
        for level in levels() {
            for (float, expected) in cases {
                let mut halves = [0; 9];
                to_half(level, &mut halves, &[float; 9]);
                assert_eq!(halves, [expected; 9], "{level}, {float:e}");
            }
        }
    }
}
