//! Strict models of how cores 1 to 3 begin: in the spin table of a Raspberry Pi 4's stub, by a PSCI firmware, or in our own
//! entry code, where an old boot loader leaves them. Such a core has its caches off: it sees what is in memory, not what core 0 has stored.
//!
//! They panic on what would leave a core parked, send it astray or stop core 0: see each file.
#![allow(dead_code)] // each test program uses its part

pub mod psci;
pub mod spin_table;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

pub const CORES: usize = 4;
const LINE: usize = 64;
/// Cores that have begun, and where: how a test gets to know.
pub type Begun = Vec<(usize, u64)>;

/// What core 0 has stored, as far as others can know.
#[derive(Default)]
struct Memory {
    /// Words in a dirty line of core 0's cache, by address.
    cached: HashMap<usize, u64>,
    /// Lines that are being cleaned: until the next barrier nobody knows how far that is.
    cleaning: HashSet<usize>,
    /// Lines that were cleaned.
    cleaned: HashSet<usize>,
    /// What is in memory.
    words: HashMap<usize, u64>,
    /// Core 0's clock, which no other test can move.
    ticks: u64,
}

impl Memory {
    fn store(&mut self, at: usize, word: u64) {
        self.cached.insert(at, word);
        self.cleaned.remove(&(at & !(LINE - 1)));
    }

    fn tick(&mut self) -> Option<u64> {
        self.ticks += 1;
        Some(self.ticks)
    }

    fn clean(&mut self, line: usize) {
        assert!(line.is_multiple_of(LINE), "the line that is cleaned begins at {line:#x}");
        self.cleaning.insert(line);
    }

    fn barrier(&mut self) {
        for line in self.cleaning.drain() {
            self.cached
                .extract_if(|at, _| at & !(LINE - 1) == line)
                .for_each(|(at, word)| _ = self.words.insert(at, word));
            self.cleaned.insert(line);
        }
    }

    /// Refuses what a core would begin with before it is there.
    fn is_ready(&self, what: &str, parameters: &Range<usize>) {
        assert!(self.cleaning.is_empty(), "{what} overtakes the cleaning of a line");
        let dirty = self.cached.keys().min();
        assert_eq!(dirty, None, "{what} comes while the word that it tells of is in a cache");
        let mut lines = (parameters.start & !(LINE - 1)..parameters.end).step_by(LINE);
        assert!(
            lines.all(|line| self.cleaned.contains(&line)),
            "{what} comes before the entry code's parameters"
        );
    }
}

/// The image that cores are to begin in.
#[derive(Clone, Debug)]
pub struct Image {
    /// Addresses, in memory, of its code.
    pub code: Range<u64>,
    /// What the entry code reads with its caches off.
    pub parameters: Range<usize>,
}

impl Image {
    /// Refuses an entry that is none.
    fn begins_at(&self, entry: u64) {
        assert!(entry.is_multiple_of(4), "a core can't begin at {entry:#x}: no instruction does");
        assert!(
            self.code.contains(&entry),
            "a core is to begin at {entry:#x}, where there is no code of ours in memory"
        );
    }
}

/// Cores that a boot loader started with core 0, in our entry code: they look at the parameters after each event.
pub struct Waiting {
    image: Image,
    memory: RefCell<Memory>,
    begun: RefCell<Begun>,
}

impl Waiting {
    pub fn new(image: Image) -> Self {
        Self { image, memory: RefCell::default(), begun: RefCell::default() }
    }
    pub fn begun(&self) -> Begun {
        self.begun.borrow().clone()
    }
}

impl embodios_bsp::machine::Machine for Waiting {
    fn clean(&self, line: usize) {
        self.memory.borrow_mut().clean(line);
    }
    fn barrier(&self) {
        self.memory.borrow_mut().barrier();
    }
    fn send_event(&self) {
        self.memory.borrow().is_ready("the event", &self.image.parameters);
        if self.begun.borrow().is_empty() {
            self.begun.borrow_mut().extend((1..CORES).map(|core| (core, self.image.code.start)));
        }
    }
    fn ticks(&self) -> Option<u64> {
        self.memory.borrow_mut().tick()
    }
    fn call(&self, conduit: embodios_bsp::machine::Conduit, _: [u64; 4]) -> u64 {
        panic!("{conduit:?} is undefined here: no firmware is below us");
    }
}
