//! Model::load: bytes in, a model that can run out.

mod arrange;
pub mod budget;
mod directory;
mod experts;
pub mod families;
pub(crate) mod forward;
mod spec;
pub mod weights;

pub use experts::Route;
pub use spec::{Activation, Experts, NormKind, QkNorm, Spec};

use crate::chat::{ChatError, Template};
use crate::gguf::{Gguf, GgufError, Metadata, kinds};
use crate::ops::rope::Rotation;
use crate::pool::{Alone, Pool};
use crate::session::KvFormat;
use crate::simd::Level;
use crate::source::{ByteSource, ReadError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use budget::Budget;
use core::fmt;
use core::ops::ControlFlow;
use weights::{Factors, Weights};

/// How much of a model has been read, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So far.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// How to load a model.
#[derive(Clone, Copy, Default)]
pub struct LoadOptions<'a> {
    /// Kernels to use.
    pub level: Level,
    /// Memory that model and session may take, in bytes; `None` asks the allocator only.
    pub memory_free: Option<u64>,
    /// The context that will be asked for, in tokens: counted against `memory_free`.
    pub context: Option<usize>,
    /// What keys and values will be kept as: counted likewise.
    pub kv: KvFormat,
    /// Workers who arrange what has been read while the caller reads on; `None` is the caller alone.
    pub pool: Option<&'a dyn Pool>,
}

/// A model that can run: immutable, shared by its sessions.
pub struct Model {
    spec: Spec,
    metadata: Metadata,
    tokenizer: Tokenizer,
    template: Arc<Template>,
    template_warning: Option<ChatError>,
    tokenizer_warning: Option<&'static str>,
    level: Level,
    rotations: Rotations,
    pub(crate) weights: Weights,
}

/// How layers rotate queries and keys.
struct Rotations {
    /// All layers; in contexts up to that of the first training, where the file has factors for longer ones.
    short: Rotation,
    long: Option<Rotation>,
    /// Those with a sliding window, where they rotate otherwise.
    sliding: Option<Rotation>,
}

impl Rotations {
    fn new(spec: &Spec, factors: &Factors) -> Self {
        let rotation = |factors: Option<&[f32]>| {
            Rotation::new(spec.rope_width, spec.rope_base, factors, spec.rope_scaling, spec.rope_magnitude)
        };
        Self {
            short: rotation(factors.short.as_deref()),
            long: factors.long.as_deref().map(|factors| rotation(Some(factors))),
            sliding: spec.rope_sliding.map(|(base, scaling)| {
                Rotation::new(spec.rope_width, base, factors.short.as_deref(), scaling, 1.0)
            }),
        }
    }
}

impl Model {
    /// How a layer rotates queries and keys in a context of so many positions.
    pub fn rotation(&self, layer: usize, context: usize) -> &Rotation {
        match &self.rotations {
            Rotations { sliding: Some(sliding), .. } if self.spec.window(layer).is_some() => sliding,
            Rotations { long: Some(long), .. } if context > self.spec.rope_original => long,
            Rotations { short, .. } => short,
        }
    }

    /// Reads a GGUF file: [`Gguf::open`], [`Opened::new`], then [`Opened::load`].
    pub fn load(
        source: &dyn ByteSource,
        options: &LoadOptions<'_>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Arc<Self>, LoadError> {
        Opened::new(Gguf::open(source)?)?.load(source, options, progress)
    }

    /// Sizes.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }
    #[cfg(test)]
    pub(crate) fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }
    /// What the file says about itself, without its long arrays.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// How turns become one prompt.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }
    /// What the user should know before the first answer.
    pub fn warnings(&self) -> impl Iterator<Item = &dyn fmt::Display> {
        let template = self.template_warning.as_ref().map(|warning| warning as &dyn fmt::Display);
        template
            .into_iter()
            .chain(self.tokenizer_warning.as_ref().map(|warning| warning as &dyn fmt::Display))
    }
    /// Kernels in use.
    pub fn level(&self) -> Level {
        self.level
    }
    /// The name in the file, or its architecture.
    pub fn name(&self) -> &str {
        let text = |key| self.metadata.opt_string(key).ok().flatten();
        text("general.name").or_else(|| text("general.architecture")).unwrap_or("unnamed")
    }
    /// Bytes of weights that one decoded token reads.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes_per_token()
    }
    /// All tensor data as it lies in memory: what a measurement of bandwidth reads.
    pub fn weight_memory(&self) -> &[u8] {
        self.weights.memory()
    }
    /// Bytes of memory of its own that the tensor data takes; 0 where the boot loader's copy is used.
    pub fn own_bytes(&self) -> u64 {
        self.weights.own_bytes()
    }
}

/// A model whose header was found to be one that runs; its weights are still where they were.
pub struct Opened {
    gguf: Gguf,
    spec: Spec,
    tokenizer: Tokenizer,
}

/// Whether the family and every tensor of a header are those of a model that runs; the tokenizer, which takes memory to be
/// read, is left to [`Opened::new`].
pub fn check(gguf: &Gguf) -> Result<(), LoadError> {
    weights::check(gguf, families::family(gguf)?, &families::spec(gguf)?)
}

impl Opened {
    /// Checks all that can be known from a header: architecture, tokenizer, every tensor.
    pub fn new(gguf: Gguf) -> Result<Self, LoadError> {
        let spec = families::spec(&gguf)?;
        let tokenizer = Tokenizer::from_metadata(&gguf.metadata)?;
        if tokenizer.len() != spec.vocabulary {
            let (tokens, rows) = (tokenizer.len(), spec.vocabulary);
            let what = alloc::format!("{tokens} tokens in the tokenizer and {rows} in the weights");
            return Err(LoadError::Unsupported { what });
        }
        weights::check(&gguf, families::family(&gguf)?, &spec)?;
        Ok(Self { gguf, spec, tokenizer })
    }

    /// Reads the weights from the source that the header is from. `progress` may stop it.
    pub fn load(
        self,
        source: &dyn ByteSource,
        options: &LoadOptions<'_>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Arc<Model>, LoadError> {
        let Self { gguf, spec, tokenizer } = self;
        if let Some(free) = options.memory_free {
            let context = options.context.unwrap_or(spec.context);
            let mut budget = Budget::with_spec(&gguf, &spec, context, options.kv);
            let mut free_for_all = free;
            if source.in_place().is_some() {
                free_for_all = free.saturating_add(budget.weights);
                budget.weights = 0;
            }
            if budget.total() > free {
                let fits = Budget::largest_with_spec(&gguf, &spec, options.kv, free_for_all);
                return Err(LoadError::TooBig { budget, free, fits });
            }
        }
        let Some((template, template_warning)) = Template::of(&gguf.metadata, &tokenizer) else {
            return Err(LoadError::Unsupported { what: "a chat template".into() });
        };
        let (family, pool) = (families::family(&gguf)?, options.pool.unwrap_or(&Alone));
        let weights = Weights::load(&gguf, family, &spec, source, pool, &mut |done, total| {
            progress(Progress { done, total })
        })?;
        let rotations = Rotations::new(&spec, &weights.rope_factors);
        let tokenizer_warning = tokenizer.warning();
        Ok(Arc::new(Model {
            metadata: gguf.metadata.without_arrays(),
            level: options.level,
            spec,
            tokenizer,
            template,
            template_warning,
            tokenizer_warning,
            rotations,
            weights,
        }))
    }
}

/// Why a model was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file is not a sound GGUF file.
    Gguf(GgufError),
    /// Its tokenizer can't be used.
    Tokenizer(TokenizerError),
    /// An architecture that has no row in [`families::FAMILIES`].
    Architecture {
        /// As the file names it.
        name: String,
    },
    /// One file of several that are a model, and no name by which to find the others.
    LoneShard {
        /// How many they are.
        count: u32,
    },
    /// A trait of the model that the forward pass lacks.
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A weight format that has no row in [`crate::quant::FORMATS`].
    Format {
        /// The tensor.
        tensor: String,
        /// GGUF type number.
        kind: u32,
    },
    /// A tensor that the architecture needs is missing.
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor that the forward pass would not use.
    UnusedTensor {
        /// Its name.
        name: String,
    },
    /// A tensor's sizes disagree with the metadata.
    Shape {
        /// The tensor.
        tensor: String,
        /// Its sizes, columns first.
        found: Vec<u64>,
        /// Columns that the metadata implies.
        columns: usize,
        /// Rows that the metadata implies.
        rows: usize,
    },
    /// Weights, cache and scratch exceed the memory.
    TooBig {
        /// What is needed.
        budget: Budget,
        /// Bytes that are free.
        free: u64,
        /// The largest context that fits, in tokens.
        fits: usize,
    },
    /// An allocation failed.
    OutOfMemory {
        /// What for.
        what: &'static str,
        /// How much, in bytes.
        bytes: u64,
    },
    /// Reading failed.
    Read(ReadError),
    /// The user stopped it.
    Interrupted,
}

/// Bytes, shown in MiB.
pub(crate) struct Mib(pub u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(error) => error.fmt(f),
            Self::Tokenizer(error) => error.fmt(f),
            Self::Architecture { name } => {
                match families::RECOGNISED.contains(&name.as_str()) {
                    true => write!(f, "models of the architecture {name} are not supported yet; supported:")?,
                    false => write!(f, "the architecture {name} is not known; supported:")?,
                }
                families::FAMILIES.iter().try_for_each(|family| write!(f, " {}", family.architecture))
            }
            Self::LoneShard { count } => write!(
                f,
                "this is one of {count} files of a split model: give it by its name, NAME-00001-of-{count:05}.gguf, \
                 with the others beside it, or join them with llama.cpp's `llama-gguf-split --merge`"
            ),
            Self::Unsupported { what } => write!(f, "this model needs what is not supported: {what}"),
            Self::Format { tensor, kind } => {
                write!(
                    f,
                    "tensor {tensor} has the type {}, which is not supported; supported:",
                    kinds::Name(*kind)
                )?;
                crate::quant::FORMATS.iter().try_for_each(|row| write!(f, " {}", row.name))
            }
            Self::MissingTensor { name } => {
                write!(f, "the file lacks the tensor {name}: it is damaged or not a whole model")
            }
            Self::UnusedTensor { name } => {
                write!(
                    f,
                    "the file has the tensor {name}, which this version would ignore and so answer wrongly"
                )
            }
            Self::Shape { tensor, found, columns, rows } => {
                write!(
                    f,
                    "tensor {tensor} has the sizes {found:?}, but the file's metadata implies {columns} × {rows}"
                )
            }
            Self::TooBig { budget, free, fits } => {
                write!(
                    f,
                    "the model needs {} ({} of weights, {} for a context of {} tokens) and {} is free: ",
                    Mib(budget.total()),
                    Mib(budget.weights),
                    Mib(budget.cache),
                    budget.context,
                    Mib(*free)
                )?;
                match fits {
                    0..64 => f.write_str("choose a smaller file"),
                    _ => write!(
                        f,
                        "choose a smaller file or a context of at most {fits} tokens (set ctx {fits})"
                    ),
                }
            }
            Self::OutOfMemory { what, bytes } => write!(
                f,
                "{} for {what} could not be reserved: choose a smaller file or a shorter context",
                Mib(*bytes)
            ),
            Self::Read(error) => error.fmt(f),
            Self::Interrupted => f.write_str("loading was stopped"),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<GgufError> for LoadError {
    fn from(error: GgufError) -> Self {
        Self::Gguf(error)
    }
}
impl From<TokenizerError> for LoadError {
    fn from(error: TokenizerError) -> Self {
        Self::Tokenizer(error)
    }
}
impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Interrupted => Self::Interrupted,
            error => Self::Read(error),
        }
    }
}
