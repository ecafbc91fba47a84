//! Activations as int8: a block of 32 floats becomes 32 quants and a scale.
#![allow(unsafe_code)] // vector loads of arrays whose length is known

use crate::simd::Level;
use crate::simd::fused::{Fused, compiled_twice};

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// Activations in a block.
pub const BLOCK: usize = 32;

/// Below this, 127 / peak is infinite; such a block is nothing but rounding noise.
const NOISE: f32 = 1e-35;
/// Adding and subtracting 1.5 × 2²³ rounds an f32 of magnitude below 2²² to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;
/// The bits of an f32 without its sign: the larger number has the larger ones, and a NaN larger ones than infinity.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Quantizes a block: `quants[i]` is `values[i]` divided by the scale, rounded to nearest even, −127 to 127. Returns the
/// scale, the largest magnitude / 127, and the sums of the first and of the last 16 quants.
///
/// A block that holds a NaN or an infinity becomes zeros with a NaN for a scale, so that what is computed from it is
/// a NaN as well.
///
/// # Panics
/// If either is not [`BLOCK`] long.
#[inline]
pub fn block(level: Level, values: &[f32], quants: &mut [i8]) -> (f32, [i32; 2]) {
    let values: &[f32; BLOCK] = values.try_into().expect("a block of values");
    let quants: &mut [i8; BLOCK] = quants.try_into().expect("a block of quants");
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { block_neon(values, quants) },
        _ => block_plain(level, values, quants),
    }
}

/// Scale and inverse of a block whose largest magnitude has these bits; where there is nothing to divide by, the scale
/// that stands for its zeros.
#[inline(always)]
fn scales(peak: u32) -> Result<(f32, f32), f32> {
    if (NOISE.to_bits()..f32::INFINITY.to_bits()).contains(&peak) {
        let peak = f32::from_bits(peak);
        Ok((peak / 127.0, 127.0 / peak))
    } else {
        Err(if peak < NOISE.to_bits() { 0.0 } else { f32::NAN })
    }
}

compiled_twice! { fn block_plain(values: &[f32; BLOCK], quants: &mut [i8; BLOCK]) -> (f32, [i32; 2]) = block_body; }

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // nothing to fuse: compiled twice for the wider vectors
fn block_body<M: Fused>(values: &[f32; BLOCK], quants: &mut [i8; BLOCK]) -> (f32, [i32; 2]) {
    let peak = values.iter().fold(0, |peak, value| peak.max(value.to_bits() & MAGNITUDE));
    match scales(peak) {
        Ok((scale, inverse)) => {
            // |value × inverse| < 127.5, so the sum's lowest byte is the rounded value: its unit is 1, and 1.5 × 2²³
            // has a zero there.
            *quants = values.map(|value| (value * inverse + ROUND).to_bits() as u8 as i8);
            let sum = |half: &[i8]| half.iter().map(|&quant| i32::from(quant)).sum();
            let (first, last) = quants.split_at(BLOCK / 2);
            (scale, [sum(first), sum(last)])
        }
        Err(scale) => {
            quants.fill(0);
            (scale, [0; 2])
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn block_neon(values: &[f32; BLOCK], quants: &mut [i8; BLOCK]) -> (f32, [i32; 2]) {
    let from = values.as_ptr();
    // SAFETY: four pairs of four floats are the block.
    let ((a, b), (c, d), (e, f), (g, h)) = unsafe {
        (
            neon::load_floats_pair(from),
            neon::load_floats_pair(from.add(8)),
            neon::load_floats_pair(from.add(16)),
            neon::load_floats_pair(from.add(24)),
        )
    };
    let larger = |a, b| vmaxq_u32(vreinterpretq_u32_f32(vabsq_f32(a)), vreinterpretq_u32_f32(vabsq_f32(b)));
    let peak =
        vmaxvq_u32(vmaxq_u32(vmaxq_u32(larger(a, b), larger(c, d)), vmaxq_u32(larger(e, f), larger(g, h))));
    let (low, high, scale, sums);
    match scales(peak) {
        Ok((finite, inverse)) => {
            let rounded = |v| vreinterpretq_s16_s32(vcvtnq_s32_f32(vmulq_n_f32(v, inverse)));
            // The even halfwords, then the even bytes, are the numbers.
            let [ab, cd] = [vuzp1q_s16(rounded(a), rounded(b)), vuzp1q_s16(rounded(c), rounded(d))];
            let [ef, gh] = [vuzp1q_s16(rounded(e), rounded(f)), vuzp1q_s16(rounded(g), rounded(h))];
            low = vuzp1q_s8(vreinterpretq_s8_s16(ab), vreinterpretq_s8_s16(cd));
            high = vuzp1q_s8(vreinterpretq_s8_s16(ef), vreinterpretq_s8_s16(gh));
            scale = finite;
            sums = [vaddlvq_s16(vaddq_s16(ab, cd)), vaddlvq_s16(vaddq_s16(ef, gh))];
        }
        Err(other) => (low, high, scale, sums) = (vdupq_n_s8(0), vdupq_n_s8(0), other, [0; 2]),
    }
    // SAFETY: 32 bytes are the block.
    unsafe { neon::store_pair(quants.as_mut_ptr(), low, high) };
    (scale, sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use proptest::prelude::*;

    #[test]
    fn the_peak_becomes_127_and_ties_round_to_even() {
        let mut values = [0.0; BLOCK];
        values[..5].copy_from_slice(&[-127.0, 0.5, 1.5, 2.5, -0.5]);
        values[BLOCK - 1] = 7.0;
        for level in levels() {
            let mut quants = [1; BLOCK];
            assert_eq!(block(level, &values, &mut quants), (1.0, [-123, 7]));
            assert_eq!(quants[..6], [-127, 0, 2, 2, 0, 0], "{level}");
        }
    }

    #[test]
    fn zeros_and_values_too_small_to_divide_by_are_zero() {
        for (level, value) in
            levels().flat_map(|level| [0.0, -0.0, 1e-40, -9e-36].map(|value| (level, value)))
        {
            let mut quants = [1; BLOCK];
            assert_eq!(block(level, &[value; BLOCK], &mut quants), (0.0, [0; 2]));
            assert_eq!(quants, [0; BLOCK], "{level}, {value:e}");
        }
    }

    #[test]
    fn a_nan_or_an_infinity_anywhere_makes_the_block_worth_nan() {
        for level in levels() {
            for (place, value) in (0..BLOCK)
                .flat_map(|i| [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|v| (i, v)))
            {
                let (mut values, mut quants) = ([1.0; BLOCK], [1; BLOCK]);
                values[place] = value;
                let (scale, sums) = block(level, &values, &mut quants);
                assert!(
                    scale.to_bits() == f32::NAN.to_bits() && sums == [0; 2],
                    "{level}, {value} at {place}"
                );
                assert_eq!(quants, [0; BLOCK]);
            }
        }
    }

    #[test]
    fn the_largest_and_the_smallest_peak_reach_127() {
        for (level, peak) in levels().flat_map(|level| [f32::MAX, 1.01e-35].map(|peak| (level, peak))) {
            let (mut values, mut quants) = ([peak; BLOCK], [0; BLOCK]);
            values[1] = -peak;
            assert_eq!(block(level, &values, &mut quants), (peak / 127.0, [127 * 14, 127 * 16]));
            assert_eq!(quants[..3], [127, -127, 127], "{level}");
        }
    }

    proptest! {
        #[test]
        fn every_level_gives_the_definition_written_down_plainly(
            mantissas in proptest::array::uniform32(-1f32..1.0), exponent in -110..120
        ) {
            let values = mantissas.map(|m| m * libm::exp2f(exponent as f32));
            let peak = values.iter().fold(0f32, |peak, value| peak.max(value.abs()));
            let expected = values.map(|value| libm::rintf(value * (127.0 / peak)) as i8);
            for level in levels() {
                let mut quants = [0; BLOCK];
                let (scale, sums) = block(level, &values, &mut quants);
                prop_assert_eq!(quants, expected, "{}", level);
                prop_assert_eq!(scale, peak / 127.0);
                let sum = |half: &[i8]| half.iter().map(|&quant| i32::from(quant)).sum::<i32>();
                prop_assert_eq!(sums, [sum(&expected[..BLOCK / 2]), sum(&expected[BLOCK / 2..])]);
            }
        }
    }
}
