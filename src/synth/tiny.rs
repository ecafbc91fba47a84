//! The tiny llama model that most tests run. Its bytes are fixed: recorded digests of logits depend on them.
//!
//! It has everything a real one has (byte-level BPE, ChatML, grouped-query attention, any weight format) in a few
//! hundred KB. Its answers are letters without sense, and the same for a seed everywhere.

use super::random::Random;
use super::tokenizer::stand_in;
use crate::gguf::writer::Writer;
use crate::quant::Row;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Sizes of a random model.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Numbers a token: whole blocks of the format, and of 32.
    pub embedding: usize,
    /// Width of the feed-forward network: whole blocks of the format.
    pub feed_forward: usize,
    /// Transformer blocks.
    pub layers: usize,
}

/// Sizes of the tiny model. Rows of 64 and 96 weights: whole blocks of 32.
pub const TINY: Sizes = Sizes { embedding: 64, feed_forward: 96, layers: 2 };
/// The same for formats with blocks of 256.
pub const WIDE: Sizes = Sizes { embedding: 256, feed_forward: 256, layers: 1 };
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const CONTEXT: u32 = 512;

const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [&str; 8] = ["t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and", "e r"];

/// The template of ChatML, with SmolLM2's default system message.
const TEMPLATE: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Only tokens that print, and the end of a turn, are ever likely: a terminal can show the answer.
fn likely(tokens: &[String], token: usize) -> bool {
    token == 2 || (token > 2 && tokens[token].chars().all(|c| c.is_ascii_graphic() || c == 'Ġ'))
}

/// A tiny random llama model with its matrices in `format` and its embedding in Q8_0, as a GGUF file.
pub fn tiny(seed: u64, format: &'static Row) -> Vec<u8> {
    sized(seed, format, if format.len > 32 { WIDE } else { TINY })
}

/// A random llama model of any size.
pub fn sized(seed: u64, format: &'static Row, sizes: Sizes) -> Vec<u8> {
    let Sizes { embedding, feed_forward, layers } = sizes;
    let mut random = Random(seed);
    let mut tokens: Vec<String> = SPECIALS.iter().map(ToString::to_string).collect();
    tokens.extend((0..=255).map(|byte| stand_in(byte).to_string()));
    tokens.extend(MERGES.iter().map(|merge| merge.replace(' ', "")));
    let kinds: Vec<i32> = (0..tokens.len()).map(|i| if i < SPECIALS.len() { 3 } else { 1 }).collect();
    let vocabulary = tokens.len();

    let mut file = Writer::new();
    file.string("general.architecture", "llama").string("general.name", "tiny");
    for (key, value) in [
        ("block_count", layers as u32),
        ("context_length", CONTEXT),
        ("embedding_length", embedding as u32),
        ("feed_forward_length", feed_forward as u32),
        ("attention.head_count", HEADS as u32),
        ("attention.head_count_kv", KV_HEADS as u32),
        ("rope.dimension_count", (embedding / HEADS) as u32),
        ("vocab_size", vocabulary as u32),
    ] {
        file.u32(&format!("llama.{key}"), value);
    }
    file.f32("llama.rope.freq_base", 10_000.0).f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "smollm");
    file.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &kinds);
    file.strings("tokenizer.ggml.merges", &MERGES);
    file.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2);
    file.bool("tokenizer.ggml.add_bos_token", false).bool("tokenizer.ggml.add_space_prefix", false);
    file.string("tokenizer.chat_template", TEMPLATE);

    let mut matrix =
        |file: &mut Writer, name: &str, format: &Row, rows: usize, columns: usize, scale: f32| {
            let mut data = Vec::new();
            for row in 0..rows {
                let silent = name == "output.weight" && !likely(&tokens, row);
                let deviation = if silent { 0.0 } else { scale / libm::sqrtf(columns as f32) };
                let weights: Vec<f32> = (0..columns).map(|_| random.normal(deviation)).collect();
                (format.quantize)(&weights, &mut data);
            }
            file.tensor(name, format.id, &[columns as u64, rows as u64], data);
        };
    let q8_0 = crate::quant::by_name("Q8_0").unwrap_or(format);
    let kv = embedding / HEADS * KV_HEADS;
    let ones = |file: &mut Writer, name: &str| {
        let data = (0..embedding).flat_map(|_| 1f32.to_le_bytes()).collect();
        file.tensor(name, 0, &[embedding as u64], data);
    };
    matrix(&mut file, "token_embd.weight", q8_0, vocabulary, embedding, 8.0);
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        ones(&mut file, &name("attn_norm"));
        ones(&mut file, &name("ffn_norm"));
        matrix(&mut file, &name("attn_q"), format, embedding, embedding, 2.0);
        matrix(&mut file, &name("attn_k"), format, kv, embedding, 2.0);
        matrix(&mut file, &name("attn_v"), format, kv, embedding, 1.0);
        matrix(&mut file, &name("attn_output"), format, embedding, embedding, 1.0);
        matrix(&mut file, &name("ffn_gate"), format, feed_forward, embedding, 1.0);
        matrix(&mut file, &name("ffn_up"), format, feed_forward, embedding, 1.0);
        matrix(&mut file, &name("ffn_down"), format, embedding, feed_forward, 1.0);
    }
    ones(&mut file, "output_norm.weight");
    matrix(&mut file, "output.weight", format, vocabulary, embedding, 4.0);
    file.finish()
}
