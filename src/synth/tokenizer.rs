//! Vocabularies of any size: byte-level BPE with the merges that make its words, and SentencePiece with scores.
//!
//! Words are all lower-case strings of two, three and four letters, in a fixed order, each made of two that came before.

use crate::gguf::writer::Writer;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A kind of vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Byte-level BPE (`gpt2`) with this pre-tokenizer, and ChatML's control tokens.
    Bpe(&'static str),
    /// SentencePiece (`llama`) as Llama 2 has it, with ChatML's control tokens.
    Spm,
    /// SentencePiece as Gemma has it, with Gemma's control tokens.
    Gemma,
}

/// The smallest vocabulary of any kind: control tokens, bytes, single characters.
pub const LEAST: usize = 384;
/// The largest: all the words there are.
pub const MOST: usize = 300 + 26 * 26 + 26 * 26 * 26 + 26 * 26 * 26 * 26;

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const GEMMA: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

/// The character that stands for a byte in the vocabulary of a byte-level BPE (Radford et al., 2019): itself if
/// it prints, else the next free one from U+0100 on.
pub(super) fn stand_in(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !prints(other)).count();
    char::from_u32(256 + before as u32).unwrap_or(' ')
}

/// The words, each as the two parts that it is merged from.
fn words() -> impl Iterator<Item = (String, String)> {
    let letters = || (b'a'..=b'z').map(|byte| char::from(byte).to_string());
    let pairs = move || letters().flat_map(move |a| letters().map(move |b| (a.clone(), b)));
    let triples = pairs().flat_map(move |(a, b)| letters().map(move |c| (format!("{a}{b}"), c)));
    let quadruples =
        pairs().flat_map(move |(a, b)| pairs().map(move |(c, d)| (format!("{a}{b}"), format!("{c}{d}"))));
    pairs().chain(triples).chain(quadruples)
}

/// Token types of GGUF.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

impl Vocabulary {
    /// Writes the `tokenizer.*` keys of a vocabulary of `size` tokens, from [`LEAST`] to [`MOST`].
    pub(super) fn write(self, file: &mut Writer, size: usize) {
        match self {
            Self::Bpe(pre) => byte_level(file, pre, size),
            Self::Spm => {
                let specials = [
                    ("<unk>", UNKNOWN),
                    ("<s>", CONTROL),
                    ("</s>", CONTROL),
                    ("<|im_start|>", CONTROL),
                    ("<|im_end|>", CONTROL),
                ];
                pieces(file, &specials, size);
                file.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 4);
                file.u32("tokenizer.ggml.unknown_token_id", 0);
                file.bool("tokenizer.ggml.add_bos_token", true).bool("tokenizer.ggml.add_eos_token", false);
                file.string("tokenizer.chat_template", CHATML);
            }
            Self::Gemma => {
                let specials = [
                    ("<pad>", CONTROL),
                    ("<eos>", CONTROL),
                    ("<bos>", CONTROL),
                    ("<unk>", UNKNOWN),
                    ("<start_of_turn>", CONTROL),
                    ("<end_of_turn>", CONTROL),
                    ("\n\n", USER_DEFINED),
                ];
                pieces(file, &specials, size);
                file.u32("tokenizer.ggml.bos_token_id", 2).u32("tokenizer.ggml.eos_token_id", 1);
                file.u32("tokenizer.ggml.unknown_token_id", 3).u32("tokenizer.ggml.padding_token_id", 0);
                file.bool("tokenizer.ggml.add_bos_token", true).bool("tokenizer.ggml.add_eos_token", false);
                file.bool("tokenizer.ggml.add_space_prefix", false);
                file.string("tokenizer.chat_template", GEMMA);
            }
        }
    }
}

fn byte_level(file: &mut Writer, pre: &str, size: usize) {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let mut tokens: Vec<String> = specials.iter().map(ToString::to_string).collect();
    tokens.extend((0..=255).map(|byte| stand_in(byte).to_string()));
    let words: Vec<_> = words().take(size - tokens.len()).collect();
    let merges: Vec<String> = words.iter().map(|(a, b)| format!("{a} {b}")).collect();
    tokens.extend(words.iter().map(|(a, b)| format!("{a}{b}")));
    let kinds: Vec<i32> =
        (0..tokens.len()).map(|i| if i < specials.len() { CONTROL } else { NORMAL }).collect();
    file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", pre);
    file.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &kinds);
    file.strings("tokenizer.ggml.merges", &merges);
    file.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2);
    file.bool("tokenizer.ggml.add_bos_token", false).bool("tokenizer.ggml.add_space_prefix", false);
    file.string("tokenizer.chat_template", CHATML);
}

/// A SentencePiece vocabulary: what is special, the 256 bytes, printing characters, words. A word's score falls with its
/// number, so that the first words are merged first.
fn pieces(file: &mut Writer, specials: &[(&str, i32)], size: usize) {
    let mut tokens: Vec<String> = specials.iter().map(|(name, _)| name.to_string()).collect();
    let mut kinds: Vec<i32> = specials.iter().map(|(_, kind)| *kind).collect();
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), BYTE);
    tokens.push("▁".into());
    tokens.extend((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
    let scored = tokens.len();
    tokens.extend(words().take(size - scored).map(|(a, b)| format!("{a}{b}")));
    kinds.resize(tokens.len(), NORMAL);
    let scores: Vec<f32> =
        (0..tokens.len()).map(|i| if i < scored { 0.0 } else { -((i - scored) as f32) }).collect();
    file.string("tokenizer.ggml.model", "llama").string("tokenizer.ggml.pre", "default");
    file.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &kinds);
    file.f32s("tokenizer.ggml.scores", &scores);
}
