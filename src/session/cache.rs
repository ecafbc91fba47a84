//! Keys and values of every position, as binary16: layer × head × position × head size, so that a head's keys are
//! one stream.

use crate::model::Spec;
use crate::ops::dot::to_half;
use crate::simd::Level;
use alloc::vec::Vec;

/// The KV cache of one session.
pub struct Cache {
    keys: Vec<u16>,
    values: Vec<u16>,
    heads: usize,
    head_size: usize,
    context: usize,
}

impl Cache {
    /// Room for `context` positions; `None` if memory does not suffice.
    pub fn new(spec: &Spec, context: usize) -> Option<Self> {
        let len = spec.layers.checked_mul(spec.kv_width())?.checked_mul(context)?;
        let halves = || {
            let mut halves = Vec::new();
            halves.try_reserve_exact(len).ok()?;
            halves.resize(len, 0u16);
            Some(halves)
        };
        Some(Self {
            keys: halves()?,
            values: halves()?,
            heads: spec.kv_heads,
            head_size: spec.head_size,
            context,
        })
    }

    /// Stores the keys and values of all heads at a position, rounded to nearest even.
    pub fn put(&mut self, level: Level, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        for head in 0..self.heads {
            let at = self.at(layer, head, position);
            let from = head * self.head_size..(head + 1) * self.head_size;
            to_half(level, &mut self.keys[at..at + self.head_size], &keys[from.clone()]);
            to_half(level, &mut self.values[at..at + self.head_size], &values[from]);
        }
    }

    /// Keys and values of one head at positions 0 to `positions`: each positions × head size.
    pub fn head(&self, layer: usize, head: usize, positions: usize) -> (&[u16], &[u16]) {
        let at = self.at(layer, head, 0);
        let range = at..at + positions * self.head_size;
        (&self.keys[range.clone()], &self.values[range])
    }

    fn at(&self, layer: usize, head: usize, position: usize) -> usize {
        ((layer * self.heads + head) * self.context + position) * self.head_size
    }
}
