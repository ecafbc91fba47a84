//! SmolLM2 against llama.cpp: logits near those of exact F32 arithmetic on the same weights, and the perplexity of a
//! text. The goldens name the versions that they were recorded with (`tools/oracle/record_logits.py`).

mod common;

use common::{load, on_threads, smollm2};
use embodios::{Level, Session};
use serde_json::Value;

fn golden(text: &str) -> Value {
    serde_json::from_str(text).expect("a golden is JSON")
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
/// mean square over all prompts, and 2.0 for any one logit (llama.cpp's own worst: 1.8).
#[test]
fn logits_are_as_near_to_exact_arithmetic_as_those_of_llama_cpp() {
    let golden = golden(include_str!("data/logits_smollm2.json"));
    let sample = tokens(&golden["sample_tokens"]);
    let model = load(smollm2(), Level::detect());
    let (mut squares, mut peer_squares, mut count, mut worst) = (0.0, 0.0, 0, 0f64);
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
    }
    let [rms, peer] = [squares, peer_squares].map(|squares| (squares / f64::from(count)).sqrt());
    println!("rms {rms:.4} (llama.cpp {peer:.4}), worst {worst:.4}");
    assert!(rms <= 1.25 * peer, "rms {rms} for llama.cpp's {peer}");
    assert!(worst <= 2.0, "worst {worst}");
}

#[test]
fn perplexity_is_within_one_percent_of_llama_cpp_and_of_exact_arithmetic() {
    let golden = golden(include_str!("data/perplexity_smollm2.json"));
    let model = load(smollm2(), Level::detect());
    let text = include_str!("data/perplexity.txt");
    let tokens = tokens(&golden["tokens"]);
    assert_eq!(model.tokenizer().encode(text, true, false), tokens);
    assert!(tokens.len() > 1000);
    let mut session = Session::new(model, tokens.len()).unwrap();
    let mut total = 0.0;
    on_threads(2, |runtime| {
        session.feed_each(&tokens, runtime, &mut |position, logits| {
            if let Some(&next) = tokens.get(position + 1) {
                total += log_sum_exp(logits) - f64::from(logits[next as usize]);
            }
        })
    })
    .unwrap();
    let perplexity = (total / (tokens.len() - 1) as f64).exp();
    let [quantized, exact] = ["quantized", "f32"].map(|kind| float(&golden[kind]["perplexity"]));
    println!("perplexity {perplexity:.4} (llama.cpp {quantized:.4}, exact {exact:.4})");
    for peer in [quantized, exact] {
        assert!((perplexity / peer - 1.0).abs() < 0.01, "{perplexity} for {peer}");
    }
}
