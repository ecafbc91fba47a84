//! Random blocks of every weight format, without a quantizer: random integers under a scale of the right size.
//!
//! Every value that the integers, the scales of sub-blocks and the signs can take occurs, which quantized weights do
//! not offer; and a change of a quantizer changes no synthetic model. Layouts: ggml's `ggml-common.h`.

use super::random::Random;
use crate::gguf::kinds::Kind;
use alloc::vec::Vec;
use half::{bf16, f16};

/// What makes random bytes a block of weights.
struct Layout {
    name: &'static str,
    /// Where the block's scale is (f16), bytes.
    scale: usize,
    /// Where the factor of minimums is (f16), and how many scales it is so that the mean is zero.
    minimum: Option<(usize, f32)>,
    /// Standard deviation of the weights when scale is 1: measured on the decoded blocks.
    deviation: f32,
    /// What else must be so.
    rule: Rule,
}

enum Rule {
    Any,
    /// 12 bytes from here are eight scales and eight minimums of 6 bits (Q4_K, Q5_K).
    SixBits(usize),
    /// 16 bytes from here are a scale and a minimum of 4 bits each (Q2_K).
    FourBits(usize),
    /// Bytes of five ternary digits, and from here on of four (TQ1_0).
    Trits(usize),
    /// Two bits of which 3 is not used (TQ2_0).
    Crumbs,
    /// The scale's 16 bits are the top four of the four 16-bit words from here (IQ1_M).
    Scattered(usize),
    /// The scale is a power of two, in a byte (MXFP4).
    Exponent,
}

const fn layout(name: &'static str, scale: usize, deviation: f32) -> Layout {
    Layout { name, scale, minimum: None, deviation, rule: Rule::Any }
}

static LAYOUTS: &[Layout] = &[
    layout("Q4_0", 0, 4.61),
    Layout { minimum: Some((2, -7.5)), ..layout("Q4_1", 0, 4.61) },
    layout("Q5_0", 0, 9.23),
    Layout { minimum: Some((2, -15.5)), ..layout("Q5_1", 0, 9.23) },
    layout("Q8_0", 0, 73.9),
    Layout { minimum: Some((82, 1.5)), rule: Rule::FourBits(0), ..layout("Q2_K", 80, 13.0) },
    layout("Q3_K", 108, 43.3),
    Layout { minimum: Some((2, 7.5)), rule: Rule::SixBits(4), ..layout("Q4_K", 0, 221.0) },
    Layout { minimum: Some((2, 15.5)), rule: Rule::SixBits(4), ..layout("Q5_K", 0, 443.0) },
    layout("Q6_K", 208, 1361.0),
    layout("IQ2_XXS", 0, 53.3),
    layout("IQ2_XS", 0, 56.1),
    layout("IQ2_S", 0, 56.0),
    layout("IQ3_XXS", 0, 142.9),
    layout("IQ3_S", 0, 136.0),
    layout("IQ1_S", 0, 7.22),
    Layout { rule: Rule::Scattered(48), ..layout("IQ1_M", 48, 7.15) },
    layout("IQ4_NL", 0, 67.3),
    layout("IQ4_XS", 0, 1236.0),
    Layout { rule: Rule::Trits(48), ..layout("TQ1_0", 52, 0.817) },
    Layout { rule: Rule::Crumbs, ..layout("TQ2_0", 64, 0.829) },
    Layout { rule: Rule::Exponent, ..layout("MXFP4", 0, 2.92) },
];

/// Whether blocks of this type can be made.
pub(super) fn known(kind: &Kind) -> bool {
    matches!(kind.name, "F32" | "F16" | "BF16") || layout_of(kind).is_some()
}

fn layout_of(kind: &Kind) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.name == kind.name)
}

/// Adds a row of `columns` random weights of about this standard deviation (exactly this many whole blocks).
pub(super) fn row(out: &mut Vec<u8>, kind: &Kind, columns: usize, deviation: f32, random: &mut Random) {
    let floats = (0..columns).map(|_| random.normal(deviation));
    match kind.name {
        "F32" => out.extend(floats.flat_map(f32::to_le_bytes)),
        "F16" => out.extend(floats.flat_map(|weight| f16::from_f32(weight).to_le_bytes())),
        "BF16" => out.extend(floats.flat_map(|weight| bf16::from_f32(weight).to_le_bytes())),
        _ => {
            let Some(layout) = layout_of(kind) else { return };
            for _ in 0..columns / kind.len as usize {
                let start = out.len();
                let bytes = kind.bytes as usize;
                while out.len() < start + bytes {
                    out.extend(random.next().to_le_bytes());
                }
                out.truncate(start + bytes);
                layout.block(&mut out[start..], deviation, random);
            }
        }
    }
}

impl Layout {
    /// Makes a block of random bytes one of weights.
    fn block(&self, block: &mut [u8], deviation: f32, random: &mut Random) {
        // Scales differ from block to block, from a half to three halves of what is asked for.
        let scale = f16::from_f32(deviation / self.deviation * (0.5 + random.uniform()));
        match self.rule {
            Rule::Any | Rule::Scattered(_) | Rule::Exponent => {}
            Rule::SixBits(at) => pack_six_bits(&mut block[at..at + 12], random),
            Rule::FourBits(at) => {
                for byte in &mut block[at..at + 16] {
                    let (scale, minimum) = near(random, 15);
                    *byte = scale | minimum << 4;
                }
            }
            Rule::Trits(four) => {
                // n digits are a fraction of 3^n, rounded up to 8 bits.
                for (at, byte) in block[..52].iter_mut().enumerate() {
                    let value = if at < four { u32::from(*byte) % 243 } else { u32::from(*byte) % 81 * 3 };
                    *byte = (value * 256).div_ceil(243) as u8;
                }
            }
            Rule::Crumbs => {
                for byte in &mut block[..64] {
                    *byte &= !(*byte >> 1 & 0x55);
                }
            }
        }

        match self.rule {
            Rule::Scattered(at) => {
                for (i, word) in block[at..at + 8].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let nibble = scale.to_bits() >> (4 * i) & 15;
                    *word = (u16::from_le_bytes(*word) & 0xfff | nibble << 12).to_le_bytes();
                }
            }
            Rule::Exponent => {
                // 2^e × the table of halves: the nearest power of two below.
                let exponent = f32::from(scale).to_bits() >> 23 & 0xff;
                block[0] = exponent as u8;
            }
            _ => put_at(block, self.scale, scale),
        }
        if let Some((at, times)) = self.minimum {
            put_at(block, at, f16::from_f32(f32::from(scale) * times));
        }
    }
}

fn put_at(block: &mut [u8], at: usize, value: f16) {
    block[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// A scale from the upper half of its range, and a minimum near it: so a sub-block's mean is near zero.
fn near(random: &mut Random, most: u8) -> (u8, u8) {
    let r = random.next();
    let scale = most / 2 + 1 + (r % u64::from(most / 2 + 1)) as u8;
    let minimum = scale - 2 + (r >> 32 & 3) as u8;
    (scale, minimum.min(most))
}

/// Eight scales and minimums of 6 bits: of the first four the low six bits of bytes 0–3 and 4–7; of the others the low
/// four in the nibbles of bytes 8–11, the high two on top of bytes 0–7.
fn pack_six_bits(bytes: &mut [u8], random: &mut Random) {
    for j in 0..4 {
        let ((s, m), (high_s, high_m)) = (near(random, 63), near(random, 63));
        bytes[j] = s | (high_s >> 4) << 6;
        bytes[j + 4] = m | (high_m >> 4) << 6;
        bytes[j + 8] = high_s & 15 | (high_m & 15) << 4;
    }
}
