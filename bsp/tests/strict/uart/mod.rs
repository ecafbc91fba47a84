//! Strict models of the two serial ports, each with somebody at the other end of the line, in the time of the board that
//! they are on.
//!
//! They panic on what would garble or lose a character, and on what the manuals leave open: see each file.
#![allow(dead_code)] // each test program uses its part

pub mod mini_uart;
pub mod pl011;

use std::collections::VecDeque;

const SECOND: u64 = 1_000_000_000; // ns
/// Start bit, eight of data, stop bit.
const BITS: u64 = 10;
/// How far off, in percent, the other end's bits may be: half a bit after nine and a half.
const TOLERANCE: u64 = 4;

/// Whether bits of this length can be read by one who takes them to be of that.
fn fits(bit: u64, taken_for: u64) -> bool {
    bit.abs_diff(taken_for) * 100 <= taken_for * TOLERANCE
}

/// A character on its way.
#[derive(Clone, Copy, Debug)]
struct Moving {
    byte: u8,
    start: u64,
    end: u64,
    /// Length of its bits, ns.
    bit: u64,
}

/// What goes out.
struct Sender {
    fifo: VecDeque<u8>,
    depth: usize,
    moving: Option<Moving>,
    /// What the other end got, with the length of its bits.
    sent: Vec<(u8, u64)>,
    /// The other end does not take anything.
    held: bool,
}

impl Sender {
    fn new(depth: usize) -> Self {
        Self { fifo: VecDeque::new(), depth, moving: None, sent: Vec::new(), held: false }
    }

    fn push(&mut self, byte: u8) {
        assert!(self.fifo.len() < self.depth, "a byte is written to a full transmitter, and lost");
        self.fifo.push_back(byte);
    }

    /// Lets time pass until `now` with bits of this length. One that is switched off finishes its character.
    fn tick(&mut self, now: u64, on: bool, bit: u64) {
        let mut start = now;
        loop {
            if let Some(moving) = self.moving {
                if moving.end > now {
                    break;
                }
                self.sent.push((moving.byte, moving.bit));
                self.moving = None;
                start = moving.end;
            }
            if !on || self.held {
                break;
            }
            let Some(byte) = self.fifo.pop_front() else { break };
            self.moving = Some(Moving { byte, start, end: start + BITS * bit, bit });
        }
    }

    fn is_idle(&self) -> bool {
        self.fifo.is_empty() && self.moving.is_none()
    }
}

/// What comes in: what the other end has begun or is going to send.
#[derive(Default)]
struct Line {
    coming: VecDeque<Moving>,
    moving: Option<Moving>,
}

impl Line {
    /// The other end types this, without a pause.
    fn types(&mut self, now: u64, bytes: &[u8], baud: u64) {
        let bit = SECOND / baud;
        let mut start = self.coming.back().or(self.moving.as_ref()).map_or(now, |last| last.end.max(now));
        for &byte in bytes {
            self.coming.push_back(Moving { byte, start, end: start + BITS * bit, bit });
            start += BITS * bit;
        }
    }

    /// The next character that is over by now. What begins while nobody listens is lost; what has begun is finished.
    fn arrived(&mut self, now: u64, listening: bool) -> Option<Moving> {
        loop {
            match self.moving {
                Some(moving) if moving.end <= now => return self.moving.take(),
                Some(_) => return None,
                None => {
                    let next = self.coming.pop_front_if(|next| next.start <= now)?;
                    self.moving = listening.then_some(next);
                }
            }
        }
    }
}
