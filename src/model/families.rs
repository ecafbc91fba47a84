//! FAMILIES: GGUF architecture name → what is particular about it. One row a family; one forward pass for all.
//!
//! Where a file leaves something open, what llama.cpp takes is taken (`llama.cpp/src/models`, one file an architecture).

use super::LoadError;
use super::spec::{Activation, Experts, NormKind, QkNorm, Spec};
use crate::gguf::{Gguf, GgufError, Value};
use crate::ops::rope::{Layout, Scaling};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What the name of an architecture implies and its metadata does not say.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// Models of it.
    pub examples: &'static str,
    /// Which values of a head turn together.
    rope: Option<Layout>,
    norm: NormKind,
    /// Norms before attention and before the feed-forward network.
    pub(super) norms_before: bool,
    /// Norms of what they give, before it is added.
    norms_after: bool,
    /// Norms inside them, before their last matrix (BitNet).
    norms_within: bool,
    parallel: Parallel,
    activation: Activation,
    gated: bool,
    /// The file's up matrix is gate and up on one another.
    pub(super) gate_in_up: bool,
    qk_norm: Presence<QkNorm>,
    multipliers: Multipliers,
    sliding: Sliding,
    /// Every so-manyth layer does not rotate.
    rope_skips: usize,
    /// Caps of attention's scores and of logits where the file names none; `None` for scores that have no cap.
    softcaps: (Option<f32>, f32),
    /// So many layers divide scores by √(embedding / heads) and not by √head size: the one large model of a Gemma family.
    query_scale_exception: usize,
    learned_positions: bool,
    experts: Option<Mixture>,
}

#[derive(Clone, Copy, Debug)]
enum Parallel {
    No,
    Yes,
    /// Where the first layer has no norm before its feed-forward network.
    WithoutNorm,
}

#[derive(Clone, Copy, Debug)]
enum Presence<T> {
    Never,
    /// Where the first layer has the tensors.
    Perhaps(T),
    Always(T),
}

/// Where embeddings, residuals, scores and logits are multiplied by something.
#[derive(Clone, Copy, Debug)]
enum Multipliers {
    None,
    /// Embeddings by √width.
    RootOfWidth,
    /// By what the file says; logits are divided.
    Named,
    /// The same, and where the file says nothing, as the first MiniCPM was trained.
    MiniCpm,
}

/// Which layers have a sliding window, where the file does not say.
#[derive(Clone, Copy, Debug)]
enum Sliding {
    Never,
    /// All but every `every`th.
    Except {
        every: usize,
        /// Positions; 0 is no window unless the file has one.
        window: u32,
        /// Base of their rotations; 0 is the base of all, and what scales those.
        base: f32,
        /// Their angles are scaled as those of the others.
        scaled: bool,
    },
}

/// What a file with experts leaves open.
#[derive(Clone, Copy, Debug)]
struct Mixture {
    normalized: bool,
    /// Every token also goes through a shared expert that a sigmoid weighs, as wide as the file says or all experts.
    shared_gate: bool,
    required: bool,
}

const LLAMA: Family = Family {
    architecture: "llama",
    name: "Llama and its kin",
    examples: "Llama 2, 3, 3.1, 3.2, TinyLlama, SmolLM, SmolLM2, Mistral, Yi, Vicuna",
    rope: Some(Layout::Pairs),
    norm: NormKind::Rms,
    norms_before: true,
    norms_after: false,
    norms_within: false,
    parallel: Parallel::No,
    activation: Activation::Silu,
    gated: true,
    gate_in_up: false,
    qk_norm: Presence::Never,
    multipliers: Multipliers::None,
    sliding: Sliding::Never,
    rope_skips: 0,
    softcaps: (None, 0.0),
    query_scale_exception: 0,
    learned_positions: false,
    experts: Some(Mixture { normalized: true, shared_gate: false, required: false }),
};

const QWEN2: Family = Family {
    architecture: "qwen2",
    name: "Qwen 2 and 2.5",
    examples: "Qwen2-0.5B, Qwen2.5-1.5B, DeepSeek-R1-Distill-Qwen-1.5B",
    rope: Some(Layout::Halves),
    experts: None,
    ..LLAMA
};

const GEMMA: Family = Family {
    architecture: "gemma",
    name: "Gemma",
    examples: "Gemma 2B, CodeGemma",
    activation: Activation::Gelu,
    multipliers: Multipliers::RootOfWidth,
    ..QWEN2
};

const GPT2: Family = Family {
    architecture: "gpt2",
    name: "GPT-2",
    examples: "GPT-2, DistilGPT-2, Cerebras-GPT",
    rope: None,
    norm: NormKind::Layer,
    activation: Activation::Gelu,
    gated: false,
    learned_positions: true,
    experts: None,
    ..LLAMA
};

/// Model families that run.
pub static FAMILIES: &[Family] = &[
    LLAMA,
    QWEN2,
    Family {
        architecture: "qwen3",
        name: "Qwen 3",
        examples: "Qwen3-0.6B, 1.7B, 4B",
        qk_norm: Presence::Always(QkNorm::Head),
        ..QWEN2
    },
    Family {
        architecture: "gemma3",
        name: "Gemma 3",
        examples: "Gemma 3 270M, 1B, 4B",
        norms_after: true,
        qk_norm: Presence::Always(QkNorm::Head),
        sliding: Sliding::Except { every: 6, window: 0, base: 10_000.0, scaled: false },
        query_scale_exception: 62,
        ..GEMMA
    },
    Family {
        architecture: "gemma2",
        name: "Gemma 2",
        examples: "Gemma 2 2B",
        norms_after: true,
        sliding: Sliding::Except { every: 2, window: 4096, base: 0.0, scaled: true },
        softcaps: (Some(50.0), 30.0),
        query_scale_exception: 46,
        ..GEMMA
    },
    GEMMA,
    Family {
        architecture: "phi3",
        name: "Phi 3 and 4",
        examples: "Phi-3-mini, Phi-3.5-mini, Phi-4-mini",
        gate_in_up: true,
        ..QWEN2
    },
    Family {
        architecture: "smollm3",
        name: "SmolLM3",
        examples: "SmolLM3-3B",
        rope_skips: 4,
        experts: None,
        ..LLAMA
    },
    Family {
        architecture: "granite",
        name: "Granite 3",
        examples: "Granite 3.0, 3.1, 3.2, 3.3 2B",
        multipliers: Multipliers::Named,
        experts: None,
        ..LLAMA
    },
    Family {
        architecture: "olmo2",
        name: "OLMo 2 and 3",
        examples: "OLMo-2-0425-1B, OLMo-3-7B",
        norms_before: false,
        norms_after: true,
        qk_norm: Presence::Always(QkNorm::Width),
        sliding: Sliding::Except { every: 4, window: 0, base: 0.0, scaled: false },
        ..QWEN2
    },
    Family {
        architecture: "phi2",
        name: "Phi 1 and 2",
        examples: "Phi-1.5, Phi-2",
        parallel: Parallel::Yes,
        rope: Some(Layout::Halves),
        learned_positions: false,
        ..GPT2
    },
    Family {
        architecture: "stablelm",
        name: "StableLM",
        examples: "StableLM-2-1.6B, StableLM-3B, StableLM-Zephyr",
        norm: NormKind::Layer,
        parallel: Parallel::WithoutNorm,
        qk_norm: Presence::Perhaps(QkNorm::Head),
        ..QWEN2
    },
    Family { architecture: "exaone", name: "EXAONE 3", examples: "EXAONE-3.5-2.4B", ..QWEN2 },
    Family {
        architecture: "internlm2",
        name: "InternLM 2",
        examples: "InternLM2-1.8B",
        experts: None,
        ..LLAMA
    },
    Family {
        architecture: "minicpm",
        name: "MiniCPM",
        examples: "MiniCPM-1B, 2B",
        multipliers: Multipliers::MiniCpm,
        experts: None,
        ..LLAMA
    },
    Family {
        architecture: "starcoder2",
        name: "StarCoder 2",
        examples: "StarCoder2-3B",
        rope: Some(Layout::Halves),
        learned_positions: false,
        ..GPT2
    },
    GPT2,
    Family {
        architecture: "falcon",
        name: "Falcon",
        examples: "Falcon-RW-1B (converted), Falcon-7B",
        rope: Some(Layout::Halves),
        parallel: Parallel::Yes,
        learned_positions: false,
        ..GPT2
    },
    Family {
        architecture: "bitnet",
        name: "BitNet b1.58",
        examples: "bitnet_b1_58-large, 3B",
        norms_within: true,
        ..QWEN2
    },
    Family {
        architecture: "olmoe",
        name: "OLMoE",
        examples: "OLMoE-1B-7B",
        qk_norm: Presence::Always(QkNorm::Width),
        experts: Some(Mixture { normalized: false, shared_gate: false, required: true }),
        ..QWEN2
    },
    Family {
        architecture: "granitemoe",
        name: "Granite 3 MoE",
        examples: "Granite 3.1 1B-A400M, 3B-A800M",
        multipliers: Multipliers::Named,
        experts: Some(Mixture { normalized: true, shared_gate: false, required: true }),
        ..LLAMA
    },
    Family {
        architecture: "qwen2moe",
        name: "Qwen 1.5 and 2 MoE",
        examples: "Qwen1.5-MoE-A2.7B",
        experts: Some(Mixture { normalized: false, shared_gate: true, required: true }),
        ..QWEN2
    },
    Family {
        architecture: "qwen3moe",
        name: "Qwen 3 MoE",
        examples: "the shape of Qwen3-30B-A3B",
        qk_norm: Presence::Always(QkNorm::Head),
        experts: Some(Mixture { normalized: true, shared_gate: false, required: true }),
        ..QWEN2
    },
];

/// Architectures that llama.cpp (of llama-cpp-python 0.3.36) has a name for and no row above runs.
pub static RECOGNISED: &[&str] = &[
    "clip",
    "llama4",
    "deci",
    "grok",
    "gptj",
    "gptneox",
    "mpt",
    "baichuan",
    "starcoder",
    "refact",
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "bloom",
    "qwen",
    "qwen2vl",
    "qwen3next",
    "qwen3vl",
    "qwen3vlmoe",
    "qwen35",
    "qwen35moe",
    "qwen4exp",
    "phimoe",
    "plamo",
    "plamo2",
    "plamo3",
    "codeshell",
    "orion",
    "minicpm3",
    "gemma3n",
    "gemma4",
    "gemma4-assistant",
    "gemma-embedding",
    "mamba",
    "mamba2",
    "maple",
    "jamba",
    "falcon-h1",
    "xverse",
    "command-r",
    "cohere2",
    "cohere2moe",
    "dbrx",
    "olmo",
    "muse-glimmer",
    "openelm",
    "arctic",
    "deepseek",
    "deepseek2",
    "deepseek2-ocr",
    "deepseek32",
    "deepseek4",
    "chatglm",
    "glm4",
    "glm4moe",
    "glm-dsa",
    "t5",
    "t5encoder",
    "jais",
    "jais2",
    "nemotron",
    "nemotron_h",
    "nemotron_h_moe",
    "exaone4",
    "exaone-moe",
    "rwkv6",
    "rwkv6qwen2",
    "rwkv7",
    "arwkv7",
    "granitehybrid",
    "graniteswitch",
    "granite_swa",
    "chameleon",
    "wavtokenizer-dec",
    "plm",
    "bailingmoe",
    "bailingmoe2",
    "bailingmoe3",
    "dots1",
    "dots3note",
    "arcee",
    "afmoe",
    "laguna",
    "ernie4_5",
    "ernie4_5-moe",
    "hunyuan-moe",
    "hunyuan-dense",
    "hunyuan_vl",
    "hy_v3",
    "hy_v4",
    "gpt-oss",
    "lfm2",
    "lfm2moe",
    "dream",
    "smallthinker",
    "llada",
    "llada-moe",
    "seed_oss",
    "grovemoe",
    "apertus",
    "minimax-01",
    "hrm_text",
    "minimax-m2",
    "minimax-m3",
    "cogvlm",
    "rnd1",
    "pangu-embedded",
    "mistral3",
    "eagle3",
    "dflash",
    "mistral4",
    "paddleocr",
    "mimo2",
    "step35",
    "spark2_5",
    "llama-embed",
    "maincoder",
    "kimi-linear",
    "kimi-k3",
    "glm5-next",
    "talkie",
    "mellum",
    "nanbeige",
    "qwen3tts",
    "pockettts",
];

/// The family that a file says it is of.
pub fn family(gguf: &Gguf) -> Result<&'static Family, LoadError> {
    if let Some(all) = gguf.metadata.opt_u32("split.tensors.count")?
        && all as usize != gguf.tensors.len()
    {
        // Those that lie side by side under their names come here as one.
        return Err(LoadError::LoneShard { count: gguf.metadata.opt_u32("split.count")?.unwrap_or(0) });
    }
    let architecture = gguf.metadata.string("general.architecture")?;
    let row = FAMILIES.iter().find(|family| family.architecture == architecture);
    row.ok_or_else(|| LoadError::Architecture { name: architecture.into() })
}

/// Look-up of an architecture's own keys.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }
    fn size(&self, name: &str) -> Result<usize, LoadError> {
        self.optional(name)?.ok_or_else(|| GgufError::MissingKey { key: self.key(name) }.into())
    }
    /// At least 1, where it is there. An array of one number for each layer is that number, if they are all the same.
    fn optional(&self, name: &str) -> Result<Option<usize>, LoadError> {
        let key = self.key(name);
        let value = match self.gguf.metadata.get(&key) {
            Some(Value::Integers(each)) if each.windows(2).all(|pair| pair[0] == pair[1]) => {
                each.first().copied()
            }
            Some(Value::Integers(_)) => {
                return Err(LoadError::Unsupported { what: format!("a {key} that differs between layers") });
            }
            _ => self.gguf.metadata.opt_u32(&key)?,
        };
        match value {
            Some(0) => Err(GgufError::OutOfRange { key, expected: "at least 1" }.into()),
            value => Ok(value.map(|size| size as usize)),
        }
    }
    /// The same, but 0 is absent.
    fn count(&self, name: &str) -> Result<usize, LoadError> {
        match self.gguf.metadata.get(&self.key(name)) {
            Some(Value::Unsigned(0) | Value::Signed(0)) => Ok(0),
            _ => Ok(self.optional(name)?.unwrap_or(0)),
        }
    }
    fn float(&self, name: &str) -> Result<Option<f32>, LoadError> {
        Ok(self.gguf.metadata.opt_f32(&self.key(name))?)
    }
    /// More than 0, where it is there.
    fn positive(&self, name: &str) -> Result<Option<f32>, LoadError> {
        match self.float(name)? {
            Some(value) if value <= 0.0 => {
                Err(GgufError::OutOfRange { key: self.key(name), expected: "more than 0" }.into())
            }
            value => Ok(value),
        }
    }
    /// The first layer has this tensor.
    fn first_layer_has(&self, tensor: &str) -> bool {
        self.gguf.tensor(&format!("blk.0.{tensor}")).is_some()
    }
}

/// Reads the shape of a model from its metadata.
pub fn spec(gguf: &Gguf) -> Result<Spec, LoadError> {
    let family = family(gguf)?;
    let keys = Keys { gguf, architecture: family.architecture };
    let refuse = |what: String| Err(LoadError::Unsupported { what });

    let (layers, embedding) = (keys.size("block_count")?, keys.size("embedding_length")?);
    if layers > gguf.tensors.len() {
        return refuse(format!("{layers} layers of {} tensors", gguf.tensors.len()));
    }
    let heads = keys.size("attention.head_count")?;
    let kv_heads = keys.optional("attention.head_count_kv")?.unwrap_or(heads);
    let head_size = keys.optional("attention.key_length")?.unwrap_or(embedding / heads);
    let value_size = keys.optional("attention.value_length")?.unwrap_or(embedding / heads);
    let rope_width = match family.rope {
        Some(_) => keys.optional("rope.dimension_count")?.unwrap_or(head_size),
        None => 0,
    };
    if !heads.is_multiple_of(kv_heads) {
        return refuse(format!("{heads} query heads for {kv_heads} key heads"));
    }
    if head_size == 0 || value_size != head_size {
        return refuse(format!("keys of {head_size} values with values of {value_size}"));
    }
    if rope_width > head_size || !rope_width.is_multiple_of(2) {
        return refuse(format!("rotating {rope_width} of {head_size} values of a head"));
    }
    let vocabulary = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| LoadError::MissingTensor { name: "token_embd.weight".into() })?
        .rows();
    let norm_epsilon = gguf.metadata.f32(&keys.key(match family.norm {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    }))?;
    let rope_base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    if norm_epsilon < 0.0 {
        return refuse(format!("a norm epsilon of {norm_epsilon}"));
    }
    let context = keys.size("context_length")?;
    let (experts, feed_forward) = mixture(family, &keys)?;
    let rope = Rope::of(&keys, context)?;
    let (sliding_window, sliding_layers, rope_sliding) =
        sliding(family, &keys, layers, (rope_base, rope.scaling))?;
    let multipliers = multipliers(family, &keys, layers, embedding)?;
    let attention_scale = match multipliers.attention {
        Some(scale) => scale,
        None if layers == family.query_scale_exception => 1.0 / libm::sqrtf((embedding / heads) as f32),
        None => 1.0 / libm::sqrtf(head_size as f32),
    };
    Ok(Spec {
        layers,
        embedding,
        heads,
        kv_heads,
        head_size,
        feed_forward,
        vocabulary: usize::try_from(vocabulary)
            .map_err(|_| LoadError::Unsupported { what: format!("a vocabulary of {vocabulary}") })?,
        context,
        norm: family.norm,
        norm_epsilon,
        norms_after: family.norms_after,
        norms_within: family.norms_within,
        parallel: match family.parallel {
            Parallel::No => false,
            Parallel::Yes => true,
            Parallel::WithoutNorm => !keys.first_layer_has("ffn_norm.weight"),
        },
        activation: family.activation,
        gated: family.gated,
        experts,
        qk_norm: match family.qk_norm {
            Presence::Never => None,
            Presence::Perhaps(norm) => keys.first_layer_has("attn_q_norm.weight").then_some(norm),
            Presence::Always(norm) => Some(norm),
        },
        rope_layout: family.rope,
        rope_width,
        rope_base,
        rope_scaling: rope.scaling,
        rope_magnitude: rope.magnitude,
        rope_original: rope.original,
        rope_sliding,
        rope_skips: if multipliers.unrotated { 1 } else { family.rope_skips },
        learned_positions: family.learned_positions,
        embedding_scale: multipliers.embedding,
        residual_scale: multipliers.residual,
        logit_scale: multipliers.logit,
        sliding_window,
        sliding_layers,
        attention_scale,
        attention_softcap: match family.softcaps.0 {
            Some(cap) => keys.float("attn_logit_softcapping")?.unwrap_or(cap),
            None => 0.0,
        },
        logit_softcap: match family.multipliers {
            // Gemma only: other families have the key in no file, and llama.cpp does not read it.
            Multipliers::RootOfWidth if family.norms_after => {
                keys.float("final_logit_softcapping")?.unwrap_or(family.softcaps.1)
            }
            _ => 0.0,
        },
        float_weights: experts.is_some_and(|experts| experts.shared_gate)
            || gguf.tensors.iter().any(|tensor| {
                tensor.rows() > 1
                    && crate::quant::by_id(tensor.kind).is_some_and(|format| format.forms().floats)
            }),
    })
}

/// The experts, if there are any, and the width of a feed-forward network or of one of them.
fn mixture(family: &Family, keys: &Keys<'_>) -> Result<(Option<Experts>, usize), LoadError> {
    let refuse = |what: String| Err(LoadError::Unsupported { what });
    let count = keys.count("expert_count")?;
    let Some(mixture) = family.experts.filter(|mixture| mixture.required || count > 0) else {
        return match count {
            0 => Ok((None, keys.size("feed_forward_length")?)),
            _ => refuse(format!("a mixture of experts in a model of the family {}", family.architecture)),
        };
    };
    let used = keys.size("expert_used_count")?;
    if count == 0 || used > count {
        return refuse(format!("{used} of {count} experts"));
    }
    if keys.count("expert_group_count")? > 1 {
        return refuse("experts in groups".into());
    }
    // Qwen's files name the width of an expert; the others call it that of the network.
    let feed_forward = match keys.optional("expert_feed_forward_length")? {
        Some(width) if family.architecture.starts_with("qwen") => width,
        _ if family.architecture.starts_with("qwen") => keys.size("feed_forward_length")? / used,
        _ => keys.size("feed_forward_length")?,
    };
    let shared = match keys.count("expert_shared_feed_forward_length")? {
        0 if mixture.shared_gate => keys.size("feed_forward_length")?,
        width if mixture.shared_gate || family.architecture == "granitemoe" => width,
        _ => 0,
    };
    if feed_forward == 0 {
        return refuse("experts of no width".into());
    }
    let Mixture { normalized, shared_gate, .. } = mixture;
    Ok((Some(Experts { count, used, normalized, shared, shared_gate }), feed_forward))
}

/// What scales the angles of rotations.
struct Rope {
    scaling: Scaling,
    magnitude: f32,
    original: usize,
}

impl Rope {
    fn of(keys: &Keys<'_>, context: usize) -> Result<Self, LoadError> {
        let original = keys.optional("rope.scaling.original_context_length")?.unwrap_or(context);
        // 0 and absent are no factor; an old key has the same meaning.
        let factor = match keys.float("rope.scaling.factor")? {
            None => keys.float("rope.scale_linear")?,
            factor => factor,
        };
        let factor = match factor.unwrap_or(0.0) {
            0.0 => 1.0,
            factor if factor > 0.0 => factor,
            factor => {
                return Err(LoadError::Unsupported { what: format!("RoPE scaling by a factor of {factor}") });
            }
        };
        let scaling = match keys.gguf.metadata.opt_string(&keys.key("rope.scaling.type"))?.unwrap_or("linear")
        {
            "none" => Scaling::None,
            "yarn" => Scaling::Yarn { factor, original },
            "linear" | "longrope" if factor == 1.0 => Scaling::None,
            "linear" | "longrope" => Scaling::Linear { factor },
            kind => return Err(LoadError::Unsupported { what: format!("RoPE scaling of type {kind}") }),
        };
        Ok(Self { scaling, magnitude: keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0), original })
    }
}

/// The window, which layers have it, and how those rotate if otherwise than the rest.
#[allow(clippy::type_complexity)] // what three fields of a spec are
fn sliding(
    family: &Family,
    keys: &Keys<'_>,
    layers: usize,
    (global_base, global_scaling): (f32, Scaling),
) -> Result<(usize, Vec<bool>, Option<(f32, Scaling)>), LoadError> {
    let Sliding::Except { every, window, base, scaled } = family.sliding else {
        return Ok((0, Vec::new(), None));
    };
    let metadata = &keys.gguf.metadata;
    let window = metadata.opt_u32(&keys.key("attention.sliding_window"))?.unwrap_or(window) as usize;
    if window == 0 {
        return Ok((0, Vec::new(), None));
    }
    let pattern = keys.key("attention.sliding_window_pattern");
    let sliding_layers = match metadata.get(&pattern) {
        Some(Value::Integers(each)) if each.len() >= layers => {
            each[..layers].iter().map(|&each| each != 0).collect()
        }
        Some(Value::Integers(_)) => {
            return Err(GgufError::OutOfRange { key: pattern, expected: "a value for each layer" }.into());
        }
        _ => {
            let every = metadata.opt_u32(&pattern)?.map_or(every, |every| every as usize);
            (0..layers).map(|layer| every == 0 || layer % every < every - 1).collect()
        }
    };
    let base = match keys.positive("rope.freq_base_swa")? {
        Some(base) => base,
        None if base == 0.0 => global_base,
        None => base,
    };
    let rotation = (base, if scaled { global_scaling } else { Scaling::None });
    Ok((window, sliding_layers, (rotation != (global_base, global_scaling)).then_some(rotation)))
}

/// What is multiplied.
struct Multiplied {
    embedding: f32,
    residual: f32,
    logit: f32,
    /// `None` is what the head size implies.
    attention: Option<f32>,
    /// No layer rotates.
    unrotated: bool,
}

fn multipliers(
    family: &Family,
    keys: &Keys<'_>,
    layers: usize,
    embedding: usize,
) -> Result<Multiplied, LoadError> {
    // 0 and absent are no factor.
    let named = |name: &str, default: f32| match keys.float(name)? {
        Some(0.0) => Ok(1.0),
        value => Ok::<_, LoadError>(value.unwrap_or(default)),
    };
    let one = Multiplied { embedding: 1.0, residual: 1.0, logit: 1.0, attention: None, unrotated: false };
    Ok(match family.multipliers {
        Multipliers::None => one,
        Multipliers::RootOfWidth => Multiplied { embedding: libm::sqrtf(embedding as f32), ..one },
        Multipliers::Named => Multiplied {
            embedding: named("embedding_scale", 1.0)?,
            residual: named("residual_scale", 1.0)?,
            logit: 1.0 / named("logit_scale", 1.0)?,
            attention: keys.float("attention.scale")?.filter(|&scale| scale != 0.0),
            // In these files alone, the key says whether there is any rotation.
            unrotated: family.architecture == "granite"
                && keys.gguf.metadata.opt_bool(&keys.key("rope.scaling.finetuned"))? == Some(false),
        },
        Multipliers::MiniCpm => Multiplied {
            embedding: named("embedding_scale", 12.0)?,
            residual: named("residual_scale", 1.4 / libm::sqrtf(layers as f32))?,
            // MiniCPM's own code divides by the inverse. llama.cpp's default is the other way round since it reads the key,
            // and older files have only that.
            logit: 1.0 / named("logit_scale", 256.0 / embedding as f32)?,
            ..one
        },
    })
}
