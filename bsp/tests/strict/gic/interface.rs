//! A core's interface: IHI 0048B, 4.4. The same addresses show each core its own.

use super::super::board::Device;
use super::{Gic, Inner, LEVELS, PATIENCE, Side, Taken};

pub struct Interface(pub Gic);

/// GICC_CTLR as the secure side sees it: lines that go round the controller are cut off, both groups' of them.
const NO_BYPASS: u32 = 0x1e0;
const ACKNOWLEDGE_BOTH: u32 = 1 << 2;

impl Device for Interface {
    fn load(&self, offset: usize, bytes: usize) -> u32 {
        assert_eq!(bytes, 4, "the core's interface has 32-bit registers");
        self.0.0.borrow_mut().load_own(offset)
    }
    fn store(&self, offset: usize, bytes: usize, value: u32) {
        assert_eq!(bytes, 4, "the core's interface has 32-bit registers");
        self.0.0.borrow_mut().store_own(offset, value);
    }
    fn barrier(&self) {
        self.0.settle(true);
    }
    fn access(&self) {
        self.0.settle(false);
    }
    fn interrupts(&self) -> bool {
        let inner = self.0.0.borrow();
        inner.signalled(inner.me).is_some()
    }
    fn sleep(&self) {
        let inner = self.0.0.borrow();
        let unfinished = inner.cores[inner.me].taken.last();
        assert_eq!(unfinished, None, "core {} sleeps in the middle of a handler", inner.me);
    }
}

impl Inner {
    fn load_own(&mut self, offset: usize) -> u32 {
        let core = &self.cores[self.me];
        match (offset, self.side) {
            // Ours of the control bits: group 1's gate, and its lines that go round: table 4-30.
            (0x00, Side::NonSecure) => core.control >> 1 & 1 | core.control >> 2 & 0x60,
            (0x00, Side::Single) => core.control,
            // A mask in the secure half can't be seen: 4.4.2.
            (0x04, Side::NonSecure) => u32::from(if core.mask < 0x80 { 0 } else { core.mask << 1 }),
            (0x04, Side::Single) => u32::from(core.mask),
            (0x08, side) => u32::from(core.binary_point[usize::from(side == Side::NonSecure)]),
            (0x0c, _) => self.take(),
            (0x14, _) => core.taken.last().map_or(0xff, |taken| match self.side {
                Side::NonSecure => u32::from(taken.priority << 1),
                Side::Single => u32::from(taken.priority),
            }),
            (0xd0, side) => {
                // A bit a priority; we are shown the upper half's.
                let shown = if side == Side::NonSecure { 16 } else { 0 };
                core.taken.iter().fold(0, |word, taken| word | 1_u32 << (taken.priority >> 3)) >> shown
            }
            (0x10, _) => panic!("GICC_EOIR is written, not read"),
            _ => panic!("a core's interface has no register at {offset:#x} for us to read"),
        }
    }

    fn store_own(&mut self, offset: usize, value: u32) {
        let side = self.side;
        let core = &mut self.cores[self.me];
        match offset {
            0x00 => {
                let known = if side == Side::NonSecure { 0x61 } else { 0x1ff };
                assert_eq!(
                    value & !known,
                    0,
                    "GICC_CTLR: bits that are not ours, or a mode that nobody ends"
                );
                let control = match side {
                    Side::NonSecure => core.control & !0x182 | (value & 1) << 1 | (value & 0x60) << 2,
                    Side::Single => value,
                };
                let opened = core.control & !control & NO_BYPASS;
                assert_eq!(opened, 0, "a line that goes round the controller is opened");
                core.control = control;
            }
            0x04 => match side {
                // Neither is one in the secure half ours to raise.
                Side::NonSecure if core.mask < 0x80 => {}
                Side::NonSecure => core.mask = (0x80 | value as u8 >> 1) & LEVELS,
                Side::Single => core.mask = value as u8 & LEVELS,
            },
            0x08 => {
                assert!(value < 8, "GICC_BPR holds 3 bits");
                let group1 = side == Side::NonSecure;
                core.binary_point[usize::from(group1)] = (value as u8).max(if group1 { 3 } else { 2 });
            }
            0x10 => self.end(value),
            0xd0 => {
                assert_eq!(value, 0, "GICC_APR0: any other value than none has no meaning here");
                core.taken.clear();
            }
            0x0c => panic!("GICC_IAR is read, not written"),
            0x1000 => panic!("GICC_DIR is unpredictable where an end deactivates"),
            _ => panic!("a core's interface has no register at {offset:#x} for us to write"),
        }
    }

    /// GICC_IAR: 4.4.4.
    fn take(&mut self) -> u32 {
        const NOTHING: u32 = 1023;
        const OTHER_GROUP: u32 = 1022;
        let me = self.me;
        let Some((number, asked_by)) = self.signalled(me) else { return NOTHING };
        let (group1, priority) = {
            let interrupt = self.peek(me, number);
            (interrupt.group1, interrupt.priority)
        };
        match (self.side, group1) {
            (Side::NonSecure, false) => return NOTHING,
            (Side::Single, true) if self.cores[me].control & ACKNOWLEDGE_BOTH == 0 => return OTHER_GROUP,
            _ => {}
        }
        let interrupt = self.interrupt(me, number);
        interrupt.active = true;
        interrupt.latched = false;
        if interrupt.line && !interrupt.edge {
            interrupt.answered += 1;
            assert!(
                interrupt.answered <= PATIENCE,
                "interrupt {number} comes for ever: nobody gets its line down"
            );
        }
        let core = &mut self.cores[me];
        let mut word = number as u32;
        if let Some(asked) = core.asked_by.get_mut(number) {
            *asked &= !(1 << asked_by);
            word |= (asked_by as u32) << 10;
        }
        core.taken.push(Taken { word, priority, group1 });
        word
    }

    /// GICC_EOIR: 4.4.5. It takes what GICC_IAR gave, the latest first.
    fn end(&mut self, value: u32) {
        assert!(self.settled, "an interrupt ends before the device has got what its handler stored");
        let me = self.me;
        let core = &mut self.cores[me];
        let Some(&last) = core.taken.last() else {
            panic!("{value:#x} is ended, and nothing has been taken")
        };
        let outer = core.taken.iter().any(|taken| taken.word == value);
        assert!(
            last.word == value || !outer,
            "{value:#x} is ended before {:#x}, which came later",
            last.word
        );
        let same = last.word & 0x3ff == value & 0x3ff;
        assert!(
            last.word == value || !same,
            "{value:#x} is ended with another core's number than {:#x}",
            last.word
        );
        assert_eq!(value, last.word, "what is ended has not been taken: {value:#x}, but {:#x}", last.word);
        core.taken.pop();
        self.interrupt(me, value as usize & 0x3ff).active = false;
    }
}
