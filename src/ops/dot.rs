//! Dot products of floats, and the conversions between f32 and binary16.
//!
//! The definition sums in eight lanes: product `i` goes to lane `i mod 8`, each lane in order, multiplied and added with
//! one rounding; then lane `j` takes lane `j + 4`, and the four are summed as (0 + 1) + (2 + 3).
#![allow(unsafe_code)] // vector loads of chunks whose length is known

use crate::simd::Level;
use crate::simd::fused::{Fused, Soft, compiled_twice};

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// Lanes of the definition.
pub const LANES: usize = 8;

/// Sums the lanes in the order of the definition.
#[inline(always)]
pub fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let pair = |j: usize| lanes[j] + lanes[j + 4];
    (pair(0) + pair(1)) + (pair(2) + pair(3))
}

/// What floats are multiplied with: weights as a file has them, or other floats.
pub trait Factor: Copy + zerocopy::FromBytes + zerocopy::Immutable {
    /// The same as f32, exactly.
    fn widen(self) -> f32;
    /// Eight of them.
    fn widen8<M: Fused>(eight: [Self; LANES]) -> [f32; LANES];
    /// Eight of them from any alignment, in two vectors.
    ///
    /// # Safety
    /// Eight must be readable at `from`, in normal memory.
    #[cfg(target_arch = "aarch64")]
    unsafe fn load(from: *const Self) -> (float32x4_t, float32x4_t);
    /// Sixteen of them from any alignment, in four vectors.
    ///
    /// # Safety
    /// Sixteen must be readable at `from`, in normal memory.
    #[cfg(target_arch = "aarch64")]
    unsafe fn load_two(from: *const Self) -> [float32x4_t; 4];
}

impl Factor for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn widen8<M: Fused>(eight: [Self; LANES]) -> [f32; LANES] {
        eight
    }
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> (float32x4_t, float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe { neon::load_floats_pair(from) }
    }
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load_two(from: *const Self) -> [float32x4_t; 4] {
        // SAFETY: the caller's promise.
        unsafe { neon::load_floats_quad(from) }
    }
}

impl Factor for half::f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn widen8<M: Fused>(eight: [Self; LANES]) -> [f32; LANES] {
        M::widen8(eight.map(Self::to_bits))
    }
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> (float32x4_t, float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe { neon::load_half_pair(from.cast()) }
    }
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load_two(from: *const Self) -> [float32x4_t; 4] {
        // SAFETY: the caller's promise.
        unsafe { neon::load_half_quad(from.cast()) }
    }
}

impl Factor for half::bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // Not `to_f32`, which makes signalling NaNs quiet; no kernel does.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn widen8<M: Fused>(eight: [Self; LANES]) -> [f32; LANES] {
        eight.map(Self::widen)
    }
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> (float32x4_t, float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe { neon::load_bf16_pair(from.cast()) }
    }
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load_two(from: *const Self) -> [float32x4_t; 4] {
        // SAFETY: the caller's promise.
        unsafe { neon::load_bf16_quad(from.cast()) }
    }
}

/// The dot product.
#[inline]
pub fn dot<F: Factor>(level: Level, a: &[F], b: &[f32]) -> f32 {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { dot_neon(a, b) },
        _ => dot_plain(level, a, b),
    }
}

/// Rows that [`dots`] multiplies at once: with their columns, as many as leave registers for the numbers themselves.
pub const ROWS: usize = 2;
/// Columns that [`dots`] multiplies at once.
pub const COLUMNS: usize = 4;
/// The lanes of some rows with some columns, before they are summed.
pub type Lanes = [[[f32; LANES]; COLUMNS]; ROWS];

/// Adds the products of a stretch of some rows with the same stretch of some columns to their lanes: each number is
/// loaded once for all it meets. The stretch begins at a multiple of [`LANES`].
///
/// # Panics
/// If their lengths differ.
#[inline]
pub fn dots<F: Factor>(level: Level, a: [&[F]; ROWS], b: [&[f32]; COLUMNS], lanes: &mut Lanes) {
    let len = a[0].len();
    assert!(a.iter().all(|a| a.len() == len) && b.iter().all(|b| b.len() == len), "one length");
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions, the lengths were compared.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { dots_neon(a, b, lanes) },
        _ => dots_plain(level, a, b, lanes),
    }
}

/// Rounds to binary16, ties to even; what is too large becomes infinite, a NaN keeps the front of its payload.
#[inline]
pub fn to_half(level: Level, halves: &mut [u16], floats: &[f32]) {
    match level {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        Level::Neon(_) | Level::Dotprod(_) => unsafe { to_half_neon(halves, floats) },
        _ => to_half_plain(level, halves, floats),
    }
}

compiled_twice! {
    fn dot_plain[F: Factor](a: &[F], b: &[f32]) -> f32 = dot_body;
    fn dots_plain[F: Factor](a: [&[F]; ROWS], b: [&[f32]; COLUMNS], lanes: &mut Lanes) = dots_body;
    fn to_half_plain(halves: &mut [u16], floats: &[f32]) = to_half_body;
}

#[inline(always)]
fn dot_body<M: Fused, F: Factor>(a: &[F], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a_whole, a_rest), (b_whole, b_rest)) = (a.as_chunks(), b.as_chunks());
    for (a, b) in a_whole.iter().zip(b_whole) {
        lanes = M::madd8(F::widen8::<M>(*a), *b, lanes);
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = M::madd(a.widen(), *b, *lane);
    }
    sum_lanes(lanes)
}

#[inline(always)]
fn dots_body<M: Fused, F: Factor>(a: [&[F]; ROWS], b: [&[f32]; COLUMNS], lanes: &mut Lanes) {
    let (a_whole, b_whole) = (a.map(|a| a.as_chunks().0), b.map(|b| b.as_chunks().0));
    let mut sums = *lanes;
    for chunk in 0..a_whole[0].len() {
        let a: [_; ROWS] = core::array::from_fn(|row| F::widen8::<M>(a_whole[row][chunk]));
        for column in 0..COLUMNS {
            let b = b_whole[column][chunk];
            for row in 0..ROWS {
                sums[row][column] = M::madd8(a[row], b, sums[row][column]);
            }
        }
    }
    *lanes = sums;
    if !a[0].len().is_multiple_of(LANES) {
        add_rests(a, b, lanes);
    }
}

/// Fewer than eight products behind the last whole chunk, each added to its lane.
#[cold]
#[inline(never)]
fn add_rests<F: Factor>(a: [&[F]; ROWS], b: [&[f32]; COLUMNS], lanes: &mut Lanes) {
    for (a, lanes) in a.into_iter().zip(lanes) {
        for (b, lanes) in b.into_iter().zip(lanes) {
            add_rest(lanes, a.as_chunks::<LANES>().1, b.as_chunks::<LANES>().1);
        }
    }
}

/// Fewer than eight products, each added to its lane. A function of its own: rows of whole chunks have none.
#[cold]
#[inline(never)]
fn add_rest<F: Factor>(lanes: &mut [f32; LANES], a: &[F], b: &[f32]) {
    for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
        *lane = Soft::madd(a.widen(), *b, *lane);
    }
}

#[inline(always)]
fn to_half_body<M: Fused>(halves: &mut [u16], floats: &[f32]) {
    let ((whole, rest), (floats_whole, floats_rest)) = (halves.as_chunks_mut(), floats.as_chunks());
    for (halves, floats) in whole.iter_mut().zip(floats_whole) {
        *halves = M::narrow8(*floats);
    }
    for (half, float) in rest.iter_mut().zip(floats_rest) {
        *half = half::f16::from_f32(*float).to_bits();
    }
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn dot_neon<F: Factor>(a: &[F], b: &[f32]) -> f32 {
    let ((a_whole, a_rest), (b_whole, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
    for (a, b) in a_whole.iter().zip(b_whole) {
        // SAFETY: each chunk is eight values long.
        let (a, b) = unsafe { (F::load(a.as_ptr()), neon::load_floats_pair(b.as_ptr())) };
        low = vfmaq_f32(low, a.0, b.0);
        high = vfmaq_f32(high, a.1, b.1);
    }
    if a_rest.is_empty() {
        let fours = vaddq_f32(low, high);
        let pairs = vpaddq_f32(fours, fours);
        return vgetq_lane_f32::<0>(vpaddq_f32(pairs, pairs));
    }
    let mut lanes = [0f32; LANES];
    // SAFETY: eight floats.
    unsafe { neon::store_floats_pair(lanes.as_mut_ptr(), (low, high)) };
    add_rest(&mut lanes, a_rest, b_rest);
    sum_lanes(lanes)
}

/// # Safety
/// All rows and columns have one length.
#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
unsafe fn dots_neon<F: Factor>(a: [&[F]; ROWS], b: [&[f32]; COLUMNS], lanes: &mut Lanes) {
    // SAFETY: eight floats each.
    let mut sums = lanes
        .each_ref()
        .map(|lanes| lanes.each_ref().map(|lanes| unsafe { neon::load_floats_pair(lanes.as_ptr()) }));
    let (len, rows, columns) = (a[0].len(), a.map(<[F]>::as_ptr), b.map(<[f32]>::as_ptr));
    let mut first = 0;
    while first + 2 * LANES <= len {
        // SAFETY: sixteen values from there on are within each row and column.
        unsafe {
            let a = rows.map(|row| F::load_two(row.add(first)));
            for column in 0..COLUMNS {
                let b = neon::load_floats_quad(columns[column].add(first));
                for row in 0..ROWS {
                    let (low, high) = &mut sums[row][column];
                    *low = vfmaq_f32(vfmaq_f32(*low, a[row][0], b[0]), a[row][2], b[2]);
                    *high = vfmaq_f32(vfmaq_f32(*high, a[row][1], b[1]), a[row][3], b[3]);
                }
            }
        }
        first += 2 * LANES;
    }
    if first + LANES <= len {
        // SAFETY: eight values, as above.
        unsafe {
            let a = rows.map(|row| F::load(row.add(first)));
            for column in 0..COLUMNS {
                let b = neon::load_floats_pair(columns[column].add(first));
                for row in 0..ROWS {
                    let (low, high) = &mut sums[row][column];
                    (*low, *high) = (vfmaq_f32(*low, a[row].0, b.0), vfmaq_f32(*high, a[row].1, b.1));
                }
            }
        }
        first += LANES;
    }
    for (lanes, sums) in lanes.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        // SAFETY: eight floats.
        unsafe { neon::store_floats_pair(lanes.as_mut_ptr(), *sums) };
    }
    if first < len {
        add_rests(a, b, lanes);
    }
}

#[cfg(target_arch = "aarch64")]
#[inline(never)] // so that its machine code has a name, which a test looks up
#[target_feature(enable = "neon")]
fn to_half_neon(halves: &mut [u16], floats: &[f32]) {
    let ((whole, rest), (floats_whole, floats_rest)) = (halves.as_chunks_mut::<8>(), floats.as_chunks::<8>());
    for (halves, floats) in whole.iter_mut().zip(floats_whole) {
        // SAFETY: each chunk is eight values long.
        unsafe { neon::store_half_pair(halves.as_mut_ptr(), neon::load_floats_pair(floats.as_ptr())) };
    }
    for (half, float) in rest.iter_mut().zip(floats_rest) {
        *half = half::f16::from_f32(*float).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    /// The definition, one product after the other.
    fn defined(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; LANES];
        for (index, (&a, &b)) in a.iter().zip(b).enumerate() {
            lanes[index % LANES] = libm::fmaf(a, b, lanes[index % LANES]);
        }
        sum_lanes(lanes)
    }

    proptest! {
        #[test]
        fn every_level_gives_the_definition_at_every_length(
            values in proptest::collection::vec((-10f32..10.0, -10f32..10.0), 0..131)
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let halves: Vec<half::f16> = a.iter().map(|&a| half::f16::from_f32(a)).collect();
            let widened: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            let upper: Vec<half::bf16> = a.iter().map(|&a| half::bf16::from_bits((a.to_bits() >> 16) as u16)).collect();
            let cut: Vec<f32> = a.iter().map(|&a| f32::from_bits(a.to_bits() & 0xffff_0000)).collect();
            for level in levels() {
                prop_assert_eq!(dot(level, &a, &b).to_bits(), defined(&a, &b).to_bits(), "{}", level);
                prop_assert_eq!(dot(level, &halves, &b).to_bits(), defined(&widened, &b).to_bits(), "{}", level);
                prop_assert_eq!(dot(level, &upper, &b).to_bits(), defined(&cut, &b).to_bits(), "{}", level);
            }
        }

        #[test]
        fn several_rows_with_several_columns_give_what_each_pair_gives(
            values in proptest::collection::vec([-10f32..10.0, -10.0..10.0, -10.0..10.0, -10.0..10.0, -10.0..10.0, -10.0..10.0], 0..67),
            before in 0usize..4
        ) {
            let line = |index: usize| values.iter().map(|values| values[index]).collect::<Vec<f32>>();
            let (rows, columns) = ([line(0), line(1)], [line(2), line(3), line(4), line(5)]);
            let cut = values.len().min(before * LANES);
            for level in levels() {
                let mut lanes = [[[0.0; LANES]; COLUMNS]; ROWS];
                for stretch in [0..cut, cut..values.len()] {
                    let rows = rows.each_ref().map(|row| &row[stretch.clone()]);
                    dots(level, rows, columns.each_ref().map(|column| &column[stretch.clone()]), &mut lanes);
                }
                for (row, lanes) in rows.iter().zip(lanes) {
                    for (column, lanes) in columns.iter().zip(lanes) {
                        prop_assert_eq!(sum_lanes(lanes).to_bits(), defined(row, column).to_bits(), "{}", level);
                    }
                }
            }
        }

        #[test]
        fn every_level_rounds_any_bits_to_the_same_half(bits in proptest::collection::vec(any::<u32>(), 0..37)) {
            let floats: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            let expected: Vec<u16> = floats.iter().map(|&float| half::f16::from_f32(float).to_bits()).collect();
            for level in levels() {
                let mut halves = vec![0; floats.len()];
                to_half(level, &mut halves, &floats);
                prop_assert_eq!(&halves, &expected, "{}", level);
            }
        }
    }

    #[test]
    fn halves_at_the_borders_of_their_range() {
        let cases = [
            (65_519.996, 0x7bff),
            (65_520.0, 0x7c00),
            (f32::INFINITY, 0x7c00),
            (f32::NEG_INFINITY, 0xfc00),
            (f32::NAN, 0x7e00),
            (f32::from_bits(0x7f80_0001), 0x7e00),
            (f32::from_bits(0xffc1_2345), 0xfe09),
            (5.960_464_5e-8, 1),
            (2.980_232_2e-8, 0),
            (2.980_233e-8, 1),
            (-0.0, 0x8000),
            (1.000_488_3, 0x3c00),
            (1.001_464_8, 0x3c02),
            (6.103_515_6e-5, 0x0400),
        ];
        for level in levels() {
            for (float, expected) in cases {
                let mut halves = [0; 9];
                to_half(level, &mut halves, &[float; 9]);
                assert_eq!(halves, [expected; 9], "{level}, {float:e}");
            }
        }
    }
}
