//! Spec: what one transformer block of a model does, as data.

use crate::ops::rope::Layout;
use alloc::vec::Vec;

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
}
