//! Weights: typed views into one arena that is never copied, arranged while it is read.

use super::LoadError;
use super::arrange::Arranger;
use super::directory::{Directory, Found};
use super::families::Family;
use super::spec::Spec;
use crate::gguf::Gguf;
use crate::ops::matmul::View;
use crate::pool::Pool;
use crate::quant::Row;
use crate::source::ByteSource;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};
use zerocopy::IntoBytes;

/// Bytes read from the source at once: long enough for the card's longest transfers, short enough for a lively
/// progress bar and a prompt answer to Ctrl-C.
const CHUNK: usize = 1 << 20;
/// Bytes of a cache line, on all boards.
pub const LINE: usize = 64;

/// Where the tensor data lies: the only copy.
enum Arena {
    /// In memory that somebody else filled: the boot loader.
    InPlace(&'static [u8]),
    /// In memory of our own, read from the source, from this byte on. It lies in cache lines as it does in the file, so what
    /// reads a card's blocks past the caches has whole lines.
    Own(Vec<u128>, Range<usize>),
}

impl Arena {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Own(units, range) => &units.as_slice().as_bytes()[range.clone()],
        }
    }
}

/// A weight matrix: its format, its shape and its place in the arena.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub(super) format: &'static Row,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// From the beginning of the tensor data.
    pub(super) offset: usize,
}

impl Matrix {
    /// Values of its product with a column.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the matrix.
    pub fn bytes(&self) -> usize {
        self.rows * self.format.row_bytes(self.columns)
    }

    /// The matrix of the same shape that lies so many matrices further: another expert's, or the up behind a gate.
    pub fn next(&self, index: usize) -> Self {
        Self { offset: self.offset + index * self.bytes(), ..*self }
    }
}

/// What is done to the values of a product, row by row: `product × scale + bias`. Both are one number a row, or empty.
#[derive(Default)]
pub struct Affine {
    /// BitNet's scales of whole matrices.
    pub scale: Vec<f32>,
    /// Biases.
    pub bias: Vec<f32>,
}

impl Affine {
    /// Nothing is done.
    pub fn is_none(&self) -> bool {
        self.scale.is_empty() && self.bias.is_empty()
    }

    /// Does it to the products of the rows from `first` on.
    pub fn apply(&self, products: &mut [f32], first: usize) {
        if !self.scale.is_empty() {
            products.iter_mut().zip(&self.scale[first..]).for_each(|(x, scale)| *x *= scale);
        }
        if !self.bias.is_empty() {
            products.iter_mut().zip(&self.bias[first..]).for_each(|(x, bias)| *x += bias);
        }
    }
}

/// A norm's weight and, in some layer norms, bias (else empty).
pub struct Norm {
    /// What normed values are multiplied by.
    pub weight: Vec<f32>,
    /// What is added to them.
    pub bias: Vec<f32>,
}

/// One layer: something that mixes tokens, then a feed-forward network for each of them.
pub struct Layer {
    /// What mixes tokens.
    pub mixer: Mixer,
    /// Norm before the feed-forward network: embedding floats. In a parallel block without, the mixer's serves both.
    pub ffn_norm: Option<Norm>,
    /// The feed-forward network.
    pub feed_forward: FeedForward,
    /// Norm after it.
    pub ffn_post_norm: Option<Norm>,
}

/// How a layer mixes tokens: one kind of block among several that models are made of.
pub enum Mixer {
    /// Attention over the tokens so far.
    Attention(Attention),
}

/// Attention's weights.
pub struct Attention {
    /// Norm before: embedding floats.
    pub norm: Option<Norm>,
    /// Query (query width × embedding), key and value (kv width × embedding); or one matrix that is all three.
    pub qkv: Vec<Matrix>,
    /// What is done to all three.
    pub qkv_affine: Affine,
    /// Weight of the norm of queries, if any: a head, or all of them.
    pub q_norm: Vec<f32>,
    /// The same of keys.
    pub k_norm: Vec<f32>,
    /// Norm of the heads' results, before `output`: query width.
    pub sub_norm: Option<Norm>,
    /// Output: embedding × query width.
    pub output: Matrix,
    /// What is done to its products.
    pub output_affine: Affine,
    /// Norm after: embedding floats.
    pub post_norm: Option<Norm>,
}

/// A feed-forward network.
pub enum FeedForward {
    /// One for all tokens.
    Dense(Dense),
    /// Some of many for each.
    Experts(Experts),
}

/// Up, activation, down.
pub struct Dense {
    /// Gate and up (feed forward × embedding); or up alone, where there is no gate.
    pub up: Vec<Matrix>,
    /// What is done to each one's products.
    pub up_affines: Vec<Affine>,
    /// Norm of what is between: feed forward.
    pub sub_norm: Option<Norm>,
    /// Down: embedding × feed forward.
    pub down: Matrix,
    /// What is done to its products.
    pub down_affine: Affine,
}

/// A router and its experts: gate, up and down of the first of them, the others' lie behind.
pub struct Experts {
    /// Router: experts × embedding.
    pub router: Matrix,
    /// Gate and up of the first expert: feed forward × embedding.
    pub up: [Matrix; 2],
    /// Down of the first expert: embedding × feed forward.
    pub down: Matrix,
    /// The expert that every token goes through.
    pub shared: Option<Dense>,
    /// What its sigmoid is taken of, times a token: embedding floats, or empty.
    pub shared_gate: Vec<f32>,
}

impl Layer {
    /// Bytes of weights that a token reads.
    fn bytes(&self, used: usize) -> usize {
        let Mixer::Attention(attention) = &self.mixer;
        let sum = |matrices: &[Matrix]| matrices.iter().map(Matrix::bytes).sum::<usize>();
        let dense = |dense: &Dense| sum(&dense.up) + dense.down.bytes();
        let feed_forward = match &self.feed_forward {
            FeedForward::Dense(network) => dense(network),
            FeedForward::Experts(experts) => {
                let each = sum(&experts.up) + experts.down.bytes();
                experts.router.bytes() + used * each + experts.shared.as_ref().map_or(0, dense)
            }
        };
        sum(&attention.qkv) + attention.output.bytes() + feed_forward
    }
}

/// Factors of the rotation frequencies: one a pair each.
#[derive(Default)]
pub struct Factors {
    /// For every context, or for those that the model was first trained for.
    pub short: Option<Vec<f32>>,
    /// For longer ones.
    pub long: Option<Vec<f32>>,
}

/// All weights of a model.
pub struct Weights {
    arena: Arena,
    /// Vocabulary × embedding: a row a token.
    pub embedding: Matrix,
    /// Context × embedding: a row a position, where positions are learned.
    pub positions: Option<Matrix>,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// Norm before the output head: embedding floats.
    pub output_norm: Norm,
    /// Vocabulary × embedding: the embedding itself where the file ties them.
    pub head: Matrix,
    /// What is done to logits.
    pub head_affine: Affine,
    /// Divisors of the rotation frequencies (Llama 3.1, longrope).
    pub rope_factors: Factors,
    used_experts: usize,
}

/// Finds every tensor and checks its shape and format, without reading any. Tensors that no part of the forward pass would
/// use are an error: a model that has them would be answered wrongly without.
pub fn check(gguf: &Gguf, family: &Family, spec: &Spec) -> Result<(), LoadError> {
    let mut directory = Directory::new(gguf, family, spec, None);
    directory.all()?;
    directory.all_used()
}

impl Weights {
    /// Reads the tensors that [`check`] has found.
    pub fn load(
        gguf: &Gguf,
        family: &Family,
        spec: &Spec,
        source: &dyn ByteSource,
        pool: &dyn Pool,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        let mut directory = Directory::new(gguf, family, spec, None);
        directory.all()?;
        let parts = directory.parts;
        let arena = fill(gguf, &parts, source, (pool, CHUNK), progress)?;
        let mut directory = Directory::new(gguf, family, spec, Some(arena.bytes()));
        let Found { embedding, positions, layers, output_norm, head, head_affine, rope_factors } =
            directory.all()?;
        Ok(Self {
            embedding,
            positions,
            layers,
            output_norm,
            head,
            head_affine,
            rope_factors,
            used_experts: spec.experts.map_or(0, |experts| experts.used),
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
        let layers = self.layers.iter().map(|layer| layer.bytes(self.used_experts)).sum::<usize>();
        (layers + self.head.bytes()) as u64
    }

    /// All tensor data.
    pub fn memory(&self) -> &[u8] {
        self.arena.bytes()
    }

    /// Bytes of memory of our own that hold tensor data: none where the boot loader's copy is used.
    pub fn own_bytes(&self) -> u64 {
        match &self.arena {
            Arena::InPlace(_) => 0,
            Arena::Own(units, _) => units.as_slice().as_bytes().len() as u64,
        }
    }
}

/// Reads all tensor data, or finds it where it is.
fn fill(
    gguf: &Gguf,
    parts: &[usize],
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
            let (Some(data), Some(mut arranger)) = (data, Arranger::new(gguf, parts, tiles, pool.width()))
            else {
                return (tiles, false);
            };
            let count = arranger.advance(pool, data);
            (tiles + count, true)
        });
        let bytes = arranged.and_then(|bytes| bytes.get(start..start + len)).ok_or_else(out_of_memory)?;
        let _ = progress(len as u64, len as u64);
        return Ok(Arena::InPlace(bytes));
    }
    let mut arranger = Arranger::new(gguf, parts, 0, pool.width()).ok_or_else(out_of_memory)?;
    let mut units: Vec<u128> = Vec::new();
    units.try_reserve_exact((len + LINE).div_ceil(16)).map_err(|_| out_of_memory())?;
    units.resize((len + LINE).div_ceil(16), 0);
    let (here, there) = (units.as_ptr().addr() % LINE, start % LINE);
    let lead = (LINE + there - here) % LINE;
    let range = lead..lead + len;
    let data = &mut units.as_mut_slice().as_mut_bytes()[range.clone()];
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
    Ok(Arena::Own(units, range))
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
            let parts = alloc::vec![1; gguf.tensors.len()];
            let once = fill(&gguf, &parts, &Memory(bytes), (&Alone, usize::MAX / 2), go_on).unwrap();
            let pools = [&Alone as &dyn Pool, &Threads(2), &Threads(4), &Lazy];
            for (pool, chunk) in
                pools.into_iter().flat_map(|pool| [511, 4096, 30_011, CHUNK].map(|chunk| (pool, chunk)))
            {
                let arena = fill(&gguf, &parts, &Memory(bytes), (pool, chunk), go_on).unwrap();
                assert!(arena.bytes() == once.bytes(), "{}, {} workers, {chunk}", format.name, pool.width());
            }
            for pool in pools {
                let region: &'static InPlace =
                    std::boxed::Box::leak(std::boxed::Box::new(InPlace::new(bytes.to_vec().leak())));
                let arena = fill(&gguf, &parts, &region, (pool, CHUNK), go_on).unwrap();
                let bytes = arena.bytes();
                assert!(bytes == &once.bytes()[..bytes.len()], "{}, in place", format.name);
            }
            let data = &bytes[gguf.data_offset as usize..];
            assert!(!once.bytes().starts_with(data), "{}: the embedding at least is arranged", format.name);
        }
    }
}
