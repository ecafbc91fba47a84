//! Add, exponential, silu, gelu, gates: one value at a time, so any vector width gives the same bits.
#![allow(unsafe_code)] // vector loads of chunks whose length is known

use crate::simd::Level;
use crate::simd::fused::{Fused, Soft, compiled_twice};

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// `x += y`: the same instruction at every level.
pub fn add(x: &mut [f32], y: &[f32]) {
    #[cfg(target_arch = "aarch64")]
    {
        let ((x_whole, x_rest), (y_whole, y_rest)) = (x.as_chunks_mut::<8>(), y.as_chunks::<8>());
        for (x, y) in x_whole.iter_mut().zip(y_whole) {
            // SAFETY: each chunk is eight values long.
            unsafe {
                let (a, b) = (neon::load_floats_pair(x.as_ptr()), neon::load_floats_pair(y.as_ptr()));
                neon::store_floats_pair(x.as_mut_ptr(), (vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1)));
            }
        }
        add_each(x_rest, y_rest);
    }
    #[cfg(not(target_arch = "aarch64"))]
    add_each(x, y);
}

/// `x = y`, as far as `x` goes, without the call that copying a slice is.
///
/// # Panics
/// If `y` is shorter.
pub fn copy(x: &mut [f32], y: &[f32]) {
    let y = &y[..x.len()];
    #[cfg(target_arch = "aarch64")]
    {
        let ((x_whole, x_rest), (y_whole, y_rest)) = (x.as_chunks_mut::<8>(), y.as_chunks::<8>());
        for (x, y) in x_whole.iter_mut().zip(y_whole) {
            // SAFETY: each chunk is eight values long.
            unsafe { neon::store_floats_pair(x.as_mut_ptr(), neon::load_floats_pair(y.as_ptr())) };
        }
        x_rest.copy_from_slice(y_rest);
    }
    #[cfg(not(target_arch = "aarch64"))]
    x.copy_from_slice(y);
}

fn add_each(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// log2(e), and ln(2) as a sum of two f32 (Cody and Waite, 1980; the product with the first is exact where it is fused).
const LOG2_E: f32 = core::f32::consts::LOG2_E;
const LN2_HIGH: f32 = core::f32::consts::LN_2;
const LN2_LOW: f32 = -1.904_654_3e-9;
/// Adding 1.5 × 2²³ rounds to the nearest integer and leaves it in the low bits; with 127 more, these are the exponent of
/// a power of two.
const SHIFT: f32 = 12_582_912.0 + 127.0;
/// What is below the first is computed as if it were the first, whose power of two has the exponent of zero; what is above
/// the second likewise, with the exponent of infinity.
const RANGE: (f32, f32) = (-88.0, 89.0);
/// e^r ≈ 1 + r + r² (…) for |r| ≤ ln 2 / 2: the minimax polynomial of this form, relative error 1.05e-7, found by
/// iteratively reweighted least squares. From the highest power down.
const EXP: [f32; 4] = [0.008_312_501, 0.041_890_33, 0.166_671_16, 0.499_992_3];

/// e^x, relative error below 2⁻²². 0 below −87.7, infinity above 88.4, NaN of NaN.
#[inline]
pub fn exp(x: f32) -> f32 {
    exp_body::<Soft>(x)
}

/// x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^x = 2^n e^r.
#[inline(always)]
pub(super) fn exp_body<M: Fused>(x: f32) -> f32 {
    let x = if x < RANGE.0 { RANGE.0 } else { x };
    let x = if x > RANGE.1 { RANGE.1 } else { x };
    let shifted = M::madd(x, LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = M::madd(n, -LN2_LOW, M::madd(n, -LN2_HIGH, x));
    let p = M::madd(EXP[0], r, EXP[1]);
    let p = M::madd(p, r, EXP[2]);
    let p = M::madd(p, r, EXP[3]);
    let p = M::madd(M::madd(p, r, 1.0), r, 1.0);
    // Of a NaN the power is any number, and p a NaN.
    p * f32::from_bits(shifted.to_bits() << 23)
}

/// [`exp`] of four values.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp_neon(x: float32x4_t) -> float32x4_t {
    let x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(RANGE.0)), vdupq_n_f32(RANGE.1));
    let shifted = vfmaq_f32(vdupq_n_f32(SHIFT), x, vdupq_n_f32(LOG2_E));
    let n = vsubq_f32(shifted, vdupq_n_f32(SHIFT));
    let r = vfmsq_f32(x, n, vdupq_n_f32(LN2_HIGH));
    let r = vfmsq_f32(r, n, vdupq_n_f32(LN2_LOW));
    let p = vfmaq_f32(vdupq_n_f32(EXP[1]), vdupq_n_f32(EXP[0]), r);
    let p = vfmaq_f32(vdupq_n_f32(EXP[2]), p, r);
    let p = vfmaq_f32(vdupq_n_f32(EXP[3]), p, r);
    let p = vfmaq_f32(vdupq_n_f32(1.0), p, r);
    let p = vfmaq_f32(vdupq_n_f32(1.0), p, r);
    vmulq_f32(p, vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted))))
}

/// silu(x) = x / (1 + e^−x), within 2⁻²² |x|.
#[inline(always)]
fn silu_body<M: Fused>(x: f32) -> f32 {
    x / (1.0 + exp_body::<M>(-x))
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn silu_neon(x: float32x4_t) -> float32x4_t {
    vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0), exp_neon(vnegq_f32(x))))
}

/// 2 √(2/π) and the same × 0.044715.
const GELU: (f32, f32) = (1.595_769_2, 0.071_354_814);

/// gelu(x) = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), the form that models with a GELU were trained with (Hendrycks and
/// Gimpel, 2016, arXiv:1606.08415), within 2⁻²¹ |x|.
#[inline]
pub fn gelu(x: f32) -> f32 {
    gelu_body::<Soft>(x)
}

/// (1 + tanh u) / 2 = 1 / (1 + e^−2u).
#[inline(always)]
fn gelu_body<M: Fused>(x: f32) -> f32 {
    let minus_2u = x * M::madd(x * x, -GELU.1, -GELU.0);
    x / (1.0 + exp_body::<M>(minus_2u))
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn gelu_neon(x: float32x4_t) -> float32x4_t {
    let inner = vfmsq_f32(vdupq_n_f32(-GELU.0), vmulq_f32(x, x), vdupq_n_f32(GELU.1));
    vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0), exp_neon(vmulq_f32(x, inner))))
}

/// `gate = silu(gate) × up` (SwiGLU: Shazeer, 2020, arXiv:2002.05202).
pub fn silu_gate(level: Level, gate: &mut [f32], up: &[f32]) {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { gate_neon::<false>(gate, up) },
        _ => silu_gate_plain(level, gate, up),
    }
}

/// `gate = gelu(gate) × up`.
pub fn gelu_gate(level: Level, gate: &mut [f32], up: &[f32]) {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { gate_neon::<true>(gate, up) },
        _ => gelu_gate_plain(level, gate, up),
    }
}

compiled_twice! {
    fn silu_gate_plain(gate: &mut [f32], up: &[f32]) = silu_gate_body;
    fn gelu_gate_plain(gate: &mut [f32], up: &[f32]) = gelu_gate_body;
}

#[inline(always)]
fn silu_gate_body<M: Fused>(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = silu_body::<M>(*gate) * up);
}

#[inline(always)]
fn gelu_gate_body<M: Fused>(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = gelu_body::<M>(*gate) * up);
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn gate_neon<const GELU: bool>(gate: &mut [f32], up: &[f32]) {
    let ((gate_whole, gate_rest), (up_whole, up_rest)) = (gate.as_chunks_mut::<8>(), up.as_chunks::<8>());
    for (gate, up) in gate_whole.iter_mut().zip(up_whole) {
        // SAFETY: each chunk is eight values long.
        unsafe {
            let (x, up) = (neon::load_floats_pair(gate.as_ptr()), neon::load_floats_pair(up.as_ptr()));
            let (low, high) =
                if GELU { (gelu_neon(x.0), gelu_neon(x.1)) } else { (silu_neon(x.0), silu_neon(x.1)) };
            neon::store_floats_pair(gate.as_mut_ptr(), (vmulq_f32(low, up.0), vmulq_f32(high, up.1)));
        }
    }
    if GELU {
        gelu_gate_body::<Soft>(gate_rest, up_rest);
    } else {
        silu_gate_body::<Soft>(gate_rest, up_rest);
    }
}

/// `x = cap × tanh(x / cap)`: no value goes beyond ± cap (Gemma 2, arXiv:2408.00118). Within 2⁻²² cap. A NaN stays one.
pub fn soft_cap(level: Level, x: &mut [f32], cap: f32) {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { soft_cap_neon(x, cap) },
        _ => soft_cap_plain(level, x, cap),
    }
}

compiled_twice! { fn soft_cap_plain(x: &mut [f32], cap: f32) = soft_cap_body; }

/// tanh u = 1 − 2 / (1 + e^2u).
#[inline(always)]
fn soft_cap_body<M: Fused>(x: &mut [f32], cap: f32) {
    let twice = 2.0 / cap;
    for x in x {
        *x = cap * (1.0 - 2.0 / (1.0 + exp_body::<M>(*x * twice)));
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn soft_cap_neon(x: &mut [f32], cap: f32) {
    let (whole, rest) = x.as_chunks_mut::<4>();
    let (one, two) = (vdupq_n_f32(1.0), vdupq_n_f32(2.0));
    for four in whole {
        // SAFETY: four floats.
        unsafe {
            let power = exp_neon(vmulq_n_f32(neon::load_floats(four.as_ptr()), 2.0 / cap));
            let tanh = vsubq_f32(one, vdivq_f32(two, vaddq_f32(one, power)));
            neon::store_floats(four.as_mut_ptr(), vmulq_n_f32(tanh, cap));
        }
    }
    soft_cap_body::<Soft>(rest, cap);
}

/// `x += scale × y`, each product rounded by itself.
pub fn add_scaled(x: &mut [f32], scale: f32, y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn exp_is_within_its_stated_error_from_end_to_end() {
        let mut worst = 0f64;
        for step in -87_600..88_370 {
            let x = step as f32 / 1000.0;
            let exact = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 1.0 / f64::from(1 << 22), "{worst:e}");
    }

    #[test]
    fn exp_of_the_extremes() {
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(f32::NEG_INFINITY), exp(-1e30), exp(-87.7)), (0.0, 0.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp(1e30), exp(88.4)), (f32::INFINITY, f32::INFINITY, f32::INFINITY));
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7fc0_00ff), f32::from_bits(0xffff_ffff)] {
            assert!(exp(nan).is_nan());
        }
    }

    #[test]
    fn silu_and_gelu_are_within_their_stated_errors() {
        let (mut silus, mut gelus) = (0f64, 0f64);
        for step in (-100_000..100_000).filter(|&step| step != 0) {
            let single = step as f32 / 1000.0;
            let x = f64::from(single);
            let mut silu = [single];
            silu_gate(Level::Plain, &mut silu, &[1.0]);
            silus = silus.max((f64::from(silu[0]) - x / (1.0 + libm::exp(-x))).abs() / x.abs());
            let u = libm::sqrt(2.0 / core::f64::consts::PI) * (x + 0.044_715 * x * x * x);
            gelus = gelus.max((f64::from(gelu(single)) - 0.5 * x * (1.0 + libm::tanh(u))).abs() / x.abs());
        }
        assert!(silus < 1.0 / f64::from(1 << 22), "{silus:e}");
        assert!(gelus < 1.0 / f64::from(1 << 21), "{gelus:e}");
    }

    #[test]
    fn a_large_gate_passes_and_a_large_negative_one_closes_without_a_nan() {
        for level in levels() {
            for gated in [silu_gate, gelu_gate] {
                let mut gate =
                    [-1000.0, 1000.0, 0.0, -1e30, f32::INFINITY, f32::MIN_POSITIVE, -0.0, f32::MAX, -90.0];
                gated(level, &mut gate, &[2.0; 9]);
                let expected =
                    [0.0, 2000.0, 0.0, 0.0, f32::INFINITY, f32::MIN_POSITIVE, 0.0, f32::INFINITY, 0.0];
                assert_eq!(gate, expected, "{level}");
                let mut gate = [f32::NAN; 9];
                gated(level, &mut gate, &[2.0; 9]);
                assert!(gate.iter().all(|gate| gate.is_nan()), "{level}");
            }
        }
    }

    #[test]
    fn soft_caps_are_within_their_stated_error_and_never_beyond_the_cap() {
        for level in levels() {
            for cap in [30.0, 50.0] {
                let mut x: Vec<f32> = (-4000..4000).map(|step| step as f32 / 10.0).collect();
                let exact: Vec<f64> =
                    x.iter().map(|&x| f64::from(cap) * libm::tanh(f64::from(x) / f64::from(cap))).collect();
                soft_cap(level, &mut x, cap);
                let worst =
                    x.iter().zip(&exact).map(|(x, exact)| (f64::from(*x) - exact).abs()).fold(0.0, f64::max);
                assert!(worst < f64::from(cap) / f64::from(1 << 22), "{level}, {worst:e}");
                assert!(x.iter().all(|x| x.abs() <= cap));
                let mut ends = [f32::INFINITY, f32::NEG_INFINITY, 0.0, 1e30, -1e30];
                soft_cap(level, &mut ends, cap);
                assert_eq!(ends, [cap, -cap, 0.0, cap, -cap], "{level}");
                let mut nan = [f32::NAN; 5];
                soft_cap(level, &mut nan, cap);
                assert!(nan.iter().all(|x| x.is_nan()));
            }
        }
    }

    /// Any bits, but one pattern for all NaNs.
    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits(
            near in proptest::collection::vec((-100f32..100.0, -4f32..4.0), 0..67),
            any in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..40)
        ) {
            let any = any.into_iter().map(|(x, y)| (f32::from_bits(x), f32::from_bits(y)));
            let (x, y): (Vec<f32>, Vec<f32>) = near.into_iter().chain(any).unzip();
            let silus: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x / (1.0 + exp(-x)) * y).collect();
            let gelus: Vec<f32> = x.iter().zip(&y).map(|(x, y)| gelu(*x) * y).collect();
            let sums: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            for level in levels() {
                let (mut silu, mut gelu, mut sum) = (x.clone(), x.clone(), x.clone());
                let (mut capped, mut plainly_capped) = (x.clone(), x.clone());
                soft_cap(level, &mut capped, 30.0);
                soft_cap(Level::Plain, &mut plainly_capped, 30.0);
                prop_assert_eq!(bits(&capped), bits(&plainly_capped), "{}", level);
                silu_gate(level, &mut silu, &y);
                gelu_gate(level, &mut gelu, &y);
                add(&mut sum, &y);
                prop_assert_eq!(bits(&silu), bits(&silus), "{}", level);
                prop_assert_eq!(bits(&gelu), bits(&gelus), "{}", level);
                prop_assert_eq!(bits(&sum), bits(&sums));
            }
        }
    }
}
