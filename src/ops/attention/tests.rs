use super::*;
use crate::simd::fused::Soft;
use crate::simd::levels;
use alloc::{vec, vec::Vec};
use proptest::prelude::*;

const PLAIN: Scoring = Scoring { scale: 1.0, softcap: 0.0 };

fn half(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| half::f16::from_f32(value).to_bits()).collect()
}

/// Rows of `size` values as the cache keeps them.
fn quantized(values: &[f32], size: usize) -> (Vec<i8>, Vec<u16>) {
    let rows = values.len() / size;
    let (mut quants, mut scales) = (vec![0; values.len()], vec![0; values.len() / BLOCK]);
    for (index, (values, quants)) in values.chunks(BLOCK).zip(quants.chunks_mut(BLOCK)).enumerate() {
        let (row, block) = (index / (size / BLOCK), index % (size / BLOCK));
        let scale = quantize::block(Level::Plain, values, quants).0;
        scales[block * rows + row] = half::f16::from_f32(scale).to_bits();
    }
    (quants, scales)
}

/// One head over all positions.
fn attend(level: Level, out: &mut [f32], q: &[f32], keys: &[f32], values: &[f32], scoring: Scoring) {
    let (keys, values) = (half(keys), half(values));
    let store = Store::Half { keys: &keys, values: &values };
    let view = View { store, first: 0, end: keys.len() / q.len() };
    attend_group(level, out, q, view, 1, scoring);
}

#[test]
fn one_position_gives_its_value_back() {
    for level in levels() {
        for softcap in [0.0, 50.0] {
            let mut out = [0.0; 2];
            let scoring = Scoring { scale: 0.5, softcap };
            attend(level, &mut out, &[1.0, 1.0], &[5.0, -5.0], &[3.0, 4.0], scoring);
            assert_eq!(out, [3.0, 4.0]);
        }
    }
}

#[test]
fn equal_scores_give_the_mean_and_a_huge_one_wins() {
    let values = [2.0, 0.0, 4.0, 0.0];
    let mut out = [0.0; 2];
    attend(Level::Plain, &mut out, &[1.0, 0.0], &[1.0, 7.0, 1.0, 9.0], &values, PLAIN);
    assert_eq!(out, [3.0, 0.0]);
    attend(Level::Plain, &mut out, &[1.0, 0.0], &[-500.0, 0.0, 500.0, 0.0], &values, PLAIN);
    assert_eq!(out, [4.0, 0.0]);
}

#[test]
fn many_chunks_agree_with_the_softmax_written_down_plainly_capped_or_not() {
    let positions = 3 * CHUNK + 5;
    let q = [0.5, -1.0];
    let keys: Vec<f32> = (0..positions * 2).map(|i| ((i * 37) % 23) as f32 / 4.0 - 3.0).collect();
    let values: Vec<f32> = (0..positions * 2).map(|i| ((i * 53) % 17) as f32 / 8.0).collect();
    for softcap in [0.0f32, 1.5, 50.0] {
        let mut out = [0.0; 2];
        attend(Level::Plain, &mut out, &q, &keys, &values, Scoring { scale: 0.7, softcap });
        let capped = |score: f32| match f64::from(softcap) {
            0.0 => f64::from(score),
            cap => cap * libm::tanh(f64::from(score) / cap),
        };
        let weights: Vec<f64> =
            keys.chunks(2).map(|k| libm::exp(capped((k[0] * q[0] + k[1] * q[1]) * 0.7))).collect();
        let total: f64 = weights.iter().sum();
        for i in 0..2 {
            let sum: f64 = weights.iter().zip(values.chunks(2)).map(|(w, v)| w * f64::from(v[i])).sum();
            assert!((sum / total - f64::from(out[i])).abs() < 1e-5, "{softcap}");
        }
    }
}

#[test]
fn a_cap_is_as_near_to_the_exact_one_as_is_said_and_keeps_signs_and_bounds() {
    for cap in [1.0f32, 30.0, 50.0] {
        for step in -4000..=4000 {
            let score = step as f32 * cap / 500.0;
            let exact = f64::from(cap) * libm::tanh(f64::from(score) / f64::from(cap));
            let got = capped_body::<Soft>(score, cap, 1.0 / cap);
            assert!(
                (f64::from(got) - exact).abs() <= f64::from(cap) / 4_194_304.0,
                "{score}: {got}, {exact}"
            );
        }
        let ends = [f32::INFINITY, f32::NEG_INFINITY, 0.0].map(|x| capped_body::<Soft>(x, cap, 1.0 / cap));
        assert_eq!(ends, [cap, -cap, 0.0]);
        assert!(capped_body::<Soft>(f32::NAN, cap, 1.0 / cap).is_nan());
    }
}

#[test]
fn a_nan_among_the_keys_is_seen_in_every_value_whatever_the_level_and_the_store() {
    let ones = half(&[1.0; 41 * 32]);
    for (level, place) in levels().flat_map(|level| [0, 33, 40].map(|place| (level, place))) {
        for softcap in [0.0, 5.0] {
            let mut keys = [1.0; 41 * 32];
            keys[place * 32 + 3] = f32::NAN;
            let (halves, (quants, scales)) = (half(&keys), quantized(&keys, 32));
            let blocks = Blocks { quants: &quants, scales: &scales };
            for store in [
                Store::Half { keys: &halves, values: &ones },
                Store::Blocks { keys: blocks, values: Blocks { quants: &[1; 41 * 32], scales: &ones[..41] } },
            ] {
                let mut out = [0.0; 64];
                let view = View { store, first: 0, end: 41 };
                attend_group(level, &mut out, &[1.0; 64], view, 2, Scoring { scale: 1.0, softcap });
                assert!(out.iter().all(|out| out.is_nan()), "{level}, {place}, {store:?}");
            }
        }
    }
}

/// Numbers that look random, the same each time, between −1 and 1.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bits(out: &[f32]) -> Vec<u32> {
    out.iter().map(|out| out.to_bits()).collect()
}

/// A group at every level against one head after the other in plain code, in both kinds of store, from position `first`
/// on, in rows that are as many or, with `ring`, go round.
fn check(
    size: usize,
    group: usize,
    (first, end): (usize, usize),
    ring: bool,
    softcap: f32,
    (spread, seed): (f32, u64),
) {
    let rows = if ring { (end - first).next_multiple_of(CHUNK) + CHUNK } else { end };
    let q: Vec<f32> = noise(seed, group * size).iter().map(|q| q * spread).collect();
    let (keys, values) = (noise(seed + 1, rows * size), noise(seed + 2, rows * size));
    let scoring = Scoring { scale: 0.125, softcap };
    let (half_keys, half_values) = (half(&keys), half(&values));
    let mut stores = vec![Store::Half { keys: &half_keys, values: &half_values }];
    let quantized = size.is_multiple_of(BLOCK).then(|| (quantized(&keys, size), quantized(&values, size)));
    if let Some((keys, values)) = &quantized {
        let [keys, values] = [keys, values].map(|(quants, scales)| Blocks { quants, scales });
        stores.push(Store::Blocks { keys, values });
    }
    for store in stores {
        let view = View { store, first, end };
        let mut expected = vec![0.0; q.len()];
        for (out, q) in expected.chunks_exact_mut(size).zip(q.chunks_exact(size)) {
            attend_group(Level::Plain, out, q, view, 1, scoring);
        }
        for level in levels() {
            let mut out = vec![f32::NAN; q.len()];
            attend_group(level, &mut out, &q, view, group, scoring);
            let kind = if matches!(store, Store::Half { .. }) { "half" } else { "blocks" };
            assert_eq!(bits(&out), bits(&expected), "{level}, {kind}: {group} of {size}, {first}..{end}");
        }
    }
}

#[test]
fn every_level_gives_the_same_bits_for_every_size_and_group() {
    for size in [8, 16, 20, 24, 32, 64, 80, 96, 128, 256] {
        for group in 1..=9 {
            for end in [1, 2, 4, 5, 31, 32, 33, 64, 71] {
                let softcap = if end % 2 == 0 { 2.0 } else { 0.0 };
                let seed = (size * 1000 + group * 100 + end) as u64;
                check(size, group, (0, end), false, softcap, (3.0, seed));
            }
        }
    }
}

/// What a window sees is what a view sees that holds nothing else, if that begins at the same place of a chunk; and a
/// ring of rows is as good as all rows.
#[test]
fn a_window_in_a_ring_gives_the_bits_of_the_same_positions_in_a_row() {
    let (size, rows) = (32, 3 * CHUNK);
    for level in levels() {
        for (first, end) in [(0, 1), (5, 6), (31, 33), (40, 136), (95, 97), (128, 192), (190, 250)] {
            let (keys, values) = (noise(1, end * size), noise(2, end * size));
            let (mut ring_keys, mut ring_values) = (vec![9.0; rows * size], vec![9.0; rows * size]);
            for position in first..end {
                let (at, from) = (position % rows * size, position * size);
                ring_keys[at..at + size].copy_from_slice(&keys[from..from + size]);
                ring_values[at..at + size].copy_from_slice(&values[from..from + size]);
            }
            let q = noise(3, 2 * size);
            let run = |keys: &[f32], values: &[f32]| {
                let (halves, quants) =
                    ([keys, values].map(half), [keys, values].map(|values| quantized(values, size)));
                let [keys, values] =
                    [&quants[0], &quants[1]].map(|(quants, scales)| Blocks { quants, scales });
                [Store::Half { keys: &halves[0], values: &halves[1] }, Store::Blocks { keys, values }].map(
                    |store| {
                        let mut out = vec![0.0; q.len()];
                        attend_group(level, &mut out, &q, View { store, first, end }, 2, PLAIN);
                        bits(&out)
                    },
                )
            };
            assert_eq!(run(&ring_keys, &ring_values), run(&keys, &values), "{level}, {first}..{end}");
        }
    }
}

#[test]
fn blocks_are_as_near_to_floats_as_eight_bits_are() {
    let (size, end) = (64, 100);
    let (q, keys, values) = (noise(1, size), noise(2, end * size), noise(3, end * size));
    let (mut exact, mut out) = (vec![0.0; size], vec![0.0; size]);
    attend(Level::Plain, &mut exact, &q, &keys, &values, PLAIN);
    let (keys, values) = (quantized(&keys, size), quantized(&values, size));
    let [keys, values] = [&keys, &values].map(|(quants, scales)| Blocks { quants, scales });
    let view = View { store: Store::Blocks { keys, values }, first: 0, end };
    attend_group(Level::detect(), &mut out, &q, view, 1, PLAIN);
    // A value between −1 and 1 is off by 1/254 at most; weights are off by a little more, in both directions.
    assert!(
        exact.iter().zip(&out).all(|(exact, out)| (exact - out).abs() < 2.0 / 254.0),
        "{exact:?} {out:?}"
    );
    assert_ne!(exact, out);
}

proptest! {
    #[test]
    fn every_level_gives_the_same_bits_for_scores_far_apart(
        size in 1..10usize, group in 1..5usize, positions in 1..140usize, spread in 0f32..2000.0, seed: u64
    ) {
        check(size * 8, group, (0, positions), false, 0.0, (spread, seed >> 2));
    }

    #[test]
    fn every_level_gives_the_same_bits_for_any_window_in_a_ring(
        size in 1..5usize, group in 1..5usize, first in 0..200usize, len in 1..100usize, cap in 0..3u8, seed: u64
    ) {
        check(size * 16, group, (first, first + len), true, 10.0 * f32::from(cap), (4.0, seed >> 2));
    }
}
