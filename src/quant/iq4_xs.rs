//! IQ4_XS: 256 weights, each one of 16 values, and a scale of 6 bits for every 32. A weight is `d × (scale − 32) × value`.
//!
//! Block, 136 bytes: d (binary16); 16 bits with the high two of each scale; 4 bytes with their low four; then, for every 32
//! weights, 16 bytes whose low halves are the first 16 weights and whose high halves are the others. Source: ggml block
//! layouts (`block_iq4_xs`); the values are those of IQ4_NL (`kvalues_iq4nl`).

use super::iq::{half, short};
use super::rows::{LEN, Part, Unpack};
use alloc::vec::Vec;

/// What the quants stand for.
pub const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The format.
pub struct Iq4Xs;

impl Unpack for Iq4Xs {
    const ID: u32 = 23;
    const NAME: &'static str = "IQ4_XS";
    const BYTES: usize = 136;
    const HALVES: bool = false;

    #[inline(always)]
    fn part(block: &[u8], part: usize) -> Part {
        let eight = |i: usize| {
            let bytes = &block[8 + 16 * part + i % 2 * 8..][..8];
            let value = |byte: u8| VALUES[usize::from(byte >> (i / 2 * 4) & 0xf)].cast_unsigned();
            u64::from_le_bytes(core::array::from_fn(|j| value(bytes[j])))
        };
        let low = block[4 + part / 2] >> (part % 2 * 4) & 0xf;
        let high = (short(block, 2) >> (2 * part) & 3) as u8;
        let unit = half(short(block, 0)) * (f32::from(low | high << 4) - 32.0);
        Part::whole([eight(0), eight(1), eight(2), eight(3)], unit)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            // The largest magnitude becomes −127, the value farthest out.
            let wanted = block.chunks_exact(32).map(|run| super::block32::peak(run) / -127.0);
            let wanted: Vec<f32> = wanted.collect();
            let d = half::f16::from_f32(super::block32::peak(&wanted) / -32.0);
            let inverse = if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
            let scales = wanted.iter().map(|wanted| libm::rintf(wanted * inverse).clamp(-32.0, 31.0));
            let scales: Vec<f32> = scales.collect();
            let bits = |part: usize| (scales[part] + 32.0) as u16;
            row.extend(d.to_le_bytes());
            row.extend((0..8).fold(0u16, |high, part| high | (bits(part) >> 4) << (2 * part)).to_le_bytes());
            row.extend((0..4).map(|i| (bits(2 * i) & 0xf | (bits(2 * i + 1) & 0xf) << 4) as u8));
            for (run, scale) in block.chunks_exact(32).zip(&scales) {
                let unit = d.to_f32() * scale;
                let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
                let nearest = |weight: f32| {
                    let off = |value: i8| (f32::from(value) - weight * inverse).abs();
                    (1..16).fold(0, |best, i| if off(VALUES[i]) < off(VALUES[best]) { i } else { best }) as u8
                };
                row.extend((0..16).map(|i| nearest(run[i]) | nearest(run[i + 16]) << 4));
            }
        }
    }
}
