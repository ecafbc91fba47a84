//! Superblocks × one column on Arm CPUs: what answers are made of.

use super::super::input::{BLOCK, Lanes};
use super::super::iq4_nl::dot_values_neon;
use super::super::quads::{
    From, dot_narrow_sixteens_neon, dot_neon, dot_one, dot_sixteens_neon, dot_sixteens_one, dot_two_bits_one,
    last_zero, near, repeated, then,
};
use super::super::{Sums, TILE};
use super::kernels::{folds, prefetch};
use super::{HIGH, PARTS, Superblock, head, words};
use crate::simd::neon;
use core::arch::{aarch64::*, asm};

/// The floats of [`super::floats`] of a quad's four rows.
#[inline]
#[target_feature(enable = "neon")]
fn floats_of<const QUAD: usize>(bytes: uint8x16_t, less: u8) -> float32x4_t {
    let high = vdupq_n_u8(HIGH);
    let two = vreinterpretq_u16_u8(if QUAD < 2 { vzip1q_u8(bytes, high) } else { vzip2q_u8(bytes, high) });
    let mut zero = vdupq_n_u16(0);
    // SAFETY: no instruction at all. What is interleaved with a known zero, LLVM makes a shift again.
    unsafe {
        asm!("// {0:v}", inout(vreg) zero, options(pure, nomem, nostack, preserves_flags));
    }
    let bits = if QUAD.is_multiple_of(2) { vzip1q_u16(zero, two) } else { vzip2q_u16(zero, two) };
    vsubq_f32(vreinterpretq_f32_u16(bits), vdupq_n_f32(128.0 + f32::from(less)))
}

/// The factors of a quad's four rows, from signed bytes.
#[inline]
#[target_feature(enable = "neon")]
fn factors_of<const QUAD: usize>(bytes: uint8x16_t) -> int32x4_t {
    let bytes = vreinterpretq_s8_u8(bytes);
    let two = if QUAD < 2 { vmovl_s8(vget_low_s8(bytes)) } else { vmovl_high_s8(bytes) };
    if QUAD.is_multiple_of(2) { vmovl_s16(vget_low_s16(two)) } else { vmovl_high_s16(two) }
}

/// The same of the first and of the last 16 weights, in 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn narrow_factors_of<const QUAD: usize>([first, last]: [uint8x16_t; 2]) -> int16x8_t {
    let (first, last) = (vreinterpretq_s32_u8(first), vreinterpretq_s32_u8(last));
    let two = if QUAD < 2 { vzip1q_s32(first, last) } else { vzip2q_s32(first, last) };
    let two = vreinterpretq_s8_s32(two);
    if QUAD.is_multiple_of(2) { vmovl_s8(vget_low_s8(two)) } else { vmovl_high_s8(two) }
}

/// [`dot_neon`] of the next quad.
///
/// # Safety
/// As [`Superblock::quad`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn dot_next_neon<F: Superblock>(data: &mut From, x: [int8x16_t; 8], zero: int32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { if F::VALUES { dot_values_neon(data, x) } else { dot_neon::<F>(&F::quad(data), x, zero) } }
}

/// The low halves of bytes, which factors are in, and the high ones with minimums.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles_of(both: [uint8x16_t; 2]) -> ([uint8x16_t; 2], [uint8x16_t; 2]) {
    (both.map(|both| vandq_u8(both, vdupq_n_u8(0xf))), both.map(|both| vshrq_n_u8::<4>(both)))
}

/// 16 rows × 1 column.
#[target_feature(enable = "neon")]
pub unsafe fn one_neon<F: Superblock>(tile: *const u8, lanes: &Lanes<'_>, sums: &mut Sums) {
    let mut totals = [vdupq_n_f32(0.0); TILE / 4];
    let mut block = tile;
    let mut at = 0;
    for _ in 0..lanes.blocks / PARTS {
        // SAFETY: superblocks of the tile and blocks of the column, which the caller promised.
        unsafe {
            prefetch(block, const { (head::<F>() * TILE).div_ceil(64) });
            let numbers = neon::load_half_quad(block.cast());
            let mut others = numbers;
            if F::MINIMUM {
                others = neon::load_half_quad(block.cast::<u16>().add(TILE)).map(|four| vnegq_f32(four));
            }
            let small = block.add(F::NUMBERS * 2 * TILE);
            let mut data: From = block.add(head::<F>() * TILE).cast();
            for part in 0..PARTS {
                prefetch(data.cast(), words::<F>());
                let mut bytes = F::part_bytes(small, part / 4, part % 4);
                let mut minimums = bytes;
                let (mut first, mut last) = (0.0, 0.0);
                if F::MINIMUM && F::SIXTEENS {
                    (bytes, minimums) = nibbles_of(bytes);
                    let halves = lanes.halves.add(2 * at);
                    (first, last) = (*halves, *halves.add(lanes.width));
                }
                if F::SIXTEENS && F::LESS > 0 {
                    bytes = bytes.map(|bytes| vsubq_u8(bytes, vdupq_n_u8(F::LESS)));
                }
                let x = repeated(lanes.quants.add(at * BLOCK).cast());
                let unit = *lanes.scales.add(at);
                let sum = *lanes.sums.add(at);
                let zero = vdupq_n_s32(F::ZERO * *lanes.deficits.add(at));
                // Written out: the compiler unrolls no loop with assembly in it.
                macro_rules! quads {
                    ($($quad:literal)+) => {$({
                        data = then(data, &mut totals[($quad + 3) % 4]);
                        let mut four = numbers[$quad];
                        let products = if folds::<F>() {
                            let factors = narrow_factors_of::<$quad>(bytes);
                            dot_narrow_sixteens_neon(&F::quad(&mut data), x, factors)
                        } else if F::SIXTEENS {
                            let two = bytes.map(|bytes| factors_of::<$quad>(bytes));
                            dot_sixteens_neon(&F::quad(&mut data), x, two)
                        } else {
                            let products = dot_next_neon::<F>(&mut data, x, zero);
                            if F::SMALL > 0 {
                                four = vmulq_f32(four, floats_of::<$quad>(bytes[0], F::LESS));
                            }
                            products
                        };
                        totals[$quad] = vfmaq_f32(totals[$quad], products, vmulq_n_f32(four, unit));
                        if F::MINIMUM && F::SIXTEENS {
                            let four = minimums.map(|bytes| vmulq_f32(others[$quad], floats_of::<$quad>(bytes, 0)));
                            totals[$quad] = vfmaq_n_f32(totals[$quad], four[0], first);
                            totals[$quad] = vfmaq_n_f32(totals[$quad], four[1], last);
                        } else if F::MINIMUM {
                            let four = vmulq_f32(others[$quad], floats_of::<$quad>(bytes[1], 0));
                            totals[$quad] = vfmaq_n_f32(totals[$quad], four, sum);
                        }
                    })+};
                }
                quads!(0 1 2 3);
                at += lanes.width;
            }
            block = data.cast(); // a superblock ends where its last quad does
        }
    }
    for (sums, total) in sums.as_chunks_mut::<4>().0.iter_mut().zip(totals) {
        // SAFETY: four floats.
        unsafe { neon::store_floats(sums.as_mut_ptr(), total) };
    }
}

/// What a byte is larger by once it was [`lifted`].
const LIFT: f32 = 32_768.0;

/// For each quad, where [`lifted`] takes its bytes from: the byte of a row's lane is the second lowest, [`LIFT`]'s the highest,
/// and what no table has is zero.
static ROWS: [[u8; 16]; 4] = {
    let mut rows = [[u8::MAX; 16]; 4];
    let mut row = 0;
    while row < TILE {
        rows[row / 4][row % 4 * 4 + 1] = row as u8;
        rows[row / 4][row % 4 * 4 + 3] = TILE as u8;
        row += 1;
    }
    rows
};

/// For each quad, the 16-bit lanes of its rows' first factors, then those of their last ones, of 16 bytes each.
static PAIRED: [[u8; 16]; 4] = {
    let mut rows = [[u8::MAX; 16]; 4];
    let mut row = 0;
    while row < TILE {
        rows[row / 4][row % 4 * 2] = row as u8;
        rows[row / 4][row % 4 * 2 + 8] = (TILE + row) as u8;
        row += 1;
    }
    rows
};

/// Bytes of four rows as floats, [`LIFT`] larger than they are.
#[inline]
#[target_feature(enable = "neon")]
fn lifted(bytes: uint8x16_t, lift: uint8x16_t, rows: uint8x16_t) -> float32x4_t {
    vreinterpretq_f32_u8(vqtbl2q_u8(uint8x16x2_t(bytes, lift), rows))
}

/// 16 rows × 1 column, for the two vector pipes of the Cortex-A76: what can be done elsewhere is not done there. One look-up
/// makes floats of a byte of four rows. They are [`LIFT`] too large, and so is their product with the superblock's number: the
/// fused operation that multiplies adds what that is, as it was loaded, and is exact, since the difference is.
///
/// Unless that number is infinite: then this gives NaN, where the definition may give an infinity, and
/// [`super::kernels::multiply`] has the definition do it.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn one_dotprod<F: Superblock>(tile: *const u8, lanes: &Lanes<'_>, sums: &mut Sums) {
    const { assert!(F::LESS.is_multiple_of(32), "a few bits, so that products with binary16 are exact") };
    let less = f32::from(F::LESS);
    let mut totals = [vdupq_n_f32(0.0); TILE / 4];
    let mut lifts = [vdupq_n_u8((LIFT.to_bits() >> 24) as u8); 2];
    // SAFETY: no instruction at all. As far as the compiler can tell they differ: a table is two neighbouring registers, and of
    // one it would make copies for both tables all the time.
    unsafe {
        asm!("// {0:v}", inout(vreg) lifts[1], options(pure, nomem, nostack, preserves_flags));
    }
    // SAFETY: 16 bytes each.
    let rows = ROWS.each_ref().map(|rows| vreinterpretq_u8_s8(unsafe { neon::load(rows.as_ptr()) }));
    // SAFETY: 16 bytes each.
    let paired = PAIRED.each_ref().map(|rows| vreinterpretq_u8_s8(unsafe { neon::load(rows.as_ptr()) }));
    let mut block = tile;
    let mut at = 0;
    for _ in 0..lanes.blocks / PARTS {
        // SAFETY: superblocks of the tile and blocks of the column, which the caller promised.
        unsafe {
            prefetch(block, const { (head::<F>() * TILE).div_ceil(64) });
            let numbers = neon::load_half_quad(block.cast());
            let mut others = numbers;
            if F::MINIMUM {
                others = neon::load_half_quad(block.cast::<u16>().add(TILE));
            }
            // Of each quad what its scales and its minimums are too large by, and the minimums' number: there are too few
            // registers for them, and what is added to has to be loaded each time anyway.
            let quads: [[float32x4_t; 4]; 4] = core::array::from_fn(|quad| {
                [
                    vmulq_n_f32(numbers[quad], -LIFT - less),
                    numbers[quad],
                    vmulq_n_f32(others[quad], -LIFT),
                    others[quad],
                ]
            });
            let mut quads: From = quads.as_ptr().cast::<int8x16_t>().add(8);
            let small = block.add(F::NUMBERS * 2 * TILE);
            let mut middle: From = block.add(head::<F>() * TILE).cast::<int8x16_t>().add(2 * words::<F>());
            for half in 0..2 {
                for quarter in 0..4 {
                    prefetch(middle.cast(), words::<F>());
                    let mut bytes = F::part_bytes(small, half, quarter);
                    let mut minimums = bytes;
                    let (mut first, mut last) = (0.0, 0.0);
                    if F::MINIMUM && F::SIXTEENS {
                        (bytes, minimums) = nibbles_of(bytes);
                        bytes[0] = vshlq_n_u8::<2>(bytes[0]);
                        let halves = lanes.halves.add(2 * at);
                        (first, last) = (*halves, *halves.add(lanes.width));
                    }
                    let x = lanes.quants.add(at * BLOCK);
                    let x = (neon::load_near::<0>(x), neon::load_near::<16>(x));
                    let unit = *lanes.scales.add(at);
                    let sum = *lanes.sums.add(at);
                    let zero = (F::ZERO << F::FRACTION) * *lanes.deficits.add(at);
                    let last_zero = last_zero::<F>(x.1);
                    // Written out: the compiler unrolls no loop with assembly in it.
                    macro_rules! quads {
                        ($($quad:literal)+) => {$({
                            middle = then(middle, &mut totals[($quad + 3) % 4]);
                            quads = then(quads, &mut totals[($quad + 3) % 4]);
                            let quants = F::quad_near::<$quad>(middle);
                            let of = |which: usize| lifted(bytes[which], lifts[which], rows[$quad]);
                            let minimum = |which: usize| {
                                let lift = vreinterpretq_f32_s8(near::<$quad, 4, 2>(quads));
                                let four = vreinterpretq_f32_s8(near::<$quad, 4, 3>(quads));
                                vfmaq_f32(lift, lifted(minimums[which], lifts[which], rows[$quad]), four)
                            };
                            let mut four = numbers[$quad];
                            let products = if F::MINIMUM && F::SIXTEENS {
                                four = vreinterpretq_f32_s8(near::<$quad, 4, 1>(quads));
                                let two = vqtbl2q_u8(uint8x16x2_t(bytes[0], bytes[1]), paired[$quad]);
                                dot_two_bits_one(&quants, x, vreinterpretq_s16_u8(two))
                            } else if F::SIXTEENS {
                                let two = [of(0), of(1)].map(|float| vsubq_f32(float, vdupq_n_f32(LIFT + less)));
                                dot_sixteens_one::<F>(&quants, x, two, last_zero)
                            } else {
                                if F::SMALL > 0 {
                                    let lift = vreinterpretq_f32_s8(near::<$quad, 4, 0>(quads));
                                    four = vreinterpretq_f32_s8(near::<$quad, 4, 1>(quads));
                                    four = vfmaq_f32(lift, of(0), four);
                                }
                                dot_one::<F>(&quants, x, zero)
                            };
                            totals[$quad] = vfmaq_f32(totals[$quad], products, vmulq_n_f32(four, unit));
                            if F::MINIMUM && F::SIXTEENS {
                                totals[$quad] = vfmsq_n_f32(totals[$quad], minimum(0), first);
                                totals[$quad] = vfmsq_n_f32(totals[$quad], minimum(1), last);
                            } else if F::MINIMUM {
                                totals[$quad] = vfmsq_n_f32(totals[$quad], minimum(1), sum);
                            }
                        })+};
                    }
                    quads!(0 1 2 3);
                    middle = middle.add(4 * words::<F>());
                    at += lanes.width;
                }
            }
            block = middle.sub(2 * words::<F>()).cast(); // a superblock ends where its last quad does
        }
    }
    for (sums, total) in sums.as_chunks_mut::<4>().0.iter_mut().zip(totals) {
        // SAFETY: four floats.
        unsafe { neon::store_floats(sums.as_mut_ptr(), total) };
    }
}
