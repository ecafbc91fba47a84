//! QEMU's `virt` machine, which can have a Raspberry Pi 5's processor: an emulated board for its instructions.
//!
//! It has no card slot, no pins and no VideoCore. Its firmware interface (PSCI) starts cores, restarts and
//! switches off.
//!
//! Source: the memory map in QEMU's `hw/arm/virt.c` (interrupts: shared peripheral interrupt + 32), as its own
//! device tree tells it.

use super::{Board, Start};

/// The facts.
pub const BOARD: Board = Board {
    name: "QEMU virt",
    compatible: "linux,dummy-virt",
    part: None, // it has whatever cores it is given
    #[allow(clippy::single_range_in_vec_init)] // on the other boards there is more than one range
    peripherals: &[0x0800_0000..0x0a00_0000],
    monitor: 0..0,
    pl011: (0x0900_0000, 33),
    pl011_clock: Some(24_000_000),
    stepping: None,
    mini_uart: None,
    gpio: None,
    gic: (0x0800_0000, 0x0801_0000),
    mailbox: None,
    power: None,
    sd_host: None,
    without_card: "this board has no card slot: its boot loader gives the model (initrd)",
    start: Start::Firmware(None), // its tree says how
    cores: 4,
};
