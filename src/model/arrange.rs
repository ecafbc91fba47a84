//! Arranger: rows become tiles, within their own bytes, while a model comes in.

use crate::gguf::Gguf;
use crate::quant::{self, Row, TILE};
use alloc::vec::Vec;

/// A matrix whose tiles are to be arranged.
struct Tensor {
    format: &'static Row,
    /// From the beginning of the tensor data.
    offset: usize,
    tiles: usize,
    tile_bytes: usize,
}

/// Goes through the tensor data from front to back and arranges each whole tile as soon as its last byte is there.
///
/// A tile is as many bytes as its rows in the file, so nothing moves but within it; one tile of scratch is enough.
pub struct Arranger {
    tensors: Vec<Tensor>,
    /// The tensor and its tile that are next.
    next: (usize, usize),
    scratch: Vec<u8>,
}

impl Arranger {
    /// An arranger of all matrices of a file, `done` tiles of which are arranged already; `None` if scratch for the
    /// largest tile is not to be had, or the file is larger than memory.
    pub fn new(gguf: &Gguf, done: usize) -> Option<Self> {
        let mut tensors = Vec::new();
        for info in &gguf.tensors {
            // Floats stay as they are.
            let Some(format) = quant::by_id(info.kind).filter(|format| format.forms().blocks) else {
                continue;
            };
            let row_bytes = format.row_bytes(usize::try_from(info.columns()).ok()?);
            tensors.push(Tensor {
                format,
                offset: usize::try_from(info.offset - gguf.data_offset).ok()?,
                tiles: usize::try_from(info.rows()).ok()? / TILE,
                tile_bytes: TILE * row_bytes,
            });
        }
        tensors.sort_by_key(|tensor| tensor.offset);
        let mut scratch = Vec::new();
        let largest = tensors.iter().filter(|tensor| tensor.tiles > 0).map(|tensor| tensor.tile_bytes).max();
        scratch.try_reserve_exact(largest.unwrap_or(0)).ok()?;
        scratch.resize(largest.unwrap_or(0), 0);
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

    /// Arranges the tiles that end within the first `ready` bytes of the tensor data and have not been arranged yet; tells
    /// how many that were.
    pub fn advance(&mut self, data: &mut [u8], ready: usize) -> usize {
        let mut count = 0;
        while let Some(tensor) = self.tensors.get(self.next.0) {
            if self.next.1 == tensor.tiles {
                self.next = (self.next.0 + 1, 0);
                continue;
            }
            let start = tensor.offset + self.next.1 * tensor.tile_bytes;
            let end = start + tensor.tile_bytes;
            if end > ready {
                break;
            }
            let rows = &mut self.scratch[..tensor.tile_bytes];
            rows.copy_from_slice(&data[start..end]);
            (tensor.format.arrange)(rows, &mut data[start..end]);
            self.next.1 += 1;
            count += 1;
        }
        count
    }
}
