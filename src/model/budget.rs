//! Bytes needed for weights, cache and scratch, before anything is allocated.

use super::LoadError;
use super::families;
use super::spec::Spec;
use crate::gguf::Gguf;
use crate::session::{self, KvFormat};

/// What a model takes of the memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tensor data; 0 bytes more where the boot loader has put them already.
    pub weights: u64,
    /// Keys and values of a full context. Layers with a sliding window keep no more than that and a batch.
    pub cache: u64,
    /// Activations, logits and the rest that a session reserves.
    pub scratch: u64,
    /// Vocabulary and merges.
    pub tokenizer: u64,
    /// The context that `cache` is for, in tokens.
    pub context: usize,
    /// What keys and values are kept as.
    pub kv: KvFormat,
}

impl Budget {
    /// The needs of a model with this much context, keys and values in this format, or in F16 where it does not fit the
    /// model's heads.
    pub fn of(gguf: &Gguf, context: usize, kv: KvFormat) -> Result<Self, LoadError> {
        let spec = families::spec(gguf)?;
        Ok(Self::with_spec(gguf, &spec, context, kv))
    }

    pub(crate) fn with_spec(gguf: &Gguf, spec: &Spec, context: usize, kv: KvFormat) -> Self {
        let text = |key: &str, copies: usize, each: usize| match gguf.metadata.opt_strings(key) {
            Ok(Some(strings)) => (copies * strings.byte_len() + each * strings.len()) as u64,
            _ => 0,
        };
        // Until the model is loaded the metadata are there too. Tokens: their text, its places in the file's spelling and
        // as shown; type, score, hash table. Merges: their text, three numbers, hash table.
        let tokenizer = text("tokenizer.ggml.tokens", 3, 37) + text("tokenizer.ggml.merges", 1, 28);
        Self {
            weights: gguf.tensors.iter().map(|info| info.bytes).sum(),
            cache: session::cache_bytes(spec, kv, context),
            scratch: session::scratch_bytes(spec, context),
            tokenizer,
            context,
            kv: kv.for_model(spec),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.scratch).saturating_add(self.tokenizer)
    }

    /// The largest context that fits into so much memory, in tokens, at most what the model was made for; 0 if not one
    /// token does.
    pub(crate) fn largest_with_spec(gguf: &Gguf, spec: &Spec, kv: KvFormat, free: u64) -> usize {
        let fits = |context| Self::with_spec(gguf, spec, context, kv).total() <= free;
        let (mut few, mut many) = (0, spec.context);
        if fits(many) {
            return many;
        }
        while many - few > 1 {
            let middle = few + (many - few) / 2;
            if fits(middle) { few = middle } else { many = middle }
        }
        few
    }
}
