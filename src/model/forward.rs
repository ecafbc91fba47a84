//! The forward pass, readable top to bottom.

use super::Model;
use crate::ops::matmul::matmul;
use crate::ops::{attention, elementwise, norm, rope};
use crate::pool::run_bands;
use crate::session::Runtime;
use crate::session::cache::Cache;
use crate::session::scratch::Scratch;

/// The user asked to stop; what the cache holds past the position is not to be used.
pub struct Stopped;

/// Runs `tokens` (each below the vocabulary) at positions `position` and on through all layers. Leaves their
/// hidden states in `s.x`, one after the other, and their keys and values in the cache.
///
/// Every position goes through the same operations in the same order however many are run at once.
pub fn layers(
    model: &Model,
    s: &mut Scratch,
    cache: &mut Cache,
    tokens: &[u32],
    position: usize,
    runtime: &Runtime<'_>,
) -> Result<(), Stopped> {
    let (spec, weights, level, pool) = (&model.spec, &model.weights, model.level, runtime.pool);
    let count = tokens.len();
    let (embedding, wide, narrow) = (spec.embedding, spec.query_width(), spec.kv_width());
    let s = &mut s.sized(count);

    let table = weights.view(&weights.embedding);
    for (x, &token) in s.x.chunks_exact_mut(embedding).zip(tokens) {
        table.dequantize_row(token as usize, x);
    }
    for (index, rotation) in s.rotations.chunks_exact_mut(spec.rope_width).enumerate() {
        rope::table(rotation, &model.frequencies, position + index);
    }

    for (index, layer) in weights.layers.iter().enumerate() {
        if (runtime.stop)() {
            return Err(Stopped);
        }
        // Attention: q, k and v are one product, count × (wide + 2 narrow).
        s.normed(level, count, &layer.attention_norm, spec.norm_epsilon);
        matmul(pool, level, s.qkv, &[&layer.q, &layer.k, &layer.v].map(|m| weights.view(m)), s.inputs);
        for (i, qkv) in s.qkv.chunks_exact_mut(wide + 2 * narrow).enumerate() {
            let rotation = &s.rotations[i * spec.rope_width..][..spec.rope_width];
            let (qk, v) = qkv.split_at_mut(wide + narrow);
            qk.chunks_exact_mut(spec.head_size)
                .for_each(|head| rope::rotate(level, head, rotation, spec.rope_layout));
            cache.put(level, index, position + i, &qk[wide..], v);
        }
        let (qkv, cache) = (&*s.qkv, &*cache);
        let scale = 1.0 / libm::sqrtf(spec.head_size as f32);
        run_bands(pool, s.attended, count, spec.head_size, &|_, mut band| {
            let first = band.first_row() / spec.head_size;
            for i in 0..count {
                let q = &qkv[i * (wide + 2 * narrow)..][..wide];
                for (j, out) in band.column(i).chunks_exact_mut(spec.head_size).enumerate() {
                    let q = &q[(first + j) * spec.head_size..][..spec.head_size];
                    let kv_head = (first + j) / (spec.heads / spec.kv_heads);
                    let (keys, values) = cache.head(index, kv_head, position + i + 1);
                    attention::attend(level, out, q, keys, values, scale);
                }
            }
        });
        s.inputs.set(wide, count, |out| out.copy_from_slice(s.attended));
        matmul(pool, level, s.projected, &[weights.view(&layer.output)], s.inputs);
        elementwise::add(s.x, s.projected);

        // Feed-forward: gate and up are one product, count × 2 feed_forward.
        s.normed(level, count, &layer.ffn_norm, spec.norm_epsilon);
        matmul(pool, level, s.gate_up, &[&layer.gate, &layer.up].map(|m| weights.view(m)), s.inputs);
        s.inputs.set(spec.feed_forward, count, |out| {
            let pairs = s.gate_up.chunks_exact(2 * spec.feed_forward);
            for (gated, pair) in out.chunks_exact_mut(spec.feed_forward).zip(pairs) {
                let (gate, up) = pair.split_at(spec.feed_forward);
                gated.copy_from_slice(gate);
                elementwise::silu_gate(level, gated, up);
            }
        });
        matmul(pool, level, s.projected, &[weights.view(&layer.down)], s.inputs);
        elementwise::add(s.x, s.projected);
    }
    Ok(())
}

/// Logits of the hidden state `index` of the last [`layers`], into `s.logits` (vocabulary floats).
pub fn head(model: &Model, s: &mut Scratch, index: usize, runtime: &Runtime<'_>) {
    let (spec, weights) = (&model.spec, &model.weights);
    let x = &s.x[index * spec.embedding..][..spec.embedding];
    s.inputs.set(spec.embedding, 1, |out| norm::rms_norm(model.level, out, x, &weights.output_norm, spec.norm_epsilon));
    matmul(runtime.pool, model.level, &mut s.logits, &[weights.view(&weights.head)], &s.inputs);
}
