//! Weight formats: how a block lies in memory, and how a tile of rows is multiplied.
//!
//! # How to add a format
//!
//! Write `NAME.rs` with a type that implements [`Format`], and add its row to [`FORMATS`]. If its blocks hold
//! 32 weights with a scale and perhaps a minimum, implement [`block32::Block32`], which makes it a `Format`:
//! `unpack` says what a block means, `quad` does the same with vectors, and the shared tiles do the rest. If they hold 256
//! and nothing faster is at hand, implement [`rows::Unpack`]: what 32 of them mean, in plain code, and nothing else.
//! `tests/kernels.rs` walks the table: a row is tested by existing.
//!
//! # Tiles
//!
//! [`TILE`] rows are a tile. When a model is loaded, each whole tile is rearranged within its own bytes as its format
//! likes best ([`Format::arrange`]); rows past the last whole tile stay as in the file. Nothing else ever looks at a
//! tile's bytes.
//!
//! # The contract
//!
//! [`Format::dot`] is the definition: integers are summed exactly within a block, and one f32 accumulator takes
//! the blocks in order, by one fused multiply-add each (and one more for a minimum). [`Format::multiply`] gives the
//! very same bits at every level, for any number of rows and columns.
#![allow(unsafe_code)] // vector kernels: pointers into slices whose lengths are checked once a tile

pub mod block32;
pub mod float;
mod grids;
pub mod input;
mod iq;
mod iq1;
mod iq2;
mod iq3;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
pub mod quads;
pub mod rows;
pub mod superblock;
mod tq;

pub use input::{Forms, GROUP, Inputs};

use crate::simd::Level;
use float::Floats;
use rows::Rows;
use superblock::Superblocks;

/// Rows in a tile.
pub const TILE: usize = 16;

/// The products of a tile with one column: a sum for each row.
pub type Sums = [f32; TILE];

/// A weight format.
pub trait Format {
    /// Number in the GGUF tensor directory.
    const ID: u32;
    /// As people write it.
    const NAME: &'static str;
    /// Weights in a block.
    const LEN: usize;
    /// Bytes in a block.
    const BYTES: usize;
    /// Expands a row as it is in the file: `row.len() / BYTES * LEN` weights.
    fn dequantize(row: &[u8], weights: &mut [f32]);
    /// The definition: one row as it is in the file times one column, in plain code.
    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32;
    /// Rearranges [`TILE`] rows, one after the other as in the file, into a tile of as many bytes.
    fn arrange(rows: &[u8], tile: &mut [u8]);
    /// Expands one row of a tile.
    fn dequantize_arranged(tile: &[u8], row: usize, weights: &mut [f32]);
    /// Some tiles, one after the other, times `columns` columns from `first` on, all of one group: `sums` gets those of
    /// the first tile with each column, then those of the second, and so on.
    fn multiply(level: Level, tiles: &[u8], inputs: &Inputs, first: usize, columns: usize, sums: &mut [Sums]);
    /// Packs weights into blocks, for tests and synthetic models. Rounds to nearest; not meant to be the best
    /// quantizer of the format.
    fn quantize(weights: &[f32], row: &mut alloc::vec::Vec<u8>);
}

/// A format as a row of [`FORMATS`].
#[derive(Clone, Copy)]
pub struct Row {
    /// Number in the GGUF tensor directory.
    pub id: u32,
    /// As people write it.
    pub name: &'static str,
    /// Weights in a block.
    pub len: usize,
    /// Bytes in a block.
    pub bytes: usize,
    /// [`Format::dequantize`].
    pub dequantize: fn(&[u8], &mut [f32]),
    /// [`Format::dot`].
    pub dot: fn(&[u8], &Inputs, usize) -> f32,
    /// [`Format::arrange`].
    pub arrange: fn(&[u8], &mut [u8]),
    /// [`Format::dequantize_arranged`].
    pub dequantize_arranged: fn(&[u8], usize, &mut [f32]),
    /// [`Format::multiply`].
    pub multiply: fn(Level, &[u8], &Inputs, usize, usize, &mut [Sums]),
    /// [`Format::quantize`].
    pub quantize: fn(&[f32], &mut alloc::vec::Vec<u8>),
}

impl Row {
    const fn of<F: Format>() -> Self {
        Self {
            id: F::ID,
            name: F::NAME,
            len: F::LEN,
            bytes: F::BYTES,
            dequantize: F::dequantize,
            dot: F::dot,
            arrange: F::arrange,
            dequantize_arranged: F::dequantize_arranged,
            multiply: F::multiply,
            quantize: F::quantize,
        }
    }

    /// Bytes of a row of this many weights.
    pub fn row_bytes(&self, columns: usize) -> usize {
        columns / self.len * self.bytes
    }

    /// What it multiplies with.
    pub fn forms(&self) -> Forms {
        Forms { floats: self.len == 1, blocks: self.len > 1 }
    }
}

impl core::fmt::Debug for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// The formats that can be multiplied.
pub static FORMATS: &[Row] = &[
    Row::of::<Floats<f32>>(),
    Row::of::<Floats<half::f16>>(),
    Row::of::<Floats<half::bf16>>(),
    Row::of::<q4_0::Q4_0>(),
    Row::of::<q4_1::Q4_1>(),
    Row::of::<q5_0::Q5_0>(),
    Row::of::<q5_1::Q5_1>(),
    Row::of::<q8_0::Q8_0>(),
    Row::of::<Superblocks<q2_k::Q2_K>>(),
    Row::of::<Superblocks<q3_k::Q3_K>>(),
    Row::of::<Superblocks<q4_k::Q4_K>>(),
    Row::of::<Superblocks<q5_k::Q5_K>>(),
    Row::of::<Superblocks<q6_k::Q6_K>>(),
    Row::of::<iq4_nl::Iq4Nl>(),
    Row::of::<Superblocks<iq4_xs::Iq4Xs>>(),
    Row::of::<mxfp4::Mxfp4>(),
    Row::of::<Rows<tq::Tq1>>(),
    Row::of::<Superblocks<tq::Tq2>>(),
    Row::of::<Rows<iq3::Iq3S>>(),
    Row::of::<Rows<iq3::Iq3Xxs>>(),
    Row::of::<Rows<iq2::Iq2S>>(),
    Row::of::<Rows<iq2::Iq2Xs>>(),
    Row::of::<Rows<iq2::Iq2Xxs>>(),
    Row::of::<Rows<iq1::Iq1M>>(),
    Row::of::<Rows<iq1::Iq1S>>(),
];

/// The format with this GGUF number.
pub fn by_id(id: u32) -> Option<&'static Row> {
    FORMATS.iter().find(|row| row.id == id)
}

/// The format of this name.
pub fn by_name(name: &str) -> Option<&'static Row> {
    FORMATS.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}
