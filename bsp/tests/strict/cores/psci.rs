//! A PSCI firmware: TF-A on a Raspberry Pi 5, or in the stub's place on a Raspberry Pi 4; QEMU on `virt`.
//!
//! Refused: a call by the other instruction, a function that it has not, a target with bits that are no affinity, an entry that is
//! not the physical address of an instruction of ours, a core started before what its entry code reads is in memory.
//! What a caller can do nothing for, it gets as a code.
//!
//! Source: Arm DEN 0022 (PSCI), 5.1 and 5.2.

use std::cell::RefCell;

use embodios_bsp::machine::{Conduit, Machine};

use super::{Begun, CORES, Image, Memory};

const CPU_ON: u64 = 0xc400_0003;
const CPU_ON_32: u64 = 0x8400_0003;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
/// Aff3, and Aff2 to Aff0: all else in a target must be 0.
const AFFINITY: u64 = 0xff_00ff_ffff;

pub const SUCCESS: i32 = 0;
pub const INVALID_PARAMETERS: i32 = -2;
pub const DENIED: i32 = -3;
pub const ALREADY_ON: i32 = -4;
pub const ON_PENDING: i32 = -5;
pub const INTERNAL_FAILURE: i32 = -6;

/// What became of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    On,
    Off,
    Restarted,
}

pub struct Firmware {
    conduit: Conduit,
    image: Image,
    /// MPIDR of core 0.
    mpidr: u64,
    /// Cores there are.
    cores: usize,
    /// What it answers for a core, if that is not success.
    faults: Vec<(usize, i32)>,
    inner: RefCell<Inner>,
}

struct Inner {
    memory: Memory,
    power: Power,
    on: [bool; CORES],
    begun: Begun,
    /// Of each core that was started, what it finds in x0.
    contexts: Vec<u64>,
}

impl Firmware {
    /// One that is called by this instruction, on Cortex-A76 cores, which are counted in affinity level 1.
    pub fn new(conduit: Conduit, image: Image, cores: usize) -> Self {
        let (memory, begun, contexts) = (Memory::default(), Vec::new(), Vec::new());
        let inner = Inner { memory, power: Power::On, on: [true, false, false, false], begun, contexts };
        Self { conduit, image, mpidr: 0x8100_0000, cores, faults: Vec::new(), inner: RefCell::new(inner) }
    }

    /// The same on Cortex-A72 cores: affinity level 0.
    pub fn on_a72(mut self) -> Self {
        self.mpidr = 0x8000_0000;
        self
    }

    /// It answers so for a core.
    pub fn answering(mut self, core: usize, code: i32) -> Self {
        self.faults.push((core, code));
        self
    }

    pub fn begun(&self) -> Begun {
        self.inner.borrow().begun.clone()
    }
    pub fn contexts(&self) -> Vec<u64> {
        self.inner.borrow().contexts.clone()
    }
    pub fn power(&self) -> Power {
        self.inner.borrow().power
    }

    fn turn_on(&self, target: u64, entry: u64, context: u64) -> i32 {
        assert_eq!(target & !AFFINITY, 0, "CPU_ON of {target:#x}: bits that are no affinity must be 0");
        let shift = if self.mpidr >> 24 & 1 == 1 { 8 } else { 0 };
        let Some(core) = (0..self.cores).find(|&core| (core as u64) << shift == target) else {
            return INVALID_PARAMETERS;
        };
        self.image.begins_at(entry);
        let mut inner = self.inner.borrow_mut();
        inner.memory.is_ready("CPU_ON", &self.image.parameters);
        if inner.on[core] {
            return ALREADY_ON;
        }
        if let Some(&(_, code)) = self.faults.iter().find(|(faulty, _)| *faulty == core) {
            return code;
        }
        inner.on[core] = true;
        inner.begun.push((core, entry));
        inner.contexts.push(context);
        SUCCESS
    }
}

impl Machine for Firmware {
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
        self.inner.borrow().memory.is_ready("the event", &self.image.parameters);
    }

    fn call(&self, conduit: Conduit, [function, first, second, third]: [u64; 4]) -> u64 {
        assert_eq!(conduit, self.conduit, "the firmware is not called by {conduit:?}: that is undefined");
        assert_eq!(self.power(), Power::On, "a call to a machine that is no longer on");
        let result = match function {
            CPU_ON => self.turn_on(first, second, third),
            SYSTEM_OFF | SYSTEM_RESET => {
                let power = if function == SYSTEM_OFF { Power::Off } else { Power::Restarted };
                self.inner.borrow_mut().power = power;
                SUCCESS
            }
            CPU_ON_32 => panic!("CPU_ON with arguments of 32 bits cuts an entry of 64"),
            _ => panic!("{function:#x} is no function that every firmware has"),
        };
        result as u64
    }

    fn affinity(&self) -> u64 {
        self.mpidr
    }
}
