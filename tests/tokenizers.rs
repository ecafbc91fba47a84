//! Tokens identical to llama.cpp's on recorded strings, both directions, with the real vocabulary.
//!
//! Recorded by `tools/oracle/record_tokenizer.py`; versions and the model's SHA-256 are in the file.

mod common;

use embodios::KvFormat;
use embodios::gguf::writer::Writer;
use embodios::gguf::{Gguf, Metadata, Value};
use embodios::model::budget::Budget;
use embodios::source::Memory;
use embodios::tokenizer::split::PreTokenizer;
use embodios::tokenizer::{Tokenizer, TokenizerError, Utf8Stream};
use serde_json::Value as Json;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The model's metadata, read once for all tests.
fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| Gguf::open(&common::smollm2()).expect("the model's header is good").metadata)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_metadata(metadata()).expect("the model's vocabulary is good")
}

fn recorded() -> Json {
    serde_json::from_str(include_str!("data/tokenizer_smollm2.json")).expect("the recording is JSON")
}

fn ids(json: &Json) -> Vec<u32> {
    let numbers = json.as_array().expect("a list of tokens");
    numbers.iter().map(|id| u32::try_from(id.as_u64().expect("a token")).expect("a token")).collect()
}

fn bytes(hex: &Json) -> Vec<u8> {
    let digits = hex.as_str().expect("hexadecimal");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn every_recorded_string_gives_llama_cpps_tokens_with_special_tokens_parsed_and_not() {
    let (tokenizer, recorded) = (tokenizer(), recorded());
    let cases = recorded["cases"].as_array().expect("cases");
    assert!(cases.len() >= 300);
    for case in cases {
        let text = case["text"].as_str().expect("text");
        let plain = ids(&case["plain"]);
        let parsed = case.get("parsed").map_or_else(|| plain.clone(), ids);
        assert_eq!(tokenizer.encode(text, false, false), plain, "{text:?}");
        assert_eq!(tokenizer.encode(text, false, true), parsed, "{text:?}, special tokens parsed");
        assert_eq!(
            tokenizer.encode(text, true, true),
            parsed,
            "{text:?}: this model adds nothing at the ends"
        );
    }
}

#[test]
fn every_recorded_string_comes_back_as_llama_cpp_gives_it_back() {
    let (tokenizer, recorded) = (tokenizer(), recorded());
    for case in recorded["cases"].as_array().expect("cases") {
        let text = case["text"].as_str().expect("text");
        let tokens = ids(case.get("parsed").unwrap_or(&case["plain"]));
        let decoded = case.get("decoded").map_or_else(|| text.as_bytes().to_vec(), bytes);
        let without = case.get("decoded_without_special").map_or_else(|| decoded.clone(), bytes);
        assert_eq!(tokenizer.decode(&tokens, true), decoded, "{text:?}");
        assert_eq!(tokenizer.decode(&tokens, false), without, "{text:?}, special tokens left out");
    }
}

#[test]
fn a_stream_of_single_tokens_shows_the_same_text_once_characters_are_whole() {
    let (tokenizer, recorded) = (tokenizer(), recorded());
    for case in recorded["cases"].as_array().expect("cases") {
        let tokens = ids(&case["plain"]);
        let mut stream = Utf8Stream::new();
        let mut shown = String::new();
        for token in &tokens {
            shown += stream.push(tokenizer.piece(*token));
        }
        shown += &stream.finish();
        assert_eq!(shown, String::from_utf8_lossy(&tokenizer.decode(&tokens, true)), "{}", case["text"]);
    }
}

#[test]
fn every_piece_and_every_role_in_the_vocabulary_is_llama_cpps() {
    let (tokenizer, recorded) = (tokenizer(), recorded());
    assert_eq!(tokenizer.len() as u64, recorded["tokens"].as_u64().expect("tokens"));
    assert_eq!(tokenizer.ends(), ids(&recorded["ends"]));
    assert_eq!(tokenizer.bos().map(u64::from), recorded["bos"].as_u64());
    assert_eq!(tokenizer.eos().map(u64::from), recorded["eos"].as_u64());
    let all = 0..tokenizer.len() as u32;
    assert_eq!(
        all.clone().filter(|t| tokenizer.is_special(*t)).collect::<Vec<_>>(),
        ids(&recorded["special"])
    );
    assert!(all.clone().all(|token| tokenizer.is_end(token) == tokenizer.ends().contains(&token)));
    let mut fnv = 0xcbf2_9ce4_8422_2325_u64;
    for token in all {
        let piece = tokenizer.piece(token);
        for byte in (piece.len() as u32).to_le_bytes().iter().chain(piece) {
            fnv = (fnv ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    assert_eq!(format!("{fnv:016x}"), recorded["pieces_fnv1a64"].as_str().expect("a digest"));
    assert_eq!(tokenizer.piece(tokenizer.len() as u32), b"");
    assert!(!tokenizer.is_special(u32::MAX) && !tokenizer.is_end(u32::MAX));
}

/// What is written in a removed key's place.
type Change<'a> = &'a dyn for<'w> Fn(&'w mut Writer) -> &'w mut Writer;

/// The model's vocabulary under another pre-tokenizer's name, or with another change.
fn changed(metadata: &Metadata, key: &str, change: Change) -> Metadata {
    let mut writer = Writer::new();
    for (name, value) in
        metadata.iter().filter(|(name, _)| name.starts_with("tokenizer.ggml.") && *name != key)
    {
        match value {
            Value::String(text) => writer.string(name, text),
            Value::Unsigned(number) => writer.u32(name, u32::try_from(*number).expect("a token")),
            Value::Bool(truth) => writer.bool(name, *truth),
            Value::Strings(strings) => writer.strings(name, &strings.iter().collect::<Vec<_>>()),
            Value::Integers(types) => writer
                .i32s(name, &types.iter().map(|t| i32::try_from(*t).expect("a type")).collect::<Vec<_>>()),
            other => panic!("{name} is {}", other.kind()),
        };
    }
    change(&mut writer);
    let file: &'static [u8] = writer.finish().leak();
    Gguf::open(&Memory(file)).expect("a good file").metadata
}

#[test]
fn every_other_pre_tokenizer_cuts_the_strings_as_llama_cpp_does_under_that_name() {
    let (metadata, recorded) = (metadata(), recorded());
    let cases = recorded["cases"].as_array().expect("cases");
    let mut names = vec!["smollm"];
    for rule in recorded["other_pre_tokenizers"].as_array().expect("rules") {
        for name in rule["names"].as_array().expect("names") {
            let name = name.as_str().expect("a name");
            let metadata = changed(metadata, "tokenizer.ggml.pre", &|w| w.string("tokenizer.ggml.pre", name));
            let tokenizer = Tokenizer::from_metadata(&metadata).expect("a known name");
            for (index, case) in cases.iter().enumerate() {
                let expected = rule["different"].get(index.to_string()).unwrap_or(&case["plain"]);
                let text = case["text"].as_str().expect("text");
                assert_eq!(tokenizer.encode(text, false, false), ids(expected), "{name}: {text:?}");
            }
            names.push(name);
        }
    }
    let known: Vec<_> = PreTokenizer::names().collect();
    assert!(names.iter().all(|name| known.contains(name)));
}

#[test]
fn a_hundred_kilobytes_without_a_space_are_merged_in_no_time() {
    let tokenizer = tokenizer();
    let start = Instant::now();
    for text in ["a".repeat(100_000), "abcdefghij".repeat(10_000), " ".repeat(100_000), "é".repeat(50_000)] {
        let tokens = tokenizer.encode(&text, true, true);
        assert_eq!(tokenizer.decode(&tokens, true), text.as_bytes());
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn the_budget_has_room_for_the_vocabulary_and_not_much_more() {
    let gguf = Gguf::open(&common::smollm2()).expect("a good header");
    let arrays = gguf.metadata.iter().map(|(_, value)| match value {
        Value::Strings(strings) => strings.byte_len() + 4 * strings.len(),
        Value::Integers(integers) => 4 * integers.len(),
        Value::Floats(floats) => 4 * floats.len(),
        _ => 0,
    });
    let held = (arrays.sum::<usize>() + tokenizer().memory()) as u64;
    let budget = Budget::of(&gguf, 512, KvFormat::F16).expect("a model that runs").tokenizer;
    assert!(held <= budget && budget < held + held / 4, "{held} bytes held, {budget} reckoned");
}

#[test]
fn bad_vocabularies_are_refused_with_a_sentence() {
    let metadata = metadata();
    let refused = |key: &str, change: Change| {
        Tokenizer::from_metadata(&changed(metadata, key, change)).expect_err("refused")
    };
    for key in ["model", "tokens", "merges"] {
        let key = format!("tokenizer.ggml.{key}");
        let error = refused(&key, &|w| w).to_string();
        assert!(error.contains(&key) || error.contains("supported"), "{error}");
    }
    let error = refused("tokenizer.ggml.model", &|w| w.string("tokenizer.ggml.model", "bert"));
    assert_eq!(error, TokenizerError::UnknownModel { name: "bert".into() });
    assert!(error.to_string().contains("llama, gpt2"), "{error}");
    let error = refused("tokenizer.ggml.model", &|w| w.string("tokenizer.ggml.model", "llama"));
    assert!(error.to_string().contains("tokenizer.ggml.scores"), "{error}");
    let error = refused("tokenizer.ggml.pre", &|w| w.string("tokenizer.ggml.pre", "klingon"));
    assert!(error.to_string().contains("klingon") && error.to_string().contains("smollm"), "{error}");
    let error = refused("tokenizer.ggml.eos_token_id", &|w| w.u32("tokenizer.ggml.eos_token_id", 49_152));
    assert!(matches!(error, TokenizerError::NoSuchToken { token: 49_152, tokens: 49_152, .. }));
    let error = refused("tokenizer.ggml.token_type", &|w| w.i32s("tokenizer.ggml.token_type", &[1, 1]));
    assert_eq!(error, TokenizerError::MissingTypes { types: 2, tokens: 49_152 });
    for merges in [&["a b", "ab"][..], &["a b", ""], &["a b", "a "], &["a b", " b"], &["a b", " "]] {
        let error = refused("tokenizer.ggml.merges", &|w| w.strings("tokenizer.ggml.merges", merges));
        assert_eq!(error, TokenizerError::Merge { index: 1 }, "{merges:?}");
    }
    let error = refused("tokenizer.ggml.tokens", &|w| w.strings::<&str>("tokenizer.ggml.tokens", &[]));
    assert_eq!(error, TokenizerError::Count { tokens: 0 });
    let error = refused("tokenizer.ggml.tokens", &|w| w.strings("tokenizer.ggml.tokens", &["a", "b", "a"]));
    assert_eq!(error, TokenizerError::SameText { first: 0, second: 2 });
    let error = refused("tokenizer.ggml.bos_token_id", &|w| w.string("tokenizer.ggml.bos_token_id", "one"));
    assert!(error.to_string().contains("tokenizer.ggml.bos_token_id"), "{error}");
}
