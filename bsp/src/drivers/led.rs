//! The board's green activity light: the one sign of life that needs no cable.
//!
//! On a Raspberry Pi 4 it is GPIO 42 of the chip's own pins, lit when high. On a Pi 5 it is pin 9 of the block of
//! pins that is always on (AON), lit when low; that block also holds the card's supply and the power chip's
//! interrupt, which VideoCore watches, so only our own bit changes.
//!
//! Sources: the device trees `bcm2711-rpi-4-b.dts` and `bcm2712-rpi-5-b.dts`, node `led-act`; the always-on block's
//! registers as Linux's `gpio-brcmstb.c` has them: data at +4, direction at +8 with 0 for an output.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::ReadWrite;

use super::gpio::{self, Function};

register_structs! {
    /// A block of pins that is always on: one bit a pin.
    pub AlwaysOn {
        (0x00 => _enable),
        (0x04 => data: ReadWrite<u32>),
        (0x08 => direction: ReadWrite<u32>), // 1: input
        (0x0c => @END),
    }
}

/// A board's light: which pin, and the level that lights it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The always-on block that it belongs to; else it is one of the chip's own pins.
    pub always_on: Option<u64>,
    /// Its number.
    pub number: usize,
    /// Lit when high.
    pub high: bool,
}

/// The registers behind a pin.
#[derive(Clone, Copy)]
pub enum Registers {
    /// The chip's own pins.
    Gpio(&'static gpio::Registers),
    /// Pins that are always on.
    AlwaysOn(&'static AlwaysOn),
}

/// The light. Core 0 switches it, and whoever says the last words: the always-on block is shared with the card slot.
#[derive(Clone, Copy)]
pub struct Led {
    registers: Registers,
    pin: usize,
    high: bool,
}

impl Led {
    /// The light on this pin.
    pub const fn new(registers: Registers, pin: Pin) -> Self {
        Self { registers, pin: pin.number, high: pin.high }
    }

    /// Makes the pin drive, and the light go on.
    pub fn start(&self) {
        self.set(true); // before the pin drives: no flash of the other level
        match self.registers {
            Registers::Gpio(pins) => pins.select(self.pin, Function::Output),
            Registers::AlwaysOn(pins) => pins.direction.set(pins.direction.get() & !(1 << self.pin)),
        }
    }

    /// Switches it.
    pub fn set(&self, lit: bool) {
        let high = lit == self.high;
        match self.registers {
            Registers::Gpio(pins) => pins.drive(self.pin, high),
            Registers::AlwaysOn(pins) => {
                let others = pins.data.get() & !(1 << self.pin);
                pins.data.set(others | u32::from(high) << self.pin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{rpi4, rpi5};
    use crate::drivers::tests::in_memory;

    #[test]
    fn a_pi_4s_light_is_set_by_one_register_and_cleared_by_another() {
        let pins: &gpio::Registers = in_memory();
        pins.function[4].set(0o7777);
        let led = Led::new(Registers::Gpio(pins), rpi4::BOARD.led.unwrap());
        led.start();
        assert_eq!(pins.function[4].get(), 0o7177, "only pin 42's three bits, to output");
        assert_eq!([pins.set[1].get(), pins.clear[1].get()], [1 << 10, 0]);
        led.set(false);
        assert_eq!(pins.clear[1].get(), 1 << 10);
        assert_eq!([pins.set[0].get(), pins.clear[0].get()], [0, 0]);
    }

    #[test]
    fn a_pi_5s_light_is_lit_by_a_low_level_and_no_other_pin_of_its_block_changes() {
        let pins: &AlwaysOn = in_memory();
        pins.data.set(0xffff_ffff);
        pins.direction.set(0xffff_ffff);
        let led = Led::new(Registers::AlwaysOn(pins), rpi5::BOARD.led.unwrap());
        led.start();
        assert_eq!([pins.data.get(), pins.direction.get()], [!(1 << 9), !(1 << 9)]);
        led.set(false);
        assert_eq!(pins.data.get(), 0xffff_ffff);
    }
}
