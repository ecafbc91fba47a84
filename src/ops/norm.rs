//! RMS norm (Zhang and Sennrich, 2019, arXiv:1910.07467).

use crate::quant::float;

/// `out = x / sqrt(mean(x²) + epsilon) × weight`, all of the same length.
pub fn rms_norm(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let mean = float::dot(x, x) / x.len() as f32;
    let scale = 1.0 / libm::sqrtf(mean + epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_vector_becomes_its_sign_times_the_weight() {
        let mut out = [0.0; 4];
        rms_norm(&mut out, &[-3.0; 4], &[1.0, 2.0, 3.0, 4.0], 0.0);
        assert_eq!(out, [-1.0, -2.0, -3.0, -4.0]);
    }

    #[test]
    fn zeros_stay_zero_thanks_to_epsilon() {
        let mut out = [1.0; 3];
        rms_norm(&mut out, &[0.0; 3], &[1.0; 3], 1e-5);
        assert_eq!(out, [0.0; 3]);
    }
}
