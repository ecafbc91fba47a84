//! Tensor names → typed views into one arena that is never copied, arranged while it is read. Every shape is checked
//! here.

use super::LoadError;
use super::arrange::Arranger;
use super::spec::Spec;
use crate::gguf::{Gguf, TensorInfo};
use crate::ops::matmul::View;
use crate::pool::Pool;
use crate::quant::{self, Row};
use crate::source::ByteSource;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes read from the source at once: long enough for the card's longest transfers, short enough for a lively
/// progress bar and a prompt answer to Ctrl-C.
const CHUNK: usize = 1 << 20;

/// Where the tensor data lies: the only copy.
enum Arena {
    /// In memory that somebody else filled: the boot loader.
    InPlace(&'static [u8]),
    /// In memory of our own, read from the source. 16-byte units keep every tensor as aligned as in the file.
    Own(Vec<u128>),
}

impl Arena {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Own(units) => units.as_slice().as_bytes(),
        }
    }
}

/// A weight matrix: its format, its shape and its place in the arena.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    format: &'static Row,
    rows: usize,
    columns: usize,
    offset: usize,
}

impl Matrix {
    /// Bytes of the matrix.
    pub fn bytes(&self) -> usize {
        self.rows * self.format.row_bytes(self.columns)
    }
}

/// One transformer block.
pub struct Layer {
    /// Norm before attention: embedding floats.
    pub attention_norm: Vec<f32>,
    /// Query: query width × embedding.
    pub q: Matrix,
    /// Key: kv width × embedding.
    pub k: Matrix,
    /// Value: kv width × embedding.
    pub v: Matrix,
    /// Output: embedding × query width.
    pub output: Matrix,
    /// Norm before the feed-forward network: embedding floats.
    pub ffn_norm: Vec<f32>,
    /// Gate: feed forward × embedding.
    pub gate: Matrix,
    /// Up: feed forward × embedding.
    pub up: Matrix,
    /// Down: embedding × feed forward.
    pub down: Matrix,
}

/// Where every weight that the forward pass asks for lies in the file; nothing is read yet.
pub struct Plan<'a> {
    embedding: Matrix,
    head: Matrix,
    output_norm: &'a TensorInfo,
    factors: Option<&'a TensorInfo>,
    /// Each layer's matrices in the order of [`Layer`], and its two norms.
    matrices: Vec<([Matrix; 7], [&'a TensorInfo; 2])>,
}

impl<'a> Plan<'a> {
    /// Finds every tensor and checks its shape and format. Tensors that no part of the forward pass would use are
    /// an error: a model that has them would be answered wrongly without.
    pub fn of(gguf: &'a Gguf, spec: &Spec) -> Result<Self, LoadError> {
        let mut directory = Directory { gguf, used: alloc::vec![false; gguf.tensors.len()] };
        let (wide, narrow) = (spec.query_width(), spec.kv_width());
        let embedding = directory.matrix("token_embd.weight", spec.vocabulary, spec.embedding)?;
        let output_norm = directory.vector("output_norm.weight", spec.embedding)?;
        let head = match gguf.tensor("output.weight") {
            Some(_) => directory.matrix("output.weight", spec.vocabulary, spec.embedding)?,
            None => embedding,
        };
        let factors = match gguf.tensor("rope_freqs.weight") {
            Some(_) => Some(directory.vector("rope_freqs.weight", spec.rope_width / 2)?),
            None => None,
        };
        let mut matrices = Vec::new();
        for index in 0..spec.layers {
            let name = |part: &str| format!("blk.{index}.{part}.weight");
            let mut matrix =
                |part: &str, rows: usize, columns: usize| directory.matrix(&name(part), rows, columns);
            let found = [
                matrix("attn_q", wide, spec.embedding)?,
                matrix("attn_k", narrow, spec.embedding)?,
                matrix("attn_v", narrow, spec.embedding)?,
                matrix("attn_output", spec.embedding, wide)?,
                matrix("ffn_gate", spec.feed_forward, spec.embedding)?,
                matrix("ffn_up", spec.feed_forward, spec.embedding)?,
                matrix("ffn_down", spec.embedding, spec.feed_forward)?,
            ];
            let norms = [
                directory.vector(&name("attn_norm"), spec.embedding)?,
                directory.vector(&name("ffn_norm"), spec.embedding)?,
            ];
            matrices.push((found, norms));
        }
        directory.all_used()?;
        Ok(Self { embedding, head, output_norm, factors, matrices })
    }
}

/// All weights of a model.
pub struct Weights {
    arena: Arena,
    /// Vocabulary × embedding: a row a token.
    pub embedding: Matrix,
    /// Transformer blocks in order.
    pub layers: Vec<Layer>,
    /// Norm before the output head: embedding floats.
    pub output_norm: Vec<f32>,
    /// Vocabulary × embedding: the embedding itself where the file ties them.
    pub head: Matrix,
    /// Divisors of the rotation frequencies, one a pair, where the file has them (Llama 3.1).
    pub rope_factors: Option<Vec<f32>>,
}

impl Weights {
    /// Reads the tensors that a [`Plan`] has found.
    pub fn load(
        gguf: &Gguf,
        spec: &Spec,
        source: &dyn ByteSource,
        pool: &dyn Pool,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        let Plan { embedding, head, output_norm, factors, matrices } = Plan::of(gguf, spec)?;
        let arena = fill(gguf, source, (pool, CHUNK), progress)?;
        let bytes = arena.bytes();
        let vector = |info: &TensorInfo, len: usize| vector(gguf, bytes, info, len);
        let layers = matrices
            .into_iter()
            .map(|([q, k, v, output, gate, up, down], [attention, ffn])| {
                Ok(Layer {
                    attention_norm: vector(attention, spec.embedding)?,
                    ffn_norm: vector(ffn, spec.embedding)?,
                    q,
                    k,
                    v,
                    output,
                    gate,
                    up,
                    down,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        Ok(Self {
            embedding,
            layers,
            output_norm: vector(output_norm, spec.embedding)?,
            head,
            rope_factors: factors.map(|info| vector(info, spec.rope_width / 2)).transpose()?,
            arena,
        })
    }

    /// The matrix as it lies in memory.
    pub fn view(&self, matrix: &Matrix) -> View<'_> {
        let Matrix { format, rows, columns, offset } = *matrix;
        View { format, rows, columns, bytes: &self.arena.bytes()[offset..][..matrix.bytes()] }
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> u64 {
        let layer = |l: &Layer| {
            [l.q, l.k, l.v, l.output, l.gate, l.up, l.down].iter().map(Matrix::bytes).sum::<usize>()
        };
        (self.layers.iter().map(layer).sum::<usize>() + self.head.bytes()) as u64
    }

    /// All tensor data.
    pub fn memory(&self) -> &[u8] {
        self.arena.bytes()
    }

    /// Bytes of memory of our own that hold tensor data: none where the boot loader's copy is used.
    pub fn own_bytes(&self) -> u64 {
        match &self.arena {
            Arena::InPlace(_) => 0,
            Arena::Own(units) => units.as_slice().as_bytes().len() as u64,
        }
    }
}

/// Reads all tensor data, or finds it where it is.
fn fill(
    gguf: &Gguf,
    source: &dyn ByteSource,
    (pool, chunk): (&dyn Pool, usize),
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Arena, LoadError> {
    let end = gguf.tensors.iter().map(|info| info.offset + info.bytes).max().unwrap_or(gguf.data_offset);
    let out_of_memory = || LoadError::OutOfMemory { what: "weights", bytes: end - gguf.data_offset };
    let start = usize::try_from(gguf.data_offset).map_err(|_| out_of_memory())?;
    let len = usize::try_from(end - gguf.data_offset).map_err(|_| out_of_memory())?;
    if let Some(region) = source.in_place() {
        let arranged = region.arranged(|bytes, tiles| {
            let data = bytes.get_mut(start..start + len);
            let (Some(data), Some(mut arranger)) = (data, Arranger::new(gguf, tiles, pool.width())) else {
                return (tiles, false);
            };
            let count = arranger.advance(pool, data);
            (tiles + count, true)
        });
        let bytes = arranged.and_then(|bytes| bytes.get(start..start + len)).ok_or_else(out_of_memory)?;
        let _ = progress(len as u64, len as u64);
        return Ok(Arena::InPlace(bytes));
    }
    let mut arranger = Arranger::new(gguf, 0, pool.width()).ok_or_else(out_of_memory)?;
    let mut units: Vec<u128> = Vec::new();
    units.try_reserve_exact(len.div_ceil(16)).map_err(|_| out_of_memory())?;
    units.resize(len.div_ceil(16), 0);
    let data = &mut units.as_mut_slice().as_mut_bytes()[..len];
    let mut done = 0;
    while done < len {
        if progress(done as u64, len as u64).is_break() {
            return Err(LoadError::Interrupted);
        }
        let offset = gguf.data_offset + done as u64;
        // To the next multiple of it in the file: whole blocks and clusters of a card, but for the first and the last.
        let chunk = (chunk - (offset % chunk as u64) as usize).min(len - done);
        let (there, coming) = data.split_at_mut(done);
        let mut read = Ok(());
        // The caller moves the bytes off the card while the others arrange those that have come before.
        arranger.advance_beside(pool, there, &mut || {
            read = source.read_at(offset, &mut coming[..chunk]);
        });
        read?;
        done += chunk;
    }
    arranger.advance(pool, data);
    let _ = progress(done as u64, len as u64);
    Ok(Arena::Own(units))
}

/// Norms and the like are a few floats: kept as floats, whatever the file has.
fn vector(gguf: &Gguf, bytes: &[u8], info: &TensorInfo, len: usize) -> Result<Vec<f32>, LoadError> {
    let format = format_of(info)?;
    let start = usize::try_from(info.offset - gguf.data_offset).map_err(|_| wrong_shape(info, 1, len))?;
    let mut floats = alloc::vec![0.0; len];
    // A tensor lies inside the arena: its end was taken into account when the arena was made.
    let row = &bytes[start..][..format.row_bytes(len)];
    match <[f32]>::ref_from_bytes(row) {
        Ok(values) if format.name == "F32" => floats.copy_from_slice(values),
        _ => (format.dequantize)(row, &mut floats),
    }
    Ok(floats)
}

fn format_of(info: &TensorInfo) -> Result<&'static Row, LoadError> {
    quant::by_id(info.kind).ok_or_else(|| LoadError::Format { tensor: info.name.clone(), kind: info.kind })
}

fn wrong_shape(info: &TensorInfo, rows: usize, columns: usize) -> LoadError {
    LoadError::Shape { tensor: info.name.clone(), found: info.shape.clone(), columns, rows }
}

/// The tensor directory, and which of its entries have been asked for.
struct Directory<'a> {
    gguf: &'a Gguf,
    used: Vec<bool>,
}

impl<'a> Directory<'a> {
    fn find(&mut self, name: &str) -> Result<&'a TensorInfo, LoadError> {
        match self.gguf.tensors.iter().position(|info| info.name == name) {
            Some(index) => {
                self.used[index] = true;
                Ok(&self.gguf.tensors[index])
            }
            None => Err(LoadError::MissingTensor { name: name.into() }),
        }
    }

    /// A few floats, in whatever format.
    fn vector(&mut self, name: &str, len: usize) -> Result<&'a TensorInfo, LoadError> {
        let info = self.find(name)?;
        if info.columns() != len as u64 || info.rows() != 1 {
            return Err(wrong_shape(info, 1, len));
        }
        format_of(info).map(|_| info)
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        let info = self.find(name)?;
        if info.columns() != columns as u64 || info.rows() != rows as u64 {
            return Err(wrong_shape(info, rows, columns));
        }
        let offset = usize::try_from(info.offset - self.gguf.data_offset)
            .map_err(|_| wrong_shape(info, rows, columns))?;
        Ok(Matrix { format: format_of(info)?, rows, columns, offset })
    }

    fn all_used(&self) -> Result<(), LoadError> {
        match self.gguf.tensors.iter().zip(&self.used).find(|(_, used)| !**used) {
            Some((info, _)) => Err(LoadError::UnusedTensor { name: String::from(&info.name) }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Alone;
    use crate::quant::FORMATS;
    use crate::source::{InPlace, Memory};
    use crate::synth;

    /// Threads, started for each job.
    struct Threads(usize);

    impl Pool for Threads {
        fn width(&self) -> usize {
            self.0
        }
        fn run(&self, job: &(dyn Fn(usize) + Sync)) {
            self.beside(&mut || job(0), job);
        }
        fn beside(&self, here: &mut dyn FnMut(), job: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|scope| {
                (1..self.0).for_each(|worker| _ = scope.spawn(move || job(worker)));
                here();
            });
        }
    }

    /// A pool that never does anything but what it must.
    struct Lazy;

    impl Pool for Lazy {
        fn width(&self) -> usize {
            3
        }
        fn run(&self, _: &(dyn Fn(usize) + Sync)) {}
        fn beside(&self, here: &mut dyn FnMut(), _: &(dyn Fn(usize) + Sync)) {
            here();
        }
    }

    #[test]
    fn weights_are_the_same_bytes_whoever_arranges_them_and_in_whatever_pieces_they_come() {
        for format in FORMATS {
            let bytes: &'static [u8] = synth::tiny(5, format).leak();
            let gguf = Gguf::open(&Memory(bytes)).unwrap();
            let go_on = &mut |_, _| ControlFlow::Continue(());
            let once = fill(&gguf, &Memory(bytes), (&Alone, usize::MAX / 2), go_on).unwrap();
            let pools = [&Alone as &dyn Pool, &Threads(2), &Threads(4), &Lazy];
            for (pool, chunk) in
                pools.into_iter().flat_map(|pool| [511, 4096, 30_011, CHUNK].map(|chunk| (pool, chunk)))
            {
                let arena = fill(&gguf, &Memory(bytes), (pool, chunk), go_on).unwrap();
                assert!(arena.bytes() == once.bytes(), "{}, {} workers, {chunk}", format.name, pool.width());
            }
            for pool in pools {
                let region: &'static InPlace =
                    std::boxed::Box::leak(std::boxed::Box::new(InPlace::new(bytes.to_vec().leak())));
                let arena = fill(&gguf, &region, (pool, CHUNK), go_on).unwrap();
                let bytes = arena.bytes();
                assert!(bytes == &once.bytes()[..bytes.len()], "{}, in place", format.name);
            }
            let data = &bytes[gguf.data_offset as usize..];
            assert!(!once.bytes().starts_with(data), "{}: the embedding at least is arranged", format.name);
        }
    }
}
