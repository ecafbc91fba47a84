//! Scratch: the buffers of a forward pass, reserved once.

use crate::model::{Route, Spec};
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
    rotation_width: usize,
    extra: Extra,
    /// Positions that the session has room for.
    pub context: usize,
    /// Hidden states: batch × embedding.
    pub x: Vec<f32>,
    /// The input of the products that read hidden states or what attention gave.
    pub inputs: Inputs,
    gated: Inputs,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    rotations: Vec<f32>,
    projected: Vec<f32>,
    between: Vec<f32>,
    router: Vec<f32>,
    routes: Vec<Route>,
    chosen: Vec<(usize, f32)>,
    mixed: Vec<f32>,
    some_inputs: Inputs,
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
    /// tables × count × rope width: cosine and sine of each pair.
    pub rotations: &'a mut [f32],
    /// count × embedding: what is not simply added to the hidden states. Only where a model needs it, as all that follows.
    pub projected: &'a mut [f32],
    /// count × 2 feed forward: what is normed between the two halves of a feed-forward network.
    pub between: &'a mut [f32],
    /// count × experts.
    pub router: &'a mut [f32],
    /// count × experts used.
    pub routes: &'a mut [Route],
    /// count: tokens that go through one expert, and how much it counts for each.
    pub chosen: &'a mut [(usize, f32)],
    /// count × embedding: the sum of what experts give.
    pub mixed: &'a mut [f32],
    /// The input of an expert that not all tokens go through.
    pub some_inputs: &'a mut Inputs,
}

/// Values a token of the buffers that only some models need.
struct Extra {
    projected: usize,
    between: usize,
    experts: usize,
    experts_used: usize,
    mixed: usize,
}

impl Extra {
    fn of(spec: &Spec) -> Self {
        let (experts, experts_used) = spec.experts.map_or((0, 0), |experts| (experts.count, experts.used));
        let projected = spec.norms_after || spec.learned_positions || experts > 0;
        Self {
            projected: if projected { spec.embedding } else { 0 },
            between: if spec.norms_within { 2 * spec.feed_forward } else { 0 },
            experts,
            experts_used,
            mixed: if experts > 0 { spec.embedding } else { 0 },
        }
    }
}

fn forms(spec: &Spec) -> Forms {
    Forms { floats: spec.float_weights, blocks: true }
}

fn input_width(spec: &Spec) -> usize {
    spec.embedding.max(spec.query_width())
}

/// Values between the two halves of the widest feed-forward network.
fn gated_width(spec: &Spec) -> usize {
    spec.feed_forward.max(spec.experts.map_or(0, |experts| experts.shared))
}

fn rotation_width(spec: &Spec) -> usize {
    spec.rotation_tables() * spec.rope_width
}

/// `count` values; `None` if memory does not suffice.
fn reserved<T: Clone>(count: usize, value: T) -> Option<Vec<T>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(count).ok()?;
    buffer.resize(count, value);
    Some(buffer)
}

impl Scratch {
    /// Tokens that are run at once in a context of so many.
    pub fn batch(spec: &Spec, context: usize) -> usize {
        let fits = BOUND / Self::token_bytes(spec) / GROUP * GROUP;
        fits.clamp(GROUP, MOST).min(context.next_multiple_of(GROUP))
    }

    /// Buffers for `batch` tokens of a context; `None` if memory does not suffice.
    pub fn new(spec: &Spec, level: Level, batch: usize, context: usize) -> Option<Self> {
        let floats = |count: usize| reserved(count, 0f32);
        let (wide, narrow) = (spec.query_width(), spec.kv_width());
        let extra = Extra::of(spec);
        Some(Self {
            embedding: spec.embedding,
            wide,
            narrow,
            rotation_width: rotation_width(spec),
            x: floats(batch * spec.embedding)?,
            inputs: Inputs::with_capacity(level, input_width(spec), batch, forms(spec))?,
            gated: Inputs::with_capacity(level, gated_width(spec), batch, forms(spec))?,
            qkv: floats(batch * (wide + 2 * narrow))?,
            attended: floats(batch * wide)?,
            rotations: floats(batch * rotation_width(spec))?,
            projected: floats(batch * extra.projected)?,
            between: floats(batch * extra.between)?,
            router: floats(batch * extra.experts)?,
            routes: reserved(batch * extra.experts_used, Route::default())?,
            chosen: reserved(if extra.experts > 0 { batch } else { 0 }, (0, 0.0))?,
            mixed: floats(batch * extra.mixed)?,
            some_inputs: Inputs::with_capacity(level, extra.mixed, batch, forms(spec))?,
            logits: floats(spec.vocabulary)?,
            best_room: floats(best_room(spec.vocabulary, GROUP))?,
            extra,
            context,
        })
    }

    /// Bytes that a token of a batch takes.
    fn token_bytes(spec: &Spec) -> usize {
        let extra = Extra::of(spec);
        let floats = spec.embedding + 2 * spec.query_width() + 2 * spec.kv_width() + rotation_width(spec);
        let more = extra.projected + extra.between + extra.experts + extra.mixed;
        let routes =
            extra.experts_used * size_of::<Route>() + extra.experts.min(1) * size_of::<(usize, f32)>();
        let inputs = |width| Inputs::bytes(width, 1, forms(spec));
        let all = inputs(input_width(spec)) + inputs(gated_width(spec)) + inputs(extra.mixed);
        4 * (floats + more) + routes + all
    }

    /// Bytes that [`Self::new`] takes.
    pub fn bytes(spec: &Spec, batch: usize) -> usize {
        4 * (spec.vocabulary + best_room(spec.vocabulary, GROUP)) + batch * Self::token_bytes(spec)
    }

    /// The buffers for `count` tokens.
    pub fn sized(&mut self, count: usize) -> Sized<'_> {
        let Extra { projected, between, experts, experts_used, mixed } = self.extra;
        Sized {
            x: &mut self.x[..count * self.embedding],
            inputs: &mut self.inputs,
            gated: &mut self.gated,
            qkv: &mut self.qkv[..count * (self.wide + 2 * self.narrow)],
            attended: &mut self.attended[..count * self.wide],
            rotations: &mut self.rotations[..count * self.rotation_width],
            projected: &mut self.projected[..count * projected],
            between: &mut self.between[..count * between],
            router: &mut self.router[..count * experts],
            routes: &mut self.routes[..count * experts_used],
            chosen: &mut self.chosen[..count * experts.min(1)],
            mixed: &mut self.mixed[..count * mixed],
            some_inputs: &mut self.some_inputs,
        }
    }
}
