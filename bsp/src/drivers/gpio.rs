//! Pins: which device a pin belongs to, and its pull resistor.
//!
//! Source: BCM2711 ARM Peripherals, section 5. The pull registers are the 2711's; earlier chips did it otherwise.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::ReadWrite;

register_structs! {
    /// GPIO block.
    pub Registers {
        /// GPFSEL0-5: three bits a pin, ten pins a word.
        (0x00 => pub function: [ReadWrite<u32>; 6]),
        (0x18 => _reserved0),
        /// GPSET0-1: a one makes its pin high; one bit a pin.
        (0x1c => pub set: [ReadWrite<u32>; 2]),
        (0x24 => _reserved1),
        /// GPCLR0-1: a one makes its pin low.
        (0x28 => pub clear: [ReadWrite<u32>; 2]),
        (0x30 => _reserved2),
        /// GPIO_PUP_PDN_CNTRL_REG0-3: two bits a pin, sixteen pins a word.
        (0xe4 => pull: [ReadWrite<u32>; 4]),
        (0xf4 => @END),
    }
}

/// What a pin does. The number is the field's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Reads a level.
    Input = 0,
    /// Drives a level.
    Output = 1,
    /// Alternate function 0.
    Alt0 = 4,
    /// Alternate function 3.
    Alt3 = 7,
    /// Alternate function 5.
    Alt5 = 2,
}

/// Pull resistor of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// None.
    None = 0,
    /// To 3.3 V.
    Up = 1,
    /// To ground.
    Down = 2,
}

impl Registers {
    /// Gives `pin` to a device. Only this pin's bits change.
    pub fn select(&self, pin: usize, function: Function) {
        let (word, shift) = (&self.function[pin / 10], pin % 10 * 3);
        word.set(word.get() & !(7 << shift) | (function as u32) << shift);
    }

    /// Makes an output high or low. Other pins' bits are zeros, which change nothing.
    pub fn drive(&self, pin: usize, high: bool) {
        let words = if high { &self.set } else { &self.clear };
        words[pin / 32].set(1 << (pin % 32));
    }

    /// Sets the pull resistor of `pin`.
    pub fn pull(&self, pin: usize, pull: Pull) {
        let (word, shift) = (&self.pull[pin / 16], pin % 16 * 2);
        word.set(word.get() & !(3 << shift) | (pull as u32) << shift);
    }

    /// Puts the PL011 on the header (GPIO 14 sends, 15 receives) and takes it off the Bluetooth chip
    /// (GPIO 32 and 33), where the boot loader leaves it.
    pub fn route_pl011_to_header(&self) {
        self.select(32, Function::Input);
        self.select(33, Function::Input);
        self.route_to_header(Function::Alt0);
    }

    /// Puts the mini-UART on the header.
    pub fn route_mini_uart_to_header(&self) {
        self.route_to_header(Function::Alt5);
    }

    fn route_to_header(&self, function: Function) {
        self.pull(14, Pull::None);
        self.pull(15, Pull::Up); // an open line reads as silence
        self.select(14, function);
        self.select(15, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::in_memory;

    #[test]
    fn the_console_pins_change_and_no_others_do() {
        let pins: &Registers = in_memory();
        pins.function[1].set(0o7777_777777 & 0x3fff_ffff);
        pins.function[3].set(0x3fff_ffff);
        pins.route_pl011_to_header();
        assert_eq!((pins.function[1].get() >> 12) & 0o77, 0o44);
        assert_eq!(pins.function[1].get() & !(0o77 << 12), 0x3fff_ffff & !(0o77 << 12));
        assert_eq!((pins.function[3].get() >> 6) & 0o77, 0);
        assert_eq!(pins.function[3].get() & !(0o77 << 6), 0x3fff_ffff & !(0o77 << 6));
        assert_eq!(pins.pull[0].get(), 1 << 30);
        pins.route_mini_uart_to_header();
        assert_eq!((pins.function[1].get() >> 12) & 0o77, 0o22);
    }
}
