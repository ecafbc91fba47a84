//! Input: the activation vectors of a matrix product, ready for multiplying.
//!
//! Each vector is kept as floats and as int8 blocks of 32 with an f32 scale and a sum each, so that every
//! weight format needs one dot product, not one per pairing.

use alloc::vec::Vec;

/// Activations in a block.
pub const BLOCK: usize = 32;

/// Up to `capacity` vectors of equal length.
pub struct Inputs {
    floats: Vec<f32>,
    quants: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    columns: usize,
    count: usize,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The values, `columns` of them.
    pub floats: &'a [f32],
    /// The values divided by their block's scale, rounded to nearest even, −127 to 127; as many as whole blocks.
    pub quants: &'a [i8],
    /// A scale for each block.
    pub scales: &'a [f32],
    /// Scale × sum of the quants, for each block: what a format with a minimum multiplies it by.
    pub sums: &'a [f32],
}

impl Inputs {
    /// Memory for `count` vectors of at most `columns` values; `None` if there is not enough.
    pub fn with_capacity(columns: usize, count: usize) -> Option<Self> {
        let blocks = columns.div_ceil(BLOCK);
        Some(Self {
            floats: reserved(columns * count)?,
            quants: reserved(blocks * BLOCK * count)?,
            scales: reserved(blocks * count)?,
            sums: reserved(blocks * count)?,
            columns: 0,
            count: 0,
        })
    }

    /// Bytes that [`Self::with_capacity`] takes.
    pub fn bytes(columns: usize, count: usize) -> usize {
        let blocks = columns.div_ceil(BLOCK);
        count * (columns * 4 + blocks * (BLOCK + 8))
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

    /// Takes `count` vectors of `columns` values, which `fill` writes, and quantizes them.
    ///
    /// # Panics
    /// If they exceed the capacity.
    pub fn set(&mut self, columns: usize, count: usize, fill: impl FnOnce(&mut [f32])) {
        self.columns = columns;
        self.count = count;
        let floats = &mut self.floats[..columns * count];
        fill(floats);
        let blocks = columns / BLOCK;
        for (index, vector) in floats.chunks_exact(columns.max(1)).enumerate() {
            for (block, values) in vector.chunks_exact(BLOCK).enumerate() {
                let at = index * blocks + block;
                let quants = &mut self.quants[at * BLOCK..][..BLOCK];
                (self.scales[at], self.sums[at]) = quantize(values, quants);
            }
        }
    }

    /// Vector `index`.
    pub fn get(&self, index: usize) -> Input<'_> {
        let blocks = self.blocks();
        Input {
            floats: &self.floats[index * self.columns..][..self.columns],
            quants: &self.quants[index * blocks * BLOCK..][..blocks * BLOCK],
            scales: &self.scales[index * blocks..][..blocks],
            sums: &self.sums[index * blocks..][..blocks],
        }
    }
}

fn reserved<T: Clone + Default>(len: usize) -> Option<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(len).ok()?;
    vector.resize(len, T::default());
    Some(vector)
}

/// Adding and subtracting 1.5 × 2²³ rounds an f32 of magnitude below 2²² to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// Quantizes a block: returns its scale, and scale × sum of quants.
fn quantize(values: &[f32], quants: &mut [i8]) -> (f32, f32) {
    let peak = values.iter().fold(0f32, |peak, value| peak.max(value.abs()));
    // Below this, 127 / peak is infinite; such a block is nothing but rounding noise.
    if peak < 1e-35 {
        quants.fill(0);
        return (0.0, 0.0);
    }
    let scale = peak / 127.0;
    let inverse = 127.0 / peak;
    let mut sum = 0i32;
    for (quant, value) in quants.iter_mut().zip(values) {
        let rounded = (value * inverse + ROUND) - ROUND;
        #[allow(clippy::cast_possible_truncation)] // |rounded| <= 127, and `as` saturates
        {
            *quant = rounded as i8;
        }
        sum += i32::from(*quant);
    }
    (scale, scale * sum as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn inputs(values: &[f32]) -> Inputs {
        let mut inputs = Inputs::with_capacity(values.len(), 1).unwrap();
        inputs.set(values.len(), 1, |out| out.copy_from_slice(values));
        inputs
    }

    #[test]
    fn the_peak_becomes_127_and_ties_round_to_even() {
        let mut values = vec![0.0; 32];
        values[..5].copy_from_slice(&[-127.0, 0.5, 1.5, 2.5, -0.5]);
        let inputs = inputs(&values);
        let input = inputs.get(0);
        assert_eq!(&input.quants[..5], [-127, 0, 2, 2, 0]);
        assert_eq!((input.scales[0], input.sums[0]), (1.0, -123.0));
    }

    #[test]
    fn zeros_and_values_too_small_to_divide_by_are_zero() {
        for value in [0.0, -0.0, 1e-40, -1e-36] {
            let inputs = inputs(&[value; 32]);
            let input = inputs.get(0);
            assert!(input.quants.iter().all(|&quant| quant == 0));
            assert_eq!((input.scales[0], input.sums[0]), (0.0, 0.0));
        }
    }

    #[test]
    fn infinities_and_nan_do_not_panic() {
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX] {
            let mut values = vec![1.0; 64];
            values[40] = value;
            inputs(&values);
        }
    }
}
