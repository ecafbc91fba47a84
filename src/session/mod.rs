//! Session: one conversation in time. Feed tokens, get logits, rewind.

pub(crate) mod cache;
pub(crate) mod scratch;
#[cfg(test)]
mod tests;

use crate::model::forward::{self, Stopped};
use crate::model::{Mib, Model, Spec};
use crate::pool::Pool;
use alloc::sync::Arc;
use alloc::vec::Vec;
use cache::Cache;
pub use cache::KvFormat;
use core::fmt;
use scratch::Scratch;

/// Tokens run through the layers at once when a prompt is prefilled, if scratch for so many is to be had.
pub const BATCH: usize = scratch::MOST;
/// Tokens that [`Session::feed_likeliest`] tells of at once.
pub const GROUP: usize = crate::quant::GROUP;

/// What a forward pass runs on, and how to stop it.
#[derive(Clone, Copy)]
pub struct Runtime<'a> {
    /// The workers.
    pub pool: &'a dyn Pool,
    /// A clock: nanoseconds from an arbitrary start.
    pub nanos: &'a dyn Fn() -> u64,
    /// Whether to stop; asked once a layer and once a token.
    pub stop: &'a dyn Fn() -> bool,
}

/// Bytes of keys and values for a context.
pub(crate) fn cache_bytes(spec: &Spec, kv: KvFormat, context: usize) -> u64 {
    cache::bytes(spec, kv.for_model(spec), context, Scratch::batch(spec, context))
}

/// Bytes of everything else that a session reserves.
pub(crate) fn scratch_bytes(spec: &Spec, context: usize) -> u64 {
    (Scratch::bytes(spec, Scratch::batch(spec, context)) as u64).saturating_add(4 * context as u64)
}

/// One sequence of tokens and the state that the model has after each.
pub struct Session {
    model: Arc<Model>,
    cache: Cache,
    scratch: Scratch,
    tokens: Vec<u32>,
    /// Positions that have been written since the cache was empty: what sliding windows have lost follows from it.
    written: usize,
    context: usize,
    batch: usize,
}

impl Session {
    /// An empty session with room for `context` tokens, all its memory reserved now; keys and values in binary16.
    pub fn new(model: Arc<Model>, context: usize) -> Result<Self, SessionError> {
        Self::with_kv(model, context, KvFormat::F16)
    }

    /// [`Self::new`] with keys and values kept in this format, or in F16 where it does not fit the model's heads
    /// ([`KvFormat::fits`]).
    pub fn with_kv(model: Arc<Model>, context: usize, kv: KvFormat) -> Result<Self, SessionError> {
        let spec = model.spec();
        let kv = kv.for_model(spec);
        if context == 0 {
            return Err(SessionError::NoContext);
        }
        if spec.learned_positions && context > spec.context {
            return Err(SessionError::TooFar { context, positions: spec.context });
        }
        let mut tokens = Vec::new();
        let no_memory = || SessionError::OutOfMemory {
            context,
            bytes: cache_bytes(spec, kv, context).saturating_add(scratch_bytes(spec, context)),
        };
        tokens.try_reserve_exact(context).map_err(|_| no_memory())?;
        let batch = Scratch::batch(spec, context);
        Ok(Self {
            cache: Cache::new(spec, kv, context, batch).ok_or_else(no_memory)?,
            scratch: Scratch::new(spec, model.level(), batch, context).ok_or_else(no_memory)?,
            tokens,
            written: 0,
            context,
            batch,
            model,
        })
    }

    /// Appends tokens; gives the logits after the last (vocabulary floats), which the caller may change.
    ///
    /// When stopped, the session is as it was before the call, or empty if sliding windows have moved on too far for that
    /// ([`Self::rewind`]).
    pub fn feed(&mut self, tokens: &[u32], runtime: &Runtime<'_>) -> Result<&mut [f32], SessionError> {
        self.feed_reporting(tokens, runtime, &mut |_| {})
    }

    /// [`Self::feed`] that tells how many tokens are done, as if those of a batch were done one after the other.
    pub fn feed_reporting(
        &mut self,
        tokens: &[u32],
        runtime: &Runtime<'_>,
        report: &mut dyn FnMut(usize),
    ) -> Result<&mut [f32], SessionError> {
        let last = self.run(tokens, 1, runtime, report, &mut |_, _, _| {})?;
        forward::head(&self.model, &mut self.scratch, last, runtime);
        Ok(&mut self.scratch.logits)
    }

    /// Appends tokens; gives the likeliest next one after each of the last `best.len()` of them (at most [`GROUP`]): the
    /// lowest of those with the largest logit, as a greedy sampler would choose from [`Self::feed`]'s logits. No
    /// logits are kept, and [`Self::logits_and_tokens`] has none to give afterwards.
    ///
    /// # Panics
    /// If `best` is empty or longer than `tokens`, a batch or a group.
    pub fn feed_likeliest(
        &mut self,
        tokens: &[u32],
        best: &mut [u32],
        runtime: &Runtime<'_>,
        report: &mut dyn FnMut(usize),
    ) -> Result<(), SessionError> {
        let wanted = best.len();
        assert!((1..=GROUP).contains(&wanted), "a group at most");
        assert!(wanted <= tokens.len().max(1), "a token for each");
        let last = self.run(tokens, wanted, runtime, report, &mut |_, _, _| {})?;
        forward::likeliest(&self.model, &mut self.scratch, last + 1 - wanted, best, runtime);
        Ok(())
    }

    /// Appends tokens and shows the logits after each: position, vocabulary floats.
    pub fn feed_each(
        &mut self,
        tokens: &[u32],
        runtime: &Runtime<'_>,
        show: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), SessionError> {
        let (model, start) = (self.model.clone(), self.tokens.len());
        self.run(tokens, 1, runtime, &mut |_| {}, &mut |scratch, count, done| {
            for index in 0..count {
                forward::head(&model, scratch, index, runtime);
                show(start + done - count + index, &scratch.logits);
            }
        })?;
        Ok(())
    }

    /// Runs all tokens in batches, the last of which has at least the last `together` tokens; `after(scratch, tokens of
    /// this batch, tokens done)`. A batch of many tokens takes a board long, so `report(tokens done)` counts the layers
    /// that they have gone through. Gives the index of the last token in its batch.
    fn run(
        &mut self,
        tokens: &[u32],
        together: usize,
        runtime: &Runtime<'_>,
        report: &mut dyn FnMut(usize),
        after: &mut dyn FnMut(&mut Scratch, usize, usize),
    ) -> Result<usize, SessionError> {
        let start = self.tokens.len();
        if tokens.is_empty() {
            return Err(SessionError::NoTokens);
        }
        if tokens.len() > self.context - start {
            return Err(SessionError::Full { tokens: tokens.len(), used: start, context: self.context });
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.model.spec().vocabulary) {
            return Err(SessionError::Token { token });
        }
        let mut last = 0;
        let mut rest = tokens;
        while !rest.is_empty() {
            let mut size = rest.len().min(self.batch.max(together));
            if size < rest.len() {
                size = size.min(rest.len() - together).max(1);
            }
            let (batch, after_it) = rest.split_at(size);
            rest = after_it;
            let position = self.tokens.len();
            let layers = self.model.spec().layers;
            let mut told = position - start;
            let mut layer_done = |layer: usize| {
                let done = position - start + batch.len() * layer / layers;
                if done > told {
                    told = done;
                    report(done);
                }
            };
            self.written = self.written.max(position + batch.len());
            let (scratch, cache) = (&mut self.scratch, &mut self.cache);
            let ran = forward::layers(&self.model, scratch, cache, batch, position, runtime, &mut layer_done);
            if let Err(Stopped) = ran {
                self.rewind(start);
                return Err(SessionError::Stopped);
            }
            self.tokens.extend_from_slice(batch);
            after(&mut self.scratch, batch.len(), self.tokens.len() - start);
            last = batch.len() - 1;
        }
        Ok(last)
    }

    /// The logits after the last token fed, and all tokens fed.
    pub fn logits_and_tokens(&mut self) -> (&mut [f32], &[u32]) {
        (&mut self.scratch.logits, &self.tokens)
    }
    /// Tokens fed so far.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }
    /// Tokens that fit.
    pub fn context(&self) -> usize {
        self.context
    }
    /// The tokens fed so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
    /// Forgets all tokens from `position` on, or all there are: layers with a sliding window keep their window and a batch,
    /// and if the rest has been run past that, what a token at `position` would look back to is gone. Gives the
    /// number of tokens that are left, `position` or 0.
    pub fn rewind(&mut self, position: usize) -> usize {
        let position = position.min(self.tokens.len());
        let left = if self.cache.reaches(position, self.written) { position } else { 0 };
        self.tokens.truncate(left);
        if left == 0 {
            self.written = 0;
        }
        left
    }
    /// What keys and values are kept as.
    pub fn kv(&self) -> KvFormat {
        self.cache.format()
    }
    /// Tokens that are prefilled at once.
    pub fn batch(&self) -> usize {
        self.batch
    }
    /// Sets how many tokens are prefilled at once: 1 to what scratch was reserved for, which is [`BATCH`] or, where
    /// the context or 8 MiB hold fewer, less. The logits are the same for all.
    pub fn set_batch(&mut self, batch: usize) {
        self.batch = batch.clamp(1, Scratch::batch(self.model.spec(), self.context));
    }
    /// Bytes of keys and values, and of everything else that is reserved.
    pub fn bytes(&self) -> (u64, u64) {
        let spec = self.model.spec();
        (cache_bytes(spec, self.kv(), self.context), scratch_bytes(spec, self.context))
    }
}

/// Why tokens could not be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// A context of no tokens was asked for.
    NoContext,
    /// A context of more positions than the model has learned.
    TooFar {
        /// The context asked for, in tokens.
        context: usize,
        /// Positions that there are.
        positions: usize,
    },
    /// Nothing to feed.
    NoTokens,
    /// A token that the vocabulary lacks.
    Token {
        /// Its number.
        token: u32,
    },
    /// The context has not enough room.
    Full {
        /// Tokens to be fed.
        tokens: usize,
        /// Tokens that are there.
        used: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// Memory for the session could not be reserved.
    OutOfMemory {
        /// The context asked for, in tokens.
        context: usize,
        /// Bytes that it needs.
        bytes: u64,
    },
    /// The user asked to stop.
    Stopped,
    /// The chat template could not be rendered.
    Template(crate::chat::jinja::Error),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(error) => {
                write!(
                    f,
                    "the chat template failed ({error}): `reset` starts afresh, `set template NAME` (on a PC `--template NAME`) chooses another"
                )
            }
            Self::NoContext => f.write_str("a context of 0 tokens holds nothing: choose at least 1"),
            Self::TooFar { context, positions } => write!(
                f,
                "a context of {context} tokens is more than this model's {positions} positions: set ctx to at most {positions}"
            ),
            Self::NoTokens => f.write_str("there is nothing to run: the text is empty"),
            Self::Token { token } => write!(f, "token {token} is not in the vocabulary"),
            Self::Full { tokens, used: 0, context } => {
                write!(
                    f,
                    "the text is {tokens} tokens long and the context holds {context}: shorten it or set a larger ctx"
                )
            }
            Self::Full { tokens, used, context } => {
                write!(
                    f,
                    "{tokens} more tokens do not fit: {used} of {context} are used; shorten the text, reset the conversation or set a larger ctx"
                )
            }
            Self::OutOfMemory { context, bytes } => {
                write!(
                    f,
                    "a context of {context} tokens needs {} and that is not free: set a smaller ctx",
                    Mib(*bytes)
                )
            }
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl core::error::Error for SessionError {}
