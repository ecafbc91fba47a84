//! Q6_K: 256 weights of 6 bits and a scale of 8 bits for every 16. A weight is `d × scale × (quant − 32)`.
//!
//! Block, 210 bytes, for each half of 128 weights: 64 bytes whose low halves are the low four bits of weights 0–63 and whose
//! high halves are those of weights 64–127 (all halves' come first), then 32 bytes with the high two bits of weights `i`,
//! `i + 32`, `i + 64` and `i + 96`, the first lowest; 16 scales; d (binary16). Source: ggml block layouts (`block_q6_K`).
//!
//! # In a tile
//!
//! Scales are 128 larger. 32 is taken off each quant, and a part has 24 bytes of its own. The upper six bits of byte `4k + c` are weight `4k + c`; the
//! lower two, of bytes `c`, `4 + c` and `8 + c`, are weight `24 + c` from its highest bits down, and those of the bytes from 12 on
//! weight `28 + c`. So six vectors of a quad are a shift each, or a mask where a quant may be four times as large, and two are
//! three insertions.

#[cfg(target_arch = "aarch64")]
use super::TILE;
use super::block32::half;
use super::quads::Quads;
use super::superblock::{Head, PARTS, Part, Scales, Superblock};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// The format.
#[allow(non_camel_case_types)] // as people write it
pub struct Q6_K;

/// Where the high bits, the scales and d are in a block.
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;
/// What a tile's block begins with, and a part's bytes behind it.
const HEAD: usize = 18;
const PART: usize = 24;

/// Where in a block weight `i` of a part has its bits: byte and shift of the low four, byte and shift of the high two.
#[inline(always)]
fn place(part: usize, i: usize) -> ((usize, usize), (usize, usize)) {
    let (side, quarter) = (part / 4, part % 4);
    ((64 * side + quarter % 2 * 32 + i, quarter / 2 * 4), (HIGH + 32 * side + i, 2 * quarter))
}

/// The six bits of a part's weights, 32 taken off, in two's complement.
fn six_bits(block: &[u8], part: usize) -> [u8; 32] {
    core::array::from_fn(|i| {
        let ((low, shift), (high, turn)) = place(part, i);
        (block[low] >> shift & 0xf | (block[high] >> turn & 3) << 4) ^ 32
    })
}

impl Quads for Q6_K {
    const NARROW: bool = false;
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const FRACTION: i32 = 2;
}

impl Superblock for Q6_K {
    const ID: u32 = 14;
    const NAME: &'static str = "Q6_K";
    const BYTES: usize = 210;
    const NUMBERS: usize = 1;
    const SMALL: usize = 16;
    const MINIMUM: bool = false;
    const LESS: u8 = 128; // of a factor
    const SIXTEENS: bool = true; // 8 × 32 × 127 = 32,512; 32 × 128 × 32 × 127 < 2²⁴

    fn unpack(block: &[u8], part: usize) -> Part {
        let quants = six_bits(block, part).map(|bits| (bits << 2).cast_signed() >> 2);
        let factor = |half: usize| i32::from(block[SCALES + 2 * part + half].cast_signed());
        Part { quants, factors: [factor(0), factor(1)], scale: half(&block[D..]), minimums: [0.0; 2] }
    }

    fn sort(block: &[u8], sorted: &mut [u8]) {
        sorted[..2].copy_from_slice(&block[D..]);
        sorted[2..HEAD].copy_from_slice(&block[SCALES..D]);
        sorted[2..HEAD].iter_mut().for_each(|byte| *byte ^= Self::LESS);
        for part in 0..PARTS {
            let bits = six_bits(block, part);
            for (i, byte) in sorted[HEAD + PART * part..][..PART].iter_mut().enumerate() {
                let other = bits[24 + i / 12 * 4 + i % 4];
                *byte = bits[i] << 2 | other >> (4 - 2 * (i / 4 % 3)) & 3;
            }
        }
    }

    fn unsort(sorted: &[u8], block: &mut [u8]) {
        block.fill(0);
        block[D..].copy_from_slice(&sorted[..2]);
        block[SCALES..D].copy_from_slice(&sorted[2..HEAD]);
        block[SCALES..D].iter_mut().for_each(|byte| *byte ^= Self::LESS);
        for part in 0..PARTS {
            let data = &sorted[HEAD + PART * part..][..PART];
            for i in 0..32usize {
                let bits = match i.checked_sub(24) {
                    None => data[i] >> 2,
                    Some(rest) => {
                        let low = |word: usize| data[rest / 4 * 12 + 4 * word + rest % 4] & 3;
                        low(0) << 4 | low(1) << 2 | low(2)
                    }
                } ^ 32;
                let ((low, shift), (high, turn)) = place(part, i);
                block[low] |= (bits & 0xf) << shift;
                block[high] |= (bits >> 4) << turn;
            }
        }
    }

    #[inline(always)]
    fn scales(head: Head<'_>, scales: &mut Scales) {
        scales.scales[0] = head.number(0);
        for (index, factors) in scales.factors.iter_mut().enumerate() {
            let bytes = head.small(1, index);
            for (factor, byte) in factors.iter_mut().zip(bytes) {
                *factor = i32::from(byte) - i32::from(Self::LESS);
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn part_bytes(small: *const u8, half: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller's promise: 16 vectors.
        unsafe {
            let (first, last) =
                crate::simd::neon::load_pair(small.add(2 * TILE * (PARTS / 2 * half + quarter)));
            [vreinterpretq_u8_s8(first), vreinterpretq_u8_s8(last)]
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: six vectors.
        unsafe { fours(six(data), |bytes| bytes).map(|bytes| vshrq_n_s8::<2>(bytes)) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: as above; Advanced SIMD is part of every AArch64 target of this project.
        unsafe { fours(six(data), |bytes| vandq_s8(bytes, vdupq_n_s8(!3))) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_near<const QUAD: i32>(middle: super::quads::From) -> [int8x16_t; 8] {
        use super::quads::near;
        // SAFETY: as above.
        unsafe {
            let words = [
                near::<QUAD, 6, 0>(middle),
                near::<QUAD, 6, 1>(middle),
                near::<QUAD, 6, 2>(middle),
                near::<QUAD, 6, 3>(middle),
                near::<QUAD, 6, 4>(middle),
                near::<QUAD, 6, 5>(middle),
            ];
            fours(words, |bytes| vandq_s8(bytes, vdupq_n_s8(!3)))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 96 bytes.
        unsafe {
            let words =
                [_mm256_loadu_si256(data), _mm256_loadu_si256(data.add(1)), _mm256_loadu_si256(data.add(2))];
            // The lower bits: of the first three vectors for one, of the last three for the other.
            let first = _mm256_permute2x128_si256::<0x30>(words[0], words[1]);
            let second = _mm256_permute2x128_si256::<0x21>(words[0], words[2]);
            let third = _mm256_permute2x128_si256::<0x30>(words[1], words[2]);
            let (three, twelve) = (_mm256_set1_epi8(3), _mm256_set1_epi8(12));
            let last = _mm256_or_si256(
                _mm256_slli_epi16::<4>(_mm256_and_si256(first, three)),
                _mm256_or_si256(
                    _mm256_and_si256(_mm256_slli_epi16::<2>(second), twelve),
                    _mm256_and_si256(third, three),
                ),
            );
            let (six, sign) = (_mm256_set1_epi8(63), _mm256_set1_epi8(32));
            // A macro and no closure, which would have no target features and make a call of each of these.
            macro_rules! signed {
                ($bits:expr) => {
                    _mm256_sub_epi8(_mm256_xor_si256($bits, sign), sign)
                };
            }
            [
                signed!(_mm256_and_si256(_mm256_srli_epi16::<2>(words[0]), six)),
                signed!(_mm256_and_si256(_mm256_srli_epi16::<2>(words[1]), six)),
                signed!(_mm256_and_si256(_mm256_srli_epi16::<2>(words[2]), six)),
                signed!(last),
            ]
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.as_chunks::<256>().0 {
            // What one unit of each 16 weights should be worth: the largest magnitude becomes −32.
            let units: [f32; 16] =
                core::array::from_fn(|i| super::block32::peak(&block[16 * i..16 * i + 16]) / -32.0);
            let d = half::f16::from_f32(super::block32::peak(&units) / -128.0);
            let inverse = |value: f32| if value == 0.0 { 0.0 } else { 1.0 / value };
            #[allow(clippy::cast_possible_truncation)] // clamped
            let scales = units.map(|unit| libm::rintf(unit * inverse(d.to_f32())).clamp(-128.0, 127.0) as i8);
            let mut bytes = [0; 210];
            for (i, weight) in block.iter().enumerate() {
                let unit = d.to_f32() * f32::from(scales[i / 16]);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
                let quant = (libm::rintf(weight * inverse(unit)).clamp(-32.0, 31.0) + 32.0) as u8;
                let ((low, shift), (high, turn)) = place(i / 32, i % 32);
                bytes[low] |= (quant & 0xf) << shift;
                bytes[high] |= (quant >> 4) << turn;
            }
            for (byte, scale) in bytes[SCALES..D].iter_mut().zip(scales) {
                *byte = scale.cast_unsigned();
            }
            bytes[D..].copy_from_slice(&d.to_le_bytes());
            row.extend(bytes);
        }
    }
}

/// The vectors of a quad.
///
/// # Safety
/// Six vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn six(data: &mut super::quads::From) -> [int8x16_t; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = super::quads::four(data);
        [a, b, c, d, super::quads::next(data), super::quads::next(data)]
    }
}

/// A quad of quants times four; `upper` is what is done to the six vectors that have one in their upper bits.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn fours([a, b, c, d, e, f]: [int8x16_t; 6], upper: impl Fn(int8x16_t) -> int8x16_t) -> [int8x16_t; 8] {
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        // Shifted left and inserted above what is there, the highest bits last.
        let lower = |high: int8x16_t, middle: int8x16_t, low: int8x16_t| {
            let bits = vsliq_n_s8::<4>(vshlq_n_s8::<2>(low), middle);
            vsliq_n_s8::<6>(bits, high)
        };
        [upper(a), upper(b), upper(c), upper(d), upper(e), upper(f), lower(a, b, c), lower(d, e, f)]
    }
}
