//! What holds for every model family, on the tiny models that `synth` makes of each. (Their logits are compared with
//! llama.cpp's in `golden.rs`.)

mod common;

use common::{Bytes, leak, load};
use embodios::gguf::{Gguf, kinds::KINDS};
use embodios::model::Opened;
use embodios::model::families::{FAMILIES, RECOGNISED};
use embodios::synth::{CASES, Case, Recipe, families};
use embodios::{Alone, Level, Runtime, Session};

const RUNTIME: Runtime<'_> = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };

fn tiny(case: &Case, format: &str) -> Vec<u8> {
    let format = KINDS.iter().find(|kind| kind.name == format).unwrap();
    Recipe::tiny(case, format, 1).plan().unwrap().file()
}

#[test]
fn every_architecture_has_one_row_with_a_name_and_examples_and_is_not_called_unsupported() {
    for (index, family) in FAMILIES.iter().enumerate() {
        assert!(FAMILIES[index + 1..].iter().all(|other| other.architecture != family.architecture));
        assert!(!RECOGNISED.contains(&family.architecture), "{}", family.architecture);
        assert!(!family.name.is_empty() && !family.examples.is_empty(), "{}", family.architecture);
        assert!(CASES.iter().any(|case| case.architecture == family.architecture), "{}", family.architecture);
    }
}

/// A tensor under another name is missing, or nothing uses it, or both: a model is never run without a part of it.
#[test]
fn no_tensor_of_any_family_may_be_missing_or_superfluous() {
    for case in CASES {
        let mut file = tiny(case, "F32");
        let tensors: Vec<String> =
            Gguf::open(&Bytes(&file)).unwrap().tensors.iter().map(|info| info.name.clone()).collect();
        Opened::new(Gguf::open(&Bytes(&file)).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        for name in tensors {
            let mut pattern = (name.len() as u64).to_le_bytes().to_vec();
            pattern.extend_from_slice(name.as_bytes());
            let start = file.windows(pattern.len()).position(|window| window == pattern).unwrap();
            let last = start + pattern.len() - 1;
            file[last] ^= 1;
            let error = Opened::new(Gguf::open(&Bytes(&file)).unwrap()).err();
            let error = error.unwrap_or_else(|| panic!("{} runs without {name}", case.name)).to_string();
            assert!(error.contains("tensor"), "{}, {name}: {error}", case.name);
            file[last] ^= 1;
        }
    }
}

#[test]
fn the_likeliest_token_is_that_of_the_largest_logit_after_caps_scales_and_biases() {
    for name in ["gemma2", "phi2", "granite", "minicpm", "qwen2moe"] {
        let model = load(leak(tiny(families::case(name).unwrap(), "Q8_0")), Level::detect());
        let mut session = Session::new(model, 64).unwrap();
        let tokens: Vec<u32> = (0..40).map(|i| 5 + i * 37 % 400).collect();
        let mut best = [0; 16];
        session.feed_likeliest(&tokens, &mut best, &RUNTIME, &mut |_| {}).unwrap();
        session.rewind(0);
        session
            .feed_each(&tokens, &RUNTIME, &mut |position, logits| {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let first = logits.iter().position(|&logit| logit == largest).unwrap() as u32;
                if position >= 24 {
                    assert_eq!(best[position - 24], first, "{name}, position {position}");
                }
            })
            .unwrap();
    }
}

#[test]
fn a_context_beyond_the_positions_that_a_model_has_learned_says_how_many_there_are() {
    let model = load(leak(tiny(families::case("gpt2").unwrap(), "F32")), Level::detect());
    let positions = model.spec().context;
    let error = Session::new(model.clone(), positions + 1).err().unwrap().to_string();
    assert!(error.contains(&format!("set ctx to at most {positions}")), "{error}");
    // The last position is one of them.
    let mut session = Session::new(model, positions).unwrap();
    session.feed(&vec![7; positions], &RUNTIME).unwrap();
}
