//! Norms: RMS norm (Zhang and Sennrich, 2019, arXiv:1910.07467) and layer norm (Ba et al., 2016, arXiv:1607.06450).
#![allow(unsafe_code)] // vector loads of chunks whose length is known

use crate::ops::dot::dot;
use crate::simd::Level;
use crate::simd::fused::{Fused, compiled_twice};

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// What a vector is multiplied by: `1 / sqrt(mean(x²) + epsilon)`.
pub fn rms_scale(level: Level, x: &[f32], epsilon: f32) -> f32 {
    let mean = dot(level, x, x) / x.len() as f32;
    1.0 / libm::sqrtf(mean + epsilon)
}

/// `out = x × scale × weight`, all of the same length.
#[inline]
pub fn scaled(level: Level, out: &mut [f32], x: &[f32], scale: f32, weight: &[f32]) {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { scaled_neon(out, x, scale, weight) },
        _ => scaled_plain(level, out, x, scale, weight),
    }
}

compiled_twice! {
    fn scaled_plain(out: &mut [f32], x: &[f32], scale: f32, weight: &[f32]) = scaled_body;
}

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // nothing to fuse: compiled twice for the wider vectors
fn scaled_body<M: Fused>(out: &mut [f32], x: &[f32], scale: f32, weight: &[f32]) {
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn scaled_neon(out: &mut [f32], x: &[f32], scale: f32, weight: &[f32]) {
    let ((out_whole, out_rest), (x_whole, x_rest)) = (out.as_chunks_mut::<8>(), x.as_chunks::<8>());
    let (weight_whole, weight_rest) = weight.as_chunks::<8>();
    for ((out, x), weight) in out_whole.iter_mut().zip(x_whole).zip(weight_whole) {
        // SAFETY: each chunk is eight values long.
        unsafe {
            let (x, weight) = (neon::load_floats_pair(x.as_ptr()), neon::load_floats_pair(weight.as_ptr()));
            let low = vmulq_f32(vmulq_n_f32(x.0, scale), weight.0);
            let high = vmulq_f32(vmulq_n_f32(x.1, scale), weight.1);
            neon::store_floats_pair(out.as_mut_ptr(), (low, high));
        }
    }
    scaled_body::<crate::simd::fused::Soft>(out_rest, x_rest, scale, weight_rest);
}

/// The mean of a vector and what its values are multiplied by once it is taken off: `1 / sqrt(mean((x − mean)²) +
/// epsilon)`. Sums have eight lanes by index, and nothing is fused: one plain body for every level.
pub fn layer_scale(x: &[f32], epsilon: f32) -> (f32, f32) {
    let lanes = |value: &dyn Fn(f32) -> f32| {
        let mut sums = [0f32; 8];
        let (whole, rest) = x.as_chunks::<8>();
        for chunk in whole {
            sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += value(x));
        }
        sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += value(x));
        ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
    };
    let mean = lanes(&|x| x) / x.len() as f32;
    let variance = lanes(&|x| (x - mean) * (x - mean)) / x.len() as f32;
    (mean, 1.0 / libm::sqrtf(variance + epsilon))
}

/// `out = (x − mean) × scale × weight + bias`, all of the same length; no bias is 0.
pub fn centred(out: &mut [f32], x: &[f32], (mean, scale): (f32, f32), weight: &[f32], bias: Option<&[f32]>) {
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = (x - mean) * scale * weight;
    }
    if let Some(bias) = bias {
        out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
}

/// `out = x / sqrt(mean(x²) + epsilon) × weight`, all of the same length.
pub fn rms_norm(level: Level, out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    scaled(level, out, x, rms_scale(level, x, epsilon), weight);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    #[test]
    fn a_constant_vector_becomes_its_sign_times_the_weight() {
        for level in levels() {
            let mut out = [0.0; 4];
            rms_norm(level, &mut out, &[-3.0; 4], &[1.0, 2.0, 3.0, 4.0], 0.0);
            assert_eq!(out, [-1.0, -2.0, -3.0, -4.0]);
        }
    }

    #[test]
    fn zeros_stay_zero_thanks_to_epsilon() {
        for level in levels() {
            let mut out = [1.0; 19];
            rms_norm(level, &mut out, &[0.0; 19], &[1.0; 19], 1e-5);
            assert_eq!(out, [0.0; 19]);
        }
    }

    #[test]
    fn a_layer_norm_has_the_mean_of_its_bias_and_the_deviation_of_its_weight() {
        for len in [1, 7, 8, 9, 64] {
            let x: Vec<f32> = (0..len).map(|i| 100.0 + (i * 37 % 11) as f32).collect();
            let moments = layer_scale(&x, 1e-5);
            let mut out = vec![0.0; len];
            centred(&mut out, &x, moments, &vec![2.0; len], Some(&vec![3.0; len]));
            let mean = out.iter().sum::<f32>() / len as f32;
            let deviation =
                libm::sqrtf(out.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / len as f32);
            assert!((mean - 3.0).abs() < 1e-4, "{mean}");
            assert!((deviation - if len == 1 { 0.0 } else { 2.0 }).abs() < 1e-4, "{deviation}");
        }
        let mut out = [1.0];
        centred(&mut out, &[5.0], (4.0, 0.5), &[3.0], None);
        assert_eq!(out, [1.5]);
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits(
            values in proptest::collection::vec((-10f32..10.0, -2f32..2.0), 1..150)
        ) {
            let (x, weight): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let scale = rms_scale(Level::Plain, &x, 1e-5);
            let expected: Vec<f32> = x.iter().zip(&weight).map(|(x, weight)| x * scale * weight).collect();
            for level in levels() {
                let mut out = vec![0.0; x.len()];
                rms_norm(level, &mut out, &x, &weight, 1e-5);
                prop_assert_eq!(&out, &expected, "{}", level);
            }
        }
    }
}
