//! The kernels' machine code in the image as it ships: what a vector load became, what spills, what multiplies.
//!
//! The board's target is compiled for strict alignment, where a vector load of data that the compiler can't prove to be
//! aligned becomes byte loads that are put together: right, and many times slower. Nothing but the code itself shows it.
//!
//! A handful of encodings is all there is to know, so they are told apart here by masks of the Arm ARM's (DDI 0487)
//! section C4.1, and no disassembler has to be installed or to know every SIMD instruction.

use embodi::build;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;
use std::fs;

/// Where kernels of tiles are, the formats that they are made for, and the vectors of a quad of each: four rows × 32 columns.
const FORMATS: [(&str, &[(&str, usize)]); 2] = [
    (
        "block32",
        &[("Iq4Nl", 4), ("Mxfp4", 4), ("Q4_0", 4), ("Q4_1", 4), ("Q5_0", 5), ("Q5_1", 5), ("Q8_0", 8)],
    ),
    (
        "superblock",
        &[("Iq4Xs", 4), ("Q2_K", 2), ("Q3_K", 3), ("Q4_K", 4), ("Q5_K", 5), ("Q6_K", 6), ("Tq2", 2)],
    ),
];
/// Kernels that spill, and how often a turn: there are more totals, weights and scales than registers. A superblock's own numbers
/// (Q2_K, Q4_K, Q5_K) wait in memory for each part.
const SPILLS: &[(&str, usize)] = &[
    ("sixteen_neon, Iq4Nl", 3),
    ("one_neon, Iq4Xs", 8),
    ("sixteen_neon, Iq4Xs", 3),
    ("one_neon, Q2_K", 11),
    ("one_dotprod, Q2_K", 5),
    ("sixteen_neon, Q2_K", 1),
    ("one_dotprod, Q3_K", 3),
    ("sixteen_neon, Q3_K", 1),
    ("one_neon, Q4_K", 8),
    ("one_neon, Q5_K", 7),
    ("one_dotprod, Q6_K", 2),
    ("sixteen_neon, Q6_K", 4),
];
/// Kernels by the columns that they multiply.
const SHAPES: [(&str, usize); 5] = [("one", 1), ("two", 2), ("four", 4), ("eight", 8), ("sixteen", 16)];
/// Vectors of quants in a block of a quad once unpacked: 4 rows × 32 columns, 16 a vector.
const UNPACKED: usize = 8;
/// Kernels of floats, beside those.
const OTHERS: [&str; 13] = [
    "embodios::ops::attention::blocks_neon::heads_blocks_neon::<",
    "embodios::ops::attention::blocks_neon::scores_dotprod::<",
    "embodios::ops::attention::blocks_neon::scores_neon::<",
    "embodios::ops::attention::neon::heads_neon::<",
    "embodios::ops::dot::dot_neon::<f32>",
    "embodios::ops::dot::dot_neon::<half::bfloat::bf16>",
    "embodios::ops::dot::dot_neon::<half::binary16::f16>",
    "embodios::ops::dot::dots_neon::<f32>",
    "embodios::ops::dot::dots_neon::<half::bfloat::bf16>",
    "embodios::ops::dot::dots_neon::<half::binary16::f16>",
    "embodios::ops::dot::to_half_neon",
    "embodios::ops::quantize::block_neon",
    "embodios::simd::read::read",
];

/// An instruction, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Reads or writes memory.
    Memory { load: bool, bytes: usize, base: u32 },
    /// Reads one lane of a vector from memory, or puts one into a vector: how a vector is put together.
    Lane,
    /// Four products of bytes summed: `sdot`.
    Dot,
    /// Products of bytes in 16-bit lanes: `smull`, `smlal`, and both halves' forms.
    Long,
    /// Fused multiply-add of vectors of floats.
    Fused,
    /// May go to this instruction, relative to itself, without a return.
    Jump(i64),
    /// Anything else.
    Other,
}

/// A signed field of `bits` bits from bit `low` on.
fn signed(word: u32, low: u32, bits: u32) -> i64 {
    i64::from((word << (32 - low - bits)).cast_signed() >> (32 - bits))
}

fn decode(word: u32) -> Kind {
    let is = |mask: u32, value: u32| word & mask == value;
    let (load, base) = (word >> 22 & 1 == 1, word >> 5 & 31);
    if is(0xff00_0010, 0x5400_0000) || is(0x7e00_0000, 0x3400_0000) {
        Kind::Jump(signed(word, 5, 19)) // b.cond; cbz, cbnz
    } else if is(0x7e00_0000, 0x3600_0000) {
        Kind::Jump(signed(word, 5, 14)) // tbz, tbnz
    } else if is(0xfc00_0000, 0x1400_0000) {
        Kind::Jump(signed(word, 0, 26)) // b
    } else if is(0xbfc0_f400, 0x0f80_e000) || is(0xbfe0_fc00, 0x0e80_9400) {
        Kind::Dot // by element; of vectors
    } else if is(0xbfe0_fc00, 0x0e20_c000) || is(0xbfe0_fc00, 0x0e20_8000) {
        Kind::Long // smull; smlal
    } else if is(0xbfa0_fc00, 0x0e20_cc00) || is(0xbf80_f400, 0x0f80_1000) {
        Kind::Fused // fmla of vectors; by element
    } else if is(0xffe0_fc00, 0x4e00_1c00) || is(0xffe0_8400, 0x6e00_0400) {
        Kind::Lane // ins from a general register; from another lane
    } else if is(0xbf00_0000, 0x0d00_0000) {
        // One structure. With opcode 11x it is repeated in all lanes (ld1r), which puts nothing together.
        if load && word >> 14 & 3 != 3 { Kind::Lane } else { Kind::Other }
    } else if is(0xbe00_0000, 0x0c00_0000) {
        // Whole vectors as structures: one to four registers.
        let registers = match word >> 12 & 15 {
            0b0111 => 1,
            0b1000 | 0b1010 => 2,
            0b0100 | 0b0110 => 3,
            _ => 4,
        };
        Kind::Memory { load, bytes: registers << (3 + (word >> 30 & 1)), base }
    } else if is(0x3a00_0000, 0x2800_0000) {
        // Pairs: both registers' bytes.
        let vector = word >> 26 & 1 == 1;
        let size = if vector { 4 << (word >> 30) } else { 4 << (word >> 31) };
        Kind::Memory { load, bytes: 2 * size, base }
    } else if is(0x3a00_0000, 0x3800_0000) {
        let (size, opc, vector) = (word >> 30, word >> 22 & 3, word >> 26 & 1 == 1);
        match (vector, opc) {
            (true, 2 | 3) => Kind::Memory { load, bytes: 16, base },
            (false, 2) if size == 3 => Kind::Other, // prfm
            _ => Kind::Memory { load: opc != 0, bytes: 1 << size, base },
        }
    } else {
        Kind::Other
    }
}

/// The loops of a function that hold no other loop.
fn innermost(code: &[Kind]) -> Vec<&[Kind]> {
    let mut loops = Vec::new();
    for (end, kind) in code.iter().enumerate() {
        if let Kind::Jump(distance @ ..=0) = kind
            && let Some(start) = end.checked_sub(distance.unsigned_abs() as usize)
        {
            loops.push((start, end));
        }
    }
    let holds = |a: (usize, usize), b: (usize, usize)| a != b && a.0 <= b.0 && b.1 <= a.1;
    loops
        .iter()
        .filter(|a| !loops.iter().any(|b| holds(**a, *b)))
        .map(|(start, end)| &code[*start..=*end])
        .collect()
}

/// What a piece of code does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Loads of one or two bytes, and vectors put together from lanes.
    narrow: usize,
    /// Vectors of 16 bytes loaded, but from the stack.
    vectors: usize,
    /// Loads and stores of the stack: by its pointer, or by the frame's.
    spills: usize,
    dots: usize,
    longs: usize,
    fused: usize,
}

fn tally(code: &[Kind]) -> Tally {
    let mut tally = Tally::default();
    for kind in code {
        match *kind {
            Kind::Memory { base: 29 | 31, .. } => tally.spills += 1,
            Kind::Memory { load: true, bytes: 1 | 2, .. } | Kind::Lane => tally.narrow += 1,
            Kind::Memory { load: true, bytes, .. } => tally.vectors += bytes / 16,
            Kind::Dot => tally.dots += 1,
            Kind::Long => tally.longs += 1,
            Kind::Fused => tally.fused += 1,
            _ => {}
        }
    }
    tally
}

/// The firmware's functions whose names begin with one of these, by name.
fn functions(beginnings: &[&str]) -> BTreeMap<String, Vec<Kind>> {
    let kernel = build::kernel().unwrap_or_else(|error| panic!("{error:#}"));
    let bytes = fs::read(kernel.elf).expect("the kernel's ELF file");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let mut found = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name().expect("a name")));
        if beginnings.iter().any(|beginning| name.starts_with(beginning)) {
            let section = file.section_by_index(symbol.section_index().expect("a section")).expect("there");
            let data = section.data_range(symbol.address(), symbol.size()).expect("readable");
            let words = data.expect("the whole function").as_chunks().0.iter();
            found.insert(name, words.map(|word| decode(u32::from_le_bytes(*word))).collect());
        }
    }
    found
}

#[test]
fn tile_kernels_load_whole_vectors_spill_nothing_and_multiply_as_often_as_their_shape_says() {
    let found = functions(&["embodios::quant::block32::", "embodios::quant::superblock::"]);
    let mut seen = 0;
    let mut spills = Vec::new();
    for (module, format, words) in FORMATS
        .iter()
        .flat_map(|(module, formats)| formats.iter().map(move |(format, words)| (module, format, words)))
    {
        for (shape, columns) in SHAPES {
            for level in ["neon", "dotprod"] {
                let module = match *module {
                    "superblock" if columns == 1 => "superblock::one_column",
                    "superblock" => "superblock::kernels",
                    module => module,
                };
                let (beginning, end) =
                    (format!("embodios::quant::{module}::{shape}_{level}::<"), format!("::{format}>"));
                let name = format!("{shape}_{level}, {format}");
                let (_, code) = found
                    .iter()
                    .find(|(name, _)| name.starts_with(&beginning) && name.ends_with(&end))
                    .unwrap_or_else(|| panic!("{name}: is there, and under its own name"));
                let loops: Vec<_> = innermost(code).into_iter().map(tally).collect();
                let products = |tally: &&Tally| tally.dots + tally.longs;
                let main = loops.iter().max_by_key(products).expect("a loop");
                let others: usize = loops.iter().map(|tally| products(&tally)).sum();
                assert_eq!(others, products(&main), "{name}: one loop multiplies");
                // One column is multiplied by four quads, several by one.
                let quads = if columns == 1 { 4 } else { 1 };
                let vectors = UNPACKED * quads * columns;
                let expected = if level == "dotprod" { (vectors, 0) } else { (0, 2 * vectors) };
                assert_eq!((main.dots, main.longs), expected, "{name}: `sdot` and `smull`, {main:?}");
                assert_eq!(main.narrow, 0, "{name}: bytes loaded, {main:?}");
                if main.spills > 0 {
                    spills.push((name.clone(), main.spills));
                }
                assert!(main.vectors >= words * quads + 2 * columns, "{name}: whole vectors, {main:?}");
                seen += 1;
            }
        }
    }
    let known = SPILLS.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>();
    assert_eq!(spills, known, "loads and stores of the stack in a turn");
    let is_kernel = |name: &&String| {
        !name.contains("::scales_neon::<") && (name.contains("_neon::<") || name.contains("_dotprod::<"))
    };
    let kernels = found.keys().filter(is_kernel).count();
    assert_eq!(kernels, seen, "each kernel is in the tables above: {:#?}", found.keys());
}

#[test]
fn kernels_of_floats_load_whole_vectors() {
    let found = functions(&OTHERS);
    for wanted in OTHERS {
        assert!(found.keys().any(|name| name.starts_with(wanted)), "{wanted}: is there, under its own name");
    }
    for (name, code) in &found {
        let mut loops = innermost(code);
        if name.ends_with("block_neon") {
            loops = vec![code]; // a block is not gone through in a loop
        }
        // What is left behind the last whole vector goes through loops without vectors.
        let vectors: Vec<_> =
            loops.into_iter().map(tally).filter(|tally| tally.vectors > 0 || tally.fused > 0).collect();
        assert!(!vectors.is_empty(), "{name}: goes through vectors");
        for tally in vectors {
            assert_eq!(tally.narrow, 0, "{name}: bytes loaded, {tally:?}");
        }
    }
}

/// Instructions as LLVM assembles them.
#[test]
fn encodings_are_told_apart() {
    let memory = |load, bytes, base| Kind::Memory { load, bytes, base };
    for (word, kind) in [
        (0x3940_0020, memory(true, 1, 1)),    // ldrb w0, [x1]
        (0x39c0_0c20, memory(true, 1, 1)),    // ldrsb w0, [x1, #3]
        (0x3980_0020, memory(true, 1, 1)),    // ldrsb x0, [x1]
        (0x785f_f041, memory(true, 2, 2)),    // ldurh w1, [x2, #-1]
        (0x7840_2441, memory(true, 2, 2)),    // ldrh w1, [x2], #2
        (0x3c62_6820, memory(true, 1, 1)),    // ldr b0, [x1, x2]
        (0x7d40_0020, memory(true, 2, 1)),    // ldr h0, [x1]
        (0x3900_0020, memory(false, 1, 1)),   // strb w0, [x1]
        (0xbd40_0020, memory(true, 4, 1)),    // ldr s0, [x1]
        (0xb980_0041, memory(true, 4, 2)),    // ldrsw x1, [x2]
        (0xfd40_0020, memory(true, 8, 1)),    // ldr d0, [x1]
        (0x3dc0_0420, memory(true, 16, 1)),   // ldr q0, [x1, #16]
        (0x3ce3_6841, memory(true, 16, 2)),   // ldr q1, [x2, x3]
        (0x3dc0_07e3, memory(true, 16, 31)),  // ldr q3, [sp, #16]
        (0x3c9f_0fe1, memory(false, 16, 31)), // str q1, [sp, #-16]!
        (0xacc1_0420, memory(true, 32, 1)),   // ldp q0, q1, [x1], #32
        (0xad3f_07a0, memory(false, 32, 29)), // stp q0, q1, [x29, #-32]
        (0x4c40_a020, memory(true, 32, 1)),   // ld1 {v0.16b, v1.16b}, [x1]
        (0x0d40_0c20, Kind::Lane),            // ld1 {v0.b}[3], [x1]
        (0x0ddf_5820, Kind::Lane),            // ld1 {v0.h}[3], [x1], #2
        (0x0d40_9020, Kind::Lane),            // ld1 {v0.s}[1], [x1]
        (0x4d40_c820, Kind::Other),           // ld1r {v0.4s}, [x1]
        (0x4c40_2010, memory(true, 64, 0)),   // ld1 {v16.16b-v19.16b}, [x0]
        (0x4e07_1ca0, Kind::Lane),            // ins v0.b[3], w5
        (0x6e0c_0420, Kind::Lane),            // ins v0.s[1], v1.s[0]
        (0x4fa2_e820, Kind::Dot),             // sdot v0.4s, v1.16b, v2.4b[3]
        (0x4e82_9420, Kind::Dot),             // sdot v0.4s, v1.16b, v2.16b
        (0x0e22_c020, Kind::Long),            // smull v0.8h, v1.8b, v2.8b
        (0x4e22_803f, Kind::Long),            // smlal2 v31.8h, v1.16b, v2.16b
        (0x4e22_cc20, Kind::Fused),           // fmla v0.4s, v1.4s, v2.4s
        (0x4fa2_1020, Kind::Fused),           // fmla v0.4s, v1.4s, v2.s[1]
        (0xf980_0001, Kind::Other),           // prfm pldl1strm, [x0]
        (0x9ba2_7c20, Kind::Other),           // umull x0, w1, w2
        (0x54ff_ffc1, Kind::Jump(-2)),        // b.ne -8
        (0xb5ff_ff81, Kind::Jump(-4)),        // cbnz x1, -16
        (0x3637_ffe0, Kind::Jump(-1)),        // tbz w0, #6, -4
        (0x17ff_fffe, Kind::Jump(-2)),        // b -8
    ] {
        assert_eq!(decode(word), kind, "{word:#010x}");
    }
}

#[test]
fn a_loop_that_loads_bytes_and_spills_is_seen_and_what_stands_around_it_is_not() {
    let code = [
        0x3940_0020, // ldrb w0, [x1]
        0x3dc0_07e3, // ldr q3, [sp, #16]
        0x3c40_1420, // 1: ldr b0, [x1], #1
        0x0d40_0c20, // ld1 {v0.b}[3], [x1]
        0x3dc0_07e3, // ldr q3, [sp, #16]
        0x3dc0_0420, // ldr q0, [x1, #16]
        0x4fa2_e820, // sdot v0.4s, v1.16b, v2.4b[3]
        0x54ff_ff61, // b.ne 1b
        0x54ff_ff01, // b.ne to the first
        0xd65f_03c0, // ret
    ]
    .map(decode);
    let loops = innermost(&code);
    let [inner] = &loops[..] else { panic!("{loops:?}") };
    assert_eq!(tally(inner), Tally { narrow: 2, vectors: 1, spills: 1, dots: 1, ..Tally::default() });
}
