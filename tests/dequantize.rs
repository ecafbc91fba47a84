//! Every format against the `gguf` package of llama.cpp's authors: the same bits of every weight, of random blocks and of
//! extreme ones, as they lie in a file and as they lie in a tile.
//!
//! Recorded by `tools/oracle/record_dequant.py`, which says how the blocks are made; versions are in the file. A NaN
//! counts as 0x7fc00000 on both sides: its payload and sign depend on the CPU.

mod common;

use common::{Random, number, recorded_blocks, set_scales};
use embodios::quant::{FORMATS, Row, TILE};
use serde_json::Value as Json;

fn list<'a>(json: &'a Json, key: &str) -> &'a [Json] {
    json[key].as_array().unwrap_or_else(|| panic!("the recording lacks {key}"))
}

/// A case's name and its blocks, one after the other.
type Case = (String, Vec<u8>);

/// The cases of a format, made by the rules of the recording script.
fn cases(recorded: &Json, format: &Row) -> Vec<Case> {
    let mut random = Random(1 + u64::from(format.id));
    let mut block = || -> Vec<u8> { (0..format.bytes).map(|_| (random.next() >> 56) as u8).collect() };
    let mut cases =
        vec![("random".to_owned(), (0..number(&recorded["random"])).flat_map(|_| block()).collect())];
    let scales: Vec<u16> = list(recorded, "scales").iter().map(|scale| number(scale) as u16).collect();
    for (index, &scale) in scales.iter().enumerate() {
        let fills = list(recorded, "fills").iter().map(|fill| vec![number(fill) as u8; format.bytes]);
        let mut blocks: Vec<Vec<u8>> = fills.chain([block()]).collect();
        for block in &mut blocks {
            set_scales(format, block, |n| scales[(index + 3 * n) % scales.len()]);
        }
        cases.push((format!("scale 0x{scale:04x}"), blocks.concat()));
    }
    cases
}

/// The weights, with one NaN for all.
fn canonical(mut weights: Vec<f32>) -> Vec<f32> {
    for weight in &mut weights {
        if weight.is_nan() {
            *weight = f32::from_bits(0x7fc0_0000);
        }
    }
    weights
}

fn dequantized(format: &Row, blocks: &[u8]) -> Vec<f32> {
    let mut weights = vec![0.0; blocks.len() / format.bytes * format.len];
    (format.dequantize)(blocks, &mut weights);
    canonical(weights)
}

#[test]
fn every_format_gives_the_recorded_bits_of_every_weight() {
    let recorded = recorded_blocks();
    for format in FORMATS {
        let golden = list(recorded, "formats").iter().find(|golden| golden["name"] == format.name);
        let golden = golden.unwrap_or_else(|| {
            panic!(
                "{} has no golden: add its layout to tools/oracle/record_dequant.py and record",
                format.name
            )
        });
        assert_eq!(golden["id"], format.id, "{}: its number in a file", format.name);
        let cases = cases(recorded, format);
        assert_eq!(list(golden, "cases").len(), cases.len(), "{}: as many cases", format.name);
        for ((name, blocks), golden) in cases.iter().zip(list(golden, "cases")) {
            assert_eq!(golden["case"], *name, "{}", format.name);
            let weights = dequantized(format, blocks);
            for (index, (weight, bits)) in weights.iter().zip(list(golden, "first")).enumerate() {
                let bits = u32::from_str_radix(bits.as_str().expect("hexadecimal"), 16).expect("hexadecimal");
                let expected = f32::from_bits(bits);
                assert_eq!(
                    weight.to_bits(),
                    bits,
                    "{}, {name}: weight {index} is {weight}, not {expected}",
                    format.name
                );
            }
            let digest = format!("{:016x}", embodios::digest(&weights));
            assert_eq!(golden["digest"], digest, "{}, {name}: weights past the first", format.name);
        }
    }
}

#[test]
fn rows_of_a_tile_keep_every_bit() {
    let recorded = recorded_blocks();
    for format in FORMATS {
        let blocks: Vec<u8> = cases(recorded, format).into_iter().flat_map(|(_, blocks)| blocks).collect();
        // Rows of one block, and of two.
        for row_bytes in [format.bytes, 2 * format.bytes] {
            for rows in blocks.chunks_exact(TILE * row_bytes) {
                let mut tile = vec![0; rows.len()];
                (format.arrange)(rows, &mut tile);
                for (index, row) in rows.chunks_exact(row_bytes).enumerate() {
                    let mut weights = vec![0.0; row_bytes / format.bytes * format.len];
                    (format.dequantize_arranged)(&tile, index, &mut weights);
                    let (got, expected) = (canonical(weights), dequantized(format, row));
                    assert!(
                        got.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{}, row {index} of a tile: {got:?}, not {expected:?}",
                        format.name
                    );
                }
            }
        }
    }
}
