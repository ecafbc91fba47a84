//! Writes what `gguf` reads: little models for tests and for `synth`.

use alloc::string::String;
use alloc::vec::Vec;

/// Collects metadata and tensors, then lays them out as a GGUF version 3 file.
#[derive(Default)]
pub struct Writer {
    keys: u64,
    metadata: Vec<u8>,
    tensors: Vec<Tensor>,
}

/// Alignment of tensor data, bytes: the specification's default.
pub const ALIGNMENT: usize = 32;

struct Tensor {
    name: String,
    shape: Vec<u64>,
    kind: u32,
    /// Bytes of its data, wherever they are.
    bytes: u64,
    data: Vec<u8>,
}

impl Writer {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.keys += 1;
        put_string(&mut self.metadata, key.as_bytes());
        self.metadata.extend(kind.to_le_bytes());
    }
    /// Adds a string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key, 8);
        put_string(&mut self.metadata, value.as_bytes());
        self
    }
    /// Adds a u16.
    pub fn u16(&mut self, key: &str, value: u16) -> &mut Self {
        self.key(key, 2);
        self.metadata.extend(value.to_le_bytes());
        self
    }
    /// Adds an i32.
    pub fn i32(&mut self, key: &str, value: i32) -> &mut Self {
        self.key(key, 5);
        self.metadata.extend(value.to_le_bytes());
        self
    }
    /// Adds a u32.
    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.key(key, 4);
        self.metadata.extend(value.to_le_bytes());
        self
    }
    /// Adds an f32.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.key(key, 6);
        self.metadata.extend(value.to_le_bytes());
        self
    }
    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key, 7);
        self.metadata.push(value.into());
        self
    }
    /// Adds an array of strings.
    pub fn strings<S: AsRef<[u8]>>(&mut self, key: &str, values: &[S]) -> &mut Self {
        self.array(key, 8, values.len());
        for value in values {
            put_string(&mut self.metadata, value.as_ref());
        }
        self
    }
    /// Adds an array of i32.
    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        self.array(key, 5, values.len());
        self.metadata.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }
    /// Adds an array of f32.
    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        self.array(key, 6, values.len());
        self.metadata.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }
    /// Adds keys and values as they lie in another file: `keys` of them.
    pub fn copied(&mut self, keys: u64, metadata: &[u8]) -> &mut Self {
        self.keys += keys;
        self.metadata.extend(metadata);
        self
    }
    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, 9);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend((len as u64).to_le_bytes());
    }
    /// Adds a tensor: GGUF type number, sizes with columns first, data in that type's blocks.
    pub fn tensor(&mut self, name: &str, kind: u32, shape: &[u64], data: Vec<u8>) -> &mut Self {
        self.tensors.push(Tensor {
            name: name.into(),
            shape: shape.into(),
            kind,
            bytes: data.len() as u64,
            data,
        });
        self
    }
    /// Adds a tensor whose data the caller writes after the [header](Self::header) himself.
    pub fn declare(&mut self, name: &str, kind: u32, shape: &[u64], bytes: u64) -> &mut Self {
        self.tensors.push(Tensor { name: name.into(), shape: shape.into(), kind, bytes, data: Vec::new() });
        self
    }

    /// Everything before the tensors' data. Each tensor then begins at the next multiple of [`ALIGNMENT`].
    pub fn header(&self) -> Vec<u8> {
        let mut file = start(self.tensors.len() as u64, self.keys);
        file.extend(&self.metadata);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_entry(&mut file, &tensor.name, &tensor.shape, tensor.kind, offset);
            offset = (offset + tensor.bytes).next_multiple_of(ALIGNMENT as u64);
        }
        file
    }

    /// The file.
    pub fn finish(&self) -> Vec<u8> {
        let mut file = self.header();
        for tensor in &self.tensors {
            file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
            file.extend(&tensor.data);
        }
        file
    }
}

/// What comes before the metadata of a file.
pub(super) fn start(tensors: u64, keys: u64) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(b"GGUF");
    file.extend(3u32.to_le_bytes());
    file.extend(tensors.to_le_bytes());
    file.extend(keys.to_le_bytes());
    file
}

/// Adds an entry of a directory; `offset` is from where the data begin.
pub(super) fn put_entry(file: &mut Vec<u8>, name: &str, shape: &[u64], kind: u32, offset: u64) {
    put_string(file, name.as_bytes());
    #[allow(clippy::cast_possible_truncation)] // at most four
    file.extend((shape.len() as u32).to_le_bytes());
    file.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    file.extend(kind.to_le_bytes());
    file.extend(offset.to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}
