//! F32, F16 and BF16: weights that are floats. They are multiplied with the float activations, as [`crate::ops::dot`] defines.

use super::{Format, Inputs, Sums, TILE};
use crate::ops::dot::{LANES, dot, dot_bf16, dot_half, sum_lanes, widen_bf16};
use crate::simd::Level;
use crate::simd::fused::{Fused, Soft};
use alloc::vec::Vec;
use core::marker::PhantomData;

/// Rows that are floats stay as they are: tiles of them, too.
fn row_of(tile: &[u8], row: usize) -> &[u8] {
    let bytes = tile.len() / TILE;
    &tile[row * bytes..][..bytes]
}

/// Every row of the tiles, which are of rows of so many bytes, times every column: `dot(row, column)`.
fn multiply_rows(
    tiles: &[u8],
    row_bytes: usize,
    columns: usize,
    sums: &mut [Sums],
    dot: impl Fn(&[u8], usize) -> f32,
) {
    for (tile, sums) in tiles.chunks_exact(TILE * row_bytes).zip(sums.chunks_exact_mut(columns)) {
        for (row, bytes) in tile.chunks_exact(row_bytes).enumerate() {
            for (column, sums) in sums.iter_mut().enumerate() {
                sums[row] = dot(bytes, column);
            }
        }
    }
}

/// 32-bit floats.
pub struct F32;

impl Format for F32 {
    const ID: u32 = 0;
    const NAME: &'static str = "F32";
    const LEN: usize = 1;
    const BYTES: usize = 4;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (bytes, weight) in row.as_chunks::<4>().0.iter().zip(weights) {
            *weight = f32::from_le_bytes(*bytes);
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (bytes, &x)) in row.as_chunks::<4>().0.iter().zip(inputs.floats(column)).enumerate() {
            let lane = &mut lanes[index % LANES];
            *lane = Soft::madd(f32::from_le_bytes(*bytes), x, *lane);
        }
        sum_lanes(lanes)
    }

    fn arrange(rows: &[u8], tile: &mut [u8]) {
        tile.copy_from_slice(rows);
    }

    fn dequantize_arranged(tile: &[u8], row: usize, weights: &mut [f32]) {
        Self::dequantize(row_of(tile, row), weights);
    }

    fn multiply(
        level: Level,
        tiles: &[u8],
        inputs: &Inputs,
        first: usize,
        columns: usize,
        sums: &mut [Sums],
    ) {
        multiply_rows(tiles, 4 * inputs.columns(), columns, sums, |row, column| {
            // Floats of a model file are 4-byte aligned and so need no copy; if ever not, the definition serves.
            match <[f32] as zerocopy::FromBytes>::ref_from_bytes(row) {
                Ok(floats) => dot(level, floats, inputs.floats(first + column)),
                Err(_) => Self::dot(row, inputs, first + column),
            }
        });
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        row.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
    }
}

/// A float of 16 bits.
pub trait Short {
    /// GGUF number.
    const ID: u32;
    /// As llama.cpp writes it.
    const NAME: &'static str;

    /// The same as f32.
    fn widen(bits: u16) -> f32;
    /// The nearest, ties to even.
    fn narrow(weight: f32) -> u16;
    /// The dot product with floats.
    fn dot(level: Level, weights: &[u16], floats: &[f32]) -> f32;
}

/// binary16.
pub struct F16;

impl Short for F16 {
    const ID: u32 = 1;
    const NAME: &'static str = "F16";

    fn widen(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    fn narrow(weight: f32) -> u16 {
        half::f16::from_f32(weight).to_bits()
    }
    fn dot(level: Level, weights: &[u16], floats: &[f32]) -> f32 {
        dot_half(level, weights, floats)
    }
}

/// bfloat16: the upper half of an f32.
pub struct Bf16;

impl Short for Bf16 {
    const ID: u32 = 30;
    const NAME: &'static str = "BF16";

    fn widen(bits: u16) -> f32 {
        widen_bf16(bits)
    }
    fn narrow(weight: f32) -> u16 {
        half::bf16::from_f32(weight).to_bits()
    }
    fn dot(level: Level, weights: &[u16], floats: &[f32]) -> f32 {
        dot_bf16(level, weights, floats)
    }
}

/// Rows of 16-bit floats.
pub struct Shorts<S>(PhantomData<S>);

impl<S: Short> Format for Shorts<S> {
    const ID: u32 = S::ID;
    const NAME: &'static str = S::NAME;
    const LEN: usize = 1;
    const BYTES: usize = 2;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (bytes, weight) in row.as_chunks::<2>().0.iter().zip(weights) {
            *weight = S::widen(u16::from_le_bytes(*bytes));
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (bytes, &x)) in row.as_chunks::<2>().0.iter().zip(inputs.floats(column)).enumerate() {
            let lane = &mut lanes[index % LANES];
            *lane = Soft::madd(S::widen(u16::from_le_bytes(*bytes)), x, *lane);
        }
        sum_lanes(lanes)
    }

    fn arrange(rows: &[u8], tile: &mut [u8]) {
        tile.copy_from_slice(rows);
    }

    fn dequantize_arranged(tile: &[u8], row: usize, weights: &mut [f32]) {
        Self::dequantize(row_of(tile, row), weights);
    }

    fn multiply(
        level: Level,
        tiles: &[u8],
        inputs: &Inputs,
        first: usize,
        columns: usize,
        sums: &mut [Sums],
    ) {
        multiply_rows(tiles, 2 * inputs.columns(), columns, sums, |row, column| {
            match <[u16] as zerocopy::FromBytes>::ref_from_bytes(row) {
                Ok(weights) => S::dot(level, weights, inputs.floats(first + column)),
                Err(_) => <Self as Format>::dot(row, inputs, first + column),
            }
        });
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        row.extend(weights.iter().flat_map(|&weight| S::narrow(weight).to_le_bytes()));
    }
}
