//! Board support for Raspberry Pi 4 and 5. It has never heard of a model.
//!
//! Three layers, each using only those before it: [`cpu`] (cores, exceptions, memory map, time), [`drivers`]
//! (one register block each) and [`storage`] (volumes and files). Beside them [`board`] holds the facts, above
//! all where each block of registers is, and [`handoff`] reads what the boot loader leaves: RAM, arguments.
//! No driver knows an address; `board` gives it its block.
#![no_std]

#[cfg(not(target_os = "none"))]
extern crate std;
#[cfg(test)]
#[path = "../tests/trees/mod.rs"]
mod trees;

pub mod board;
pub mod cpu;
pub mod drivers;
pub mod handoff;
#[cfg(not(target_os = "none"))]
pub mod machine;
pub mod storage;
