//! Rotary position embedding (Su et al., 2021, arXiv:2104.09864).
#![allow(unsafe_code)] // vector loads of chunks whose length is known

use crate::simd::Level;
use crate::simd::fused::{Fused, compiled_twice};
use alloc::vec::Vec;

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;

/// Which two values are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Neighbours: 2i and 2i + 1. How GGUF stores the llama family.
    Pairs,
}

/// Angle per position of each pair, in radians: `base^(−2i / width) / factor[i]`, as f64 so that large positions
/// keep their precision.
pub fn frequencies(width: usize, base: f32, factors: Option<&[f32]>) -> Vec<f64> {
    (0..width / 2)
        .map(|pair| {
            let exponent = -2.0 * pair as f64 / width as f64;
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            libm::pow(f64::from(base), exponent) / factor
        })
        .collect()
}

/// Cosine and sine of every pair at a position: `table` holds `2 × frequencies.len()` values, in pairs.
pub fn table(table: &mut [f32], frequencies: &[f64], position: usize) {
    for (entry, frequency) in table.as_chunks_mut::<2>().0.iter_mut().zip(frequencies) {
        let (sine, cosine) = libm::sincos(position as f64 * frequency);
        #[allow(clippy::cast_possible_truncation)] // rounding to f32 is meant
        {
            *entry = [cosine as f32, sine as f32];
        }
    }
}

/// Rotates the first `table.len()` values of a head; the rest stays.
pub fn rotate(level: Level, head: &mut [f32], table: &[f32], layout: Layout) {
    match (layout, level) {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        (Layout::Pairs, Level::Neon(_) | Level::Dotprod(_)) => unsafe { pairs_neon(head, table) },
        (Layout::Pairs, _) => pairs_plain(level, head, table),
    }
}

compiled_twice! { fn pairs_plain(head: &mut [f32], table: &[f32]) = pairs_body; }

/// One product of each value is rounded by itself, the other is fused.
#[inline(always)]
fn pairs_body<M: Fused>(head: &mut [f32], table: &[f32]) {
    for (pair, [cosine, sine]) in head.as_chunks_mut::<2>().0.iter_mut().zip(table.as_chunks::<2>().0) {
        let [x, y] = *pair;
        *pair = [M::madd(-y, *sine, x * cosine), M::madd(x, *sine, y * cosine)];
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn pairs_neon(head: &mut [f32], table: &[f32]) {
    let count = head.len().min(table.len()) / 8 * 8;
    let ((head, head_rest), (table, table_rest)) = (head.split_at_mut(count), table.split_at(count));
    for (pairs, table) in head.as_chunks_mut::<8>().0.iter_mut().zip(table.as_chunks::<8>().0) {
        // SAFETY: each chunk is eight values long.
        unsafe {
            let (values, turns) =
                (neon::load_floats_pair(pairs.as_ptr()), neon::load_floats_pair(table.as_ptr()));
            let (x, y) = (vuzp1q_f32(values.0, values.1), vuzp2q_f32(values.0, values.1));
            let (cosine, sine) = (vuzp1q_f32(turns.0, turns.1), vuzp2q_f32(turns.0, turns.1));
            let new_x = vfmsq_f32(vmulq_f32(x, cosine), y, sine);
            let new_y = vfmaq_f32(vmulq_f32(y, cosine), x, sine);
            neon::store_floats_pair(pairs.as_mut_ptr(), (vzip1q_f32(new_x, new_y), vzip2q_f32(new_x, new_y)));
        }
    }
    pairs_body::<crate::simd::fused::Soft>(head_rest, table_rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::levels;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn position_zero_rotates_nothing_and_the_unrotated_tail_stays() {
        let frequencies = frequencies(4, 10_000.0, None);
        let mut values = [0.0; 4];
        table(&mut values, &frequencies, 0);
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rotate(Level::Plain, &mut head, &values, Layout::Pairs);
        assert_eq!(head, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        table(&mut values, &frequencies, 7);
        rotate(Level::Plain, &mut head, &values, Layout::Pairs);
        assert_eq!(head[4..], [5.0, 6.0]);
        assert!((head[0] * head[0] + head[1] * head[1] - 5.0).abs() < 1e-5, "a rotation keeps the length");
    }

    #[test]
    fn the_first_pair_turns_by_one_radian_a_position_and_a_factor_slows_it() {
        let mut values = [0.0; 2];
        table(&mut values, &frequencies(2, 10_000.0, None), 1);
        assert_eq!(values, [libm::cos(1.0) as f32, libm::sin(1.0) as f32]);
        table(&mut values, &frequencies(2, 10_000.0, Some(&[4.0])), 4);
        assert_eq!(values, [libm::cos(1.0) as f32, libm::sin(1.0) as f32]);
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_leaves_the_tail(
            values in proptest::collection::vec(-10f32..10.0, 0..140), pairs in 0..66usize, position in 0..9000usize
        ) {
            let mut turns = vec![0.0; 2 * pairs];
            table(&mut turns, &frequencies(2 * pairs, 10_000.0, None), position);
            let mut expected = values.clone();
            for (pair, turn) in expected.as_chunks_mut::<2>().0.iter_mut().zip(turns.as_chunks::<2>().0) {
                let ([x, y], [cosine, sine]) = (*pair, *turn);
                *pair = [libm::fmaf(-y, sine, x * cosine), libm::fmaf(x, sine, y * cosine)];
            }
            for level in levels() {
                let mut head = values.clone();
                rotate(level, &mut head, &turns, Layout::Pairs);
                prop_assert_eq!(&head, &expected, "{}", level);
            }
        }
    }
}
