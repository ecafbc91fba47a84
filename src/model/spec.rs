//! Spec: what one transformer block of a model does, as data.

use crate::ops::rope::Layout;

/// The shape of a model. All sizes are checked: none is zero, and the tensors agree with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Transformer blocks.
    pub layers: usize,
    /// Values in a hidden state.
    pub embedding: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads` (grouped-query attention: Ainslie et al., 2023, arXiv:2305.13245).
    pub kv_heads: usize,
    /// Values in a head.
    pub head_size: usize,
    /// Values between the two halves of the feed-forward network.
    pub feed_forward: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Added to the mean square in each norm.
    pub norm_epsilon: f32,
    /// Which values of a head turn together.
    pub rope_layout: Layout,
    /// Values of a head that turn; even.
    pub rope_width: usize,
    /// Base of the rotation frequencies.
    pub rope_base: f32,
    /// Some matrix holds floats, so activations are kept as floats, too.
    pub float_weights: bool,
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
}
