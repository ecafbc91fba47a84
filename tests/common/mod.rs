//! What several whole-engine tests share.
#![allow(dead_code)] // each test uses its part

use embodios::quant::Row;
use embodios::source::Memory;
use embodios::{ByteSource, Level, LoadOptions, Model, Pool, ReadError, Runtime, Session, digest};
use serde_json::Value as Json;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A pool that starts its threads anew for each job: slow, and plain enough to be trusted.
pub struct Threads(pub usize);

impl Pool for Threads {
    fn width(&self) -> usize {
        self.0
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for worker in 1..self.0 {
                scope.spawn(move || job(worker));
            }
            job(0);
        });
    }
}

/// The shares of so many workers, one after the other: work is cut as for many cores, and no thread is started.
pub struct InTurn(pub usize);

impl Pool for InTurn {
    fn width(&self) -> usize {
        self.0
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        (0..self.0).for_each(job);
    }
}

/// xorshift64* (Vigna, 2016): reproducible odd data.
pub struct Random(pub u64);

impl Random {
    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// −1 to 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// What `tools/oracle/record_dequant.py` recorded: blocks of every format, and where their scales are.
pub fn recorded_blocks() -> &'static Json {
    static RECORDED: OnceLock<Json> = OnceLock::new();
    RECORDED.get_or_init(|| {
        serde_json::from_str(include_str!("../data/dequantize.json")).expect("the recording is JSON")
    })
}

/// A number of a recording.
pub fn number(json: &Json) -> usize {
    usize::try_from(json.as_u64().expect("a number")).expect("a small number")
}

/// Sets the n-th scale (or minimum) of a block to the binary16 `scale(n)`; a scale of a byte to its low half.
pub fn set_scales(format: &Row, block: &mut [u8], scale: impl Fn(usize) -> u16) {
    let layout = |part: &str| &recorded_blocks()["layout"][part][format.name];
    for (n, at) in layout("halves").as_array().into_iter().flatten().enumerate() {
        block[number(at)..][..2].copy_from_slice(&scale(n).to_le_bytes());
    }
    if !layout("bytes").is_null() {
        block[number(layout("bytes"))] = scale(0) as u8;
    }
    if !layout("nibbles").is_null() {
        for nibble in 0..4 {
            let byte = &mut block[number(layout("nibbles")) + 2 * nibble + 1];
            *byte = *byte & 0xf | ((scale(0) >> (4 * nibble)) as u8) << 4;
        }
    }
}

/// Runs `body` with a runtime on so many threads.
pub fn on_threads<T>(threads: usize, body: impl FnOnce(&Runtime<'_>) -> T) -> T {
    body(&Runtime { pool: &Threads(threads), nanos: &|| 0, stop: &|| false })
}

/// A file that stays in memory for the rest of the test.
pub fn leak(bytes: Vec<u8>) -> Memory {
    Memory(Box::leak(bytes.into_boxed_slice()))
}

/// A file that is changed between two readings of it.
pub struct Bytes<'a>(pub &'a [u8]);

impl ByteSource for Bytes<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let past_end = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: self.len() };
        let start = usize::try_from(offset).map_err(|_| past_end.clone())?;
        buffer.copy_from_slice(self.0.get(start..start + buffer.len()).ok_or(past_end)?);
        Ok(())
    }
}

/// Loads a model with the kernels of a level.
pub fn load(source: Memory, level: Level) -> Arc<Model> {
    let options = LoadOptions { level, ..LoadOptions::default() };
    Model::load(&source, &options, &mut |_| ControlFlow::Continue(()))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The default model: where `EMBODI_MODEL` points, or where `cargo embodi` put it.
pub fn smollm2() -> Memory {
    let path = std::env::var_os("EMBODI_MODEL").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/cache/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    );
    let bytes = std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; fetch the model with `cargo embodi models fetch smollm2-135m-instruct`",
            path.display()
        )
    });
    leak(bytes)
}

/// The folder of llama.cpp's vocabularies (`ggml-vocab-*.gguf`, `.inp`, `.out`) and `templates/*.jinja`, put there
/// by `cargo embodi setup`. `None` where they could not be had: `test` is then skipped, and says so past the
/// harness, which shows nothing of a test that passes.
pub fn reference(test: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/cache/llama-cpp-python-0.3.36");
    if folder.is_dir() {
        return Some(folder);
    }
    let line =
        format!("SKIPPED {test}: {} is not there; fetch it with `cargo embodi setup`\n", folder.display());
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    None
}

/// The digest of the logits after `tokens`, prefilled in batches of `batch`.
pub fn digest_of(model: &Arc<Model>, tokens: &[u32], pool: &dyn Pool, batch: usize) -> u64 {
    let mut session = Session::new(model.clone(), tokens.len().max(64)).unwrap();
    session.set_batch(batch);
    let runtime = Runtime { pool, nanos: &|| 0, stop: &|| false };
    digest(session.feed(tokens, &runtime).unwrap())
}

/// A model of the catalog by its file's name, where `cargo embodi test` has put it; says so and gives nothing where its
/// package could not be had.
pub fn fetched(file: &str) -> Option<Memory> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/cache").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(leak(bytes)),
        Err(error) => {
            // Past the harness, which shows nothing of a test that passes.
            let line = format!("SKIPPED {file}: {error}; fetch it with `cargo embodi setup`\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            None
        }
    }
}
