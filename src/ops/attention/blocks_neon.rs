//! Attention over keys and values of 8-bit integers in blocks of 32, with Advanced SIMD and with its dot product.
#![allow(clippy::needless_range_loop)] // heads and vectors of a tile go by number

use super::neon::{Weights, divide, softmax};
use super::{BLOCK, Blocks, CHUNK, Chunks, Query, Scoring, TOGETHER};
use crate::simd::{
    Level,
    neon::{load, load_floats, load_half, load_pair, repeat_half, sdot, store_floats},
};
use core::arch::aarch64::*;

/// Integers of a head that are added up at once.
const STEP: usize = 16;

/// One to four heads, whose size is a multiple of [`BLOCK`].
///
/// # Safety
/// `out` is as many heads of `size` values as the query is of, the level the CPU's, and the rows of `chunks` are there.
#[target_feature(enable = "neon")]
#[allow(clippy::too_many_arguments)] // as it is a function of its own only for what it may rely on
pub(super) unsafe fn heads(
    level: Level,
    out: &mut [f32],
    query: &Query,
    keys: Blocks<'_>,
    values: Blocks<'_>,
    size: usize,
    chunks: Chunks,
    scoring: Scoring,
) {
    let dotprod = matches!(level, Level::Dotprod(_));
    // SAFETY: the caller's promise.
    unsafe {
        match out.len() / size {
            1 => heads_blocks_neon::<1>(dotprod, out, query, keys, values, size, chunks, scoring),
            2 => heads_blocks_neon::<2>(dotprod, out, query, keys, values, size, chunks, scoring),
            3 => heads_blocks_neon::<3>(dotprod, out, query, keys, values, size, chunks, scoring),
            _ => heads_blocks_neon::<TOGETHER>(dotprod, out, query, keys, values, size, chunks, scoring),
        }
    }
}

/// [`heads`], `G` of them.
///
/// # Safety
/// As of [`heads`]; `dotprod` only where the CPU has it.
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
#[allow(clippy::too_many_arguments)] // likewise
unsafe fn heads_blocks_neon<const G: usize>(
    dotprod: bool,
    out: &mut [f32],
    query: &Query,
    keys: Blocks<'_>,
    values: Blocks<'_>,
    size: usize,
    chunks: Chunks,
    scoring: Scoring,
) {
    let (mut peaks, mut totals) = ([f32::NEG_INFINITY; G], [0f32; G]);
    let mut weights = [[0f32; CHUNK]; G];
    let mut scaled = [[0f32; CHUNK]; G];
    let rows = chunks.rows;
    out.fill(0.0);
    for (row, count) in chunks {
        let chunk = |quants| Chunk { quants, row, count, rows, size };
        // SAFETY: the rows are there, as the caller promised.
        unsafe {
            if dotprod {
                scores_dotprod(&mut weights, query, chunk(keys), scoring.scale);
            } else {
                scores_neon(&mut weights, query, chunk(keys), scoring.scale);
            }
        }
        let mut corrections = [0f32; G];
        for g in 0..G {
            corrections[g] = softmax(&mut weights[g], count, scoring.softcap, &mut peaks[g], &mut totals[g]);
        }
        for block in 0..size / BLOCK {
            // SAFETY: as above; two steps are a block.
            unsafe {
                scale_weights(&mut scaled, &weights, &values.scales[block * rows + row..][..count]);
                sum_values(out, block * BLOCK, &scaled, &corrections, chunk(values));
                sum_values(out, block * BLOCK + STEP, &scaled, &corrections, chunk(values));
            }
        }
    }
    divide(out, &totals, size);
}

/// Rows `row` to `row + count` of `rows`.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    quants: Blocks<'a>,
    row: usize,
    count: usize,
    rows: usize,
    size: usize,
}

/// Makes a function of each kind of dot product: `weights[g][..count]` = head `g` × each key of the chunk × scale.
macro_rules! scores {
    ($($name:ident, $tile:ident, $dot:ident, $features:literal;)+) => {$(
        /// # Safety
        /// The chunk's rows and the query's heads are there.
        #[inline(never)] // so that its machine code has a name, which a test looks up
        #[target_feature(enable = $features)]
        unsafe fn $name<const G: usize>(weights: &mut Weights<G>, query: &Query, keys: Chunk<'_>, scale: f32) {
            let whole = keys.count / 4 * 4;
            // SAFETY: the caller's promise.
            unsafe {
                for first in (0..whole).step_by(4) {
                    $tile::<G, 4>(weights, first, query, keys, scale);
                }
                for first in whole..keys.count {
                    $tile::<G, 1>(weights, first, query, keys, scale);
                }
            }
        }

        /// `P` keys from `first` on; `P` is 4 or 1.
        ///
        /// # Safety
        /// The same.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $tile<const G: usize, const P: usize>(
            weights: &mut Weights<G>,
            first: usize,
            query: &Query,
            keys: Chunk<'_>,
            scale: f32,
        ) {
            let Chunk { quants, row, rows, size, .. } = keys;
            let blocks = size / BLOCK;
            let mut scores = [vdupq_n_f32(0.0); G];
            for block in 0..blocks {
                // SAFETY: a block of each of these rows, its scale, and a block of each head.
                unsafe {
                    let key = quants.quants.as_ptr().add((row + first) * size + block * BLOCK);
                    let key_scales = quants.scales.as_ptr().add(block * rows + row + first);
                    let key_scales = if P == 4 { load_half(key_scales) } else { repeat_half(key_scales) };
                    let mut k = [(vdupq_n_s8(0), vdupq_n_s8(0)); P];
                    for p in 0..P {
                        k[p] = load_pair(key.add(p * size).cast());
                    }
                    for g in 0..G {
                        let q = load_pair(query.quants.as_ptr().add(g * size + block * BLOCK).cast());
                        let mut sums = [$dot(k[0], q); 4];
                        for p in 1..P {
                            sums[p] = $dot(k[p], q);
                        }
                        let sums = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
                        let both = vmulq_n_f32(key_scales, *query.scales.as_ptr().add(g * blocks + block));
                        scores[g] = vfmaq_f32(scores[g], vcvtq_f32_s32(sums), both);
                    }
                }
            }
            for g in 0..G {
                let scores = vmulq_n_f32(scores[g], scale);
                let weights = &mut weights[g][first..first + P];
                if P == 4 {
                    // SAFETY: four floats.
                    unsafe { store_floats(weights.as_mut_ptr(), scores) };
                } else {
                    weights[0] = vgetq_lane_f32::<0>(scores);
                }
            }
        }
    )+};
}

scores! {
    scores_neon, tile_neon, dot_neon, "neon";
    scores_dotprod, tile_dotprod, dot_dotprod, "neon,dotprod";
}

/// 32 products in four sums. Two products of numbers from −127 to 127 fit into 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn dot_neon((k_low, k_high): (int8x16_t, int8x16_t), (q_low, q_high): (int8x16_t, int8x16_t)) -> int32x4_t {
    let low = vmlal_high_s8(vmull_s8(vget_low_s8(k_low), vget_low_s8(q_low)), k_low, q_low);
    let high = vmlal_high_s8(vmull_s8(vget_low_s8(k_high), vget_low_s8(q_high)), k_high, q_high);
    vpadalq_s16(vpaddlq_s16(low), high)
}

/// The same.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_dotprod(
    (k_low, k_high): (int8x16_t, int8x16_t),
    (q_low, q_high): (int8x16_t, int8x16_t),
) -> int32x4_t {
    sdot(sdot(vdupq_n_s32(0), k_low, q_low), k_high, q_high)
}

/// Each head's weights × the scales of a block of each row.
#[inline]
#[target_feature(enable = "neon")]
fn scale_weights<const G: usize>(scaled: &mut Weights<G>, weights: &Weights<G>, scales: &[u16]) {
    let (fours, rest) = scales.as_chunks::<4>();
    for (index, four) in fours.iter().enumerate() {
        // SAFETY: four scales, and four floats of each.
        unsafe {
            let scales = load_half(four.as_ptr());
            for g in 0..G {
                let weights = load_floats(weights[g][4 * index..][..4].as_ptr());
                store_floats(scaled[g][4 * index..][..4].as_mut_ptr(), vmulq_f32(weights, scales));
            }
        }
    }
    for (index, scale) in rest.iter().enumerate() {
        let at = 4 * fours.len() + index;
        // SAFETY: one scale.
        let scale = vgetq_lane_f32::<0>(unsafe { repeat_half(scale) });
        for g in 0..G {
            scaled[g][at] = weights[g][at] * scale;
        }
    }
}

/// `out[g][at..at + STEP]` becomes itself × correction + the weighted sum of the integers there.
///
/// # Safety
/// `out` is `G` heads, the chunk's rows are there, and `at + STEP` is at most a head's size.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn sum_values<const G: usize>(
    out: &mut [f32],
    at: usize,
    weights: &Weights<G>,
    corrections: &[f32; G],
    values: Chunk<'_>,
) {
    let Chunk { quants, row, count, size, .. } = values;
    let mut from = quants.quants[row * size + at..].as_ptr();
    let mut sums = [[vdupq_n_f32(0.0); 4]; G];
    for g in 0..G {
        let out = &out[g * size + at..][..STEP];
        for v in 0..4 {
            // SAFETY: four of the sixteen floats.
            sums[g][v] = vmulq_n_f32(unsafe { load_floats(out.as_ptr().add(4 * v)) }, corrections[g]);
        }
    }
    let whole = count / 4 * 4;
    for first in (0..whole).step_by(4) {
        let mut four = [sums[0][0]; G];
        for g in 0..G {
            // SAFETY: four of a chunk's weights.
            four[g] = unsafe { load_floats(weights[g].as_ptr().add(first)) };
        }
        // SAFETY: sixteen integers of each of these four rows, as the caller promised.
        unsafe {
            add_row::<G, 0>(&mut sums, &four, from);
            add_row::<G, 1>(&mut sums, &four, from.add(size));
            add_row::<G, 2>(&mut sums, &four, from.add(2 * size));
            add_row::<G, 3>(&mut sums, &four, from.add(3 * size));
        }
        from = from.wrapping_add(4 * size);
    }
    for p in whole..count {
        let mut one = [sums[0][0]; G];
        for g in 0..G {
            one[g] = vdupq_n_f32(weights[g][p]);
        }
        // SAFETY: sixteen integers of this row.
        unsafe { add_row::<G, 0>(&mut sums, &one, from) };
        from = from.wrapping_add(size);
    }
    for g in 0..G {
        let out = &mut out[g * size + at..][..STEP];
        for v in 0..4 {
            // SAFETY: four of the sixteen floats.
            unsafe { store_floats(out.as_mut_ptr().add(4 * v), sums[g][v]) };
        }
    }
}

/// Adds sixteen integers × lane `LANE` of each head's weights.
///
/// # Safety
/// 16 bytes must be readable at `row`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_row<const G: usize, const LANE: i32>(
    sums: &mut [[float32x4_t; 4]; G],
    weights: &[float32x4_t; G],
    row: *const i8,
) {
    // SAFETY: the caller's promise.
    let x = unsafe { load(row.cast()) };
    let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
    let x = [
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
        vcvtq_f32_s32(vmovl_high_s16(low)),
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
        vcvtq_f32_s32(vmovl_high_s16(high)),
    ];
    for g in 0..G {
        for v in 0..4 {
            sums[g][v] = vfmaq_laneq_f32::<LANE>(sums[g][v], x[v], weights[g]);
        }
    }
}
