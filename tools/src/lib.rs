//! Host side of EMBODIOS, as a library that the whole-system tests use too.
//!
//! One file a command; `main.rs` only parses the command line. What several commands share: where things
//! are and which cargo builds for the board ([`project`]), QEMU and its serial line ([`qemu`]), and the
//! engine's two adapters to a PC ([`host`]).

pub mod bench;
pub mod build;
pub mod chat;
pub mod debian;
pub mod flash;
pub mod host;
pub mod image;
pub mod inspect;
pub mod logits;
pub mod models;
pub mod project;
pub mod qemu;
pub mod reference;
pub mod requantize;
pub mod run;
pub mod sampling;
pub mod setup;
pub mod split;
pub mod supported;
pub mod synth;
pub mod terms;
pub mod test;
pub mod tokenize;
