//! TQ1_0, TQ2_0: 256 weights −1, 0 or 1 and one scale: models that were trained so. A weight is `d × (quant − 1)`.
//!
//! TQ1_0, 54 bytes: 32 bytes of five weights each, 16 more, 4 bytes of four each, d (binary16). A byte is a fraction of
//! 256 to base 3: its k-th digit is `(byte × 3ᵏ mod 256) × 3 / 256`. Digit k of neighbouring bytes are neighbouring weights.
//!
//! TQ2_0, 66 bytes: 64 bytes, d. Two bits of each of 32 bytes are 32 neighbouring weights, the lowest ones first; 3 would be
//! a weight of 2. Source: ggml block layouts (`block_tq1_0`, `block_tq2_0`).

use super::iq::{half, short};
use super::rows::{LEN, Part, Unpack};
use alloc::vec::Vec;

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Where weight `index` of a TQ1_0 block is: its byte and its digit.
#[inline(always)]
const fn place(index: usize) -> (usize, usize) {
    match index {
        0..160 => (index % 32, index / 32),
        160..240 => (32 + (index - 160) % 16, (index - 160) / 16),
        _ => (48 + (index - 240) % 4, (index - 240) / 4),
    }
}

/// −1, 0 or 1 for each weight of a block, and the scale.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 2
fn digits(block: &[f32]) -> (half::f16, Vec<u8>) {
    let scale = super::block32::peak(block).abs();
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let digit = |weight: &f32| (libm::roundf(weight * inverse) + 1.0) as u8;
    (half::f16::from_f32(scale), block.iter().map(digit).collect())
}

/// The format.
pub struct Tq1;

impl Unpack for Tq1 {
    const ID: u32 = 34;
    const NAME: &'static str = "TQ1_0";
    const BYTES: usize = 54;
    const HALVES: bool = false;

    #[inline(always)]
    fn part(block: &[u8], part: usize) -> Part {
        let eight = |i: usize| {
            u64::from_le_bytes(core::array::from_fn(|j| {
                let (byte, digit) = place(32 * part + 8 * i + j);
                let fraction = block[byte].wrapping_mul(POWERS[digit]);
                (((u16::from(fraction) * 3) >> 8) as u8).wrapping_sub(1)
            }))
        };
        Part::whole([eight(0), eight(1), eight(2), eight(3)], half(short(block, 52)))
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, digits) = digits(block);
            let mut sums = [0u16; 52];
            for (index, digit) in digits.into_iter().enumerate() {
                let (byte, place) = place(index);
                sums[byte] += u16::from(digit) * u16::from(POWERS[4 - place]);
            }
            // Rounded up, so that no digit becomes smaller.
            row.extend(sums.map(|sum| (sum * 256).div_ceil(243) as u8));
            row.extend(scale.to_le_bytes());
        }
    }
}

/// The format.
pub struct Tq2;

impl Unpack for Tq2 {
    const ID: u32 = 35;
    const NAME: &'static str = "TQ2_0";
    const BYTES: usize = 66;
    const HALVES: bool = false;

    #[inline(always)]
    fn part(block: &[u8], part: usize) -> Part {
        let bytes = block[part / 4 * 32..][..32].as_chunks::<8>().0;
        let eight = |i: usize| {
            let quants = u64::from_le_bytes(bytes[i]) >> (part % 4 * 2) & 0x0303_0303_0303_0303;
            // 128 more, so that nothing is borrowed, which turning the highest bits takes off again.
            (quants + 0x7f7f_7f7f_7f7f_7f7f) ^ 0x8080_8080_8080_8080
        };
        Part::whole([eight(0), eight(1), eight(2), eight(3)], half(short(block, 64)))
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(LEN) {
            let (scale, digits) = digits(block);
            let mut bytes = [0u8; 64];
            for (index, digit) in digits.into_iter().enumerate() {
                bytes[index / 128 * 32 + index % 32] |= digit << (index % 128 / 32 * 2);
            }
            row.extend(bytes);
            row.extend(scale.to_le_bytes());
        }
    }
}
