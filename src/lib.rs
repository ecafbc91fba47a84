//! EMBODIOS' inference engine: a GGUF file in, text out, with no operating system assumed.
//!
//! It knows files only as bytes ([`source::ByteSource`]) and cores only as "run this" ([`pool::Pool`]).
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bench;
pub mod chat;
pub mod generate;
pub mod gguf;
pub mod grammar;
pub mod model;
pub mod ops;
pub mod pool;
pub mod quant;
pub mod sampler;
pub mod session;
pub mod simd;
pub mod source;
pub mod speculate;
pub mod stops;
pub mod synth;
pub mod tokenizer;

pub use generate::{Conversation, Event, Overflow, Report, Stop};
pub use model::{LoadError, LoadOptions, Model, Opened, Progress};
pub use pool::{Alone, Pool};
pub use session::{KvFormat, Runtime, Session, SessionError};
pub use simd::Level;
pub use source::{ByteSource, ReadError};
pub use speculate::Speculation;

/// FNV-1a, 64 bits (Fowler, Noll and Vo), over the bit patterns of floats: two machines that print the same digest
/// of their logits computed the same bits.
pub fn digest(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
