//! Mini-UART: the console of a Raspberry Pi 4 on GPIO 14 and 15 when the boot arguments say `console=mini`.
//!
//! 8 data bits, no parity. The baud rate is the VPU core clock / (8 × (divisor + 1)), so the core clock (Hz)
//! must be pinned in `config.txt` (`enable_uart=1`) or the speed drifts under load.
//!
//! Source: BCM2711 ARM Peripherals, section 2.2. The manual's table has been wrong about the two interrupt-enable bits
//! (receive is bit 0) and about the line register (8 bits of data are both low bits). The chip is a 16550 in these: so Linux
//! drives it (`8250_bcm2835aux.c` with `UART_IER_RDI` and `UART_LCR_WLEN8` of `serial_reg.h`), and so do the lines below.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::{LocalRegisterCopy, register_bitfields, register_structs};

use super::registers::{ReadOnly, ReadWrite};
use super::{CHARACTER, DRAIN_LIMIT, Serial, WRITE_LIMIT};
use crate::cpu::timer;

register_bitfields![u32,
    /// AUX_MU_LSR_REG: line status.
    Status [
        DATA_READY OFFSET(0) NUMBITS(1) [],
        OVERRUN OFFSET(1) NUMBITS(1) [],         // cleared by reading
        TRANSMIT_ROOM OFFSET(5) NUMBITS(1) [],
        TRANSMIT_IDLE OFFSET(6) NUMBITS(1) [],
    ]
];
register_structs! {
    /// Auxiliary peripherals, of which the mini-UART is the first.
    pub Registers {
        (0x00 => pending: ReadOnly<u32>),
        (0x04 => enables: ReadWrite<u32>),       // bit 0: mini-UART; off, its registers do not answer
        (0x08 => _reserved0),
        (0x40 => data: ReadWrite<u32>),          // a write sends a byte, a read takes one
        (0x44 => interrupts: ReadWrite<u32>),    // bit 0: received
        (0x48 => identify: ReadWrite<u32>),      // a write of bits 1 and 2 empties the FIFOs
        (0x4c => line: ReadWrite<u32>),
        (0x50 => modem: ReadWrite<u32>),
        (0x54 => status: ReadOnly<u32, Status::Register>),
        (0x58 => _reserved1),
        (0x60 => control: ReadWrite<u32>),       // bit 0 receiver, bit 1 transmitter
        (0x64 => _reserved2),
        (0x68 => baud: ReadWrite<u32>),          // 16 bits
        (0x6c => @END),
    }
}

/// The baud register for a core clock: clock / (8 × baud) - 1, rounded.
fn divisor(clock_hz: u32, baud: u32) -> u32 {
    let eight = u64::from(baud.max(1)) * 8;
    let counts = (u64::from(clock_hz) + eight / 2) / eight;
    counts.clamp(1, 65_536) as u32 - 1
}

impl Registers {
    /// Sets it up from any state, receiving without interrupts: those come with [`Serial::notify`].
    pub fn start(&self, clock_hz: u32, baud: u32) {
        self.enables.set(self.enables.get() | 1); // the other bits are SPI 1 and 2
        self.flush(); // what a boot loader has left is sent as it meant it
        let was_on = self.control.get() & 3 != 0;
        self.control.set(0);
        if was_on {
            timer::pause(CHARACTER);
        }
        self.line.set(3); // first: bit 7 puts the baud rate in the place of two other registers
        self.interrupts.set(0);
        self.modem.set(0);
        self.identify.set(6);
        self.baud.set(divisor(clock_hz, baud));
        self.control.set(3);
    }

    /// Keeps the baud rate after the core clock moved.
    pub fn set_clock(&self, clock_hz: u32, baud: u32) {
        self.flush();
        self.baud.set(divisor(clock_hz, baud));
    }
}

impl Registers {
    /// Looks at the line status. Each look clears the overrun bit, so each must count it.
    fn look(&self) -> LocalRegisterCopy<u32, Status::Register> {
        let status = self.status.extract();
        if status.is_set(Status::OVERRUN) {
            super::LOST.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
        status
    }
}

impl Serial for Registers {
    fn read(&self) -> Option<u8> {
        self.look().is_set(Status::DATA_READY).then(|| (self.data.get() & 0xff) as u8)
    }

    fn write(&self, byte: u8) -> bool {
        let room = timer::wait_until(WRITE_LIMIT, || self.look().is_set(Status::TRANSMIT_ROOM));
        if room {
            self.data.set(u32::from(byte));
        }
        room
    }

    fn flush(&self) {
        timer::wait_until(DRAIN_LIMIT, || self.look().is_set(Status::TRANSMIT_IDLE));
    }

    fn notify(&self, on: bool) {
        // Bits 2 and 3 are reserved in the manual and must be set on the chip for receive interrupts to come.
        self.interrupts.set(if on { 0b1101 } else { 0 });
    }

    fn acknowledge(&self) {} // taking the bytes out is enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::in_memory;

    #[test]
    fn the_divisor_follows_the_core_clock() {
        assert_eq!(divisor(500_000_000, 115_200), 542);
        assert_eq!(divisor(250_000_000, 115_200), 270);
        assert_eq!(divisor(0, 115_200), 0);
        assert_eq!(divisor(u32::MAX, 1), 65_535);
    }

    #[test]
    fn starting_it_leaves_the_other_auxiliaries_alone() {
        let uart: &Registers = in_memory();
        uart.enables.set(0b110);
        uart.start(500_000_000, 115_200);
        assert_eq!(uart.enables.get(), 0b111);
        assert_eq!((uart.line.get(), uart.control.get(), uart.baud.get()), (3, 3, 542));
        uart.notify(true);
        assert_eq!(uart.interrupts.get() & 1, 1);
    }

    #[test]
    fn a_byte_behind_an_overrun_is_taken_and_what_was_lost_is_counted() {
        let uart: &Registers = in_memory();
        uart.data.set(u32::from(b'A'));
        let status = core::ptr::from_ref(&uart.status) as usize;
        crate::drivers::tests::view::<tock_registers::registers::ReadWrite<u32>>(status).set(0b11);
        let lost = || crate::drivers::LOST.load(core::sync::atomic::Ordering::Relaxed);
        let before = lost();
        assert_eq!(uart.read(), Some(b'A'));
        assert!(lost() > before);
    }

    #[test]
    fn a_wedged_transmitter_does_not_hold_us_up() {
        let uart: &Registers = in_memory();
        assert!(!uart.write(b'x'));
        assert_eq!(uart.read(), None);
    }
}
