//! Scratch: the buffers of a forward pass, reserved once.

use crate::model::Spec;
use crate::ops::norm::rms_norm;
use crate::quant::Inputs;
use crate::simd::Level;
use alloc::vec::Vec;

/// Buffers for up to `batch` tokens at once. Shapes are tokens × values.
pub struct Scratch {
    embedding: usize,
    wide: usize,
    narrow: usize,
    feed_forward: usize,
    rope_width: usize,
    /// Hidden states: batch × embedding.
    pub x: Vec<f32>,
    /// The input of a product.
    pub inputs: Inputs,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    projected: Vec<f32>,
    gate_up: Vec<f32>,
    rotations: Vec<f32>,
    /// Vocabulary.
    pub logits: Vec<f32>,
}

/// The same buffers, cut to the number of tokens at hand.
pub struct Sized<'a> {
    /// Hidden states: count × embedding.
    pub x: &'a mut [f32],
    /// The input of a product.
    pub inputs: &'a mut Inputs,
    /// count × (query width + 2 × kv width).
    pub qkv: &'a mut [f32],
    /// count × query width.
    pub attended: &'a mut [f32],
    /// count × embedding.
    pub projected: &'a mut [f32],
    /// count × 2 feed forward.
    pub gate_up: &'a mut [f32],
    /// count × rope width: cosine and sine of each pair.
    pub rotations: &'a mut [f32],
}

fn widest(spec: &Spec) -> usize {
    spec.embedding.max(spec.query_width()).max(spec.feed_forward)
}

impl Scratch {
    /// Buffers for `batch` tokens; `None` if memory does not suffice.
    pub fn new(spec: &Spec, batch: usize) -> Option<Self> {
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
            feed_forward: spec.feed_forward,
            rope_width: spec.rope_width,
            x: floats(batch * spec.embedding)?,
            inputs: Inputs::with_capacity(widest(spec), batch)?,
            qkv: floats(batch * (wide + 2 * narrow))?,
            attended: floats(batch * wide)?,
            projected: floats(batch * spec.embedding)?,
            gate_up: floats(batch * 2 * spec.feed_forward)?,
            rotations: floats(batch * spec.rope_width)?,
            logits: floats(spec.vocabulary)?,
        })
    }

    /// Bytes that [`Self::new`] takes.
    pub fn bytes(spec: &Spec, batch: usize) -> usize {
        let a_token = 2 * spec.embedding
            + 2 * spec.query_width()
            + 2 * spec.kv_width()
            + 2 * spec.feed_forward
            + spec.rope_width;
        4 * (batch * a_token + spec.vocabulary) + Inputs::bytes(widest(spec), batch)
    }

    /// The buffers for `count` tokens.
    pub fn sized(&mut self, count: usize) -> Sized<'_> {
        Sized {
            x: &mut self.x[..count * self.embedding],
            inputs: &mut self.inputs,
            qkv: &mut self.qkv[..count * (self.wide + 2 * self.narrow)],
            attended: &mut self.attended[..count * self.wide],
            projected: &mut self.projected[..count * self.embedding],
            gate_up: &mut self.gate_up[..count * 2 * self.feed_forward],
            rotations: &mut self.rotations[..count * self.rope_width],
        }
    }
}

impl Sized<'_> {
    /// Makes the norm of every hidden state the input of the next product.
    pub fn normed(&mut self, level: Level, count: usize, weight: &[f32], epsilon: f32) {
        let size = weight.len();
        let x = &*self.x;
        self.inputs.set(size, count, |out| {
            for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
                rms_norm(level, out, x, weight, epsilon);
            }
        });
    }
}
