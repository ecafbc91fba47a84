//! Arranger: rows become tiles, within their own bytes, while a model comes in.

use crate::gguf::Gguf;
use crate::pool::Pool;
use crate::quant::{self, Row, TILE};
use alloc::vec::Vec;
use spin::Mutex;

/// A matrix, or several on one another, whose tiles are to be arranged.
struct Tensor {
    format: &'static Row,
    /// From the beginning of the tensor data.
    offset: usize,
    /// Whole tiles of all matrices.
    tiles: usize,
    /// Those of one.
    part_tiles: usize,
    part_bytes: usize,
    tile_bytes: usize,
}

impl Tensor {
    /// Where a tile begins, from the beginning of the tensor data.
    fn tile(&self, index: usize) -> usize {
        let (part, tile) = (index / self.part_tiles, index % self.part_tiles);
        self.offset + part * self.part_bytes + tile * self.tile_bytes
    }
}

/// Goes through the tensor data from front to back and arranges each whole tile as soon as its last byte is there.
///
/// A tile is as many bytes as its rows in the file, so nothing moves but within it, and workers take one tile after the
/// other; one tile of scratch each is enough.
pub struct Arranger {
    tensors: Vec<Tensor>,
    /// The tensor and its tile that are next.
    next: (usize, usize),
    /// One for each worker.
    scratch: Vec<Mutex<Vec<u8>>>,
}

impl Arranger {
    /// An arranger of all matrices of a file, `done` tiles of which are arranged already, for so many workers. `parts` says
    /// how many matrices of equal height each tensor is; no tile reaches from one into the next. `None` if scratch for the
    /// largest tile is not to be had, or the file is larger than memory.
    pub fn new(gguf: &Gguf, parts: &[usize], done: usize, workers: usize) -> Option<Self> {
        let mut tensors = Vec::new();
        for (info, &parts) in gguf.tensors.iter().zip(parts) {
            // Floats stay as they are.
            let Some(format) = quant::by_id(info.kind).filter(|format| format.forms().blocks) else {
                continue;
            };
            let row_bytes = format.row_bytes(usize::try_from(info.columns()).ok()?);
            let rows = usize::try_from(info.rows()).ok()? / parts;
            tensors.push(Tensor {
                format,
                offset: usize::try_from(info.offset - gguf.data_offset).ok()?,
                tiles: rows / TILE * parts,
                part_tiles: rows / TILE,
                part_bytes: rows * row_bytes,
                tile_bytes: TILE * row_bytes,
            });
        }
        tensors.sort_by_key(|tensor| tensor.offset);
        let largest = tensors.iter().filter(|tensor| tensor.tiles > 0).map(|tensor| tensor.tile_bytes).max();
        let mut scratch = Vec::new();
        for _ in 0..workers.max(1) {
            let mut tile = Vec::new();
            tile.try_reserve_exact(largest.unwrap_or(0)).ok()?;
            tile.resize(largest.unwrap_or(0), 0);
            scratch.push(Mutex::new(tile));
        }
        let mut arranger = Self { tensors, next: (0, 0), scratch };
        let mut left = done;
        while let Some(tensor) = arranger.tensors.get(arranger.next.0) {
            if left < tensor.tiles {
                arranger.next.1 = left;
                break;
            }
            left -= tensor.tiles;
            arranger.next.0 += 1;
        }
        Some(arranger)
    }

    /// Arranges the tiles that end within `data`, the tensor data as far as they are there, and have not been arranged
    /// yet; tells how many that were.
    pub fn advance(&mut self, pool: &dyn Pool, data: &mut [u8]) -> usize {
        let mut all = 0;
        loop {
            // Once, but for a file whose tensors overlap: a tile waits until those before it are done.
            match self.share(data, |work| pool.run(work)) {
                0 => return all,
                count => all += count,
            }
        }
    }

    /// The same, on the other workers while `here` runs on this one.
    pub fn advance_beside(&mut self, pool: &dyn Pool, data: &mut [u8], here: &mut dyn FnMut()) -> usize {
        self.share(data, |work| pool.beside(here, work))
    }

    fn share(&mut self, data: &mut [u8], mut run: impl FnMut(&(dyn Fn(usize) + Sync))) -> usize {
        let tiles = Mutex::new(Tiles { tensors: &self.tensors, next: self.next, count: 0, before: 0, data });
        let work = |worker: usize| {
            let Some(scratch) = self.scratch.get(worker) else { return };
            let mut scratch = scratch.lock();
            loop {
                let taken = tiles.lock().take();
                let Some((format, tile)) = taken else { break };
                let rows = &mut scratch[..tile.len()];
                rows.copy_from_slice(tile);
                (format.arrange)(rows, tile);
            }
        };
        run(&work);
        work(0); // all that is left where nobody else works
        let Tiles { next, count, .. } = tiles.into_inner();
        self.next = next;
        count
    }
}

/// The tiles to be arranged that are whole in memory, in the order they lie there.
struct Tiles<'a> {
    tensors: &'a [Tensor],
    next: (usize, usize),
    /// Tiles taken.
    count: usize,
    /// Bytes of the tensor data that have been taken or passed by.
    before: usize,
    /// Those behind them.
    data: &'a mut [u8],
}

impl<'a> Tiles<'a> {
    fn take(&mut self) -> Option<(&'static Row, &'a mut [u8])> {
        loop {
            let tensor = self.tensors.get(self.next.0)?;
            if self.next.1 == tensor.tiles {
                self.next = (self.next.0 + 1, 0);
                continue;
            }
            let skip = tensor.tile(self.next.1).checked_sub(self.before)?;
            if self.data.len() < skip + tensor.tile_bytes {
                return None;
            }
            let (tile, rest) = core::mem::take(&mut self.data)[skip..].split_at_mut(tensor.tile_bytes);
            self.data = rest;
            self.before += skip + tensor.tile_bytes;
            self.next.1 += 1;
            self.count += 1;
            return Some((tensor.format, tile));
        }
    }
}
