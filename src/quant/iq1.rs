//! IQ1_S, IQ1_M: groups of eight weights −1, 0 or 1 from a grid, all an eighth higher or lower, and 3-bit scales.
//!
//! A weight is `d × (2 s + 1) × (level ± ⅛)`, here `8 × level ± 1` units of `d × (2 s + 1) / 8`. An entry has 11 bits.
//!
//! | | bytes | a part of 32 weights |
//! | --- | --- | --- |
//! | IQ1_S | 50 | d; 4 bytes: low bits of entries; 16 bits: four times 3 high bits, s, whether all are lower |
//! | IQ1_M | 56 | 4 bytes: low bits of entries; four half bytes: 3 high bits, whether lower; 6 bits: s of either half |
//!
//! IQ1_M has d (binary16) in the high half bytes of its four 16-bit numbers of scales, lowest bits first. Source: ggml
//! block layouts (`block_iq1_s`, `block_iq1_m`).

use super::grids;
use super::iq::{self, Grid, Grouped, ONES, Packed, TOPS, four, half, short};
use super::rows::LEN;
use alloc::vec::Vec;
use core::array;

/// What levels stand for where weights are not lower: `8 × level + 1`, for levels 0 to 2 that mean −1 to 1.
const QUANTS: [i8; 16] = [-7, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The same, in every byte.
#[inline(always)]
fn quants(levels: u64) -> u64 {
    // 128 more, so that nothing is borrowed, which turning the highest bits takes off again.
    (8 * levels + (128 - 7) * ONES) ^ TOPS
}

/// What entries stand for, for the quantizers: in eighths, where they are not lower.
const GRID: Grid<'static> =
    Grid { entries: &grids::IQ1_S, bits: 2, levels: &[-7.0, 1.0, 9.0, 0.0], peak: 9.0 };

/// The entry nearest to eight weights, in units of `unit`, of the lower ones or the others.
fn nearest(eight: &[f32], unit: f32, lower: bool) -> usize {
    let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
    let shift = if lower { 2.0 } else { 0.0 };
    let scaled: Vec<f32> = eight.iter().map(|weight| weight * inverse + shift).collect();
    GRID.nearest(&scaled)
}

/// The format.
pub struct Iq1S;

impl Grouped for Iq1S {
    const ID: u32 = 19;
    const NAME: &'static str = "IQ1_S";
    const BYTES: usize = 50;
    const HALVES: bool = false;

    const BITS: usize = 2;
    const QUANTS: [i8; 16] = QUANTS;
    const SIGNS: bool = false;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        let bits = short(block, 34 + 2 * part);
        let entry = |i: usize| usize::from(block[2 + 4 * part + i]) | usize::from(bits >> (3 * i) & 7) << 8;
        let unit = half(short(block, 0)) * f32::from(2 * (bits >> 12 & 7) + 1) * 0.125;
        let lower = if bits >> 15 == 1 { u32::MAX } else { 0 };
        Packed::whole([four(|i| grids::IQ1_S[entry(i)]), 0], lower, unit)
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        quants(levels)
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let eighths: Vec<f32> = block.iter().map(|weight| weight * 8.0).collect();
            let (scale, each) = iq::scales(&eighths, 32, GRID.peak, 7);
            let (mut low, mut high) = (Vec::new(), Vec::new());
            for (part, s) in block.chunks_exact(32).zip(each) {
                let unit = half(scale) * f32::from(2 * s + 1) / 8.0;
                let lower = part.iter().sum::<f32>() < 0.0;
                let mut bits = u16::from(s) << 12 | u16::from(lower) << 15;
                for (i, eight) in part.chunks_exact(8).enumerate() {
                    let entry = nearest(eight, unit, lower);
                    low.push(entry as u8);
                    bits |= ((entry >> 8) as u16) << (3 * i);
                }
                high.extend(bits.to_le_bytes());
            }
            row.extend(scale.to_le_bytes());
            row.extend(low);
            row.extend(high);
        }
    }
}

/// The format.
pub struct Iq1M;

impl Grouped for Iq1M {
    const ID: u32 = 29;
    const NAME: &'static str = "IQ1_M";
    const BYTES: usize = 56;
    const HALVES: bool = true;

    const BITS: usize = 2;
    const QUANTS: [i8; 16] = QUANTS;
    const SIGNS: bool = false;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        // Four bits for each eight weights, the first in the lowest.
        let bits = short(block, 32 + 2 * part);
        let entry = |i: usize| usize::from(block[4 * part + i]) | usize::from(bits >> (4 * i) & 7) << 8;
        let lower = array::from_fn(|i| if bits >> (4 * i) & 8 == 0 { 0 } else { 0xff });
        let nibble = |i: usize| short(block, 48 + 2 * i) >> 12 << (4 * i);
        let unit = half(nibble(0) | nibble(1) | nibble(2) | nibble(3)) * 0.125;
        let s = short(block, 48 + part / 2 * 2) >> (part % 2 * 6);
        let scales = [2 * i32::from(s & 7) + 1, 2 * i32::from(s >> 3 & 7) + 1];
        let levels = four(|i| grids::IQ1_S[entry(i)]);
        Packed { levels: [levels, 0], flags: u32::from_le_bytes(lower), unit, scales }
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        quants(levels)
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let eighths: Vec<f32> = block.iter().map(|weight| weight * 8.0).collect();
            let (scale, each) = iq::scales(&eighths, 16, GRID.peak, 7);
            let mut high = [0u8; 16];
            for (index, eight) in block.chunks_exact(8).enumerate() {
                let unit = half(scale) * f32::from(2 * each[index / 2] + 1) / 8.0;
                let lower = eight.iter().sum::<f32>() < 0.0;
                let entry = nearest(eight, unit, lower);
                row.push(entry as u8);
                high[index / 2] |= ((entry >> 8) as u8 | u8::from(lower) << 3) << (index % 2 * 4);
            }
            row.extend(high);
            for (i, four) in each.chunks_exact(4).enumerate() {
                let scales = (0..4).fold(0, |bits, j| bits | u16::from(four[j]) << (3 * j));
                row.extend((scales | (scale >> (4 * i) & 0xf) << 12).to_le_bytes());
            }
        }
    }
}
