//! Keys and values of every position: layer × head × position × head size, so that a head's keys are one stream. As
//! binary16, or as blocks of 32 8-bit integers with a binary16 scale.
//!
//! A layer that looks back only so far (a sliding window) keeps no more than its window and a batch: a ring of rows, in
//! which position `p` takes the place of position `p − rows`. It holds a whole number of attention's chunks, so that
//! none of them wraps around.

use crate::model::Spec;
use crate::ops::attention::{BLOCKS_HEAD, Blocks, CHUNK, Store, View};
use crate::ops::dot::to_half;
use crate::ops::quantize::{self, BLOCK};
use crate::simd::Level;
use alloc::vec::Vec;
use core::fmt;

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// Binary16: two bytes a value.
    #[default]
    F16,
    /// 32 8-bit integers and a binary16 scale: 34 bytes for 32 values, as llama.cpp's cache of this name.
    Q8_0,
}

impl KvFormat {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 2] = [("f16", Self::F16), ("q8_0", Self::Q8_0)];

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Whether a model's keys and values can be kept so: blocks have to be whole.
    pub fn fits(self, spec: &Spec) -> bool {
        self == Self::F16 || spec.head_size.is_multiple_of(BLOCK) && spec.head_size <= BLOCKS_HEAD
    }

    /// This format, or F16 for a model whose heads it does not fit.
    pub fn for_model(self, spec: &Spec) -> Self {
        if self.fits(spec) { self } else { Self::F16 }
    }

    /// Bytes of so many values of whole heads.
    fn bytes(self, values: u64) -> u64 {
        match self {
            Self::F16 => values.saturating_mul(2),
            Self::Q8_0 => values.saturating_add(values / BLOCK as u64 * 2),
        }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Rows that a layer has: all positions, or, where it looks back only so far, a ring for its window and a batch.
fn rows(spec: &Spec, layer: usize, context: usize, batch: usize) -> usize {
    match spec.window(layer) {
        Some(window) => window.saturating_add(batch).next_multiple_of(CHUNK).min(context),
        None => context,
    }
}

/// Bytes of keys and values for a context whose prompts run in batches of up to `batch` tokens.
pub fn bytes(spec: &Spec, format: KvFormat, context: usize, batch: usize) -> u64 {
    let rows: u64 = (0..spec.layers).map(|layer| rows(spec, layer, context, batch) as u64).sum();
    format.bytes(rows.saturating_mul(spec.kv_width() as u64)).saturating_mul(2)
}

/// A layer's share: its rows begin at row `start` of the cache.
#[derive(Clone, Copy)]
struct Room {
    start: usize,
    rows: usize,
    window: Option<usize>,
}

/// The KV cache of one session.
pub struct Cache {
    /// Keys, then values.
    half: [Vec<u16>; 2],
    quants: [Vec<i8>; 2],
    scales: [Vec<u16>; 2],
    format: KvFormat,
    rooms: Vec<Room>,
    head_size: usize,
}

fn zeroed<T: Clone + Default>(len: usize) -> Option<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).ok()?;
    values.resize(len, T::default());
    Some(values)
}

impl Cache {
    /// Room for `context` positions; `None` if memory does not suffice.
    ///
    /// # Panics
    /// If the format does not fit the model's heads.
    pub fn new(spec: &Spec, format: KvFormat, context: usize, batch: usize) -> Option<Self> {
        assert!(format.fits(spec), "asked before");
        let mut rooms = Vec::new();
        rooms.try_reserve_exact(spec.layers).ok()?;
        let mut start = 0usize;
        for layer in 0..spec.layers {
            let rows = rows(spec, layer, context, batch);
            rooms.push(Room { start, rows, window: spec.window(layer) });
            start = start.checked_add(rows.checked_mul(spec.kv_heads)?)?;
        }
        let len = start.checked_mul(spec.head_size)?;
        let (half, blocks) = match format {
            KvFormat::F16 => (len, 0),
            KvFormat::Q8_0 => (0, len),
        };
        Some(Self {
            half: [zeroed(half)?, zeroed(half)?],
            quants: [zeroed(blocks)?, zeroed(blocks)?],
            scales: [zeroed(blocks / BLOCK)?, zeroed(blocks / BLOCK)?],
            format,
            rooms,
            head_size: spec.head_size,
        })
    }

    /// What keys and values are kept as.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// The first of the positions that have to be there for a layer's next token at `position`, and the rows for them.
    fn looks_back(room: &Room, position: usize) -> usize {
        room.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Whether a token can be run at `position` when positions up to `end` have been written: rings may have lost
    /// what it looks back to.
    pub fn reaches(&self, position: usize, end: usize) -> bool {
        self.rooms.iter().all(|room| {
            let lost = end.saturating_sub(room.rows);
            // The positions before it, that is: its own is written anew.
            Self::looks_back(room, position) >= lost || position == 0
        })
    }

    /// Stores the keys and values of all heads at a position, rounded to nearest even.
    pub fn put(&mut self, level: Level, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let (size, room) = (self.head_size, self.rooms[layer]);
        let row = position % room.rows;
        for (kind, from) in [keys, values].into_iter().enumerate() {
            for (head, from) in from.chunks_exact(size).enumerate() {
                let start = room.start + head * room.rows;
                let at = (start + row) * size;
                match self.format {
                    KvFormat::F16 => to_half(level, &mut self.half[kind][at..at + size], from),
                    KvFormat::Q8_0 => {
                        let quants = &mut self.quants[kind][at..at + size];
                        let blocks = from.chunks_exact(BLOCK).zip(quants.chunks_exact_mut(BLOCK));
                        for (block, (from, quants)) in blocks.enumerate() {
                            let scale = half::f16::from_f32(quantize::block(level, from, quants).0);
                            let scales = start * size / BLOCK;
                            self.scales[kind][scales + block * room.rows + row] = scale.to_bits();
                        }
                    }
                }
            }
        }
    }

    /// What a query at `position` sees of one head.
    pub fn view(&self, layer: usize, head: usize, position: usize) -> View<'_> {
        let (size, room) = (self.head_size, &self.rooms[layer]);
        let start = (room.start + head * room.rows) * size;
        let all = start..start + room.rows * size;
        let store = match self.format {
            KvFormat::F16 => {
                let [keys, values] = [0, 1].map(|kind: usize| &self.half[kind][all.clone()]);
                Store::Half { keys, values }
            }
            KvFormat::Q8_0 => {
                let [keys, values] = [0, 1].map(|kind: usize| Blocks {
                    quants: &self.quants[kind][all.clone()],
                    scales: &self.scales[kind][all.start / BLOCK..all.end / BLOCK],
                });
                Store::Blocks { keys, values }
            }
        };
        View { store, first: Self::looks_back(room, position), end: position + 1 }
    }
}
