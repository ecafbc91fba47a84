//! Every format × every level of this CPU against the plain definition: the same bits, whatever the shape.
//!
//! Run on the PC (plain only) and under `qemu-aarch64` as Cortex-A72 and Cortex-A76 (NEON, dotprod).

mod common;

use common::{InTurn, Random, set_scales};
use embodios::ops::matmul::{View, matmul};
use embodios::pool::Alone;
use embodios::quant::{FORMATS, Forms, Inputs, Row, TILE};
use embodios::simd::{self, Level};
use zerocopy::IntoBytes;

/// `count` columns of so many values.
fn inputs(level: Level, columns: usize, count: usize, mut value: impl FnMut() -> f32) -> Inputs {
    let values: Vec<f32> = (0..columns * count).map(|_| value()).collect();
    let mut inputs = Inputs::with_capacity(level, columns, count, Forms::ALL).unwrap();
    inputs.fill(&Alone, columns, count, &|column| column, &|column, first, out| {
        let len = out.len();
        out.copy_from_slice(&values[column * columns + first..][..len]);
    });
    inputs
}

/// Multiplies a matrix of `rows` (as in a file) at every level, as it is after loading, and compares with `dot`, row by
/// row, bit by bit.
fn check(format: &'static Row, rows: &[u8], count: usize, inputs: &Inputs, what: &str) {
    check_at(format, rows, count, inputs, what, 0);
}

/// The same with the matrix so many bytes behind a 16-byte aligned place.
fn check_at(format: &'static Row, rows: &[u8], count: usize, inputs: &Inputs, what: &str, shift: usize) {
    let row_bytes = format.row_bytes(inputs.columns());
    let tile_bytes = TILE * row_bytes;
    let mut units = vec![0u128; (shift + rows.len()).div_ceil(16)];
    let memory = &mut units.as_mut_slice().as_mut_bytes()[shift..][..rows.len()];
    memory.copy_from_slice(rows);
    for (tile, rows) in memory.chunks_exact_mut(tile_bytes).zip(rows.chunks_exact(tile_bytes)) {
        (format.arrange)(rows, tile);
    }
    let view = View { format, rows: count, columns: inputs.columns(), bytes: memory };
    let mut before = vec![0.0; inputs.columns()];
    let mut after = before.clone();
    for row in 0..count {
        (format.dequantize)(&rows[row * row_bytes..][..row_bytes], &mut before);
        view.dequantize_row(row, &mut after);
        let bits = |floats: &[f32]| floats.iter().map(|float| float.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&before), bits(&after), "{} {what}: row {row} of {count}, arranged", format.name);
    }
    let cells = || (0..inputs.count()).flat_map(|column| (0..count).map(move |row| (column, row)));
    let defined =
        cells().map(|(column, row)| (format.dot)(&rows[row * row_bytes..][..row_bytes], inputs, column));
    let defined: Vec<f32> = defined.collect();
    for level in simd::levels() {
        let mut out = vec![f32::NAN; count * inputs.count()];
        matmul(&Alone, level, &mut out, &[view], inputs);
        for (column, row) in cells() {
            let (got, defined) = (out[column * count + row], defined[column * count + row]);
            assert!(
                got.to_bits() == defined.to_bits() || got.is_nan() && defined.is_nan(),
                "{} {level} {what}: row {row} of {count}, column {column} of {}, {} columns: {got} for {defined}",
                format.name,
                inputs.count(),
                inputs.columns()
            );
        }
    }
}

/// How long rows are made for a format: for blocks of at most 32 weights, and for longer ones.
fn columns_of<'a>(format: &Row, short: &'a [usize], long: &'a [usize]) -> &'a [usize] {
    if format.len > 32 { long } else { short }
}

#[test]
fn every_level_gives_the_bits_of_the_definition_for_every_shape() {
    let mut random = Random(1);
    for format in FORMATS {
        for &columns in columns_of(format, &[32, 64, 96, 576], &[256, 512]) {
            let weights: Vec<f32> = (0..37 * columns).map(|_| random.float()).collect();
            let mut all = Vec::new();
            (format.quantize)(&weights, &mut all);
            for rows in [1, 15, 16, 17, 32, 37] {
                let packed = &all[..rows * format.row_bytes(columns)];
                for count in [1, 2, 3, 4, 5, 7, 8, 11, 15, 16, 17, 33] {
                    let inputs = inputs(Level::Plain, columns, count, || random.float() * 3.0);
                    check(format, packed, rows, &inputs, "random weights");
                }
            }
        }
    }
}

#[test]
fn float_formats_take_any_number_of_columns() {
    let mut random = Random(2);
    for format in FORMATS.iter().filter(|format| format.len == 1) {
        for columns in [1, 3, 7, 8, 9, 16, 31, 33, 505, 511, 512, 519, 1041] {
            let weights: Vec<f32> = (0..19 * columns).map(|_| random.float()).collect();
            let mut packed = Vec::new();
            (format.quantize)(&weights, &mut packed);
            for count in [2, 4, 7, 16] {
                let inputs = inputs(Level::Plain, columns, count, || random.float());
                check(format, &packed, 19, &inputs, "odd columns");
            }
        }
    }
}

#[test]
fn blocks_of_random_bytes_agree_whatever_they_hold() {
    let mut random = Random(7);
    for format in FORMATS.iter().filter(|format| format.len > 1) {
        let columns = 2 * format.len.max(64);
        let packed: Vec<u8> = (0..37 * format.row_bytes(columns)).map(|_| random.next() as u8).collect();
        for count in [1, 2, 7, 16] {
            let inputs = inputs(Level::Plain, columns, count, || random.float() * 3.0);
            check(format, &packed, 37, &inputs, "random bytes");
        }
    }
}

#[test]
fn blocks_of_extreme_bytes_agree_too() {
    let mut random = Random(3);
    for format in FORMATS.iter().filter(|format| format.len > 1) {
        let (columns, rows) = (columns_of(format, &[96], &[256])[0], 18);
        for byte in [0x00, 0xff, 0x80, 0x7f, 0x55] {
            let mut packed = vec![byte; rows * format.row_bytes(columns)];
            // Scales (and minimums) that are finite, large and small, negative and zero.
            for (index, block) in packed.chunks_exact_mut(format.bytes).enumerate() {
                let scale =
                    |part: usize| [0x3c00, 0xbc00, 0x7bff, 0x0001, 0x0000, 0x8000][(index + part) % 6];
                set_scales(format, block, scale);
            }
            let mut next = 0;
            let ends = [127.0, -127.0, 0.0];
            for (what, value) in
                [("random", None), ("extreme", Some(&ends[..])), ("lowest", Some(&ends[1..2]))]
            {
                for count in [1, 3, 16] {
                    let all = inputs(Level::Plain, columns, count, || match value {
                        None => random.float() * 3.0,
                        Some(values) => {
                            next += 1;
                            values[next % values.len()]
                        }
                    });
                    check(format, &packed, rows, &all, &format!("extreme blocks, {what} inputs"));
                }
            }
        }
    }
}

#[test]
fn a_scale_that_is_infinite_or_no_number_gives_what_the_definition_gives() {
    let mut random = Random(8);
    let numbers = [0x7c00, 0xfc00, 0x3c00, 0x7e00, 0xbc00];
    for format in FORMATS.iter().filter(|format| format.len > 1) {
        let columns = columns_of(format, &[64], &[512])[0];
        let mut packed: Vec<u8> = (0..37 * format.row_bytes(columns)).map(|_| random.next() as u8).collect();
        // Most rows have at most one such number: a second would hide what the first did.
        for (index, block) in packed.chunks_exact_mut(format.bytes).enumerate() {
            let wrong = random.next() as usize % 8;
            set_scales(format, block, |part| if part == wrong { numbers[index % 5] } else { 0x3c00 });
        }
        for count in [1, 3, 16] {
            // All positive: products of both signs would soon make NaN of any infinity.
            let inputs = inputs(Level::Plain, columns, count, || random.float().abs() * 3.0);
            check(format, &packed, 37, &inputs, "scales that are no finite numbers");
        }
    }
}

#[test]
fn a_dot_product_is_near_the_product_of_the_dequantized_row() {
    let mut random = Random(4);
    for format in FORMATS {
        let columns = columns_of(format, &[576], &[768])[0];
        let weights: Vec<f32> = (0..columns).map(|_| random.float()).collect();
        let mut packed = Vec::new();
        (format.quantize)(&weights, &mut packed);
        let mut floats = vec![0.0; columns];
        (format.dequantize)(&packed, &mut floats);
        let inputs = inputs(Level::Plain, columns, 1, || random.float() * 3.0);
        let x = inputs.floats(0);
        let exact: f64 = floats.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        let magnitude: f64 = floats.iter().zip(x).map(|(w, x)| f64::from(w * x).abs()).sum();
        let got = f64::from((format.dot)(&packed, &inputs, 0));
        // An activation is rounded to 1/127 of its block's peak: at most 1/254 of 3, here, a product.
        assert!((got - exact).abs() < magnitude * 0.01, "{}: {got} for {exact}", format.name);
        // Groups of a grid leave a weight far off now and then: of their formats the mean counts.
        let errors = floats.iter().zip(&weights).map(|(a, b)| (a - b).abs());
        let grid = ["IQ1", "IQ2", "IQ3"].iter().any(|name| format.name.starts_with(name));
        let error = if grid { errors.sum::<f32>() / columns as f32 } else { errors.fold(0.0, f32::max) };
        let bound = match format.name {
            name if name.starts_with("IQ1") => 0.3,
            name if name.starts_with("IQ2") => 0.2,
            name if name.starts_with("IQ3") => 0.15,
            name if name.starts_with("TQ") => 0.51,
            name if name.starts_with("Q2") => 0.4,
            name if name.starts_with("Q3") => 0.3,
            name if name.starts_with("Q4") || name.starts_with("IQ4") => 0.16,
            name if name.starts_with("Q5") => 0.08,
            name if name.starts_with("Q6") => 0.04,
            "MXFP4" => 0.3,
            _ => 0.01,
        };
        assert!(error < bound, "{}: a weight of magnitude 1 is off by {error}", format.name);
    }
}

#[test]
fn a_matrix_may_begin_at_any_even_byte() {
    let mut random = Random(5);
    for format in FORMATS.iter().filter(|format| format.len > 1) {
        let columns = columns_of(format, &[64], &[256])[0];
        let weights: Vec<f32> = (0..20 * columns).map(|_| random.float()).collect();
        let mut packed = Vec::new();
        (format.quantize)(&weights, &mut packed);
        let inputs = inputs(Level::Plain, columns, 2, || random.float());
        for shift in [2, 4, 6, 8, 14] {
            check_at(format, &packed, 20, &inputs, "shifted", shift);
        }
    }
}

#[test]
fn stacked_matrices_split_over_any_number_of_workers_give_the_same_bits() {
    let mut random = Random(6);
    let columns = 64;
    let formats = [embodios::quant::by_name("Q4_1").unwrap(), embodios::quant::by_name("Q8_0").unwrap()];
    let rows = [137, 21];
    let packed: Vec<Vec<u8>> = formats
        .iter()
        .zip(rows)
        .map(|(format, rows)| {
            let weights: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
            let mut packed = Vec::new();
            (format.quantize)(&weights, &mut packed);
            let tile_bytes = TILE * format.row_bytes(columns);
            for tile in packed.chunks_exact_mut(tile_bytes) {
                let rows = tile.to_vec();
                (format.arrange)(&rows, tile);
            }
            packed
        })
        .collect();
    let view = |i: usize| View { format: formats[i], rows: rows[i], columns, bytes: &packed[i] };
    let inputs = inputs(Level::Plain, columns, 3, || random.float());
    let level = simd::Level::detect();
    let mut alone = vec![0.0; 158 * 3];
    matmul(&Alone, level, &mut alone, &[view(0), view(1)], &inputs);
    for width in [2, 3, 4, 7, 64] {
        let mut wide = vec![0.0; 158 * 3];
        matmul(&InTurn(width), level, &mut wide, &[view(0), view(1)], &inputs);
        assert_eq!(alone, wide, "{width} workers");
    }
}
