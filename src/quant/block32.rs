//! Formats whose block is 32 integers, a scale and perhaps a minimum: the tile kernels that they share.
//!
//! A weight is `scale × quant + minimum`, so a block contributes `(Σ quant × x.quant) × (scale × x.scale)`, then
//! `minimum × x.sum`, to its row's accumulator, each by one fused multiply-add.
//!
//! # A tile
//!
//! 16 rows, block after block. Of each block: the 16 scales (or powers of two, a byte each), the 16 minimums if there are any; then, for each quad of
//! four rows, its data in vectors of four rows × 4 bytes (see [`super::quads`]). (A block's data are 4-byte words, perhaps with
//! their bits in another order; a vector is the same word of four rows.)
//!
//! One column is multiplied by all 16 rows at once, so that its activations are loaded and repeated once for four
//! quads. Several columns are multiplied by one quad at a time, whose weights are unpacked once into eight registers.

use super::input::{BLOCK, Inputs};
use super::quads::Quads;
use super::{Format, Sums, TILE};
use crate::simd::Level;
use crate::simd::fused::{Fused, Soft};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use super::input::Lanes;
#[cfg(target_arch = "aarch64")]
use super::iq4_nl::dot_values_neon;
#[cfg(target_arch = "aarch64")]
use super::quads::{From, column_dotprod, column_neon, dot_dotprod, dot_neon, pair, repeated, then};
#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;
#[cfg(target_arch = "aarch64")]
use core::arch::{aarch64::*, asm};

#[cfg(target_arch = "x86_64")]
pub mod avx2;

/// A block, unpacked.
pub struct Unpacked {
    /// The integers.
    pub quants: [i8; BLOCK],
    /// What one unit is worth.
    pub scale: f32,
    /// What is added to each weight; 0 in formats without.
    pub minimum: f32,
}

/// A format of such blocks: what differs between them. All of it makes a [`Format`].
pub trait Block32: Quads {
    /// Number in the GGUF tensor directory.
    const ID: u32;
    /// As people write it.
    const NAME: &'static str;
    /// Bytes in a block: the binary16 numbers (or the byte of [`Self::POWER`]), then 4-byte words of data.
    const BYTES: usize;
    /// Whether the scale is a power of two, [`half_power`] of a byte, and no binary16 number.
    const POWER: bool = false;
    /// Whether a block begins with a scale and a minimum; else with a scale.
    const MINIMUM: bool;
    /// Whether a block's data stand in another order in a tile: see [`Self::sort`].
    const SORTED: bool = false;
    /// What the block means.
    fn unpack(block: &[u8]) -> Unpacked;
    /// Puts a block's data into the order that [`Self::quad`] unpacks in fewest steps.
    fn sort(_data: &mut [u8]) {}
    /// Puts them back.
    fn unsort(_data: &mut [u8]) {}
    /// The quants of four rows, before [`Quads::ZERO`] is taken off: vector `i` is columns `4i` to `4i + 3` of each. `data` is
    /// the next quad's afterwards.
    ///
    /// # Safety
    /// The data of a quad ([`words`] vectors) must be readable at `data`, which may have any alignment.
    #[cfg(target_arch = "aarch64")]
    unsafe fn quad(data: &mut From) -> [int8x16_t; 8];
    /// The same for `sdot`, shifted left by [`Quads::FRACTION`] bits.
    ///
    /// # Safety
    /// As above.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad_dotprod(data: &mut From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise.
        unsafe { Self::quad(data) }
    }
    /// The same for a PC, two vectors a register.
    ///
    /// # Safety
    /// The data of a quad must be readable at `data`, and the CPU have AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4];
    /// [`Format::quantize`].
    fn quantize(weights: &[f32], row: &mut Vec<u8>);
}

/// Bytes of a scale or a minimum.
const fn number<F: Block32>() -> usize {
    if F::POWER { 1 } else { 2 }
}

/// Bytes that a block begins with: its scale and, if there is one, its minimum.
const fn head<F: Block32>() -> usize {
    if F::MINIMUM { 2 * number::<F>() } else { number::<F>() }
}

/// Half of 2^(exponent − 127), MXFP4's scale: the two lowest are subnormal.
pub fn half_power(exponent: u8) -> f32 {
    f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        exponent => (u32::from(exponent) - 1) << 23,
    })
}

/// 4-byte words of a block's data: vectors of a quad.
pub const fn words<F: Block32>() -> usize {
    (F::BYTES - head::<F>()) / 4
}

/// Whether vector code arranges the words.
const fn transposed<F: Block32>() -> bool {
    cfg!(target_arch = "aarch64") && !F::SORTED && words::<F>().is_multiple_of(4)
}

/// Where in a block of a tile a row's word is.
const fn word_at<F: Block32>(row: usize, word: usize) -> usize {
    head::<F>() * TILE + (row / 4 * words::<F>() + word) * 16 + row % 4 * 4
}

impl<F: Block32> Format for F {
    const ID: u32 = <F as Block32>::ID;
    const NAME: &'static str = <F as Block32>::NAME;
    const LEN: usize = BLOCK;
    const BYTES: usize = <F as Block32>::BYTES;

    fn dequantize(row: &[u8], weights: &mut [f32]) {
        for (block, out) in row.chunks_exact(F::BYTES).zip(weights.chunks_exact_mut(BLOCK)) {
            expand::<F>(&F::unpack(block), out);
        }
    }

    fn dot(row: &[u8], inputs: &Inputs, column: usize) -> f32 {
        let mut total = 0.0;
        for (index, block) in row.chunks_exact(F::BYTES).enumerate() {
            total = add_block::<F>(total, &F::unpack(block), inputs, column, index);
        }
        total
    }

    fn arrange(rows: &[u8], tile: &mut [u8]) {
        let row_bytes = rows.len() / TILE;
        for (index, out) in tile.chunks_exact_mut(TILE * F::BYTES).enumerate() {
            for row in 0..TILE {
                let block = &rows[row * row_bytes + index * F::BYTES..][..F::BYTES];
                let (head, data) = block.split_at(head::<F>());
                for (index, bytes) in head.chunks_exact(number::<F>()).enumerate() {
                    out[bytes.len() * (index * TILE + row)..][..bytes.len()].copy_from_slice(bytes);
                }
                // Four words of four rows at once, where they can be had.
                if transposed::<F>() {
                    continue;
                }
                let mut words = [0; 64];
                let words = &mut words[..data.len()];
                words.copy_from_slice(data);
                F::sort(words);
                for (word, bytes) in words.as_chunks::<4>().0.iter().enumerate() {
                    out[word_at::<F>(row, word)..][..4].copy_from_slice(bytes);
                }
            }
            #[cfg(target_arch = "aarch64")]
            if transposed::<F>() {
                transpose::<F>(rows, row_bytes, index, out);
            }
        }
    }

    fn dequantize_arranged(tile: &[u8], row: usize, weights: &mut [f32]) {
        for (tile, out) in tile.chunks_exact(TILE * F::BYTES).zip(weights.chunks_exact_mut(BLOCK)) {
            expand::<F>(&unpack_arranged::<F>(tile, row), out);
        }
    }

    fn multiply(
        level: Level,
        tiles: &[u8],
        inputs: &Inputs,
        first: usize,
        columns: usize,
        sums: &mut [Sums],
    ) {
        let tile_bytes = inputs.blocks() * TILE * F::BYTES;
        assert_eq!(
            tiles.len() * columns,
            tile_bytes * sums.len(),
            "tiles as long as the columns, and sums of each"
        );
        assert!(first + columns <= inputs.count(), "columns that there are");
        match level {
            // Tensors of a GGUF file lie at multiples of 8 at least; elsewhere it is right, and slow.
            #[cfg(target_arch = "aarch64")]
            _ if !tiles.as_ptr().cast::<u64>().is_aligned() => {
                multiply_plain::<F>(tiles, tile_bytes, inputs, first, columns, sums);
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => {
                multiply_tiles(
                    const { &kernels_neon::<F>() },
                    tiles,
                    tile_bytes,
                    inputs,
                    first,
                    columns,
                    sums,
                );
            }
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod(_) => {
                multiply_tiles(
                    const { &kernels_dotprod::<F>() },
                    tiles,
                    tile_bytes,
                    inputs,
                    first,
                    columns,
                    sums,
                );
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level proves the instructions; tiles and columns have been checked above.
            Level::Fma(_) => unsafe { avx2::multiply::<F>(tiles, tile_bytes, inputs, first, columns, sums) },
            _ => multiply_plain::<F>(tiles, tile_bytes, inputs, first, columns, sums),
        }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        <F as Block32>::quantize(weights, row);
    }
}

/// Puts the words of block `index` of 16 rows where they belong in a block of a tile.
#[cfg(target_arch = "aarch64")]
fn transpose<F: Block32>(rows: &[u8], row_bytes: usize, index: usize, out: &mut [u8]) {
    let data = index * F::BYTES + head::<F>();
    assert!(
        data + 4 * words::<F>() <= row_bytes && rows.len() >= TILE * row_bytes,
        "the block is in every row"
    );
    assert!(out.len() >= TILE * F::BYTES, "a block of a tile");
    for quad in 0..TILE / 4 {
        for word in (0..words::<F>()).step_by(4) {
            // SAFETY: four words of each row of the quad, and their four vectors in the tile: see above.
            unsafe {
                let row = |i: usize| {
                    let at = (4 * quad + i) * row_bytes + data + 4 * word;
                    vreinterpretq_s32_s8(neon::load(rows.as_ptr().add(at)))
                };
                let columns = neon::transpose([row(0), row(1), row(2), row(3)]);
                let to = out.as_mut_ptr().add(word_at::<F>(4 * quad, word)).cast::<f32>();
                for (i, column) in columns.into_iter().enumerate() {
                    neon::store_floats(to.add(4 * i), vreinterpretq_f32_s32(column));
                }
            }
        }
    }
}

/// Reads a binary16.
pub fn half(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// The weight of largest magnitude, with its sign: what a symmetric quantizer maps to the end of its range.
pub fn peak(weights: &[f32]) -> f32 {
    weights.iter().fold(0f32, |peak, &w| if w.abs() > peak.abs() { w } else { peak })
}

fn expand<F: Block32>(block: &Unpacked, weights: &mut [f32]) {
    for (weight, quant) in weights.iter_mut().zip(block.quants) {
        let scaled = f32::from(quant) * block.scale;
        // −0 + 0 is 0: where there is no minimum, none is added.
        *weight = if F::MINIMUM { scaled + block.minimum } else { scaled };
    }
}

/// The block of one row of a tile.
#[inline(always)]
fn unpack_arranged<F: Block32>(tile: &[u8], row: usize) -> Unpacked {
    let mut bytes = [0; 64];
    let block = &mut bytes[..F::BYTES];
    let (head, data) = block.split_at_mut(head::<F>());
    for (index, bytes) in head.chunks_exact_mut(number::<F>()).enumerate() {
        let at = bytes.len() * (index * TILE + row);
        bytes.copy_from_slice(&tile[at..at + bytes.len()]);
    }
    for (word, bytes) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        bytes.copy_from_slice(&tile[word_at::<F>(row, word)..][..4]);
    }
    F::unsort(data);
    F::unpack(block)
}

/// What a block adds to its row's accumulator.
#[inline(always)]
fn add_block<F: Block32>(total: f32, block: &Unpacked, inputs: &Inputs, column: usize, index: usize) -> f32 {
    let x = inputs.block(column, index);
    let sum: i32 = block.quants.iter().zip(x.quants).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
    let total = Soft::madd(sum as f32, block.scale * x.scale, total);
    if F::MINIMUM { Soft::madd(block.minimum, x.sum, total) } else { total }
}

/// The definition, tile by tile: for CPUs that nothing else is written for.
fn multiply_plain<F: Block32>(
    tiles: &[u8],
    tile_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    sums.fill([0.0; TILE]);
    for (tile, sums) in tiles.chunks_exact(tile_bytes).zip(sums.chunks_exact_mut(columns)) {
        for (index, block) in tile.chunks_exact(TILE * F::BYTES).enumerate() {
            for row in 0..TILE {
                let block = unpack_arranged::<F>(block, row);
                for (column, sums) in sums.iter_mut().enumerate() {
                    sums[row] = add_block::<F>(sums[row], &block, inputs, first + column, index);
                }
            }
        }
    }
}

/// A tile by one column.
#[cfg(target_arch = "aarch64")]
type Single = unsafe fn(tile: *const u8, lanes: &Lanes<'_>, sums: &mut Sums);
/// One quad of a tile by several columns.
#[cfg(target_arch = "aarch64")]
type Several = unsafe fn(tile: *const u8, quad: usize, lanes: &Lanes<'_>, sums: &mut [Sums]);

/// The kernels of a level. They need a tile of as many blocks as `lanes` has, 8-byte aligned, and as many columns in
/// `lanes` as they multiply; and the CPU to have the level's instructions.
#[cfg(target_arch = "aarch64")]
struct Kernels {
    one: Single,
    two: Several,
    four: Several,
    eight: Several,
    sixteen: Several,
}

#[cfg(target_arch = "aarch64")]
fn multiply_tiles(
    kernels: &Kernels,
    tiles: &[u8],
    tile_bytes: usize,
    inputs: &Inputs,
    first: usize,
    columns: usize,
    sums: &mut [Sums],
) {
    let mut done = 0;
    while done < columns {
        let lanes = &inputs.lanes(first + done);
        let (count, several) = match columns - done {
            1 => (1, None),
            2 | 3 => (2, Some(kernels.two)),
            4..8 => (4, Some(kernels.four)),
            8..16 => (8, Some(kernels.eight)),
            _ => (16, Some(kernels.sixteen)),
        };
        for (tile, sums) in tiles.chunks_exact(tile_bytes).zip(sums.chunks_exact_mut(columns)) {
            let sums = &mut sums[done..done + count];
            // SAFETY: the level that chose the kernels proves the instructions; `multiply` has checked the tiles'
            // length and alignment and that the columns exist, and they are of one group.
            unsafe {
                match several {
                    None => (kernels.one)(tile.as_ptr(), lanes, &mut sums[0]),
                    Some(several) => (0..TILE / 4).for_each(|quad| several(tile.as_ptr(), quad, lanes, sums)),
                }
            }
        }
        done += count;
    }
}

/// Four binary16 at an 8-byte aligned place, as floats.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn widen(from: *const u8) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(from.cast::<uint16x4_t>().read())) }
}

/// The high halves of the bits of [`half_power`] of eight exponents: one less than each, shifted to where a float has its own, but
/// for the two subnormal ones.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn half_powers(exponents: uint8x8_t) -> uint16x8_t {
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let bits = vshll_n_u8::<7>(exponents);
        let less = vreinterpretq_s16_u16(vsubq_u16(bits, vdupq_n_u16(1 << 7)));
        let normal = vreinterpretq_u16_s16(vmaxq_s16(less, vdupq_n_s16(1 << 6)));
        vminq_u16(normal, vaddq_u16(bits, vdupq_n_u16(1 << 5)))
    }
}

/// The scales of a quad.
///
/// # Safety
/// A block of a tile must be readable at `block`, which is 8-byte aligned, and `quad` be below 4.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn four_scales<F: Block32>(block: *const u8, quad: usize) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        if F::POWER {
            let four = block.cast::<u32>().add(quad).read();
            let bits = vget_low_u16(half_powers(vcreate_u8(u64::from(four))));
            vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
        } else {
            widen(block.add(8 * quad))
        }
    }
}

/// The 16 scales of a tile that are powers of two, times a column's.
///
/// # Safety
/// 16 bytes must be readable.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn scaled_powers(exponents: *const u8, scale: f32) -> [float32x4_t; TILE / 4] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let exponents = vreinterpretq_u8_s8(neon::load(exponents));
        let (low, high) = (half_powers(vget_low_u8(exponents)), half_powers(vget_high_u8(exponents)));
        [
            vshll_n_u16::<16>(vget_low_u16(low)),
            vshll_high_n_u16::<16>(low),
            vshll_n_u16::<16>(vget_low_u16(high)),
            vshll_high_n_u16::<16>(high),
        ]
        .map(|bits| vmulq_n_f32(vreinterpretq_f32_u32(bits), scale))
    }
}

/// The 16 scales of a tile, times a column's. A conversion is two or three operations to a Cortex-A76, which takes it best
/// beside a short instruction.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn scaled(scales: *const u8, scale: f32) -> [float32x4_t; TILE / 4] {
    let (a, b, c, d): (float32x4_t, float32x4_t, float32x4_t, float32x4_t);
    // SAFETY: the caller's promise: 32 bytes.
    unsafe {
        asm!("ldp {a:q}, {c:q}, [{from}]",
            "fcvtl2 {b:v}.4s, {a:v}.8h",
            "fcvtl {a:v}.4s, {a:v}.4h",
            "fmul {b:v}.4s, {b:v}.4s, {scale:v}.s[0]",
            "fcvtl2 {d:v}.4s, {c:v}.8h",
            "fmul {a:v}.4s, {a:v}.4s, {scale:v}.s[0]",
            "fcvtl {c:v}.4s, {c:v}.4h",
            "fmul {d:v}.4s, {d:v}.4s, {scale:v}.s[0]",
            "fmul {c:v}.4s, {c:v}.4s, {scale:v}.s[0]",
            from = in(reg) scales, scale = in(vreg) scale,
            a = out(vreg) a, b = out(vreg) b, c = out(vreg) c, d = out(vreg) d,
            options(pure, readonly, nostack, preserves_flags));
    }
    [a, b, c, d]
}

/// Adds the 16 minimums of a tile, times a column's sum, to the totals.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn add_minimums([a, b, c, d]: &mut [float32x4_t; TILE / 4], minimums: *const u8, sum: f32) {
    // SAFETY: the caller's promise: 32 bytes.
    unsafe {
        asm!("ldp {low:q}, {high:q}, [{from}]",
            "fcvtl {t:v}.4s, {low:v}.4h",
            "fmla {a:v}.4s, {t:v}.4s, {sum:v}.s[0]",
            "fcvtl2 {low:v}.4s, {low:v}.8h",
            "fmla {b:v}.4s, {low:v}.4s, {sum:v}.s[0]",
            "fcvtl {t:v}.4s, {high:v}.4h",
            "fmla {c:v}.4s, {t:v}.4s, {sum:v}.s[0]",
            "fcvtl2 {high:v}.4s, {high:v}.8h",
            "fmla {d:v}.4s, {high:v}.4s, {sum:v}.s[0]",
            from = in(reg) minimums, sum = in(vreg) sum,
            low = out(vreg) _, high = out(vreg) _, t = out(vreg) _,
            a = inout(vreg) *a, b = inout(vreg) *b, c = inout(vreg) *c, d = inout(vreg) *d,
            options(pure, readonly, nostack, preserves_flags));
    }
}

/// [`dot_neon`] of the next quad.
///
/// # Safety
/// As [`Block32::quad`].
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
unsafe fn dot_next_neon<F: Block32>(data: &mut From, x: [int8x16_t; 8], zero: int32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { if F::VALUES { dot_values_neon(data, x) } else { dot_neon::<F>(&F::quad(data), x, zero) } }
}

/// [`dot_dotprod`] of the next quad.
///
/// # Safety
/// As [`Block32::quad`].
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_next_dotprod<F: Block32>(
    data: &mut From,
    x: (int8x16_t, int8x16_t),
    zero: int32x4_t,
) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { dot_dotprod::<F>(&F::quad_dotprod(data), x, zero) }
}

/// Makes the kernels of a level. For one column, `$spread` turns its 32 quants into what `$dot` multiplies; `$dot` sums the
/// products of the next quad with them on top of its last argument. For several, `$column` does all that a block adds to
/// a quad's four sums but the minimum.
#[cfg(target_arch = "aarch64")]
macro_rules! kernels {
    ($features:literal, $kernels:ident, $one:ident, $fraction:expr, $quads:ident, $spread:ident, $dot:ident, $column:ident, $($quad:literal)+,
        $($name:ident: $columns:literal = $([$first:literal: $($lane:literal)+])+;)+) => {
        const fn $kernels<F: Block32>() -> Kernels {
            let [two, four, eight, sixteen] = [$($name::<F> as Several),+];
            Kernels { one: $one::<F>, two, four, eight, sixteen }
        }

        /// 16 rows × 1 column.
        #[target_feature(enable = $features)]
        unsafe fn $one<F: Block32>(tile: *const u8, lanes: &Lanes<'_>, sums: &mut Sums) {
            let mut totals = [vdupq_n_f32(0.0); TILE / 4];
            let mut block = tile;
            for index in 0..lanes.blocks {
                let at = index * lanes.width;
                // SAFETY: block `index` of tile and column, which the caller promised.
                unsafe {
                    prefetch::<F>(block);
                    let x = $spread(lanes.quants.add(at * BLOCK).cast());
                    let scale = *lanes.scales.add(at);
                    let sum = *lanes.sums.add(at);
                    let zero = vdupq_n_s32((F::ZERO << $fraction) * *lanes.deficits.add(at));
                    let scales =
                        if F::POWER { scaled_powers(block, scale) } else { scaled(block, scale) };
                    let mut data: From = block.add(head::<F>() * TILE).cast();
                    // Written out: the compiler unrolls no loop with assembly in it.
                    $({
                        data = then(data, &mut totals[($quad + 3) % 4]);
                        let products = $dot::<F>(&mut data, x, zero);
                        totals[$quad] = vfmaq_f32(totals[$quad], products, scales[$quad]);
                    })+
                    if F::MINIMUM {
                        add_minimums(&mut totals, block.add(2 * TILE), sum);
                    }
                    block = data.cast(); // a block ends where its last quad does
                }
            }
            for (sums, total) in sums.as_chunks_mut::<4>().0.iter_mut().zip(totals) {
                // SAFETY: four floats.
                unsafe { neon::store_floats(sums.as_mut_ptr(), total) };
            }
        }

        $(
            /// 4 rows × several columns.
            #[target_feature(enable = $features)]
            unsafe fn $name<F: Block32>(tile: *const u8, quad: usize, lanes: &Lanes<'_>, out: &mut [Sums]) {
                let mut totals = [vdupq_n_f32(0.0); $columns];
                let mut block = tile;
                let Lanes { quants: mut x, mut scales, mut sums, mut deficits, width, blocks, .. } = *lanes;
                for _ in 0..blocks {
                    // SAFETY: a block of the tile and of the columns, which the caller promised; behind the scales
                    // and sums of the last column there is room for three more.
                    unsafe {
                        let data: From = block.add(head::<F>() * TILE).cast();
                        let quants = F::$quads(&mut data.add(quad * words::<F>()));
                        let scale = four_scales::<F>(block, quad);
                        $(
                            let four_scales = neon::load_floats_at::<{ 4 * $first }>(scales);
                            let mut zeros = vdupq_n_s32(0);
                            if F::ZERO != 0 {
                                let four = neon::load_floats_at::<{ 4 * $first }>(deficits.cast());
                                zeros = vmulq_n_s32(vreinterpretq_s32_f32(four), F::ZERO << $fraction);
                            }
                            $(
                                let total = totals[$first + $lane];
                                totals[$first + $lane] = $column::<F, { ($first + $lane) * BLOCK }, $lane>(
                                    total, &quants, x, scale, four_scales, zeros,
                                );
                            )+
                        )+
                        if F::MINIMUM {
                            let minimum = widen(block.add(2 * TILE + 8 * quad));
                            $(
                                let four = neon::load_floats_at::<{ 4 * $first }>(sums);
                                $({
                                    let total = &mut totals[$first + $lane];
                                    *total = vfmaq_laneq_f32::<$lane>(*total, minimum, four);
                                })+
                            )+
                        }
                        block = block.add(TILE * F::BYTES);
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

/// How far ahead of a tile's block the next ones are asked for: some 250 cycles at 4 bytes a cycle and core.
#[cfg(target_arch = "aarch64")]
const AHEAD: usize = 1024;

#[cfg(target_arch = "aarch64")]
kernels! { "neon", kernels_neon, one_neon, 0, quad, repeated, dot_next_neon, column_neon, 0 1 2 3,
    two_neon: 2 = [0: 0 1];
    four_neon: 4 = [0: 0 1 2 3];
    eight_neon: 8 = [0: 0 1 2 3] [4: 0 1 2 3];
    sixteen_neon: 16 = [0: 0 1 2 3] [4: 0 1 2 3] [8: 0 1 2 3] [12: 0 1 2 3];
}

#[cfg(target_arch = "aarch64")]
kernels! { "neon,dotprod", kernels_dotprod, one_dotprod, F::FRACTION, quad_dotprod, pair, dot_next_dotprod, column_dotprod, 0 1 2 3,
    two_dotprod: 2 = [0: 0 1];
    four_dotprod: 4 = [0: 0 1 2 3];
    eight_dotprod: 8 = [0: 0 1 2 3] [4: 0 1 2 3];
    sixteen_dotprod: 16 = [0: 0 1 2 3] [4: 0 1 2 3] [8: 0 1 2 3] [12: 0 1 2 3];
}

/// Asks for the cache lines of the block that lies [`AHEAD`].
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn prefetch<F: Block32>(block: *const u8) {
    const fn lines<F: Block32>() -> usize {
        (TILE * F::BYTES).div_ceil(64)
    }
    macro_rules! ask {
        ($($line:literal)+) => {$(
            if lines::<F>() > $line {
                neon::prefetch::<{ AHEAD + 64 * $line }>(block)
            }
        )+};
    }
    const { assert!(lines::<F>() <= 9, "a line for each") };
    ask!(0 1 2 3 4 5 6 7 8);
}
