//! Add, exponential, silu, gate: one value at a time, so any vector width gives the same bits.

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// log2(e), and ln(2) in two parts whose products with small integers are exact (Cody and Waite, 1980).
const LOG2_E: f32 = core::f32::consts::LOG2_E;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding and subtracting it rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// e^x, relative error below 2⁻²²; 0 below −87.3, infinity above 88.7.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r by its Taylor polynomial of degree 7 (remainder 5e-9).
#[inline]
pub fn exp(x: f32) -> f32 {
    if x < -87.3 {
        return 0.0;
    }
    if x > 88.7 {
        return f32::INFINITY;
    }
    let n = (x * LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // 2^n as a product of two powers, so that n = 128 and the smallest normal numbers are reached. A NaN's
    // `as` is 0 and its p a NaN.
    #[allow(clippy::cast_possible_truncation)] // |n| <= 128
    let n = n as i32;
    let half = n / 2;
    p * power_of_two(half) * power_of_two(n - half)
}

fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// `gate = silu(gate) × up`, where silu(x) = x / (1 + e^−x) (SwiGLU: Shazeer, 2020, arXiv:2002.05202).
pub fn silu_gate(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_its_stated_error_from_end_to_end() {
        let mut worst = 0f64;
        for step in -87_300..88_700 {
            let x = step as f32 / 1000.0;
            let exact = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 1.0 / f64::from(1 << 22), "{worst:e}");
    }

    #[test]
    fn exp_of_the_extremes() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-1e30), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn silu_of_a_large_negative_gate_is_zero_not_nan() {
        let mut gate = [-1000.0, 1000.0, 0.0];
        silu_gate(&mut gate, &[2.0; 3]);
        assert_eq!(gate, [0.0, 2000.0, 0.0]);
    }
}
