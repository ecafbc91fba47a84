//! Attention over keys and values of binary16, with Advanced SIMD; what both kinds of store share.
#![allow(clippy::needless_range_loop)] // heads and vectors of a tile go by number

use super::{CHUNK, Chunks, LANES, Scoring};
use crate::ops::elementwise::{exp_body, exp_neon};
use crate::simd::{
    Fused,
    fused::Soft,
    neon::{self, load_floats, store_floats},
};
use core::arch::aarch64::*;

/// Scores, then weights, of a chunk for each of `G` heads.
pub(super) type Weights<const G: usize> = [[f32; CHUNK]; G];

/// One to four heads, whose size is a multiple of eight.
///
/// # Safety
/// `out` and `q` are as many heads of `size` values, and the rows of `chunks` are there.
#[target_feature(enable = "neon")]
pub(super) unsafe fn heads(
    out: &mut [f32],
    q: &[f32],
    keys: &[u16],
    values: &[u16],
    size: usize,
    chunks: Chunks,
    scoring: Scoring,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match q.len() / size {
            1 => heads_neon::<1>(out, q, keys, values, size, chunks, scoring),
            2 => heads_neon::<2>(out, q, keys, values, size, chunks, scoring),
            3 => heads_neon::<3>(out, q, keys, values, size, chunks, scoring),
            _ => heads_neon::<4>(out, q, keys, values, size, chunks, scoring),
        }
    }
}

/// [`heads`], `G` of them.
///
/// # Safety
/// As of [`heads`].
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
unsafe fn heads_neon<const G: usize>(
    out: &mut [f32],
    q: &[f32],
    keys: &[u16],
    values: &[u16],
    size: usize,
    chunks: Chunks,
    scoring: Scoring,
) {
    let (mut peaks, mut totals) = ([f32::NEG_INFINITY; G], [0f32; G]);
    let mut weights = [[0f32; CHUNK]; G];
    out.fill(0.0);
    for (row, count) in chunks {
        let (keys, values) = (&keys[row * size..][..count * size], &values[row * size..][..count * size]);
        // SAFETY: `count` keys and `G` heads, as the caller promised.
        unsafe {
            let whole = count / 4 * 4;
            for first in (0..whole).step_by(4) {
                scores_neon::<G, 4>(
                    &mut weights,
                    first,
                    q,
                    keys.as_ptr().add(first * size),
                    size,
                    scoring.scale,
                );
            }
            for first in whole..count {
                scores_neon::<G, 1>(
                    &mut weights,
                    first,
                    q,
                    keys.as_ptr().add(first * size),
                    size,
                    scoring.scale,
                );
            }
        }
        let mut corrections = [0f32; G];
        for g in 0..G {
            corrections[g] = softmax(&mut weights[g], count, scoring.softcap, &mut peaks[g], &mut totals[g]);
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
    divide(out, &totals, size);
}

/// Makes the first `count` scores weights. Gives what the sums before are to be multiplied by; takes along the largest score
/// and the sum of weights so far.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn softmax(
    scores: &mut [f32; CHUNK],
    count: usize,
    softcap: f32,
    peak: &mut f32,
    total: &mut f32,
) -> f32 {
    let fours = count.div_ceil(LANES);
    if softcap != 0.0 {
        cap(&mut scores.as_chunks_mut::<LANES>().0[..fours], softcap);
    }
    // What a chunk that ends early lacks weighs nothing.
    scores[count..fours * LANES].fill(f32::NEG_INFINITY);
    let scores = &mut scores.as_chunks_mut::<LANES>().0[..fours];
    let mut largest = vdupq_n_f32(*peak);
    for four in scores.iter() {
        // SAFETY: four floats.
        largest = vmaxq_f32(largest, unsafe { load_floats(four.as_ptr()) });
    }
    let before = core::mem::replace(peak, vmaxvq_f32(largest));
    let mut sum = vdupq_n_f32(0.0);
    for four in scores {
        // SAFETY: four floats.
        unsafe {
            let weights = exp_neon(vsubq_f32(load_floats(four.as_ptr()), vdupq_n_f32(*peak)));
            sum = vaddq_f32(sum, weights);
            store_floats(four.as_mut_ptr(), weights);
        }
    }
    let pairs = vpaddq_f32(sum, sum);
    let correction = exp_body::<Soft>(before - *peak);
    *total = Soft::madd(*total, correction, vgetq_lane_f32::<0>(vpaddq_f32(pairs, pairs)));
    correction
}

/// Each score becomes cap × tanh(score / cap).
#[inline(never)]
#[target_feature(enable = "neon")]
fn cap(scores: &mut [[f32; LANES]], cap: f32) {
    let inverse = 1.0 / cap;
    for four in scores {
        // SAFETY: four floats.
        unsafe {
            let x = vmulq_n_f32(load_floats(four.as_ptr()), inverse);
            let e = exp_neon(vmulq_n_f32(vabsq_f32(x), -2.0));
            let one = vdupq_n_f32(1.0);
            let tanh = vdivq_f32(vsubq_f32(one, e), vaddq_f32(one, e));
            let signed = vbslq_f32(vdupq_n_u32(1 << 31), x, tanh);
            store_floats(four.as_mut_ptr(), vmulq_n_f32(signed, cap));
        }
    }
}

/// Divides each head by its sum of weights.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn divide(out: &mut [f32], totals: &[f32], size: usize) {
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
