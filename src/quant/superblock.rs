//! Formats whose block is 256 weights: eight parts of 32 that share what their scales are made of.
//!
//! A weight is `scale × quant + minimum` with both numbers of its part, or, where each 16 weights have a whole number as a
//! factor of their own, `scale × factor × quant`, perhaps with a minimum of each 16. So a part contributes
//! `(Σ factor × quant × x.quant) × (scale × x.scale)`, then `minimum × x.sum`, or that of the first 16 and that of the last, to its
//! row's accumulator, each by one fused multiply-add; the sum is exact, factors and all.
//!
//! # How to add such a format
//!
//! Write `NAME.rs` with a type that implements [`Quads`] and [`Superblock`], and add `Row::of::<Superblocks<NAME>>()` to
//! [`super::FORMATS`].
//!
//! * `unpack` says what a part of a block means: it is the definition.
//! * `sort` puts a block's bytes and bits into the order in which a tile has them: first [`Superblock::NUMBERS`] binary16
//!   numbers, then [`Superblock::SMALL`] bytes (what scales are made of), then the quants of each part, as many bytes for each,
//!   in words of four; `unsort` puts them back.
//! * `scales` makes the scales of 16 rows at once from that head: plain loops over the rows, which the compiler turns into
//!   vector code. `part_bytes` has the bytes of one part's, where any part takes the same few steps to them.
//! * `quad` and `pairs` unpack a part of four rows, as in [`super::block32`]. Bits may be sorted so that this takes few
//!   instructions: [`super::q5_0`] and [`super::q6_k`] show how.
//!
//! # A tile
//!
//! 16 rows, superblock after superblock. Of each: the 16 rows' first number, their second, …; their first small byte, …; then,
//! part by part and quad by quad, the part's words in vectors of four rows × 4 bytes. Before a superblock is multiplied, its
//! scales are made into floats, [`Scales`], for all 16 rows; after that a part is like a block of [`super::block32`]. Arm kernels
//! for one column make those of a part when they come to it ([`Superblock::part_bytes`]).

use super::input::{BLOCK, Inputs};
#[cfg(target_arch = "aarch64")]
use super::quads::From;
use super::quads::Quads;
use super::{Format, Sums, TILE};
use crate::simd::Level;
use crate::simd::fused::{Fused, Soft};
use alloc::vec::Vec;
use core::marker::PhantomData;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::{int8x16_t, uint8x16_t};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod kernels;
#[cfg(target_arch = "aarch64")]
mod one_column;

/// Weights in a superblock.
pub const LEN: usize = 256;
/// Parts of a superblock: blocks of 32 weights.
pub const PARTS: usize = LEN / BLOCK;
/// The largest superblock.
const MOST: usize = 256;

/// A part of a block, unpacked.
pub struct Part {
    /// The integers.
    pub quants: [i8; BLOCK],
    /// What the first and the last 16 of them are multiplied by: 1 but where [`Superblock::SIXTEENS`].
    pub factors: [i32; 2],
    /// What one unit is worth.
    pub scale: f32,
    /// What is added to each of the first and of the last 16 weights: the same but where [`Superblock::SIXTEENS`]; 0 in formats
    /// without.
    pub minimums: [f32; 2],
}

/// The scales of a superblock of 16 rows.
#[repr(C, align(64))]
pub struct Scales {
    /// What one unit of each part is worth in each row; where [`Superblock::SIXTEENS`], only those of part 0, for all.
    pub scales: [[f32; TILE]; PARTS],
    /// Each part's minimum in each row, if there are any, or that of each 16 weights.
    pub minimums: [[f32; TILE]; 2 * PARTS],
    /// The factor of each 16 weights in each row, if there are any.
    pub factors: [[i32; TILE]; 2 * PARTS],
}

impl Scales {
    /// Room for them.
    const NONE: Self = Self {
        scales: [[0.0; TILE]; PARTS],
        minimums: [[0.0; TILE]; 2 * PARTS],
        factors: [[0; TILE]; 2 * PARTS],
    };
}

/// What a superblock of a tile begins with.
#[derive(Clone, Copy)]
pub struct Head<'a>(&'a [u8]);

impl Head<'_> {
    /// Number `index` of each row.
    #[inline(always)]
    pub fn number(&self, index: usize) -> [f32; TILE] {
        let bytes = &self.0[2 * TILE * index..][..2 * TILE];
        #[cfg(target_arch = "aarch64")]
        // SAFETY: 32 bytes; four vectors are 16 floats.
        unsafe {
            let floats = crate::simd::neon::load_half_quad(bytes.as_ptr().cast());
            core::mem::transmute::<[core::arch::aarch64::float32x4_t; 4], [f32; TILE]>(floats)
        }
        #[cfg(not(target_arch = "aarch64"))]
        {
            let mut floats = [0.0; TILE];
            for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *float = half::f16::from_le_bytes(*bytes).to_f32();
            }
            floats
        }
    }

    /// Small byte `index` of each row, behind `numbers` numbers.
    #[inline(always)]
    pub fn small(&self, numbers: usize, index: usize) -> [u8; TILE] {
        let bytes = &self.0[2 * TILE * numbers + TILE * index..][..TILE];
        #[cfg(target_arch = "aarch64")]
        // SAFETY: 16 bytes, which may lie at any address.
        unsafe {
            core::mem::transmute::<int8x16_t, [u8; TILE]>(crate::simd::neon::load(bytes.as_ptr()))
        }
        #[cfg(not(target_arch = "aarch64"))]
        {
            let mut small = [0; TILE];
            small.copy_from_slice(bytes);
            small
        }
    }
}

/// The highest byte of 128, a float.
#[cfg(target_arch = "aarch64")]
const HIGH: u8 = (128f32.to_bits() >> 24) as u8;

/// Whole numbers below 128, with `less` (below 128, too) taken off each, as floats.
///
/// Put below a float's sign and exponent, such a number is the float 128 larger. So an Arm CPU needs no conversions, which
/// have only one of its two pipes: two rounds of interleaving, and a subtraction, which is exact.
#[inline(always)]
pub fn floats(small: [u8; TILE], less: u8) -> [f32; TILE] {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: registers only; 16 bytes are a vector, and four vectors 16 floats.
    unsafe {
        use core::arch::aarch64::*;
        let mut zero = vdupq_n_u16(0);
        // What is interleaved with a known zero, LLVM makes a shift again.
        core::arch::asm!("// {0:v}", inout(vreg) zero, options(pure, nomem, nostack, preserves_flags));
        let small = core::mem::transmute::<[u8; TILE], uint8x16_t>(small);
        let high = vdupq_n_u8(HIGH);
        let (low, high) = (vzip1q_u8(small, high), vzip2q_u8(small, high));
        let (low, high) = (vreinterpretq_u16_u8(low), vreinterpretq_u16_u8(high));
        let off = vdupq_n_f32(128.0 + f32::from(less));
        let float = |upper: uint16x8_t| vsubq_f32(vreinterpretq_f32_u16(upper), off);
        let floats = [
            float(vzip1q_u16(zero, low)),
            float(vzip2q_u16(zero, low)),
            float(vzip1q_u16(zero, high)),
            float(vzip2q_u16(zero, high)),
        ];
        core::mem::transmute::<[float32x4_t; 4], [f32; TILE]>(floats)
    }
    #[cfg(not(target_arch = "aarch64"))]
    small.map(|small| f32::from(small) - f32::from(less))
}

/// A format of superblocks: what differs between them. Wrapped in [`Superblocks`], it is a [`Format`].
pub trait Superblock: Quads + Sized {
    /// Number in the GGUF tensor directory.
    const ID: u32;
    /// As people write it.
    const NAME: &'static str;
    /// Bytes in a block.
    const BYTES: usize;
    /// Binary16 numbers in a block.
    const NUMBERS: usize;
    /// Bytes of a block that scales are made of; 0 where the first number is the scale of all parts.
    const SMALL: usize;
    /// Whether parts have a minimum, or, where [`Self::SIXTEENS`], each 16 weights.
    const MINIMUM: bool;
    /// Whether each 16 weights have a factor. Then a sum of 32 products of factor, quant and activation has to be below 2²⁴
    /// in magnitude, [`Quads::ZERO`] 0, and 8 products of a quant and an activation must fit in 16 bits. If the format is
    /// [`Quads::NARROW`], too, a factor times a quant has to fit in a signed byte as [`Self::scales`] tells the factor, which may
    /// turn its sign and that of the scale: kernels for several columns make one integer of both.
    const SIXTEENS: bool;
    /// What a part of a block means.
    fn unpack(block: &[u8], part: usize) -> Part;
    /// Puts a block of a file into a tile's order.
    fn sort(block: &[u8], sorted: &mut [u8]);
    /// Puts it back.
    fn unsort(sorted: &[u8], block: &mut [u8]);
    /// Makes the scales of 16 rows.
    fn scales(head: Head<'_>, scales: &mut Scales);
    /// What is taken off the bytes that scales (see [`floats`]) or factors are made of.
    const LESS: u8 = 0;
    /// For 16 rows and one column: what the scale of part `4 × half + quarter` is made of, a byte a row, then its minimum if there
    /// is one; or the factors of its first and of its last 16 weights, where they have minimums in the low half of a byte, below
    /// those, else [`Self::LESS`] larger, or signed bytes if that is 0.
    ///
    /// # Safety
    /// `small` must be where the small bytes of a superblock of a tile are.
    #[cfg(target_arch = "aarch64")]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2];
    /// The quants of a part of four rows, before [`Quads::ZERO`] is taken off: vector `i` is columns `4i` to `4i + 3` of each.
    /// `data` is the next quad's afterwards.
    ///
    /// # Safety
    /// The data of a quad ([`words`] vectors) must be readable at `data`, which may have any alignment.
    #[cfg(target_arch = "aarch64")]
    unsafe fn quad(data: &mut From) -> [int8x16_t; 8];
    /// The same for `sdot`, shifted left by [`Quads::FRACTION`] bits.
    ///
    /// # Safety
    /// As above.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise.
        unsafe { Self::quad(data) }
    }
    /// The same for 16 rows and one column: quad `QUAD` of a part, loaded from near its `middle`, where its quad 2 begins.
    ///
    /// # Safety
    /// The whole part must be readable, at any alignment.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_near<const QUAD: i32>(middle: From) -> [int8x16_t; 8] {
        let mut data = middle.wrapping_offset((QUAD as isize - 2) * words::<Self>().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { Self::quad_dotprod(&mut data) }
    }
    /// The same for a PC, two vectors a register.
    ///
    /// # Safety
    /// The data of a quad must be readable at `data`, and the CPU have AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4];
    /// [`Format::quantize`].
    fn quantize(weights: &[f32], row: &mut Vec<u8>);
}

/// Bytes of a block that come before its quants, once sorted.
const fn head<F: Superblock>() -> usize {
    2 * F::NUMBERS + F::SMALL
}

/// 4-byte words of a part's quants: vectors of a quad.
pub const fn words<F: Superblock>() -> usize {
    (F::BYTES - head::<F>()) / PARTS / 4
}

/// Where in a superblock of a tile a row's word of a part is.
const fn word_at<F: Superblock>(row: usize, part: usize, word: usize) -> usize {
    head::<F>() * TILE + ((part * TILE / 4 + row / 4) * words::<F>() + word) * 16 + row % 4 * 4
}

/// Each piece of a block in a tile's order, and where in the tile it is for a row: place in the block, in the tile, bytes.
#[inline(always)]
fn pieces<F: Superblock>(row: usize, mut visit: impl FnMut(usize, usize, usize)) {
    for number in 0..F::NUMBERS {
        visit(2 * number, 2 * (number * TILE + row), 2);
    }
    for small in 2 * F::NUMBERS..head::<F>() {
        visit(small, small * TILE + row, 1);
    }
    for part in 0..PARTS {
        for word in 0..words::<F>() {
            visit(head::<F>() + 4 * (part * words::<F>() + word), word_at::<F>(row, part, word), 4);
        }
    }
}

/// The format of such superblocks.
pub struct Superblocks<F>(PhantomData<F>);

impl<F: Superblock> Format for Superblocks<F> {
    const ID: u32 = F::ID;
    const NAME: &'static str = F::NAME;
    const LEN: usize = LEN;
    const BYTES: usize = F::BYTES;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (block, out) in row.chunks_exact(F::BYTES).zip(weights.chunks_exact_mut(LEN)) {
            expand::<F>(block, out);
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut total = 0.0;
        for (index, block) in row.chunks_exact(F::BYTES).enumerate() {
            for part in 0..PARTS {
                let at = PARTS * index + part;
                total = add_part::<F>(total, &F::unpack(block, part), inputs, column, at);
            }
        }
        total
    }

    fn arrange(rows: &[u8], tile: &mut [u8]) {
        const { assert!((F::BYTES - head::<F>()).is_multiple_of(4 * PARTS), "whole words") };
        let row_bytes = rows.len() / TILE;
        let mut sorted = [0; MOST];
        let sorted = &mut sorted[..F::BYTES];
        for (index, out) in tile.chunks_exact_mut(TILE * F::BYTES).enumerate() {
            for row in 0..TILE {
                F::sort(&rows[row * row_bytes + index * F::BYTES..][..F::BYTES], sorted);
                pieces::<F>(row, |from, to, len| {
                    out[to..to + len].copy_from_slice(&sorted[from..from + len])
                });
            }
        }
    }

    fn dequantize_arranged(tile: &[u8], row: usize, weights: &mut [f32]) {
        let mut block = [0; MOST];
        let block = &mut block[..F::BYTES];
        for (tile, out) in tile.chunks_exact(TILE * F::BYTES).zip(weights.chunks_exact_mut(LEN)) {
            unarranged::<F>(tile, row, block);
            expand::<F>(block, out);
        }
    }

    fn multiply(
        level: Level,
        tiles: &[u8],
        inputs: &Inputs,
        first: usize,
        columns: usize,
        sums: &mut [Sums],
    ) {
        const { assert!(!F::SIXTEENS || F::ZERO == 0, "nothing is taken off where there are factors") };
        const { assert!(!(F::SIXTEENS && F::NARROW) || matches!(F::FRACTION, 0 | 5), "as they are narrowed") };
        assert!(inputs.blocks().is_multiple_of(PARTS), "whole superblocks");
        let tile_bytes = inputs.blocks() / PARTS * TILE * F::BYTES;
        assert_eq!(
            tiles.len() * columns,
            tile_bytes * sums.len(),
            "tiles as long as the columns, and sums of each"
        );
        assert!(first + columns <= inputs.count(), "columns that there are");
        match level {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the level proves the instructions; tiles and columns have been checked above.
            Level::Neon(_) | Level::Dotprod(_) => unsafe {
                kernels::multiply::<F>(level, tiles, tile_bytes, inputs, first, columns, sums);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level proves the instructions; tiles and columns have been checked above.
            Level::Fma(_) => unsafe { avx2::multiply::<F>(tiles, tile_bytes, inputs, first, columns, sums) },
            _ => multiply_plain::<F>(tiles, tile_bytes, inputs, first, columns, sums),
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        F::quantize(weights, row);
    }
}

fn expand<F: Superblock>(block: &[u8], weights: &mut [f32]) {
    for (part, weights) in weights.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let part = F::unpack(block, part);
        for (half, factor) in part.factors.into_iter().enumerate() {
            let scale = if F::SIXTEENS { part.scale * factor as f32 } else { part.scale };
            let range = half * BLOCK / 2..(half + 1) * BLOCK / 2;
            for (weight, quant) in weights[range.clone()].iter_mut().zip(&part.quants[range]) {
                let scaled = f32::from(*quant) * scale;
                // −0 + 0 is 0: where there is no minimum, none is added.
                *weight = if F::MINIMUM { scaled + part.minimums[half] } else { scaled };
            }
        }
    }
}

/// The block of one row of a tile, as in a file.
fn unarranged<F: Superblock>(tile: &[u8], row: usize, block: &mut [u8]) {
    let mut sorted = [0; MOST];
    let sorted = &mut sorted[..F::BYTES];
    pieces::<F>(row, |to, from, len| sorted[to..to + len].copy_from_slice(&tile[from..from + len]));
    F::unsort(sorted, block);
}

/// What a part adds to its row's accumulator.
#[inline(always)]
fn add_part<F: Superblock>(total: f32, part: &Part, inputs: &Inputs, column: usize, index: usize) -> f32 {
    let x = inputs.block(column, index);
    let products = part.quants.iter().zip(x.quants).map(|(&w, &x)| i32::from(w) * i32::from(x));
    let sum: i32 = if F::SIXTEENS {
        products.enumerate().map(|(i, product)| part.factors[i / (BLOCK / 2)] * product).sum()
    } else {
        products.sum()
    };
    let total = Soft::madd(sum as f32, part.scale * x.scale, total);
    match part.minimums {
        _ if !F::MINIMUM => total,
        [first, last] if F::SIXTEENS => Soft::madd(last, x.halves[1], Soft::madd(first, x.halves[0], total)),
        [minimum, _] => Soft::madd(minimum, x.sum, total),
    }
}

/// The definition, tile by tile: for CPUs that nothing else is written for.
fn multiply_plain<F: Superblock>(
    tiles: &[u8],
    tile_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    sums.fill([0.0; TILE]);
    let mut block = [0; MOST];
    let block = &mut block[..F::BYTES];
    for (tile, sums) in tiles.chunks_exact(tile_bytes).zip(sums.chunks_exact_mut(columns)) {
        for (index, tile) in tile.chunks_exact(TILE * F::BYTES).enumerate() {
            for row in 0..TILE {
                unarranged::<F>(tile, row, block);
                for part in 0..PARTS {
                    let at = PARTS * index + part;
                    let part = F::unpack(block, part);
                    for (column, sums) in sums.iter_mut().enumerate() {
                        sums[row] = add_part::<F>(sums[row], &part, inputs, first + column, at);
                    }
                }
            }
        }
    }
}
