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
    /// Halves: i and i + width / 2, as in GPT-NeoX. Most other families.
    Halves,
}

/// How a model is made to reach further than it was trained for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not by its angles, or by factors of each pair in the file.
    None,
    /// All angles are divided (Chen et al., 2023, arXiv:2306.15595).
    Linear {
        /// By this.
        factor: f32,
    },
    /// Slow angles are divided, fast ones are not, and the rest is between (YaRN: Peng et al., 2023,
    /// arXiv:2309.00071, with its β of 32 and 1).
    Yarn {
        /// By this.
        factor: f32,
        /// Positions that the model was trained for before.
        original: usize,
    },
}

/// How heads are rotated: an angle per position for each pair, and what the rotated values are multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Radians per position, as f64 so that large positions keep their precision.
    pub frequencies: Vec<f64>,
    /// Length of a rotated pair of length 1.
    pub magnitude: f32,
}

impl Rotation {
    /// The rotation of the first `width` values of a head: `base^(−2i / width) / factor[i]`, scaled.
    pub fn new(width: usize, base: f32, factors: Option<&[f32]>, scaling: Scaling, magnitude: f32) -> Self {
        let mut frequencies = frequencies(width, base, factors);
        let magnitude = match scaling {
            Scaling::None => magnitude,
            Scaling::Linear { factor } => {
                frequencies.iter_mut().for_each(|frequency| *frequency /= f64::from(factor));
                magnitude
            }
            Scaling::Yarn { factor, original } => {
                let factor = f64::from(factor);
                // The pair that turns so many times within the original context.
                let pair = |turns: f64| {
                    let wave = original as f64 / (turns * 2.0 * core::f64::consts::PI);
                    width as f64 * libm::log(wave) / (2.0 * libm::log(f64::from(base)))
                };
                let (low, high) = (libm::floor(pair(32.0)).max(0.0), libm::ceil(pair(1.0)));
                let high = high.min(width as f64 - 1.0);
                for (index, frequency) in frequencies.iter_mut().enumerate() {
                    let ramp = ((index as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    *frequency = *frequency * (1.0 - ramp) + *frequency / factor * ramp;
                }
                #[allow(clippy::cast_possible_truncation)] // rounding to f32 is meant
                let temperature = (1.0 + 0.1 * libm::log(factor.max(1.0))) as f32;
                magnitude * temperature
            }
        };
        Self { frequencies, magnitude }
    }

    /// Cosine and sine of every pair at a position, times the magnitude: `table` holds twice as many values as there are
    /// frequencies, in pairs.
    pub fn table(&self, table: &mut [f32], position: usize) {
        for (entry, frequency) in table.as_chunks_mut::<2>().0.iter_mut().zip(&self.frequencies) {
            let (sine, cosine) = libm::sincos(position as f64 * frequency);
            #[allow(clippy::cast_possible_truncation)] // rounding to f32 is meant
            {
                *entry = [cosine as f32 * self.magnitude, sine as f32 * self.magnitude];
            }
        }
    }
}

fn frequencies(width: usize, base: f32, factors: Option<&[f32]>) -> Vec<f64> {
    (0..width / 2)
        .map(|pair| {
            let exponent = -2.0 * pair as f64 / width as f64;
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            libm::pow(f64::from(base), exponent) / factor
        })
        .collect()
}

/// Rotates the first `table.len()` values of a head; the rest stays.
pub fn rotate(level: Level, head: &mut [f32], table: &[f32], layout: Layout) {
    match (layout, level) {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        (Layout::Pairs, Level::Neon(_) | Level::Dotprod(_)) => unsafe { pairs_neon(head, table) },
        (Layout::Pairs, _) => pairs_plain(level, head, table),
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves the instructions.
        (Layout::Halves, Level::Neon(_) | Level::Dotprod(_)) => unsafe { halves_neon(head, table) },
        (Layout::Halves, _) => halves_plain(level, head, table),
    }
}

compiled_twice! {
    fn pairs_plain(head: &mut [f32], table: &[f32]) = pairs_body;
    fn halves_plain(head: &mut [f32], table: &[f32]) = halves_body;
}

/// The two halves of the part that turns.
fn halves<'a>(head: &'a mut [f32], table: &[f32]) -> (&'a mut [f32], &'a mut [f32]) {
    head[..table.len()].split_at_mut(table.len() / 2)
}

#[inline(always)]
fn halves_body<M: Fused>(head: &mut [f32], table: &[f32]) {
    let (low, high) = halves(head, table);
    for ((x, y), [cosine, sine]) in low.iter_mut().zip(high).zip(table.as_chunks::<2>().0) {
        (*x, *y) = (M::madd(-*y, *sine, *x * cosine), M::madd(*x, *sine, *y * cosine));
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn halves_neon(head: &mut [f32], table: &[f32]) {
    let (low, high) = halves(head, table);
    let ((low, low_rest), (high, high_rest)) = (low.as_chunks_mut::<4>(), high.as_chunks_mut::<4>());
    let (turns, turns_rest) = table.as_chunks::<8>();
    for ((low, high), turns) in low.iter_mut().zip(high).zip(turns) {
        // SAFETY: chunks of four values and of eight.
        unsafe {
            let (x, y) = (neon::load_floats(low.as_ptr()), neon::load_floats(high.as_ptr()));
            let turns = neon::load_floats_pair(turns.as_ptr());
            let (cosine, sine) = (vuzp1q_f32(turns.0, turns.1), vuzp2q_f32(turns.0, turns.1));
            neon::store_floats(low.as_mut_ptr(), vfmsq_f32(vmulq_f32(x, cosine), y, sine));
            neon::store_floats(high.as_mut_ptr(), vfmaq_f32(vmulq_f32(y, cosine), x, sine));
        }
    }
    for ((x, y), [cosine, sine]) in low_rest.iter_mut().zip(high_rest).zip(turns_rest.as_chunks::<2>().0) {
        use crate::simd::fused::Soft;
        (*x, *y) = (Soft::madd(-*y, *sine, *x * cosine), Soft::madd(*x, *sine, *y * cosine));
    }
}

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

    fn plain(width: usize, factors: Option<&[f32]>) -> Rotation {
        Rotation::new(width, 10_000.0, factors, Scaling::None, 1.0)
    }

    #[test]
    fn position_zero_rotates_nothing_and_the_unrotated_tail_stays() {
        for layout in [Layout::Pairs, Layout::Halves] {
            let rotation = plain(4, None);
            let mut values = [0.0; 4];
            rotation.table(&mut values, 0);
            let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            rotate(Level::Plain, &mut head, &values, layout);
            assert_eq!(head, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            rotation.table(&mut values, 7);
            rotate(Level::Plain, &mut head, &values, layout);
            assert_eq!(head[4..], [5.0, 6.0]);
            let (x, y) = if layout == Layout::Pairs { (head[0], head[1]) } else { (head[0], head[2]) };
            let length = if layout == Layout::Pairs { 5.0 } else { 10.0 };
            assert!((x * x + y * y - length).abs() < 1e-5, "a rotation keeps the length");
        }
    }

    #[test]
    fn the_first_pair_turns_by_one_radian_a_position_and_a_factor_slows_it() {
        let mut values = [0.0; 2];
        plain(2, None).table(&mut values, 1);
        assert_eq!(values, [libm::cos(1.0) as f32, libm::sin(1.0) as f32]);
        plain(2, Some(&[4.0])).table(&mut values, 4);
        assert_eq!(values, [libm::cos(1.0) as f32, libm::sin(1.0) as f32]);
        Rotation::new(2, 10_000.0, None, Scaling::Linear { factor: 8.0 }, 2.0).table(&mut values, 8);
        assert_eq!(values, [2.0 * libm::cos(1.0) as f32, 2.0 * libm::sin(1.0) as f32]);
    }

    #[test]
    fn yarn_keeps_fast_pairs_slows_the_slow_ones_by_the_factor_and_lengthens_all() {
        let scaling = Scaling::Yarn { factor: 4.0, original: 4096 };
        let (scaled, plain) = (Rotation::new(128, 10_000.0, None, scaling, 1.0), plain(128, None));
        // 4096 / 2π positions are the slowest wave that turns once: pair 45.03; 32 turns: pair 20.95.
        assert_eq!(scaled.frequencies[..=20], plain.frequencies[..=20]);
        assert!(scaled.frequencies[46..].iter().zip(&plain.frequencies[46..]).all(|(s, p)| *s == p / 4.0));
        let middle = scaled.frequencies[33] / plain.frequencies[33];
        assert!((middle - (0.5 + 0.5 / 4.0)).abs() < 1e-12, "half way from 20 to 46: {middle}");
        assert!((scaled.magnitude - 1.138_629_4).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_leaves_the_tail(
            values in proptest::collection::vec(-10f32..10.0, 0..140), pairs in 0..66usize, position in 0..9000usize
        ) {
            let mut turns = vec![0.0; 2 * pairs];
            plain(2 * pairs, None).table(&mut turns, position);
            let turned = |[x, y]: [f32; 2], [cosine, sine]: [f32; 2]| {
                [libm::fmaf(-y, sine, x * cosine), libm::fmaf(x, sine, y * cosine)]
            };
            let mut expected = values.clone();
            for (pair, turn) in expected.as_chunks_mut::<2>().0.iter_mut().zip(turns.as_chunks::<2>().0) {
                *pair = turned(*pair, *turn);
            }
            for level in levels() {
                let mut head = values.clone();
                rotate(level, &mut head, &turns, Layout::Pairs);
                prop_assert_eq!(&head, &expected, "{}", level);
            }
            if turns.len() <= values.len() {
                let mut expected = values.clone();
                for (i, turn) in turns.as_chunks::<2>().0.iter().enumerate() {
                    [expected[i], expected[i + pairs]] = turned([values[i], values[i + pairs]], *turn);
                }
                for level in levels() {
                    let mut head = values.clone();
                    rotate(level, &mut head, &turns, Layout::Halves);
                    prop_assert_eq!(&head, &expected, "{}", level);
                }
            }
        }
    }
}
