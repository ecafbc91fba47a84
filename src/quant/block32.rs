//! Formats whose block is 32 integers, a scale and perhaps a minimum: the tile kernels that they share.
//!
//! A weight is `scale × quant + minimum`, so a block contributes
//! `(Σ quant × x.quant) × (scale × x.scale)  +  minimum × x.sum` to its row's accumulator, in that order.

use super::Format;
use super::input::{BLOCK, Input, Inputs};
use crate::pool::Band;
use crate::simd::Level;
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// A block, unpacked.
pub struct Unpacked {
    /// The integers.
    pub quants: [i8; BLOCK],
    /// What one unit is worth.
    pub scale: f32,
    /// What is added to each weight; 0 in formats without.
    pub minimum: f32,
}

/// A format of such blocks: what differs between them. All of it makes a [`Format`].
pub trait Block32 {
    /// Number in the GGUF tensor directory.
    const ID: u32;
    /// As people write it.
    const NAME: &'static str;
    /// Bytes in a block.
    const BYTES: usize;
    /// Whether there is a minimum.
    const MINIMUM: bool;
    /// Whether four products of a quant and an activation fit in 16 bits (else two do).
    const NARROW: bool;
    /// What the block means.
    fn unpack(block: &[u8]) -> Unpacked;
    /// The quants of a block.
    ///
    /// # Safety
    /// `BYTES` at `block` must be readable.
    #[cfg(target_arch = "aarch64")]
    unsafe fn load(block: *const u8) -> (int8x16_t, int8x16_t);
    /// Scales and minimums of four blocks.
    ///
    /// # Safety
    /// `BYTES` at each pointer must be readable.
    #[cfg(target_arch = "aarch64")]
    unsafe fn scales(blocks: [*const u8; 4]) -> (float32x4_t, float32x4_t);
    /// [`Format::quantize`].
    fn quantize(weights: &[f32], row: &mut Vec<u8>);
}

impl<F: Block32> Format for F {
    const ID: u32 = <F as Block32>::ID;
    const NAME: &'static str = <F as Block32>::NAME;
    const LEN: usize = BLOCK;
    const BYTES: usize = <F as Block32>::BYTES;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (block, out) in row.chunks_exact(F::BYTES).zip(weights.chunks_exact_mut(BLOCK)) {
            let block = F::unpack(block);
            for (out, quant) in out.iter_mut().zip(block.quants) {
                *out = f32::from(quant) * block.scale;
                if F::MINIMUM {
                    *out += block.minimum;
                }
            }
        }
    }

    fn dot(row: &[u8], input: Input<'_>) -> f32 {
        let mut total = 0.0;
        for (index, block) in row.chunks_exact(F::BYTES).enumerate() {
            let block = F::unpack(block);
            let sum = dot_block(&block.quants, &input.quants[index * BLOCK..][..BLOCK]);
            total += sum as f32 * (block.scale * input.scales[index]);
            if F::MINIMUM {
                total += block.minimum * input.sums[index];
            }
        }
        total
    }

    fn multiply(level: Level, rows: &[u8], inputs: &Inputs, out: &mut Band<'_>) {
        match level {
            Level::Plain | Level::Fma(_) => multiply_plain::<F>(rows, inputs, out),
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => multiply_tiles::<F>(rows, inputs, out, &tiles_neon::<F>()),
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod(_) => multiply_tiles::<F>(rows, inputs, out, &tiles_dotprod::<F>()),
            #[cfg(not(target_arch = "aarch64"))]
            _ => unreachable!("only made on AArch64"),
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        <F as Block32>::quantize(weights, row);
    }
}

/// Reads a binary16.
pub fn half(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

fn dot_block(weights: &[i8; BLOCK], input: &[i8]) -> i32 {
    weights.iter().zip(input).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}

/// Inputs that a row is multiplied with before its next block is unpacked.
const PLAIN_COLUMNS: usize = 16;

fn multiply_plain<F: Block32>(rows: &[u8], inputs: &Inputs, out: &mut Band<'_>) {
    let row_bytes = inputs.blocks() * F::BYTES;
    for first in (0..inputs.count()).step_by(PLAIN_COLUMNS) {
        let columns = PLAIN_COLUMNS.min(inputs.count() - first);
        for row in 0..out.rows() {
            let mut totals = [0f32; PLAIN_COLUMNS];
            let bytes = &rows[row * row_bytes..][..row_bytes];
            for (index, block) in bytes.chunks_exact(F::BYTES).enumerate() {
                let block = F::unpack(block);
                for (column, total) in totals[..columns].iter_mut().enumerate() {
                    let input = inputs.get(first + column);
                    let sum = dot_block(&block.quants, &input.quants[index * BLOCK..][..BLOCK]);
                    *total += sum as f32 * (block.scale * input.scales[index]);
                    if F::MINIMUM {
                        *total += block.minimum * input.sums[index];
                    }
                }
            }
            for (column, total) in totals[..columns].iter().enumerate() {
                out.column(first + column)[row] = *total;
            }
        }
    }
}

/// Rows in a tile: the lanes of a vector of sums.
#[cfg(target_arch = "aarch64")]
const TILE: usize = 4;

/// Kernels of four rows by one, two and four inputs: pointers to the rows, bytes of a row, the inputs, the
/// first of them, and where four sums an input go.
#[cfg(target_arch = "aarch64")]
type Kernel =
    unsafe fn(rows: *const u8, row_bytes: usize, inputs: &Inputs, first: usize, out: &mut [[f32; TILE]]);

#[cfg(target_arch = "aarch64")]
struct Tiles {
    one: Kernel,
    two: Kernel,
    four: Kernel,
}

#[cfg(target_arch = "aarch64")]
fn tiles_neon<F: Block32>() -> Tiles {
    Tiles { one: tile_neon::<F, 1>, two: tile_neon::<F, 2>, four: tile_neon::<F, 4> }
}

#[cfg(target_arch = "aarch64")]
fn tiles_dotprod<F: Block32>() -> Tiles {
    Tiles { one: tile_dotprod::<F, 1>, two: tile_dotprod::<F, 2>, four: tile_dotprod::<F, 4> }
}

#[cfg(target_arch = "aarch64")]
fn multiply_tiles<F: Block32>(rows: &[u8], inputs: &Inputs, out: &mut Band<'_>, tiles: &Tiles) {
    let row_bytes = inputs.blocks() * F::BYTES;
    let whole = out.rows() / TILE * TILE;
    assert!(rows.len() >= out.rows() * row_bytes, "a band needs all its rows");
    for row in (0..whole).step_by(TILE) {
        let tile = rows[row * row_bytes..].as_ptr();
        let mut first = 0;
        while first < inputs.count() {
            let (columns, kernel) = match inputs.count() - first {
                1 => (1, tiles.one),
                2 | 3 => (2, tiles.two),
                _ => (4, tiles.four),
            };
            let mut sums = [[0f32; TILE]; 4];
            // SAFETY: the level that chose `tiles` proves the instructions; the assertion above proves that
            // four rows lie at `tile`; `first + columns` inputs exist.
            unsafe { kernel(tile, row_bytes, inputs, first, &mut sums[..columns]) };
            for (column, sums) in sums[..columns].iter().enumerate() {
                out.column(first + column)[row..row + TILE].copy_from_slice(sums);
            }
            first += columns;
        }
    }
    for row in whole..out.rows() {
        for column in 0..inputs.count() {
            out.column(column)[row] = F::dot(&rows[row * row_bytes..][..row_bytes], inputs.get(column));
        }
    }
}

/// Four rows × `C` inputs. `$sum` adds the 32 products of a block up to four lanes.
#[cfg(target_arch = "aarch64")]
macro_rules! tile {
    ($(#[$attribute:meta])* $name:ident, $sum:path) => {
        $(#[$attribute])*
        /// # Safety
        /// Four rows of `row_bytes` must be readable at `rows`; inputs `first` to `first + C` must exist.
        #[cfg(target_arch = "aarch64")]
        unsafe fn $name<F: Block32, const C: usize>(
            rows: *const u8,
            row_bytes: usize,
            inputs: &Inputs,
            first: usize,
            out: &mut [[f32; TILE]],
        ) {
            let mut columns = [inputs.get(first); C];
            for (column, input) in columns.iter_mut().enumerate() {
                *input = inputs.get(first + column);
            }
            let mut totals = [vdupq_n_f32(0.0); C];
            for index in 0..inputs.blocks() {
                let at = index * F::BYTES;
                // SAFETY: block `index` of each of the four rows that the caller promised.
                let (blocks, scales, minimums) = unsafe {
                    let block = rows.add(at);
                    let second = block.add(row_bytes);
                    let third = second.add(row_bytes);
                    let fourth = third.add(row_bytes);
                    let (scales, minimums) = F::scales([block, second, third, fourth]);
                    ([F::load(block), F::load(second), F::load(third), F::load(fourth)], scales, minimums)
                };
                for (input, total) in columns.iter().zip(&mut totals) {
                    // SAFETY: an input has 32 quants, a scale and a sum for each block.
                    let (x, scale, sum) = unsafe {
                        (
                            neon::load_pair(input.quants.as_ptr().add(index * BLOCK).cast()),
                            *input.scales.get_unchecked(index),
                            *input.sums.get_unchecked(index),
                        )
                    };
                    // Written out: a closure of a `target_feature` function is not always inlined.
                    let sums = vcvtq_f32_s32(neon::sums([
                        $sum(F::NARROW, blocks[0], x),
                        $sum(F::NARROW, blocks[1], x),
                        $sum(F::NARROW, blocks[2], x),
                        $sum(F::NARROW, blocks[3], x),
                    ]));
                    *total = vaddq_f32(*total, vmulq_f32(sums, vmulq_n_f32(scales, scale)));
                    if F::MINIMUM {
                        *total = vaddq_f32(*total, vmulq_n_f32(minimums, sum));
                    }
                }
            }
            for (out, total) in out.iter_mut().zip(totals) {
                // SAFETY: `out` is four floats.
                unsafe { neon::store_floats(out.as_mut_ptr(), total) };
            }
        }
    };
}

#[cfg(target_arch = "aarch64")]
tile!(
    #[target_feature(enable = "neon")]
    tile_neon,
    sum_neon
);
#[cfg(target_arch = "aarch64")]
tile!(
    #[target_feature(enable = "neon,dotprod")]
    tile_dotprod,
    sum_dotprod
);

/// Products in 16-bit lanes as long as they fit, then in 32.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn sum_neon(narrow: bool, w: (int8x16_t, int8x16_t), x: (int8x16_t, int8x16_t)) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w.0), vget_low_s8(x.0));
    let low = vmlal_high_s8(low, w.0, x.0);
    if narrow {
        vpaddlq_s16(vmlal_high_s8(vmlal_s8(low, vget_low_s8(w.1), vget_low_s8(x.1)), w.1, x.1))
    } else {
        let high = vmlal_high_s8(vmull_s8(vget_low_s8(w.1), vget_low_s8(x.1)), w.1, x.1);
        vpadalq_s16(vpaddlq_s16(low), high)
    }
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sum_dotprod(_narrow: bool, w: (int8x16_t, int8x16_t), x: (int8x16_t, int8x16_t)) -> int32x4_t {
    neon::sdot(neon::sdot(vdupq_n_s32(0), w.0, x.0), w.1, x.1)
}

/// The weight of largest magnitude, with its sign: what a symmetric quantizer maps to the end of its range.
pub fn peak(weights: &[f32]) -> f32 {
    weights.iter().fold(0f32, |peak, &w| if w.abs() > peak.abs() { w } else { peak })
}
