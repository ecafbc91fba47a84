//! Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

use alloc::vec::Vec;

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
pub fn rotate(head: &mut [f32], table: &[f32], layout: Layout) {
    match layout {
        Layout::Pairs => {
            for (pair, [cosine, sine]) in head.as_chunks_mut::<2>().0.iter_mut().zip(table.as_chunks::<2>().0)
            {
                let [x, y] = *pair;
                *pair = [x * cosine - y * sine, x * sine + y * cosine];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_zero_rotates_nothing_and_the_unrotated_tail_stays() {
        let frequencies = frequencies(4, 10_000.0, None);
        let mut values = [0.0; 4];
        table(&mut values, &frequencies, 0);
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rotate(&mut head, &values, Layout::Pairs);
        assert_eq!(head, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        table(&mut values, &frequencies, 7);
        rotate(&mut head, &values, Layout::Pairs);
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
}
