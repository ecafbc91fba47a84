//! On a PC: the machine under the drivers.
//!
//! What a driver does that a device, another core or a firmware can notice ends here where there is no board: register
//! accesses, barriers, cache maintenance, events, calls, looks at the clock. A test [`put`]s a model in place, which sees each
//! step in the order in which it is taken, with its real address and width, and panics on what silicon would not forgive.
//! Where no model claims an address, a register is plain memory, and everything else does the nearest harmless thing.
//!
//! The firmware has none of this: its instructions stand where these calls do, its registers are tock-registers' own.

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::thread_local;

/// The instruction by which a firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc #0`
    Hvc,
    /// `smc #0`
    Smc,
}

/// What a machine does when something is done to it.
pub trait Machine {
    /// A load of so many bytes from a register, or none if the machine has none there.
    fn load(&self, _address: usize, _bytes: usize) -> Option<u64> {
        None
    }
    /// A store of so many bytes to a register or to a word that others read past the caches; whether the machine has it.
    fn store(&self, _address: usize, _bytes: usize, _value: u64) -> bool {
        false
    }
    /// `dsb`: what was done before is over before what comes after begins.
    fn barrier(&self) {}
    /// `dc cvac`: the line is written back to memory.
    fn clean(&self, _line: usize) {}
    /// `sev`
    fn send_event(&self) {}
    /// `wfi`
    fn wait_for_interrupt(&self) {
        std::thread::yield_now();
    }
    /// Whether an interrupt is pending at the core that asks.
    fn interrupt_pending(&self) -> bool {
        false
    }
    /// A call with these values of x0 to x3; gives x0.
    fn call(&self, _conduit: Conduit, _registers: [u64; 4]) -> u64 {
        u64::MAX // NOT_SUPPORTED
    }
    /// MPIDR_EL1 of the core that asks.
    fn affinity(&self) -> u64 {
        0
    }
    /// A look at the clock of 1 MHz; none if the machine has no time of its own.
    fn ticks(&self) -> Option<u64> {
        None
    }
}

/// A PC without a model in it.
struct Nothing;

impl Machine for Nothing {}

thread_local! {
    static MACHINE: RefCell<Rc<dyn Machine>> = RefCell::new(Rc::new(Nothing));
}

/// What this thread runs on.
pub(crate) fn here() -> Rc<dyn Machine> {
    MACHINE.with(|machine| Rc::clone(&machine.borrow()))
}

/// Puts a machine under the drivers that this thread runs, until the result is dropped.
pub fn put(machine: Rc<dyn Machine>) -> Placed {
    Placed(Some(MACHINE.with(|here| here.replace(machine))))
}

/// A machine is in place as long as this lives; then the one before it is again.
pub struct Placed(Option<Rc<dyn Machine>>);

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            MACHINE.with(|here| here.replace(before));
        }
    }
}

/// Plain memory of so many bytes, at addresses that nothing else has: a register block's place. It is never given back.
pub fn place(bytes: usize) -> usize {
    let words = std::vec![0_u64; bytes.div_ceil(8)];
    Box::leak(words.into_boxed_slice()).as_ptr() as usize
}
