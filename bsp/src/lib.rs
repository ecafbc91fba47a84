//! Board support for Raspberry Pi 4 and 5. It has never heard of a model.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod drivers;
pub mod storage;
