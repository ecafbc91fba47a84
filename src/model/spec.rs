//! Spec: what one model does, as data.

use crate::ops::rope::{Layout, Scaling};
use alloc::vec::Vec;

/// The shape of a model. All sizes are checked: none is zero, and the tensors agree with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Layers.
    pub layers: usize,
    /// Values in a hidden state.
    pub embedding: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads` (grouped-query attention: Ainslie et al., 2023, arXiv:2305.13245).
    pub kv_heads: usize,
    /// Values in a head.
    pub head_size: usize,
    /// Values between the two halves of the feed-forward network, or of one expert.
    pub feed_forward: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Which norm is taken everywhere.
    pub norm: NormKind,
    /// Added to the mean square in each norm.
    pub norm_epsilon: f32,
    /// Norms of what attention and the feed-forward network give, before it is added to the hidden state.
    pub norms_after: bool,
    /// Norms within both, before their last matrix (BitNet b1.58: Ma et al., 2024, arXiv:2402.17764).
    pub norms_within: bool,
    /// Attention and the feed-forward network read the same hidden state, and both are added to it (Wang and
    /// Komatsuzaki, 2021: GPT-J; Phi-2, Falcon).
    pub parallel: bool,
    /// What stands between the two halves of the feed-forward network.
    pub activation: Activation,
    /// A gate is activated and multiplied by what the up matrix gives (Shazeer, 2020, arXiv:2002.05202); else the latter
    /// itself is activated.
    pub gated: bool,
    /// Experts instead of one feed-forward network, where there are any.
    pub experts: Option<Experts>,
    /// Over how many values of a query or key the norm between projection and rotation is taken, where there is one.
    pub qk_norm: Option<QkNorm>,
    /// Which values of a head turn together; `None` where positions are not told by rotation.
    pub rope_layout: Option<Layout>,
    /// Values of a head that turn; even.
    pub rope_width: usize,
    /// Base of the rotation frequencies.
    pub rope_base: f32,
    /// How angles are scaled to reach further than the model was trained for.
    pub rope_scaling: Scaling,
    /// What rotated values are multiplied by (longrope: Ding et al., 2024, arXiv:2402.13753).
    pub rope_magnitude: f32,
    /// Positions from which on the divisors for long contexts are taken instead of those for short ones, where the file
    /// has both: what llama.cpp decides by, the context that is reserved, not the one that is used.
    pub rope_original: usize,
    /// Base and scaling of the layers with a sliding window, where they are others.
    pub rope_sliding: Option<(f32, Scaling)>,
    /// Every so-manyth layer does not rotate (Yang et al., 2025, arXiv:2501.18795); 0 is none, 1 all.
    pub rope_skips: usize,
    /// Positions are told by a row of a matrix, added to the embedding (GPT-2); there are as many as `context`.
    pub learned_positions: bool,
    /// What the embedding of a token is multiplied by.
    pub embedding_scale: f32,
    /// What attention and the feed-forward network are multiplied by before they are added to the hidden state.
    pub residual_scale: f32,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// Positions that a layer with a sliding window looks back, the token itself included (Beltagy et al., 2020,
    /// arXiv:2004.05150); 0 where no layer has one.
    pub sliding_window: usize,
    /// Whether each layer has the sliding window.
    pub sliding_layers: Vec<bool>,
    /// What the product of a query with a key is multiplied by: 1 / √head size in most families.
    pub attention_scale: f32,
    /// Bound of attention's scores before the softmax, `cap × tanh(score / cap)` (Gemma 2, arXiv:2408.00118); 0 is none.
    pub attention_softcap: f32,
    /// The same for the logits.
    pub logit_softcap: f32,
    /// Some matrix holds floats, so activations are kept as floats, too.
    pub float_weights: bool,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Divided by the root of the mean square.
    Rms,
    /// Divided by the standard deviation, after the mean was taken off.
    Layer,
}

/// What stands between the two halves of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x / (1 + e^−x).
    Silu,
    /// The form with tanh, as llama.cpp computes it for every model.
    Gelu,
}

/// Over which values the norm of queries and keys is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Those of a head.
    Head,
    /// Those of all heads together.
    Width,
}

/// A mixture of experts (Shazeer et al., 2017, arXiv:1701.06538): a router's softmax tells which of them a token goes
/// through, and how much each counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts in a layer.
    pub count: usize,
    /// Experts that a token goes through.
    pub used: usize,
    /// The shares of those chosen are made to sum to 1.
    pub normalized: bool,
    /// Width of the expert that every token goes through; 0 is none.
    pub shared: usize,
    /// A sigmoid tells how much the shared expert counts.
    pub shared_gate: bool,
}

impl Spec {
    /// Values of all query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_size
    }
    /// Values of all key heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_size
    }
    /// Positions that a layer looks back, the token itself included; `None` is all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        (self.sliding_window > 0 && self.sliding_layers.get(layer) == Some(&true))
            .then_some(self.sliding_window)
    }
    /// Whether a layer rotates queries and keys.
    pub fn rotates(&self, layer: usize) -> bool {
        self.rope_layout.is_some() && (self.rope_skips == 0 || !(layer + 1).is_multiple_of(self.rope_skips))
    }
    /// Tables of rotations that a position needs: one, or another one for the layers with a sliding window.
    pub fn rotation_tables(&self) -> usize {
        1 + usize::from(self.rope_sliding.is_some())
    }
}
