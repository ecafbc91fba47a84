//! What a machine that is put together of models has in common: addresses, a clock, and the last step taken.
#![allow(dead_code)] // each test program uses its part
#![allow(unsafe_code)] // an address becomes a register block

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Once;

pub use embodios_bsp::machine::Placed;
use embodios_bsp::machine::{self, Machine};

const ACCESS: u64 = 100; // ns: a register access over the bus
const LOOK: u64 = 1_000; // ns: a look at the clock

/// Something with registers.
pub trait Device {
    /// A load of so many bytes, so far into the block.
    fn load(&self, offset: usize, bytes: usize) -> u32;
    /// A store.
    fn store(&self, offset: usize, bytes: usize, value: u32);
    /// A barrier: what was stored before is there.
    fn barrier(&self) {}
    /// A load or store has been, of this device or another.
    fn access(&self) {}
    /// It is so late now, ns.
    fn tick(&self, _now: u64) {}
    /// Whether it interrupts the core that takes the steps.
    fn interrupts(&self) -> bool {
        false
    }
    /// The core that takes the steps is about to sleep.
    fn sleep(&self) {}
}

/// Devices at addresses.
#[derive(Clone, Default)]
pub struct Board(Rc<Inner>);

/// A device and where it is.
type At = (Range<usize>, Rc<dyn Device>);

#[derive(Default)]
struct Inner {
    devices: RefCell<Vec<At>>,
    now: Cell<u64>,
}

impl Board {
    /// Gives a device a place, and its driver the block there.
    pub fn add<T>(&self, device: Rc<dyn Device>) -> &'static T {
        let at = machine::place(size_of::<T>());
        self.0.devices.borrow_mut().push((at..at + size_of::<T>(), device));
        // SAFETY: that memory is leaked, aligned to 8 bytes and of that size; all bits are valid registers.
        unsafe { &*(at as *const T) }
    }

    /// Puts it under the drivers of this thread.
    pub fn put(&self) -> Placed {
        machine::put(self.0.clone())
    }

    /// Model time, ns.
    pub fn nanos(&self) -> u64 {
        self.0.now.get()
    }

    /// Time in which whoever drives the devices does something else.
    pub fn pass(&self, nanos: u64) {
        // In steps: no device may miss what happens in between.
        let end = self.nanos() + nanos;
        while self.nanos() < end {
            self.0.advance((end - self.nanos()).min(LOOK));
        }
    }
}

impl Inner {
    fn advance(&self, nanos: u64) {
        self.now.set(self.now.get() + nanos);
        self.all(|device| device.tick(self.now.get()));
    }

    fn all(&self, each: impl Fn(&dyn Device)) {
        self.devices.borrow().iter().for_each(|(_, device)| each(&**device));
    }

    fn at(&self, address: usize) -> Option<(Rc<dyn Device>, usize)> {
        let devices = self.devices.borrow();
        let (range, device) = devices.iter().find(|(range, _)| range.contains(&address))?;
        Some((Rc::clone(device), address - range.start))
    }
}

impl Machine for Inner {
    fn load(&self, address: usize, bytes: usize) -> Option<u64> {
        let (device, offset) = self.at(address)?;
        assert!(offset.is_multiple_of(bytes), "a load of {bytes} bytes at {offset:#x} is not aligned");
        self.advance(ACCESS);
        let value = device.load(offset, bytes);
        self.all(|device| device.access());
        Some(u64::from(value))
    }

    fn store(&self, address: usize, bytes: usize, value: u64) -> bool {
        let Some((device, offset)) = self.at(address) else { return false };
        assert!(offset.is_multiple_of(bytes), "a store of {bytes} bytes at {offset:#x} is not aligned");
        device.store(offset, bytes, value as u32);
        self.all(|device| device.access());
        self.advance(ACCESS);
        true
    }

    fn barrier(&self) {
        self.all(|device| device.barrier());
    }

    fn wait_for_interrupt(&self) {
        self.all(|device| device.sleep());
    }

    fn interrupt_pending(&self) -> bool {
        self.devices.borrow().iter().any(|(_, device)| device.interrupts())
    }

    fn ticks(&self) -> Option<u64> {
        self.advance(LOOK);
        Some(self.now.get() / 1_000)
    }
}

thread_local! {
    /// A panic is what is asked for.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// The words with which a model refuses what `wrong` does; it is an error of the model if it does not.
pub fn refusal(wrong: impl FnOnce()) -> String {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                loud(info);
            }
        }));
    });
    EXPECTED.set(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(wrong));
    EXPECTED.set(false);
    let error = caught.expect_err("the model let this pass");
    match (error.downcast_ref::<String>(), error.downcast_ref::<&str>()) {
        (Some(words), _) => words.clone(),
        (None, words) => words.map(|words| (*words).into()).unwrap_or_default(),
    }
}
