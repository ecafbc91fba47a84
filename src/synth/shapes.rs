//! SHAPES: sizes of models that people run, for measuring them without having them.
//!
//! Source: the `config.json` that each model is published with.

use super::families::{Case, Shape, case};
use super::tokenizer::Vocabulary;

/// A published model.
pub struct Published {
    /// What people call it.
    pub name: &'static str,
    /// Its family: a name in [`super::CASES`].
    pub case: &'static str,
    /// Vocabulary.
    pub tokenizer: Vocabulary,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Sizes.
    pub shape: Shape,
}

impl Published {
    /// The family with these sizes.
    pub fn case(&self) -> Option<Case> {
        let family = case(self.case)?;
        Some(Case { shape: self.shape, tied: self.tied, tokenizer: self.tokenizer, epsilon: 1e-5, ..*family })
    }
}

/// Layers, embedding, heads, KV heads, head size, feed-forward, vocabulary, context, RoPE base.
#[allow(clippy::too_many_arguments)] // a row of the table
const fn shape(
    layers: usize,
    embedding: usize,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    feed_forward: usize,
    vocabulary: usize,
    context: usize,
    rope_base: f32,
) -> Shape {
    Shape {
        layers,
        embedding,
        heads,
        kv_heads,
        head_size,
        feed_forward,
        vocabulary,
        context,
        rope_base: Some(rope_base),
        rope_width: head_size,
        window: None,
        experts: (0, 0, 0),
    }
}

const fn windowed(window: usize, shape: Shape) -> Shape {
    Shape { window: Some(window), ..shape }
}

const fn row(
    name: &'static str,
    case: &'static str,
    tokenizer: Vocabulary,
    tied: bool,
    shape: Shape,
) -> Published {
    Published { name, case, tokenizer, tied, shape }
}

const SMOLLM: Vocabulary = Vocabulary::Bpe("smollm");
const LLAMA3: Vocabulary = Vocabulary::Bpe("llama-bpe");
const QWEN2: Vocabulary = Vocabulary::Bpe("qwen2");
const SPM: Vocabulary = Vocabulary::Spm;
const GEMMA: Vocabulary = Vocabulary::Gemma;

/// Models whose shapes are known.
#[rustfmt::skip]
pub static SHAPES: &[Published] = &[
    row("smollm2-135m", "llama", SMOLLM, true, shape(30, 576, 9, 3, 64, 1536, 49_152, 8192, 100_000.0)),
    row("smollm2-360m", "llama", SMOLLM, true, shape(32, 960, 15, 5, 64, 2560, 49_152, 8192, 100_000.0)),
    row("smollm2-1.7b", "llama", SMOLLM, true, shape(24, 2048, 32, 32, 64, 8192, 49_152, 8192, 130_000.0)),
    row("smollm3-3b", "smollm3", LLAMA3, true, shape(36, 2048, 16, 4, 128, 11_008, 128_256, 65_536, 5e6)),
    row("tinyllama-1.1b", "llama", SPM, false, shape(22, 2048, 32, 4, 64, 5632, 32_000, 2048, 10_000.0)),
    row("llama-3.2-1b", "llama-factors", LLAMA3, true, shape(16, 2048, 32, 8, 64, 8192, 128_256, 131_072, 500_000.0)),
    row("llama-3.2-3b", "llama-factors", LLAMA3, true, shape(28, 3072, 24, 8, 128, 8192, 128_256, 131_072, 500_000.0)),
    row("llama-3.1-8b", "llama-factors", LLAMA3, false, shape(32, 4096, 32, 8, 128, 14_336, 128_256, 131_072, 500_000.0)),
    row("mistral-7b", "llama", SPM, false, shape(32, 4096, 32, 8, 128, 14_336, 32_768, 32_768, 1e6)),
    row("qwen2.5-0.5b", "qwen2", QWEN2, true, shape(24, 896, 14, 2, 64, 4864, 151_936, 32_768, 1e6)),
    row("qwen2.5-1.5b", "qwen2", QWEN2, true, shape(28, 1536, 12, 2, 128, 8960, 151_936, 32_768, 1e6)),
    row("qwen2.5-3b", "qwen2", QWEN2, true, shape(36, 2048, 16, 2, 128, 11_008, 151_936, 32_768, 1e6)),
    row("qwen3-0.6b", "qwen3", QWEN2, true, shape(28, 1024, 16, 8, 128, 3072, 151_936, 40_960, 1e6)),
    row("qwen3-1.7b", "qwen3", QWEN2, true, shape(28, 2048, 16, 8, 128, 6144, 151_936, 40_960, 1e6)),
    row("qwen3-4b", "qwen3", QWEN2, true, shape(36, 2560, 32, 8, 128, 9728, 151_936, 40_960, 1e6)),
    row("gemma-3-270m", "gemma3", GEMMA, true, windowed(512, shape(18, 640, 4, 1, 256, 2048, 262_144, 32_768, 1e6))),
    row("gemma-3-1b", "gemma3", GEMMA, true, windowed(512, shape(26, 1152, 4, 1, 256, 6912, 262_144, 32_768, 1e6))),
    row("gemma-3-4b", "gemma3", GEMMA, true, windowed(1024, shape(34, 2560, 8, 4, 256, 10_240, 262_144, 131_072, 1e6))),
    row("gemma-2-2b", "gemma2", GEMMA, true, windowed(4096, shape(26, 2304, 8, 4, 256, 9216, 256_000, 8192, 10_000.0))),
    row("phi-3-mini", "phi3", SPM, false, shape(32, 3072, 32, 32, 96, 8192, 32_064, 4096, 10_000.0)),
    row("granite-3.3-2b", "granite", Vocabulary::Bpe("refact"), true, shape(40, 2048, 32, 8, 64, 8192, 49_159, 131_072, 1e7)),
    row("olmo-2-1b", "olmo2", Vocabulary::Bpe("dbrx"), false, shape(16, 2048, 16, 16, 128, 8192, 100_352, 4096, 500_000.0)),
];

/// The model of this name.
pub fn published(name: &str) -> Option<&'static Published> {
    SHAPES.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}
