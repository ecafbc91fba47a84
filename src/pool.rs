//! Pool: workers that run one job side by side and wait for each other, and the work that is cut for them.
#![allow(unsafe_code)] // a matrix is cut into bands that do not overlap

use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Workers that run one job side by side and wait for each other.
///
/// The firmware's pool is the board's cores, the host tool's is threads; [`Alone`] is the caller only.
pub trait Pool: Sync {
    /// Workers taking part, the caller included; at least 1.
    fn width(&self) -> usize;
    /// Calls `job(0)` … `job(width - 1)` once each, side by side; returns when all have returned.
    fn run(&self, job: &(dyn Fn(usize) + Sync));
    /// Calls `here` on the calling worker while `job(1)` … `job(width - 1)` run on the others; returns when all
    /// have returned. With a width of 1, `here` and nothing else. A pool that can't do both does `here` first.
    fn beside(&self, here: &mut dyn FnMut(), job: &(dyn Fn(usize) + Sync)) {
        here();
        (1..self.width()).for_each(job);
    }
}

/// The pool of one: the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Pool for Alone {
    fn width(&self) -> usize {
        1
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        job(0);
    }
}

/// The first workers of a pool: what fewer cores would do.
#[derive(Clone, Copy)]
pub struct First<'a> {
    /// The pool.
    pub pool: &'a dyn Pool,
    /// How many of its workers work, at most; at least 1. One is the caller alone, without a barrier.
    pub width: usize,
}

impl Pool for First<'_> {
    fn width(&self) -> usize {
        self.pool.width().min(self.width.max(1))
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        match self.width() {
            1 => job(0),
            width => self.pool.run(&|worker| {
                if worker < width {
                    job(worker);
                }
            }),
        }
    }
}

/// The part of the work that is not dealt out beforehand: one in so many units.
const TAIL: usize = 8;
/// Helpings that this part makes for each worker.
const HELPINGS: usize = 8;

/// Calls `job(worker, units)` until every unit of `0..units` has been given to exactly one call.
///
/// Each worker gets one run of neighbouring units to begin with, seven eighths of an even share, so that it streams
/// through memory; the last eighth lies in one heap from which whoever is done takes the next few. So cores end
/// together though one was held up, by an interrupt, say, or by the refresh of its part of the memory.
///
/// # Panics
/// If the pool is wider than 64.
pub fn share(pool: &dyn Pool, units: usize, job: &(dyn Fn(usize, Range<usize>) + Sync)) {
    let width = pool.width();
    assert!(width <= 64, "at most 64 workers");
    if width == 1 || units < 2 {
        if units > 0 {
            job(0, 0..units);
        }
        return;
    }
    let run = (units - units / TAIL) / width;
    let helping = ((units - run * width) / (HELPINGS * width)).max(1);
    let next = AtomicUsize::new(run * width);
    // A pool is a safe trait, so its promise to run each part once can't carry an `unsafe`: parts are claimed.
    let claimed = AtomicU64::new(0);
    pool.run(&|worker| {
        if worker >= width {
            return;
        }
        if run > 0 && claimed.fetch_or(1 << worker, Ordering::Relaxed) & 1 << worker == 0 {
            job(worker, run * worker..run * (worker + 1));
        }
        loop {
            let unit = next.fetch_add(helping, Ordering::Relaxed);
            if unit >= units {
                break;
            }
            job(worker, unit..(unit + helping).min(units));
        }
    });
    // A pool that left a worker out would leave its run undone.
    for worker in 0..width {
        if run > 0 && claimed.fetch_or(1 << worker, Ordering::Relaxed) & 1 << worker == 0 {
            job(0, run * worker..run * (worker + 1));
        }
    }
}

/// A rectangle of a matrix of floats that is stored column by column: one worker's share of a product. Bands of one
/// matrix never overlap, so each may be written without a lock.
pub struct Band<'a> {
    matrix: *mut f32,
    stride: usize,
    columns: Range<usize>,
    rows: Range<usize>,
    _matrix: PhantomData<&'a mut [f32]>,
}

impl Band<'_> {
    /// The band that is all of a matrix.
    ///
    /// # Panics
    /// If `matrix` is not `columns` columns of equal length.
    pub fn whole(matrix: &mut [f32], columns: usize) -> Band<'_> {
        let stride = matrix.len() / columns.max(1);
        assert_eq!(stride * columns, matrix.len(), "columns of equal length");
        Band {
            matrix: matrix.as_mut_ptr(),
            stride,
            columns: 0..columns,
            rows: 0..stride,
            _matrix: PhantomData,
        }
    }
    /// Rows of the matrix that are in the band.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }
    /// Columns of the matrix that are in the band.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }
    /// The band's rows of a column, counted as in the matrix.
    pub fn column(&mut self, column: usize) -> &mut [f32] {
        assert!(self.columns.contains(&column), "column {column} of {:?}", self.columns);
        // SAFETY: the band's columns and rows lie in the matrix that was borrowed for 'a, by construction; no other
        // band holds these rows of these columns, and `self` is borrowed mutably.
        unsafe {
            core::slice::from_raw_parts_mut(
                self.matrix.add(column * self.stride + self.rows.start),
                self.rows.len(),
            )
        }
    }
}

/// A matrix that many workers write, each its own bands.
struct Shared<'a> {
    matrix: *mut f32,
    stride: usize,
    columns: usize,
    _matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is only a pointer; `band` says what must hold.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(matrix: &'a mut [f32], columns: usize) -> Self {
        let Band { matrix, stride, .. } = Band::whole(matrix, columns);
        Self { matrix, stride, columns, _matrix: PhantomData }
    }

    /// # Safety
    /// The rectangle must be in the matrix, and no other band that overlaps it may live.
    unsafe fn band(&self, rows: Range<usize>, columns: Range<usize>) -> Band<'_> {
        debug_assert!(rows.end <= self.stride && columns.end <= self.columns, "a band lies in its matrix");
        Band { matrix: self.matrix, stride: self.stride, columns, rows, _matrix: PhantomData }
    }
}

/// Cuts `matrix` (`columns` columns, stored one after the other) into tiles of rows and runs `job(part, tiles, band)` on
/// them side by side, for runs of neighbouring tiles. Rows are those of several parts on one another; each part's tiles
/// are of `rows` rows, the last one perhaps of fewer.
///
/// # Panics
/// If `matrix` is not `columns` columns as long as all parts together.
pub fn run_tiles(
    pool: &dyn Pool,
    matrix: &mut [f32],
    columns: usize,
    parts: &[usize],
    rows: usize,
    job: &(dyn Fn(usize, Range<usize>, Band<'_>) + Sync),
) {
    let shared = Shared::new(matrix, columns);
    assert_eq!(parts.iter().sum::<usize>(), shared.stride, "as many rows as the parts have together");
    assert!(rows > 0, "tiles have rows");
    let units = parts.iter().map(|part| part.div_ceil(rows)).sum();
    share(pool, units, &|_, units| {
        let (mut before, mut top) = (0, 0);
        for (part, &height) in parts.iter().enumerate() {
            let tiles = height.div_ceil(rows);
            let (start, end) = (units.start.max(before), units.end.min(before + tiles));
            if start < end {
                let run = start - before..end - before;
                let band = top + run.start * rows..top + (run.end * rows).min(height);
                // SAFETY: `share` gives a unit to one call, and the rows of two units are different ones.
                job(part, run, unsafe { shared.band(band, 0..columns) });
            }
            before += tiles;
            top += height;
        }
    });
}

/// Cuts `matrix` (`columns` columns, stored one after the other) into cells of `height` rows × `width` columns (fewer at
/// the ends) and runs `job` on them side by side.
///
/// # Panics
/// If `matrix` is not `columns` columns of equal length.
pub fn run_cells(
    pool: &dyn Pool,
    matrix: &mut [f32],
    columns: usize,
    (height, width): (usize, usize),
    job: &(dyn Fn(Band<'_>) + Sync),
) {
    let shared = Shared::new(matrix, columns);
    assert!(height > 0 && width > 0, "cells have rows and columns");
    let (down, across) = (shared.stride.div_ceil(height), columns.div_ceil(width));
    share(pool, down * across, &|_, units| {
        for unit in units {
            let (row, column) = (unit % down * height, unit / down * width);
            let rows = row..(row + height).min(shared.stride);
            // SAFETY: `share` gives a unit to one call, and the cells of two units are different ones.
            job(unsafe { shared.band(rows, column..(column + width).min(columns)) });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A pool that keeps no promise: it runs some parts twice and one never.
    struct Careless;

    impl Pool for Careless {
        fn width(&self) -> usize {
            4
        }
        fn run(&self, job: &(dyn Fn(usize) + Sync)) {
            [1, 0, 1, 7, 3, 0].into_iter().for_each(job);
        }
    }

    #[test]
    fn every_unit_is_done_once_whatever_the_pool_does() {
        for units in [0, 1, 2, 3, 7, 8, 9, 63, 64, 1000] {
            for pool in [&Alone as &dyn Pool, &Careless, &First { pool: &Careless, width: 3 }] {
                let done: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                share(pool, units, &|_, range| {
                    range.for_each(|unit| {
                        done[unit].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{units} units");
            }
        }
    }

    #[test]
    fn tiles_and_cells_cover_a_matrix_once() {
        let mut matrix = vec![0.0; 3 * 37];
        run_tiles(&Careless, &mut matrix, 3, &[5, 0, 21, 11], 8, &|part, tiles, mut band| {
            assert!(
                band.rows().len() <= 8 * tiles.len() && (part != 0 || tiles == (0..1)),
                "{part} {tiles:?}"
            );
            band.columns().for_each(|column| band.column(column).iter_mut().for_each(|x| *x += 1.0));
        });
        run_cells(&Careless, &mut matrix, 3, (10, 2), &|mut band| {
            band.columns().for_each(|column| band.column(column).iter_mut().for_each(|x| *x += 1.0));
        });
        assert!(matrix.iter().all(|&x| x == 2.0));
    }
}
