//! A strict model of BCM2711's mini-UART: FIFOs of 8 characters.
//!
//! Refused: a register of a port that is not enabled; the two ports beside it switched; a byte written to a full or silent transmitter, one
//! read from an empty receiver; line control or baud rate changed in the middle of a character; flow control, breaks, bits and
//! registers that are not there.
//!
//! Receive interrupts come where bits 2 and 3 of the enables are set, too, and characters have 8 bits where both low bits
//! of the line control are: the chip, not the manual. A look at the line status forgets an overrun.
//!
//! Sources: BCM2711 ARM Peripherals, 2.2; elinux.org, "BCM2835 datasheet errata".

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::super::board::Device;
use super::{Line, SECOND, Sender, fits};

const DEPTH: usize = 8;
const RECEIVER: u32 = 1;
const TRANSMITTER: u32 = 2;
const RECEIVE_INTERRUPT: u32 = 0b1101;
const BAUD_ACCESS: u32 = 1 << 7;

struct Inner {
    now: u64,
    core_hz: u64,
    enables: u32,
    interrupt_enables: u32,
    line_control: u32,
    control: u32,
    baud: u32,
    sender: Sender,
    line: Line,
    fifo: VecDeque<u8>,
    overrun: bool,
    /// The character that is being received is not what was sent.
    garbled: bool,
}

/// The model; clones are the same port.
#[derive(Clone)]
pub struct MiniUart(Rc<RefCell<Inner>>);

impl MiniUart {
    /// A port out of reset, on a core clock; its neighbours, SPI 1 and 2, are in use.
    pub fn new(core_hz: u64) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            now: 0,
            core_hz,
            enables: 0b110,
            interrupt_enables: 0,
            line_control: 0,
            control: RECEIVER | TRANSMITTER,
            baud: 0,
            sender: Sender::new(DEPTH),
            line: Line::default(),
            fifo: VecDeque::new(),
            overrun: false,
            garbled: false,
        })))
    }

    /// As a boot loader leaves it: on, at some speed, with this text not sent yet, and the registers that show the baud rate
    /// in place of data.
    pub fn in_use(core_hz: u64, baud: u64, text: &[u8]) -> Self {
        let port = Self::new(core_hz);
        {
            let mut inner = port.0.borrow_mut();
            inner.enables |= 1;
            inner.line_control = 3 | BAUD_ACCESS;
            inner.baud = (core_hz / 8 / baud) as u32 - 1;
            inner.interrupt_enables = 0xf;
            text.iter().for_each(|&byte| inner.sender.push(byte));
        }
        port
    }

    /// The core clock moves.
    pub fn set_core_clock(&self, hz: u64) {
        let mut inner = self.0.borrow_mut();
        assert!(inner.sender.is_idle(), "the core clock moves while a character is sent");
        inner.core_hz = hz;
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
        let receive =
            inner.interrupt_enables & RECEIVE_INTERRUPT == RECEIVE_INTERRUPT && !inner.fifo.is_empty();
        receive || inner.interrupt_enables & 2 != 0 && inner.sender.fifo.is_empty()
    }
}

impl Device for MiniUart {
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
    /// Length of a bit: 8 × (baud register + 1) core clocks.
    fn bit(&self) -> u64 {
        8 * (u64::from(self.baud) + 1) * SECOND / self.core_hz
    }

    fn tick(&mut self, now: u64) {
        self.now = now;
        let on = self.enables & 1 == 1;
        let bit = self.bit();
        self.sender.tick(now, on && self.control & TRANSMITTER != 0, bit);
        while let Some(character) = self.line.arrived(now, on && self.control & RECEIVER != 0) {
            let readable = fits(character.bit, bit) && !std::mem::take(&mut self.garbled);
            match self.fifo.len() {
                DEPTH => self.overrun = true,
                _ => self.fifo.push_back(if readable { character.byte } else { !character.byte }),
            }
        }
    }

    /// Refuses a register that another one hides.
    fn is_shown(&self, offset: usize) {
        assert!(offset < 8 || self.enables & 1 == 1, "register {offset:#x} of a port that is not enabled");
        let hidden = matches!(offset, 0x40 | 0x44) && self.line_control & BAUD_ACCESS != 0;
        assert!(!hidden, "register {offset:#x} is hidden by the baud rate: AUX_MU_LCR_REG bit 7");
    }

    fn load(&mut self, offset: usize) -> u32 {
        self.is_shown(offset);
        match offset {
            0x00 => u32::from(self.enables & 1 == 1 && !self.fifo.is_empty()),
            0x04 => self.enables,
            0x40 => u32::from(self.fifo.pop_front().expect("a character is read where none has come")),
            0x44 => self.interrupt_enables,
            0x48 => 0xc1,
            0x4c => self.line_control,
            0x50 => 0,
            0x54 => {
                let flag = |set: bool, bit: u32| u32::from(set) << bit;
                flag(!self.fifo.is_empty(), 0)
                    | flag(std::mem::take(&mut self.overrun), 1)
                    | flag(self.sender.fifo.len() < DEPTH, 5)
                    | flag(self.sender.is_idle(), 6)
            }
            0x60 => self.control,
            0x68 => self.baud,
            _ => panic!("the port has no register at {offset:#x} that we need to read"),
        }
    }

    fn store(&mut self, offset: usize, value: u32) {
        self.is_shown(offset);
        match offset {
            0x04 => {
                assert_eq!((value ^ self.enables) & !1, 0, "the ports beside it are switched");
                self.enables = value;
            }
            0x40 => {
                assert_ne!(self.control & TRANSMITTER, 0, "a byte is written to a transmitter that is off");
                self.sender.push(value as u8);
            }
            0x44 => {
                assert_eq!(value & !0xf, 0, "AUX_MU_IER_REG: bits that are not there");
                self.interrupt_enables = value;
            }
            0x48 => {
                assert_eq!(value & !6, 0, "AUX_MU_IIR_REG: bits that are not there");
                if value & 2 != 0 {
                    self.fifo.clear();
                }
                if value & 4 != 0 {
                    self.sender.fifo.clear();
                }
            }
            0x4c => {
                self.is_still("line control");
                assert_eq!(value & !BAUD_ACCESS, 3, "AUX_MU_LCR_REG: 8 bits, no break, is 3");
                self.line_control = value;
            }
            0x50 => assert_eq!(value, 0, "AUX_MU_MCR_REG: there is no such line"),
            0x60 => {
                assert_eq!(value & !3, 0, "AUX_MU_CNTL_REG: lines for flow control are not wired");
                assert!(value == 0 || self.line_control & 3 == 3, "the other end has characters of 8 bits");
                self.control = value;
            }
            0x68 => {
                assert!(self.sender.moving.is_none(), "the baud rate changes while a character is sent");
                assert!(value < 0x1_0000, "AUX_MU_BAUD_REG of {value}: it has 16 bits");
                self.garbled |= self.line.moving.is_some() && value != self.baud;
                self.baud = value;
            }
            _ => panic!("the port has no register at {offset:#x} that we need to write"),
        }
    }

    fn is_still(&self, what: &str) {
        assert!(self.sender.moving.is_none(), "the {what} changes while a character is sent");
        assert!(self.line.moving.is_none(), "the {what} changes while a character is received");
    }
}
