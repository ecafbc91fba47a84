//! GICv2 (GIC-400): the interrupt controller of all boards. Enable, acknowledge, end; and interrupts between cores.
//!
//! Seen from the non-secure side, where the boot loader starts us: it has put every interrupt in group 1, and
//! bit 0 of the two control registers then means group 1. QEMU's has no security, and the same writes serve.
//!
//! Whether it lets anything through to us is up to whoever has its secure side: a stub that leaves interrupts in group 0 keeps
//! them from us, and all our writes are then ignored. [`Gic::gets_through`] tells.
//!
//! Source: Arm IHI 0048B (GICv2), chapter 4.

use core::time::Duration;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;

use super::registers::{ReadOnly, ReadWrite, WriteOnly};
use crate::cpu::{self, Masked, timer};

register_structs! {
    /// Distributor: 4.3.
    pub Distributor {
        (0x000 => control: ReadWrite<u32>),
        (0x004 => kind: ReadOnly<u32>),            // TYPER: bits 4:0, lines / 32 - 1
        (0x008 => _reserved0),
        (0x100 => enable: [ReadWrite<u32>; 32]),   // a one enables
        (0x180 => disable: [ReadWrite<u32>; 32]),  // a one disables
        (0x200 => _reserved1),
        (0x280 => withdraw: [ReadWrite<u32>; 32]), // a one makes it no longer pending
        (0x300 => _reserved2),
        (0x380 => deactivate: [ReadWrite<u32>; 32]), // a one ends what someone took and never ended
        (0x400 => priority: [ReadWrite<u32>; 255]), // a byte an interrupt
        (0x7fc => _reserved3),
        (0x800 => targets: [ReadWrite<u32>; 255]), // a byte an interrupt, a bit a core
        (0xbfc => _reserved4),
        (0xc00 => trigger: [ReadWrite<u32>; 64]),  // two bits an interrupt
        (0xd00 => _reserved5),
        (0xf00 => software: WriteOnly<u32>),       // SGIR: cores in 23:16, number in 3:0
        (0xf04 => @END),
    }
}
register_structs! {
    /// CPU interface: 4.4. The same address shows each core its own.
    pub Interface {
        (0x00 => control: ReadWrite<u32>),
        (0x04 => priority_mask: ReadWrite<u32>),
        (0x08 => binary_point: ReadWrite<u32>),
        (0x0c => acknowledge: ReadOnly<u32>),      // IAR: number in 9:0, sending core in 12:10
        (0x10 => end: WriteOnly<u32>),             // EOIR: what IAR gave
        (0x14 => _reserved0),
        (0xd0 => active_priorities: ReadWrite<u32>), // APR0: one bit a priority that is being handled
        (0xd4 => @END),
    }
}

/// The software interrupt that wakes a core.
pub const WAKE: u32 = 0;
/// Numbers from here on are devices', a core's own ones first; below, other cores'.
const OF_DEVICES: u32 = 16;
/// CTLR bits 8:5: interrupts that go round the controller are cut off.
const NO_BYPASS: u32 = 0x1e0;
/// Numbers from here on mean: nothing pending.
const NONE: u32 = 1020;
/// Middle of the priorities: below the mask, nothing pre-empts anything.
const PRIORITY: u32 = 0xa0a0_a0a0;

/// The controller, as any core sees it.
#[derive(Clone, Copy)]
pub struct Gic {
    distributor: &'static Distributor,
    interface: &'static Interface,
}

/// An interrupt taken; give it back to [`Gic::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken(u32);

impl Taken {
    /// Its number.
    pub fn number(self) -> u32 {
        self.0 & 0x3ff
    }

    /// Whether another core sent it to wake this one.
    pub fn is_wake(self) -> bool {
        self.number() == WAKE
    }
}

impl Gic {
    /// The controller behind these two blocks.
    pub const fn new(distributor: &'static Distributor, interface: &'static Interface) -> Self {
        Self { distributor, interface }
    }

    /// Sets the shared part up: every shared interrupt off, forgotten, level-triggered. Once, on core 0.
    pub fn start(&self) {
        let d = self.distributor;
        d.control.set(0);
        let words = ((d.kind.get() & 0x1f) as usize + 1).min(32);
        for word in 1..words {
            d.disable[word].set(u32::MAX);
            d.withdraw[word].set(u32::MAX);
            d.deactivate[word].set(u32::MAX);
        }
        for word in 8..(words * 8).min(255) {
            d.priority[word].set(PRIORITY);
        }
        for word in 2..words * 2 {
            d.trigger[word].set(0);
        }
        d.control.set(1);
    }

    /// Sets this core's own part up: software interrupts on, the timer's off until asked for.
    pub fn start_core(&self) {
        let d = self.distributor;
        d.disable[0].set(0xffff_0000);
        d.withdraw[0].set(0xffff_0000);
        d.deactivate[0].set(u32::MAX);
        for word in 0..8 {
            d.priority[word].set(PRIORITY);
        }
        d.enable[0].set(0x0000_ffff);
        self.interface.priority_mask.set(0xff);
        self.interface.binary_point.set(7); // no pre-emption
        // What someone took and never ended goes on at this core, too, at its priority, and would let nothing through.
        self.interface.active_priorities.set(0);
        // The stub has cut the lines that go round the controller: that stays.
        self.interface.control.set(self.interface.control.get() & NO_BYPASS | 1);
    }

    /// Lets an interrupt through; a shared one goes to the calling core.
    pub fn enable(&self, number: u32) {
        let d = self.distributor;
        let (word, bit) = (number as usize / 32, number % 32);
        if number >= 32 {
            // The first words tell each core its own bit.
            let me = d.targets[0].get() & 0xff;
            let me = if me == 0 { 1 << cpu::core() } else { me };
            let (target, shift) = (&d.targets[number as usize / 4], number % 4 * 8);
            target.set(target.get() & !(0xff << shift) | me << shift);
        }
        d.enable[word].set(1 << bit);
    }

    /// Stops an interrupt.
    pub fn disable(&self, number: u32) {
        self.distributor.disable[number as usize / 32].set(1 << (number % 32));
    }

    /// Takes what is pending on this core, one after the other, and has `answer` deal with each. One that it does not know
    /// (false) is stopped, as nobody gets its line down and it would come for ever.
    pub fn serve(&self, mut answer: impl FnMut(Taken) -> bool) {
        while let Some(taken) = self.take() {
            if !answer(taken) && taken.number() >= OF_DEVICES {
                self.disable(taken.number());
            }
            self.end(taken);
        }
    }

    /// Whether the interrupt of that number comes through to this core in time, once `raise` has had it raised. It, and what
    /// else comes meanwhile, is dealt with by `answer`. Interrupts are masked here: the core sees it pending all the same.
    pub fn gets_through(
        &self,
        number: u32,
        limit: Duration,
        raise: impl FnOnce(),
        mut answer: impl FnMut(Taken) -> bool,
    ) -> bool {
        let _masked = Masked::new();
        let mut come = false;
        raise();
        timer::wait_until(limit, || {
            if cpu::interrupt_pending() {
                self.serve(|taken| {
                    come |= taken.number() == number;
                    answer(taken)
                });
            }
            come
        })
    }

    /// Takes the pending interrupt of this core, if there is one.
    pub fn take(&self) -> Option<Taken> {
        let word = self.interface.acknowledge.get();
        (word & 0x3ff < NONE).then_some(Taken(word))
    }

    /// Says that it has been dealt with.
    pub fn end(&self, taken: Taken) {
        cpu::publish(); // what the handler did to the device comes first
        self.interface.end.set(taken.0);
    }

    /// Wakes a core; what was stored before can be seen by it.
    pub fn wake(&self, core: usize) {
        cpu::publish();
        self.distributor.software.set(1 << (16 + core) | WAKE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::in_memory;

    #[test]
    fn an_interrupt_is_enabled_by_its_bit_and_sent_to_this_core() {
        let gic = Gic::new(in_memory(), in_memory());
        gic.enable(153);
        assert_eq!(gic.distributor.enable[4].get(), 1 << 25);
        assert_eq!(gic.distributor.targets[38].get(), 1 << 8);
        gic.enable(30);
        assert_eq!(gic.distributor.enable[0].get(), 1 << 30);
        assert_eq!(gic.distributor.targets[7].get(), 0, "a core's own interrupts have no target");
    }

    #[test]
    fn other_interrupts_keep_their_targets() {
        let gic = Gic::new(in_memory(), in_memory());
        gic.distributor.targets[0].set(0x0101_0101);
        gic.distributor.targets[38].set(0x0808_0808);
        gic.enable(153);
        assert_eq!(gic.distributor.targets[38].get(), 0x0808_0108);
    }

    #[test]
    fn starting_it_opens_both_gates() {
        let gic = Gic::new(in_memory(), in_memory());
        gic.interface.control.set(0x1e7);
        gic.start();
        gic.start_core();
        assert_eq!(gic.distributor.control.get(), 1);
        assert_eq!(gic.interface.control.get(), 0x1e1);
        assert_eq!(gic.interface.priority_mask.get(), 0xff);
    }

    #[test]
    fn a_number_beyond_all_lines_means_nothing_is_pending() {
        assert_eq!(Taken(0x0c00 | 153).number(), 153);
        assert!(Taken(0x0c00).is_wake() && !Taken(153).is_wake());
        let gic = Gic::new(in_memory(), in_memory());
        assert_eq!(gic.take(), Some(Taken(0)));
    }
}
