//! Q3_K: 256 weights of 3 bits and a scale of 6 bits for every 16. A weight is `d × (scale − 32) × (quant − 4)`.
//!
//! Block, 110 bytes: 32 bytes of the quants' highest bits; 64 bytes of their low two; 12 bytes of scales; d (binary16). Two
//! bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first; so is one bit of each of the first 32
//! bytes. Scale k has its low four bits in the low (k < 8) or high half of byte k mod 8, its high two in byte 8 + k mod 4.
//! Source: ggml block layouts (`block_q3_K`).

use super::iq::{half, short};
use super::rows::{LEN, Part, Unpack};
use alloc::vec::Vec;

/// The format.
pub struct Q3K;

impl Unpack for Q3K {
    const ID: u32 = 11;
    const NAME: &'static str = "Q3_K";
    const BYTES: usize = 110;
    const HALVES: bool = true;

    #[inline(always)]
    fn part(block: &[u8], part: usize) -> Part {
        let word = |at: usize| u64::from_le_bytes(block[at..][..8].try_into().expect("eight bytes"));
        let eight = |i: usize| {
            let low = word(32 + part / 4 * 32 + 8 * i) >> (part % 4 * 2) & 0x0303_0303_0303_0303;
            let high = word(8 * i) >> part & 0x0101_0101_0101_0101;
            // 128 more, so that nothing is borrowed, which turning the highest bits takes off again.
            ((low | high << 2) + 0x7c7c_7c7c_7c7c_7c7c) ^ 0x8080_8080_8080_8080
        };
        let scale = |k: usize| {
            let low = block[96 + k % 8] >> (k / 8 * 4) & 0xf;
            let high = block[104 + k % 4] >> (k / 4 * 2) & 3;
            i32::from(low | high << 4) - 32
        };
        let unit = half(short(block, 108));
        Part::halves([eight(0), eight(1), eight(2), eight(3)], unit, [scale(2 * part), scale(2 * part + 1)])
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a few bits
    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            // What a scale should be: the largest magnitude becomes −4.
            let wanted = block.chunks_exact(16).map(|run| super::block32::peak(run) / -4.0);
            let wanted: Vec<f32> = wanted.collect();
            let d = half::f16::from_f32(super::block32::peak(&wanted) / -32.0);
            let inverse = if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
            let (mut high, mut low, mut scales) = ([0u8; 32], [0u8; 64], [0u8; 12]);
            for (k, (run, wanted)) in block.chunks_exact(16).zip(&wanted).enumerate() {
                let scale = libm::rintf(wanted * inverse).clamp(-32.0, 31.0);
                let bits = (scale + 32.0) as u8;
                scales[k % 8] |= (bits & 0xf) << (k / 8 * 4);
                scales[8 + k % 4] |= (bits >> 4) << (k / 4 * 2);
                let unit = d.to_f32() * scale;
                let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
                for (i, weight) in run.iter().enumerate() {
                    let quant = (libm::rintf(weight * inverse).clamp(-4.0, 3.0) + 4.0) as u8;
                    let at = k % 2 * 16 + i;
                    low[k / 8 * 32 + at] |= (quant & 3) << (k / 2 % 4 * 2);
                    high[at] |= (quant >> 2) << (k / 2);
                }
            }
            row.extend(high);
            row.extend(low);
            row.extend(scales);
            row.extend(d.to_le_bytes());
        }
    }
}
