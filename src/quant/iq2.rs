//! IQ2_XXS, IQ2_XS, IQ2_S: groups of eight magnitudes 8, 25 or 43 from a grid, eight signs, and 4-bit scales.
//!
//! With a scale d (binary16) for 256 weights and s of 4 bits, a unit is `d × (2 s + 1) / 8`. A part is 32 weights.
//!
//! | | bytes | a part |
//! | --- | --- | --- |
//! | IQ2_XXS | 66 | behind d, 8 bytes: four entries; then 32 bits: four times 7 signs (the eighth makes them even), s |
//! | IQ2_XS | 74 | behind d, four times 16 bits: an entry of 9 bits, 7 signs; after those, a byte: s of either half |
//! | IQ2_S | 82 | d; 4 bytes: low bits of entries; 4 bytes: signs; a byte: two high bits each; a byte: s of either half |
//!
//! Source: ggml block layouts (`block_iq2_xxs`, `block_iq2_xs`, `block_iq2_s`).

use super::grids;
use super::iq::{self, Grid, Grouped, Packed, even_signs, four, half, long, short, spread_sevens};
use super::rows::LEN;
use alloc::vec::Vec;
use core::array;

/// What levels stand for.
const QUANTS: [i8; 16] = [8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The same, in every byte.
#[inline(always)]
fn quants(levels: u64) -> u64 {
    8 * iq::ONES + 17 * levels + (levels >> 1 & iq::ONES)
}

const fn grid(entries: &'static [u16]) -> Grid<'static> {
    Grid { entries, bits: 2, levels: &[8.0, 25.0, 43.0, 0.0], peak: 43.0 }
}

/// Scale for 256 weights, as stored (an eighth of a unit is part of the format), and s of runs.
fn scales(weights: &[f32], run: usize) -> (u16, Vec<u8>) {
    let eighths: Vec<f32> = weights.iter().map(|weight| weight * 8.0).collect();
    iq::scales(&eighths, run, 43.0, 15)
}

/// The entries nearest to each eight weights of a block.
fn entries(grid: &Grid<'_>, block: &[f32], scale: u16, run: usize, each: &[u8]) -> Vec<usize> {
    let groups = block.chunks_exact(8).enumerate().map(|(index, eight)| {
        let unit = half(scale) * f32::from(2 * each[index * 8 / run] + 1) / 8.0;
        let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
        let scaled: Vec<f32> = eight.iter().map(|weight| weight.abs() * inverse).collect();
        grid.nearest(&scaled)
    });
    groups.collect()
}

/// Both 4-bit scales of a part.
#[inline(always)]
fn odd(scales: u8) -> [i32; 2] {
    [i32::from(scales & 0xf) * 2 + 1, i32::from(scales >> 4) * 2 + 1]
}

/// The format.
pub struct Iq2Xxs;

impl Grouped for Iq2Xxs {
    const ID: u32 = 16;
    const NAME: &'static str = "IQ2_XXS";
    const BYTES: usize = 66;
    const HALVES: bool = false;

    const BITS: usize = 2;
    const QUANTS: [i8; 16] = QUANTS;
    const SIGNS: bool = true;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        let (at, bits) = (2 + 8 * part, long(block, 6 + 8 * part));
        let levels = four(|i| grids::IQ2_XXS[usize::from(block[at + i])]);
        let unit = half(short(block, 0)) * (0.5 + (bits >> 28) as f32) * 0.25;
        Packed::whole([levels, 0], even_signs(spread_sevens(bits)), unit)
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        quants(levels)
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, each) = scales(block, 32);
            let entries = entries(&grid(&grids::IQ2_XXS), block, scale, 32, &each);
            row.extend(scale.to_le_bytes());
            for (part, weights) in block.chunks_exact(32).enumerate() {
                row.extend(entries[4 * part..][..4].iter().map(|&entry| entry as u8));
                let mut bits = u32::from(each[part]) << 28;
                for (i, eight) in weights.chunks_exact(8).enumerate() {
                    bits |= u32::from(iq::signs(eight, true) & 0x7f) << (7 * i);
                }
                row.extend(bits.to_le_bytes());
            }
        }
    }
}

/// The format.
pub struct Iq2Xs;

impl Grouped for Iq2Xs {
    const ID: u32 = 17;
    const NAME: &'static str = "IQ2_XS";
    const BYTES: usize = 74;
    const HALVES: bool = true;

    const BITS: usize = 2;
    const QUANTS: [i8; 16] = QUANTS;
    const SIGNS: bool = true;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        let bits: [u16; 4] = array::from_fn(|i| short(block, 2 + 8 * part + 2 * i));
        let levels = four(|i| grids::IQ2_XS[usize::from(bits[i] & 511)]);
        let flags = even_signs(u32::from_le_bytes(bits.map(|bits| (bits >> 9) as u8)));
        let unit = half(short(block, 0)) * 0.125;
        Packed { levels: [levels, 0], flags, unit, scales: odd(block[66 + part]) }
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        quants(levels)
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, each) = scales(block, 16);
            let entries = entries(&grid(&grids::IQ2_XS), block, scale, 16, &each);
            row.extend(scale.to_le_bytes());
            for (entry, eight) in entries.iter().zip(block.chunks_exact(8)) {
                let signs = u16::from(iq::signs(eight, true) & 0x7f);
                row.extend((*entry as u16 | signs << 9).to_le_bytes());
            }
            row.extend(each.chunks_exact(2).map(|two| two[0] | two[1] << 4));
        }
    }
}

/// The format.
pub struct Iq2S;

impl Grouped for Iq2S {
    const ID: u32 = 22;
    const NAME: &'static str = "IQ2_S";
    const BYTES: usize = 82;
    const HALVES: bool = true;

    const BITS: usize = 2;
    const QUANTS: [i8; 16] = QUANTS;
    const SIGNS: bool = true;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        let high = usize::from(block[66 + part]);
        let entry = |i: usize| usize::from(block[2 + 4 * part + i]) | (high >> (2 * i) & 3) << 8;
        let levels = four(|i| grids::IQ2_S[entry(i)]);
        let unit = half(short(block, 0)) * 0.125;
        Packed { levels: [levels, 0], flags: long(block, 34 + 4 * part), unit, scales: odd(block[74 + part]) }
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        quants(levels)
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, each) = scales(block, 16);
            let entries = entries(&grid(&grids::IQ2_S), block, scale, 16, &each);
            row.extend(scale.to_le_bytes());
            row.extend(entries.iter().map(|&entry| entry as u8));
            row.extend(block.chunks_exact(8).map(|eight| iq::signs(eight, false)));
            let high = |four: &[usize]| (0..4).fold(0, |high, i| high | ((four[i] >> 8) as u8) << (2 * i));
            row.extend(entries.chunks_exact(4).map(high));
            row.extend(each.chunks_exact(2).map(|two| two[0] | two[1] << 4));
        }
    }
}
