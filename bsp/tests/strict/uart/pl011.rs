//! A strict model of the PL011 as BCM2711 and BCM2712 have it: FIFOs of 16 characters.
//!
//! Refused: a byte written to a full or silent transmitter, one read from an empty receiver; divisor or line control changed while
//! the port is on, or while a character is on its way (3.3.8 asks to switch it off and to wait first); a port switched on whose
//! divisor was written and does not count yet (3.3.6: a write of the line control makes it count), or is none; a mode of the line
//! that the other end is not in; bits and registers that are not there.
//!
//! A receiver that overruns says so with the character after those that were lost: 2.7.
//!
//! Source: Arm DDI 0183, chapters 2 and 3; BCM2711 ARM Peripherals, chapter 11.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::super::board::Device;
use super::{BITS, Line, SECOND, Sender, fits};

const DEPTH: usize = 16;
/// Bit times without a character after which those that wait are told of.
const TIMEOUT: u64 = 32;

const OVERRUN: u16 = 1 << 11;
const BREAK: u16 = 1 << 10;
const FRAMING: u16 = 1 << 8;
/// Interrupts: received, left alone, and the four errors.
const RECEIVED: u32 = 1 << 4;
const LEFT_ALONE: u32 = 1 << 6;
const ALL: u32 = 0x7ff;

const ON: u32 = 1;
const TRANSMIT: u32 = 1 << 8;
const RECEIVE: u32 = 1 << 9;
/// Line control: FIFOs on; 8 bits, no parity, one stop bit.
const FIFO: u32 = 1 << 4;
const EIGHT_BITS: u32 = 3 << 5;

struct Inner {
    now: u64,
    clock_hz: u64,
    /// IBRD and FBRD as they were last written, and as they count.
    written: (u32, u32),
    counts: (u32, u32),
    line_control: u32,
    control: u32,
    levels: u32,
    mask: u32,
    raw: u32,
    sender: Sender,
    line: Line,
    fifo: VecDeque<u16>,
    overrun: bool,
    /// When the last character came, while nobody has been told that it waits.
    waits_since: Option<u64>,
}

/// The model; clones are the same port.
#[derive(Clone)]
pub struct Pl011(Rc<RefCell<Inner>>);

impl Pl011 {
    /// A port out of reset, on a clock.
    pub fn new(clock_hz: u64) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            now: 0,
            clock_hz,
            written: (0, 0),
            counts: (0, 0),
            line_control: 0,
            control: TRANSMIT | RECEIVE,
            levels: 0x12,
            mask: 0,
            raw: 0,
            sender: Sender::new(DEPTH),
            line: Line::default(),
            fifo: VecDeque::new(),
            overrun: false,
            waits_since: None,
        })))
    }

    /// As a boot loader leaves it: on, at some speed, with this text not sent yet.
    pub fn in_use(clock_hz: u64, baud: u64, text: &[u8]) -> Self {
        let port = Self::new(clock_hz);
        {
            let mut inner = port.0.borrow_mut();
            let sixty_fourths = (clock_hz * 4 + baud / 2) / baud;
            inner.counts = ((sixty_fourths / 64) as u32, (sixty_fourths % 64) as u32);
            inner.written = inner.counts;
            inner.line_control = FIFO | EIGHT_BITS;
            inner.control |= ON;
            inner.mask = RECEIVED;
            text.iter().for_each(|&byte| inner.sender.push(byte));
        }
        port
    }

    /// The other end takes nothing from now on.
    pub fn hold(&self) {
        self.0.borrow_mut().sender.held = true;
    }
    /// The other end types this at so many baud, without a pause.
    pub fn types(&self, bytes: &[u8], baud: u64) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        inner.line.types(now, bytes, baud);
    }
    /// The line is held low for longer than a character: what an unplugged cable may look like.
    pub fn breaks(&self) {
        self.0.borrow_mut().receive(0, BREAK | FRAMING);
    }
    /// What the other end could read at so many baud; other bits than those are a fault.
    pub fn take_sent(&self, baud: u64) -> Vec<u8> {
        let sent = std::mem::take(&mut self.0.borrow_mut().sender.sent);
        let bit = SECOND / baud;
        sent.into_iter()
            .map(|(byte, length)| {
                assert!(fits(length, bit), "bits of {length} ns at an end that reads bits of {bit} ns");
                byte
            })
            .collect()
    }
    /// Whether it interrupts.
    pub fn interrupts(&self) -> bool {
        let inner = self.0.borrow();
        inner.raw & inner.mask != 0
    }
    /// Characters that wait to be read.
    pub fn waiting(&self) -> usize {
        self.0.borrow().fifo.len()
    }
}

impl Device for Pl011 {
    fn load(&self, offset: usize, bytes: usize) -> u32 {
        assert_eq!(bytes, 4, "the port has 32-bit registers");
        self.0.borrow_mut().load(offset)
    }
    fn store(&self, offset: usize, bytes: usize, value: u32) {
        assert_eq!(bytes, 4, "the port has 32-bit registers");
        self.0.borrow_mut().store(offset, value);
    }
    fn tick(&self, now: u64) {
        self.0.borrow_mut().tick(now);
    }
}

impl Inner {
    /// Length of a bit: 16 × divisor clocks.
    fn bit(&self) -> u64 {
        let sixty_fourths = u64::from(self.counts.0) * 64 + u64::from(self.counts.1);
        (sixty_fourths * SECOND / 4 / self.clock_hz).max(1)
    }

    fn depth(&self) -> usize {
        if self.line_control & FIFO == 0 { 1 } else { DEPTH }
    }

    /// Characters at which the receiver interrupts: 3.3.9.
    fn level(&self) -> usize {
        match (self.depth(), self.levels >> 3 & 7) {
            (1, _) => 1,
            (depth, sixths) => depth * [1, 2, 4, 6, 7][sixths as usize] / 8,
        }
    }

    fn tick(&mut self, now: u64) {
        self.now = now;
        let bit = self.bit();
        let on = |what: u32| self.control & (ON | what) == ON | what;
        let (sends, listens) = (on(TRANSMIT), on(RECEIVE));
        self.sender.tick(now, sends, bit);
        while let Some(character) = self.line.arrived(now, listens) {
            let readable = fits(character.bit, bit);
            let (byte, errors) = if readable { (character.byte, 0) } else { (!character.byte, FRAMING) };
            self.receive(byte, errors);
            self.waits_since = Some(character.end);
        }
        if self.waits_since.is_some_and(|since| !self.fifo.is_empty() && now >= since + TIMEOUT * bit) {
            self.raw |= LEFT_ALONE;
            self.waits_since = None; // told once: the worst that the manual allows
        }
    }

    fn receive(&mut self, byte: u8, errors: u16) {
        self.raw |= u32::from(errors >> 8 & 7) << 7;
        if self.fifo.len() == self.depth() {
            self.overrun = true;
            self.raw |= 1 << 10;
            return;
        }
        let lost = if std::mem::take(&mut self.overrun) { OVERRUN } else { 0 };
        self.fifo.push_back(u16::from(byte) | errors | lost);
        if self.fifo.len() == self.level() {
            self.raw |= RECEIVED; // on reaching it, not while it is there: 2.8
        }
    }

    fn load(&mut self, offset: usize) -> u32 {
        match offset {
            0x00 => {
                let word = self.fifo.pop_front().expect("a character is read where none has come");
                if self.fifo.len() < self.level() {
                    self.raw &= !RECEIVED;
                }
                if self.fifo.is_empty() {
                    self.raw &= !LEFT_ALONE;
                    self.waits_since = None;
                }
                u32::from(word)
            }
            0x18 => {
                let flag = |set: bool, bit: u32| u32::from(set) << bit;
                let depth = self.depth();
                flag(!self.sender.is_idle(), 3)
                    | flag(self.fifo.is_empty(), 4)
                    | flag(self.sender.fifo.len() >= depth, 5)
                    | flag(self.fifo.len() >= depth, 6)
                    | flag(self.sender.fifo.is_empty(), 7)
            }
            0x24 => self.written.0,
            0x28 => self.written.1,
            0x2c => self.line_control,
            0x30 => self.control,
            0x34 => self.levels,
            0x38 => self.mask,
            0x3c => self.raw,
            0x40 => self.raw & self.mask,
            0x44 => panic!("UARTICR is written, not read"),
            _ => panic!("the port has no register at {offset:#x} to read"),
        }
    }

    /// Refuses a change that would cut a character short: 3.3.8.
    fn is_still(&self, what: &str) {
        assert_eq!(self.control & ON, 0, "the {what} changes while the port is on");
        assert!(self.sender.moving.is_none(), "the {what} changes while a character is sent");
        assert!(self.line.moving.is_none(), "the {what} changes while a character is received");
    }

    fn store(&mut self, offset: usize, value: u32) {
        match offset {
            0x00 => {
                let on = ON | TRANSMIT;
                assert_eq!(self.control & on, on, "a byte is written to a transmitter that is off");
                self.sender.depth = self.depth();
                self.sender.push(value as u8);
            }
            0x24 => {
                self.is_still("divisor");
                assert!((1..0x1_0000).contains(&value), "UARTIBRD of {value}: 1 to 65535");
                self.written.0 = value;
            }
            0x28 => {
                self.is_still("divisor");
                assert!(value < 64, "UARTFBRD of {value}: it has 6 bits");
                self.written.1 = value;
            }
            0x2c => {
                self.is_still("line control");
                assert_eq!(
                    value & !(FIFO | EIGHT_BITS),
                    0,
                    "UARTLCR_H: the other end has no parity, one stop bit"
                );
                if value & FIFO == 0 {
                    self.fifo.clear();
                    self.sender.fifo.clear();
                    self.raw &= !(RECEIVED | LEFT_ALONE);
                    self.waits_since = None;
                }
                self.line_control = value;
                self.counts = self.written;
            }
            0x30 => self.switch(value),
            0x34 => {
                assert!(
                    value >> 6 == 0 && value & 7 < 5 && value >> 3 < 5,
                    "UARTIFLS of {value:#x}: reserved"
                );
                self.levels = value;
            }
            0x38 => {
                assert_eq!(value & !ALL, 0, "UARTIMSC: bits that are not there");
                self.mask = value;
            }
            0x44 => {
                assert_eq!(value & !ALL, 0, "UARTICR: bits that are not there");
                self.raw &= !value;
            }
            _ => panic!("the port has no register at {offset:#x} to write"),
        }
    }

    fn switch(&mut self, value: u32) {
        assert_eq!(
            value & !(ON | TRANSMIT | RECEIVE),
            0,
            "UARTCR: loop-back, modem lines and IrDA are not ours"
        );
        if value & ON != 0 {
            assert!(self.control & ON == 0 || value == self.control, "UARTCR changes while the port is on");
            assert_eq!(
                self.counts, self.written,
                "the divisor was written and does not count: UARTLCR_H was not"
            );
            assert_ne!(self.counts.0, 0, "the port is switched on without a divisor");
            assert!(self.counts.0 < 65_535 || self.counts.1 == 0, "a divisor beyond 65535");
            assert_eq!(self.line_control & EIGHT_BITS, EIGHT_BITS, "the other end has characters of 8 bits");
        }
        self.control = value;
    }
}

/// How long a character takes at so many baud, ns.
pub fn character(baud: u64) -> u64 {
    BITS * SECOND / baud
}
