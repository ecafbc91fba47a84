//! F32, F16 and BF16: weights that are floats. They are multiplied with the float activations, as [`crate::ops::dot`] defines.
//!
//! A tile is its rows as they are in the file. One column meets one row after the other; of several, four meet two rows at
//! once, in stretches short enough to stay in the first cache.

use super::{Format, Inputs, Sums, TILE};
use crate::ops::dot::{COLUMNS, Factor, LANES, Lanes, ROWS, dot, dots, sum_lanes};
use crate::simd::Level;
use crate::simd::fused::{Fused, Soft};
use alloc::vec::Vec;
use core::array;
use core::marker::PhantomData;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Values of a column that all rows of a tile meet before the next ones: those of four columns are 8 KiB, a quarter of a
/// Cortex-A72's first cache (Cortex-A72 TRM, section 6.1: 32 KiB). A multiple of [`LANES`].
const STRETCH: usize = 512;

/// A float as a tensor has it.
pub trait Stored: Factor + IntoBytes + KnownLayout {
    /// GGUF number.
    const ID: u32;
    /// As llama.cpp writes it.
    const NAME: &'static str;
    /// The nearest, ties to even.
    fn narrow(weight: f32) -> Self;
}

impl Stored for f32 {
    const ID: u32 = 0;
    const NAME: &'static str = "F32";

    fn narrow(weight: f32) -> Self {
        weight
    }
}

impl Stored for half::f16 {
    const ID: u32 = 1;
    const NAME: &'static str = "F16";

    fn narrow(weight: f32) -> Self {
        Self::from_f32(weight)
    }
}

impl Stored for half::bf16 {
    const ID: u32 = 30;
    const NAME: &'static str = "BF16";

    fn narrow(weight: f32) -> Self {
        Self::from_f32(weight)
    }
}

/// Rows of floats.
pub struct Floats<F>(PhantomData<F>);

/// A row's floats, one by one, from any alignment.
fn floats<F: Stored>(row: &[u8]) -> impl Iterator<Item = F> {
    row.chunks_exact(size_of::<F>())
        .map(|bytes| F::read_from_bytes(bytes).expect("as many bytes as a float has"))
}

impl<F: Stored> Format for Floats<F> {
    const ID: u32 = F::ID;
    const NAME: &'static str = F::NAME;
    const LEN: usize = 1;
    const BYTES: usize = size_of::<F>();

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (float, weight) in floats::<F>(row).zip(weights) {
            *weight = float.widen();
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (float, &x)) in floats::<F>(row).zip(inputs.floats(column)).enumerate() {
            let lane = &mut lanes[index % LANES];
            *lane = Soft::madd(float.widen(), x, *lane);
        }
        sum_lanes(lanes)
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
        let row_bytes = Self::BYTES * inputs.columns();
        for (tile, sums) in tiles.chunks_exact(TILE * row_bytes).zip(sums.chunks_exact_mut(columns)) {
            // Floats of a model file are aligned and so need no copy; if ever not, the definition serves.
            if let Ok(weights) = <[F]>::ref_from_bytes(tile) {
                multiply_tile(level, weights, inputs, first, sums);
                continue;
            }
            for (sums, column) in sums.iter_mut().zip(first..) {
                for (sum, row) in sums.iter_mut().zip(tile.chunks_exact(row_bytes)) {
                    *sum = Self::dot(row, inputs, column);
                }
            }
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for &weight in weights {
            row.extend_from_slice(F::narrow(weight).as_bytes());
        }
    }
}

/// A tile times the columns from `first` on, as many as there are sums.
fn multiply_tile<F: Stored>(level: Level, tile: &[F], inputs: &Inputs, first: usize, sums: &mut [Sums]) {
    let (several, rest) = sums.as_chunks_mut::<COLUMNS>();
    let single = first + several.len() * COLUMNS;
    for (sums, first) in several.iter_mut().zip((first..).step_by(COLUMNS)) {
        multiply_columns(level, tile, array::from_fn(|column| inputs.floats(first + column)), sums);
    }
    for (sums, column) in rest.iter_mut().zip(single..) {
        for (sum, row) in sums.iter_mut().zip(tile.chunks_exact(inputs.columns())) {
            *sum = dot(level, row, inputs.floats(column));
        }
    }
}

/// A tile times some columns.
fn multiply_columns<F: Stored>(
    level: Level,
    tile: &[F],
    columns: [&[f32]; COLUMNS],
    sums: &mut [Sums; COLUMNS],
) {
    let mut lanes: [Lanes; TILE / ROWS] = [[[[0.0; LANES]; COLUMNS]; ROWS]; TILE / ROWS];
    let len = columns[0].len();
    for first in (0..len).step_by(STRETCH) {
        let stretch = first..len.min(first + STRETCH);
        let columns = columns.map(|column| &column[stretch.clone()]);
        for (rows, lanes) in tile.chunks_exact(ROWS * len).zip(&mut lanes) {
            let rows = array::from_fn(|row| &rows[row * len..][stretch.clone()]);
            dots(level, rows, columns, lanes);
        }
    }
    for (row, lanes) in lanes.as_flattened().iter().enumerate() {
        for (sums, lanes) in sums.iter_mut().zip(lanes) {
            sums[row] = sum_lanes(*lanes);
        }
    }
}
