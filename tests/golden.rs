//! Synthetic models of every family and every weight format against llama.cpp, and against themselves.
//!
//! The models are made here (`embodios::synth`), and their SHA-256 shows that they are those that
//! `tools/oracle/record_families.py` gave to llama.cpp. The data has the logits of exact F32 arithmetic (llama.cpp on the
//! weights expanded to F32, keys and values in F32) and how far from them llama.cpp is as a user runs it (the file as it
//! is, activations in 8 bits, keys and values in f16). We round keys and values to f16 as well and activations to 8 bits in
//! blocks of 32. The bound: our root mean square deviation from exact is at most 1.25 times llama.cpp's, the largest at
//! most twice its largest, each and 0.0002 for what F32 sums in another order differ by. For families in F32 that is some thousandths, where
//! the logits spread over 3: a trait forgotten or a number wrong is hundreds of times outside.
//!
//! Positions of the prompt are read in one batch, the others one by one. The likeliest token has to be the same wherever
//! the exact logits of the two engines can't disagree on it, and mean and root mean square of all logits of a position
//! must agree, too, though only eight of its logits are recorded. Where a router chooses among quantized experts, two that
//! are nearly equal may change places by a rounding, in either engine: there an eighth of the positions, those furthest off,
//! does not count.
//!
//! That the bounds are worth something is tested, too: each key of a family's file and each of its small tensors is
//! changed, and must then be outside.
//!
//! A family or a format of the engine without a golden fails the test. Goldens for what the engine does not have yet are
//! named in the output.

mod common;

use common::{Bytes, InTurn, digest_of, leak, load};
use embodios::gguf::{Gguf, TensorInfo, kinds::KINDS};
use embodios::model::families::FAMILIES;
use embodios::quant::FORMATS;
use embodios::source::Memory;
use embodios::synth::{CASES, Case, Recipe, families};
use embodios::{Alone, Level, LoadOptions, Model, Runtime, Session};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Added to each bound: sums of F32 in another order, and numbers recorded with five digits.
const EPSILON: f64 = 2e-4;
/// How much further from exact we may be than llama.cpp: root mean square, and the largest.
const RMS: f64 = 1.25;
const MAX: f64 = 2.0;

/// What was recorded for all models of a file.
struct Goldens(Value);

impl Goldens {
    fn open(name: &str) -> Self {
        let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
        Self(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }
    fn models(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0["models"].as_object().unwrap().iter().map(|(name, golden)| (name.as_str(), golden))
    }
    fn tokens(&self) -> Vec<u32> {
        integers(&self.0["tokens"]).map(|token| token as u32).collect()
    }
    fn prompt(&self) -> usize {
        self.0["prompt"].as_u64().unwrap() as usize
    }

    /// How far these logits are from the recorded ones: root mean square, and the largest; and at which positions. Those
    /// furthest off are left out, as many as the golden says.
    fn deviation(&self, golden: &Value, ours: &[Vec<f32>]) -> ([f64; 2], Vec<usize>) {
        let off = |position: usize| {
            let exact = floats(&golden["logits"][position]);
            let kept = integers(&self.0["kept"][position]).zip(exact);
            let off: Vec<f64> = kept.map(|(token, exact)| f64::from(ours[position][token]) - exact).collect();
            off
        };
        let mut positions: Vec<_> = (0..ours.len()).map(|position| (position, off(position))).collect();
        let square = |off: &[f64]| off.iter().map(|off| off * off).sum::<f64>();
        positions.sort_by(|a, b| square(&a.1).total_cmp(&square(&b.1)));
        positions.truncate(ours.len() - golden["dropped"].as_u64().unwrap() as usize);
        let all: Vec<f64> = positions.iter().flat_map(|(_, off)| off).copied().collect();
        let most = all.iter().fold(0f64, |most, off| most.max(off.abs()));
        ([(square(&all) / all.len() as f64).sqrt(), most], positions.into_iter().map(|(at, _)| at).collect())
    }

    /// Compares the engine with the record: what is wrong, or how far it is off in parts of the bounds.
    fn check(&self, golden: &Value, source: Memory) -> Result<[f64; 2], String> {
        let sum: String = Sha256::digest(source.0).iter().map(|byte| format!("{byte:02x}")).collect();
        if golden["sha256"] != sum {
            return Err("synth makes another model than the recorded one: record anew".into());
        }
        let model = load(source, Level::detect());
        let (tokens, prompt) = (self.tokens(), self.prompt());
        let context = golden["context"].as_u64().unwrap() as usize;
        let ours = logits(&model, &tokens, prompt, context);
        let numbers = |key: &str| floats(&golden[key]).collect::<Vec<_>>();
        let (means, squares) = (numbers("mean"), numbers("rms"));
        let peer = [golden["peer_rms"].as_f64().unwrap(), golden["peer_max"].as_f64().unwrap()];
        let bounds = bounds(golden);
        let mut other = None;
        let (off, positions) = self.deviation(golden, &ours);
        for position in positions {
            let logits = &ours[position];
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(format!("position {position}: a logit is not a number"));
            }
            let n = logits.len() as f64;
            let mean = logits.iter().map(|&logit| f64::from(logit)).sum::<f64>() / n;
            let square = (logits.iter().map(|&logit| f64::from(logit).powi(2)).sum::<f64>() / n).sqrt();
            let beside = (mean - means[position]).abs().max((square - squares[position]).abs());
            let best = golden["best"][position].as_u64().unwrap() as usize;
            let lead = logits.iter().fold(f32::MIN, |most, &logit| most.max(logit)) - logits[best];
            if beside > bounds[1] || f64::from(lead) > 2.0 * bounds[1] {
                other.get_or_insert(format!(
                    "position {position}: mean or rms is off by {beside:.6}, the recorded best token by {lead:.6}"
                ));
            }
        }
        let parts = [off[0] / bounds[0], off[1] / bounds[1]];
        match other {
            _ if parts.iter().any(|part| *part > 1.0) => Err(format!(
                "off by {:.6} (rms) and {:.6} (largest), llama.cpp by {:.6} and {:.6}",
                off[0], off[1], peer[0], peer[1]
            )),
            Some(other) => Err(other),
            None => Ok(parts),
        }
    }
}

/// The root mean square and the largest deviation from exact that we may have.
fn bounds(golden: &Value) -> [f64; 2] {
    let peer = |key: &str| golden[key].as_f64().unwrap();
    [peer("peer_rms") * RMS + EPSILON, peer("peer_max") * MAX + EPSILON]
}

fn integers(value: &Value) -> impl Iterator<Item = usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize)
}
fn floats(value: &Value) -> impl Iterator<Item = f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap())
}

/// Logits of each position: the prompt in one batch, the others one by one.
fn logits(model: &Arc<Model>, tokens: &[u32], prompt: usize, context: usize) -> Vec<Vec<f32>> {
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
    let mut session = Session::new(model.clone(), context).unwrap();
    let mut all = Vec::new();
    let mut keep = |_, logits: &[f32]| all.push(logits.to_vec());
    session.feed_each(&tokens[..prompt], &runtime, &mut keep).unwrap();
    for &token in &tokens[prompt..] {
        session.feed_each(&[token], &runtime, &mut keep).unwrap();
    }
    all
}

fn made(case: &Case, format: &str) -> Memory {
    let kind = KINDS.iter().find(|kind| kind.name == format).unwrap();
    leak(Recipe::tiny(case, kind, 1).plan().unwrap().file())
}

fn runs(case: &Case) -> bool {
    FAMILIES.iter().any(|family| family.architecture == case.architecture)
}

#[test]
fn every_family_computes_what_llama_cpp_computes() {
    let goldens = Goldens::open("golden_families.json");
    let (mut wrong, mut compared) = (Vec::new(), Vec::new());
    for (name, golden) in goldens.models() {
        let case = families::case(golden["case"].as_str().unwrap()).unwrap();
        if let Some(reason) = golden["refused"].as_str() {
            println!("{name}: not compared, llama.cpp does not load it: {reason}");
        } else if !runs(case) {
            println!("{name}: not compared, {} is not in FAMILIES", case.architecture);
        } else {
            compared.push(case.architecture);
            match goldens.check(golden, made(case, "F32")) {
                Ok([rms, most]) => println!("{name}: {rms:.2} and {most:.2} of the bounds"),
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
    }
    for family in FAMILIES {
        if !compared.contains(&family.architecture) {
            wrong.push(format!("{}: no golden; add a case to synth and record it", family.architecture));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_format_is_as_near_to_exact_arithmetic_as_llama_cpp_is() {
    let goldens = Goldens::open("golden_formats.json");
    let (mut wrong, mut compared) = (Vec::new(), Vec::new());
    for (name, golden) in goldens.models() {
        if let Some(reason) = golden["refused"].as_str() {
            println!("{name}: not compared, llama.cpp does not load it: {reason}");
            continue;
        }
        let (case, format) = (golden["case"].as_str().unwrap(), golden["format"].as_str().unwrap());
        let case = families::case(case).unwrap();
        if !FORMATS.iter().any(|row| row.name == format) {
            println!("{name}: not compared, {format} is not in FORMATS");
        } else if !runs(case) {
            println!("{name}: not compared, {} is not in FAMILIES", case.architecture);
        } else {
            compared.push(name);
            match goldens.check(golden, made(case, format)) {
                Ok([rms, most]) => println!("{name}: {rms:.2} and {most:.2} of the bounds"),
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
    }
    for format in FORMATS {
        if !compared.contains(&format.name) {
            wrong.push(format!("{}: no golden; add it to record_families.py", format.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_family_has_the_same_bits_at_every_level_batch_size_and_number_of_workers() {
    let tokens = Goldens::open("golden_families.json").tokens();
    for case in CASES.iter().filter(|case| runs(case) && case.shape.layers < 10) {
        let source = made(case, "F32");
        let mut digests = Vec::new();
        for level in embodios::simd::levels() {
            let model = load(source, level);
            for (width, batch) in [(1, 64), (2, 7), (3, 1)] {
                digests.push((digest_of(&model, &tokens, &InTurn(width), batch), level, width, batch));
            }
        }
        assert!(digests.iter().all(|run| run.0 == digests[0].0), "{}: {digests:?}", case.name);
    }
}

/// Keys that change nothing here, and why.
const SILENT: &[(&str, &str)] = &[
    (".use_parallel_residual", "whether there is an ffn_norm decides, in llama.cpp, too"),
    ("moe.feed_forward_length", "experts have a key of their own"),
    (".rope.scaling.type", "a factor without a type is a linear one, as in llama.cpp"),
    (".context_length", "says what was trained, and limits nothing here"),
    (".vocab_size", "the tokens are counted instead"),
    ("phi3.attention.sliding_window", "llama.cpp reads it and does not apply it; so do we"),
];

/// The file with the number or the flag after a key changed, or without a key of a word; none for other types.
fn with_key_changed(file: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut changed = file.to_vec();
    let at = file.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len();
    let (kind, value) = changed[at..].split_first_chunk_mut::<4>().unwrap();
    let value = value.first_chunk_mut::<4>().unwrap();
    match u32::from_le_bytes(*kind) {
        4 => *value = (u32::from_le_bytes(*value) / 2).to_le_bytes(),
        6 => *value = (f32::from_le_bytes(*value) * 2.0).to_le_bytes(),
        7 => value[0] ^= 1,
        8 => changed[at - 1] ^= 1,
        _ => return None,
    }
    Some(changed)
}

/// The file with a norm, a bias or a factor as if the family had it not.
fn with_neutral(file: &[u8], tensor: &TensorInfo) -> Vec<u8> {
    let neutral = if tensor.name.ends_with(".bias") { 0f32 } else { 1.0 };
    let mut changed = file.to_vec();
    for weight in changed[tensor.offset as usize..][..tensor.bytes as usize].as_chunks_mut::<4>().0 {
        *weight = neutral.to_le_bytes();
    }
    changed
}

#[test]
fn no_key_norm_bias_or_factor_of_a_family_could_be_forgotten_within_the_bounds() {
    let goldens = Goldens::open("golden_families.json");
    let tokens = goldens.tokens();
    // Of each part of a case, whether a golden notices and how far off it is: a factor of long contexts shows in them only.
    let mut parts: BTreeMap<(&str, String), (bool, String)> = BTreeMap::new();
    for (name, golden) in goldens.models() {
        let case = families::case(golden["case"].as_str().unwrap()).unwrap();
        if !runs(case) || case.shape.layers > 9 {
            continue;
        }
        let file = made(case, "F32");
        let gguf = Gguf::open(&file).unwrap();
        let of_family = |key: &&str| {
            key.strip_prefix(case.architecture).is_some_and(|rest| rest.starts_with('.'))
                && !SILENT.iter().any(|(silent, _)| key.ends_with(silent))
        };
        let keys = gguf.metadata.iter().map(|(key, _)| key).filter(of_family);
        // What all layers have, and one of them: not the first, whose window or base may be another.
        let small = gguf.tensors.iter().filter(|tensor| {
            tensor.shape.len() == 1 && (!tensor.name.starts_with("blk.") || tensor.name.starts_with("blk.1."))
        });
        let changed = keys
            .filter_map(|key| Some((key, with_key_changed(file.0, key)?)))
            .chain(small.map(|tensor| (tensor.name.as_str(), with_neutral(file.0, tensor))));
        for (part, file) in changed {
            let options = LoadOptions { level: Level::detect(), ..LoadOptions::default() };
            // A file that is refused is noticed.
            let Ok(model) = Model::load(&Bytes(&file), &options, &mut |_| ControlFlow::Continue(())) else {
                continue;
            };
            let ours = logits(&model, &tokens, tokens.len(), golden["context"].as_u64().unwrap() as usize);
            let ((off, _), bounds) = (goldens.deviation(golden, &ours), bounds(golden));
            let noticed = off[0] > bounds[0] || off[1] > bounds[1];
            let said = format!("{name}, {part}: off by {off:.6?} of {bounds:.6?}");
            parts.entry((case.name, part.into())).or_insert((false, said)).0 |= noticed;
        }
    }
    let unnoticed: Vec<_> =
        parts.into_values().filter(|(noticed, _)| !noticed).map(|(_, said)| said).collect();
    assert!(unnoticed.is_empty(), "\n{}", unnoticed.join("\n"));
}
