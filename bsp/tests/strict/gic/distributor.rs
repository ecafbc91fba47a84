//! The distributor's registers: IHI 0048B, 4.3.

use super::super::board::Device;
use super::{CORES, Gic, Inner, LEVELS, SHARED, Side};

pub struct Distributor(pub Gic);

/// What a bit of a set or clear register does to an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bit {
    Enable,
    Disable,
    SetPending,
    ClearPending,
    Activate,
    Deactivate,
}

impl Bit {
    fn at(offset: usize) -> Option<(Self, usize)> {
        use Bit::*;
        let kinds = [Enable, Disable, SetPending, ClearPending, Activate, Deactivate];
        let kind = *kinds.get(offset.checked_sub(0x100)? / 0x80)?;
        Some((kind, offset % 0x80 * 8))
    }
}

impl Device for Distributor {
    fn load(&self, offset: usize, bytes: usize) -> u32 {
        self.0.0.borrow_mut().load(offset, bytes)
    }
    fn store(&self, offset: usize, bytes: usize, value: u32) {
        self.0.0.borrow_mut().store(offset, bytes, value);
    }
    fn barrier(&self) {
        self.0.settle(true);
    }
    fn access(&self) {
        self.0.settle(false);
    }
}

impl Inner {
    /// Interrupts from `first` on that an access of this width covers; ones that are not there are refused.
    fn covered(&self, first: usize, count: usize) -> std::ops::Range<usize> {
        assert!(first + count <= self.lines, "interrupt {first}: the controller has {}", self.lines);
        first..first + count
    }

    fn load(&mut self, offset: usize, bytes: usize) -> u32 {
        let by_byte = (0x400..0xc00).contains(&offset);
        assert!(
            bytes == 4 || bytes == 1 && by_byte,
            "distributor {offset:#x} has no access of {bytes} bytes"
        );
        let me = self.me;
        if let Some((kind, first)) = Bit::at(offset) {
            return self.covered(first, 32).fold(0, |word, number| {
                let interrupt = self.peek(me, number);
                let set = match kind {
                    Bit::Enable | Bit::Disable => interrupt.enabled,
                    Bit::SetPending | Bit::ClearPending => {
                        interrupt.pending() || number < 16 && self.cores[me].asked_by[number] != 0
                    }
                    Bit::Activate | Bit::Deactivate => interrupt.active,
                };
                word | u32::from(set && self.ours(number)) << (number - first)
            });
        }
        match offset {
            0x000 => match self.side {
                Side::NonSecure => u32::from(self.gates[1]),
                Side::Single => u32::from(self.gates[0]) | u32::from(self.gates[1]) << 1,
            },
            0x004 => {
                let two_sides = u32::from(self.side == Side::NonSecure) << 10;
                (self.lines / 32 - 1) as u32 | (CORES as u32 - 1) << 5 | two_sides
            }
            0x008 => 0x0200_143b,
            0x400..0xc00 => {
                let targets = offset >= 0x800;
                let first = offset % 0x400;
                self.covered(first, bytes).rev().fold(0, |word, number| {
                    let interrupt = self.peek(me, number);
                    let byte = match (self.ours(number), targets, self.side) {
                        (false, ..) => 0,
                        (_, true, _) if number < SHARED => 1 << me, // 4.3.12: who reads is told its own bit
                        (_, true, _) => interrupt.targets,
                        (_, false, Side::NonSecure) => interrupt.priority << 1,
                        (_, false, Side::Single) => interrupt.priority,
                    };
                    word << 8 | u32::from(byte)
                })
            }
            0xc00..0xd00 => {
                let first = (offset - 0xc00) * 4;
                let edge = |number| self.ours(number) && self.peek(me, number).edge;
                self.covered(first, 16)
                    .fold(0, |word, number| word | u32::from(edge(number)) << ((number - first) * 2 + 1))
            }
            0xf00 => panic!("GICD_SGIR is written, not read"),
            _ => panic!("the distributor has no register at {offset:#x} for us to read"),
        }
    }

    fn store(&mut self, offset: usize, bytes: usize, value: u32) {
        let by_byte = (0x400..0xc00).contains(&offset);
        assert!(
            bytes == 4 || bytes == 1 && by_byte,
            "distributor {offset:#x} has no access of {bytes} bytes"
        );
        if let Some((kind, first)) = Bit::at(offset) {
            let set = |number: &usize| value >> (number - first) & 1 == 1;
            return self.covered(first, 32).filter(set).for_each(|number| self.strike(kind, number));
        }
        match offset {
            0x000 => {
                let known = if self.side == Side::NonSecure { 1 } else { 3 };
                assert_eq!(value & !known, 0, "GICD_CTLR: bits that are not ours");
                match self.side {
                    Side::NonSecure => self.gates[1] = value & 1 == 1,
                    Side::Single => self.gates = [value & 1 == 1, value >> 1 & 1 == 1],
                }
            }
            0x080..0x100 => panic!("GICD_IGROUPR: groups are the secure side's business"),
            0x400..0xc00 => {
                let first = offset % 0x400;
                for number in self.covered(first, bytes) {
                    let byte = (value >> ((number - first) * 8)) as u8;
                    if offset >= 0x800 {
                        self.set_targets(number, byte)
                    } else {
                        self.set_priority(number, byte)
                    }
                }
            }
            0xc00..0xd00 => {
                let first = (offset - 0xc00) * 4;
                for number in self.covered(first, 16) {
                    self.set_edge(number, value >> ((number - first) * 2 + 1) & 1 == 1);
                }
            }
            0xf00 => self.ask(value),
            _ => panic!("the distributor has no register at {offset:#x} for us to write"),
        }
    }

    fn strike(&mut self, kind: Bit, number: usize) {
        if !self.ours(number) {
            return;
        }
        let me = self.me;
        let interrupt = self.interrupt(me, number);
        match kind {
            Bit::Enable => {
                assert!(
                    number < SHARED || interrupt.targets != 0,
                    "interrupt {number} is enabled for nobody"
                );
                interrupt.enabled = true;
            }
            Bit::Disable => interrupt.enabled = false,
            Bit::SetPending | Bit::ClearPending if number < 16 => {
                panic!("software interrupt {number} is set and cleared by other registers: 4.3.7, 4.3.8")
            }
            Bit::SetPending => interrupt.latched = true,
            Bit::ClearPending => interrupt.latched = false,
            Bit::Activate => {
                panic!("interrupt {number} is made active: that restores a state, and there is none")
            }
            Bit::Deactivate => interrupt.active = false,
        }
    }

    /// An interrupt may not fire while it is configured: neither it nor its group's gate is open.
    fn is_still(&self, number: usize, what: &str) {
        let interrupt = self.peek(self.me, number);
        let open = self.gates[usize::from(interrupt.group1)] && interrupt.enabled;
        assert!(!open, "the {what} of interrupt {number} changes while it may fire");
    }

    fn set_targets(&mut self, number: usize, cores: u8) {
        if !self.ours(number) {
            return;
        }
        assert!(number >= SHARED, "GICD_ITARGETSR of interrupt {number} is read only: 4.3.12");
        assert_eq!(cores >> CORES, 0, "interrupt {number} is sent to a core that is not there");
        if self.peek(0, number).targets != cores {
            self.is_still(number, "target");
            self.interrupt(0, number).targets = cores;
        }
    }

    fn set_priority(&mut self, number: usize, byte: u8) {
        if !self.ours(number) {
            return;
        }
        let value = match self.side {
            Side::NonSecure => 0x80 | byte >> 1, // 4.3.11: the lower half is not ours
            Side::Single => byte,
        } & LEVELS;
        let me = self.me;
        if self.peek(me, number).priority != value {
            // A software interrupt is never still: a core may always have been asked. Nobody waits for an answer, though.
            if number >= 16 {
                self.is_still(number, "priority");
            }
            self.interrupt(me, number).priority = value;
        }
    }

    fn set_edge(&mut self, number: usize, edge: bool) {
        let me = self.me;
        if !self.ours(number) || self.peek(me, number).edge == edge {
            return;
        }
        assert!(number >= SHARED, "GICD_ICFGR of interrupt {number} is read only");
        let enabled = self.peek(me, number).enabled;
        assert!(!enabled, "interrupt {number} is enabled while its kind changes: unpredictable, 4.3.13");
        self.interrupt(me, number).edge = edge;
    }

    /// GICD_SGIR: 4.3.15.
    fn ask(&mut self, value: u32) {
        assert!(self.settled, "a software interrupt overtakes what was stored before it");
        assert_eq!(value & 0xfc00_fff0, 0, "GICD_SGIR: bits that are not ours");
        let (number, me) = (value as usize & 0xf, self.me);
        let list = (value >> 16) as u8;
        let cores = match value >> 24 {
            0 => list,
            1 => 0xf & !(1 << me),
            2 => 1 << me,
            _ => panic!("GICD_SGIR: a filter that is reserved"),
        };
        assert_ne!(cores, 0, "a software interrupt for nobody");
        assert_eq!(cores >> CORES, 0, "a software interrupt for a core that is not there");
        for core in (0..CORES).filter(|core| cores >> core & 1 == 1) {
            // What belongs to the secure side is not forwarded for us: table 4-26.
            if self.side == Side::Single || self.cores[core].own[number].group1 {
                self.cores[core].asked_by[number] |= 1 << me;
            }
        }
    }
}
