//! The forward pass, readable top to bottom.

use super::Model;
use crate::ops::matmul::{self, matmul, matmul_add};
use crate::ops::{attention, elementwise, norm, rope};
use crate::pool::{Pool, run_cells};
use crate::quant::Inputs;
use crate::session::Runtime;
use crate::session::cache::Cache;
use crate::session::scratch::Scratch;

/// The user asked to stop; what the cache holds past the position is not to be used.
pub struct Stopped;

/// Tokens of one unit of attention: few enough for all cores to end together, though later tokens look back further.
const ATTENTION_TOKENS: usize = 4;

/// Runs `tokens` (each below the vocabulary) at positions `position` and on through all layers. Leaves their
/// hidden states in `s.x`, one after the other, and their keys and values in the cache.
///
/// `done(layers)` is told after each layer.
///
/// Every position goes through the same operations in the same order however many are run at once. There are five
/// jobs for the pool in a layer: q, k and v; attention; output; gate and up; down. Between them the caller alone
/// prepares a token's next input; many tokens' are prepared by all, in jobs of their own.
pub fn layers(
    model: &Model,
    s: &mut Scratch,
    cache: &mut Cache,
    tokens: &[u32],
    position: usize,
    runtime: &Runtime<'_>,
    done: &mut dyn FnMut(usize),
) -> Result<(), Stopped> {
    let (spec, weights, level, pool) = (&model.spec, &model.weights, model.level, runtime.pool);
    let count = tokens.len();
    let (embedding, wide, narrow) = (spec.embedding, spec.query_width(), spec.kv_width());
    let (size, group) = (spec.head_size, spec.heads / spec.kv_heads);
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
        normed(model, pool, s.inputs, s.x, &layer.attention_norm);
        matmul(pool, level, s.qkv, &[&layer.q, &layer.k, &layer.v].map(|m| weights.view(m)), s.inputs);
        for (i, qkv) in s.qkv.chunks_exact_mut(wide + 2 * narrow).enumerate() {
            let rotation = &s.rotations[i * spec.rope_width..][..spec.rope_width];
            let (qk, v) = qkv.split_at_mut(wide + narrow);
            qk.chunks_exact_mut(size).for_each(|head| rope::rotate(level, head, rotation, spec.rope_layout));
            cache.put(level, index, position + i, &qk[wide..], v);
        }
        let (qkv, cache) = (&*s.qkv, &*cache);
        let scale = spec.attention_scale;
        // The query heads that share keys and values (GQA) are one unit.
        let cell = (group * size, ATTENTION_TOKENS);
        run_cells(pool, s.attended, count, cell, &|mut band| {
            let (rows, kv_head) = (band.rows(), band.rows().start / (group * size));
            for i in band.columns() {
                let q = &qkv[i * (wide + 2 * narrow)..][rows.clone()];
                let (keys, values) = cache.head(index, kv_head, position + i + 1);
                attention::attend_group(level, band.column(i), q, keys, values, group, scale);
            }
        });
        let attended = &*s.attended;
        s.inputs.fill(pool, wide, count, &|token| &attended[token * wide..][..wide], &|token, first, out| {
            elementwise::copy(out, &token[first..]);
        });
        matmul_add(pool, level, s.x, weights.view(&layer.output), s.inputs);

        // Feed-forward.
        normed(model, pool, s.inputs, s.x, &layer.ffn_norm);
        let (gate, up) = (weights.view(&layer.gate), weights.view(&layer.up));
        matmul::gated(pool, level, s.gated, gate, up, s.inputs, elementwise::silu_gate);
        matmul_add(pool, level, s.x, weights.view(&layer.down), s.gated);
        done(index + 1);
    }
    Ok(())
}

/// Makes the norm of every hidden state in `x` the input of the next product.
fn normed(model: &Model, pool: &dyn Pool, inputs: &mut Inputs, x: &[f32], weight: &[f32]) {
    let (size, level, epsilon) = (weight.len(), model.level, model.spec.norm_epsilon);
    let scaled = |token: usize| {
        let x = &x[token * size..][..size];
        (x, norm::rms_scale(level, x, epsilon))
    };
    inputs.fill(pool, size, x.len() / size, &scaled, &|(x, scale), first, out| {
        let len = out.len();
        norm::scaled(level, out, &x[first..][..len], *scale, &weight[first..][..len]);
    });
}

/// Logits of the hidden state `index` of the last [`layers`], into `s.logits` (vocabulary floats).
pub fn head(model: &Model, s: &mut Scratch, index: usize, runtime: &Runtime<'_>) {
    let (spec, weights) = (&model.spec, &model.weights);
    let x = &s.x[index * spec.embedding..][..spec.embedding];
    normed(model, runtime.pool, &mut s.inputs, x, &weights.output_norm);
    matmul(runtime.pool, model.level, &mut s.logits, &[weights.view(&weights.head)], &s.inputs);
}

/// The likeliest token after each of the hidden states from `first` on, as many as `best` has (at most a group): the lowest
/// of those with the largest logit. The logits themselves are not kept.
pub fn likeliest(model: &Model, s: &mut Scratch, first: usize, best: &mut [u32], runtime: &Runtime<'_>) {
    let (spec, weights) = (&model.spec, &model.weights);
    let x = &s.x[first * spec.embedding..][..best.len() * spec.embedding];
    normed(model, runtime.pool, &mut s.inputs, x, &weights.output_norm);
    let head = weights.view(&weights.head);
    matmul::best(runtime.pool, model.level, best, head, &s.inputs, &mut s.best_room);
}
