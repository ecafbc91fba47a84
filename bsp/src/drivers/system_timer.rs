//! System timer: the chip's own clock, one tick a microsecond, beside the cores' generic timer.
//!
//! Here it only counts: its compare interrupts belong to VideoCore in part, and nothing needs them.
//!
//! Source: BCM2711 ARM Peripherals, section 10.

use tock_registers::interfaces::Readable;
use tock_registers::register_structs;
use tock_registers::registers::ReadOnly;

register_structs! {
    /// The counter, in two halves.
    pub Registers {
        (0x00 => _control),
        (0x04 => low: ReadOnly<u32>),
        (0x08 => high: ReadOnly<u32>),
        (0x0c => @END),
    }
}

impl Registers {
    /// Microseconds since the chip was started.
    pub fn micros(&self) -> u64 {
        // The halves are read one after the other: if the high one has moved on meanwhile, so has the low one.
        let high = self.high.get();
        let low = self.low.get();
        let again = self.high.get();
        let low = if again == high { low } else { self.low.get() };
        u64::from(again) << 32 | u64::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::boxed::Box;

    #[test]
    fn both_halves_make_the_time() {
        let words: &'static [AtomicU32; 4] = Box::leak(Box::new([0, 0x1234, 7, 0].map(AtomicU32::new)));
        let timer: &Registers = crate::drivers::tests::view(words.as_ptr() as usize);
        assert_eq!(timer.micros(), 7 << 32 | 0x1234);
        words[1].store(u32::MAX, Ordering::Relaxed);
        assert_eq!(timer.micros(), (8 << 32) - 1);
    }
}
