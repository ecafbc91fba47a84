//! Superblocks on Arm CPUs: the loops around the multiplications of [`super::super::quads`], by several columns.

use super::super::input::{BLOCK, Inputs, Lanes};
use super::super::quads::{
    Quads, column_dotprod, column_neon, column_sixteens_dotprod, column_sixteens_neon,
};
use super::super::{Sums, TILE};
use super::one_column::{one_dotprod, one_neon};
use super::{Head, PARTS, Scales, Superblock, head, words};
use crate::simd::{Level, neon};
use core::arch::aarch64::*;
use core::marker::PhantomData;

/// A tile by one column.
type Single = unsafe fn(tile: *const u8, lanes: &Lanes<'_>, sums: &mut Sums);
/// One quad of a superblock of a tile by several columns, added to their sums.
type Several =
    unsafe fn(block: *const u8, quad: usize, lanes: &Lanes<'_>, scales: &Scales, sums: &mut [Sums]);

/// The kernels of a level. They need a tile of as many superblocks as `lanes` has, or a superblock, and as many columns in
/// `lanes` as they multiply; and the CPU to have the level's instructions.
struct Kernels {
    one: Single,
    two: Several,
    four: Several,
    eight: Several,
    sixteen: Several,
}

/// Tiles × columns, as [`super::Format::multiply`] has checked them.
///
/// # Safety
/// `tiles` must be whole tiles as long as the columns, which must exist and be of one group, `sums` have one for each of both,
/// and the level be one of Arm's.
pub unsafe fn multiply<F: Superblock>(
    level: Level,
    tiles: &[u8],
    tile_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    let kernels = match level {
        Level::Dotprod(_) => const { &kernels_dotprod::<F>() },
        _ => const { &kernels_neon::<F>() },
    };
    let mut scales = Scales::NONE;
    let mut done = 0;
    while done < columns {
        let lanes = inputs.lanes(first + done);
        let (count, several) = match columns - done {
            1 => (1, None),
            2 | 3 => (2, Some(kernels.two)),
            4..8 => (4, Some(kernels.four)),
            8..16 => (8, Some(kernels.eight)),
            _ => (16, Some(kernels.sixteen)),
        };
        for (tile, sums) in tiles.chunks_exact(tile_bytes).zip(sums.chunks_exact_mut(columns)) {
            let sums = &mut sums[done..done + count];
            let Some(several) = several else {
                // SAFETY: the level that chose the kernels proves the instructions; the rest is the caller's promise.
                unsafe { (kernels.one)(tile.as_ptr(), &lanes, &mut sums[0]) };
                // Broken, or an infinite scale that the kernel for `sdot` can't do.
                if matches!(level, Level::Dotprod(_))
                    && (F::MINIMUM || !F::SIXTEENS)
                    && sums[0].iter().any(|sum| sum.is_nan())
                {
                    super::multiply_plain::<F>(tile, tile_bytes, inputs, first + done, 1, sums);
                }
                continue;
            };
            sums.fill([0.0; TILE]);
            let mut lanes = lanes;
            for block in tile.chunks_exact(TILE * F::BYTES) {
                // SAFETY: as above, superblock by superblock.
                unsafe {
                    scales_neon::<F>(block.as_ptr(), &mut scales);
                    for quad in 0..TILE / 4 {
                        several(block.as_ptr(), quad, &lanes, &scales, sums);
                    }
                }
                let step = PARTS * lanes.width;
                lanes.quants = lanes.quants.wrapping_add(step * BLOCK);
                lanes.scales = lanes.scales.wrapping_add(step);
                lanes.sums = lanes.sums.wrapping_add(step);
                lanes.halves = lanes.halves.wrapping_add(2 * step);
                lanes.deficits = lanes.deficits.wrapping_add(step);
            }
        }
        done += count;
    }
}

/// Makes the scales of a superblock of a tile. A function of its own, so that its registers are not in the way of the loop
/// that uses them.
///
/// # Safety
/// The head of a superblock must be readable at `block`.
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn scales_neon<F: Superblock>(block: *const u8, scales: &mut Scales) {
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(block, head::<F>() * TILE) };
    prefetch(block, const { (head::<F>() * TILE).div_ceil(64) });
    F::scales(Head(bytes), scales);
}

/// Whether factors and quants become one integer for several columns.
pub const fn folds<F: Superblock>() -> bool {
    F::SIXTEENS && F::NARROW
}

/// A format whose factors and quants have become one integer.
struct Folded<F>(PhantomData<F>);

impl<F: Superblock> Quads for Folded<F> {
    const NARROW: bool = false;
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
}

/// The quants of a quad, the first and the last 16 columns times a factor of each row.
#[inline]
#[target_feature(enable = "neon")]
fn folded(quants: [int8x16_t; 8], factors: [int32x4_t; 2]) -> [int8x16_t; 8] {
    // A factor's lowest byte, four times.
    let spread = |four: int32x4_t| {
        let bytes = vreinterpretq_s8_s32(four);
        let two = vreinterpretq_s16_s8(vtrn1q_s8(bytes, bytes));
        vreinterpretq_s8_s16(vtrn1q_s16(two, two))
    };
    let [first, last] = [spread(factors[0]), spread(factors[1])];
    let mut folded = quants;
    for (index, quants) in folded.iter_mut().enumerate() {
        *quants = vmulq_s8(*quants, if index < 4 { first } else { last });
    }
    folded
}

/// How far ahead of a part the next ones are asked for: as in [`super::super::block32`].
const AHEAD: usize = 1024;

/// Asks for so many cache lines of what lies [`AHEAD`].
#[inline(always)]
pub fn prefetch(from: *const u8, lines: usize) {
    macro_rules! ask {
        ($($line:literal)+) => {$(
            if lines > $line {
                neon::prefetch::<{ AHEAD + 64 * $line }>(from)
            }
        )+};
    }
    ask!(0 1 2 3 4 5 6 7);
}

/// Makes the kernels of a level: as in [`super::super::block32`], but for where the scales are.
macro_rules! kernels {
    ($features:literal, $kernels:ident, $one:ident, $fraction:expr, $quads:ident, $factor:expr, $column:ident, $column_sixteens:ident,
        $($name:ident: $columns:literal = $([$first:literal: $($lane:literal)+])+;)+) => {
        const fn $kernels<F: Superblock>() -> Kernels {
            let [two, four, eight, sixteen] = [$($name::<F> as Several),+];
            Kernels { one: $one::<F>, two, four, eight, sixteen }
        }

        $(
            /// 4 rows × several columns of one superblock.
            #[target_feature(enable = $features)]
            unsafe fn $name<F: Superblock>(
                block: *const u8,
                quad: usize,
                lanes: &Lanes<'_>,
                table: &Scales,
                out: &mut [Sums],
            ) {
                let mut totals = [vdupq_n_f32(0.0); $columns];
                for (total, out) in totals.iter_mut().zip(&*out) {
                    // SAFETY: four floats of the 16, for `quad` is below 4.
                    unsafe { *total = neon::load_floats(out.as_ptr().add(4 * quad)) };
                }
                let mut data = block.wrapping_add(head::<F>() * TILE + 16 * quad * words::<F>());
                let mut scale = table.scales.as_ptr().cast::<f32>().wrapping_add(4 * quad);
                let mut minimum = table.minimums.as_ptr().cast::<f32>().wrapping_add(4 * quad);
                let mut factors = table.factors.as_ptr().cast::<i32>().wrapping_add(4 * quad);
                let Lanes { quants: mut x, mut scales, mut sums, mut deficits, width, .. } = *lanes;
                if F::SIXTEENS {
                    sums = lanes.halves;
                }
                for _ in 0..PARTS {
                    // SAFETY: a part of the superblock and of the columns, which the caller promised; behind the scales
                    // and sums of the last column there is room for three more.
                    unsafe {
                        let unit = neon::load_floats(scale);
                        let two = [factors.cast::<int32x4_t>().read(), factors.add(TILE).cast::<int32x4_t>().read()];
                        let quants = if folds::<F>() {
                            folded(F::quad(&mut data.cast()), two)
                        } else {
                            F::$quads(&mut data.cast())
                        };
                        let two = two.map(|four| $factor(four));
                        $(
                            let four_scales = neon::load_floats_at::<{ 4 * $first }>(scales);
                            if folds::<F>() {
                                $(
                                    let total = totals[$first + $lane];
                                    totals[$first + $lane] =
                                        $column::<Folded<F>, { ($first + $lane) * BLOCK }, $lane>(
                                            total, &quants, x, unit, four_scales, vdupq_n_s32(0),
                                        );
                                )+
                            } else if F::SIXTEENS {
                                $(
                                    let total = totals[$first + $lane];
                                    totals[$first + $lane] =
                                        $column_sixteens::<F, { ($first + $lane) * BLOCK }, $lane>(
                                            total, &quants, x, unit, four_scales, two,
                                        );
                                )+
                            } else {
                                let mut zeros = vdupq_n_s32(0);
                                if F::ZERO != 0 {
                                    let four = neon::load_floats_at::<{ 4 * $first }>(deficits.cast());
                                    zeros = vmulq_n_s32(vreinterpretq_s32_f32(four), F::ZERO << $fraction);
                                }
                                $(
                                    let total = totals[$first + $lane];
                                    totals[$first + $lane] = $column::<F, { ($first + $lane) * BLOCK }, $lane>(
                                        total, &quants, x, unit, four_scales, zeros,
                                    );
                                )+
                            }
                        )+
                        if F::MINIMUM && F::SIXTEENS {
                            // Those of the first 16 columns; those of the last are as a part's one minimum is.
                            let first = neon::load_floats(minimum);
                            $(
                                let four = neon::load_floats_at::<{ 4 * $first }>(sums);
                                $({
                                    let total = &mut totals[$first + $lane];
                                    *total = vfmaq_laneq_f32::<$lane>(*total, first, four);
                                })+
                            )+
                            (minimum, sums) = (minimum.wrapping_add(TILE), sums.wrapping_add(width));
                        }
                        if F::MINIMUM {
                            let minimum = neon::load_floats(minimum);
                            $(
                                let four = neon::load_floats_at::<{ 4 * $first }>(sums);
                                $({
                                    let total = &mut totals[$first + $lane];
                                    *total = vfmaq_laneq_f32::<$lane>(*total, minimum, four);
                                })+
                            )+
                        }
                        data = data.wrapping_add(TILE * 4 * words::<F>());
                        if !F::SIXTEENS {
                            scale = scale.wrapping_add(TILE);
                        }
                        (minimum, factors) = (minimum.wrapping_add(TILE), factors.wrapping_add(2 * TILE));
                        (x, scales) = (x.wrapping_add(width * BLOCK), scales.wrapping_add(width));
                        (sums, deficits) = (sums.wrapping_add(width), deficits.wrapping_add(width));
                    }
                }
                for (out, total) in out.iter_mut().zip(totals) {
                    // SAFETY: four floats of the 16, for `quad` is below 4.
                    unsafe { neon::store_floats(out.as_mut_ptr().add(4 * quad), total) };
                }
            }
        )+
    };
}

kernels! { "neon", kernels_neon, one_neon, 0, quad, |four| four, column_neon, column_sixteens_neon,
    two_neon: 2 = [0: 0 1];
    four_neon: 4 = [0: 0 1 2 3];
    eight_neon: 8 = [0: 0 1 2 3] [4: 0 1 2 3];
    sixteen_neon: 16 = [0: 0 1 2 3] [4: 0 1 2 3] [8: 0 1 2 3] [12: 0 1 2 3];
}

kernels! { "neon,dotprod", kernels_dotprod, one_dotprod, F::FRACTION, quad_dotprod, |four| vcvtq_f32_s32(four), column_dotprod,
    column_sixteens_dotprod,
    two_dotprod: 2 = [0: 0 1];
    four_dotprod: 4 = [0: 0 1 2 3];
    eight_dotprod: 8 = [0: 0 1 2 3] [4: 0 1 2 3];
    sixteen_dotprod: 16 = [0: 0 1 2 3] [4: 0 1 2 3] [8: 0 1 2 3] [12: 0 1 2 3];
}
