//! Raspberry Pi 5 family: BCM2712, whose registers lie above 4 GiB, within its 40 bits of physical address.
//!
//! Its boot loader keeps TF-A, the secure monitor, in the first 512 KiB of RAM; it starts cores by PSCI. The
//! debug port between the HDMI sockets is UART10. What drives UART10 is told by nobody rightly (the device tree says
//! 9.216 MHz, 44,000,244 Hz were measured), so the divisors stay as the boot loader left them. Where it left none, because
//! the UART was never switched on, they are made of the 44 MHz that TF-A and Circle take.
//!
//! The header's pins are RP1's, a chip behind PCIe. With `enable_rp1_uart=1` and `pciex4_reset=0` in config.txt the boot
//! loader leaves its UART0 ready on GPIO 14 and 15; it moved from one window to another with the EEPROMs of 2025.
//!
//! Sources: the device trees `bcm2712.dtsi` and `bcm2712-rpi-5-b.dts` (interrupts: shared peripheral interrupt + 32);
//! TF-A `plat/rpi/rpi5` (UART10, watchdog, its own memory, PSCI); Circle `include/circle/bcm2712.h` (mailbox, stepping
//! register and what hangs on it); Linux `sdhci-brcmstb.c` and `bcm2712-rpi-5-b.dts` (card slot, 200 MHz `clk_emmc2`).

use super::{Board, Start, Stepping};
use crate::cpu::psci::Psci;
use crate::drivers::led::Pin;
use crate::drivers::sd_slot;

/// The facts.
pub const BOARD: Board = Board {
    name: "Raspberry Pi 5",
    compatible: "brcm,bcm2712",
    part: Some(0xd0b), // Cortex-A76
    // SD hosts and the stepping register; the old bus 0x7c000000, with all else, GIC and mailbox among it.
    // Then the beginnings of the two windows in one of which RP1 is.
    peripherals: &[
        0x10_0000_0000..0x10_0200_0000,
        0x10_7c00_0000..0x10_8000_0000,
        0x1c_0000_0000..0x1c_0020_0000,
        0x1f_0000_0000..0x1f_0020_0000,
    ],
    monitor: 0..0x8_0000, // TF-A: the tree's node `atf@0`
    pl011: (0x10_7d00_1000, 153),
    pl011_clock: 44_000_000,
    pl011_as_left: true,
    stepping: Some(Stepping { register: 0x10_0150_4004, pl011_interrupt: 152 }),
    open_line: true, // `raspberrypi/rpi-eeprom`, issue 672 (the header); openSUSE, bug 1251192 (the debug port)
    // RP1's UART0: the first since EEPROMs of January 2025, the second before, and as Linux has it.
    header_uart: &[0x1c_0003_0000, 0x1f_0003_0000],
    mini_uart: None,
    gpio: None, // the header's pins are RP1's, behind PCIe
    led: Some(Pin { always_on: Some(0x10_7d51_7c00), number: 9, high: false }),
    gic: (0x10_7fff_9000, 0x10_7fff_a000),
    mailbox: Some(0x10_7c01_3880),
    system_timer: Some(0x10_7c00_3000),
    power: Some(0x10_7d20_0000),
    sd_host: Some((0x10_00ff_f000, 305)),
    sd_slot: Some(sd_slot::Place {
        config: 0x10_00ff_f400,
        pins: 0x10_7d51_7c00,
        clock: 200_000_000,
        reach: 64 << 30, // the bus's `dma-ranges`: memory as it is
    }),
    pci: None,
    without_card: "",
    start: Start::Firmware(Some(Psci::MONITOR)),
    cores: 4,
};
