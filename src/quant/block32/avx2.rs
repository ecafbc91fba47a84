//! The tiles on a PC: AVX2, FMA and F16C.
//!
//! A register holds two vectors of a quad, so a row has four bytes in either half. `vpermd` repeats a column's activations
//! as they have to meet them; `vpmaddubsw` multiplies unsigned bytes by signed ones and adds pairs in 16 bits.

use super::super::input::BLOCK;
use super::super::quads::Quads;
use super::super::{Inputs, Sums, TILE};
use super::{Block32, head, words};
use core::arch::x86_64::*;

/// A quad of nibbles, as [`Block32::pairs`] wants it.
///
/// # Safety
/// 64 bytes must be readable at `data`, and the CPU have AVX2.
#[inline(always)]
pub unsafe fn nibbles(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        // Written out: in a closure, which has no target features, each of these would be a call.
        let (mask, a, b) = (_mm256_set1_epi8(0xf), _mm256_loadu_si256(data), _mm256_loadu_si256(data.add(1)));
        [
            _mm256_and_si256(a, mask),
            _mm256_and_si256(b, mask),
            _mm256_and_si256(_mm256_srli_epi16::<4>(a), mask),
            _mm256_and_si256(_mm256_srli_epi16::<4>(b), mask),
        ]
    }
}

/// A quad of bytes, as [`Block32::pairs`] wants it.
///
/// # Safety
/// 128 bytes must be readable at `data`, and the CPU have AVX2.
#[inline(always)]
pub unsafe fn bytes(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            _mm256_loadu_si256(data),
            _mm256_loadu_si256(data.add(1)),
            _mm256_loadu_si256(data.add(2)),
            _mm256_loadu_si256(data.add(3)),
        ]
    }
}

/// Tiles × columns, as [`super::Format::multiply`] has checked them.
///
/// # Safety
/// The CPU must have AVX2, FMA and F16C; `tiles` must be whole tiles as long as the columns, which must exist and be of one
/// group, and `sums` have one for each of both.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn multiply<F: Block32>(
    tiles: &[u8],
    tile_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    let lanes = inputs.lanes(first);
    for (tile, sums) in tiles.chunks_exact(tile_bytes).zip(sums.chunks_exact_mut(columns)) {
        for quad in 0..TILE / 4 {
            let mut totals = [_mm_setzero_ps(); super::super::GROUP];
            for (index, block) in tile.chunks_exact(TILE * F::BYTES).enumerate() {
                // SAFETY: a quad of a block, and a block of each column: the caller's promise.
                unsafe {
                    let block = block.as_ptr();
                    let data = block.add(head::<F>() * TILE + quad * words::<F>() * 16);
                    let quants = F::pairs(data.cast());
                    let scales =
                        if F::POWER { powers(block.add(4 * quad)) } else { widen(block.add(8 * quad)) };
                    for (column, total) in totals[..columns].iter_mut().enumerate() {
                        let at = index * lanes.width + column;
                        let x = _mm256_loadu_si256(lanes.quants.add(at * BLOCK).cast());
                        let mut products = dot::<F>(&quants, x);
                        if F::ZERO != 0 {
                            let zero = _mm_set1_epi32(F::ZERO * *lanes.deficits.add(at));
                            products = _mm_add_epi32(products, zero);
                        }
                        let scales = _mm_mul_ps(scales, _mm_set1_ps(*lanes.scales.add(at)));
                        *total = _mm_fmadd_ps(_mm_cvtepi32_ps(products), scales, *total);
                        if F::MINIMUM {
                            let minimums = widen(block.add(2 * TILE + 8 * quad));
                            *total = _mm_fmadd_ps(minimums, _mm_set1_ps(*lanes.sums.add(at)), *total);
                        }
                    }
                }
            }
            for (sums, total) in sums.iter_mut().zip(totals) {
                // SAFETY: four of the 16 floats, for `quad` is below 4.
                unsafe { _mm_storeu_ps(sums.as_mut_ptr().add(4 * quad), total) };
            }
        }
    }
}

/// Four binary16 as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen(from: *const u8) -> __m128 {
    // SAFETY: the caller's promise: 8 bytes.
    _mm_cvtph_ps(unsafe { _mm_loadl_epi64(from.cast()) })
}

/// [`super::half_power`] of four exponents: one less than each, shifted to where a float has its own, but for the two subnormal ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn powers(from: *const u8) -> __m128 {
    // SAFETY: the caller's promise: 4 bytes.
    let four = unsafe { from.cast::<i32>().read_unaligned() };
    let bits = _mm_slli_epi32::<23>(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
    let normal = _mm_max_epi32(_mm_sub_epi32(bits, _mm_set1_epi32(1 << 23)), _mm_set1_epi32(1 << 22));
    _mm_castsi128_ps(_mm_min_epi32(normal, _mm_add_epi32(bits, _mm_set1_epi32(1 << 21))))
}

/// The products of a quad and 32 activations, summed to a row a lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn dot<F: Quads>(quants: &[__m256i; 4], x: __m256i) -> __m128i {
    let ones = _mm256_set1_epi16(1);
    let repeated = [
        _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
        _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
        _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5)),
        _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(6, 6, 6, 6, 7, 7, 7, 7)),
    ];
    let mut sum = _mm256_setzero_si256();
    for (quants, x) in quants.iter().zip(repeated) {
        let pairs = if F::SIGNED {
            _mm256_maddubs_epi16(_mm256_abs_epi8(*quants), _mm256_sign_epi8(x, *quants))
        } else {
            _mm256_maddubs_epi16(*quants, x)
        };
        // Sums of eight narrow products fit in 16 bits.
        sum = if F::NARROW {
            _mm256_add_epi16(sum, pairs)
        } else {
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones))
        };
    }
    if F::NARROW {
        sum = _mm256_madd_epi16(sum, ones);
    }
    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
}
