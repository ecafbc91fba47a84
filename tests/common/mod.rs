//! What whole-model tests share: where the real model is, and reading it like a card.

use embodios::{ByteSource, ReadError};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file on this PC.
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Opens a file; the test fails when it cannot.
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        let len = file.metadata().expect("an open file has metadata").len();
        Self { file, len }
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let past_end = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: self.len };
        self.file.read_exact_at(buffer, offset).map_err(|_| past_end)
    }
}

/// SmolLM2-135M-Instruct, Q4_1: `EMBODI_MODEL`, or where `cargo embodi test` has put it.
pub fn smollm2() -> PathBuf {
    let cached =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cache/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("EMBODI_MODEL").map_or_else(cached, PathBuf::from);
    assert!(
        path.is_file(),
        "the model is not at {}: run `cargo embodi models fetch smollm2-135m-instruct`, or set EMBODI_MODEL",
        path.display()
    );
    path
}
