//! MXFP4: 32 weights, each a float of 4 bits (E2M1), and a power of two. A weight is `2^(exponent − 127) × float`.
//!
//! Block, 17 bytes: the exponent, then 16 bytes whose low halves are weights 0–15 and whose high halves are weights 16–31.
//! Source: OCP Microscaling Formats (MX) Specification 1.0, section 5.3; ggml block layouts (`block_mxfp4`).
//!
//! Twice the floats are whole numbers, and are worth half as much. A block begins with one byte, which no tile of binary16
//! scales has room for, so it is unpacked as [`super::rows`] does.

use super::block32::peak;
use super::rows::{Part, Unpack};
use alloc::vec::Vec;

/// Twice what the quants stand for.
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The format.
pub struct Mxfp4;

/// Half of 2^(exponent − 127): the two lowest are subnormal.
fn half_power(exponent: u8) -> f32 {
    f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        exponent => (u32::from(exponent) - 1) << 23,
    })
}

impl Unpack for Mxfp4 {
    const ID: u32 = 39;
    const NAME: &'static str = "MXFP4";
    const LEN: usize = 32;
    const BYTES: usize = 17;
    const HALVES: bool = false;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let eight = |i: usize| {
            let bytes = &block[1 + i % 2 * 8..][..8];
            let value = |byte: u8| VALUES[usize::from(byte >> (i / 2 * 4) & 0xf)].cast_unsigned();
            u64::from_le_bytes(core::array::from_fn(|j| value(bytes[j])))
        };
        Part::whole([eight(0), eight(1), eight(2), eight(3)], half_power(block[0]))
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            // The power of two of the largest magnitude, less that of the largest float of 4 bits, which is 4.
            let exponent = (peak(block).to_bits() >> 23 & 0xff).saturating_sub(2) as u8;
            let unit = half_power(exponent);
            let nearest = |weight: f32| {
                let off = |value: i8| (f32::from(value) * unit - weight).abs();
                (1..16).fold(0, |best, i| if off(VALUES[i]) < off(VALUES[best]) { i } else { best }) as u8
            };
            row.push(exponent);
            row.extend((0..16).map(|i| nearest(block[i]) | nearest(block[i + 16]) << 4));
        }
    }
}
