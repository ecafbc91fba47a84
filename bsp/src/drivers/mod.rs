//! Devices, each a register block and what it can do.
