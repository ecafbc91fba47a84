//! The spin table of a Raspberry Pi 4's stub. Each core sleeps until an event, loads its own word of 64 bits with its caches
//! off, and begins where that says, unless it is 0.
//!
//! Refused: a store that page 0 is not mapped for, of another width, to another word, to that of a core that has left; an
//! entry that is not the physical address of an instruction of ours; an event before the word is in memory, or before
//! what the entry code reads is; a call to a firmware: the stub has switched SMC off.
//!
//! Source: raspberrypi/tools, `armstubs/armstub8.S`.

use std::cell::RefCell;

use embodios_bsp::cpu::mmu::{Access, Tables};
use embodios_bsp::machine::{Conduit, Machine};

use super::{Begun, CORES, Image, Memory};

/// The page that the stub is in.
const STUB: usize = 4096;
/// Core 0's word; the others' follow.
const WORDS: usize = 0xd8;
/// What a page's or block's entry says of attributes, rights and validity, and its address.
const ATTRIBUTES: u64 = 0x00e0_0000_0000_0ffd;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

pub struct SpinTable {
    image: Image,
    /// Core 0's view of memory.
    tables: &'static Tables<4>,
    /// Cores that never wake up.
    dead: Vec<usize>,
    inner: RefCell<Inner>,
}

struct Inner {
    memory: Memory,
    parked: [bool; CORES],
    begun: Begun,
}

impl SpinTable {
    pub fn new(image: Image, tables: &'static Tables<4>, dead: &[usize]) -> Self {
        let parked = [false, true, true, true];
        let inner = RefCell::new(Inner { memory: Memory::default(), parked, begun: Vec::new() });
        Self { image, tables, dead: dead.into(), inner }
    }

    /// Cores that have left the table.
    pub fn begun(&self) -> Begun {
        self.inner.borrow().begun.clone()
    }
}

impl Machine for SpinTable {
    fn store(&self, address: usize, bytes: usize, value: u64) -> bool {
        if address >= STUB {
            return false;
        }
        let entry = self.tables.walk(address as u64);
        let entry =
            entry.unwrap_or_else(|| panic!("a store at {address:#x}, where nothing is mapped: a fault"));
        assert_eq!(entry & ADDRESS, 0, "the page of {address:#x} is mapped to other memory");
        assert_eq!(entry & ATTRIBUTES, Access::Data.bits(), "page 0 is not mapped as memory to write to");
        assert_eq!(bytes, 8, "a parked core loads 64 bits, {bytes} bytes were stored");
        let core = address.wrapping_sub(WORDS) / 8;
        assert!(
            address.is_multiple_of(8) && (1..CORES).contains(&core),
            "{address:#x} is no parked core's word"
        );
        let mut inner = self.inner.borrow_mut();
        assert!(inner.parked[core], "core {core} has left the table: its word sends nobody anywhere");
        self.image.begins_at(value);
        inner.memory.store(address, value);
        true
    }

    fn clean(&self, line: usize) {
        self.inner.borrow_mut().memory.clean(line);
    }

    fn ticks(&self) -> Option<u64> {
        self.inner.borrow_mut().memory.tick()
    }

    fn barrier(&self) {
        self.inner.borrow_mut().memory.barrier();
    }

    fn send_event(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.memory.is_ready("the event", &self.image.parameters);
        for core in (1..CORES).filter(|core| !self.dead.contains(core)) {
            let word = inner.memory.words.get(&(WORDS + 8 * core)).copied().unwrap_or(0);
            if inner.parked[core] && word != 0 {
                inner.parked[core] = false;
                inner.begun.push((core, word));
            }
        }
    }

    fn call(&self, conduit: Conduit, _: [u64; 4]) -> u64 {
        panic!("{conduit:?} is undefined here: the stub has switched SMC off, and nobody is at EL2 but us");
    }

    /// Cortex-A72: cores are counted in affinity level 0.
    fn affinity(&self) -> u64 {
        0x8000_0000
    }
}
