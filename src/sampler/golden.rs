//! Every sampler and the whole chain against what `tools/oracle/record_samplers.py` recorded of llama.cpp: which tokens are
//! left, how likely each of them is, and what mirostat makes of its own draws.

use super::random::Random;
use super::{BREAKERS, Breakers, Field, Sampler, Settings};
use crate::gguf::Gguf;
use crate::gguf::kinds::KINDS;
use crate::source::Memory;
use crate::synth::{CASES, Recipe};
use crate::tokenizer::Tokenizer;
use alloc::vec::Vec;
use serde_json::Value as Json;

fn recorded() -> Json {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/samplers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The vocabulary in which llama.cpp looked for breakers.
fn tokenizer() -> Tokenizer {
    let case = CASES.iter().find(|case| case.name == "llama").unwrap();
    let format = KINDS.iter().find(|kind| kind.name == "F32").unwrap();
    let file = Recipe::tiny(case, format, 1).plan().unwrap().file();
    Tokenizer::from_metadata(&Gguf::open(&Memory(file.leak())).unwrap().metadata).unwrap()
}

fn settings(json: &Json) -> Settings {
    let mut settings = Settings::OPEN;
    for (name, value) in json.as_object().unwrap() {
        let field = Field::named(name).unwrap_or_else(|| panic!("no setting {name}"));
        assert!(field.set(&mut settings, value.as_f64().unwrap()), "{name} {value}");
    }
    settings
}

fn array(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn float(json: &Json) -> f32 {
    json.as_f64().unwrap() as f32
}

/// Pairs of a token and a number.
fn pairs(json: &Json) -> Vec<(u32, f32)> {
    array(json).iter().map(|pair| (pair[0].as_u64().unwrap() as u32, float(&pair[1]))).collect()
}

fn logits(recorded: &Json, of: &Json) -> Vec<f32> {
    array(&recorded["logits"][of["logits"].as_str().unwrap()]).iter().map(float).collect()
}

/// Equal but for the last digits of sums in another order.
fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 2e-5 * b.abs().max(1e-3)
}

#[test]
fn each_sampler_and_the_chain_leave_llama_cpps_tokens_with_its_probabilities() {
    let (recorded, tokenizer) = (recorded(), tokenizer());
    assert!(array(&recorded["cases"]).len() > 40);
    for case in array(&recorded["cases"]) {
        let name = &case["name"];
        let before = logits(&recorded, case);
        let mut sampler = Sampler::new(settings(&case["settings"]), before.len());
        sampler.set_bias(pairs(&case["bias"]));
        let breakers: Vec<&str> = match case.get("breakers") {
            None => BREAKERS.into(),
            Some(texts) => array(texts).iter().map(|text| text.as_str().unwrap()).collect(),
        };
        sampler.set_breakers(Breakers::new(&tokenizer, breakers.into_iter()));
        let recent: Vec<u32> = array(&case["recent"]).iter().map(|t| t.as_u64().unwrap() as u32).collect();
        let mut after = before.clone();
        let token = sampler.sample(&mut after, &recent);

        let mut wanted = before;
        pairs(&case["changed"]).iter().for_each(|&(token, logit)| wanted[token as usize] = logit);
        for (token, (&ours, &theirs)) in after.iter().zip(&wanted).enumerate() {
            assert!(close(ours, theirs), "{name}: the logit of {token} is {ours}, llama.cpp's {theirs}");
        }

        let theirs = pairs(&case["drawn_from"]);
        let ours = sampler.candidates.as_slice();
        let tokens = |list: &[(u32, f32)]| list.iter().map(|entry| entry.0).collect::<Vec<_>>();
        let ours_tokens: Vec<u32> = ours.iter().map(|candidate| candidate.token).collect();
        assert_eq!(ours_tokens, tokens(&theirs), "{name}");
        assert!(ours_tokens.contains(&token), "{name}: {token} is drawn of {ours_tokens:?}");
        let sum: f32 = ours.iter().map(|candidate| candidate.weight).sum();
        for (candidate, (token, share)) in ours.iter().zip(theirs) {
            let ours = candidate.weight / sum;
            assert!(close(ours, share), "{name}: token {token} has {ours}, llama.cpp's {share}");
        }
    }
}

#[test]
fn mirostat_steers_as_llama_cpp_does_when_it_draws_the_same_tokens() {
    let recorded = recorded();
    assert_eq!(array(&recorded["mirostat"]).len(), 3);
    for case in array(&recorded["mirostat"]) {
        let logits = logits(&recorded, case);
        let mut sampler = Sampler::new(settings(&case["settings"]), logits.len());
        for (step, theirs) in array(&case["steps"]).iter().enumerate() {
            let token = theirs["token"].as_u64().unwrap() as u32;
            let before = sampler.most_surprise;
            // Our random numbers are others: those are taken that draw this token.
            let drawn = (0..100_000).any(|seed| {
                sampler.most_surprise = before;
                sampler.random = Random::new(seed);
                sampler.sample(&mut logits.clone(), &[]) == token
            });
            let at = alloc::format!("{}, step {step}", case["logits"]);
            assert!(drawn, "{at}: {token} can't be drawn");
            let left = sampler.candidates.as_slice();
            assert_eq!(left.len() as u64, theirs["left"].as_u64().unwrap(), "{at}: mu was {before}");
            let sum: f32 = left.iter().map(|candidate| candidate.weight).sum();
            let share = left.iter().find(|candidate| candidate.token == token).unwrap().weight / sum;
            assert!(close(share, float(&theirs["share"])), "{at}: {share} for {}", theirs["share"]);
            let mu = float(&theirs["mu_after"]);
            assert!((sampler.most_surprise - mu).abs() < 1e-4, "{at}: {} for {mu}", sampler.most_surprise);
        }
    }
}
