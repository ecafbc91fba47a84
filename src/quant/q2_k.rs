//! Q2_K: 256 weights of 2 bits; a scale and a minimum of 4 bits for every 16. A weight is `d × scale × quant − dmin × minimum`.
//!
//! Block, 84 bytes: 16 bytes with a scale (low half) and a minimum (high half) each; 64 bytes of quants; d and dmin
//! (binary16). Two bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first. Source: ggml block layouts
//! (`block_q2_K`).

use super::iq::{half, short};
use super::rows::{LEN, Part, Unpack};
use alloc::vec::Vec;

/// The format.
pub struct Q2K;

impl Unpack for Q2K {
    const ID: u32 = 10;
    const NAME: &'static str = "Q2_K";
    const BYTES: usize = 84;
    const HALVES: bool = true;
    const MINIMUMS: bool = true;

    #[inline(always)]
    fn part(block: &[u8], part: usize) -> Part {
        let bytes = block[16 + part / 4 * 32..][..32].as_chunks::<8>().0;
        let eight = |i: usize| u64::from_le_bytes(bytes[i]) >> (part % 4 * 2) & 0x0303_0303_0303_0303;
        let both = [block[2 * part], block[2 * part + 1]];
        Part {
            quants: [eight(0), eight(1), eight(2), eight(3)],
            unit: half(short(block, 80)),
            scales: both.map(|both| i32::from(both & 0xf)),
            worth: -half(short(block, 82)),
            minimums: both.map(|both| i32::from(both >> 4)),
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            // The span of 16 weights from at most 0 on.
            let spans = block.chunks_exact(16).map(|run| {
                let least = run.iter().copied().fold(0.0, f32::min);
                (run.iter().copied().fold(0.0, f32::max) - least, -least)
            });
            let spans: Vec<(f32, f32)> = spans.collect();
            let largest = |of: fn(&(f32, f32)) -> f32| spans.iter().map(of).fold(0.0, f32::max);
            let d = half::f16::from_f32(largest(|span| span.0) / 3.0 / 15.0);
            let dmin = half::f16::from_f32(largest(|span| span.1) / 15.0);
            let over = |d: half::f16| if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
            let four_bits = |value: f32| libm::rintf(value).clamp(0.0, 15.0) as u8;
            let mut quants = [0u8; 64];
            for (index, (run, (span, down))) in block.chunks_exact(16).zip(&spans).enumerate() {
                let (scale, minimum) = (four_bits(span / 3.0 * over(d)), four_bits(down * over(dmin)));
                row.push(scale | minimum << 4);
                let unit = d.to_f32() * f32::from(scale);
                let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
                let base = dmin.to_f32() * f32::from(minimum);
                for (i, weight) in run.iter().enumerate() {
                    let quant = libm::rintf((weight + base) * inverse).clamp(0.0, 3.0) as u8;
                    quants[index / 8 * 32 + index % 2 * 16 + i] |= quant << (index / 2 % 4 * 2);
                }
            }
            row.extend(quants);
            row.extend(d.to_le_bytes());
            row.extend(dmin.to_le_bytes());
        }
    }
}
