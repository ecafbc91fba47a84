//! Scratch: the buffers of a forward pass, reserved once.

use crate::model::Spec;
use crate::ops::matmul::best_room;
use crate::quant::{Forms, GROUP, Inputs};
use crate::simd::Level;
use alloc::vec::Vec;

/// Tokens run through the layers at once, at most.
pub const MOST: usize = 512;
/// Bytes that a batch may take: what bounds it for large models.
const BOUND: usize = 8 << 20;

/// Buffers for up to `batch` tokens at once. Shapes are tokens × values.
pub struct Scratch {
    embedding: usize,
    wide: usize,
    narrow: usize,
    rope_width: usize,
    /// Hidden states: batch × embedding.
    pub x: Vec<f32>,
    /// The input of the products that read hidden states or what attention gave.
    pub inputs: Inputs,
    gated: Inputs,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    rotations: Vec<f32>,
    /// Vocabulary.
    pub logits: Vec<f32>,
    /// Scratch of the search for the best logits of up to [`GROUP`] tokens.
    pub best_room: Vec<f32>,
}

/// The same buffers, cut to the number of tokens at hand.
pub struct Sized<'a> {
    /// Hidden states: count × embedding.
    pub x: &'a mut [f32],
    /// The input of the products that read hidden states or what attention gave.
    pub inputs: &'a mut Inputs,
    /// The input of the down projection.
    pub gated: &'a mut Inputs,
    /// count × (query width + 2 × kv width).
    pub qkv: &'a mut [f32],
    /// count × query width.
    pub attended: &'a mut [f32],
    /// count × rope width: cosine and sine of each pair.
    pub rotations: &'a mut [f32],
}

fn forms(spec: &Spec) -> Forms {
    Forms { floats: spec.float_weights, blocks: true }
}

fn input_width(spec: &Spec) -> usize {
    spec.embedding.max(spec.query_width())
}

impl Scratch {
    /// Tokens that are run at once in a context of so many.
    pub fn batch(spec: &Spec, context: usize) -> usize {
        let fits = BOUND / Self::token_bytes(spec) / GROUP * GROUP;
        fits.clamp(GROUP, MOST).min(context.next_multiple_of(GROUP))
    }

    /// Buffers for `batch` tokens; `None` if memory does not suffice.
    pub fn new(spec: &Spec, level: Level, batch: usize) -> Option<Self> {
        let floats = |count: usize| {
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(count).ok()?;
            buffer.resize(count, 0f32);
            Some(buffer)
        };
        let (wide, narrow) = (spec.query_width(), spec.kv_width());
        Some(Self {
            embedding: spec.embedding,
            wide,
            narrow,
            rope_width: spec.rope_width,
            x: floats(batch * spec.embedding)?,
            inputs: Inputs::with_capacity(level, input_width(spec), batch, forms(spec))?,
            gated: Inputs::with_capacity(level, spec.feed_forward, batch, forms(spec))?,
            qkv: floats(batch * (wide + 2 * narrow))?,
            attended: floats(batch * wide)?,
            rotations: floats(batch * spec.rope_width)?,
            logits: floats(spec.vocabulary)?,
            best_room: floats(best_room(spec.vocabulary, GROUP))?,
        })
    }

    /// Bytes that a token of a batch takes.
    fn token_bytes(spec: &Spec) -> usize {
        let floats = spec.embedding + 2 * spec.query_width() + 2 * spec.kv_width() + spec.rope_width;
        let inputs = |width| Inputs::bytes(width, 1, forms(spec));
        4 * floats + inputs(input_width(spec)) + inputs(spec.feed_forward)
    }

    /// Bytes that [`Self::new`] takes.
    pub fn bytes(spec: &Spec, batch: usize) -> usize {
        4 * (spec.vocabulary + best_room(spec.vocabulary, GROUP)) + batch * Self::token_bytes(spec)
    }

    /// The buffers for `count` tokens.
    pub fn sized(&mut self, count: usize) -> Sized<'_> {
        Sized {
            x: &mut self.x[..count * self.embedding],
            inputs: &mut self.inputs,
            gated: &mut self.gated,
            qkv: &mut self.qkv[..count * (self.wide + 2 * self.narrow)],
            attended: &mut self.attended[..count * self.wide],
            rotations: &mut self.rotations[..count * self.rope_width],
        }
    }
}
