//! Boards: a board is a struct of facts. To add one, write its file and add it to [`BOARDS`].
//!
//! Only the addresses differ between boards; what is done with them is in `drivers`. This module is also the
//! one place where an address becomes a register block ([`Board::devices`]).
#![allow(unsafe_code)] // an address becomes a reference to a register block, once, here

pub mod qemu_virt;
pub mod rpi4;
pub mod rpi5;

use core::ops::Range;
use core::sync::atomic::AtomicU64;

use tock_registers::interfaces::Readable;
use tock_registers::registers::ReadOnly;

use crate::cpu::psci::{Psci, Refused};
use crate::cpu::{self, CORES_MAX, guarded, mmu};
use crate::drivers::{gic, gpio, led, mailbox, mini_uart, pci, pl011, power, sd_slot, sdhci, system_timer};
use crate::handoff::Handoff;

/// Boards this image runs on.
pub static BOARDS: &[Board] = &[rpi4::BOARD, rpi5::BOARD, qemu_virt::BOARD];

/// How cores 1 to 3 are made to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// They are parked and look at these words for an entry address, unless the device tree names others, or a
    /// firmware that has taken the stub's place.
    SpinTable([u64; 4]),
    /// They are off. The firmware (PSCI) switches them on, called as the device tree says, else so.
    Firmware(Option<Psci>),
}

/// What to do for cores 1 to 3, once the hand-over is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Write the entry address to these words, clean them to memory, send an event.
    Words([u64; 4]),
    /// Have this firmware switch them on.
    Firmware(Psci),
    /// Nothing: those that a boot loader started with us wait in our entry code.
    Nothing,
}

/// What became of cores 1 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// How many cores there are, core 0 included, as far as that is known.
    pub cores: usize,
    /// Why one was not started, where a firmware says so.
    pub refused: [Option<Refused>; CORES_MAX],
}

impl Release {
    /// Lets the other cores begin at `entry`, its address in memory. `parameters` is what they read there with their caches
    /// off: it is cleaned to memory first.
    ///
    /// # Safety
    /// It must be the board we are on, `entry` code that a core can begin with, caches and MMU off, and spin-table words must be
    /// mapped for writing and not used by anything else.
    pub unsafe fn start(self, cores: usize, entry: usize, parameters: &[AtomicU64]) -> Begun {
        mmu::clean(parameters);
        let mut begun = Begun { cores, refused: [None; CORES_MAX] };
        match self {
            Self::Words(words) => {
                for word in &words[1..cores] {
                    // SAFETY: the caller vouches for words and entry.
                    unsafe { cpu::cores::release(*word as usize, entry) };
                }
            }
            Self::Firmware(firmware) => {
                for core in 1..cores {
                    // SAFETY: the caller vouches for the entry.
                    match unsafe { firmware.start_core(cpu::affinity(core), entry as u64) } {
                        Ok(()) => {}
                        // A machine may have been given fewer cores.
                        Err(Refused::NoSuchCore) => {
                            begun.cores = core;
                            break;
                        }
                        // It counts: that it does not come is told.
                        Err(why) => begun.refused[core] = Some(why),
                    }
                }
            }
            // Those that a boot loader started with us are nudged by events: whoever comes, comes.
            Self::Nothing => {}
        }
        begun
    }
}

/// A chip's stepping, and what hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepping {
    /// Address of the register that tells it: the chip's number in the upper half, the stepping in the lowest byte.
    pub register: u64,
    /// The PL011's interrupt from stepping D0 on.
    pub pl011_interrupt: u32,
}

/// What there is to know about a board.
#[derive(Debug)]
pub struct Board {
    /// What to call it when the revision says no more.
    pub name: &'static str,
    /// Entry of the device tree's root `compatible` that names its chip.
    pub compatible: &'static str,
    /// Part number of its cores (MIDR_EL1 bits 15:4), by which it is known where there is no device tree.
    pub part: Option<u32>,
    /// Addresses that hold device registers.
    pub peripherals: &'static [Range<u64>],
    /// RAM that stays the property of what started us, whatever the hand-over says.
    pub monitor: Range<u64>,
    /// PL011 and its interrupt.
    pub pl011: (u64, u32),
    /// What the PL011 runs on where no VideoCore says, in hertz.
    pub pl011_clock: u32,
    /// The speed that the boot loader has set stays, if it has set one: it knows the clock better.
    pub pl011_as_left: bool,
    /// Whether nothing holds a console's receiving line where no cable does: it then hears what nobody sent.
    pub open_line: bool,
    /// Where a PL011 on the header may be that a boot loader leaves ready behind a bus of its own: the first that answers.
    pub header_uart: &'static [u64],
    /// Where the chip tells its stepping, if something hangs on it.
    pub stepping: Option<Stepping>,
    /// Auxiliary block with the mini-UART, and its interrupt.
    pub mini_uart: Option<(u64, u32)>,
    /// GPIO block.
    pub gpio: Option<u64>,
    /// The activity light.
    pub led: Option<led::Pin>,
    /// Interrupt controller: distributor and CPU interface.
    pub gic: (u64, u64),
    /// VideoCore mailbox.
    pub mailbox: Option<u64>,
    /// The chip's own clock: counter of microseconds.
    pub system_timer: Option<u64>,
    /// Power management block with the watchdog.
    pub power: Option<u64>,
    /// SD host: registers, interrupt.
    pub sd_host: Option<(u64, u32)>,
    /// What stands around it, where VideoCore has nothing to do with it.
    pub sd_slot: Option<sd_slot::Place>,
    /// Why no card can be read, if there is no SD host; what to do instead.
    pub without_card: &'static str,
    /// First PCI bus, where an SD host may be plugged in.
    pub pci: Option<pci::Place>,
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
    /// The PL011's interrupt on this chip's stepping.
    pub pl011_interrupt: u32,
    /// Mini-UART.
    pub mini_uart: Option<&'static mini_uart::Registers>,
    /// Pins.
    pub gpio: Option<&'static gpio::Registers>,
    /// The activity light.
    pub led: Option<led::Led>,
    /// GIC distributor.
    pub distributor: &'static gic::Distributor,
    /// GIC CPU interface of the core that asks.
    pub interface: &'static gic::Interface,
    /// Mailbox.
    pub mailbox: Option<&'static mailbox::Registers>,
    /// The chip's own clock.
    pub system_timer: Option<&'static system_timer::Registers>,
    /// Watchdog.
    pub power: Option<&'static power::Registers>,
    /// SD host of the card slot.
    pub sd_host: Option<&'static sdhci::Registers>,
    /// What switches the card slot's supply, where it is no business of VideoCore.
    pub sd_slot: Option<sd_slot::Slot>,
    /// First PCI bus, and the place for registers of what is found there.
    pub pci: Option<(&'static pci::Bus, &'static sdhci::Registers, u32)>,
}

/// A PL011 that was looked for and found.
#[derive(Clone, Copy)]
pub struct HeaderUart(pub &'static pl011::Registers);

// SAFETY: as for `Devices`, below.
unsafe impl Sync for HeaderUart {}
// SAFETY: as above.
unsafe impl Send for HeaderUart {}

// SAFETY: registers may be read and written from any core; the bus orders what reaches one device. Drivers that
// need several accesses to belong together are used by one core (the console's reader, the card's host).
unsafe impl Sync for Devices {}
// SAFETY: as above.
unsafe impl Send for Devices {}

impl Board {
    /// The board whose chip one of the device tree's `compatible` strings names; without a device tree, or with
    /// one that names none of ours, the board whose cores have this part number. Cores nobody knows are taken for a
    /// Raspberry Pi 4's, the only board that old boot loaders start without a tree.
    pub fn detect<'a>(mut compatible: impl Iterator<Item = &'a str>, part: u32) -> &'static Self {
        let named = compatible.find_map(|name| BOARDS.iter().find(|board| board.compatible == name));
        let with_part = || BOARDS.iter().find(|board| board.part == Some(part));
        named.or_else(with_part).unwrap_or(&BOARDS[0])
    }

    /// The firmware that may be called: the one that the device tree names, else the board's own. None where the call
    /// would be undefined, whatever the tree says:
    /// - the stub of a Raspberry Pi 4 has switched SMC off (SCR_EL3.SMD); a firmware that takes its place (TF-A as
    ///   `armstub`) also writes the cores' `enable-method`;
    /// - entered at EL3, we are what a monitor would be; entered at EL2, what a hypervisor would be.
    pub fn firmware(&self, handoff: &Handoff, entered_at: u8) -> Option<Psci> {
        let firmware = match self.start {
            Start::SpinTable(_) => handoff.psci.filter(|_| handoff.cores_by_psci),
            Start::Firmware(own) => handoff.psci.or(own),
        };
        firmware.filter(|firmware| firmware.is_below(entered_at))
    }

    /// How the other cores are made to begin, with the firmware that [`Board::firmware`] gave.
    pub fn release(&self, handoff: &Handoff, firmware: Option<Psci>) -> Release {
        match (self.start, firmware) {
            (_, Some(firmware)) => Release::Firmware(firmware),
            (Start::SpinTable(words), None) => {
                let mut chosen = words;
                for (chosen, told) in chosen.iter_mut().zip(handoff.release_words) {
                    // Elsewhere than in the stub's memory there is no word of its.
                    if let Some(told) = told.filter(|word| self.monitor.contains(word) && word % 8 == 0) {
                        *chosen = told;
                    }
                }
                Release::Words(chosen)
            }
            (Start::Firmware(_), None) => Release::Nothing,
        }
    }

    /// The header's PL011, where it is behind a bus of its own and the boot loader has left that open.
    ///
    /// # Safety
    /// It must be the board we are on, with [`Board::peripherals`] mapped as device memory.
    pub unsafe fn header_uart(&self) -> Option<HeaderUart> {
        // SAFETY: the addresses are those of identification registers, if anything is there: they may be read.
        let read = |address: u64| unsafe { guarded::load(address as usize) };
        let address =
            self.header_uart.iter().find(|&&address| pl011::is_one(|offset| read(address + offset)))?;
        // SAFETY: what is there says that it is a PL011.
        Some(HeaderUart(unsafe { &*(*address as *const pl011::Registers) }))
    }

    /// The PL011's interrupt on a chip whose stepping register reads so.
    fn pl011_interrupt(&self, stepping: Option<u32>) -> u32 {
        match (self.stepping, stepping) {
            (Some(known), Some(word)) if word >> 16 == 0x2712 && word & 0xff >= 0xd0 => known.pl011_interrupt,
            _ => self.pl011.1,
        }
    }

    /// The register blocks of this board.
    ///
    /// # Safety
    /// It must be the board we are on, with [`Board::peripherals`] mapped as device memory.
    pub unsafe fn devices(&self) -> Devices {
        // SAFETY: each address is that board's block of that kind, by its file; blocks hold only cells, so any
        // number of shared references is sound.
        unsafe {
            let stepping = self.stepping.map(|known| (*(known.register as *const ReadOnly<u32>)).get());
            Devices {
                pl011: &*(self.pl011.0 as *const pl011::Registers),
                pl011_interrupt: self.pl011_interrupt(stepping),
                mini_uart: self.mini_uart.map(|(address, _)| &*(address as *const mini_uart::Registers)),
                gpio: self.gpio.map(|address| &*(address as *const gpio::Registers)),
                led: self.led.and_then(|pin| {
                    let registers = match (pin.always_on, self.gpio) {
                        (Some(address), _) => led::Registers::AlwaysOn(&*(address as *const led::AlwaysOn)),
                        (None, Some(address)) => led::Registers::Gpio(&*(address as *const gpio::Registers)),
                        (None, None) => return None,
                    };
                    Some(led::Led::new(registers, pin))
                }),
                distributor: &*(self.gic.0 as *const gic::Distributor),
                interface: &*(self.gic.1 as *const gic::Interface),
                mailbox: self.mailbox.map(|address| &*(address as *const mailbox::Registers)),
                system_timer: self.system_timer.map(|address| &*(address as *const system_timer::Registers)),
                power: self.power.map(|address| &*(address as *const power::Registers)),
                sd_host: self.sd_host.map(|(address, _)| &*(address as *const sdhci::Registers)),
                sd_slot: self.sd_slot.map(|place| sd_slot::Slot {
                    config: &*(place.config as *const sd_slot::Config),
                    pins: &*(place.pins as *const sd_slot::AlwaysOnPins),
                }),
                pci: self.pci.map(|place| {
                    let registers = &*(place.memory as *const sdhci::Registers);
                    (&*(place.bus as *const pci::Bus), registers, place.memory as u32)
                }),
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
    fn every_board_has_a_way_to_be_switched_off_and_a_card_slot_or_a_reason() {
        for board in BOARDS {
            let firmware = matches!(board.start, Start::Firmware(_));
            assert!(board.power.is_some() || firmware, "{}", board.name);
            assert_ne!(board.sd_host.is_some(), !board.without_card.is_empty(), "{}", board.name);
        }
    }

    #[test]
    fn a_board_is_found_by_its_chip_and_without_a_tree_by_its_cores() {
        let found = |compatible: &[&'static str], part| Board::detect(compatible.iter().copied(), part).name;
        const A72: u32 = 0xd08;
        const A76: u32 = 0xd0b;
        assert_eq!(found(&["raspberrypi,4-model-b", "brcm,bcm2711"], A72), "Raspberry Pi 4");
        assert_eq!(found(&["raspberrypi,5-model-b", "brcm,bcm2712"], A76), "Raspberry Pi 5");
        assert_eq!(found(&["linux,dummy-virt"], A76), "QEMU virt", "the tree knows better than the core");
        assert_eq!(found(&["linux,dummy-virt"], A72), "QEMU virt");
        assert_eq!(found(&["raspberrypi,5-compute-module", "brcm,bcm2712"], A72), "Raspberry Pi 5");
        for compatible in [&[][..], &["some,other-board"]] {
            assert_eq!(found(compatible, A72), "Raspberry Pi 4");
            assert_eq!(found(compatible, A76), "Raspberry Pi 5");
            assert_eq!(found(compatible, 0xd03), "Raspberry Pi 4");
        }
    }

    /// A hand-over in which a tree says this of the firmware and the cores.
    fn told(method: &str, cores_by_psci: bool) -> Handoff {
        Handoff { psci: Psci::named(method), cores_by_psci, ..Handoff::default() }
    }

    #[test]
    fn no_call_is_made_where_it_is_undefined() {
        let (pi4, pi5, virt) = (&rpi4::BOARD, &rpi5::BOARD, &qemu_virt::BOARD);
        let (silent, smc) = (told("", false), told("smc", true));
        // The stub of a Raspberry Pi 4 has switched SMC off.
        assert_eq!(pi4.firmware(&silent, 2), None);
        assert_eq!(pi4.firmware(&told("smc", false), 2), None, "a node alone is no firmware");
        assert_eq!(pi4.firmware(&smc, 2), Psci::named("smc"), "TF-A in the stub's place");
        // On a Raspberry Pi 5 TF-A is there, whether a tree is or not, unless we were started in its place.
        for handoff in [&silent, &smc] {
            assert_eq!(pi5.firmware(handoff, 2), Psci::named("smc"));
            assert_eq!(pi5.firmware(handoff, 3), None);
        }
        // QEMU's firmware plays the hypervisor for a guest at EL1, the monitor for one at EL2.
        assert_eq!(virt.firmware(&told("hvc", true), 1), Psci::named("hvc"));
        assert_eq!(virt.firmware(&told("hvc", true), 2), None, "that call would come to ourselves");
        assert_eq!(virt.firmware(&smc, 2), Psci::named("smc"));
        assert_eq!(virt.firmware(&smc, 3), None);
        assert_eq!(virt.firmware(&silent, 1), None);
    }

    #[test]
    fn cores_begin_by_the_words_of_the_tree_as_far_as_they_are_the_stubs() {
        let mut handoff = Handoff {
            release_words: [Some(0xd8), Some(0x2e0), Some(0x8_0000), Some(0xf1)],
            ..Handoff::default()
        };
        let words = Release::Words([0xd8, 0x2e0, 0xe8, 0xf0]);
        assert_eq!(
            rpi4::BOARD.release(&handoff, None),
            words,
            "outside the stub, and not on a border of 8 bytes"
        );
        handoff.release_words = [None; 4];
        assert_eq!(rpi4::BOARD.release(&handoff, None), Release::Words([0xd8, 0xe0, 0xe8, 0xf0]));
        let monitor = Psci::MONITOR;
        assert_eq!(rpi4::BOARD.release(&handoff, Some(monitor)), Release::Firmware(monitor));
        assert_eq!(rpi5::BOARD.release(&handoff, Some(monitor)), Release::Firmware(monitor));
        assert_eq!(rpi5::BOARD.release(&handoff, None), Release::Nothing);
    }

    #[test]
    fn the_debug_ports_interrupt_hangs_on_the_stepping() {
        let spi = |stepping| rpi5::BOARD.pl011_interrupt(stepping) - 32;
        assert_eq!(spi(Some(0x2712_00c1)), 121);
        assert_eq!(spi(Some(0x2712_00d0)), 120);
        assert_eq!(spi(Some(0x2712_00d1)), 120);
        assert_eq!(spi(Some(0xdead_dead)), 121, "that is no stepping register");
        assert_eq!(rpi4::BOARD.pl011_interrupt(None), 153);
    }

    #[test]
    fn a_raspberry_pi_5s_addresses_are_those_of_its_device_tree() {
        // Bus 0x7c000000 is seen at 0x10_7c000000: each address is that of the tree's node on the bus `soc`.
        let soc = |bus: u64| bus + 0x10_0000_0000;
        let board = &rpi5::BOARD;
        assert_eq!(board.pl011.0, soc(0x7d00_1000));
        assert_eq!(board.gic, (soc(0x7fff_9000), soc(0x7fff_a000)));
        assert_eq!(board.mailbox, Some(soc(0x7c01_3880)));
        assert_eq!(board.power, Some(soc(0x7d20_0000)));
        for range in board.peripherals {
            assert!(range.start >= 4 << 30 && range.end <= 1 << 40, "{range:x?}");
            assert!(range.start.is_multiple_of(mmu::BLOCK) && range.end.is_multiple_of(mmu::BLOCK));
        }
        assert!(board.pl011_as_left, "its divisors are the boot loader's");
    }

    #[test]
    fn every_board_has_its_devices_among_its_peripherals() {
        for board in BOARDS {
            let present = [
                board.mini_uart.map(|(address, _)| address),
                board.gpio,
                board.led.and_then(|pin| pin.always_on),
                board.mailbox,
                board.power,
                board.system_timer,
                board.sd_host.map(|(address, _)| address),
                board.stepping.map(|stepping| stepping.register),
                board.sd_slot.map(|place| place.config),
                board.sd_slot.map(|place| place.pins),
                board.pci.map(|place| place.bus),
                board.pci.map(|place| place.bus + pci::BUS_BYTES - 1),
                board.pci.map(|place| place.memory + u64::from(pci::MEMORY_BYTES) - 1),
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
