//! PL011: the console on GPIO 14 and 15 of a Raspberry Pi 4, and the debug port of a Raspberry Pi 5.
//!
//! 8 data bits, no parity, both FIFOs on. Receiving raises an interrupt when the FIFO is half full or has been
//! left alone for 32 bit times. Setting LCRH.FEN empties the FIFOs, so it is done once, before anyone types.
//!
//! Where the clock behind it is known for certain by the boot loader alone (UART10 of a Raspberry Pi 5), the speed stays as that
//! has set it: the divisors are not written. Writing LCRH makes those that stand there count, which are the same. A port
//! that nobody has set up has none, and would send nothing: it gets ours.
//!
//! Source: Arm DDI 0183, chapter 3.

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::{register_bitfields, register_structs};

use super::registers::{ReadOnly, ReadWrite, WriteOnly};
use super::{CHARACTER, DRAIN_LIMIT, Serial, WRITE_LIMIT};
use crate::cpu::timer;

register_bitfields![u32,
    /// Flag register: 3.3.3.
    Flags [
        BUSY OFFSET(3) NUMBITS(1) [],            // still sending
        RECEIVE_EMPTY OFFSET(4) NUMBITS(1) [],   // RXFE
        TRANSMIT_FULL OFFSET(5) NUMBITS(1) [],   // TXFF: no room for another byte
    ],
    /// Line control register: 3.3.7.
    Line [
        FIFO OFFSET(4) NUMBITS(1) [],            // FEN
        LENGTH OFFSET(5) NUMBITS(2) [Eight = 3], // WLEN
    ],
    /// Control register: 3.3.8.
    Control [
        ENABLE OFFSET(0) NUMBITS(1) [],
        TRANSMIT OFFSET(8) NUMBITS(1) [],
        RECEIVE OFFSET(9) NUMBITS(1) [],
    ],
    /// FIFO levels that interrupt: 3.3.9.
    Levels [
        RECEIVE OFFSET(3) NUMBITS(3) [Half = 2],
    ],
    /// Interrupts: 3.3.10 to 3.3.13.
    Interrupts [
        RECEIVE OFFSET(4) NUMBITS(1) [],
        TIMEOUT OFFSET(6) NUMBITS(1) [],
        OVERRUN OFFSET(10) NUMBITS(1) [],
    ]
];
register_structs! {
    /// PL011: table 3-1.
    pub Registers {
        (0x00 => data: ReadWrite<u32>),          // a write sends a byte, a read takes one and its error bits
        (0x04 => _reserved0),
        (0x18 => flags: ReadOnly<u32, Flags::Register>),
        (0x1c => _reserved1),
        (0x24 => divisor: ReadWrite<u32>),       // IBRD: whole part
        (0x28 => fraction: ReadWrite<u32>),      // FBRD: 64ths
        (0x2c => line: ReadWrite<u32, Line::Register>),
        (0x30 => control: ReadWrite<u32, Control::Register>),
        (0x34 => levels: ReadWrite<u32, Levels::Register>),
        (0x38 => interrupts: ReadWrite<u32, Interrupts::Register>),
        (0x3c => _reserved2),
        (0x44 => clear: WriteOnly<u32, Interrupts::Register>),
        (0x48 => @END),
    }
}

/// Overrun error, in the word a read of the data register gives.
const OVERRUN: u32 = 1 << 11;
/// Break, parity or framing error: there is no byte in this word.
const NOT_A_BYTE: u32 = 7 << 8;

/// Divisor in 64ths: clock / (16 × baud), rounded. Kept within what the registers hold.
fn divisor(clock_hz: u32, baud: u32) -> (u32, u32) {
    let sixty_fourths = (u64::from(clock_hz) * 4 + u64::from(baud) / 2) / u64::from(baud.max(1));
    let kept = sixty_fourths.clamp(64, 65_535 * 64) as u32;
    (kept / 64, kept % 64)
}

/// Whether what is read at these offsets is a PL011's identification: UARTPeriphID0 and 1, 3.3.15, the part's number 011
/// and the first digit of the designer's, 41. An empty bus reads as ones, or as 0xdeaddead.
pub fn is_one(read: impl Fn(u64) -> Option<u32>) -> bool {
    read(0xfe0) == Some(0x11) && read(0xfe4) == Some(0x10)
}

impl Registers {
    /// Sets it up as [`Registers::start`] does, at the speed that a boot loader has left there, or at ours where it has left
    /// none. A whole part of 0 is no divisor: 3.3.6.
    pub fn start_as_left(&self, clock_hz: u32, baud: u32) {
        let left = self.divisor.get() != 0;
        self.start((!left).then_some((clock_hz, baud)));
    }

    /// Sets it up from any state, receiving without interrupts: those come with [`Serial::notify`]. Without a speed
    /// (clock in hertz, baud) it keeps its own.
    pub fn start(&self, speed: Option<(u32, u32)>) {
        // What a boot loader has left is sent as it meant it. Then, by 3.3.8: off, a character under way either way is
        // finished, the FIFOs are emptied, and only now anything else changes.
        self.flush();
        let was_on = self.control.is_set(Control::ENABLE);
        self.control.set(0);
        if was_on {
            timer::pause(CHARACTER);
        }
        self.interrupts.set(0);
        self.line.set(0); // FIFOs off: emptied
        if let Some((clock_hz, baud)) = speed {
            let (whole, fraction) = divisor(clock_hz, baud);
            self.divisor.set(whole);
            self.fraction.set(fraction);
        }
        self.line.write(Line::LENGTH::Eight + Line::FIFO::SET); // also makes the divisor count
        self.levels.write(Levels::RECEIVE::Half);
        self.clear.set(0x7ff);
        self.control.write(Control::ENABLE::SET + Control::TRANSMIT::SET + Control::RECEIVE::SET);
    }
}

impl Serial for Registers {
    fn read(&self) -> Option<u8> {
        while !self.flags.is_set(Flags::RECEIVE_EMPTY) {
            let word = self.data.get();
            if word & OVERRUN != 0 {
                super::LOST.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            }
            if word & NOT_A_BYTE == 0 {
                return Some((word & 0xff) as u8);
            }
        }
        None
    }

    fn write(&self, byte: u8) -> bool {
        let room = timer::wait_until(WRITE_LIMIT, || !self.flags.is_set(Flags::TRANSMIT_FULL));
        if room {
            self.data.set(u32::from(byte));
        }
        room
    }

    fn flush(&self) {
        timer::wait_until(DRAIN_LIMIT, || !self.flags.is_set(Flags::BUSY));
    }

    fn notify(&self, on: bool) {
        if on {
            self.interrupts.modify(Interrupts::RECEIVE::SET + Interrupts::TIMEOUT::SET);
        } else {
            self.interrupts.set(0);
        }
    }

    fn acknowledge(&self) {
        self.clear.write(Interrupts::RECEIVE::SET + Interrupts::TIMEOUT::SET + Interrupts::OVERRUN::SET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::in_memory;

    #[test]
    fn the_divisor_is_what_the_manual_computes() {
        assert_eq!(divisor(48_000_000, 115_200), (26, 3));
        assert_eq!(divisor(44_000_000, 115_200), (23, 56));
        assert_eq!(divisor(3_000_000, 115_200), (1, 40));
    }

    #[test]
    fn a_divisor_the_registers_cannot_hold_is_brought_within_reach() {
        assert_eq!(divisor(1_000_000, 115_200), (1, 0));
        assert_eq!(divisor(u32::MAX, 1), (65_535, 0));
        assert_eq!(divisor(48_000_000, 0), (65_535, 0));
    }

    #[test]
    fn starting_it_turns_both_ways_and_the_fifos_on() {
        let uart: &Registers = in_memory();
        uart.start(Some((48_000_000, 115_200)));
        assert_eq!((uart.divisor.get(), uart.fraction.get()), (26, 3));
        assert_eq!(uart.line.get(), 0x70);
        assert_eq!(uart.control.get(), 0x301);
        assert_eq!(uart.interrupts.get(), 0);
        uart.notify(true);
        assert_eq!(uart.interrupts.get(), 0x50);
    }

    #[test]
    fn the_boot_loaders_divisors_stay_where_there_are_any() {
        let uart: &Registers = in_memory();
        uart.divisor.set(23); // as a boot loader sets them that knows the clock better than we do
        uart.fraction.set(55);
        uart.start_as_left(50_000_000, 9_600);
        assert_eq!((uart.divisor.get(), uart.fraction.get()), (23, 55));
        assert_eq!((uart.line.get(), uart.control.get()), (0x70, 0x301));
    }

    #[test]
    fn a_pl011_is_known_by_its_number_and_nothing_else_is_taken_for_one() {
        let numbers = |first: Option<u32>, second: Option<u32>| {
            is_one(|offset| match offset {
                0xfe0 => first,
                0xfe4 => second,
                _ => panic!("{offset:#x} is not for asking"),
            })
        };
        assert!(numbers(Some(0x11), Some(0x10)));
        for other in [None, Some(0), Some(u32::MAX), Some(0xdead_dead), Some(0xdead_0011)] {
            assert!(!numbers(other, Some(0x10)) && !numbers(Some(0x11), other), "{other:x?}");
        }
    }

    #[test]
    fn an_empty_receiver_gives_nothing() {
        #[repr(C, align(8))]
        struct Words([u32; 18]);
        let mut words = Words([0; 18]);
        words.0[6] = 1 << 4;
        let address = &raw const words;
        assert_eq!(crate::drivers::tests::view::<Registers>(address as usize).read(), None);
    }

    #[test]
    fn a_byte_behind_an_overrun_is_taken_and_what_was_lost_is_counted() {
        #[repr(C, align(8))]
        struct Words([u32; 18]);
        let mut words = Words([0; 18]);
        words.0[0] = OVERRUN | u32::from(b'A');
        let address = &raw const words;
        let uart = crate::drivers::tests::view::<Registers>(address as usize);
        let lost = || crate::drivers::LOST.load(core::sync::atomic::Ordering::Relaxed);
        let before = lost();
        assert_eq!(uart.read(), Some(b'A'));
        assert!(lost() > before);
    }

    #[test]
    fn a_wedged_transmitter_does_not_hold_us_up() {
        #[repr(C, align(8))]
        struct Words([u32; 18]);
        let mut words = Words([0; 18]);
        words.0[6] = 1 << 5;
        let address = &raw const words;
        assert!(!crate::drivers::tests::view::<Registers>(address as usize).write(b'x'));
    }
}
