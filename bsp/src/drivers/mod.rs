//! Devices, each a register block and what it can do.
//!
//! A driver takes its block by reference, so a test can give it a block in plain memory. Every wait ends.

pub mod framebuffer;
pub mod gic;
pub mod gpio;
pub mod led;
pub mod mailbox;
pub mod mini_uart;
pub mod pci;
pub mod pl011;
pub mod power;
pub mod registers;
pub mod sd_card;
pub mod sd_slot;
pub mod sd_socket;
pub mod sdhci;
pub mod system_timer;

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

/// How long a byte may wait for room in a transmitter: at 9600 baud it takes a millisecond.
pub const WRITE_LIMIT: Duration = Duration::from_millis(20);

/// How long a full transmitter may take to empty itself: 17 characters at 9600 baud.
const DRAIN_LIMIT: Duration = Duration::from_millis(20);
/// A character at 9600 baud, and some: a port that is switched off finishes the one under way, and nothing tells when
/// one that is received has ended.
const CHARACTER: Duration = Duration::from_micros(1_100);

/// Bytes that a receiver dropped because nobody took them in time.
pub(crate) static LOST: AtomicU64 = AtomicU64::new(0);

/// Bytes that a receiver dropped, by its own account, since the last call.
pub fn take_lost() -> u64 {
    LOST.swap(0, Ordering::Relaxed)
}

/// A serial line. All calls take `&self`: a fault on any core may write while another does.
pub trait Serial {
    /// Takes the next byte received, if there is one.
    fn read(&self) -> Option<u8>;
    /// Sends a byte; false if the device had no room for it in time.
    fn write(&self, byte: u8) -> bool;
    /// Waits, a bounded time, until all has been sent.
    fn flush(&self);
    /// Has the device interrupt when something was received.
    fn notify(&self, on: bool);
    /// Ends the interrupt at the device.
    fn acknowledge(&self);
}

/// Takes what a serial line has received, at most so many bytes. The interrupt is ended first: one that comes meanwhile stays.
pub fn receive(line: &(impl Serial + ?Sized), most: usize, take: impl FnMut(u8)) {
    line.acknowledge();
    core::iter::from_fn(|| line.read()).take(most).for_each(take);
}

/// A device of 512-byte blocks.
pub trait BlockDevice {
    /// How many blocks it has.
    fn blocks(&self) -> u64;
    /// Fills `buffer`, a whole number of blocks, from block `first` on.
    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), sd_card::CardError>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for &mut T {
    fn blocks(&self) -> u64 {
        (**self).blocks()
    }
    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), sd_card::CardError> {
        (**self).read(first, buffer)
    }
}

/// Bytes on their way from an interrupt to the program: one writer, one reader, no lock.
pub struct Ring<const N: usize> {
    bytes: [AtomicU8; N],
    /// Bytes ever put in; the writer's.
    head: AtomicU32,
    /// Bytes ever taken out; the reader's.
    tail: AtomicU32,
    /// Bytes that found it full.
    lost: AtomicU64,
    /// A Ctrl-C has come.
    interrupted: AtomicBool,
}

/// Ctrl-C as terminals send it: end of text.
pub const CTRL_C: u8 = 3;

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ring<N> {
    /// An empty ring. `N` is a power of two.
    pub const fn new() -> Self {
        assert!(N.is_power_of_two() && N <= 1 << 24);
        Self {
            bytes: [const { AtomicU8::new(0) }; N],
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            lost: AtomicU64::new(0),
            interrupted: AtomicBool::new(false),
        }
    }

    /// Puts a byte in; a full ring loses it, and counts. A Ctrl-C is noted even then.
    pub fn push(&self, byte: u8) {
        if byte == CTRL_C {
            self.interrupted.store(true, Ordering::Release);
        }
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Acquire));
        if head.wrapping_sub(tail) as usize == N {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.bytes[head as usize % N].store(byte, Ordering::Relaxed);
        self.head.store(head.wrapping_add(1), Ordering::Release);
    }

    /// Takes the oldest byte out.
    pub fn pop(&self) -> Option<u8> {
        let (tail, head) = (self.tail.load(Ordering::Relaxed), self.head.load(Ordering::Acquire));
        if head == tail {
            return None;
        }
        let byte = self.bytes[tail as usize % N].load(Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    /// A copy of what waits to be taken, the oldest first, as far as there is room. For the reader, as [`Ring::pop`] is.
    pub fn peek<'b>(&self, into: &'b mut [u8]) -> &'b [u8] {
        let (tail, head) = (self.tail.load(Ordering::Relaxed), self.head.load(Ordering::Acquire));
        let count = (head.wrapping_sub(tail) as usize).min(into.len());
        let seen = &mut into[..count];
        for (index, byte) in seen.iter_mut().enumerate() {
            *byte = self.bytes[(tail as usize + index) % N].load(Ordering::Relaxed);
        }
        seen
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) == self.tail.load(Ordering::Acquire)
    }

    /// Bytes lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Whether a Ctrl-C came since [`Ring::clear_interrupt`].
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Forgets the Ctrl-C that came.
    pub fn clear_interrupt(&self) {
        self.interrupted.store(false, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(unsafe_code)] // register blocks in plain memory
    use super::*;
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    /// A register block of zeros.
    pub(crate) fn in_memory<T>() -> &'static T {
        let words = vec![0_u64; core::mem::size_of::<T>().div_ceil(8)];
        view(Box::leak(words.into_boxed_slice()).as_ptr() as usize)
    }

    /// Memory seen as a register block; it must hold one.
    pub(crate) fn view<T>(address: usize) -> &'static T {
        // SAFETY: the tests pass 8-byte aligned memory of at least that size, and all bits are valid registers.
        unsafe { &*(address as *const T) }
    }

    #[test]
    fn bytes_come_out_in_order_across_the_end_of_the_ring() {
        let ring = Ring::<8>::new();
        for round in 0..5_u8 {
            (0..6).for_each(|i| ring.push(round * 6 + i + 10));
            let mut seen = [0; 7];
            assert_eq!(ring.peek(&mut seen), core::array::from_fn::<u8, 6, _>(|i| round * 6 + i as u8 + 10));
            assert_eq!(ring.peek(&mut seen[..2]).len(), 2, "as there is room");
            let taken: Vec<u8> = core::iter::from_fn(|| ring.pop()).collect();
            assert_eq!(taken, (0..6).map(|i| round * 6 + i + 10).collect::<Vec<u8>>());
        }
        assert!(ring.is_empty());
        assert_eq!(ring.take_lost(), 0);
    }

    #[test]
    fn a_full_ring_counts_what_it_loses_and_keeps_what_it_has() {
        let ring = Ring::<4>::new();
        (b'a'..=b'f').for_each(|byte| ring.push(byte));
        assert_eq!(ring.take_lost(), 2);
        assert_eq!(ring.take_lost(), 0);
        assert_eq!(core::iter::from_fn(|| ring.pop()).collect::<Vec<u8>>(), b"abcd");
    }

    #[test]
    fn ctrl_c_is_noted_delivered_and_noted_even_when_full() {
        let ring = Ring::<2>::new();
        ring.push(b'x');
        ring.push(CTRL_C);
        assert!(ring.interrupted());
        ring.clear_interrupt();
        ring.push(CTRL_C);
        assert!(ring.interrupted());
        assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(b'x'), Some(CTRL_C), None));
    }
}
