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
//! must agree, too, though only eight of its logits are recorded.
//!
//! A family or a format of the engine without a golden fails the test. Goldens for what the engine does not have yet are
//! named in the output.

mod common;

use common::{InTurn, digest_of, leak, load};
use embodios::gguf::kinds::KINDS;
use embodios::model::families::FAMILIES;
use embodios::quant::FORMATS;
use embodios::source::Memory;
use embodios::synth::{CASES, Case, Recipe, families};
use embodios::{Alone, Level, Model, Runtime, Session};
use serde_json::Value;
use sha2::{Digest, Sha256};
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
        let (mut sum, mut count, mut most) = (0.0, 0.0, 0f64);
        let peer = [golden["peer_rms"].as_f64().unwrap(), golden["peer_max"].as_f64().unwrap()];
        let bounds = [peer[0] * RMS + EPSILON, peer[1] * MAX + EPSILON];
        let mut other = None;
        for (position, logits) in ours.iter().enumerate() {
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(format!("position {position}: a logit is not a number"));
            }
            let exact = floats(&golden["logits"][position]);
            for (token, exact) in integers(&self.0["kept"][position]).zip(exact) {
                let off = (f64::from(logits[token]) - exact).abs();
                (sum, count, most) = (sum + off * off, count + 1.0, most.max(off));
            }
            let n = logits.len() as f64;
            let mean = logits.iter().map(|&logit| f64::from(logit)).sum::<f64>() / n;
            let square = (logits.iter().map(|&logit| f64::from(logit).powi(2)).sum::<f64>() / n).sqrt();
            let off = (mean - means[position]).abs().max((square - squares[position]).abs());
            let best = golden["best"][position].as_u64().unwrap() as usize;
            let lead = logits.iter().fold(f32::MIN, |most, &logit| most.max(logit)) - logits[best];
            if off > bounds[1] || f64::from(lead) > 2.0 * bounds[1] {
                other.get_or_insert(format!(
                    "position {position}: mean or rms is off by {off:.6}, the recorded best token by {lead:.6}"
                ));
            }
        }
        let off = [(sum / count).sqrt(), most];
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
        } else if !FORMATS.iter().any(|format| format.name == name) {
            println!("{name}: not compared, it is not in FORMATS");
        } else {
            compared.push(name);
            match goldens.check(golden, made(&CASES[0], name)) {
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
