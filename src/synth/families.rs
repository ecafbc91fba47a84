//! CASES: model families as llama.cpp writes them into files, with a tiny shape each: tensors, keys, and values such that
//! forgetting any trait of a family changes the logits.
//!
//! Source of names and keys: llama.cpp, `src/llama-arch.cpp` and what each of `src/models/*.cpp` asks its loader for, as
//! packed in llama-cpp-python 0.3.36.

use super::tokenizer::Vocabulary;

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Transformer blocks.
    pub layers: usize,
    /// Numbers a token.
    pub embedding: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Numbers a head.
    pub head_size: usize,
    /// Numbers between the halves of the feed-forward network, or of an expert.
    pub feed_forward: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Positions.
    pub context: usize,
    /// Base of the rotation frequencies; none for models that don't rotate.
    pub rope_base: Option<f32>,
    /// Numbers of a head that turn.
    pub rope_width: usize,
    /// Positions a sliding-window layer looks back.
    pub window: Option<usize>,
    /// Experts, experts a token goes to, and the width of the shared one (0: none).
    pub experts: (usize, usize, usize),
}

/// A value of a key that the family asks for.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A number.
    Float(f32),
    /// A count.
    Count(u32),
    /// A word.
    Text(&'static str),
    /// Yes or no.
    Bool(bool),
}

/// How a normalisation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Root mean square, a weight.
    Rms,
    /// Mean and variance, a weight and a bias.
    Layer,
}

/// What of q and k is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Nothing.
    None,
    /// Each head, all with the same weights.
    Head,
    /// Each head with weights of its own.
    EachHead,
    /// All heads at once.
    Width,
}

/// The gate of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// A matrix of its own.
    Own,
    /// The first half of the matrix `ffn_up`.
    Fused,
    /// None: an activation between two matrices.
    None,
}

/// A family as a file has it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called here: the architecture, or a variant of it.
    pub name: &'static str,
    /// `general.architecture`.
    pub architecture: &'static str,
    /// The tiny shape.
    pub shape: Shape,
    /// Vocabulary.
    pub tokenizer: Vocabulary,
    /// Kind of norm.
    pub norm: Norm,
    /// Norms before attention and before the feed-forward network.
    pub before: (bool, bool),
    /// Norms after both.
    pub after: bool,
    /// A second norm before the feed-forward network, of the block's input (Falcon 40B).
    pub second: bool,
    /// Norms within both, before the last matrix (BitNet).
    pub within: bool,
    /// Of q and k.
    pub qk_norm: QkNorm,
    /// q, k and v are one matrix.
    pub fused: bool,
    /// Biases: of q, k and v; of attention's output; of the feed-forward network; of the head.
    pub biases: (bool, bool, bool, bool),
    /// A factor for each matrix (BitNet).
    pub scales: bool,
    /// Of the feed-forward network.
    pub gate: Gate,
    /// The head is the embedding.
    pub tied: bool,
    /// A learned embedding of positions.
    pub positions: bool,
    /// `rope_freqs`.
    pub rope_factors: bool,
    /// `rope_factors_long` and `rope_factors_short`.
    pub long_rope: bool,
    /// The shared expert has a gate.
    pub shared_gate: bool,
    /// The embedding's deviation × the root of its width: what a token's hidden state begins with.
    pub embedding_scale: f32,
    /// What norms add to the mean square.
    pub epsilon: f32,
    /// Keys after `architecture.`.
    pub keys: &'static [(&'static str, Value)],
}

const SHAPE: Shape = Shape {
    layers: 4,
    embedding: 64,
    heads: 4,
    kv_heads: 2,
    head_size: 16,
    feed_forward: 96,
    vocabulary: 410,
    context: 512,
    rope_base: Some(10_000.0),
    rope_width: 16,
    window: None,
    experts: (0, 0, 0),
};

const LLAMA: Case = Case {
    name: "llama",
    architecture: "llama",
    shape: SHAPE,
    tokenizer: Vocabulary::Bpe("smollm"),
    norm: Norm::Rms,
    before: (true, true),
    after: false,
    second: false,
    within: false,
    qk_norm: QkNorm::None,
    fused: false,
    biases: (false, false, false, false),
    scales: false,
    gate: Gate::Own,
    tied: false,
    positions: false,
    rope_factors: false,
    long_rope: false,
    shared_gate: false,
    embedding_scale: 8.0,
    epsilon: 0.02, // thousands of times what people use: another one has to show
    keys: &[],
};

const QWEN2: Case =
    Case { name: "qwen2", architecture: "qwen2", biases: (true, false, false, false), ..LLAMA };

const QWEN3: Case = Case {
    name: "qwen3",
    architecture: "qwen3",
    shape: Shape { head_size: 24, rope_width: 24, rope_base: Some(1e6), ..SHAPE },
    qk_norm: QkNorm::Head,
    tied: true,
    embedding_scale: 3.0,
    ..LLAMA
};

// The embedding is multiplied by the root of its width.
const GEMMA: Case = Case {
    name: "gemma",
    architecture: "gemma",
    shape: Shape { heads: 4, kv_heads: 1, head_size: 24, rope_width: 24, ..SHAPE },
    tied: true,
    embedding_scale: 2.0,
    ..LLAMA
};

const GEMMA2: Case = Case {
    name: "gemma2",
    architecture: "gemma2",
    shape: Shape { window: Some(20), kv_heads: 2, ..GEMMA.shape },
    after: true,
    keys: &[("attn_logit_softcapping", Value::Float(1.5)), ("final_logit_softcapping", Value::Float(3.0))],
    ..GEMMA
};

const GEMMA3: Case = Case {
    name: "gemma3",
    architecture: "gemma3",
    // Of six layers five slide.
    shape: Shape { layers: 7, window: Some(20), rope_base: Some(1e6), ..GEMMA.shape },
    after: true,
    qk_norm: QkNorm::Head,
    ..GEMMA
};

const PHI3: Case = Case {
    name: "phi3",
    architecture: "phi3",
    // llama.cpp reads this window and does not apply it.
    shape: Shape { window: Some(20), kv_heads: 2, ..SHAPE },
    fused: true,
    gate: Gate::Fused,
    ..LLAMA
};

const GRANITE_KEYS: &[(&str, Value)] = &[
    ("logit_scale", Value::Float(1.7)),
    ("residual_scale", Value::Float(0.6)),
    ("embedding_scale", Value::Float(3.0)),
    ("attention.scale", Value::Float(0.4)),
];

const OLMO2: Case = Case {
    name: "olmo2",
    architecture: "olmo2",
    before: (false, false),
    after: true,
    qk_norm: QkNorm::Width,
    ..LLAMA
};

const STABLELM: Case = Case {
    name: "stablelm",
    architecture: "stablelm",
    shape: Shape { rope_width: 8, ..SHAPE },
    norm: Norm::Layer,
    biases: (true, false, false, false),
    keys: &[("use_parallel_residual", Value::Bool(false))],
    ..LLAMA
};

const FALCON: Case = Case {
    name: "falcon",
    architecture: "falcon",
    shape: Shape { kv_heads: 1, ..SHAPE },
    norm: Norm::Layer,
    before: (true, false),
    fused: true,
    gate: Gate::None,
    tied: true,
    embedding_scale: 3.0,
    ..LLAMA
};

const MOE: Shape = Shape { feed_forward: 64, experts: (8, 3, 0), ..SHAPE };

/// All cases: each family of the engine, and what its files differ in.
pub static CASES: &[Case] = &[
    LLAMA,
    Case {
        name: "llama-factors", // Llama 3.1, 3.2
        tied: true,
        embedding_scale: 3.0,
        rope_factors: true,
        shape: Shape { head_size: 24, rope_width: 24, rope_base: Some(500_000.0), ..SHAPE },
        ..LLAMA
    },
    Case { name: "llama-biases", biases: (true, true, true, false), ..LLAMA },
    Case {
        name: "llama-linear",
        keys: &[("rope.scaling.type", Value::Text("linear")), ("rope.scaling.factor", Value::Float(4.0))],
        ..LLAMA
    },
    Case {
        name: "llama-yarn",
        keys: &[
            ("rope.scaling.type", Value::Text("yarn")),
            ("rope.scaling.factor", Value::Float(4.0)),
            ("rope.scaling.original_context_length", Value::Count(96)),
        ],
        ..LLAMA
    },
    Case {
        name: "smollm3", // every fourth layer does not rotate
        architecture: "smollm3",
        shape: Shape { layers: 5, rope_base: Some(5e6), ..SHAPE },
        tied: true,
        embedding_scale: 3.0,
        ..LLAMA
    },
    QWEN2,
    Case {
        name: "qwen2-yarn",
        keys: &[
            ("rope.scaling.type", Value::Text("yarn")),
            ("rope.scaling.factor", Value::Float(4.0)),
            ("rope.scaling.original_context_length", Value::Count(96)),
        ],
        ..QWEN2
    },
    QWEN3,
    GEMMA,
    GEMMA2,
    Case {
        name: "gemma2-27b", // 46 layers: attention's scale is another
        shape: Shape { layers: 46, embedding: 32, feed_forward: 64, ..GEMMA2.shape },
        ..GEMMA2
    },
    GEMMA3,
    Case {
        name: "gemma3-27b", // 62 layers: attention's scale is another; the larger ones scale global positions
        shape: Shape { layers: 62, embedding: 32, feed_forward: 64, kv_heads: 2, ..GEMMA3.shape },
        keys: &[
            ("rope.scaling.type", Value::Text("linear")),
            ("rope.scaling.factor", Value::Float(8.0)),
            ("rope.freq_base_swa", Value::Float(20_000.0)),
        ],
        ..GEMMA3
    },
    Case {
        name: "phi2",
        architecture: "phi2",
        shape: Shape { rope_width: 8, ..SHAPE },
        norm: Norm::Layer,
        before: (true, false),
        fused: true,
        biases: (true, true, true, true),
        gate: Gate::None,
        ..LLAMA
    },
    PHI3,
    Case {
        name: "phi3-longrope",
        long_rope: true,
        keys: &[
            ("rope.scaling.original_context_length", Value::Count(256)),
            ("rope.scaling.attn_factor", Value::Float(1.25)),
        ],
        ..PHI3
    },
    Case { name: "granite", architecture: "granite", keys: GRANITE_KEYS, ..LLAMA },
    OLMO2,
    Case {
        name: "olmo3", // an olmo2 file with windows, whose layers of a window don't scale positions
        shape: Shape { window: Some(20), ..SHAPE },
        keys: &[
            ("rope.scaling.type", Value::Text("yarn")),
            ("rope.scaling.factor", Value::Float(4.0)),
            ("rope.scaling.original_context_length", Value::Count(96)),
        ],
        ..OLMO2
    },
    STABLELM,
    Case {
        name: "stablelm-12b", // attention and feed-forward side by side
        before: (true, false),
        qk_norm: QkNorm::EachHead,
        biases: (false, false, false, false),
        keys: &[("use_parallel_residual", Value::Bool(true))],
        ..STABLELM
    },
    Case { name: "exaone", architecture: "exaone", rope_factors: true, ..LLAMA },
    Case { name: "internlm2", architecture: "internlm2", ..LLAMA },
    // Its multipliers are not in older files: 12, 1.4 / sqrt(layers), 256 / embedding.
    Case { name: "minicpm", architecture: "minicpm", embedding_scale: 1.0, ..LLAMA },
    Case { name: "minicpm-keys", architecture: "minicpm", keys: MINICPM_KEYS, ..LLAMA },
    Case {
        name: "starcoder2",
        architecture: "starcoder2",
        norm: Norm::Layer,
        biases: (true, true, true, false),
        gate: Gate::None,
        tied: true,
        embedding_scale: 3.0,
        ..LLAMA
    },
    Case {
        name: "gpt2",
        architecture: "gpt2",
        shape: Shape { kv_heads: 4, rope_base: None, rope_width: 0, ..SHAPE },
        tokenizer: Vocabulary::Bpe("gpt-2"),
        norm: Norm::Layer,
        fused: true,
        biases: (true, true, true, false),
        gate: Gate::None,
        tied: true,
        positions: true,
        embedding_scale: 3.0,
        ..LLAMA
    },
    FALCON,
    Case {
        name: "falcon-40b", // grouped heads, a norm each for attention and feed-forward
        shape: SHAPE,
        second: true,
        tied: false,
        ..FALCON
    },
    Case {
        name: "bitnet",
        architecture: "bitnet",
        within: true,
        scales: true,
        tied: true,
        embedding_scale: 3.0,
        ..LLAMA
    },
    Case {
        name: "olmoe",
        architecture: "olmoe",
        shape: Shape { kv_heads: 4, ..MOE },
        qk_norm: QkNorm::Width,
        ..LLAMA
    },
    Case { name: "granitemoe", architecture: "granitemoe", shape: MOE, keys: GRANITE_KEYS, ..LLAMA },
    Case {
        name: "granitemoe-shared",
        architecture: "granitemoe",
        shape: Shape { experts: (8, 3, 96), ..MOE },
        keys: GRANITE_KEYS,
        ..LLAMA
    },
    Case {
        name: "qwen2moe",
        architecture: "qwen2moe",
        shape: Shape { experts: (8, 3, 96), ..MOE },
        biases: (true, false, false, false),
        shared_gate: true,
        ..LLAMA
    },
    Case {
        name: "qwen3moe",
        architecture: "qwen3moe",
        shape: Shape { head_size: 24, rope_width: 24, rope_base: Some(1e6), ..MOE },
        qk_norm: QkNorm::Head,
        ..LLAMA
    },
];

const MINICPM_KEYS: &[(&str, Value)] = &[
    ("logit_scale", Value::Float(1.7)),
    ("residual_scale", Value::Float(0.6)),
    ("embedding_scale", Value::Float(3.0)),
];

/// The case of this name.
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}
