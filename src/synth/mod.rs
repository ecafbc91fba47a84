//! Random models, seeded: for tests, and for measuring the shape of a large model without having it.
//!
//! [`tiny`] is the model that most tests run. A [`Recipe`] makes a model of any family ([`CASES`]), any weight format
//! (also such as the engine does not multiply yet) and any size; `cargo embodi synth` writes it to a file piece by piece.

mod blocks;
pub mod families;
mod random;
pub mod shapes;
mod shards;
mod tiny;
pub mod tokenizer;

pub use families::{CASES, Case, Shape};
pub use shards::{shards, shards_of};
pub use tiny::{Sizes, TINY, sized, tiny};

use crate::gguf::kinds::{self, Kind};
use crate::gguf::writer::{ALIGNMENT, Writer};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use families::{Gate, Norm, QkNorm, Value};
use random::Random;

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The family.
    pub case: Case,
    /// The format of all matrices but a router's.
    pub format: &'static Kind,
    /// Another seed, other weights.
    pub seed: u64,
}

/// Distinct weights in a matrix: its rows repeat after these, so that a large model is made quickly.
const DISTINCT: usize = 1 << 20;

/// Formats that take the place of those whose blocks of 256 a row does not fill, as llama.cpp's quantizer has it.
const STAND_INS: &[(&str, &str)] = &[("Q5_K", "Q5_1"), ("Q6_K", "Q8_0"), ("Q4_K", "Q5_0")];

/// A tensor to be made.
struct Tensor {
    name: String,
    /// Columns first.
    shape: Vec<usize>,
    kind: &'static Kind,
    /// Mean of the values; matrices have none.
    mean: f32,
    deviation: f32,
}

impl Tensor {
    fn rows(&self) -> usize {
        self.shape[1..].iter().product()
    }
    fn row_bytes(&self) -> usize {
        self.shape[0] / self.kind.len as usize * self.kind.bytes as usize
    }
}

/// A model whose weights are made when they are asked for.
pub struct Plan {
    header: Vec<u8>,
    seed: u64,
    tensors: Vec<Tensor>,
}

impl Plan {
    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        let aligned = |bytes: u64| bytes.next_multiple_of(ALIGNMENT as u64);
        self.tensors.iter().fold(self.header.len() as u64, |at, tensor| {
            aligned(at) + tensor.rows() as u64 * tensor.row_bytes() as u64
        })
    }

    /// Gives the file to `write`, a few megabytes at a time at most, until it fails.
    pub fn write<E>(&self, write: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        write(&self.header)?;
        let mut at = self.header.len();
        let mut rows = Vec::new();
        for tensor in &self.tensors {
            let padding = at.next_multiple_of(ALIGNMENT) - at;
            write(&[0; ALIGNMENT][..padding])?;
            rows.clear();
            let mut random = Random::named(self.seed, &tensor.name);
            let columns = tensor.shape[0];
            let distinct = (DISTINCT / columns).clamp(1, tensor.rows());
            for _ in 0..distinct {
                match tensor.mean {
                    0.0 => blocks::row(&mut rows, tensor.kind, columns, tensor.deviation, &mut random),
                    mean => rows.extend(
                        (0..columns).flat_map(|_| (mean + random.normal(tensor.deviation)).to_le_bytes()),
                    ),
                }
            }
            for first in (0..tensor.rows()).step_by(distinct) {
                write(&rows[..distinct.min(tensor.rows() - first) * tensor.row_bytes()])?;
            }
            at += padding + tensor.rows() * tensor.row_bytes();
        }
        Ok(())
    }

    /// The file in memory.
    pub fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let Ok(()) = self.write(&mut |bytes| {
            file.extend_from_slice(bytes);
            Ok::<_, core::convert::Infallible>(())
        });
        file
    }
}

impl Recipe {
    /// The tiny model of a case in a format. Formats with blocks of 256 need wider rows, and get them.
    pub fn tiny(case: &Case, format: &'static Kind, seed: u64) -> Self {
        let mut case = *case;
        if format.len > 32 {
            let (tiny, shape) = (case.shape, &mut case.shape);
            shape.embedding = 256;
            shape.head_size = 256 / tiny.heads;
            shape.rope_width = tiny.rope_width * shape.head_size / tiny.head_size;
            shape.feed_forward = 256;
            shape.experts.2 = if tiny.experts.2 > 0 { 256 } else { 0 };
        }
        Self { case, format, seed }
    }

    /// The header, and what comes after it.
    pub fn plan(&self) -> Result<Plan, SynthError> {
        self.check()?;
        let tensors = self.tensors()?;
        let mut file = self.metadata();
        for tensor in &tensors {
            let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
            let bytes = tensor.rows() as u64 * tensor.row_bytes() as u64;
            file.declare(&tensor.name, tensor.kind.id, &shape, bytes);
        }
        Ok(Plan { header: file.header(), seed: self.seed, tensors })
    }

    fn check(&self) -> Result<(), SynthError> {
        let Shape { layers, embedding, heads, kv_heads, head_size, feed_forward, .. } = self.case.shape;
        let Shape { vocabulary, context, rope_width, experts, .. } = self.case.shape;
        let sizes = [layers, embedding, heads, kv_heads, head_size, feed_forward, context];
        let refuse = |what: &'static str| Err(SynthError::Sizes(what));
        if sizes.iter().any(|&size| size == 0 || size > 1 << 24) {
            return refuse("each is at least 1 and at most 16777216");
        }
        if heads % kv_heads != 0 {
            return refuse("the number of heads is a multiple of that of key heads");
        }
        if rope_width > head_size || rope_width % 2 != 0 {
            return refuse("the width that rotates is even and at most that of a head");
        }
        if !(tokenizer::LEAST..=tokenizer::MOST).contains(&vocabulary) {
            return Err(SynthError::Vocabulary { size: vocabulary });
        }
        if experts.1 > experts.0 {
            return refuse("a token goes to no more experts than there are");
        }
        if !blocks::known(self.format) {
            return Err(SynthError::Format { name: self.format.name });
        }
        Ok(())
    }

    fn metadata(&self) -> Writer {
        let Case { architecture, tokenizer, norm, keys, .. } = self.case;
        let shape = &self.case.shape;
        let mut file = Writer::new();
        file.string("general.architecture", architecture);
        // Not the family's name: llama.cpp takes "phi3" in it for a vocabulary of certain tokens.
        file.string("general.name", "synthetic");
        let key = |name: &str| format!("{architecture}.{name}");
        let mut count = |name: &str, value: usize| {
            file.u32(&key(name), u32::try_from(value).unwrap_or(u32::MAX));
        };
        count("block_count", shape.layers);
        count("context_length", shape.context);
        count("embedding_length", shape.embedding);
        count("feed_forward_length", shape.feed_forward);
        count("attention.head_count", shape.heads);
        count("attention.head_count_kv", shape.kv_heads);
        count("vocab_size", shape.vocabulary);
        if shape.head_size * shape.heads != shape.embedding {
            count("attention.key_length", shape.head_size);
            count("attention.value_length", shape.head_size);
        }
        if let Some(window) = shape.window {
            count("attention.sliding_window", window);
        }
        if let (experts @ 1.., used, shared) = shape.experts {
            count("expert_count", experts);
            count("expert_used_count", used);
            if architecture.starts_with("qwen") {
                count("expert_feed_forward_length", shape.feed_forward);
            }
            if shared > 0 {
                count("expert_shared_feed_forward_length", shared);
            }
        }
        if let Some(base) = shape.rope_base {
            count("rope.dimension_count", shape.rope_width);
            file.f32(&key("rope.freq_base"), base);
        }
        let epsilon = match norm {
            Norm::Rms => "attention.layer_norm_rms_epsilon",
            Norm::Layer => "attention.layer_norm_epsilon",
        };
        file.f32(&key(epsilon), self.case.epsilon);
        for (name, value) in keys {
            match value {
                Value::Float(value) => file.f32(&key(name), *value),
                Value::Count(value) => file.u32(&key(name), *value),
                Value::Text(value) => file.string(&key(name), value),
                Value::Bool(value) => file.bool(&key(name), *value),
            };
        }
        tokenizer.write(&mut file, shape.vocabulary);
        file
    }

    fn tensors(&self) -> Result<Vec<Tensor>, SynthError> {
        let case = &self.case;
        let Shape { embedding, heads, kv_heads, head_size, feed_forward, vocabulary, .. } = case.shape;
        let (wide, narrow) = (heads * head_size, kv_heads * head_size);
        let mut list =
            List { format: self.format, layer_norm: case.norm == Norm::Layer, tensors: Vec::new() };
        list.matrix("token_embd", &[embedding, vocabulary], case.embedding_scale)?;
        if case.positions {
            list.floats("position_embd.weight", &[embedding, case.shape.context], 0.0, 0.3);
        }
        let factors = [
            ("rope_freqs.weight", case.rope_factors, 2.0),
            ("rope_factors_long.weight", case.long_rope, 4.0),
            ("rope_factors_short.weight", case.long_rope, 1.5),
        ];
        for (name, _, mean) in factors.into_iter().filter(|factor| factor.1) {
            list.floats(name, &[case.shape.rope_width / 2], mean, mean * 0.25);
        }
        for layer in 0..case.shape.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            list.norm(&name("attn_norm"), embedding, case.before.0);
            list.norm(&name("attn_norm_2"), embedding, case.second);
            list.norm(&name("ffn_norm"), embedding, case.before.1);
            let (bias, output_bias, ffn_bias, _) = case.biases;
            let parts: &[(&str, usize)] = match case.fused {
                true => &[("attn_qkv", wide + 2 * narrow)],
                false => &[("attn_q", wide), ("attn_k", narrow), ("attn_v", narrow)],
            };
            for &(part, rows) in parts {
                list.matrix(&name(part), &[embedding, rows], 1.3)?;
                list.bias(&name(part), rows, bias);
                list.scale(&name(part), case.scales);
            }
            for (part, heads) in [("attn_q_norm", heads), ("attn_k_norm", kv_heads)] {
                let part = name(part) + ".weight";
                match case.qk_norm {
                    QkNorm::None => {}
                    QkNorm::Head => list.floats(&part, &[head_size], 1.0, 0.2),
                    QkNorm::EachHead => list.floats(&part, &[head_size, heads], 1.0, 0.2),
                    QkNorm::Width => list.floats(&part, &[head_size * heads], 1.0, 0.2),
                }
            }
            list.rms(&name("attn_sub_norm"), embedding, case.within);
            list.matrix(&name("attn_output"), &[wide, embedding], 1.0)?;
            list.bias(&name("attn_output"), embedding, output_bias);
            list.scale(&name("attn_output"), case.scales);
            list.rms(&name("post_attention_norm"), embedding, case.after);
            if case.shape.experts.0 > 0 {
                self.experts(&mut list, &name)?;
                continue;
            }
            let up = if case.gate == Gate::Fused { 2 * feed_forward } else { feed_forward };
            if case.gate == Gate::Own {
                list.matrix(&name("ffn_gate"), &[embedding, feed_forward], 1.0)?;
                list.bias(&name("ffn_gate"), feed_forward, ffn_bias);
                list.scale(&name("ffn_gate"), case.scales);
            }
            list.matrix(&name("ffn_up"), &[embedding, up], 1.0)?;
            list.bias(&name("ffn_up"), up, ffn_bias);
            list.scale(&name("ffn_up"), case.scales);
            list.rms(&name("ffn_sub_norm"), feed_forward, case.within);
            list.matrix(&name("ffn_down"), &[feed_forward, embedding], 1.0)?;
            list.bias(&name("ffn_down"), embedding, ffn_bias);
            list.scale(&name("ffn_down"), case.scales);
            list.rms(&name("post_ffw_norm"), embedding, case.after);
        }
        list.norm("output_norm", embedding, true);
        if !case.tied {
            list.matrix("output", &[embedding, vocabulary], 3.0)?;
        }
        list.bias("output", vocabulary, case.biases.3);
        Ok(list.tensors)
    }

    /// Router, experts and the shared expert of a layer.
    fn experts(&self, list: &mut List, name: &dyn Fn(&str) -> String) -> Result<(), SynthError> {
        let Shape { embedding, feed_forward, experts: (count, _, shared), .. } = self.case.shape;
        // llama.cpp never quantizes a router.
        let deviation = 2.0 / libm::sqrtf(embedding as f32);
        list.floats(&name("ffn_gate_inp.weight"), &[embedding, count], 0.0, deviation);
        list.matrix(&name("ffn_gate_exps"), &[embedding, feed_forward, count], 1.0)?;
        list.matrix(&name("ffn_up_exps"), &[embedding, feed_forward, count], 1.0)?;
        list.matrix(&name("ffn_down_exps"), &[feed_forward, embedding, count], 1.0)?;
        if shared > 0 {
            if self.case.shared_gate {
                list.floats(&name("ffn_gate_inp_shexp.weight"), &[embedding], 0.0, deviation);
            }
            list.matrix(&name("ffn_gate_shexp"), &[embedding, shared], 1.0)?;
            list.matrix(&name("ffn_up_shexp"), &[embedding, shared], 1.0)?;
            list.matrix(&name("ffn_down_shexp"), &[shared, embedding], 1.0)?;
        }
        Ok(())
    }
}

/// Tensors as they are listed.
struct List {
    format: &'static Kind,
    layer_norm: bool,
    tensors: Vec<Tensor>,
}

impl List {
    fn floats(&mut self, name: &str, shape: &[usize], mean: f32, deviation: f32) {
        let kind = &kinds::KINDS[0]; // F32
        self.tensors.push(Tensor { name: name.into(), shape: shape.into(), kind, mean, deviation });
    }
    /// A matrix whose product with numbers of size 1 has numbers of size `scale`.
    fn matrix(&mut self, name: &str, shape: &[usize], scale: f32) -> Result<(), SynthError> {
        let columns = shape[0];
        let fits = |kind: &&Kind| columns.is_multiple_of(kind.len as usize);
        let stand_in = || {
            let named = STAND_INS.iter().find(|(given, _)| *given == self.format.name);
            let name = named.map_or("Q4_0", |(_, other)| other);
            kinds::KINDS.iter().find(|kind| kind.name == name).filter(fits)
        };
        let kind = Some(self.format).filter(fits).or_else(stand_in).ok_or_else(|| SynthError::Columns {
            tensor: name.into(),
            columns,
            block: self.format.len,
        })?;
        let deviation = scale / libm::sqrtf(columns as f32);
        let name = format!("{name}.weight");
        self.tensors.push(Tensor { name, shape: shape.into(), kind, mean: 0.0, deviation });
        Ok(())
    }
    fn rms(&mut self, name: &str, len: usize, there: bool) {
        if there {
            self.floats(&format!("{name}.weight"), &[len], 1.0, 0.2);
        }
    }
    fn norm(&mut self, name: &str, len: usize, there: bool) {
        self.rms(name, len, there);
        self.bias(name, len, there && self.layer_norm);
    }
    fn bias(&mut self, name: &str, len: usize, there: bool) {
        if there {
            self.floats(&format!("{name}.bias"), &[len], 0.0, 0.3);
        }
    }
    fn scale(&mut self, name: &str, there: bool) {
        if there {
            self.floats(&format!("{name}.scale"), &[1], 1.2, 0.2);
        }
    }
}

/// Why a model can't be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SynthError {
    /// Sizes that don't go together.
    Sizes(&'static str),
    /// Too few tokens for bytes and control tokens, or more than there are words.
    Vocabulary {
        /// What was asked for.
        size: usize,
    },
    /// No random blocks of this format.
    Format {
        /// Its name.
        name: &'static str,
    },
    /// A row is no whole number of blocks.
    Columns {
        /// The tensor.
        tensor: String,
        /// Weights in a row.
        columns: usize,
        /// Weights in a block.
        block: u32,
    },
}

impl fmt::Display for SynthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sizes(rule) => write!(f, "such sizes make no model: {rule}"),
            Self::Vocabulary { size } => {
                let (least, most) = (tokenizer::LEAST, tokenizer::MOST);
                write!(f, "a synthetic vocabulary has {least} to {most} tokens, not {size}")
            }
            Self::Format { name } => write!(f, "{name} is no format of weights"),
            Self::Columns { tensor, columns, block } => write!(
                f,
                "the rows of {tensor} have {columns} weights, which is no multiple of {block}: choose other sizes or another format"
            ),
        }
    }
}

impl core::error::Error for SynthError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::quant;
    use crate::source::Memory;
    use alloc::string::ToString;

    fn kind(name: &str) -> &'static Kind {
        kinds::KINDS.iter().find(|kind| kind.name == name).unwrap()
    }

    #[test]
    fn every_case_makes_a_sound_file_of_the_size_foretold_in_every_format() {
        for case in CASES.iter().filter(|case| case.shape.layers < 10) {
            for format in kinds::KINDS.iter().filter(|kind| blocks::known(kind)) {
                let plan = Recipe::tiny(case, format, 1).plan().unwrap();
                let file = plan.file();
                assert_eq!(plan.bytes(), file.len() as u64, "{} {}", case.name, format.name);
                let gguf = Gguf::open(&Memory(file.leak())).unwrap();
                for name in ["token_embd.weight", "blk.0.attn_output.weight"] {
                    assert_eq!(gguf.tensor(name).unwrap().kind, format.id, "{} {name}", case.name);
                }
            }
        }
    }

    #[test]
    fn random_blocks_of_every_format_decode_to_weights_of_the_spread_asked_for() {
        for format in quant::FORMATS {
            let kind = kinds::by_id(format.id).unwrap();
            let mut row = Vec::new();
            blocks::row(&mut row, kind, 64 * 1024, 0.05, &mut Random(1));
            let mut weights = alloc::vec![0.0; 64 * 1024];
            (format.dequantize)(&row, &mut weights);
            let n = weights.len() as f32;
            let mean = weights.iter().sum::<f32>() / n;
            let deviation = libm::sqrtf(weights.iter().map(|w| (w - mean) * (w - mean)).sum::<f32>() / n);
            assert!((0.025..0.1).contains(&deviation), "{}: {deviation}", format.name);
            assert!(mean.abs() < 0.02, "{}: {mean}", format.name);
        }
    }

    #[test]
    fn a_seed_gives_the_same_file_and_another_seed_another() {
        let file = |seed| Recipe::tiny(&CASES[0], kind("Q4_K"), seed).plan().unwrap().file();
        assert_eq!(file(1), file(1));
        assert_ne!(file(1), file(2));
    }

    #[test]
    fn sizes_that_make_no_model_are_refused_in_a_sentence() {
        let refused = |change: &dyn Fn(&mut Shape), format: &str, words: &str| {
            let mut recipe = Recipe::tiny(&CASES[0], kind("F32"), 1);
            recipe.format = kind(format);
            change(&mut recipe.case.shape);
            let error = recipe.plan().err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&|shape| shape.heads = 3, "F32", "multiple of that of key heads");
        refused(&|shape| shape.layers = 0, "F32", "at least 1");
        refused(&|shape| shape.embedding = usize::MAX, "F32", "at most 16777216");
        refused(&|shape| shape.vocabulary = 100, "F32", "not 100");
        refused(&|shape| shape.vocabulary = usize::MAX, "F32", "384 to");
        refused(&|shape| shape.embedding = 50, "Q4_K", "token_embd have 50 weights");
        refused(&|_| (), "I32", "I32 is no format of weights");
    }

    #[test]
    fn rows_that_k_quants_do_not_fill_get_the_format_that_a_quantizer_would_give_them() {
        let mut recipe = Recipe::tiny(&CASES[0], kind("F32"), 1);
        recipe.format = kind("Q6_K"); // rows of 64 and 96
        let gguf = Gguf::open(&Memory(recipe.plan().unwrap().file().leak())).unwrap();
        assert_eq!(gguf.tensor("blk.0.ffn_down.weight").unwrap().kind, kind("Q8_0").id);
    }

    #[test]
    fn published_shapes_name_families_and_fit_their_formats() {
        for row in shapes::SHAPES {
            let case = row.case().unwrap_or_else(|| panic!("{}: no family {}", row.name, row.case));
            let recipe = Recipe { case, format: kind("Q4_K"), seed: 1 };
            recipe.plan().unwrap_or_else(|error| panic!("{}: {error}", row.name));
        }
    }
}
