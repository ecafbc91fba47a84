//! Files that were cut, flipped and inflated: always an error in words or a model that runs, never a panic.

mod common;

use common::leak;
use embodios::model::families::FAMILIES;
use embodios::source::Memory;
use embodios::{Alone, ByteSource, LoadError, LoadOptions, Model, ReadError, Runtime, Session, quant, synth};
use proptest::prelude::*;
use std::ops::ControlFlow;

fn tiny() -> Vec<u8> {
    synth::tiny(1, quant::by_name("Q4_1").unwrap())
}

/// A file that has to be read, as from a card.
struct File<'a>(&'a [u8]);

impl ByteSource for File<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let past = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: self.len() };
        let start = usize::try_from(offset).map_err(|_| past.clone())?;
        buffer.copy_from_slice(self.0.get(start..start + buffer.len()).ok_or(past)?);
        Ok(())
    }
}

/// Loads the file and, if that works, runs two tokens.
fn try_to_run(source: &dyn ByteSource) -> Result<(), LoadError> {
    let options = LoadOptions { memory_free: Some(64 << 20), context: Some(16), ..LoadOptions::default() };
    let model = Model::load(source, &options, &mut |_| ControlFlow::Continue(()))?;
    let mut session = Session::new(model.clone(), 16).unwrap();
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
    let _ = session.feed(&[0, model.spec().vocabulary as u32 - 1], &runtime);
    let _ =
        model.tokenizer().decode(&model.tokenizer().encode("hello <|im_end|> \u{1f600}", true, true), true);
    Ok(())
}

/// The words of the error for a file.
fn words(bytes: &[u8]) -> String {
    try_to_run(&File(bytes)).expect_err("the file is bad").to_string()
}

fn header_len(bytes: &[u8]) -> usize {
    embodios::gguf::Gguf::open(&File(bytes)).unwrap().data_offset as usize
}

#[test]
fn a_sound_file_runs_from_a_card_and_from_memory() {
    try_to_run(&File(&tiny())).unwrap();
    try_to_run(&leak(tiny())).unwrap();
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = tiny();
    let header = header_len(&bytes);
    for len in (0..header).step_by(7).chain((header..bytes.len()).step_by(1001)).chain([bytes.len() - 1]) {
        let error = try_to_run(&File(&bytes[..len])).expect_err("cut short").to_string();
        assert!(error.contains("cut short") || error.contains("not a GGUF"), "{len}: {error}");
    }
}

#[test]
fn every_byte_of_the_header_may_be_wrong_without_a_panic() {
    let bytes = tiny();
    for at in 0..header_len(&bytes) {
        for change in [|_: u8| 0, |_: u8| 0xff, |byte: u8| byte ^ 1, |byte: u8| byte ^ 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] = change(bytes[at]);
            let _ = try_to_run(&File(&bytes));
        }
    }
}

#[test]
fn weights_of_any_bytes_run_without_a_panic() {
    let bytes = tiny();
    let header = header_len(&bytes);
    for fill in [0x00, 0x7c, 0x7f, 0xff] {
        let mut bytes = bytes.clone();
        bytes[header..].fill(fill);
        try_to_run(&File(&bytes)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_of_random_bytes_in_the_header_do_not_panic(at in 0usize..9000, patch in proptest::collection::vec(any::<u8>(), 1..24)) {
        let mut bytes = tiny();
        let at = at % header_len(&bytes);
        for (byte, new) in bytes[at..].iter_mut().zip(&patch) {
            *byte = *new;
        }
        let _ = try_to_run(&File(&bytes));
    }
}

/// Replaces the first occurrence of `from` by `to`, of the same length.
fn patched(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = tiny();
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_is_not_supported_is_named_with_what_is() {
    assert_eq!(
        words(b"#!/bin/sh\n"),
        "this is not a GGUF file (it does not begin with \"GGUF\"): download the model in GGUF format"
    );
    assert_eq!(
        words(&[]),
        "this is not a GGUF file (it does not begin with \"GGUF\"): download the model in GGUF format"
    );
    let mut version = tiny();
    version[4] = 1;
    assert!(words(&version).starts_with("GGUF version 1 is not supported, only 2 and 3"));
    version[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert!(words(&version).contains("big-endian"));

    // Keys begin with the architecture too, so only its value changes here.
    let architecture = patched(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba");
    let families: String = FAMILIES.iter().map(|family| format!(" {}", family.architecture)).collect();
    let expected = format!("models of the architecture mamba are not supported yet; supported:{families}");
    assert_eq!(words(&architecture), expected);
    let architecture = patched(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma");
    assert_eq!(words(&architecture), format!("the architecture lamma is not known; supported:{families}"));

    let tokenizer = patched(b"gpt2", b"bert");
    assert!(words(&tokenizer).contains("bert"), "{}", words(&tokenizer));
    let pre = patched(b"smollm", b"smellm");
    assert!(words(&pre).contains("smellm"), "{}", words(&pre));

    // The type of a tensor follows its name, its two dimensions and their number.
    let mut kind = tiny();
    let name = b"blk.0.attn_q.weight";
    let at = kind.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    kind[at] = 14;
    // Q6_K needs rows of 256 weights, and these have 64.
    assert!(words(&kind).contains("blk.0.attn_q.weight"), "{}", words(&kind));
    // Types of files that are not for multiplying, no longer read by anybody, or newer than what runs here.
    let supported: String = quant::FORMATS.iter().map(|format| format!(" {}", format.name)).collect();
    for (id, name) in [(9, "Q8_1"), (26, "I32"), (31, "Q4_0_4_4"), (36, "IQ4_NL_4_4"), (40, "NVFP4")] {
        kind[at] = id;
        assert_eq!(
            words(&kind),
            format!(
                "tensor blk.0.attn_q.weight has the type {name}, which is not supported; supported:{supported}"
            )
        );
    }
    for unknown in [4, 43, 200, 255] {
        kind[at] = unknown;
        let expected = format!("tensor blk.0.attn_q.weight has the unknown type {unknown}");
        assert!(words(&kind).contains(&expected), "{}", words(&kind));
    }
}

#[test]
fn a_model_larger_than_memory_says_what_it_needs_what_is_free_and_what_to_do() {
    let load = |context, free| {
        let options =
            LoadOptions { memory_free: Some(free), context: Some(context), ..LoadOptions::default() };
        Model::load(&File(&tiny()), &options, &mut |_| ControlFlow::Continue(()))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let too_long = load(1_000_000, 8 << 20);
    assert!(too_long.contains("set ctx"), "{too_long}");
    let too_big = load(16, 1000);
    assert!(too_big.contains("choose a smaller file") && !too_big.contains("set ctx"), "{too_big}");
}

#[test]
fn loading_can_be_stopped() {
    let options = LoadOptions::default();
    let result = Model::load(&File(&tiny()), &options, &mut |_| ControlFlow::Break(()));
    assert_eq!(result.err(), Some(LoadError::Interrupted));
}

#[test]
fn a_device_that_fails_is_quoted() {
    struct Broken;
    impl ByteSource for Broken {
        fn len(&self) -> u64 {
            1 << 20
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), ReadError> {
            Err(ReadError::Device("the card was taken out".into()))
        }
    }
    assert_eq!(try_to_run(&Broken).unwrap_err().to_string(), "reading failed: the card was taken out");
}

#[test]
fn memory_sources_check_their_ends() {
    let memory = Memory(b"abc");
    assert!(memory.read_at(2, &mut [0; 2]).is_err());
    assert!(memory.read_at(u64::MAX, &mut [0; 2]).is_err());
    let mut two = [0; 2];
    memory.read_at(1, &mut two).unwrap();
    assert_eq!(&two, b"bc");
}
