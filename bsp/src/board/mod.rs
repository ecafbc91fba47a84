//! Boards: a board is a struct of facts. To add one, write its file and add it to [`BOARDS`].
//!
//! Only the addresses differ between boards; what is done with them is in `drivers`. This module is also the
//! one place where an address becomes a register block ([`Board::devices`]).
#![allow(unsafe_code)] // an address becomes a reference to a register block, once, here

pub mod qemu_virt;
pub mod rpi4;

use core::ops::Range;

use crate::drivers::{gic, gpio, mailbox, mini_uart, pl011, power, sdhci};

/// Boards this image runs on.
pub static BOARDS: &[Board] = &[rpi4::BOARD, qemu_virt::BOARD];

/// How cores 1 to 3 are made to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// They are parked and look at these words for an entry address, unless the device tree names others.
    SpinTable([u64; 4]),
    /// They are off. The firmware (PSCI) switches them on, in the way the device tree says.
    Firmware,
}

/// What there is to know about a board.
#[derive(Debug)]
pub struct Board {
    /// What to call it when the revision says no more.
    pub name: &'static str,
    /// Entry of the device tree's root `compatible` that names its chip.
    pub compatible: &'static str,
    /// Addresses that hold device registers.
    pub peripherals: &'static [Range<u64>],
    /// PL011 and its interrupt.
    pub pl011: (u64, u32),
    /// What the PL011 runs on where no VideoCore says, in hertz.
    pub pl011_clock: u32,
    /// Auxiliary block with the mini-UART, and its interrupt.
    pub mini_uart: Option<(u64, u32)>,
    /// GPIO block.
    pub gpio: Option<u64>,
    /// Interrupt controller: distributor and CPU interface.
    pub gic: (u64, u64),
    /// VideoCore mailbox.
    pub mailbox: Option<u64>,
    /// Power management block with the watchdog.
    pub power: Option<u64>,
    /// SD host: registers, interrupt.
    pub sd_host: Option<(u64, u32)>,
    /// How the other cores begin.
    pub start: Start,
    /// Cores.
    pub cores: usize,
}

/// The register blocks of a board; none for what it does not have.
#[derive(Clone, Copy)]
pub struct Devices {
    /// PL011.
    pub pl011: &'static pl011::Registers,
    /// Mini-UART.
    pub mini_uart: Option<&'static mini_uart::Registers>,
    /// Pins.
    pub gpio: Option<&'static gpio::Registers>,
    /// GIC distributor.
    pub distributor: &'static gic::Distributor,
    /// GIC CPU interface of the core that asks.
    pub interface: &'static gic::Interface,
    /// Mailbox.
    pub mailbox: Option<&'static mailbox::Registers>,
    /// Watchdog.
    pub power: Option<&'static power::Registers>,
    /// SD host of the card slot.
    pub sd_host: Option<&'static sdhci::Registers>,
}

// SAFETY: registers may be read and written from any core; the bus orders what reaches one device. Drivers that
// need several accesses to belong together are used by one core (the console's reader, the card's host).
unsafe impl Sync for Devices {}
// SAFETY: as above.
unsafe impl Send for Devices {}

impl Board {
    /// The board whose chip one of the device tree's `compatible` strings names; without a device tree, the
    /// only one whose boot loader starts us without: the Raspberry Pi 4.
    pub fn detect<'a>(mut compatible: impl Iterator<Item = &'a str>) -> &'static Self {
        compatible.find_map(|name| BOARDS.iter().find(|board| board.compatible == name)).unwrap_or(&BOARDS[0])
    }

    /// The register blocks of this board.
    ///
    /// # Safety
    /// It must be the board we are on, with [`Board::peripherals`] mapped as device memory.
    pub unsafe fn devices(&self) -> Devices {
        // SAFETY: each address is that board's block of that kind, by its file; blocks hold only cells, so any
        // number of shared references is sound.
        unsafe {
            Devices {
                pl011: &*(self.pl011.0 as *const pl011::Registers),
                mini_uart: self.mini_uart.map(|(address, _)| &*(address as *const mini_uart::Registers)),
                gpio: self.gpio.map(|address| &*(address as *const gpio::Registers)),
                distributor: &*(self.gic.0 as *const gic::Distributor),
                interface: &*(self.gic.1 as *const gic::Interface),
                mailbox: self.mailbox.map(|address| &*(address as *const mailbox::Registers)),
                power: self.power.map(|address| &*(address as *const power::Registers)),
                sd_host: self.sd_host.map(|(address, _)| &*(address as *const sdhci::Registers)),
            }
        }
    }
}

/// What a new-style revision code says. Source: Raspberry Pi documentation, "Revision codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(pub u32);

impl Revision {
    /// The model's name.
    pub fn model(self) -> Option<&'static str> {
        if self.0 & (1 << 23) == 0 {
            return None; // old style: a Raspberry Pi 1
        }
        Some(match (self.0 >> 4) & 0xff {
            0x11 => "Raspberry Pi 4 Model B",
            0x13 => "Raspberry Pi 400",
            0x14 => "Compute Module 4",
            0x15 => "Compute Module 4S",
            0x17 => "Raspberry Pi 5",
            0x18 => "Compute Module 5",
            0x19 => "Raspberry Pi 500",
            0x1a => "Compute Module 5 Lite",
            _ => return None,
        })
    }

    /// RAM in MiB.
    pub fn memory_mib(self) -> Option<u32> {
        let step = (self.0 >> 20) & 7;
        (self.0 & (1 << 23) != 0 && step <= 6).then_some(256 << step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_has_a_way_to_be_switched_off() {
        for board in BOARDS {
            assert!(board.power.is_some() || board.start == Start::Firmware, "{}", board.name);
        }
    }

    #[test]
    fn a_board_is_found_by_its_chip() {
        let compatible = ["raspberrypi,4-model-b", "brcm,bcm2711"];
        assert_eq!(Board::detect(compatible.into_iter()).compatible, "brcm,bcm2711");
        assert_eq!(Board::detect(["linux,dummy-virt"].into_iter()).name, "QEMU virt");
        assert_eq!(Board::detect(core::iter::empty()).compatible, "brcm,bcm2711");
    }

    #[test]
    fn every_board_has_its_devices_among_its_peripherals() {
        for board in BOARDS {
            let present = [
                board.mini_uart.map(|(address, _)| address),
                board.gpio,
                board.mailbox,
                board.power,
                board.sd_host.map(|(address, _)| address),
            ];
            let always = [board.pl011.0, board.gic.0, board.gic.1];
            for address in present.into_iter().flatten().chain(always) {
                assert!(
                    board.peripherals.iter().any(|range| range.contains(&address)),
                    "{} {address:#x}",
                    board.name
                );
            }
        }
    }

    #[test]
    fn a_revision_code_is_read_field_by_field() {
        let emulated = Revision(0xb0_3115);
        assert_eq!(emulated.model(), Some("Raspberry Pi 4 Model B"));
        assert_eq!(emulated.memory_mib(), Some(2048));
        assert_eq!(Revision(0xd0_4170).model(), Some("Raspberry Pi 5"));
        assert_eq!(Revision(0xd0_4170).memory_mib(), Some(8192));
        assert_eq!(Revision(0x000e).model(), None);
    }
}
