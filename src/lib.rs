//! EMBODIOS' inference engine: a GGUF file in, text out, with no operating system assumed.
//!
//! It knows files only as bytes ([`source::ByteSource`]) and cores only as "run this" ([`pool::Pool`]).
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod gguf;
pub mod model;
pub mod ops;
pub mod pool;
pub mod quant;
pub mod session;
pub mod simd;
pub mod source;
pub mod tokenizer;

pub use model::{LoadError, LoadOptions, Model, Progress};
pub use pool::{Alone, Pool};
pub use session::{Runtime, Session, SessionError};
pub use simd::Level;
pub use source::{ByteSource, ReadError};
