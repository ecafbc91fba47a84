//! A strict model of a GIC-400 (GICv2) with four cores, seen from the side that the boot loader has left us on.
//!
//! It keeps each interrupt's state (inactive, pending, active, both), each core's mask and running priority, and what of them
//! each side may see. It panics on what IHI 0048B calls unpredictable, and on what it allows but nobody can mean: an access of
//! a width that a register does not have, a register or a line that is not there, an interrupt configured while it may fire,
//! enabled for nobody, ended although not taken, out of turn or with another core's number, a software interrupt or an end that
//! overtakes what was stored before, a sleep in the middle of a handler, a line that no handler gets down.
//!
//! Sources: Arm IHI 0048B (GICv2), chapters 3 and 4; Arm DDI 0471 (GIC-400): 32 priorities, which is 16 for the non-secure side.
#![allow(dead_code)] // each test program uses its part

mod distributor;
mod interface;

use std::cell::RefCell;
use std::rc::Rc;

use embodios_bsp::drivers::gic;

use super::board::Board;

pub const CORES: usize = 4;
/// Numbers below are each core's own.
pub const SHARED: usize = 32;
/// Times that a line may be answered without getting down.
const PATIENCE: u32 = 20;
/// Bits that a priority has: 32 levels.
const LEVELS: u8 = 0xf8;

/// From where the registers are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of a controller with both sides, the non-secure one: group 1, in the upper half of the priorities.
    NonSecure,
    /// The only side of a controller that has but one, as QEMU's boards: group 0.
    Single,
}

#[derive(Clone, Default)]
struct Interrupt {
    group1: bool,
    enabled: bool,
    active: bool,
    edge: bool,
    priority: u8,
    targets: u8,
    /// Pending of itself: by an edge, or because it was set so.
    latched: bool,
    /// Its device asks for attention.
    line: bool,
    /// Times it was taken since its line went up.
    answered: u32,
}

impl Interrupt {
    fn pending(&self) -> bool {
        self.latched || self.line && !self.edge
    }
}

/// An interrupt that a core has taken and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    word: u32,
    priority: u8,
    group1: bool,
}

struct Core {
    own: Vec<Interrupt>,
    /// For each software interrupt, the cores whose requests pend.
    asked_by: [u8; 16],
    /// GICC_CTLR as the secure side sees it.
    control: u32,
    mask: u8,
    /// GICC_BPR and its counterpart for group 1.
    binary_point: [u8; 2],
    /// Innermost last: the last one's priority is the running one.
    taken: Vec<Taken>,
}

struct Inner {
    side: Side,
    lines: usize,
    /// Whether the distributor lets group 0 and group 1 through.
    gates: [bool; 2],
    cores: Vec<Core>,
    shared: Vec<Interrupt>,
    /// The core that takes the steps.
    me: usize,
    /// There has been a barrier since the last access to any device.
    settled: bool,
}

/// The model; clones are the same controller.
#[derive(Clone)]
pub struct Gic(Rc<RefCell<Inner>>);

impl Gic {
    /// A controller out of reset, with so many interrupts.
    pub fn new(side: Side, lines: usize) -> Self {
        let core = || Core {
            own: vec![Interrupt { edge: true, ..Interrupt::default() }; 16]
                .into_iter()
                .chain(vec![Interrupt::default(); 16])
                .collect(),
            asked_by: [0; 16],
            control: 0,
            mask: 0,
            binary_point: [2, 3],
            taken: Vec::new(),
        };
        Self(Rc::new(RefCell::new(Inner {
            side,
            lines,
            gates: [false; 2],
            cores: (0..CORES).map(|_| core()).collect(),
            shared: vec![Interrupt::default(); lines - SHARED],
            me: 0,
            settled: false,
        })))
    }

    /// As a Raspberry Pi 4's stub leaves it: every interrupt in group 1, both groups on at the cores, nothing masked, and by
    /// cores 1 to 3 also at the distributor.
    pub fn after_stub() -> Self {
        let gic = Self::new(Side::NonSecure, 256);
        let mut inner = gic.0.borrow_mut();
        inner.gates = [true; 2];
        inner.shared.iter_mut().for_each(|interrupt| interrupt.group1 = true);
        for core in &mut inner.cores {
            core.own.iter_mut().for_each(|interrupt| interrupt.group1 = true);
            (core.control, core.mask) = (0x1e7, LEVELS);
        }
        drop(inner);
        gic
    }

    /// As TF-A leaves it on a Raspberry Pi 5: the same, but for the non-secure side's gates, which are that side's business.
    pub fn after_tf_a() -> Self {
        let gic = Self::after_stub();
        let mut inner = gic.0.borrow_mut();
        inner.lines = 320;
        inner.shared.resize(320 - SHARED, Interrupt { group1: true, ..Interrupt::default() });
        inner.gates = [true, false];
        inner.cores.iter_mut().for_each(|core| core.control = 0x1e9);
        drop(inner);
        gic
    }

    /// As our own entry code leaves it where we are entered at EL3: the stub's settings, and the distributor off.
    pub fn after_entry_at_el3() -> Self {
        let gic = Self::after_stub();
        gic.0.borrow_mut().gates = [false; 2];
        gic
    }

    /// As a boot loader leaves it that was interrupted in its work: interrupts enabled, pending, edge-triggered, sent to
    /// all cores, and one of them taken by core 0 and never ended.
    pub fn left_in_the_middle(self, number: usize) -> Self {
        let mut inner = self.0.borrow_mut();
        let group1 = inner.side == Side::NonSecure;
        let top = if group1 { 0x80 } else { 0 };
        for interrupt in &mut inner.shared {
            let edge = true;
            *interrupt =
                Interrupt { group1, enabled: true, edge, priority: top, targets: 0xf, ..interrupt.clone() };
            interrupt.latched = true;
        }
        inner.interrupt(0, number).active = true;
        inner.cores[0].taken.push(Taken { word: number as u32, priority: top, group1 });
        drop(inner);
        self
    }

    /// One interrupt is in group 1.
    pub fn in_group_1(self, number: usize) -> Self {
        self.0.borrow_mut().interrupt(0, number).group1 = true;
        self
    }

    /// These of core 0's own interrupts are in group 0.
    pub fn of_the_secure_side(self, numbers: std::ops::Range<usize>) -> Self {
        let mut inner = self.0.borrow_mut();
        numbers.for_each(|number| inner.interrupt(0, number).group1 = false);
        drop(inner);
        self
    }

    /// A core's mask, as the secure side sees it: in its half it keeps everything of the other side's from that core.
    pub fn masked(self, core: usize) -> Self {
        self.0.borrow_mut().cores[core].mask = 0;
        self
    }

    /// Puts it among the devices of a board; gives its driver.
    pub fn on(&self, board: &Board) -> gic::Gic {
        gic::Gic::new(board.add(Rc::new(self.distributor())), board.add(Rc::new(self.interface())))
    }

    /// The registers that all cores share, and those that a core has for itself.
    pub fn distributor(&self) -> distributor::Distributor {
        distributor::Distributor(self.clone())
    }
    pub fn interface(&self) -> interface::Interface {
        interface::Interface(self.clone())
    }

    /// Takes the steps to come as another core.
    pub fn be(&self, core: usize) {
        self.0.borrow_mut().me = core;
    }

    /// A device raises its line, or lets it go.
    pub fn line(&self, number: usize, up: bool) {
        let mut inner = self.0.borrow_mut();
        assert!((SHARED..inner.lines).contains(&number), "{number} is no device's");
        inner.interrupt(0, number).set_line(up);
    }

    /// The same for a device of a core's own, such as its timer.
    pub fn own_line(&self, core: usize, number: usize, up: bool) {
        assert!((16..SHARED).contains(&number), "{number} is no core's device's");
        self.0.borrow_mut().interrupt(core, number).set_line(up);
    }

    /// Whether a core is being interrupted.
    pub fn interrupts(&self, core: usize) -> bool {
        self.0.borrow().signalled(core).is_some()
    }

    /// Interrupts that a core has taken and not ended.
    pub fn unfinished(&self, core: usize) -> usize {
        self.0.borrow().cores[core].taken.len()
    }
}

impl Interrupt {
    fn set_line(&mut self, up: bool) {
        self.latched |= self.edge && up && !self.line;
        self.line = up;
        if !up {
            self.answered = 0;
        }
    }
}

impl Inner {
    fn interrupt(&mut self, core: usize, number: usize) -> &mut Interrupt {
        match number.checked_sub(SHARED) {
            None => &mut self.cores[core].own[number],
            Some(shared) => &mut self.shared[shared],
        }
    }

    fn peek(&self, core: usize, number: usize) -> &Interrupt {
        match number.checked_sub(SHARED) {
            None => &self.cores[core].own[number],
            Some(shared) => &self.shared[shared],
        }
    }

    /// Whether our side has anything to do with an interrupt: 4.1.2, others read as zero and ignore writes.
    fn ours(&self, number: usize) -> bool {
        self.side == Side::Single || self.peek(self.me, number).group1
    }

    /// The interrupt that a core would take now: number and who asked for it. The lowest priority value first, then the
    /// lowest number: 3.3.
    fn signalled(&self, core: usize) -> Option<(usize, usize)> {
        let interface = &self.cores[core];
        let waiting = |&number: &usize| {
            let interrupt = self.peek(core, number);
            let asked = match number {
                0..16 => interface.asked_by[number] != 0,
                16..SHARED => interrupt.pending(),
                _ => interrupt.pending() && interrupt.targets >> core & 1 == 1,
            };
            asked && interrupt.enabled && !interrupt.active && self.gates[usize::from(interrupt.group1)]
        };
        let number =
            (0..self.lines).filter(waiting).min_by_key(|&number| self.peek(core, number).priority)?;
        let interrupt = self.peek(core, number);
        let open = interface.control >> u32::from(interrupt.group1) & 1 == 1;
        let first = interface.asked_by.get(number).map_or(0, |asked| asked.trailing_zeros() as usize);
        let urgent = interface.pre_empts(interrupt.priority, interrupt.group1);
        (open && interrupt.priority < interface.mask && urgent).then_some((number, first))
    }
}

impl Core {
    /// Whether an interrupt of that priority comes through before what is being handled: 3.3.3. Of group 0 the bits
    /// above the binary point count, of group 1 that one, too.
    fn pre_empts(&self, priority: u8, group1: bool) -> bool {
        let group = |priority: u8, group1: bool| {
            let point = u32::from(self.binary_point[usize::from(group1)]) + u32::from(!group1);
            u32::from(priority) >> point << point
        };
        let running = self.taken.iter().map(|taken| group(taken.priority, taken.group1)).min();
        running.is_none_or(|running| group(priority, group1) < running)
    }
}

/// A barrier counts until the next access, to whatever it is.
impl Gic {
    fn settle(&self, settled: bool) {
        self.0.borrow_mut().settled = settled;
    }
}
