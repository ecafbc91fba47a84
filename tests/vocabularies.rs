//! Tokens identical to those that llama.cpp recorded for its own vocabulary-only files, of every kind we read.
//!
//! Beside that, odd strings of our own, recorded by `tools/oracle/record_vocabularies.py`: 16 bits of a digest for each.
//!
//! The files are llama.cpp's `models/ggml-vocab-*.gguf` with `.inp` and `.out` beside them, fetched by
//! `cargo embodi setup`; without them these tests are skipped, and say so.

mod common;

use embodios::gguf::writer::Writer;
use embodios::gguf::{Gguf, Metadata, Value};
use embodios::source::Memory;
use embodios::tokenizer::{Tokenizer, TokenizerError};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// All vocabularies, and those of a kind that we do not read.
const COUNT: usize = 19;
const OTHER_KINDS: [(&str, &str); 2] = [("bert-bge", "bert"), ("nomic-bert-moe", "t5")];

/// The vocabulary-only files by name, the longest common part left out.
fn vocabularies(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name()?.to_str()?.strip_prefix("ggml-vocab-")?.strip_suffix(".gguf")?;
            Some((name.to_owned(), path.clone()))
        })
        .collect();
    found.sort();
    found
}

fn metadata(path: &Path) -> Metadata {
    let file = std::fs::read(path).expect("a file");
    Gguf::open(&Memory(file.leak())).expect("a good header").metadata
}

fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_metadata(&metadata(path))
}

/// Our own strings.
fn texts() -> Vec<String> {
    let recorded: Json = serde_json::from_str(include_str!("data/tokenizer_smollm2.json")).expect("JSON");
    let cases = recorded["cases"].as_array().expect("cases");
    cases.iter().map(|case| case["text"].as_str().expect("text").to_owned()).collect()
}

fn recorded() -> Json {
    serde_json::from_str(include_str!("data/vocabularies.json")).expect("the recording is JSON")
}

fn fnv1a64<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The four digits recorded for some bytes.
fn digits(bytes: &[u8]) -> String {
    format!("{:04x}", fnv1a64(bytes) & 0xffff)
}

/// The four digits recorded for some tokens.
fn digits_of(tokens: &[u32]) -> String {
    digits(&tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<_>>())
}

/// Every text has the digits that were recorded for it.
fn compare(what: &str, recorded: &Json, digits: impl Fn(&str) -> String) {
    let (texts, recorded) = (texts(), recorded.as_str().expect("digits"));
    assert_eq!(recorded.len(), 4 * texts.len(), "{what}");
    for (text, expected) in texts.iter().zip(recorded.as_bytes().chunks(4)) {
        assert_eq!(digits(text).as_bytes(), expected, "{what}: {text:?}");
    }
}

#[test]
fn our_own_strings_give_llama_cpps_tokens_and_roles_and_pieces_are_llama_cpps() {
    let test = "our_own_strings_give_llama_cpps_tokens_and_roles_and_pieces_are_llama_cpps";
    let Some(folder) = common::reference(test) else { return };
    let recorded = recorded();
    let vocabularies = recorded["vocabularies"].as_object().expect("vocabularies");
    assert_eq!(vocabularies.len(), COUNT - OTHER_KINDS.len());
    for (name, expected) in vocabularies {
        let t = open(&folder.join(format!("ggml-vocab-{name}.gguf"))).expect("a good vocabulary");
        let number = |token: Option<u32>| token.map_or(-1, i64::from);
        assert_eq!(Some(t.len() as u64), expected["tokens"].as_u64(), "{name}");
        assert_eq!(Some(number(t.bos())), expected["bos"].as_i64(), "{name}");
        assert_eq!(Some(number(t.eos())), expected["eos"].as_i64(), "{name}");
        assert_eq!(Json::from(t.ends()), expected["ends"], "{name}");
        let special: Vec<u32> = (0..t.len() as u32).filter(|token| t.is_special(*token)).collect();
        assert_eq!(Json::from(digits_of(&special)), expected["special"], "{name}: {special:?}");
        let mut pieces = Vec::new();
        for piece in (0..t.len() as u32).map(|token| t.piece(token)) {
            pieces.extend((piece.len() as u32).to_le_bytes());
            pieces.extend(piece);
        }
        assert_eq!(Json::from(format!("{:016x}", fnv1a64(&pieces))), expected["pieces"], "{name}");
        compare(name, &expected["plain"], |text| digits_of(&t.encode(text, false, false)));
        compare(name, &expected["parsed"], |text| digits_of(&t.encode(text, true, true)));
        if let Some(decoded) = expected.get("decoded") {
            compare(name, decoded, |text| digits(&t.decode(&t.encode(text, true, true), false)));
        }
    }
}

/// What tokenizing needs of a vocabulary, under another pre-tokenizer's name.
fn under_the_name(metadata: &Metadata, pre: &str) -> Metadata {
    let mut writer = Writer::new();
    writer.string("tokenizer.ggml.pre", pre); // of two keys of a name the first counts
    for (name, value) in metadata.iter().filter(|(name, _)| name.starts_with("tokenizer.ggml.")) {
        match value {
            Value::String(text) => writer.string(name, text),
            Value::Unsigned(number) => writer.u32(name, u32::try_from(*number).expect("a token")),
            Value::Bool(truth) => writer.bool(name, *truth),
            Value::Strings(strings) => writer.strings(name, &strings.iter().collect::<Vec<_>>()),
            Value::Integers(types) => {
                writer.i32s(name, &types.iter().map(|t| t.cast_signed()).collect::<Vec<_>>())
            }
            Value::Floats(scores) => writer.f32s(name, scores),
            other => panic!("{name} is {}", other.kind()),
        };
    }
    Gguf::open(&Memory(writer.finish().leak())).expect("a good file").metadata
}

#[test]
fn every_way_to_cut_text_is_llama_cpps_under_that_name() {
    let Some(folder) = common::reference("every_way_to_cut_text_is_llama_cpps_under_that_name") else {
        return;
    };
    let original = metadata(&folder.join("ggml-vocab-command-r.gguf"));
    for (name, expected) in recorded()["cuts"].as_object().expect("names") {
        let t = Tokenizer::from_metadata(&under_the_name(&original, name)).expect("a known name");
        compare(name, expected, |text| digits_of(&t.encode(text, false, false)));
    }
}

#[test]
fn every_vocabulary_is_read_or_its_kind_is_named() {
    let Some(folder) = common::reference("every_vocabulary_is_read_or_its_kind_is_named") else { return };
    let found = vocabularies(&folder);
    assert_eq!(found.len(), COUNT);
    for (name, path) in found {
        let other = OTHER_KINDS.iter().find(|(other, _)| *other == name);
        match (open(&path), other) {
            (Ok(tokenizer), None) => assert!(tokenizer.len() > 30_000, "{name}"),
            (Err(TokenizerError::UnknownModel { name: kind }), Some((_, other))) => assert_eq!(kind, *other),
            (result, _) => panic!("{name}: {:?}", result.err()),
        }
    }
}

#[test]
fn every_recorded_text_gives_llama_cpps_tokens() {
    let Some(folder) = common::reference("every_recorded_text_gives_llama_cpps_tokens") else { return };
    let mut compared = Vec::new();
    for (name, path) in vocabularies(&folder) {
        let Ok(inputs) = std::fs::read_to_string(path.with_extension("gguf.inp")) else { continue };
        let outputs =
            std::fs::read_to_string(path.with_extension("gguf.out")).expect("tokens beside the texts");
        if OTHER_KINDS.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let tokenizer = open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The mark stands between texts, in most of the files behind the last one too.
        let mark = "\n__ggml_vocab_test__\n";
        let inputs: Vec<_> = inputs.strip_suffix(mark).unwrap_or(&inputs).split(mark).collect();
        assert_eq!(inputs.len(), outputs.lines().count(), "{name}: each text has a line of tokens");
        for (text, line) in inputs.iter().zip(outputs.lines()) {
            let expected: Vec<u32> =
                line.split_whitespace().map(|token| token.parse().expect("a token")).collect();
            assert_eq!(tokenizer.encode(text, false, false), expected, "{name}: {text:?}");
        }
        compared.push(name);
    }
    assert_eq!(
        compared,
        [
            "command-r",
            "deepseek-coder",
            "deepseek-llm",
            "falcon",
            "gemma-4",
            "gpt-2",
            "llama-bpe",
            "llama-spm",
            "mpt",
            "phi-3",
            "qwen2",
            "qwen35",
            "refact",
            "starcoder"
        ]
    );
}
