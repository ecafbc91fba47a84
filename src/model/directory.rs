//! Directory: tensor names → matrices and vectors. Every shape is checked here.

use super::LoadError;
use super::families::Family;
use super::spec::{Experts as Mixture, QkNorm, Spec};
use super::weights::{Affine, Attention, Dense, Experts, Factors, FeedForward, Layer, Matrix, Mixer, Norm};
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::{self, Row};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use zerocopy::FromBytes;

/// The tensors of a file, and which of them have been asked for.
pub struct Directory<'a> {
    gguf: &'a Gguf,
    family: &'a Family,
    spec: &'a Spec,
    /// The tensor data, once they are there. Without, vectors are empty or zeros: only their shapes count.
    bytes: Option<&'a [u8]>,
    used: Vec<bool>,
    /// Matrices that lie on one another in each tensor: experts, gate and up. Tiles do not reach across.
    pub parts: Vec<usize>,
}

/// Everything that a model is made of.
pub struct Found {
    pub embedding: Matrix,
    pub positions: Option<Matrix>,
    pub layers: Vec<Layer>,
    pub output_norm: Norm,
    pub head: Matrix,
    pub head_affine: Affine,
    pub rope_factors: Factors,
}

impl<'a> Directory<'a> {
    /// The directory of a file whose tensor data may have been read.
    pub fn new(gguf: &'a Gguf, family: &'a Family, spec: &'a Spec, bytes: Option<&'a [u8]>) -> Self {
        let count = gguf.tensors.len();
        Self { gguf, family, spec, bytes, used: alloc::vec![false; count], parts: alloc::vec![1; count] }
    }

    /// Finds all that the forward pass needs.
    pub fn all(&mut self) -> Result<Found, LoadError> {
        let (spec, width) = (self.spec, self.spec.embedding);
        let embedding = self.matrix("token_embd.weight", spec.vocabulary, width)?;
        let positions = match spec.learned_positions {
            true => Some(self.matrix("position_embd.weight", spec.context, width)?),
            false => None,
        };
        let output_norm = self.norm("output_norm", width)?;
        let head = match self.has("output.weight") {
            true => self.matrix("output.weight", spec.vocabulary, width)?,
            false => embedding,
        };
        let head_affine = self.affine("output", spec.vocabulary)?;
        let pairs = spec.rope_width / 2;
        let mut factors = |name: &str| match self.has(name) {
            true => self.vector(name, pairs).map(Some),
            false => Ok(None),
        };
        let short = match factors("rope_freqs.weight")? {
            None => factors("rope_factors_short.weight")?,
            both => both,
        };
        let rope_factors = Factors { short, long: factors("rope_factors_long.weight")? };
        let layers = (0..spec.layers).map(|index| self.layer(index)).collect::<Result<_, _>>()?;
        Ok(Found { embedding, positions, layers, output_norm, head, head_affine, rope_factors })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, LoadError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (spec, family) = (self.spec, self.family);
        let mixer = Mixer::Attention(self.attention(&name)?);
        // A parallel block may have one norm for both halves; where it has two, Falcon's names are the other way round.
        let before = match spec.parallel {
            true if self.has(&name("attn_norm_2.weight")) => Some(name("attn_norm")),
            true => None,
            false => family.norms_before.then(|| name("ffn_norm")),
        };
        let ffn_norm = before.map(|name| self.norm(&name, spec.embedding)).transpose()?;
        let feed_forward = match spec.experts {
            None => FeedForward::Dense(self.dense(&name, "", spec.feed_forward)?),
            Some(experts) => FeedForward::Experts(self.experts(&name, experts)?),
        };
        let after = spec.norms_after.then(|| self.norm(&name("post_ffw_norm"), spec.embedding));
        Ok(Layer { mixer, ffn_norm, feed_forward, ffn_post_norm: after.transpose()? })
    }

    fn attention(&mut self, name: &dyn Fn(&str) -> String) -> Result<Attention, LoadError> {
        let (spec, family) = (self.spec, self.family);
        let (width, wide, narrow) = (spec.embedding, spec.query_width(), spec.kv_width());
        let before = match spec.parallel && self.has(&name("attn_norm_2.weight")) {
            true => Some(name("attn_norm_2")),
            false => family.norms_before.then(|| name("attn_norm")),
        };
        let norm = before.map(|name| self.norm(&name, width)).transpose()?;
        let parts = [("attn_q", wide), ("attn_k", narrow), ("attn_v", narrow)];
        let mut qkv = Vec::new();
        let mut qkv_affine = Affine::default();
        let fused = self.has(&name("attn_qkv.weight"));
        if fused {
            qkv.push(self.matrix(&name("attn_qkv.weight"), wide + 2 * narrow, width)?);
            qkv_affine = self.affine(&name("attn_qkv"), wide + 2 * narrow)?;
        }
        if qkv_affine.is_none() {
            let mut each = Vec::new();
            for (part, rows) in parts {
                if !fused {
                    qkv.push(self.matrix(&name(&format!("{part}.weight")), rows, width)?);
                }
                each.push((self.affine(&name(part), rows)?, rows));
            }
            qkv_affine = on_one_another(each);
        }
        let (mut q_norm, mut k_norm) = (Vec::new(), Vec::new());
        if let Some(over) = spec.qk_norm {
            for (norm, part, values) in
                [(&mut q_norm, "attn_q_norm", wide), (&mut k_norm, "attn_k_norm", narrow)]
            {
                // One weight for every head, or another one for each (StableLM 2 12B).
                let name = name(&format!("{part}.weight"));
                let each = self.gguf.tensor(&name).is_some_and(|info| info.rows() > 1);
                let rows = if each { values / spec.head_size } else { 1 };
                let len = if over == QkNorm::Width { values } else { spec.head_size };
                *norm = self.floats(&name, rows, len)?;
            }
        }
        let within = spec.norms_within.then(|| self.norm(&name("attn_sub_norm"), wide));
        let after = spec.norms_after.then(|| self.norm(&name("post_attention_norm"), width));
        Ok(Attention {
            norm,
            qkv,
            qkv_affine,
            q_norm,
            k_norm,
            sub_norm: within.transpose()?,
            output: self.matrix(&name("attn_output.weight"), width, wide)?,
            output_affine: self.affine(&name("attn_output"), width)?,
            post_norm: after.transpose()?,
        })
    }

    /// A network between `embedding` and so many values; `kind` ends the names of a shared expert's tensors.
    fn dense(
        &mut self,
        name: &dyn Fn(&str) -> String,
        kind: &str,
        between: usize,
    ) -> Result<Dense, LoadError> {
        let (spec, family) = (self.spec, self.family);
        let tensor = |part: &str| name(&format!("{part}{kind}"));
        let weight = |part: &str| name(&format!("{part}{kind}.weight"));
        let (mut up, mut up_affines) = (Vec::new(), Vec::new());
        if family.gate_in_up && kind.is_empty() {
            let gate = self.parts(&weight("ffn_up"), 2, between, spec.embedding)?;
            up.extend([gate, gate.next(1)]);
            up_affines.extend([Affine::default(), Affine::default()]);
        } else {
            for part in if spec.gated { &["ffn_gate", "ffn_up"][..] } else { &["ffn_up"] } {
                up.push(self.matrix(&weight(part), between, spec.embedding)?);
                up_affines.push(self.affine(&tensor(part), between)?);
            }
        }
        let within =
            (spec.norms_within && kind.is_empty()).then(|| self.norm(&name("ffn_sub_norm"), between));
        Ok(Dense {
            up,
            up_affines,
            sub_norm: within.transpose()?,
            down: self.matrix(&weight("ffn_down"), spec.embedding, between)?,
            down_affine: self.affine(&tensor("ffn_down"), spec.embedding)?,
        })
    }

    fn experts(&mut self, name: &dyn Fn(&str) -> String, experts: Mixture) -> Result<Experts, LoadError> {
        let (width, between) = (self.spec.embedding, self.spec.feed_forward);
        let shared = match experts.shared {
            0 => None,
            between => Some(self.dense(name, "_shexp", between)?),
        };
        let shared_gate = match shared.is_some() && experts.shared_gate {
            true => self.vector(&name("ffn_gate_inp_shexp.weight"), width)?,
            false => Vec::new(),
        };
        Ok(Experts {
            router: self.matrix(&name("ffn_gate_inp.weight"), experts.count, width)?,
            up: [
                self.parts(&name("ffn_gate_exps.weight"), experts.count, between, width)?,
                self.parts(&name("ffn_up_exps.weight"), experts.count, between, width)?,
            ],
            down: self.parts(&name("ffn_down_exps.weight"), experts.count, width, between)?,
            shared,
            shared_gate,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    fn find(&mut self, name: &str) -> Result<(usize, &'a TensorInfo), LoadError> {
        match self.gguf.tensors.iter().position(|info| info.name == name) {
            Some(index) => {
                self.used[index] = true;
                Ok((index, &self.gguf.tensors[index]))
            }
            None => Err(LoadError::MissingTensor { name: name.into() }),
        }
    }

    fn norm(&mut self, name: &str, len: usize) -> Result<Norm, LoadError> {
        let bias = format!("{name}.bias");
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"), len)?,
            bias: if self.has(&bias) { self.vector(&bias, len)? } else { Vec::new() },
        })
    }

    /// A matrix's scale and bias, as far as the file has them.
    fn affine(&mut self, name: &str, rows: usize) -> Result<Affine, LoadError> {
        let (scale, bias) = (format!("{name}.scale"), format!("{name}.bias"));
        let mut affine = Affine::default();
        if self.has(&scale) {
            let scale = self.vector(&scale, 1)?;
            affine.scale = alloc::vec![scale.first().copied().unwrap_or(1.0); rows];
        }
        if self.has(&bias) {
            affine.bias = self.vector(&bias, rows)?;
        }
        Ok(affine)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.floats(name, 1, len)
    }

    /// Norms and the like are a few floats: kept as floats, whatever the file has.
    fn floats(&mut self, name: &str, rows: usize, columns: usize) -> Result<Vec<f32>, LoadError> {
        let (_, info) = self.find(name)?;
        if info.columns() != columns as u64 || info.rows() != rows as u64 {
            return Err(wrong_shape(info, rows, columns));
        }
        let format = format_of(info)?;
        let mut floats = alloc::vec![0.0; rows * columns];
        let Some(bytes) = self.bytes else { return Ok(floats) };
        // A tensor lies inside the arena: its end was taken into account when the arena was made.
        let row = &bytes[self.offset(info, rows, columns)?..][..rows * format.row_bytes(columns)];
        match <[f32]>::ref_from_bytes(row) {
            Ok(values) if format.name == "F32" => floats.copy_from_slice(values),
            _ => (format.dequantize)(row, &mut floats),
        }
        Ok(floats)
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        self.parts(name, 1, rows, columns)
    }

    /// The first of `count` matrices of one tensor.
    fn parts(&mut self, name: &str, count: usize, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        let (index, info) = self.find(name)?;
        let all = count.checked_mul(rows).ok_or_else(|| wrong_shape(info, rows, columns))?;
        if info.columns() != columns as u64 || info.rows() != all as u64 {
            return Err(wrong_shape(info, all, columns));
        }
        self.parts[index] = count;
        Ok(Matrix { format: format_of(info)?, rows, columns, offset: self.offset(info, rows, columns)? })
    }

    fn offset(&self, info: &TensorInfo, rows: usize, columns: usize) -> Result<usize, LoadError> {
        usize::try_from(info.offset - self.gguf.data_offset).map_err(|_| wrong_shape(info, rows, columns))
    }

    /// Every tensor has been asked for, or is one that llama.cpp ignores, too.
    pub fn all_used(&self) -> Result<(), LoadError> {
        let ignored = |name: &str| name.contains(".attn_rot_embd") || name.contains(".rotary_emb.inv_freq");
        let mut unused = self.gguf.tensors.iter().zip(&self.used).filter(|(_, used)| !**used);
        match unused.find(|(info, _)| !ignored(&info.name)) {
            Some((info, _)) => Err(LoadError::UnusedTensor { name: String::from(&info.name) }),
            None => Ok(()),
        }
    }
}

/// What is done to the products of matrices that are multiplied as one, and the rows of each.
fn on_one_another(each: Vec<(Affine, usize)>) -> Affine {
    let mut all = Affine::default();
    let (scaled, biased) =
        (each.iter().any(|(a, _)| !a.scale.is_empty()), each.iter().any(|(a, _)| !a.bias.is_empty()));
    for (affine, rows) in each {
        if scaled {
            all.scale.extend(affine.scale.iter().copied().chain(core::iter::repeat(1.0)).take(rows));
        }
        if biased {
            all.bias.extend(affine.bias.iter().copied().chain(core::iter::repeat(0.0)).take(rows));
        }
    }
    all
}

fn format_of(info: &TensorInfo) -> Result<&'static Row, LoadError> {
    quant::by_id(info.kind).ok_or_else(|| LoadError::Format { tensor: info.name.clone(), kind: info.kind })
}

fn wrong_shape(info: &TensorInfo, rows: usize, columns: usize) -> LoadError {
    LoadError::Shape { tensor: info.name.clone(), found: info.shape.clone(), columns, rows }
}
