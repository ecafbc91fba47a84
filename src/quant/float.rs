//! F32 and F16: weights that are floats. They are multiplied with the float activations, as [`crate::ops::dot`] defines.

use super::{Format, Inputs, Sums, TILE};
use crate::ops::dot::{LANES, dot, dot_half, sum_lanes};
use crate::simd::Level;
use crate::simd::fused::{Fused, Soft};
use alloc::vec::Vec;

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

/// 16-bit floats (binary16).
pub struct F16;

impl Format for F16 {
    const ID: u32 = 1;
    const NAME: &'static str = "F16";
    const LEN: usize = 1;
    const BYTES: usize = 2;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (bytes, weight) in row.as_chunks::<2>().0.iter().zip(weights) {
            *weight = half::f16::from_le_bytes(*bytes).to_f32();
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (bytes, &x)) in row.as_chunks::<2>().0.iter().zip(inputs.floats(column)).enumerate() {
            let lane = &mut lanes[index % LANES];
            *lane = Soft::madd(half::f16::from_le_bytes(*bytes).to_f32(), x, *lane);
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
                Ok(halves) => dot_half(level, halves, inputs.floats(first + column)),
                Err(_) => Self::dot(row, inputs, first + column),
            }
        });
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        row.extend(weights.iter().flat_map(|&weight| half::f16::from_f32(weight).to_le_bytes()));
    }
}
