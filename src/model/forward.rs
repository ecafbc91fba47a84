//! The forward pass, readable top to bottom.

use super::weights::{Affine, Attention, Dense, FeedForward, Layer, Matrix, Mixer, Norm};
use super::{Activation, Model, NormKind, QkNorm, Spec, experts};
use crate::ops::attention::{self, Scoring};
use crate::ops::matmul::{self, View, matmul, matmul_add, matmul_with};
use crate::ops::{elementwise, norm, rope};
use crate::pool::{Pool, run_cells};
use crate::quant::Inputs;
use crate::session::Runtime;
use crate::session::cache::Cache;
use crate::session::scratch::{Scratch, Sized};
use crate::simd::Level;

/// The user asked to stop; what the cache holds past the position is not to be used.
pub struct Stopped;

/// Tokens of one unit of attention: few enough for all cores to end together, though later tokens look back further.
const ATTENTION_TOKENS: usize = 4;
/// From so many tokens on, what is done to each of them is shared out.
const MANY: usize = 8;

/// What all steps of a pass share.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub model: &'a Model,
    pub spec: &'a Spec,
    pub level: Level,
    pub pool: &'a dyn Pool,
    /// Tokens that are run.
    pub count: usize,
    /// That of the first of them.
    pub position: usize,
}

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
    let (spec, weights) = (&model.spec, &model.weights);
    let pass = Pass { model, spec, level: model.level, pool: runtime.pool, count: tokens.len(), position };
    let context = s.context;
    let s = &mut s.sized(tokens.len());
    pass.embed(s, tokens);
    pass.rotations(s, context);
    for (index, layer) in weights.layers.iter().enumerate() {
        if (runtime.stop)() {
            return Err(Stopped);
        }
        let Mixer::Attention(attention) = &layer.mixer;
        pass.queries_keys_values(s, cache, index, attention);
        pass.attend(s, cache, index);
        if spec.parallel {
            // What attention read is still there, and nothing has been added to the hidden state.
            if let Some(norm) = &layer.ffn_norm {
                pass.normed(s.inputs, s.x, spec.embedding, norm);
            }
            pass.feed_forward_up(s, layer);
            pass.attention_output(s, attention);
        } else {
            pass.attention_output(s, attention);
            pass.prepared(s, layer.ffn_norm.as_ref());
            pass.feed_forward_up(s, layer);
        }
        pass.feed_forward_down(s, layer);
        done(index + 1);
    }
    Ok(())
}

impl Pass<'_> {
    /// Hidden states before the first layer.
    fn embed(&self, s: &mut Sized<'_>, tokens: &[u32]) {
        let (spec, weights) = (self.spec, &self.model.weights);
        let table = weights.view(&weights.embedding);
        for (x, &token) in s.x.chunks_exact_mut(spec.embedding).zip(tokens) {
            table.dequantize_row(token as usize, x);
            if spec.embedding_scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= spec.embedding_scale);
            }
        }
        if let Some(positions) = &weights.positions {
            let row = &mut s.projected[..spec.embedding];
            for (index, x) in s.x.chunks_exact_mut(spec.embedding).enumerate() {
                weights.view(positions).dequantize_row(self.position + index, row);
                elementwise::add(x, row);
            }
        }
    }

    /// Cosines and sines: those of all layers, then those of layers with a sliding window, if they have their own.
    fn rotations(&self, s: &mut Sized<'_>, context: usize) {
        let spec = self.spec;
        if spec.rope_width == 0 {
            return;
        }
        let sliding = spec.sliding_layers.iter().position(|&sliding| sliding).unwrap_or(0);
        let global = spec.sliding_layers.iter().position(|&sliding| !sliding).unwrap_or(0);
        let tables = s.rotations.chunks_exact_mut(self.count * spec.rope_width);
        for (tables, layer) in tables.zip([global, sliding]) {
            let rotation = self.model.rotation(layer, context);
            for (index, table) in tables.chunks_exact_mut(spec.rope_width).enumerate() {
                rotation.table(table, self.position + index);
            }
        }
    }

    /// Query, key and value: one product, count × (query width + 2 kv width). Rotated, and the latter two in the cache.
    fn queries_keys_values(&self, s: &mut Sized<'_>, cache: &mut Cache, index: usize, layer: &Attention) {
        let Self { spec, level, .. } = *self;
        let (wide, narrow, size) = (spec.query_width(), spec.kv_width(), spec.head_size);
        self.prepared(s, layer.norm.as_ref());
        self.project(s.qkv, &layer.qkv, s.inputs, &layer.qkv_affine);
        let own_table = spec.rope_sliding.is_some() && spec.window(index).is_some();
        let rotations = &s.rotations[usize::from(own_table) * self.count * spec.rope_width..];
        let layout = spec.rope_layout.filter(|_| spec.rotates(index));
        for (i, qkv) in s.qkv.chunks_exact_mut(wide + 2 * narrow).enumerate() {
            let (qk, v) = qkv.split_at_mut(wide + narrow);
            if let Some(over) = spec.qk_norm {
                let (q, k) = qk.split_at_mut(wide);
                for (values, weights) in [(q, &layer.q_norm), (k, &layer.k_norm)] {
                    let span = if over == QkNorm::Head { size } else { values.len() };
                    for (values, weight) in
                        values.chunks_exact_mut(span).zip(weights.chunks_exact(span).cycle())
                    {
                        self.norm_in_place(values, weight);
                    }
                }
            }
            if let Some(layout) = layout {
                let rotation = &rotations[i * spec.rope_width..][..spec.rope_width];
                qk.chunks_exact_mut(size).for_each(|head| rope::rotate(level, head, rotation, layout));
            }
            cache.put(level, index, self.position + i, &qk[wide..], v);
        }
    }

    /// What each query head attends to, count × query width.
    fn attend(&self, s: &mut Sized<'_>, cache: &Cache, index: usize) {
        let Self { spec, level, count, position, .. } = *self;
        let (wide, narrow, size) = (spec.query_width(), spec.kv_width(), spec.head_size);
        let group = spec.heads / spec.kv_heads;
        let scoring = Scoring { scale: spec.attention_scale, softcap: spec.attention_softcap };
        let qkv = &*s.qkv;
        // The query heads that share keys and values (GQA) are one unit.
        run_cells(self.pool, s.attended, count, (group * size, ATTENTION_TOKENS), &|mut band| {
            let (rows, kv_head) = (band.rows(), band.rows().start / (group * size));
            for i in band.columns() {
                let q = &qkv[i * (wide + 2 * narrow)..][rows.clone()];
                let view = cache.view(index, kv_head, position + i);
                attention::attend_group(level, band.column(i), q, view, group, scoring);
            }
        });
    }

    /// Adds what attention gives to the hidden states.
    fn attention_output(&self, s: &mut Sized<'_>, layer: &Attention) {
        let (wide, attended) = (self.spec.query_width(), &*s.attended);
        match &layer.sub_norm {
            Some(norm) => self.normed(s.inputs, attended, wide, norm),
            None => copied(self.pool, s.inputs, attended, wide),
        }
        let norm = layer.post_norm.as_ref();
        self.residual(s.x, s.projected, &layer.output, s.inputs, &layer.output_affine, norm);
    }

    /// The first half of the feed-forward network, from `s.inputs` to `s.gated`; experts are whole already.
    fn feed_forward_up(&self, s: &mut Sized<'_>, layer: &Layer) {
        match &layer.feed_forward {
            FeedForward::Dense(network) => self.up(network, s.inputs, s.gated, s.between),
            FeedForward::Experts(network) => experts::mix(self, s, layer, network),
        }
    }

    /// Gate and up, activated: the input of the down projection.
    pub(super) fn up(&self, network: &Dense, inputs: &Inputs, out: &mut Inputs, between: &mut [f32]) {
        let Self { spec, level, pool, .. } = *self;
        let weights = &self.model.weights;
        let mut views = [weights.view(&network.up[0]); 2];
        for (view, matrix) in views.iter_mut().zip(&network.up) {
            *view = weights.view(matrix);
        }
        let views = &views[..network.up.len()];
        let activate = match spec.activation {
            Activation::Silu => elementwise::silu_gate,
            Activation::Gelu => elementwise::gelu_gate,
        };
        let (first, last) = (&network.up_affines[0], network.up_affines.last());
        let second = last.filter(|_| spec.gated);
        let plain = first.is_none() && second.is_none_or(Affine::is_none);
        let apply = |gates: &mut [f32], ups: &mut [f32], row: usize| {
            first.apply(gates, row);
            if let Some(second) = second {
                second.apply(ups, row);
            }
            activate(level, gates, ups);
        };
        let Some(norm) = &network.sub_norm else {
            match plain {
                true => matmul::gated(pool, level, out, views, inputs, &|gates, ups, _| {
                    activate(level, gates, ups)
                }),
                false => matmul::gated(pool, level, out, views, inputs, &apply),
            }
            return;
        };
        // The norm of all of it comes before the next product, so it is kept as floats.
        let (count, rows) = (inputs.count(), network.up[0].rows());
        let between = &mut between[..count * views.len() * rows];
        matmul(pool, level, between, views, inputs);
        run_cells(pool, between, count, (views.len() * rows, 1), &|mut band| {
            for column in band.columns() {
                let (gates, ups) = band.column(column).split_at_mut(rows);
                apply(gates, ups, 0);
            }
        });
        let (between, stride) = (&*between, views.len() * rows);
        self.normed_at(out, &|token| &between[token * stride..][..rows], count, rows, norm);
    }

    /// The second half: adds what it gives to the hidden states.
    fn feed_forward_down(&self, s: &mut Sized<'_>, layer: &Layer) {
        if let FeedForward::Dense(network) = &layer.feed_forward {
            let norm = layer.ffn_post_norm.as_ref();
            self.residual(s.x, s.projected, &network.down, s.gated, &network.down_affine, norm);
        }
    }

    /// The matrices on one another times every column.
    pub(super) fn project(&self, out: &mut [f32], matrices: &[Matrix], inputs: &Inputs, affine: &Affine) {
        let mut views = [self.model.weights.view(&matrices[0]); 3];
        for (view, matrix) in views.iter_mut().zip(matrices) {
            *view = self.model.weights.view(matrix);
        }
        self.product(out, &views[..matrices.len()], inputs, affine);
    }

    fn product(&self, out: &mut [f32], views: &[View<'_>], inputs: &Inputs, affine: &Affine) {
        match affine.is_none() {
            true => matmul(self.pool, self.level, out, views, inputs),
            false => matmul_with(self.pool, self.level, out, views, inputs, &|out, sums, first| {
                elementwise::copy(out, sums);
                affine.apply(out, first);
            }),
        }
    }

    /// Adds a matrix times every column to `x`: perhaps normed (for which `room` is as large as `x`), scaled, biased.
    fn residual(
        &self,
        x: &mut [f32],
        room: &mut [f32],
        matrix: &Matrix,
        inputs: &Inputs,
        affine: &Affine,
        post_norm: Option<&Norm>,
    ) {
        let scale = self.spec.residual_scale;
        let view = self.model.weights.view(matrix);
        if let Some(norm) = post_norm {
            self.product(room, &[view], inputs, affine);
            self.add_normed(x, room, norm);
        } else if affine.is_none() && scale == 1.0 {
            matmul_add(self.pool, self.level, x, view, inputs);
        } else {
            matmul_with(self.pool, self.level, x, &[view], inputs, &|x, sums, first| {
                let mut products = [0f32; crate::quant::TILE * crate::quant::GROUP];
                let products = &mut products[..sums.len()];
                elementwise::copy(products, sums);
                affine.apply(products, first);
                elementwise::add_scaled(x, scale, products);
            });
        }
    }

    /// Adds the norm of each of `room`'s vectors to `x`'s.
    pub(super) fn add_normed(&self, x: &mut [f32], room: &mut [f32], norm: &Norm) {
        let (size, scale) = (self.spec.embedding, self.spec.residual_scale);
        let one = |x: &mut [f32], values: &[f32]| {
            // Stretches of the norm, so that no worker needs a buffer.
            let mut normed = [0f32; 32];
            let moments = self.moments(values);
            for first in (0..size).step_by(normed.len()) {
                let normed = &mut normed[..(size - first).min(32)];
                self.norm_stretch(normed, values, moments, norm, first);
                match scale == 1.0 {
                    true => elementwise::add(&mut x[first..][..normed.len()], normed),
                    false => elementwise::add_scaled(&mut x[first..][..normed.len()], scale, normed),
                }
            }
        };
        let count = x.len() / size;
        if count < MANY {
            x.chunks_exact_mut(size).zip(room.chunks_exact(size)).for_each(|(x, values)| one(x, values));
        } else {
            let room = &*room;
            run_cells(self.pool, x, count, (size, 1), &|mut band| {
                for token in band.columns() {
                    one(band.column(token), &room[token * size..][..size]);
                }
            });
        }
    }

    /// Makes the hidden states, or their norms, the input of the next product.
    fn prepared(&self, s: &mut Sized<'_>, norm: Option<&Norm>) {
        match norm {
            Some(norm) => self.normed(s.inputs, s.x, self.spec.embedding, norm),
            None => copied(self.pool, s.inputs, s.x, self.spec.embedding),
        }
    }

    /// Makes the norm of every vector of `size` values in `x` the input of the next product.
    pub(super) fn normed(&self, inputs: &mut Inputs, x: &[f32], size: usize, norm: &Norm) {
        self.normed_at(inputs, &|token| &x[token * size..][..size], x.len() / size, size, norm);
    }

    /// The same of `count` vectors, wherever they are.
    pub(super) fn normed_at<'x>(
        &self,
        inputs: &mut Inputs,
        vector: &(dyn Fn(usize) -> &'x [f32] + Sync),
        count: usize,
        size: usize,
        norm: &Norm,
    ) {
        let prepare = |token: usize| {
            let x = vector(token);
            (x, self.moments(x))
        };
        inputs.fill(self.pool, size, count, &prepare, &|(x, moments), first, out| {
            self.norm_stretch(out, x, *moments, norm, first);
        });
    }

    /// Mean (of an RMS norm 0) and scale of a vector.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        match self.spec.norm {
            NormKind::Rms => (0.0, norm::rms_scale(self.level, x, self.spec.norm_epsilon)),
            NormKind::Layer => norm::layer_scale(x, self.spec.norm_epsilon),
        }
    }

    /// Some values of a norm, from `first` on.
    fn norm_stretch(&self, out: &mut [f32], x: &[f32], moments: (f32, f32), norm: &Norm, first: usize) {
        let len = out.len();
        let (x, weight) = (&x[first..][..len], &norm.weight[first..][..len]);
        match self.spec.norm {
            NormKind::Rms => norm::scaled(self.level, out, x, moments.1, weight),
            NormKind::Layer => norm::centred(out, x, moments, weight, norm.bias.get(first..first + len)),
        }
    }

    /// The norm of queries or keys, without a bias.
    fn norm_in_place(&self, values: &mut [f32], weight: &[f32]) {
        let (mean, scale) = self.moments(values);
        for (x, weight) in values.iter_mut().zip(weight) {
            *x = (*x - mean) * scale * weight;
        }
    }
}

/// Makes every vector of `size` values in `x` the input of the next product.
fn copied(pool: &dyn Pool, inputs: &mut Inputs, x: &[f32], size: usize) {
    inputs.fill(pool, size, x.len() / size, &|token| &x[token * size..][..size], &|token, first, out| {
        elementwise::copy(out, &token[first..]);
    });
}

/// What is done to logits: scaled, biased, capped.
fn finish(model: &Model, logits: &mut [f32], first: usize) {
    let spec = &model.spec;
    model.weights.head_affine.apply(logits, first);
    if spec.logit_scale != 1.0 {
        logits.iter_mut().for_each(|logit| *logit *= spec.logit_scale);
    }
    if spec.logit_softcap > 0.0 {
        elementwise::soft_cap(model.level, logits, spec.logit_softcap);
    }
}

/// Anything is done to them.
fn finishes(model: &Model) -> bool {
    let spec = &model.spec;
    !model.weights.head_affine.is_none() || spec.logit_scale != 1.0 || spec.logit_softcap > 0.0
}

/// The norms of `count` hidden states from `first` on are the input of the head.
fn head_inputs(model: &Model, s: &mut Scratch, first: usize, count: usize, runtime: &Runtime<'_>) {
    let (spec, pool) = (&model.spec, runtime.pool);
    let pass = Pass { model, spec, level: model.level, pool, count, position: 0 };
    let x = &s.x[first * spec.embedding..][..count * spec.embedding];
    pass.normed(&mut s.inputs, x, spec.embedding, &model.weights.output_norm);
}

/// Logits of the hidden state `index` of the last [`layers`], into `s.logits` (vocabulary floats).
pub fn head(model: &Model, s: &mut Scratch, index: usize, runtime: &Runtime<'_>) {
    head_inputs(model, s, index, 1, runtime);
    let views = [model.weights.view(&model.weights.head)];
    match finishes(model) {
        false => matmul(runtime.pool, model.level, &mut s.logits, &views, &s.inputs),
        true => {
            matmul_with(runtime.pool, model.level, &mut s.logits, &views, &s.inputs, &|out, sums, first| {
                elementwise::copy(out, sums);
                finish(model, out, first);
            })
        }
    }
}

/// The likeliest token after each of the hidden states from `first` on, as many as `best` has (at most a group): the lowest
/// of those with the largest logit. The logits themselves are not kept.
pub fn likeliest(model: &Model, s: &mut Scratch, first: usize, best: &mut [u32], runtime: &Runtime<'_>) {
    head_inputs(model, s, first, best.len(), runtime);
    let head = model.weights.view(&model.weights.head);
    let finish = |logits: &mut [f32], first: usize| finish(model, logits, first);
    let finish: Option<matmul::Finish<'_>> = if finishes(model) { Some(&finish) } else { None };
    matmul::best(runtime.pool, model.level, best, head, &s.inputs, finish, &mut s.best_room);
}
