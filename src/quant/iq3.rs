//! IQ3_XXS, IQ3_S: groups of four magnitudes from a grid of eight levels, signs for eight, and 4-bit scales.
//!
//! With a scale d (binary16) for 256 weights and s of 4 bits for a part of 32:
//!
//! | | bytes | a part |
//! | --- | --- | --- |
//! | IQ3_XXS | 98 | d; 8 bytes: entries; behind those of all parts 32 bits: four times 7 signs (the eighth makes them even), s |
//! | IQ3_S | 110 | d; 8 bytes: low bits of entries; a byte: their ninth bits; 4 bytes: signs; half a byte: s |
//!
//! IQ3_XXS: levels 4, 12, 20, 28, 36, 44, 52, 62, a unit is `d × (2 s + 1) / 4`. IQ3_S: odd levels 1 to 15, a unit is
//! `d × (2 s + 1)`. Source: ggml block layouts (`block_iq3_xxs`, `block_iq3_s`).

use super::grids;
use super::iq::{self, Grid, Grouped, ONES, Packed, even_signs, four, half, long, short, spread_sevens};
use super::rows::LEN;
use alloc::vec::Vec;

/// The entries nearest to each four weights of a block, where a unit is `part` of the stored scale times `2 s + 1`.
fn entries(grid: &Grid<'_>, block: &[f32], scale: f32, each: &[u8]) -> Vec<usize> {
    let groups = block.chunks_exact(4).enumerate().map(|(index, four)| {
        let unit = scale * f32::from(2 * each[index / 8] + 1);
        let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
        let scaled: Vec<f32> = four.iter().map(|weight| weight.abs() * inverse).collect();
        grid.nearest(&scaled)
    });
    groups.collect()
}

/// The format.
pub struct Iq3Xxs;

impl Grouped for Iq3Xxs {
    const ID: u32 = 18;
    const NAME: &'static str = "IQ3_XXS";
    const BYTES: usize = 98;
    const HALVES: bool = false;

    const BITS: usize = 4;
    const QUANTS: [i8; 16] = [4, 12, 20, 28, 36, 44, 52, 62, 0, 0, 0, 0, 0, 0, 0, 0];
    const SIGNS: bool = true;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        let bits = long(block, 66 + 4 * part);
        let entry = |i: usize| grids::IQ3_XXS[usize::from(block[2 + 8 * part + i])];
        let unit = half(short(block, 0)) * (0.5 + (bits >> 28) as f32) * 0.5;
        Packed::whole([four(entry), four(|i| entry(4 + i))], even_signs(spread_sevens(bits)), unit)
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        // 4 + 8 × level, and 2 more for level 7.
        4 * ONES + 8 * levels + 2 * ((levels + ONES) >> 3 & ONES)
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        let levels = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
        let grid = Grid { entries: &grids::IQ3_XXS, bits: 4, levels: &levels, peak: 62.0 };
        for block in weights.chunks_exact(LEN) {
            let quarters: Vec<f32> = block.iter().map(|weight| weight * 4.0).collect();
            let (scale, each) = iq::scales(&quarters, 32, grid.peak, 15);
            row.extend(scale.to_le_bytes());
            row.extend(entries(&grid, block, half(scale) / 4.0, &each).iter().map(|&entry| entry as u8));
            for (weights, s) in block.chunks_exact(32).zip(each) {
                let mut bits = u32::from(s) << 28;
                for (i, eight) in weights.chunks_exact(8).enumerate() {
                    bits |= u32::from(iq::signs(eight, true) & 0x7f) << (7 * i);
                }
                row.extend(bits.to_le_bytes());
            }
        }
    }
}

/// The format.
pub struct Iq3S;

impl Grouped for Iq3S {
    const ID: u32 = 21;
    const NAME: &'static str = "IQ3_S";
    const BYTES: usize = 110;
    const HALVES: bool = false;

    const BITS: usize = 4;
    const QUANTS: [i8; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0];
    const SIGNS: bool = true;

    #[inline(always)]
    fn packed(block: &[u8], part: usize) -> Packed {
        let ninth = usize::from(block[66 + part]);
        let entry = |i: usize| grids::IQ3_S[usize::from(block[2 + 8 * part + i]) | (ninth >> i & 1) << 8];
        let s = block[106 + part / 2] >> (part % 2 * 4) & 0xf;
        let unit = half(short(block, 0)) * f32::from(2 * s + 1);
        Packed::whole([four(entry), four(|i| entry(4 + i))], long(block, 74 + 4 * part), unit)
    }

    #[inline(always)]
    fn quants(levels: u64) -> u64 {
        2 * levels + ONES
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        let levels = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
        let grid = Grid { entries: &grids::IQ3_S, bits: 4, levels: &levels, peak: 15.0 };
        for block in weights.chunks_exact(LEN) {
            let (scale, each) = iq::scales(block, 32, grid.peak, 15);
            let entries = entries(&grid, block, half(scale), &each);
            row.extend(scale.to_le_bytes());
            row.extend(entries.iter().map(|&entry| entry as u8));
            let ninth = |eight: &[usize]| (0..8).fold(0, |bits, i| bits | ((eight[i] >> 8) as u8) << i);
            row.extend(entries.chunks_exact(8).map(ninth));
            row.extend(block.chunks_exact(8).map(|eight| iq::signs(eight, false)));
            row.extend(each.chunks_exact(2).map(|two| two[0] | two[1] << 4));
        }
    }
}
