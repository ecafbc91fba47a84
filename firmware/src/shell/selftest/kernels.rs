//! Every weight format at every level against its definition, bit for bit, on every core.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use embodios::Level;
use embodios::ops::matmul::{View, matmul};
use embodios::pool::Alone;
use embodios::quant::{FORMATS, Forms, Inputs, Row, TILE};
use embodios::simd;
use spin::Mutex;

use super::{Bench, Outcome};

/// Rows of a matrix: two tiles, and one that is in none.
const ROWS: usize = 2 * TILE + 1;
/// Inputs at once: kernels differ for one, a few, a whole group.
const COUNTS: [usize; 3] = [1, 3, 16];

/// Runs the table on each core by itself: one core's multiplier may be the faulty one.
pub fn kernels(bench: &mut Bench) -> Outcome {
    let pool = bench.platform.pool();
    let (products, wrong) = (AtomicUsize::new(0), Mutex::new(None::<String>));
    pool.run(&|worker| {
        for (index, format) in FORMATS.iter().enumerate() {
            match check(format, (worker * FORMATS.len() + index) as u64) {
                Ok(count) => drop(products.fetch_add(count, Ordering::Relaxed)),
                Err(why) => {
                    wrong.lock().get_or_insert(format!("core {worker}: {why}"));
                    return;
                }
            }
        }
    });
    if let Some(why) = wrong.into_inner() {
        return Outcome::Failed(why);
    }
    let levels: Vec<&str> = simd::levels().map(Level::name).collect();
    Outcome::Ok(format!(
        "{} formats at {} on {} cores, {} products, bit for bit",
        FORMATS.len(),
        levels.join(" and "),
        pool.width(),
        products.into_inner()
    ))
}

/// Multiplies random weights of a format. Says how many products were compared, or which one is wrong.
fn check(format: &'static Row, seed: u64) -> Result<usize, String> {
    let mut random = Random(seed);
    let columns = 2 * format.len.max(32);
    let row_bytes = format.row_bytes(columns);
    let mut rows: Vec<u8> = Vec::new();
    if format.len == 1 {
        let weights: Vec<f32> = (0..ROWS * columns).map(|_| random.float()).collect();
        (format.quantize)(&weights, &mut rows);
    } else {
        // Blocks of random bytes: every quant and every scale, the senseless ones, too.
        rows.extend((0..ROWS * row_bytes).map(|_| random.next() as u8));
    }
    let mut arranged = rows.clone();
    let tile_bytes = TILE * row_bytes;
    for (tile, rows) in arranged.chunks_exact_mut(tile_bytes).zip(rows.chunks_exact(tile_bytes)) {
        (format.arrange)(rows, tile);
    }
    let view = View { format, rows: ROWS, columns, bytes: &arranged };
    let mut compared = 0;
    for count in COUNTS {
        let values: Vec<f32> = (0..count * columns).map(|_| random.float() * 3.0).collect();
        let mut inputs = Inputs::with_capacity(Level::Plain, columns, count, Forms::ALL)
            .ok_or_else(|| String::from("no memory for the inputs"))?;
        inputs.fill(&Alone, columns, count, &|column| column, &|column, first, out| {
            let length = out.len();
            out.copy_from_slice(&values[column * columns + first..][..length]);
        });
        let defined: Vec<f32> = (0..count)
            .flat_map(|column| (0..ROWS).map(move |row| (row, column)))
            .map(|(row, column)| (format.dot)(&rows[row * row_bytes..][..row_bytes], &inputs, column))
            .collect();
        for level in simd::levels() {
            let mut out = alloc::vec![f32::NAN; ROWS * count];
            matmul(&Alone, level, &mut out, &[view], &inputs);
            let same = |(got, wanted): (&f32, &f32)| {
                got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan()
            };
            if let Some(at) = out.iter().zip(&defined).position(|pair| !same(pair)) {
                let (got, wanted) = (out[at].to_bits(), defined[at].to_bits());
                let (name, level) = (format.name, level.name());
                let (row, column) = (at % ROWS, at / ROWS);
                return Err(format!(
                    "{name} at {level}, row {row}, input {column} of {count}: {got:#010x} for {wanted:#010x}"
                ));
            }
            compared += out.len();
        }
    }
    Ok(compared)
}

/// Sebastiano Vigna's splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    /// From −1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_passes_and_a_product_that_is_not_its_definition_is_named() {
        for (index, format) in FORMATS.iter().enumerate() {
            assert!(check(format, index as u64).unwrap() > ROWS * 20, "{}", format.name);
        }
        let broken =
            Row { dot: |row, inputs, column| (FORMATS[3].dot)(row, inputs, column) + 1.0, ..FORMATS[3] };
        let why = check(std::boxed::Box::leak(std::boxed::Box::new(broken)), 1).unwrap_err();
        assert!(why.starts_with("Q4_0 at plain, row 0, input 0 of 1: "), "{why}");
    }
}
