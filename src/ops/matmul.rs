//! Matrices × columns: tiles of rows dealt out to the pool, and what becomes of their sums.

use crate::ops::elementwise;
use crate::pool::{Band, Pool, run_tiles};
use crate::quant::input::BLOCK;
use crate::quant::{GROUP, Inputs, Row, Sums, TILE};
use crate::simd::Level;
use core::ops::Range;

/// A weight matrix where it lies in memory: whole tiles arranged, rows past them as in the file.
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
        let (bytes, tile) = (self.row_bytes(), row / TILE * TILE);
        if tile + TILE <= self.rows {
            let tile = &self.bytes[tile * bytes..][..TILE * bytes];
            (self.format.dequantize_arranged)(tile, row % TILE, out);
        } else {
            (self.format.dequantize)(&self.bytes[row * bytes..][..bytes], out);
        }
    }

    /// Some tiles times the columns of a group or a part of one: `sums` gets those of the first tile with each column, then
    /// those of the second, and so on. Of the last tile's sums, those past the last row mean nothing.
    fn multiply(
        &self,
        level: Level,
        tiles: Range<usize>,
        inputs: &Inputs,
        columns: Range<usize>,
        sums: &mut [Sums],
    ) {
        let (bytes, count) = (self.row_bytes(), columns.len());
        let whole = tiles.end.min(self.rows / TILE);
        let sums = if tiles.start < whole {
            let (sums, rest) = sums.split_at_mut((whole - tiles.start) * count);
            let tiles = &self.bytes[tiles.start * TILE * bytes..whole * TILE * bytes];
            (self.format.multiply)(level, tiles, inputs, columns.start, count, sums);
            rest
        } else {
            sums
        };
        if whole < tiles.end {
            for row in whole * TILE..self.rows {
                let weights = &self.bytes[row * bytes..][..bytes];
                for (sums, column) in sums.iter_mut().zip(columns.clone()) {
                    sums[row % TILE] = (self.format.dot)(weights, inputs, column);
                }
            }
        }
    }
}

/// Cuts a run of tiles into as many at once as fill [`GROUP`] sums with so many columns.
fn at_once(run: Range<usize>, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let step = GROUP / columns.clamp(1, GROUP);
    run.clone().step_by(step).map(move |first| first..(first + step).min(run.end))
}

/// The matrices stacked on one another times every column: `out` gets, for each column, the rows of the first
/// matrix, then those of the second, and so on. One job for the pool, one wait.
///
/// # Panics
/// If sizes disagree.
pub fn matmul(pool: &dyn Pool, level: Level, out: &mut [f32], matrices: &[View<'_>], inputs: &Inputs) {
    product(pool, level, out, matrices, inputs, &|out, sums, _| elementwise::copy(out, sums));
}

/// [`matmul`] that lets `combine(out, sums, first)` decide what becomes of the products of the rows from `first` on,
/// counted over all matrices: by whoever computed them, so that a bias or a scale is no job of its own.
///
/// # Panics
/// If sizes disagree.
pub fn matmul_with(
    pool: &dyn Pool,
    level: Level,
    out: &mut [f32],
    matrices: &[View<'_>],
    inputs: &Inputs,
    combine: Combine<'_>,
) {
    product(pool, level, out, matrices, inputs, &combine);
}

/// What becomes of the products of some rows: where they go, the products, and which row is the first.
pub type Combine<'a> = &'a (dyn Fn(&mut [f32], &[f32], usize) + Sync);

/// A matrix times every column, added to what is in `out`: columns × rows.
///
/// # Panics
/// If sizes disagree.
pub fn matmul_add(pool: &dyn Pool, level: Level, out: &mut [f32], matrix: View<'_>, inputs: &Inputs) {
    product(pool, level, out, &[matrix], inputs, &|out, sums, _| elementwise::add(out, sums));
}

/// Most matrices that are multiplied in one job.
const STACK: usize = 4;

fn product(
    pool: &dyn Pool,
    level: Level,
    out: &mut [f32],
    matrices: &[View<'_>],
    inputs: &Inputs,
    combine: &(impl Fn(&mut [f32], &[f32], usize) + Sync),
) {
    let mut parts = [0; STACK];
    for (part, matrix) in parts.iter_mut().zip(matrices) {
        assert_eq!(matrix.columns, inputs.columns(), "as many columns as values in an input");
        *part = matrix.rows;
    }
    let rows: usize = parts.iter().sum();
    assert_eq!(out.len(), rows * inputs.count(), "room for {rows} rows of {} inputs", inputs.count());
    let parts = &parts[..matrices.len()];
    run_tiles(pool, out, inputs.count(), parts, TILE, &|part, run, mut band: Band<'_>| {
        let mut sums = [[0.0; TILE]; GROUP];
        let top = band.rows().start;
        for tiles in at_once(run.clone(), inputs.count()) {
            let rows =
                (tiles.start - run.start) * TILE..((tiles.end - run.start) * TILE).min(band.rows().len());
            for group in inputs.groups() {
                let sums = &mut sums[..tiles.len() * group.len()];
                matrices[part].multiply(level, tiles.clone(), inputs, group.clone(), sums);
                if group.len() == 1 {
                    // The sums of all tiles lie as in the column.
                    let out = &mut band.column(group.start)[rows.clone()];
                    combine(out, &sums.as_flattened()[..rows.len()], top + rows.start);
                    continue;
                }
                for (sums, first) in sums.chunks_exact(group.len()).zip(rows.clone().step_by(TILE)) {
                    for (sums, column) in sums.iter().zip(group.clone()) {
                        let out = &mut band.column(column)[first..rows.end.min(first + TILE)];
                        combine(out, &sums[..out.len()], top + first);
                    }
                }
            }
        }
    });
}

/// What is done to the products of the gate and of the up matrix, some rows of each, and which row is the first: the
/// first takes the result. Without a gate the first are those of the up matrix, and the second are ones.
pub type Activate<'a> = &'a (dyn Fn(&mut [f32], &mut [f32], usize) + Sync);

/// `gate × columns` and `up × columns` made into the columns of the next product, block by block, by whoever computed
/// them: one job, one wait, and no buffer between. `matrices` are gate and up, or up alone.
///
/// # Panics
/// If sizes disagree.
pub fn gated(
    pool: &dyn Pool,
    level: Level,
    out: &mut Inputs,
    matrices: &[View<'_>],
    inputs: &Inputs,
    activate: Activate<'_>,
) {
    let (height, columns) = (matrices[0].rows, matrices[0].columns);
    assert!(matrices.len() <= 2, "gate and up");
    assert!(matrices.iter().all(|m| (m.rows, m.columns) == (height, columns)), "gate and up are alike");
    assert_eq!(columns, inputs.columns(), "as many columns as values in an input");
    out.shape(height, inputs.count());
    out.share_blocks(pool, &|mut writer| {
        // Two tiles a block: the products of both with each column.
        let mut sums = [[[0.0; TILE]; 2 * GROUP]; 2];
        let mut values = [[1f32; BLOCK]; 2];
        for block in writer.blocks() {
            let rows = BLOCK.min(height - block * BLOCK);
            let tiles = block * BLOCK / TILE..(block * BLOCK + rows).div_ceil(TILE);
            for group in inputs.groups() {
                let count = group.len();
                for (matrix, sums) in matrices.iter().zip(&mut sums) {
                    let sums = &mut sums[..tiles.len() * count];
                    matrix.multiply(level, tiles.clone(), inputs, group.clone(), sums);
                }
                for (index, column) in group.enumerate() {
                    for (values, sums) in values.iter_mut().zip(&sums[..matrices.len()]) {
                        for (tile, values) in
                            values.as_chunks_mut::<TILE>().0[..tiles.len()].iter_mut().enumerate()
                        {
                            elementwise::copy(values, &sums[tile * count + index]);
                        }
                    }
                    let [gates, ups] = &mut values;
                    activate(&mut gates[..rows], &mut ups[..rows], block * BLOCK);
                    writer.put(column, block, &gates[..rows]);
                }
            }
        }
    });
}

/// What becomes of some products, and which row is the first.
pub type Finish<'a> = &'a (dyn Fn(&mut [f32], usize) + Sync);

/// For every column, the row with the largest product, the first of them if there are several, into `best`; a NaN is never
/// the largest. The products themselves are not kept; `finish(products, first)` may change those of the rows from `first`
/// on before they are compared. `room` is scratch: [`best_room`] floats.
///
/// # Panics
/// If sizes disagree.
pub fn best(
    pool: &dyn Pool,
    level: Level,
    best: &mut [u32],
    matrix: View<'_>,
    inputs: &Inputs,
    finish: Option<Finish<'_>>,
    room: &mut [f32],
) {
    assert_eq!(best.len(), inputs.count(), "a row for every column");
    let tiles = matrix.rows.div_ceil(TILE);
    let room = &mut room[..2 * tiles * inputs.count()];
    run_tiles(pool, room, inputs.count(), &[2 * tiles], 2, &|_, run, mut band: Band<'_>| {
        let mut sums = [[0.0; TILE]; GROUP];
        for tiles in at_once(run.clone(), inputs.count()) {
            for group in inputs.groups() {
                let sums = &mut sums[..tiles.len() * group.len()];
                matrix.multiply(level, tiles.clone(), inputs, group.clone(), sums);
                for (sums, tile) in sums.chunks_exact_mut(group.len()).zip(tiles.clone()) {
                    let rows = TILE.min(matrix.rows - tile * TILE);
                    for (sums, column) in sums.iter_mut().zip(group.clone()) {
                        if let Some(finish) = finish {
                            finish(&mut sums[..rows], tile * TILE);
                        }
                        let (mut peak, mut at) = (f32::NEG_INFINITY, 0);
                        for (row, &sum) in sums[..rows].iter().enumerate() {
                            if sum > peak {
                                (peak, at) = (sum, row);
                            }
                        }
                        // A row number travels as the bits of a float.
                        let out = &mut band.column(column)[2 * (tile - run.start)..][..2];
                        (out[0], out[1]) = (peak, f32::from_bits((tile * TILE + at) as u32));
                    }
                }
            }
        }
    });
    for (best, tiles) in best.iter_mut().zip(room.chunks_exact(2 * tiles)) {
        let mut peak = f32::NEG_INFINITY;
        *best = 0;
        for [value, row] in tiles.as_chunks::<2>().0 {
            if *value > peak {
                (peak, *best) = (*value, row.to_bits());
            }
        }
    }
}

/// Floats that [`best`] wants for so many rows and columns.
pub fn best_room(rows: usize, columns: usize) -> usize {
    2 * rows.div_ceil(TILE) * columns
}
