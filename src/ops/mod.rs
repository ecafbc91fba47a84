//! The vocabulary of the forward pass, on plain f32 slices.
//!
//! Everything here gives the same bits on every machine and at every level: f32 operations in a fixed order, fused
//! where the definition (the plain code) says so, and no function of an operating system's mathematics library.

pub mod attention;
pub mod dot;
pub mod elementwise;
pub mod matmul;
pub mod norm;
pub mod quantize;
pub mod rope;
