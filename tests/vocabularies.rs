//! Tokens identical to those that llama.cpp recorded for its own vocabulary-only files, of every kind we read.
//!
//! The files are llama.cpp's `models/ggml-vocab-*.gguf` with `.inp` and `.out` beside them, fetched by
//! `cargo embodi setup`; without them these tests are skipped, and say so.

mod common;

use embodios::gguf::Gguf;
use embodios::source::Memory;
use embodios::tokenizer::{Tokenizer, TokenizerError};
use std::path::{Path, PathBuf};

/// All vocabularies, and those of a kind that we do not read.
const COUNT: usize = 19;
const OTHER_KINDS: [(&str, &str); 3] =
    [("bert-bge", "bert"), ("nomic-bert-moe", "t5"), ("gemma-4", "gemma4")];

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

fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let file = std::fs::read(path).expect("a file");
    let gguf = Gguf::open(&Memory(file.leak())).expect("a good header");
    Tokenizer::from_metadata(&gguf.metadata)
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
        let inputs: Vec<_> = inputs.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!(inputs.len(), outputs.lines().count() + 1, "{name}: each text has a line of tokens");
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
