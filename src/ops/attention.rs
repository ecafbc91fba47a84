//! One head: scores, softmax, weighted sum, over keys and values kept as binary16.

use crate::ops::elementwise::exp;
use crate::quant::float;
use crate::simd::Level;

/// Positions whose scores are held at once. The softmax is taken online (Milakov and Gimelshein, 2018,
/// arXiv:1805.02867): what was summed before is rescaled when a chunk brings a larger score. Chunks begin at
/// multiples of this from position 0, so the result does not depend on how a prompt was cut into batches.
const CHUNK: usize = 32;

/// Attention of one query head over the positions at hand.
///
/// `q` and `out`: head size floats. `keys`, `values`: positions × head size, binary16, at least one position.
pub fn attend(level: Level, out: &mut [f32], q: &[f32], keys: &[u16], values: &[u16], scale: f32) {
    let size = q.len();
    let mut peak = f32::NEG_INFINITY;
    let mut total = 0.0;
    out.fill(0.0);
    for (keys, values) in keys.chunks(CHUNK * size).zip(values.chunks(CHUNK * size)) {
        let mut scores = [f32::NEG_INFINITY; CHUNK];
        let before = peak;
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(size)) {
            *score = float::dot_half(level, key, q) * scale;
            peak = if *score > peak { *score } else { peak };
        }
        if peak > before {
            let correction = exp(before - peak);
            total *= correction;
            for out in out.iter_mut() {
                *out *= correction;
            }
        }
        for (score, value) in scores.iter().zip(values.chunks_exact(size)) {
            let weight = exp(score - peak);
            total += weight;
            float::add_scaled_half(level, out, value, weight);
        }
    }
    let inverse = 1.0 / total;
    for out in out {
        *out *= inverse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn half(values: &[f32]) -> Vec<u16> {
        values.iter().map(|&value| half::f16::from_f32(value).to_bits()).collect()
    }

    #[test]
    fn one_position_gives_its_value_back() {
        let mut out = [0.0; 2];
        attend(Level::Plain, &mut out, &[1.0, 1.0], &half(&[5.0, -5.0]), &half(&[3.0, 4.0]), 0.5);
        assert_eq!(out, [3.0, 4.0]);
    }

    #[test]
    fn equal_scores_give_the_mean_and_a_huge_one_wins() {
        let values = half(&[2.0, 0.0, 4.0, 0.0]);
        let mut out = [0.0; 2];
        attend(Level::Plain, &mut out, &[1.0, 0.0], &half(&[1.0, 7.0, 1.0, 9.0]), &values, 1.0);
        assert_eq!(out, [3.0, 0.0]);
        attend(Level::Plain, &mut out, &[1.0, 0.0], &half(&[-500.0, 0.0, 500.0, 0.0]), &values, 1.0);
        assert_eq!(out, [4.0, 0.0]);
    }

    #[test]
    fn many_chunks_agree_with_the_softmax_written_down_plainly() {
        let positions = 3 * CHUNK + 5;
        let q = [0.5, -1.0];
        let keys: Vec<f32> = (0..positions * 2).map(|i| ((i * 37) % 23) as f32 / 4.0 - 3.0).collect();
        let values: Vec<f32> = (0..positions * 2).map(|i| ((i * 53) % 17) as f32 / 8.0).collect();
        let mut out = [0.0; 2];
        attend(Level::Plain, &mut out, &q, &half(&keys), &half(&values), 0.7);
        let weights: Vec<f64> =
            keys.chunks(2).map(|k| libm::exp(f64::from((k[0] * q[0] + k[1] * q[1]) * 0.7))).collect();
        let total: f64 = weights.iter().sum();
        for i in 0..2 {
            let sum: f64 = weights.iter().zip(values.chunks(2)).map(|(w, v)| w * f64::from(v[i])).sum();
            assert!((sum / total - f64::from(out[i])).abs() < 1e-5);
        }
    }
}
