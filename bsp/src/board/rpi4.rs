//! Raspberry Pi 4 family: BCM2711 in low-peripheral mode, the default hand-over of its boot loader.
//!
//! Sources: BCM2711 ARM Peripherals, section 1.2 (bus 0x7e000000 is seen at 0xfe000000); the device trees `bcm2711.dtsi`, `bcm283x.dtsi`
//! (interrupts: shared peripheral interrupt + 32) and `bcm2711-rpi-4-b.dts` (the light); the boot stub `armstub8.S` of
//! `raspberrypi/tools` (its memory, release words); Cortex-A72 TRM 4.3.1 (MIDR_EL1).

use super::{Board, Start};
use crate::drivers::led::Pin;

/// The facts.
pub const BOARD: Board = Board {
    name: "Raspberry Pi 4",
    compatible: "brcm,bcm2711",
    part: Some(0xd08), // Cortex-A72
    // On the other boards there is more than one range.
    #[allow(clippy::single_range_in_vec_init)]
    peripherals: &[0xfc00_0000..0x1_0000_0000],
    monitor: 0..0x1000, // the stub, which ends in the spin table
    pl011: (0xfe20_1000, 153),
    pl011_as_left: false,
    pl011_clock: 48_000_000, // Raspberry Pi documentation, "Boot options", `init_uart_clock`
    stepping: None,
    open_line: false, // GPIO 15 is pulled up
    header_uart: &[],
    mini_uart: Some((0xfe21_5000, 125)),
    gpio: Some(0xfe20_0000),
    led: Some(Pin { always_on: None, number: 42, high: true }),
    gic: (0xff84_1000, 0xff84_2000),
    mailbox: Some(0xfe00_b880),
    system_timer: Some(0xfe00_3000),
    power: Some(0xfe10_0000),
    sd_host: Some((0xfe34_0000, 158)),
    sd_slot: None,
    without_card: "",
    pci: None,
    start: Start::SpinTable([0xd8, 0xe0, 0xe8, 0xf0]),
    cores: 4,
};
