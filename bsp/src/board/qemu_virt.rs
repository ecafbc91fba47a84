//! QEMU's `virt` machine, which can have a Raspberry Pi 5's processor: an emulated board for its instructions.
//!
//! It has no pins and no VideoCore; an SD host can be plugged into its PCI bus (`-device sdhci-pci`). Its firmware interface
//! (PSCI) starts cores, restarts and switches off.
//!
//! Source: the memory map in QEMU's `hw/arm/virt.c` (interrupts: shared peripheral interrupt + 32), as its own
//! device tree tells it.

use super::{Board, Start};
use crate::drivers::pci;

/// The facts.
pub const BOARD: Board = Board {
    name: "QEMU virt",
    compatible: "linux,dummy-virt",
    part: None, // it has whatever cores it is given
    peripherals: &[0x0800_0000..0x0a00_0000, 0x1000_0000..0x1000_1000, 0x40_1000_0000..0x40_1010_0000],
    monitor: 0..0,
    pl011: (0x0900_0000, 33),
    pl011_clock: 24_000_000,
    pl011_as_left: false,
    stepping: None,
    open_line: false,
    header_uart: &[],
    mini_uart: None,
    gpio: None,
    led: None,
    gic: (0x0800_0000, 0x0801_0000),
    mailbox: None,
    system_timer: None,
    power: None,
    sd_host: None,
    sd_slot: None,
    without_card: "this board has no card slot: its boot loader gives the model (initrd)",
    start: Start::Firmware(None), // its tree says how
    // The high configuration window's first bus, and the first page of the low window for registers.
    pci: Some(pci::Place { bus: 0x40_1000_0000, memory: 0x1000_0000 }),
    cores: 4,
};
