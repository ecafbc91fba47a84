//! Pool: workers that run one job side by side and wait for each other, and the bands of rows they write.
#![allow(unsafe_code)] // a matrix is cut into bands that do not overlap

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

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

/// Rows `first_row` to `first_row + rows` of a matrix of floats that is stored column by column: one worker's
/// share of a product. Bands of one matrix never overlap, so each may be written without a lock.
pub struct Band<'a> {
    matrix: *mut f32,
    stride: usize,
    columns: usize,
    first_row: usize,
    rows: usize,
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
            columns,
            first_row: 0,
            rows: stride,
            _matrix: PhantomData,
        }
    }
    /// Rows in the band.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Row of the matrix that is row 0 of the band.
    pub fn first_row(&self) -> usize {
        self.first_row
    }
    /// Columns of the matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }
    /// The band's rows of a column.
    pub fn column(&mut self, column: usize) -> &mut [f32] {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        // SAFETY: `column < columns` and `first_row + rows <= stride` by construction, so the slice lies in the
        // matrix that was borrowed for 'a; no other band holds these rows, and `self` is borrowed mutably.
        unsafe {
            core::slice::from_raw_parts_mut(self.matrix.add(column * self.stride + self.first_row), self.rows)
        }
    }
    /// Part of the band: `rows` rows from `first` on, counted within the band.
    pub fn part(&mut self, first: usize, rows: usize) -> Band<'_> {
        assert!(first <= self.rows && rows <= self.rows - first, "a part lies within its band");
        Band { first_row: self.first_row + first, rows, _matrix: PhantomData, ..*self }
    }
}

/// Cuts `matrix` (`columns` columns, stored one after the other) into bands of rows, one a worker, and runs `job`
/// on them side by side: `job(worker, band)`. Bands begin at multiples of `align` rows and are as even as that
/// allows.
///
/// # Panics
/// If `matrix` is not `columns` columns of equal length, or the pool is wider than 64.
pub fn run_bands(
    pool: &dyn Pool,
    matrix: &mut [f32],
    columns: usize,
    align: usize,
    job: &(dyn Fn(usize, Band<'_>) + Sync),
) {
    let all = Band::whole(matrix, columns);
    let (base, stride) = (Base(all.matrix), all.stride);
    let width = pool.width();
    assert!(width <= 64, "at most 64 workers");
    let units = stride.div_ceil(align);
    // A pool is a safe trait, so its promise to run each part once can't carry an `unsafe`: parts are claimed.
    let claimed = AtomicU64::new(0);
    pool.run(&|worker| {
        if worker >= width || claimed.fetch_or(1 << worker, Ordering::Relaxed) & 1 << worker != 0 {
            return;
        }
        let base = &base;
        let first_row = (units * worker / width * align).min(stride);
        let end = (units * (worker + 1) / width * align).min(stride);
        if first_row < end {
            let band = Band {
                matrix: base.0,
                stride,
                columns,
                first_row,
                rows: end - first_row,
                _matrix: PhantomData,
            };
            job(worker, band);
        }
    });
}

/// A pointer that workers may share: each makes a band of its own from it.
struct Base(*mut f32);
// SAFETY: `run_bands` hands out bands that do not overlap, each to one worker.
unsafe impl Sync for Base {}
