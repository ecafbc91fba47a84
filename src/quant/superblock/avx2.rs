//! Superblocks on a PC: as [`super::super::block32::avx2`], with scales that have been made ready.

use super::super::block32::avx2::dot;
use super::super::input::BLOCK;
use super::super::{GROUP, Inputs, Sums, TILE};
use super::{Head, PARTS, Scales, Superblock, head, words};
use core::arch::x86_64::*;

/// Tiles × columns, as [`super::Format::multiply`] has checked them.
///
/// # Safety
/// The CPU must have AVX2, FMA and F16C; `tiles` must be whole tiles as long as the columns, which must exist and be of one
/// group, and `sums` have one for each of both.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn multiply<F: Superblock>(
    tiles: &[u8],
    tile_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    let lanes = inputs.lanes(first);
    let mut scales = Scales::NONE;
    for (tile, sums) in tiles.chunks_exact(tile_bytes).zip(sums.chunks_exact_mut(columns)) {
        let mut totals = [[_mm_setzero_ps(); GROUP]; TILE / 4];
        for (index, block) in tile.chunks_exact(TILE * F::BYTES).enumerate() {
            let (bytes, data) = block.split_at(head::<F>() * TILE);
            F::scales(Head(bytes), &mut scales);
            for part in 0..PARTS {
                for (quad, totals) in totals.iter_mut().enumerate() {
                    // SAFETY: a quad of a part, and a block of each column: the caller's promise.
                    unsafe {
                        let at = (part * TILE / 4 + quad) * words::<F>() * 16;
                        let quants = F::pairs(data.as_ptr().add(at).cast());
                        let four = |row: &[f32; TILE]| row.as_ptr().add(4 * quad);
                        let scale = _mm_loadu_ps(four(&scales.scales[if F::SIXTEENS { 0 } else { part }]));
                        let minimum = |index: usize| _mm_loadu_ps(four(&scales.minimums[index]));
                        let factors = [
                            _mm_loadu_si128(scales.factors[2 * part].as_ptr().add(4 * quad).cast()),
                            _mm_loadu_si128(scales.factors[2 * part + 1].as_ptr().add(4 * quad).cast()),
                        ];
                        for (column, total) in totals[..columns].iter_mut().enumerate() {
                            let at = (PARTS * index + part) * lanes.width + column;
                            let x = _mm256_loadu_si256(lanes.quants.add(at * BLOCK).cast());
                            let mut products = if F::SIXTEENS {
                                dot_sixteens(&quants, x, factors)
                            } else {
                                dot::<F>(&quants, x)
                            };
                            if F::ZERO != 0 {
                                let zero = _mm_set1_epi32(F::ZERO * *lanes.deficits.add(at));
                                products = _mm_add_epi32(products, zero);
                            }
                            let scale = _mm_mul_ps(scale, _mm_set1_ps(*lanes.scales.add(at)));
                            *total = _mm_fmadd_ps(_mm_cvtepi32_ps(products), scale, *total);
                            if F::MINIMUM && F::SIXTEENS {
                                let at = 2 * (PARTS * index + part) * lanes.width + column;
                                let (first, last) =
                                    (*lanes.halves.add(at), *lanes.halves.add(at + lanes.width));
                                *total = _mm_fmadd_ps(minimum(2 * part), _mm_set1_ps(first), *total);
                                *total = _mm_fmadd_ps(minimum(2 * part + 1), _mm_set1_ps(last), *total);
                            } else if F::MINIMUM {
                                *total =
                                    _mm_fmadd_ps(minimum(part), _mm_set1_ps(*lanes.sums.add(at)), *total);
                            }
                        }
                    }
                }
            }
        }
        for (quad, totals) in totals.into_iter().enumerate() {
            for (sums, total) in sums.iter_mut().zip(totals) {
                // SAFETY: four of the 16 floats, for `quad` is below 4.
                unsafe { _mm_storeu_ps(sums.as_mut_ptr().add(4 * quad), total) };
            }
        }
    }
}

/// The products of a quad and 32 activations, the first and the last 16 times a factor each, summed to a row a lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_sixteens(quants: &[__m256i; 4], x: __m256i, factors: [__m128i; 2]) -> __m128i {
    let ones = _mm256_set1_epi16(1);
    // Written out: in a closure, which has no target features, each of these would be a call.
    macro_rules! pairs {
        ($i:literal, $($word:literal)+) => {{
            let x = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32($($word),+));
            _mm256_maddubs_epi16(_mm256_abs_epi8(quants[$i]), _mm256_sign_epi8(x, quants[$i]))
        }};
    }
    let low = _mm256_add_epi16(pairs!(0, 0 0 0 0 1 1 1 1), pairs!(1, 2 2 2 2 3 3 3 3));
    let high = _mm256_add_epi16(pairs!(2, 4 4 4 4 5 5 5 5), pairs!(3, 6 6 6 6 7 7 7 7));
    let low = _mm256_mullo_epi32(_mm256_madd_epi16(low, ones), _mm256_broadcastsi128_si256(factors[0]));
    let high = _mm256_mullo_epi32(_mm256_madd_epi16(high, ones), _mm256_broadcastsi128_si256(factors[1]));
    let sum = _mm256_add_epi32(low, high);
    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
}
