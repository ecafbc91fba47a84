//! Inputs: the activation vectors of a matrix product, ready for multiplying.
//!
//! Each vector (a *column* of the product) is kept as int8 blocks of 32 with an f32 scale and some sums each, so that
//! every weight format needs one dot product, not one per pairing; and as floats where a matrix of floats wants them.
//!
//! Columns stand in groups of [`GROUP`], the last group with as many as are left. Within a group all columns of a block
//! lie side by side, in the order in which a tile of weights meets them: quants are group × block × column × 32, scales
//! and sums group × block × column, those of half a block group × block × half × column.
#![allow(unsafe_code)] // workers write blocks that do not overlap

use crate::ops::quantize;
pub use crate::ops::quantize::BLOCK;
use crate::pool::{Pool, share};
use crate::simd::Level;
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;

/// Columns in a group: as many as a tile of a prefill kernel multiplies at once.
pub const GROUP: usize = 16;
/// From so many columns on, they are prepared by all workers.
const MANY: usize = 8;

/// In which forms a product wants its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    /// As floats: for matrices of floats.
    pub floats: bool,
    /// As int8 blocks: for all others.
    pub blocks: bool,
}

impl Forms {
    /// Both.
    pub const ALL: Self = Self { floats: true, blocks: true };
}

/// Up to `capacity` vectors of equal length.
pub struct Inputs {
    level: Level,
    forms: Forms,
    floats: Vec<f32>,
    quants: Vec<Quants>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    halves: Vec<f32>,
    deficits: Vec<i32>,
    columns: usize,
    count: usize,
}

/// A block's quants, aligned for vector loads.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Quants([i8; BLOCK]);

/// Kernels load scales and sums four columns at a time: what they may read behind the last.
const PAD: usize = 3;

/// A block of one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block<'a> {
    /// The values divided by the scale, rounded to nearest even, −127 to 127.
    pub quants: &'a [i8; BLOCK],
    /// What one unit is worth.
    pub scale: f32,
    /// Scale × sum of the quants: what a format with a minimum multiplies it by.
    pub sum: f32,
    /// Scale × sum of the first and of the last 16 quants: where each has a minimum.
    pub halves: [f32; 2],
    /// Sum of the quants, its sign turned: times what a format takes off its quants, that is what its sums lack.
    pub deficit: i32,
}

/// Columns of one group as kernels walk them: pointers to what belongs to block 0 of the first of them.
#[derive(Clone, Copy)]
pub struct Lanes<'a> {
    /// Quants, 32-byte aligned: the next column is [`BLOCK`] further, the next block `width × BLOCK`.
    pub quants: *const i8,
    /// Scales: the next column is 1 further, the next block `width`.
    pub scales: *const f32,
    /// Scale × sum, as the scales.
    pub sums: *const f32,
    /// Scale × sum of the first 16 quants; those of the last 16 are `width` further, the next block `2 × width`.
    pub halves: *const f32,
    /// Sums with their sign turned, as the scales.
    pub deficits: *const i32,
    /// Columns of the whole group.
    pub width: usize,
    /// Blocks of a column.
    pub blocks: usize,
    _inputs: PhantomData<&'a Inputs>,
}

impl Inputs {
    /// Memory for `count` vectors of at most `values` values; `None` if there is not enough.
    pub fn with_capacity(level: Level, values: usize, count: usize, forms: Forms) -> Option<Self> {
        let blocks = if forms.blocks { values.div_ceil(BLOCK) * count } else { 0 };
        Some(Self {
            level,
            forms,
            floats: reserved(if forms.floats { values * count } else { 0 }, 0.0)?,
            quants: reserved(blocks, Quants([0; BLOCK]))?,
            scales: reserved(blocks + PAD, 0.0)?,
            sums: reserved(blocks + PAD, 0.0)?,
            halves: reserved(2 * blocks + PAD, 0.0)?,
            deficits: reserved(blocks + PAD, 0)?,
            columns: 0,
            count: 0,
        })
    }

    /// Bytes that [`Self::with_capacity`] takes.
    pub fn bytes(values: usize, count: usize, forms: Forms) -> usize {
        let blocks = if forms.blocks { values.div_ceil(BLOCK) * (BLOCK + 20) } else { 0 };
        count * (blocks + if forms.floats { 4 * values } else { 0 })
    }

    /// Vectors.
    pub fn count(&self) -> usize {
        self.count
    }
    /// Values in each.
    pub fn columns(&self) -> usize {
        self.columns
    }
    /// Whole blocks in each.
    pub fn blocks(&self) -> usize {
        self.columns / BLOCK
    }

    /// The groups: which columns stand in each.
    pub fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let count = self.count;
        (0..count).step_by(GROUP).map(move |first| first..(first + GROUP).min(count))
    }

    /// Where a block of a column is: index into `scales`, and times [`BLOCK`] into `quants`.
    fn at(&self, column: usize, block: usize) -> usize {
        let first = column / GROUP * GROUP;
        let width = GROUP.min(self.count - first);
        first * self.blocks() + block * width + (column - first)
    }

    /// Where the sum of the first half of a block of a column is, and how much further that of the last is.
    fn half_at(&self, column: usize, block: usize) -> (usize, usize) {
        half_place(self.blocks(), self.count, column, block)
    }

    /// A block of a column.
    pub fn block(&self, column: usize, block: usize) -> Block<'_> {
        let at = self.at(column, block);
        let (half, width) = self.half_at(column, block);
        Block {
            quants: &self.quants[at].0,
            scale: self.scales[at],
            sum: self.sums[at],
            halves: [self.halves[half], self.halves[half + width]],
            deficit: self.deficits[at],
        }
    }

    /// A column as floats, where they are kept.
    pub fn floats(&self, column: usize) -> &[f32] {
        &self.floats[column * self.columns..][..self.columns]
    }

    /// The columns from `first` on to the end of its group.
    ///
    /// # Panics
    /// If the blocks are not kept or `first` is not among the columns.
    pub fn lanes(&self, first: usize) -> Lanes<'_> {
        assert!(self.forms.blocks && first < self.count && self.blocks() > 0, "a column with blocks");
        let at = self.at(first, 0);
        Lanes {
            quants: self.quants[at..].as_ptr().cast(),
            scales: self.scales[at..].as_ptr(),
            sums: self.sums[at..].as_ptr(),
            halves: self.halves[self.half_at(first, 0).0..].as_ptr(),
            deficits: self.deficits[at..].as_ptr(),
            width: GROUP.min(self.count - first / GROUP * GROUP),
            blocks: self.blocks(),
            _inputs: PhantomData,
        }
    }

    /// Sets how many columns there are and how long they are; what is in them is not changed yet.
    ///
    /// # Panics
    /// If they exceed the capacity.
    pub fn shape(&mut self, columns: usize, count: usize) {
        let blocks = columns / BLOCK * count;
        assert!(!self.forms.floats || columns * count <= self.floats.len(), "within the capacity");
        assert!(!self.forms.blocks || blocks <= self.quants.len(), "within the capacity");
        (self.columns, self.count) = (columns, count);
    }

    /// Takes `count` columns of `columns` values. `prepare(column)` is called once for each, then
    /// `write(prepared, first, values)` for every stretch of [`BLOCK`] values (the last one may be shorter), which it
    /// fills with the values from `first` on. Many columns are shared by the workers.
    ///
    /// # Panics
    /// If they exceed the capacity.
    pub fn fill<P>(
        &mut self,
        pool: &dyn Pool,
        columns: usize,
        count: usize,
        prepare: &(dyn Fn(usize) -> P + Sync),
        write: &(dyn Fn(&P, usize, &mut [f32]) + Sync),
    ) {
        self.shape(columns, count);
        let slots = Slots::of(self);
        let column = |column: usize| {
            let prepared = prepare(column);
            let mut values = [0f32; BLOCK];
            for first in (0..columns).step_by(BLOCK) {
                let values = &mut values[..BLOCK.min(columns - first)];
                write(&prepared, first, values);
                // SAFETY: `share` gives a column to one call; so does the loop without it.
                unsafe { slots.put(column, first, values) };
            }
        };
        if count < MANY {
            (0..count).for_each(column);
        } else {
            share(pool, count, &|_, range| range.for_each(column));
        }
    }

    /// Lets the workers write blocks of all columns: `job(blocks)` for runs of blocks, the last of which may be a part of
    /// one. Its shape was set by [`Self::shape`].
    pub fn share_blocks(&mut self, pool: &dyn Pool, job: &(dyn Fn(BlockWriter<'_>) + Sync)) {
        let units = self.columns.div_ceil(BLOCK);
        let slots = Slots::of(self);
        share(pool, units, &|_, blocks| job(BlockWriter { slots: &slots, blocks }));
    }
}

/// Some blocks of all columns, for one worker to write.
pub struct BlockWriter<'a> {
    slots: &'a Slots<'a>,
    blocks: Range<usize>,
}

impl BlockWriter<'_> {
    /// The blocks.
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }

    /// Writes a block of a column: [`BLOCK`] values, or those that are left at the end.
    ///
    /// # Panics
    /// If the block is not one of these.
    pub fn put(&mut self, column: usize, block: usize, values: &[f32]) {
        assert!(self.blocks.contains(&block) && column < self.slots.count, "a block of this writer");
        let left = self.slots.columns - block * BLOCK;
        assert_eq!(values.len(), left.min(BLOCK), "a whole block");
        // SAFETY: only this writer has the block, and it is borrowed mutably.
        unsafe { self.slots.put(column, block * BLOCK, values) };
    }
}

/// The places of all blocks, shared by workers that write different ones.
struct Slots<'a> {
    level: Level,
    forms: Forms,
    floats: *mut f32,
    quants: *mut Quants,
    scales: *mut f32,
    sums: *mut f32,
    halves: *mut f32,
    deficits: *mut i32,
    columns: usize,
    count: usize,
    _inputs: PhantomData<&'a mut Inputs>,
}

// SAFETY: pointers only; `put` says what must hold.
unsafe impl Sync for Slots<'_> {}

impl<'a> Slots<'a> {
    fn of(inputs: &'a mut Inputs) -> Self {
        Self {
            level: inputs.level,
            forms: inputs.forms,
            floats: inputs.floats.as_mut_ptr(),
            quants: inputs.quants.as_mut_ptr(),
            scales: inputs.scales.as_mut_ptr(),
            sums: inputs.sums.as_mut_ptr(),
            halves: inputs.halves.as_mut_ptr(),
            deficits: inputs.deficits.as_mut_ptr(),
            columns: inputs.columns,
            count: inputs.count,
            _inputs: PhantomData,
        }
    }

    /// # Safety
    /// `column` and `first` (a multiple of [`BLOCK`]) must be of this shape, `values` not reach past the column, and
    /// nobody else write or read this block.
    unsafe fn put(&self, column: usize, first: usize, values: &[f32]) {
        if self.forms.floats {
            let at = column * self.columns + first;
            // SAFETY: inside the column, which `shape` has found to be inside the buffer.
            unsafe { self.floats.add(at).copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
        if self.forms.blocks && values.len() == BLOCK {
            let group = column / GROUP * GROUP;
            let width = GROUP.min(self.count - group);
            let at = group * (self.columns / BLOCK) + first / BLOCK * width + (column - group);
            // SAFETY: as `Inputs::at`, which `shape` has found to be inside the buffers; a block is ours alone.
            unsafe {
                let Quants(quants) = &mut *self.quants.add(at);
                let (scale, halves) = quantize::block(self.level, values, quants);
                let total = halves[0] + halves[1];
                let (half, width) = half_place(self.columns / BLOCK, self.count, column, first / BLOCK);
                *self.halves.add(half) = scale * halves[0] as f32;
                *self.halves.add(half + width) = scale * halves[1] as f32;
                *self.scales.add(at) = scale;
                *self.sums.add(at) = scale * total as f32;
                *self.deficits.add(at) = -total;
            }
        }
    }
}

/// [`Inputs::half_at`] of so many blocks and columns.
fn half_place(blocks: usize, count: usize, column: usize, block: usize) -> (usize, usize) {
    let group = column / GROUP * GROUP;
    let width = GROUP.min(count - group);
    (2 * (group * blocks + block * width) + (column - group), width)
}

fn reserved<T: Clone>(len: usize, value: T) -> Option<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(len).ok()?;
    vector.resize(len, value);
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Alone;

    #[test]
    fn every_column_keeps_its_blocks_whatever_group_it_stands_in() {
        for count in [1, 2, 15, 16, 17, 33] {
            let mut inputs = Inputs::with_capacity(Level::Plain, 100, count, Forms::ALL).unwrap();
            let value = |column: usize, at: usize| ((column * 31 + at * 7) % 255) as f32 - 127.0;
            inputs.fill(&Alone, 100, count, &|column| column, &|&column, first, values| {
                values.iter_mut().enumerate().for_each(|(i, x)| *x = value(column, first + i));
            });
            assert_eq!((inputs.blocks(), inputs.columns(), inputs.count()), (3, 100, count));
            for column in 0..count {
                for block in 0..3 {
                    let got = inputs.block(column, block);
                    for (i, &quant) in got.quants.iter().enumerate() {
                        let back = f32::from(quant) * got.scale;
                        assert!((back - value(column, block * 32 + i)).abs() <= got.scale * 0.51);
                    }
                    assert_eq!(-got.deficit, got.quants.iter().map(|&q| i32::from(q)).sum::<i32>());
                    assert_eq!(got.sum, got.scale * -got.deficit as f32);
                    let sum = |half: &[i8]| half.iter().map(|&q| i32::from(q)).sum::<i32>();
                    let halves = [sum(&got.quants[..16]), sum(&got.quants[16..])];
                    assert_eq!(got.halves, halves.map(|half| got.scale * half as f32));
                }
                assert_eq!(inputs.floats(column)[99], value(column, 99));
            }
        }
    }
}
