//! The portable half of the firmware: console editing, configuration, shell.
#![cfg_attr(not(test), no_std)]
extern crate alloc;
