//! Attention: scores, softmax, weighted sum, over keys and values kept as binary16 or as blocks of 8-bit integers.
//!
//! The query heads that share keys and values (GQA) are done together, so that these are read and widened once.
#![allow(unsafe_code)] // calls of vector code, with sizes that are checked once a call

use crate::ops::elementwise::exp_body;
use crate::ops::quantize::{self, BLOCK};
use crate::simd::Level;
use crate::simd::fused::{Fused, compiled_twice};

#[cfg(target_arch = "aarch64")]
mod blocks_neon;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;

/// Positions whose scores are held at once. The softmax is taken online (Milakov and Gimelshein, 2018,
/// arXiv:1805.02867): what was summed before is rescaled after each chunk's largest score is known. Chunks begin at
/// multiples of this from position 0, so the result does not depend on how a prompt was cut into batches; where a window
/// begins within a chunk, the first one is what is left of it.
pub const CHUNK: usize = 32;

/// Lanes that the weights of a chunk are summed in: weight `p` goes to lane `p mod 4`.
const LANES: usize = 4;

/// Values in a head at most, where they are kept as blocks: what the room for a quantized query is made for.
pub const BLOCKS_HEAD: usize = 256;

/// Query heads that vector code takes at once at most.
const TOGETHER: usize = 4;

/// What becomes of the product of a query with a key before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scoring {
    /// It is multiplied by this.
    pub scale: f32,
    /// Then it becomes cap × tanh(score / cap); 0 is no cap.
    pub softcap: f32,
}

/// Rows of 8-bit integers, each 32 of which share a scale: a value is its integer × the scale.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// rows × head size.
    pub quants: &'a [i8],
    /// head size / 32 × rows, binary16: the scales of the first blocks of all rows, then those of the second.
    pub scales: &'a [u16],
}

/// Keys and values of one head.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    /// rows × head size, binary16.
    Half {
        /// Keys.
        keys: &'a [u16],
        /// Values.
        values: &'a [u16],
    },
    /// Integers and scales.
    Blocks {
        /// Keys.
        keys: Blocks<'a>,
        /// Values.
        values: Blocks<'a>,
    },
}

/// Keys and values of one head, and the positions that a query looks at: `first` to `end`, at least one. A position's row
/// is its number, modulo the number of rows; where that matters, there are a whole number of chunks of them.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All rows.
    pub store: Store<'a>,
    /// The first position.
    pub first: usize,
    /// The position behind the last.
    pub end: usize,
}

/// The chunks of a view: first row, number of rows.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    position: usize,
    end: usize,
    row: usize,
    rows: usize,
}

impl Iterator for Chunks {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.position >= self.end {
            return None;
        }
        let (row, count) = (self.row, (CHUNK - self.position % CHUNK).min(self.end - self.position));
        self.position += count;
        // A chunk never goes past the last row: see `View`.
        self.row = if row + count == self.rows { 0 } else { row + count };
        Some((row, count))
    }
}

impl View<'_> {
    /// The chunks; checks that all sizes are as they should be.
    fn chunks(&self, size: usize) -> Chunks {
        let rows = match self.store {
            Store::Half { keys, values } => {
                assert!(keys.len() == values.len(), "as many keys as values");
                keys.len() / size
            }
            Store::Blocks { keys, values } => {
                let rows = keys.quants.len() / size;
                let (len, scales) = (rows * size, rows * size / BLOCK);
                assert!(
                    size.is_multiple_of(BLOCK)
                        && size <= BLOCKS_HEAD
                        && keys.quants.len() == len
                        && values.quants.len() == len
                        && keys.scales.len() == scales
                        && values.scales.len() == scales,
                    "whole blocks, a scale each"
                );
                rows
            }
        };
        assert!(
            self.first < self.end
                && self.end - self.first <= rows
                && (self.end <= rows || rows.is_multiple_of(CHUNK)),
            "positions that there are rows for"
        );
        Chunks { position: self.first, end: self.end, row: self.first % rows, rows }
    }
}

/// Attention of `group` query heads over the positions of a view.
///
/// `q` and `out`: group × head size floats.
///
/// # Panics
/// If sizes disagree.
pub fn attend_group(
    level: Level,
    out: &mut [f32],
    q: &[f32],
    view: View<'_>,
    group: usize,
    scoring: Scoring,
) {
    let size = q.len() / group;
    assert!(out.len() == q.len() && q.len() == group * size, "heads of one size");
    let chunks = view.chunks(size);
    match (level, view.store) {
        #[cfg(target_arch = "aarch64")]
        (Level::Neon(_) | Level::Dotprod(_), Store::Half { keys, values }) if size.is_multiple_of(8) => {
            together(out, q, size, |out, q| {
                // SAFETY: the level proves the instructions; sizes were checked above.
                unsafe { neon::heads(out, q, keys, values, size, chunks, scoring) }
            });
        }
        #[cfg(target_arch = "aarch64")]
        (Level::Neon(_) | Level::Dotprod(_), Store::Blocks { keys, values }) => {
            together(out, q, size, |out, q| {
                let query = Query::of(level, q);
                // SAFETY: the level proves the instructions; sizes were checked above.
                unsafe { blocks_neon::heads(level, out, &query, keys, values, size, chunks, scoring) }
            });
        }
        (_, Store::Half { keys, values }) => {
            for (out, q) in out.chunks_exact_mut(size).zip(q.chunks_exact(size)) {
                head_plain(level, out, q, HalfRows { keys, values, size }, chunks, scoring);
            }
        }
        (_, Store::Blocks { keys, values }) => {
            let rows = chunks.rows;
            for (out, q) in out.chunks_exact_mut(size).zip(q.chunks_exact(size)) {
                let query = &Query::of(level, q);
                head_plain(level, out, q, BlockRows { query, keys, values, size, rows }, chunks, scoring);
            }
        }
    }
}

/// As even shares as can be of at most four heads, whose sums fit into the registers.
#[cfg(target_arch = "aarch64")]
fn together(mut out: &mut [f32], mut q: &[f32], size: usize, mut run: impl FnMut(&mut [f32], &[f32])) {
    while !q.is_empty() {
        let left = q.len() / size;
        let heads = left.div_ceil(left.div_ceil(TOGETHER));
        let (out_here, q_here);
        (out_here, out) = out.split_at_mut(heads * size);
        (q_here, q) = q.split_at(heads * size);
        run(out_here, q_here);
    }
}

/// Query heads as blocks of 8-bit integers, head after head.
struct Query {
    quants: [i8; TOGETHER * BLOCKS_HEAD],
    scales: [f32; TOGETHER * BLOCKS_HEAD / BLOCK],
}

impl Query {
    fn of(level: Level, q: &[f32]) -> Self {
        let mut query =
            Self { quants: [0; TOGETHER * BLOCKS_HEAD], scales: [0.0; TOGETHER * BLOCKS_HEAD / BLOCK] };
        let blocks = q.chunks_exact(BLOCK).zip(query.quants.chunks_exact_mut(BLOCK)).zip(&mut query.scales);
        for ((values, quants), scale) in blocks {
            *scale = quantize::block(level, values, quants).0;
        }
        query
    }
}

/// What the definition asks of keys and values.
trait Rows: Copy {
    /// The product of the query and the key of a row.
    fn score<M: Fused>(self, q: &[f32], row: usize) -> f32;
    /// `out += weight × value of a row`, fused.
    fn add<M: Fused>(self, out: &mut [f32], row: usize, weight: f32);
}

compiled_twice! {
    fn head_plain[R: Rows](out: &mut [f32], q: &[f32], rows: R, chunks: Chunks, scoring: Scoring) = head_body;
}

/// The definition.
#[inline(always)]
fn head_body<M: Fused, R: Rows>(out: &mut [f32], q: &[f32], rows: R, chunks: Chunks, scoring: Scoring) {
    let Scoring { scale, softcap } = scoring;
    let inverse_cap = 1.0 / softcap;
    let (mut peak, mut total) = (f32::NEG_INFINITY, 0f32);
    out.fill(0.0);
    for (first, count) in chunks {
        let mut weights = [0f32; CHUNK];
        let weights = &mut weights[..count];
        let before = peak;
        for (index, score) in weights.iter_mut().enumerate() {
            *score = rows.score::<M>(q, first + index) * scale;
            if softcap != 0.0 {
                *score = capped_body::<M>(*score, softcap, inverse_cap);
            }
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
        for (index, weight) in weights.iter().enumerate() {
            rows.add::<M>(out, first + index, *weight);
        }
    }
    let inverse = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= inverse);
}

/// cap × tanh(score / cap), within 2⁻²² cap: with e = exp(−2 |x|), tanh |x| is (1 − e) / (1 + e).
#[inline(always)]
fn capped_body<M: Fused>(score: f32, cap: f32, inverse: f32) -> f32 {
    let x = score * inverse;
    let e = exp_body::<M>(-2.0 * x.abs());
    cap * ((1.0 - e) / (1.0 + e)).copysign(x)
}

#[derive(Clone, Copy)]
struct HalfRows<'a> {
    keys: &'a [u16],
    values: &'a [u16],
    size: usize,
}

impl Rows for HalfRows<'_> {
    /// In four lanes by index: sums of four positions are one vector sooner than with eight.
    #[inline(always)]
    fn score<M: Fused>(self, q: &[f32], row: usize) -> f32 {
        let key = &self.keys[row * self.size..][..self.size];
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

    #[inline(always)]
    fn add<M: Fused>(self, out: &mut [f32], row: usize, weight: f32) {
        let value = &self.values[row * self.size..][..self.size];
        let ((out_whole, out_rest), (value_whole, value_rest)) =
            (out.as_chunks_mut::<8>(), value.as_chunks::<8>());
        for (out, value) in out_whole.iter_mut().zip(value_whole) {
            *out = M::madd8(M::widen8(*value), [weight; 8], *out);
        }
        for (out, value) in out_rest.iter_mut().zip(value_rest) {
            *out = M::madd(half::f16::from_bits(*value).to_f32(), weight, *out);
        }
    }
}

#[derive(Clone, Copy)]
struct BlockRows<'a> {
    query: &'a Query,
    keys: Blocks<'a>,
    values: Blocks<'a>,
    size: usize,
    rows: usize,
}

impl Rows for BlockRows<'_> {
    /// Integers are summed exactly within a block; one accumulator takes the blocks in order.
    #[inline(always)]
    fn score<M: Fused>(self, _: &[f32], row: usize) -> f32 {
        let key = self.keys.quants[row * self.size..][..self.size].as_chunks::<BLOCK>().0;
        let query = self.query.quants.as_chunks::<BLOCK>().0.iter().zip(&self.query.scales);
        let mut score = 0f32;
        for (block, (key, (q, q_scale))) in key.iter().zip(query).enumerate() {
            let sum: i32 = key.iter().zip(q).map(|(&key, &q)| i32::from(key) * i32::from(q)).sum();
            let scale = half::f16::from_bits(self.keys.scales[block * self.rows + row]).to_f32();
            score = M::madd(sum as f32, scale * q_scale, score);
        }
        score
    }

    #[inline(always)]
    fn add<M: Fused>(self, out: &mut [f32], row: usize, weight: f32) {
        let value = self.values.quants[row * self.size..][..self.size].as_chunks::<BLOCK>().0;
        for (block, (out, value)) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(value).enumerate() {
            let scale = half::f16::from_bits(self.values.scales[block * self.rows + row]).to_f32();
            let weight = weight * scale;
            for (out, value) in out.as_chunks_mut::<8>().0.iter_mut().zip(value.as_chunks::<8>().0) {
                *out = M::madd8(value.map(f32::from), [weight; 8], *out);
            }
        }
    }
}
