//! One head: scores, softmax, weighted sum, over keys and values kept as binary16.

use crate::ops::elementwise::exp;
use crate::quant::float;
use crate::simd::Level;

/// Attention of one query head over the positions at hand.
///
/// `q`: head size floats. `keys`, `values`: positions × head size, binary16. `scores`: at least as many floats as
/// positions, scratch. `out`: head size floats. Sums run over positions in order.
pub fn attend(
    level: Level,
    out: &mut [f32],
    q: &[f32],
    keys: &[u16],
    values: &[u16],
    scores: &mut [f32],
    scale: f32,
) {
    let size = q.len();
    let mut peak = f32::NEG_INFINITY;
    let positions = keys.len() / size;
    let scores = &mut scores[..positions];
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(size)) {
        *score = float::dot_half(level, key, q) * scale;
        peak = if *score > peak { *score } else { peak };
    }
    out.fill(0.0);
    let mut total = 0.0;
    for (score, value) in scores.iter().zip(values.chunks_exact(size)) {
        let weight = exp(score - peak);
        total += weight;
        float::add_scaled_half(level, out, value, weight);
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
        attend(Level::Plain, &mut out, &[1.0, 1.0], &half(&[5.0, -5.0]), &half(&[3.0, 4.0]), &mut [0.0], 0.5);
        assert_eq!(out, [3.0, 4.0]);
    }

    #[test]
    fn equal_scores_give_the_mean_and_a_huge_one_wins() {
        let values = half(&[2.0, 0.0, 4.0, 0.0]);
        let mut out = [0.0; 2];
        attend(
            Level::Plain,
            &mut out,
            &[1.0, 0.0],
            &half(&[1.0, 7.0, 1.0, 9.0]),
            &values,
            &mut [0.0; 2],
            1.0,
        );
        assert_eq!(out, [3.0, 0.0]);
        attend(
            Level::Plain,
            &mut out,
            &[1.0, 0.0],
            &half(&[-500.0, 0.0, 500.0, 0.0]),
            &values,
            &mut [0.0; 2],
            1.0,
        );
        assert_eq!(out, [4.0, 0.0]);
    }
}
