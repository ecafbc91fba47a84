//! FAMILIES: GGUF architecture name → what is particular about it. One row a family; one forward pass for all.

use super::LoadError;
use super::spec::Spec;
use crate::gguf::{Gguf, GgufError};
use crate::ops::rope::Layout;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What the name of an architecture implies and its metadata does not say.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Which values of a head turn together.
    pub rope_layout: Layout,
}

/// Model families that run.
pub static FAMILIES: &[(&str, Family)] = &[("llama", Family { rope_layout: Layout::Pairs })];

/// Reads the shape of a model from its metadata.
pub fn spec(gguf: &Gguf) -> Result<Spec, LoadError> {
    let metadata = &gguf.metadata;
    let architecture = metadata.string("general.architecture")?;
    let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == architecture) else {
        return Err(LoadError::Architecture { name: architecture.into() });
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| match metadata.u32(&key(name))? {
        0 => Err(GgufError::OutOfRange { key: key(name), expected: "at least 1" }),
        size => Ok(size as usize),
    };
    let optional = |name: &str, default: usize| match metadata.opt_u32(&key(name))? {
        Some(0) => Err(GgufError::OutOfRange { key: key(name), expected: "at least 1" }),
        value => Ok(value.map_or(default, |size| size as usize)),
    };
    let refuse = |what: String| Err(LoadError::Unsupported { what });

    let embedding = size("embedding_length")?;
    let heads = size("attention.head_count")?;
    let kv_heads = optional("attention.head_count_kv", heads)?;
    let head_size = optional("attention.key_length", embedding / heads)?;
    let value_size = optional("attention.value_length", head_size)?;
    let rope_width = optional("rope.dimension_count", head_size)?;
    if heads % kv_heads != 0 {
        return refuse(format!("{heads} query heads for {kv_heads} key heads"));
    }
    if head_size == 0 || value_size != head_size {
        return refuse(format!("keys of {head_size} values with values of {value_size}"));
    }
    if rope_width > head_size || rope_width % 2 != 0 {
        return refuse(format!("rotating {rope_width} of {head_size} values of a head"));
    }
    if let Some(scaling) = metadata.opt_string(&key("rope.scaling.type"))?
        && scaling != "none"
    {
        return refuse(format!("RoPE scaling of type {scaling}"));
    }
    if metadata.opt_f32(&key("rope.scale_linear"))?.is_some_and(|scale| scale != 1.0) {
        return refuse("linear RoPE scaling".into());
    }
    if metadata.opt_u32(&key("expert_count"))?.is_some_and(|count| count > 0) {
        return refuse("a mixture of experts".into());
    }
    let vocabulary = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| LoadError::MissingTensor { name: "token_embd.weight".into() })?
        .rows();
    let norm_epsilon = metadata.f32(&key("attention.layer_norm_rms_epsilon"))?;
    let rope_base = metadata.opt_f32(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    if norm_epsilon < 0.0 || rope_base <= 0.0 {
        return refuse(format!("a norm epsilon of {norm_epsilon} or a RoPE base of {rope_base}"));
    }
    Ok(Spec {
        layers: size("block_count")?,
        embedding,
        heads,
        kv_heads,
        head_size,
        feed_forward: size("feed_forward_length")?,
        vocabulary: usize::try_from(vocabulary)
            .map_err(|_| LoadError::Unsupported { what: format!("a vocabulary of {vocabulary}") })?,
        context: size("context_length")?,
        norm_epsilon,
        rope_layout: family.rope_layout,
        rope_width,
        rope_base,
        sliding_window: 0,
        sliding_layers: Vec::new(),
        attention_scale: 1.0 / libm::sqrtf(head_size as f32),
        attention_softcap: 0.0,
        logit_softcap: 0.0,
        float_weights: gguf.tensors.iter().any(|tensor| {
            tensor.rows() > 1 && crate::quant::by_id(tensor.kind).is_some_and(|format| format.forms().floats)
        }),
    })
}
