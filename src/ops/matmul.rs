//! Matrices × vectors: splits rows over the pool, calls the format's kernel.

use crate::pool::{Pool, run_bands};
use crate::quant::{Inputs, Row};
use crate::simd::Level;

/// Rows that begin a worker's share are a multiple of this: whole kernel tiles, whole cache lines of output.
const ALIGN: usize = 16;

/// A weight matrix where it lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// How its blocks are laid out.
    pub format: &'static Row,
    /// Rows: values of the product.
    pub rows: usize,
    /// Columns: values of an input.
    pub columns: usize,
    /// `rows` rows of `format.row_bytes(columns)` bytes.
    pub bytes: &'a [u8],
}

impl View<'_> {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.columns)
    }
    /// Expands row `row` to floats.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let bytes = self.row_bytes();
        (self.format.dequantize)(&self.bytes[row * bytes..][..bytes], out);
    }
}

/// The matrices stacked on one another times every input: `out` gets, for each input, the rows of the first
/// matrix, then those of the second, and so on. One job for the pool, one wait.
///
/// # Panics
/// If sizes disagree.
pub fn matmul(pool: &dyn Pool, level: Level, out: &mut [f32], matrices: &[View<'_>], inputs: &Inputs) {
    let rows: usize = matrices.iter().map(|matrix| matrix.rows).sum();
    assert_eq!(out.len(), rows * inputs.count(), "room for {rows} rows of {} inputs", inputs.count());
    run_bands(pool, out, inputs.count(), ALIGN, &|_, mut band| {
        let (first, end) = (band.first_row(), band.first_row() + band.rows());
        let mut top = 0;
        for matrix in matrices {
            let bottom = top + matrix.rows;
            let (from, to) = (first.max(top), end.min(bottom));
            if from < to {
                assert_eq!(matrix.columns, inputs.columns(), "as many columns as values in an input");
                let bytes = &matrix.bytes[(from - top) * matrix.row_bytes()..];
                (matrix.format.multiply)(level, bytes, inputs, &mut band.part(from - first, to - from));
            }
            top = bottom;
        }
    });
}
