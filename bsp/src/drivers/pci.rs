//! PCI Express as small as it can be: one SD host controller on the first bus behind an ECAM window.
//!
//! Only for QEMU's `virt` machine, whose PCI slots nobody has set up before us: the function is found by its class, its first
//! base address register set to a free address, and it is let at memory. No bridges, no interrupts, no capabilities.
//!
//! Source: PCI Express Base Specification 5.0, 7.2.2 (ECAM) and 7.5.1 (configuration space); the class is that of the SD Host
//! Controller Specification, appendix C.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

register_structs! {
    /// Configuration space of a function: 4 KiB.
    pub Function {
        (0x000 => identity: ReadOnly<u32>),              // vendor 15:0, device 31:16
        (0x004 => command: ReadWrite<u32>),              // command 15:0, status 31:16 (written ones clear)
        (0x008 => class: ReadOnly<u32>),                 // revision 7:0, class code 31:8
        (0x00c => _header),
        (0x010 => base_address: [ReadWrite<u32>; 6]),
        (0x028 => _rest),
        (0x1000 => @END),
    }
}

/// Functions of a bus: eight of each of 32 devices.
pub type Bus = [Function; 256];
/// Bytes of a bus's configuration space.
pub const BUS_BYTES: u64 = size_of::<Bus>() as u64;

/// Where a board has its first bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Configuration space of the bus: [`BUS_BYTES`].
    pub bus: u64,
    /// Addresses for registers of what is found, a page.
    pub memory: u64,
}

/// Bytes at [`Place::memory`].
pub const MEMORY_BYTES: u32 = 4096;

const NONE: u32 = 0xffff;
const SD_HOST: u32 = 0x0805; // base class 08, system peripheral; subclass 05
const MEMORY: u32 = 1 << 1;
const MASTER: u32 = 1 << 2;
const IO: u32 = 1;
const WIDE: u32 = 0b100; // bits 2:1 are 10: the register is two words

/// Sets up the first SD host controller, its registers at `address`; false if there is none whose registers fit there.
pub fn set_up_sd_host(bus: &Bus, address: u32) -> bool {
    let present = |function: &&Function| function.identity.get() & 0xffff != NONE;
    // The first function of each device; others are there only if that one says so, which no SD host of QEMU's does.
    let mut functions = bus.iter().step_by(8).filter(present);
    let Some(host) = functions.find(|function| function.class.get() >> 16 == SD_HOST) else { return false };
    let command = host.command.get() & 0xffff & !(MEMORY | MASTER);
    host.command.set(command); // no answer at the old address while it changes
    let [low, high, ..] = &host.base_address;
    low.set(u32::MAX);
    let bits = low.get();
    if memory_bytes(bits).is_none_or(|bytes| bytes > MEMORY_BYTES) {
        return false;
    }
    low.set(address);
    if bits & 0b110 == WIDE {
        high.set(0);
    }
    host.command.set(command | MEMORY | MASTER);
    true
}

/// Bytes behind a base address register, by what it holds after ones were written to it; none if they are no memory.
fn memory_bytes(bits: u32) -> Option<u32> {
    (bits & IO == 0 && bits & !0xf != 0).then(|| (!(bits & !0xf)).wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::{in_memory, view};

    /// Configuration space in memory: every function is absent but the one that `set` makes.
    fn bus(device: usize, identity: u32, class: u32) -> (&'static Bus, &'static [ReadWrite<u32>; 1024]) {
        let bus = in_memory::<Bus>();
        let start = core::ptr::from_ref(bus) as usize;
        for function in 0..256 {
            view::<[ReadWrite<u32>; 1024]>(start + function * 4096)[0].set(u32::MAX);
        }
        let words = view::<[ReadWrite<u32>; 1024]>(start + device * 8 * 4096);
        words[0].set(identity);
        words[2].set(class);
        (bus, words)
    }

    #[test]
    fn a_base_address_register_tells_its_size() {
        assert_eq!(memory_bytes(0xffff_ff00), Some(256));
        assert_eq!(memory_bytes(0xffff_f004), Some(4096));
        assert_eq!(memory_bytes(0x8000_000c), Some(1 << 31));
        assert_eq!(memory_bytes(0xffff_ff01), None, "I/O space");
        assert_eq!(memory_bytes(0), None, "not there");
    }

    #[test]
    fn an_sd_host_without_memory_registers_is_switched_off_and_not_used() {
        // Plain memory keeps all ones, as no register does: I/O space.
        let (bus, words) = bus(3, 0x0007_1b36, 0x0805_0100);
        words[1].set(0xffff_0000 | MEMORY | MASTER | IO);
        assert!(!set_up_sd_host(bus, 0x1000_0000));
        assert_eq!(words[1].get(), IO, "and no status bit was cleared");
    }

    #[test]
    fn other_devices_are_left_alone() {
        let (bus, words) = bus(1, 0x1000_1af4, 0x0200_0000);
        words[1].set(7);
        assert!(!set_up_sd_host(bus, 0x1000_0000));
        assert_eq!(words[1].get(), 7);
        let (bus, _) = self::bus(1, u32::MAX, 0x0805_0000);
        assert!(!set_up_sd_host(bus, 0x1000_0000));
    }
}
