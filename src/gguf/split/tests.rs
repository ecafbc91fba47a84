//! Shards of a tiny model: what is read from them, and every way in which one can be missing or another's.
#![allow(clippy::cast_possible_truncation)] // a tiny model's offsets

use super::*;
use crate::quant::FORMATS;
use crate::source::Memory;
use crate::synth;
use alloc::string::ToString;
use alloc::vec;

const NAME: &str = "tiny-00001-of-00003.gguf";

/// Shards of a tiny model by name, as they would lie on a card.
fn card(seed: u64, count: usize) -> Vec<(String, &'static [u8])> {
    let shards = synth::shards(&synth::tiny(seed, &FORMATS[0]), count);
    let name = |index: usize| format!("tiny-{:05}-of-{count:05}.gguf", index + 1);
    shards.into_iter().enumerate().map(|(index, bytes)| (name(index), &*bytes.leak())).collect()
}

fn opened(card: &[(String, &'static [u8])], name: &str) -> Result<Box<dyn ByteSource>, SplitError> {
    open(name, &mut |name| Ok(card.iter().find(|file| file.0 == name).map(|file| Memory(file.1))))
}

#[test]
fn names_of_shards_are_told_from_others() {
    let parsed = |name| ShardName::parse(name).map(|shard| (shard.stem, shard.number, shard.count));
    assert_eq!(parsed("Qwen3-8B-Q4_K_M-00002-of-00003.gguf"), Some(("Qwen3-8B-Q4_K_M", 2, 3)));
    assert_eq!(parsed("QWEN-00001-OF-00002.GGUF"), Some(("QWEN", 1, 2)));
    assert_eq!(parsed("-00001-of-00002.gguf"), Some(("", 1, 2)));
    for name in [
        "model.gguf",
        "model-00001-of-00001.gguf", // a whole model, however it is called
        "model-00000-of-00002.gguf",
        "model-00003-of-00002.gguf",
        "model-1-of-2.gguf",
        "model-0000x-of-00002.gguf",
        "model-00001-to-00002.gguf",
        "model-00001-of-00002.bin",
        "model-00001-of-99999.gguf",
        "-of-00002.gguf",
        "of-00002.gguf",
        ".gguf",
        "ä.ggu",
        "",
    ] {
        assert_eq!(parsed(name), None, "{name}");
    }
    let shard = ShardName::parse("QWEN-00001-OF-00012.GGUF").unwrap();
    assert_eq!(shard.sibling(12), "QWEN-00012-of-00012.GGUF");
    assert!(shard.is_of(&ShardName::parse("qwen-00007-of-00012.gguf").unwrap()));
    assert!(!shard.is_of(&ShardName::parse("qwen-00007-of-00013.gguf").unwrap()));
}

#[test]
fn shards_give_the_tensors_of_the_whole_file_by_the_name_of_any_of_them_and_in_reads_of_any_size() {
    let whole: &'static [u8] = synth::tiny(1, &FORMATS[0]).leak();
    let whole = (Gguf::open(&Memory(whole)).unwrap(), whole);
    for count in [2, 3, 7] {
        let card = card(1, count);
        for (name, _) in &card {
            let source = opened(&card, name).unwrap();
            let gguf = Gguf::open(&*source).unwrap();
            assert_eq!(gguf.tensors.len(), whole.0.tensors.len());
            for (info, other) in gguf.tensors.iter().zip(&whole.0.tensors) {
                assert_eq!((&info.name, &info.shape, info.kind), (&other.name, &other.shape, other.kind));
                let mut bytes = vec![1; info.bytes as usize];
                source.read_at(info.offset, &mut bytes).unwrap();
                assert!(bytes == whole.1[other.offset as usize..][..other.bytes as usize], "{}", info.name);
            }
            assert_eq!(
                gguf.metadata.get("tokenizer.ggml.tokens"),
                whole.0.metadata.get("tokenizer.ggml.tokens")
            );
        }
        // Byte by byte across every seam what one long read gives.
        let source = opened(&card, &card[0].0).unwrap();
        let mut all = vec![0; source.len() as usize];
        source.read_at(0, &mut all).unwrap();
        for size in [1, 7, 4096, 30_011] {
            for (index, chunk) in all.chunks(size).enumerate() {
                let mut bytes = vec![1; chunk.len()];
                source.read_at((index * size) as u64, &mut bytes).unwrap();
                assert!(bytes == chunk, "{size} bytes at {}", index * size);
            }
        }
        let error = source.read_at(source.len() - 3, &mut [0; 4]).unwrap_err();
        assert!(matches!(error, ReadError::PastEnd { wanted: 4, .. }));
    }
}

#[test]
fn a_first_shard_without_tensors_is_read() {
    // As `llama-gguf-split --no-tensor-first-split` makes it.
    let whole = synth::tiny(1, &FORMATS[0]);
    let mut card = card(1, 3);
    let [empty, rest @ ..] = &synth::shards_of(&whole, &[0, 5])[..] else { panic!("two shards at least") };
    card.truncate(0);
    for (index, bytes) in core::iter::once(empty).chain(rest).enumerate() {
        let name = format!("tiny-{:05}-of-{:05}.gguf", index + 1, rest.len() + 1);
        card.push((name, &*bytes.clone().leak()));
    }
    let source = opened(&card, NAME).unwrap();
    let tensors = Gguf::open(&*source).unwrap().tensors.len();
    assert_eq!(tensors, Gguf::open(&Memory(whole.leak())).unwrap().tensors.len());
}

#[test]
fn a_missing_a_renamed_and_a_foreign_shard_are_named() {
    let all = card(1, 3);
    let said = |card: &[(String, &'static [u8])]| match opened(card, NAME) {
        Ok(_) => "nothing".into(),
        Err(error) => error.to_string(),
    };
    assert_eq!(said(&all), "nothing");
    for missing in 0..3 {
        let mut card = all.clone();
        let (name, _) = card.remove(missing);
        assert!(
            said(&card).starts_with(&format!("the file {name} is missing: the model is in 3 files")),
            "{}",
            said(&card)
        );
    }
    let mut swapped = all.clone();
    (swapped[1].1, swapped[2].1) = (all[2].1, all[1].1);
    assert!(said(&swapped).contains("tiny-00002-of-00003.gguf says of itself that it is file 3 of 3"));
    let mut whole = all.clone();
    whole[1].1 = synth::tiny(1, &FORMATS[0]).leak();
    assert!(said(&whole).contains("tiny-00002-of-00003.gguf is no part of a split model"));
    let mut fewer = all.clone();
    fewer[2].1 = synth::shards_of(&synth::tiny(1, &FORMATS[0]), &[1, 2])[2].clone().leak();
    assert!(said(&fewer).contains("tensors together, but should have"), "{}", said(&fewer));
    let mut cut = all.clone();
    cut[2].1 = &all[2].1[..all[2].1.len() - 1];
    assert!(
        said(&cut).contains("tiny-00003-of-00003.gguf can't be used: the file is cut short"),
        "{}",
        said(&cut)
    );
    let mut empty = all.clone();
    empty[1].1 = &[];
    assert!(
        said(&empty).contains("tiny-00002-of-00003.gguf can't be used: this is not a GGUF file"),
        "{}",
        said(&empty)
    );
    let error = open::<Memory>(NAME, &mut |_| Err("the card was taken out".into())).err();
    assert_eq!(error.unwrap().to_string(), "the card was taken out");
}

/// Zeros without end, behind a header: for offsets that no memory of ours reaches.
struct Vast {
    header: Vec<u8>,
    len: u64,
}

impl ByteSource for Vast {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let from = usize::try_from(offset).unwrap().min(self.header.len());
        let there = &self.header[from..][..buffer.len().min(self.header.len() - from)];
        buffer.fill(0);
        buffer[..there.len()].copy_from_slice(there);
        // The last byte of a file is its mark.
        if offset + buffer.len() as u64 == self.len {
            *buffer.last_mut().unwrap() = 0xa5;
        }
        Ok(())
    }
}

#[test]
fn shards_of_more_than_4_gib_together_keep_their_places() {
    // Three shards, each with one I8 tensor of 3 GiB: the last lies beyond 32 bits.
    const SIZE: u64 = 3 << 30;
    let shard = |number: u16| {
        let mut file = writer::Writer::new();
        file.u16("split.no", number).u16("split.count", 3).i32("split.tensors.count", 3);
        file.declare(&format!("t{number}"), 24, &[SIZE], SIZE);
        let mut header = file.header();
        header.resize(header.len().next_multiple_of(writer::ALIGNMENT), 0);
        let len = header.len() as u64 + SIZE;
        Vast { header, len }
    };
    let source =
        open(NAME, &mut |name| Ok(ShardName::parse(name).map(|name| shard(name.number as u16 - 1)))).unwrap();
    let gguf = Gguf::open(&*source).unwrap();
    assert!(source.len() > 9 << 30 && gguf.tensors[2].offset > 6 << 30);
    for info in &gguf.tensors {
        assert_eq!(info.bytes, SIZE);
        let mut end = [0; 8];
        source.read_at(info.offset + info.bytes - 8, &mut end).unwrap();
        assert_eq!(end, [0, 0, 0, 0, 0, 0, 0, 0xa5], "{}", info.name);
    }
}

#[test]
fn any_byte_of_any_header_may_be_wrong_without_a_panic() {
    let all = card(1, 3);
    let mut refused = 0;
    for damaged in 0..all.len() {
        let gguf = Gguf::open(&Memory(all[damaged].1)).unwrap();
        for at in 0..gguf.data_offset as usize {
            let mut bytes = all[damaged].1[..gguf.data_offset as usize].to_vec();
            bytes[at] ^= 1 << (at % 8);
            let shard = |name: &str| {
                let (index, file) = all.iter().enumerate().find(|(_, file)| file.0 == name)?;
                let header = if index == damaged { bytes.clone() } else { file.1.to_vec() };
                Some(Vast { header, len: file.1.len() as u64 })
            };
            match open(NAME, &mut |name| Ok(shard(name))) {
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
                Ok(source) => {
                    let _ = Gguf::open(&*source);
                    let mut end = [0; 100];
                    source.read_at(source.len() - 100, &mut end).unwrap();
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
