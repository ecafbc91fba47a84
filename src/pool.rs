//! Pool: workers that run one job side by side and wait for each other.

/// Workers that run one job side by side and wait for each other.
///
/// The firmware's pool is the board's cores, the host tool's is threads; [`Alone`] is the caller only.
pub trait Pool: Sync {
    /// Workers taking part, the caller included; at least 1.
    fn width(&self) -> usize;
    /// Calls `job(0)` … `job(width - 1)` once each, side by side; returns when all have returned.
    fn run(&self, job: &(dyn Fn(usize) + Sync));
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
