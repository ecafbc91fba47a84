//! Formats without a tile layout of their own: rows stay as in the file, and 32 weights of each row of a tile at a time are
//! unpacked to bytes, once for all columns of a group.
//!
//! # How to add a format
//!
//! Implement [`Unpack`], and add `Row::of::<rows::Rows<NAME>>()` to the table. All that is asked for is what 32 weights
//! mean, in plain code. It is right at every level by itself. One column costs 7 (TQ1_0 beside TQ2_0) to 14 times (IQ3_S
//! beside Q3_K) the instructions of a format with tiles, because unpacking is most of it, 32 columns about twice.
//!
//! # The definition
//!
//! 32 weights are two halves of 16, each with an integer scale: their products with a column's quants are summed exactly,
//! `sum = scale₀ × Σ₀ + scale₁ × Σ₁`, and `fma(sum, unit × x.scale, total)` adds them to the row's accumulator.

use super::input::{BLOCK, Block, Inputs};
#[cfg(target_arch = "aarch64")]
use super::quads;
use super::{Format, Sums, TILE};
use crate::simd::Level;
use crate::simd::fused::{Fused, Soft};
use alloc::vec::Vec;
use core::marker::PhantomData;

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// Weights of a block.
pub const LEN: usize = 256;

/// 32 weights of a row, unpacked. One is `unit × scale × quant`.
pub struct Part {
    /// The integers, eight a word, the first in its lowest byte.
    pub quants: [u64; 4],
    /// What one unit is worth.
    pub unit: f32,
    /// What the two halves are multiplied by; 1 and 1 where [`Unpack::HALVES`] says so.
    pub scales: [i32; 2],
}

impl Part {
    /// One scale for all.
    pub fn whole(quants: [u64; 4], unit: f32) -> Self {
        Self { quants, unit, scales: [1; 2] }
    }

    /// A scale for each half.
    pub fn halves(quants: [u64; 4], unit: f32, scales: [i32; 2]) -> Self {
        Self { quants, unit, scales }
    }
}

/// A [`Part`] in vectors.
#[cfg(target_arch = "aarch64")]
pub struct Vectors {
    /// The integers, in order.
    pub quants: [int8x16_t; 2],
    /// As in a [`Part`].
    pub unit: f32,
    /// As in a [`Part`].
    pub scales: [i32; 2],
}

/// A format of blocks of 256 weights, of which any 32 can be unpacked alone.
pub trait Unpack {
    /// Number in the GGUF tensor directory.
    const ID: u32;
    /// As people write it.
    const NAME: &'static str;
    /// Bytes in a block.
    const BYTES: usize;
    /// Whether the halves of a part have scales.
    const HALVES: bool;
    /// Largest magnitude of a quant, up to 64: four products with activations fit in 16 bits (4 × 64 × 127 = 32,512).
    const PEAK: u32;
    /// The weights from `32 × part` on of a block of [`Self::BYTES`] bytes.
    fn part(block: &[u8], part: usize) -> Part;
    /// The same in vectors, where they are faster.
    ///
    /// # Safety
    /// The block lies in normal memory.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn vectors(block: &[u8], part: usize) -> Vectors {
        let Part { quants: [a, b, c, d], unit, scales } = Self::part(block, part);
        // SAFETY: Advanced SIMD is part of every AArch64 target of this project.
        let quants =
            [[a, b], [c, d]].map(|[low, high]| unsafe { vcombine_s8(vcreate_s8(low), vcreate_s8(high)) });
        Vectors { quants, unit, scales }
    }
    /// [`Format::quantize`].
    fn quantize(weights: &[f32], row: &mut Vec<u8>);
}

/// Makes a [`Format`] of what can be unpacked.
pub struct Rows<F>(PhantomData<F>);

impl<F: Unpack> Format for Rows<F> {
    const ID: u32 = F::ID;
    const NAME: &'static str = F::NAME;
    const LEN: usize = LEN;
    const BYTES: usize = F::BYTES;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (index, out) in weights.chunks_exact_mut(BLOCK).enumerate() {
            let part = part_of::<F>(row, index);
            for (half, out) in out.chunks_exact_mut(BLOCK / 2).enumerate() {
                let scale = if F::HALVES { part.unit * part.scales[half] as f32 } else { part.unit };
                for (i, weight) in out.iter_mut().enumerate() {
                    *weight = scale * f32::from(quant(&part, half * BLOCK / 2 + i));
                }
            }
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut total = 0.0;
        for index in 0..inputs.blocks() {
            total = add_part(&part_of::<F>(row, index), inputs.block(column, index), total);
        }
        total
    }

    fn arrange(rows: &[u8], tile: &mut [u8]) {
        tile.copy_from_slice(rows);
    }

    fn dequantize_arranged(tile: &[u8], row: usize, weights: &mut [f32]) {
        let bytes = tile.len() / TILE;
        Self::dequantize(&tile[row * bytes..][..bytes], weights);
    }

    fn multiply(
        level: Level,
        tiles: &[u8],
        inputs: &Inputs,
        first: usize,
        columns: usize,
        sums: &mut [Sums],
    ) {
        assert_eq!(inputs.blocks() * BLOCK % LEN, 0, "whole blocks");
        let row_bytes = inputs.blocks() * BLOCK / LEN * F::BYTES;
        match level {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the level proves the instructions.
            Level::Neon(_) => unsafe { multiply_neon::<F>(tiles, row_bytes, inputs, first, columns, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Level::Dotprod(_) => unsafe {
                multiply_dotprod::<F>(tiles, row_bytes, inputs, first, columns, sums)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Fma(_) => unsafe { multiply_avx2::<F>(tiles, row_bytes, inputs, first, columns, sums) },
            _ => multiply_plain::<F>(tiles, row_bytes, inputs, first, columns, sums),
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        F::quantize(weights, row);
    }
}

/// Parts of a block.
const PARTS: usize = LEN / BLOCK;

/// The block that part `index` of a row is in.
#[inline(always)]
fn block_of<F: Unpack>(row: &[u8], index: usize) -> &[u8] {
    &row[index / PARTS * F::BYTES..][..F::BYTES]
}

/// The 32 weights from `32 × index` on of a row.
#[inline(always)]
fn part_of<F: Unpack>(row: &[u8], index: usize) -> Part {
    F::part(block_of::<F>(row, index), index % PARTS)
}

#[inline(always)]
fn quant(part: &Part, index: usize) -> i8 {
    (part.quants[index / 8] >> (index % 8 * 8)) as i8
}

/// What a part adds to its row's accumulator: the definition.
#[inline(always)]
fn add_part(part: &Part, x: Block<'_>, mut total: f32) -> f32 {
    let product = |i: usize| i32::from(quant(part, i)) * i32::from(x.quants[i]);
    let [first, second] = [0..BLOCK / 2, BLOCK / 2..BLOCK];
    let sums: [i32; 2] = [first.clone().map(product).sum(), second.clone().map(product).sum()];
    total =
        Soft::madd((part.scales[0] * sums[0] + part.scales[1] * sums[1]) as f32, part.unit * x.scale, total);
    total
}

/// 32 weights of each row of a tile, as kernels multiply them: a quad is four rows, a vector the same four columns of
/// each.
#[repr(C, align(32))]
struct Stage {
    /// Quad × four columns × row × column.
    quants: [[[u32; 4]; BLOCK / 4]; TILE / 4],
    units: [f32; TILE],
    scales: [[i32; TILE]; 2],
}

impl Stage {
    const EMPTY: Self =
        Self { quants: [[[0; 4]; BLOCK / 4]; TILE / 4], units: [0.0; TILE], scales: [[0; TILE]; 2] };

    /// Takes the weights from `32 × index` on of the rows.
    #[cfg(target_arch = "aarch64")]
    #[inline]
    #[target_feature(enable = "neon")]
    fn fill<F: Unpack>(&mut self, rows: &[&[u8]; TILE], index: usize) {
        let (quads, _) = rows.as_chunks::<4>();
        for (quad, (rows, words)) in quads.iter().zip(&mut self.quants).enumerate() {
            let mut halves = [[vdupq_n_s32(0); 4]; 2];
            for (row, bytes) in rows.iter().enumerate() {
                // SAFETY: weights lie in normal memory.
                let Vectors { quants, unit, scales } =
                    unsafe { F::vectors(block_of::<F>(bytes, index), index % PARTS) };
                halves[0][row] = vreinterpretq_s32_s8(quants[0]);
                halves[1][row] = vreinterpretq_s32_s8(quants[1]);
                self.units[4 * quad + row] = unit;
                if F::HALVES {
                    self.scales[0][4 * quad + row] = scales[0];
                    self.scales[1][4 * quad + row] = scales[1];
                }
            }
            for (half, rows) in halves.into_iter().enumerate() {
                // SAFETY: four of eight vectors of a quad, aligned.
                unsafe {
                    words.as_mut_ptr().cast::<[int32x4_t; 4]>().add(half).write(neon::transpose(rows));
                }
            }
        }
    }

    /// Takes the weights from `32 × index` on of the rows.
    #[cfg(not(target_arch = "aarch64"))]
    #[inline(always)]
    fn fill<F: Unpack>(&mut self, rows: &[&[u8]; TILE], index: usize) {
        for (row, bytes) in rows.iter().enumerate() {
            let part = part_of::<F>(bytes, index);
            let quad = &mut self.quants[row / 4];
            for (i, eight) in part.quants.into_iter().enumerate() {
                quad[2 * i][row % 4] = eight as u32;
                quad[2 * i + 1][row % 4] = (eight >> 32) as u32;
            }
            self.units[row] = part.unit;
            if F::HALVES {
                [self.scales[0][row], self.scales[1][row]] = part.scales;
            }
        }
    }
}

/// The definition, tile by tile.
fn multiply_plain<F: Unpack>(
    tiles: &[u8],
    row_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    sums.fill([0.0; TILE]);
    for (tile, sums) in tiles.chunks_exact(TILE * row_bytes).zip(sums.chunks_exact_mut(columns)) {
        for (row, bytes) in tile.chunks_exact(row_bytes).enumerate() {
            for index in 0..inputs.blocks() {
                let part = part_of::<F>(bytes, index);
                for (column, sums) in sums.iter_mut().enumerate() {
                    sums[row] = add_part(&part, inputs.block(first + column, index), sums[row]);
                }
            }
        }
    }
}

/// Makes the function that multiplies tiles at a level, of one that adds a stage times a column to its sums.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! multiply {
    ($name:ident, $features:literal, $add:ident) => {
        #[target_feature(enable = $features)]
        fn $name<F: Unpack>(
            tiles: &[u8],
            row_bytes: usize,
            inputs: &Inputs,
            first: usize,
            columns: usize,
            sums: &mut [Sums],
        ) {
            let mut stage = Stage::EMPTY;
            for (tile, sums) in tiles.chunks_exact(TILE * row_bytes).zip(sums.chunks_exact_mut(columns)) {
                sums.fill([0.0; TILE]);
                let rows = core::array::from_fn(|row| &tile[row * row_bytes..][..row_bytes]);
                for index in 0..inputs.blocks() {
                    stage.fill::<F>(&rows, index);
                    for (column, sums) in sums.iter_mut().enumerate() {
                        $add::<F>(&stage, inputs.block(first + column, index), sums);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "aarch64")]
multiply! { multiply_neon, "neon", add_neon }
#[cfg(target_arch = "aarch64")]
multiply! { multiply_dotprod, "neon,dotprod", add_dotprod }
#[cfg(target_arch = "x86_64")]
multiply! { multiply_avx2, "avx2,fma,f16c", add_avx2 }

/// Adds a stage times a column on a CPU with `sdot`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dotprod<F: Unpack>(stage: &Stage, x: Block<'_>, sums: &mut Sums) {
    // SAFETY: 32 quants.
    let (low, high) = unsafe { neon::load_pair(x.quants.as_ptr().cast()) };
    let zero = vdupq_n_s32(0);
    for (quad, words) in stage.quants.iter().enumerate() {
        // SAFETY: eight vectors.
        let w = unsafe { quads::bytes(&mut words.as_ptr().cast()) };
        let first = neon::sdot_lane::<0>(zero, w[0], low);
        let first = neon::sdot_lane::<1>(first, w[1], low);
        let first = neon::sdot_lane::<2>(first, w[2], low);
        let first = neon::sdot_lane::<3>(first, w[3], low);
        let second = neon::sdot_lane::<0>(if F::HALVES { zero } else { first }, w[4], high);
        let second = neon::sdot_lane::<1>(second, w[5], high);
        let second = neon::sdot_lane::<2>(second, w[6], high);
        let second = neon::sdot_lane::<3>(second, w[7], high);
        // SAFETY: `quad` is below 4.
        unsafe { finish_neon::<F>(stage, quad, [first, second], &x, sums) };
    }
}

/// The same without.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn add_neon<F: Unpack>(stage: &Stage, x: Block<'_>, sums: &mut Sums) {
    const { assert!(F::PEAK <= 64, "four products fit in 16 bits") };
    // SAFETY: 32 quants, which inputs keep aligned.
    let repeated = unsafe { quads::repeated(x.quants.as_ptr().cast()) };
    for (quad, words) in stage.quants.iter().enumerate() {
        // SAFETY: eight vectors.
        let w = unsafe { quads::bytes(&mut words.as_ptr().cast()) };
        let more = |(low, high), i: usize| {
            (quads::smlal(low, w[i], repeated[i]), quads::smlal2(high, w[i], repeated[i]))
        };
        let half = |i: usize| {
            let (low, high) = more(more(more(quads::smull(w[i], repeated[i]), i + 1), i + 2), i + 3);
            // Rows 0 and 1 are in the low halves, 2 and 3 in the high ones. Two sums of four products fit where a quant has 5 bits.
            match F::PEAK {
                ..=32 => vpaddlq_s16(quads::addp_16(low, high)),
                _ => quads::addp_32(vpaddlq_s16(low), vpaddlq_s16(high)),
            }
        };
        let [first, second] = [half(0), half(4)];
        let halves = if F::HALVES { [first, second] } else { [first, vaddq_s32(first, second)] };
        // SAFETY: `quad` is below 4.
        unsafe { finish_neon::<F>(stage, quad, halves, &x, sums) };
    }
}

/// Scales the sums of both halves of a quad, or of all in the second where halves have no scales, and adds them.
///
/// # Safety
/// `quad` must be below 4.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish_neon<F: Unpack>(
    stage: &Stage,
    quad: usize,
    [first, second]: [int32x4_t; 2],
    x: &Block<'_>,
    sums: &mut Sums,
) {
    // SAFETY: four of 16 numbers, for `quad` is below 4; those of the stage are aligned to 16 bytes.
    unsafe {
        let integers = |from: &[i32; TILE]| from.as_ptr().cast::<int32x4_t>().add(quad).read();
        let floats = |from: &[f32; TILE]| from.as_ptr().cast::<float32x4_t>().add(quad).read();
        let sum = if F::HALVES {
            vmlaq_s32(vmulq_s32(first, integers(&stage.scales[0])), second, integers(&stage.scales[1]))
        } else {
            second
        };
        let to = sums.as_mut_ptr().add(4 * quad);
        let total = neon::load_floats_at::<0>(to);
        let total = vfmaq_f32(total, vcvtq_f32_s32(sum), vmulq_n_f32(floats(&stage.units), x.scale));
        neon::store_floats(to, total);
    }
}

/// The same on a PC.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_avx2<F: Unpack>(stage: &Stage, x: Block<'_>, sums: &mut Sums) {
    // SAFETY: 32 quants; eight vectors a quad; four of 16 numbers, for there are four quads. The loads take any alignment.
    unsafe {
        let column = _mm256_loadu_si256(x.quants.as_ptr().cast());
        let repeated = [
            _mm256_permutevar8x32_epi32(column, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
            _mm256_permutevar8x32_epi32(column, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
            _mm256_permutevar8x32_epi32(column, _mm256_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5)),
            _mm256_permutevar8x32_epi32(column, _mm256_setr_epi32(6, 6, 6, 6, 7, 7, 7, 7)),
        ];
        let ones = _mm256_set1_epi16(1);
        let scale = _mm_set1_ps(x.scale);
        for (quad, words) in stage.quants.iter().enumerate() {
            let mut halves = [_mm256_setzero_si256(); 2];
            for (i, x) in repeated.into_iter().enumerate() {
                let w = _mm256_loadu_si256(words.as_ptr().cast::<__m256i>().add(i));
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                halves[i / 2] = _mm256_add_epi32(halves[i / 2], _mm256_madd_epi16(pairs, ones));
            }
            let first =
                _mm_add_epi32(_mm256_castsi256_si128(halves[0]), _mm256_extracti128_si256::<1>(halves[0]));
            let second =
                _mm_add_epi32(_mm256_castsi256_si128(halves[1]), _mm256_extracti128_si256::<1>(halves[1]));
            let sum = if F::HALVES {
                let scales = [
                    _mm_loadu_si128(stage.scales[0].as_ptr().cast::<__m128i>().add(quad)),
                    _mm_loadu_si128(stage.scales[1].as_ptr().cast::<__m128i>().add(quad)),
                ];
                _mm_add_epi32(_mm_mullo_epi32(first, scales[0]), _mm_mullo_epi32(second, scales[1]))
            } else {
                _mm_add_epi32(first, second)
            };
            let to = sums.as_mut_ptr().add(4 * quad);
            let units = _mm_mul_ps(_mm_loadu_ps(stage.units.as_ptr().add(4 * quad)), scale);
            let total = _mm_fmadd_ps(_mm_cvtepi32_ps(sum), units, _mm_loadu_ps(to));
            _mm_storeu_ps(to, total);
        }
    }
}
