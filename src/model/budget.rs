//! Bytes needed for weights, cache and scratch, before anything is allocated.

use super::LoadError;
use super::families;
use super::spec::Spec;
use crate::gguf::Gguf;
use crate::session;

/// What a model takes of the memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tensor data; 0 bytes more where the boot loader has put them already.
    pub weights: u64,
    /// Keys and values of a full context.
    pub cache: u64,
    /// Activations, logits and the rest that a session reserves.
    pub scratch: u64,
    /// Vocabulary and merges.
    pub tokenizer: u64,
    /// The context that `cache` is for, in tokens.
    pub context: usize,
    /// Cache bytes a token of context takes.
    cache_per_token: u64,
}

impl Budget {
    /// The needs of a model with this much context.
    pub fn of(gguf: &Gguf, context: usize) -> Result<Self, LoadError> {
        let spec = families::spec(gguf)?;
        Ok(Self::with_spec(gguf, &spec, context))
    }

    pub(crate) fn with_spec(gguf: &Gguf, spec: &Spec, context: usize) -> Self {
        let text = |key: &str| match gguf.metadata.opt_strings(key) {
            // Strings once in the metadata and once, with tables, in the tokenizer.
            Ok(Some(strings)) => 2 * (strings.byte_len() + 16 * strings.len()) as u64,
            _ => 0,
        };
        let cache_per_token = session::cache_bytes(spec, session::KvFormat::F16, 1);
        Self {
            weights: gguf.tensors.iter().map(|info| info.bytes).sum(),
            cache: cache_per_token.saturating_mul(context as u64),
            scratch: session::scratch_bytes(spec, context),
            tokenizer: text("tokenizer.ggml.tokens") + text("tokenizer.ggml.merges"),
            context,
            cache_per_token,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.scratch).saturating_add(self.tokenizer)
    }

    /// The largest context that fits into so much memory, in tokens; 0 if even the weights do not.
    pub fn largest_context(&self, free: u64) -> usize {
        let fixed = self.weights + self.tokenizer + self.scratch;
        usize::try_from(free.saturating_sub(fixed) / self.cache_per_token.max(1)).unwrap_or(usize::MAX)
    }
}
