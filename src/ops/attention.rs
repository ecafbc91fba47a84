//! Attention: scores, softmax, weighted sum, over keys and values kept as binary16.
//!
//! The query heads that share keys and values (GQA) are done together, so that these are read and widened once.
#![allow(unsafe_code)] // vector loads of rows whose number and length are checked once a call
#![allow(clippy::needless_range_loop)] // heads and vectors of a tile go by number

use crate::ops::elementwise::exp_body;
use crate::simd::Level;
use crate::simd::fused::{Fused, compiled_twice};

#[cfg(target_arch = "aarch64")]
use crate::ops::elementwise::exp_neon;
#[cfg(target_arch = "aarch64")]
use crate::simd::{fused::Soft, neon};
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// Positions whose scores are held at once. The softmax is taken online (Milakov and Gimelshein, 2018,
/// arXiv:1805.02867): what was summed before is rescaled after each chunk's largest score is known. Chunks begin at
/// multiples of this from position 0, so the result does not depend on how a prompt was cut into batches.
const CHUNK: usize = 32;

/// Lanes that the weights of a chunk are summed in: weight `p` goes to lane `p mod 4`.
const LANES: usize = 4;

/// Attention of `group` query heads over the positions at hand.
///
/// `q` and `out`: group × head size floats. `keys`, `values`: positions × head size, binary16, at least one position.
///
/// # Panics
/// If sizes disagree.
pub fn attend_group(
    level: Level,
    out: &mut [f32],
    q: &[f32],
    keys: &[u16],
    values: &[u16],
    group: usize,
    scale: f32,
) {
    let size = q.len() / group;
    assert!(
        out.len() == q.len()
            && q.len() == group * size
            && keys.len() == values.len()
            && keys.len().is_multiple_of(size),
        "heads, keys and values of one size"
    );
    match level {
        #[cfg(target_arch = "aarch64")]
        Level::Neon(_) | Level::Dotprod(_) if size.is_multiple_of(8) => {
            let (mut out, mut q) = (out, q);
            while !q.is_empty() {
                // As even shares as can be of at most four heads, whose sums fit into the registers.
                let left = q.len() / size;
                let heads = left.div_ceil(left.div_ceil(4));
                let (out_here, q_here);
                (out_here, out) = out.split_at_mut(heads * size);
                (q_here, q) = q.split_at(heads * size);
                // SAFETY: the level proves the instructions; sizes were checked above.
                unsafe {
                    match heads {
                        1 => heads_neon::<1>(out_here, q_here, keys, values, scale),
                        2 => heads_neon::<2>(out_here, q_here, keys, values, scale),
                        3 => heads_neon::<3>(out_here, q_here, keys, values, scale),
                        _ => heads_neon::<4>(out_here, q_here, keys, values, scale),
                    }
                }
            }
        }
        _ => {
            for (out, q) in out.chunks_exact_mut(size).zip(q.chunks_exact(size)) {
                head_plain(level, out, q, keys, values, scale);
            }
        }
    }
}

/// Attention of one query head: a group of one.
pub fn attend(level: Level, out: &mut [f32], q: &[f32], keys: &[u16], values: &[u16], scale: f32) {
    attend_group(level, out, q, keys, values, 1, scale);
}

compiled_twice! {
    fn head_plain(out: &mut [f32], q: &[f32], keys: &[u16], values: &[u16], scale: f32) = head_body;
}

/// The definition.
#[inline(always)]
fn head_body<M: Fused>(out: &mut [f32], q: &[f32], keys: &[u16], values: &[u16], scale: f32) {
    let size = q.len();
    let (mut peak, mut total) = (f32::NEG_INFINITY, 0f32);
    out.fill(0.0);
    for (keys, values) in keys.chunks(CHUNK * size).zip(values.chunks(CHUNK * size)) {
        let mut weights = [0f32; CHUNK];
        let weights = &mut weights[..keys.len() / size];
        let before = peak;
        for (score, key) in weights.iter_mut().zip(keys.chunks_exact(size)) {
            *score = dot_body::<M>(key, q) * scale;
            peak = if *score > peak { *score } else { peak };
        }
        let mut sums = [0f32; LANES];
        for (p, weight) in weights.iter_mut().enumerate() {
            *weight = exp_body::<M>(*weight - peak);
            sums[p % LANES] += *weight;
        }
        let correction = exp_body::<M>(before - peak);
        total = M::madd(total, correction, (sums[0] + sums[1]) + (sums[2] + sums[3]));
        out.iter_mut().for_each(|out| *out *= correction);
        for (weight, value) in weights.iter().zip(values.chunks_exact(size)) {
            add_scaled_body::<M>(out, value, *weight);
        }
    }
    let inverse = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= inverse);
}

/// A key times a query head, in four lanes by index: sums of four positions are one vector sooner than with eight.
#[inline(always)]
fn dot_body<M: Fused>(key: &[u16], q: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((key_whole, key_rest), (q_whole, q_rest)) = (key.as_chunks::<8>(), q.as_chunks::<8>());
    for (key, q) in key_whole.iter().zip(q_whole) {
        let (key, q) = (M::widen8(*key), q.as_chunks::<LANES>().0);
        for (key, q) in key.as_chunks::<LANES>().0.iter().zip(q) {
            sums = M::madd4(*key, *q, sums);
        }
    }
    for (index, (key, q)) in key_rest.iter().zip(q_rest).enumerate() {
        sums[index % LANES] = M::madd(half::f16::from_bits(*key).to_f32(), *q, sums[index % LANES]);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// `out[i] += weight × value[i]`, fused.
#[inline(always)]
fn add_scaled_body<M: Fused>(out: &mut [f32], value: &[u16], weight: f32) {
    let ((out_whole, out_rest), (value_whole, value_rest)) =
        (out.as_chunks_mut::<8>(), value.as_chunks::<8>());
    for (out, value) in out_whole.iter_mut().zip(value_whole) {
        *out = M::madd8(M::widen8(*value), [weight; 8], *out);
    }
    for (out, value) in out_rest.iter_mut().zip(value_rest) {
        *out = M::madd(half::f16::from_bits(*value).to_f32(), weight, *out);
    }
}

/// `G` heads, whose size is a multiple of eight.
///
/// # Safety
/// `out` and `q` are `G` heads of one size, `keys` and `values` equally many positions of that size.
#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
unsafe fn heads_neon<const G: usize>(out: &mut [f32], q: &[f32], keys: &[u16], values: &[u16], scale: f32) {
    let size = q.len() / G;
    let (mut peaks, mut totals) = ([f32::NEG_INFINITY; G], [0f32; G]);
    let mut weights = [[0f32; CHUNK]; G];
    out.fill(0.0);
    for (keys, values) in keys.chunks(CHUNK * size).zip(values.chunks(CHUNK * size)) {
        let count = keys.len() / size;
        // What a chunk that ends early lacks weighs nothing.
        let absent = count.next_multiple_of(LANES).min(CHUNK);
        for weights in &mut weights {
            weights[count..absent].fill(f32::NEG_INFINITY);
        }
        let mut corrections = [0f32; G];
        // SAFETY: `count` keys and values and `G` heads, as the caller promised.
        unsafe {
            let (whole, end) = (count / 4 * 4, count);
            for first in (0..whole).step_by(4) {
                scores_neon::<G, 4>(&mut weights, first, q, keys.as_ptr().add(first * size), size, scale);
            }
            for first in whole..end {
                scores_neon::<G, 1>(&mut weights, first, q, keys.as_ptr().add(first * size), size, scale);
            }
        }
        for g in 0..G {
            let scores = weights[g].as_chunks_mut::<LANES>().0;
            let scores = &mut scores[..absent / LANES];
            let mut largest = vdupq_n_f32(peaks[g]);
            for four in scores.iter() {
                // SAFETY: four floats.
                largest = vmaxq_f32(largest, unsafe { neon::load_floats(four.as_ptr()) });
            }
            let peak = vmaxvq_f32(largest);
            let mut sum = vdupq_n_f32(0.0);
            for four in scores {
                // SAFETY: four floats.
                unsafe {
                    let four_scores = neon::load_floats(four.as_ptr());
                    let four_weights = exp_neon(vsubq_f32(four_scores, vdupq_n_f32(peak)));
                    sum = vaddq_f32(sum, four_weights);
                    neon::store_floats(four.as_mut_ptr(), four_weights);
                }
            }
            let pairs = vpaddq_f32(sum, sum);
            corrections[g] = exp_body::<Soft>(peaks[g] - peak);
            totals[g] = Soft::madd(totals[g], corrections[g], vgetq_lane_f32::<0>(vpaddq_f32(pairs, pairs)));
            peaks[g] = peak;
        }
        // SAFETY: as above; blocks of sixteen and then eight values of each head are all of them.
        unsafe {
            let sixteens = size / 16 * 16;
            for at in (0..sixteens).step_by(16) {
                sum_values_neon::<G, 4>(out, at, &weights, &corrections, values, size);
            }
            if sixteens < size {
                sum_values_neon::<G, 2>(out, sixteens, &weights, &corrections, values, size);
            }
        }
    }
    for (out, total) in out.chunks_exact_mut(size).zip(totals) {
        let inverse = 1.0 / total;
        for out in out.as_chunks_mut::<8>().0 {
            // SAFETY: eight floats.
            unsafe {
                let (low, high) = neon::load_floats_pair(out.as_ptr());
                let scaled = (vmulq_n_f32(low, inverse), vmulq_n_f32(high, inverse));
                neon::store_floats_pair(out.as_mut_ptr(), scaled);
            }
        }
    }
}

/// `weights[g][first..first + P]` = head `g` × each of `P` keys × scale. `P` is 4 or 1.
///
/// # Safety
/// `q` is `G` heads of `size` values, a multiple of eight, and `P` keys lie at `keys`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
unsafe fn scores_neon<const G: usize, const P: usize>(
    weights: &mut [[f32; CHUNK]; G],
    first: usize,
    q: &[f32],
    keys: *const u16,
    size: usize,
    scale: f32,
) {
    let mut heads = [q.as_ptr(); G];
    for (g, head) in heads.iter_mut().enumerate() {
        *head = q[g * size..].as_ptr();
    }
    let mut rows = [keys; P];
    for (p, row) in rows.iter_mut().enumerate() {
        *row = keys.wrapping_add(p * size);
    }
    let mut sums = [[vdupq_n_f32(0.0); P]; G];
    for _ in 0..size / 8 {
        let mut x = [(sums[0][0], sums[0][0]); G];
        for g in 0..G {
            // SAFETY: the caller's promise: each of the `size / 8` steps reads eight values of each head.
            x[g] = unsafe { neon::next_floats_pair(&mut heads[g]) };
        }
        for p in 0..P {
            // SAFETY: the same of each key.
            let (low, high) = unsafe { neon::next_half_pair(&mut rows[p]) };
            for g in 0..G {
                sums[g][p] = vfmaq_f32(vfmaq_f32(sums[g][p], low, x[g].0), high, x[g].1);
            }
        }
    }
    for g in 0..G {
        let sums = [sums[g][0], sums[g][1 % P], sums[g][2 % P], sums[g][3 % P]];
        let scores = vpaddq_f32(vpaddq_f32(sums[0], sums[1]), vpaddq_f32(sums[2], sums[3]));
        let scores = vmulq_n_f32(scores, scale);
        let weights = &mut weights[g][first..first + P];
        if P == 4 {
            // SAFETY: four floats.
            unsafe { neon::store_floats(weights.as_mut_ptr(), scores) };
        } else {
            weights[0] = vgetq_lane_f32::<0>(scores);
        }
    }
}

/// `out[g][at..at + 4 V]` becomes itself × correction + the weighted sum of the values there.
///
/// # Safety
/// `out` is `G` heads of `size` values, `values` a chunk of rows of that size, and `at + 4 V` at most `size`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
unsafe fn sum_values_neon<const G: usize, const V: usize>(
    out: &mut [f32],
    at: usize,
    weights: &[[f32; CHUNK]; G],
    corrections: &[f32; G],
    values: &[u16],
    size: usize,
) {
    let count = values.len() / size;
    let mut row = values[at..].as_ptr();
    let mut sums = [[vdupq_n_f32(0.0); V]; G];
    for g in 0..G {
        let out = &out[g * size + at..][..4 * V];
        for v in 0..V {
            // SAFETY: four of the `4 V` floats.
            sums[g][v] = vmulq_n_f32(unsafe { neon::load_floats(out.as_ptr().add(4 * v)) }, corrections[g]);
        }
    }
    let whole = count / 4 * 4;
    for first in (0..whole).step_by(4) {
        let mut four = [sums[0][0]; G];
        for g in 0..G {
            // SAFETY: four of a chunk's weights.
            four[g] = unsafe { neon::load_floats(weights[g].as_ptr().add(first)) };
        }
        // SAFETY: `4 V` values of each of these four rows, as the caller promised.
        unsafe {
            add_row::<G, V, 0>(&mut sums, &four, row);
            add_row::<G, V, 1>(&mut sums, &four, row.add(size));
            add_row::<G, V, 2>(&mut sums, &four, row.add(2 * size));
            add_row::<G, V, 3>(&mut sums, &four, row.add(3 * size));
        }
        row = row.wrapping_add(4 * size);
    }
    for p in whole..count {
        let mut one = [sums[0][0]; G];
        for g in 0..G {
            one[g] = vdupq_n_f32(weights[g][p]);
        }
        // SAFETY: `4 V` values of this row.
        unsafe { add_row::<G, V, 0>(&mut sums, &one, row) };
        row = row.wrapping_add(size);
    }
    for g in 0..G {
        let out = &mut out[g * size + at..][..4 * V];
        for v in 0..V {
            // SAFETY: four of the `4 V` floats.
            unsafe { neon::store_floats(out.as_mut_ptr().add(4 * v), sums[g][v]) };
        }
    }
}

/// Adds `4 V` values × lane `LANE` of each head's weights.
///
/// # Safety
/// `4 V` values must be readable at `row`; `V` is 2 or 4.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_row<const G: usize, const V: usize, const LANE: i32>(
    sums: &mut [[float32x4_t; V]; G],
    weights: &[float32x4_t; G],
    row: *const u16,
) {
    // SAFETY: the caller's promise.
    let x = unsafe {
        if V == 4 {
            neon::load_half_quad(row)
        } else {
            let (a, b) = neon::load_half_pair(row);
            [a, b, a, b]
        }
    };
    for g in 0..G {
        for v in 0..V {
            sums[g][v] = vfmaq_laneq_f32::<LANE>(sums[g][v], x[v], weights[g]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    fn half(values: &[f32]) -> Vec<u16> {
        values.iter().map(|&value| half::f16::from_f32(value).to_bits()).collect()
    }

    #[test]
    fn one_position_gives_its_value_back() {
        for level in levels() {
            let mut out = [0.0; 2];
            attend(level, &mut out, &[1.0, 1.0], &half(&[5.0, -5.0]), &half(&[3.0, 4.0]), 0.5);
            assert_eq!(out, [3.0, 4.0]);
        }
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

    #[test]
    fn a_nan_among_the_keys_is_seen_in_every_value_whatever_the_level() {
        for (level, place) in levels().flat_map(|level| [0, 33, 40].map(|place| (level, place))) {
            let mut keys = half(&[1.0; 41 * 16]);
            keys[place * 16 + 3] = 0x7e00;
            let mut out = [0.0; 32];
            attend_group(level, &mut out, &[1.0; 32], &keys, &half(&[1.0; 41 * 16]), 2, 1.0);
            assert!(out.iter().all(|out| out.is_nan()), "{level}, {place}");
        }
    }

    /// Numbers that look random, the same each time, between −1 and 1.
    fn noise(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// A group at every level against one head after the other in plain code.
    fn check(size: usize, group: usize, positions: usize, spread: f32, seed: u64) {
        let q: Vec<f32> = noise(seed, group * size).iter().map(|q| q * spread).collect();
        let (keys, values) =
            (half(&noise(seed + 1, positions * size)), half(&noise(seed + 2, positions * size)));
        let mut expected = vec![0.0; q.len()];
        for (out, q) in expected.chunks_exact_mut(size).zip(q.chunks_exact(size)) {
            head_body::<crate::simd::fused::Soft>(out, q, &keys, &values, 0.125);
        }
        let bits = |out: &[f32]| out.iter().map(|out| out.to_bits()).collect::<Vec<_>>();
        for level in levels() {
            let mut out = vec![f32::NAN; q.len()];
            attend_group(level, &mut out, &q, &keys, &values, group, 0.125);
            assert_eq!(bits(&out), bits(&expected), "{level}: {group} of {size}, {positions} positions");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits_for_every_size_and_group() {
        for size in [8, 16, 20, 24, 64, 80, 128] {
            for group in 1..=9 {
                for positions in [1, 2, 4, 5, 31, 32, 33, 64, 71] {
                    check(size, group, positions, 3.0, (size * 1000 + group * 100 + positions) as u64);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_for_scores_far_apart(
            size in 1..10usize, group in 1..5usize, positions in 1..140usize, spread in 0f32..2000.0, seed: u64
        ) {
            check(size * 8, group, positions, spread, seed >> 2);
        }
    }
}
