//! Mailbox: asks VideoCore for memory, clocks, temperature, power.
//!
//! A request is one buffer: total size, a code, tags, a zero. Each tag is its number, the room for its answer,
//! a word that says how long the answer was (with bit 31 set if there was one), and its values. VideoCore
//! answers in place. It does not see our caches: the buffer lies alone on its cache lines, is cleaned before it
//! looks and dropped before we do. There is one buffer for good, and it is not touched while an answer is owed:
//! VideoCore may write there long after we gave up waiting. It has not answered a tag unless *that tag's* word says so: the code for the
//! whole buffer reads "success" even when no tag was known.
//!
//! Sources: Raspberry Pi firmware wiki, "Mailbox property interface" and "Accessing mailboxes"; Linux
//! `drivers/mailbox/bcm2835-mailbox.c` for the registers, which the BCM2711's manual does not have,
//! `include/soc/bcm2835/raspberrypi-firmware.h` for tags that the wiki lacks, `drivers/clk/bcm/clk-raspberrypi.c` for the
//! clocks' numbers; the device tree `bcm283x.dtsi` (`dma-ranges` of `soc`): VideoCore sees RAM below 1 GiB at 0xc0000000.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, WriteOnly};

use crate::cpu::{mmu, timer};

register_structs! {
    /// Mailbox 0 (from VideoCore) and 1 (to VideoCore).
    pub Registers {
        (0x00 => read: ReadOnly<u32>),
        (0x04 => _reserved0),
        (0x18 => status_read: ReadOnly<u32>),      // bit 30: empty
        (0x1c => _reserved1),
        (0x20 => write: WriteOnly<u32>),
        (0x24 => _reserved2),
        (0x38 => status_write: ReadOnly<u32>),     // bit 31: full
        (0x3c => @END),
    }
}

const EMPTY: u32 = 1 << 30;
const FULL: u32 = 1 << 31;
/// The property channel, in the low four bits of a message.
const CHANNEL: u32 = 8;
const SUCCESS: u32 = 0x8000_0000;
const ANSWERED: u32 = 1 << 31;
/// How long VideoCore may take: as long as Linux (`drivers/firmware/raspberrypi.c`) and U-Boot (`mach-bcm283x/mbox.c`) wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Words of the largest request: four cache lines.
const WORDS: usize = 64;
/// Words of a buffer in front of its tags.
const PREFACE: usize = 2;
/// Words of a tag in front of its values.
const TAG_HEAD: usize = 3;
/// Words in front of the first tag's values.
const HEAD: usize = PREFACE + TAG_HEAD;
/// Words of the values of one of several tags that are asked together.
const VALUES: usize = 2;

/// One of several tags that belong together, with its values; then with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its number.
    pub number: u32,
    /// Words sent: those that come back are in the same place.
    pub values: [u32; VALUES],
    /// The larger of what is sent and what comes back, in words.
    room: usize,
    /// Bytes that were answered, once they were.
    pub answered: Option<u32>,
}

impl Tag {
    /// A tag with one word.
    pub const fn one(number: u32, value: u32) -> Self {
        Self { number, values: [value, 0], room: 1, answered: None }
    }
    /// A tag with two.
    pub const fn two(number: u32, values: [u32; 2]) -> Self {
        Self { number, values, room: 2, answered: None }
    }
    /// The first `N` words of the answer, if it was as long.
    pub fn answer<const N: usize>(&self) -> Result<[u32; N], MailboxError> {
        let long_enough = self.answered.is_some_and(|bytes| bytes as usize >= N * 4);
        if !long_enough {
            return Err(MailboxError::Unanswered { tag: self.number });
        }
        Ok(core::array::from_fn(|index| self.values[index]))
    }
}

/// A request and its answer, alone on their cache lines (which also makes it 16-byte aligned).
#[repr(C, align(64))]
pub struct Buffer([AtomicU32; WORDS]);

impl Buffer {
    /// Writes a request with one tag. `room` is the larger of what is sent and what comes back, in words.
    fn fill(&self, tag: u32, values: &[u32], room: usize) {
        let head = [((HEAD + room + 1) * 4) as u32, 0, tag, (room * 4) as u32, 0];
        let words = head.into_iter().chain(values.iter().copied()).chain(core::iter::repeat(0));
        for (word, value) in self.0.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }
    /// Writes a request with several tags.
    fn fill_all(&self, tags: &[Tag]) {
        let tag_words = |tag: &Tag| {
            let head = [tag.number, (tag.room * 4) as u32, 0];
            head.into_iter().chain(tag.values.into_iter().take(tag.room))
        };
        let bytes = (PREFACE + tags.iter().map(|tag| TAG_HEAD + tag.room).sum::<usize>() + 1) * 4;
        let words = [bytes as u32, 0].into_iter().chain(tags.iter().flat_map(tag_words));
        for (word, value) in self.0.iter().zip(words.chain(core::iter::repeat(0))) {
            word.store(value, Ordering::Relaxed);
        }
    }
    /// Takes the answers to what [`Buffer::fill_all`] wrote: each tag is where it was.
    fn take_all(&self, tags: &mut [Tag]) {
        let mut at = PREFACE;
        for tag in tags {
            let length = self.get(at + 2);
            tag.answered = (length & ANSWERED != 0).then_some(length & !ANSWERED);
            for (index, value) in tag.values.iter_mut().take(tag.room).enumerate() {
                *value = self.get(at + TAG_HEAD + index);
            }
            at += TAG_HEAD + tag.room;
        }
    }
    fn get(&self, index: usize) -> u32 {
        self.0[index].load(Ordering::Relaxed)
    }
}

/// The buffer, and whether VideoCore may still write to it. One core asks at a time: core 0.
#[repr(C)]
pub struct Desk {
    buffer: Buffer,
    owed: AtomicBool,
}

impl Desk {
    const fn new() -> Self {
        Self { buffer: Buffer([const { AtomicU32::new(0) }; WORDS]), owed: AtomicBool::new(false) }
    }
}

/// The board's.
static DESK: Desk = Desk::new();

/// Why VideoCore gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxError {
    /// It takes no message, or sends none back.
    Silent,
    /// It could not read the request.
    Refused {
        /// The buffer's code word.
        code: u32,
    },
    /// It does not know this tag, or gave a shorter answer than the tag has.
    Unanswered {
        /// The tag.
        tag: u32,
    },
    /// The buffer lies beyond the first GiB, where VideoCore can't see it.
    OutOfReach,
}

impl fmt::Display for MailboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("VideoCore does not answer"),
            Self::Refused { code } => write!(f, "VideoCore refused the request (code {code:#010x})"),
            Self::Unanswered { tag } => write!(f, "VideoCore's firmware does not know tag {tag:#x}"),
            Self::OutOfReach => f.write_str("the request lies where VideoCore can't see it"),
        }
    }
}

/// What lies between us and VideoCore: registers and caches. Tests put a strict model in its place.
pub trait Port {
    /// Whether a message can be posted.
    fn ready(&self) -> bool;
    /// Posts a message.
    fn post(&self, message: u32);
    /// Takes a message, if there is one.
    fn receive(&self) -> Option<u32>;
    /// The buffer to ask with.
    fn desk(&self) -> &Desk;
    /// Writes the buffer's lines to memory and drops them.
    fn hand_over(&self, buffer: &Buffer);
    /// The buffer's address as VideoCore counts.
    fn address(&self, buffer: &Buffer) -> Option<u32>;
}

impl Port for &Registers {
    fn ready(&self) -> bool {
        self.status_write.get() & FULL == 0
    }
    fn post(&self, message: u32) {
        self.write.set(message);
    }
    fn receive(&self) -> Option<u32> {
        (self.status_read.get() & EMPTY == 0).then(|| self.read.get())
    }
    fn desk(&self) -> &Desk {
        &DESK
    }
    fn hand_over(&self, buffer: &Buffer) {
        mmu::clean_and_invalidate(&buffer.0);
    }
    fn address(&self, buffer: &Buffer) -> Option<u32> {
        bus_address(buffer as *const Buffer as u64)
    }
}

/// Where VideoCore sees an address of the first GiB: through its uncached alias.
fn bus_address(physical: u64) -> Option<u32> {
    (physical < 1 << 30).then_some(physical as u32 | 0xc000_0000)
}

/// Clocks by VideoCore's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// PL011.
    Uart = 2,
    /// The Arm cores.
    Arm = 3,
    /// VPU core: the mini-UART hangs on it.
    Core = 4,
    /// The SD host of the card slot.
    Emmc2 = 12,
}

/// What is behind the GPIO expander: the firmware's numbers, 128 and the line. Sources: Linux `gpio-raspberrypi-exp.c`; the device
/// tree `bcm2711-rpi-4-b.dts` (lines 4 and 6 of `expgpio`, and the regulators `sd_io_1v8_reg` and `sd_vcc_reg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpanderPin {
    /// SD card signalling: 1 is 1.8 V, 0 is 3.3 V; settles in 5 ms.
    SdVoltage = 132,
    /// SD card supply.
    SdPower = 134,
}

/// The property interface.
pub struct Mailbox<P: Port> {
    port: P,
}

impl<P: Port> Mailbox<P> {
    /// The interface behind this port.
    pub const fn new(port: P) -> Self {
        Self { port }
    }

    /// Sends one tag with its values and returns the first `N` words of the answer.
    pub fn ask<const N: usize>(&self, tag: u32, values: &[u32]) -> Result<[u32; N], MailboxError> {
        let room = values.len().max(N);
        debug_assert!(HEAD + room < WORDS, "every tag used here fits");
        let buffer = self.exchange(|buffer| buffer.fill(tag, values, room))?;
        let length = buffer.get(4);
        if length & ANSWERED == 0 || ((length & !ANSWERED) as usize) < N * 4 {
            return Err(MailboxError::Unanswered { tag });
        }
        Ok(core::array::from_fn(|index| buffer.get(HEAD + index)))
    }

    /// Sends tags that VideoCore has to see together, in this order, and puts the answers into them. A tag
    /// that it does not know stays unanswered: [`Tag::answer`] says so.
    pub fn ask_all(&self, tags: &mut [Tag]) -> Result<(), MailboxError> {
        debug_assert!(
            PREFACE + tags.len() * (TAG_HEAD + VALUES) < WORDS,
            "as many tags as are used here fit"
        );
        self.exchange(|buffer| buffer.fill_all(tags))?.take_all(tags);
        Ok(())
    }

    /// Has the buffer filled, sends it, waits for the answer and gives the buffer with it.
    fn exchange(&self, fill: impl FnOnce(&Buffer)) -> Result<&Buffer, MailboxError> {
        let Desk { buffer, owed } = self.port.desk();
        let message = self.port.address(buffer).ok_or(MailboxError::OutOfReach)? | CHANNEL;
        // Messages of other channels, or left over from others, are nobody's any more.
        let answered = || timer::wait_until(ANSWER_LIMIT, || self.port.receive() == Some(message));

        if owed.load(Ordering::Relaxed) {
            if !answered() {
                return Err(MailboxError::Silent);
            }
            owed.store(false, Ordering::Relaxed);
        }
        // A message left over from someone who gave up must not be taken for the answer.
        timer::wait_until(Duration::from_millis(1), || self.port.receive().is_none());
        if !timer::wait_until(ANSWER_LIMIT, || self.port.ready()) {
            return Err(MailboxError::Silent);
        }
        fill(buffer);
        self.port.hand_over(buffer);
        owed.store(true, Ordering::Relaxed);
        self.port.post(message);
        if !answered() {
            return Err(MailboxError::Silent);
        }
        owed.store(false, Ordering::Relaxed);
        self.port.hand_over(buffer);

        if buffer.get(1) != SUCCESS {
            return Err(MailboxError::Refused { code: buffer.get(1) });
        }
        Ok(buffer)
    }

    /// A tag that answers an id and a value.
    fn by_id(&self, tag: u32, id: u32) -> Result<u32, MailboxError> {
        let [_, value] = self.ask(tag, &[id, 0])?;
        Ok(value)
    }

    /// The board's revision code: `board::Revision` reads it.
    pub fn revision(&self) -> Result<u32, MailboxError> {
        self.ask(0x0001_0002, &[]).map(|[revision]| revision)
    }

    /// The firmware's revision: the seconds since 1970 when it was built, on boards' own firmware.
    pub fn firmware(&self) -> Result<u32, MailboxError> {
        self.ask(0x0000_0001, &[]).map(|[revision]| revision)
    }

    /// Arm memory in the first GiB: start and size.
    pub fn arm_memory(&self) -> Result<(u32, u32), MailboxError> {
        self.ask(0x0001_0005, &[]).map(|[start, size]| (start, size))
    }

    /// VideoCore's memory: start and size.
    pub fn videocore_memory(&self) -> Result<(u32, u32), MailboxError> {
        self.ask(0x0001_0006, &[]).map(|[start, size]| (start, size))
    }

    /// A clock's rate in hertz, as set.
    pub fn clock(&self, clock: Clock) -> Result<u32, MailboxError> {
        self.by_id(0x0003_0002, clock as u32)
    }

    /// A clock's rate in hertz, as measured: not every firmware can.
    pub fn measured_clock(&self, clock: Clock) -> Result<u32, MailboxError> {
        self.by_id(0x0003_0047, clock as u32)
    }

    /// The highest rate a clock may have, in hertz.
    pub fn max_clock(&self, clock: Clock) -> Result<u32, MailboxError> {
        self.by_id(0x0003_0004, clock as u32)
    }

    /// Sets a clock and returns the rate it got. Turbo (more voltage) may follow as needed.
    pub fn set_clock(&self, clock: Clock, hz: u32) -> Result<u32, MailboxError> {
        let [_, got] = self.ask(0x0003_8002, &[clock as u32, hz, 0])?;
        Ok(got)
    }

    /// Temperature of the chip in thousandths of a degree Celsius.
    pub fn temperature(&self) -> Result<i32, MailboxError> {
        self.by_id(0x0003_0006, 0).map(|milli| milli as i32)
    }

    /// Throttle bits: 0 under-voltage, 1 frequency capped, 2 throttled, 3 soft limit; 16-19 the same since start. Source: Raspberry
    /// Pi documentation, `vcgencmd get_throttled`.
    pub fn throttled(&self) -> Result<u32, MailboxError> {
        self.ask(0x0003_0046, &[0]).map(|[bits]| bits)
    }

    /// Sets a pin of the GPIO expander. Firmware releases differ in how long their answer is: that there is one counts, and that
    /// the pin's number in it has become 0. Source: Linux `gpio-raspberrypi-exp.c`, which takes any other for a failure.
    pub fn set_expander(&self, pin: ExpanderPin, high: bool) -> Result<(), MailboxError> {
        const SET_STATE: u32 = 0x0003_8041;
        let mut tags = [Tag::two(SET_STATE, [pin as u32, u32::from(high)])];
        self.ask_all(&mut tags)?;
        match tags[0].answer() {
            Ok([0]) => Ok(()),
            Ok([code]) => Err(MailboxError::Refused { code }),
            Err(_) if tags[0].answered.is_some() => Ok(()), // too short to say more
            Err(why) => Err(why),
        }
    }

    /// Switches a device's power and waits for it: device 0 is the SD card. Returns whether it is on and exists.
    pub fn set_power(&self, device: u32, on: bool) -> Result<bool, MailboxError> {
        let [_, state] = self.ask(0x0002_8001, &[device, u32::from(on) | 2])?;
        Ok(state & 3 == 1)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::boxed::Box;
    use std::cell::{Cell, RefCell};
    use std::vec;
    use std::vec::Vec;

    /// What VideoCore makes of a tag and its values: bytes of its answer, if it knows it.
    type Reply = Box<dyn Fn(u32, &mut [u32]) -> Option<usize>>;

    /// VideoCore as strict as silicon: it sees what was cleaned and nothing later, answers only while nobody
    /// holds the lines, and what it writes is seen only after they were dropped.
    pub(crate) struct VideoCore {
        memory: RefCell<Vec<u32>>,
        posted: Cell<bool>,
        answer: Cell<Option<u32>>,
        stale: Cell<Option<u32>>,
        written: Cell<bool>,
        reply: Reply,
        code: u32,
        pub(crate) deaf: bool,
        /// Looks until an answer comes.
        late: Cell<u32>,
        desk: Desk,
    }

    /// Where the buffer is in the model's memory, and where VideoCore sees that: RAM of the first GiB once more, past its cache.
    const AT: u64 = 0x12_3440;
    const SEEN_AT: u32 = 0xc012_3440;
    const CHANNEL_BITS: u32 = 0xf;

    pub(crate) fn videocore(reply: impl Fn(u32, &mut [u32]) -> Option<usize> + 'static) -> VideoCore {
        VideoCore {
            memory: RefCell::new(vec![]),
            posted: Cell::new(false),
            answer: Cell::new(None),
            stale: Cell::new(None),
            written: Cell::new(false),
            reply: Box::new(reply),
            code: SUCCESS,
            deaf: false,
            late: Cell::new(0),
            desk: Desk::new(),
        }
    }

    impl Port for &VideoCore {
        fn ready(&self) -> bool {
            !self.deaf
        }
        fn post(&self, message: u32) {
            assert_eq!(message & CHANNEL_BITS, CHANNEL);
            assert_eq!(message & !CHANNEL_BITS, SEEN_AT, "the uncached alias");
            let mut memory = self.memory.borrow_mut();
            assert!(!memory.is_empty(), "posted before the buffer was cleaned");
            assert_eq!(memory[0] % 4, 0);
            let words = memory[0] as usize / 4;
            assert!(words <= memory.len());
            assert_eq!(memory[1], 0, "a request has code 0");
            let mut at = PREFACE;
            while memory[at] != 0 {
                let (tag, room) = (memory[at], memory[at + 1] as usize / 4);
                assert_eq!(memory[at + 2], 0, "a request's tag has no answer yet");
                let values = at + TAG_HEAD;
                assert!(values + room < words, "tag {tag:#x} is longer than the buffer");
                if let Some(length) = (self.reply)(tag, &mut memory[values..values + room]) {
                    memory[at + 2] = ANSWERED | length as u32;
                }
                at = values + room;
            }
            assert_eq!(at + 1, words, "the list of tags ends where the buffer does");
            memory[1] = self.code;
            self.written.set(true);
            self.posted.set(true);
            self.answer.set(Some(message));
        }
        fn receive(&self) -> Option<u32> {
            if self.late.get() > 0 {
                self.late.set(self.late.get() - 1);
                return None;
            }
            self.stale.take().or_else(|| self.answer.take())
        }
        fn desk(&self) -> &Desk {
            &self.desk
        }
        fn hand_over(&self, buffer: &Buffer) {
            assert!(self.answer.get().is_none(), "the buffer is VideoCore's until its answer was taken");
            let mut memory = self.memory.borrow_mut();
            if self.written.get() {
                for (word, &value) in buffer.0.iter().zip(memory.iter()) {
                    word.store(value, Ordering::Relaxed);
                }
                self.written.set(false);
            } else {
                *memory = buffer.0.iter().map(|word| word.load(Ordering::Relaxed)).collect();
            }
        }
        fn address(&self, buffer: &Buffer) -> Option<u32> {
            assert_eq!(buffer as *const Buffer as usize % 64, 0);
            bus_address(AT)
        }
    }

    #[test]
    fn a_clock_is_asked_for_by_number_and_its_rate_comes_back() {
        let core = videocore(|tag, values| {
            assert_eq!((tag, values[0]), (0x0003_0002, 2));
            values[1] = 48_000_000;
            Some(8)
        });
        assert_eq!(Mailbox::new(&core).clock(Clock::Uart), Ok(48_000_000));
    }

    #[test]
    fn tags_that_belong_together_go_in_one_message_and_each_has_its_own_answer() {
        let core = videocore(|tag, values| match tag {
            0x0004_8005 => {
                assert_eq!(values, [16]);
                values[0] = 32;
                Some(4)
            }
            0x0004_0001 => {
                assert_eq!(values, [4096, 0]);
                values.copy_from_slice(&[0xfc10_0000, 0x12_c000]);
                Some(8)
            }
            _ => None,
        });
        let mut tags =
            [Tag::one(0x0004_8005, 16), Tag::two(0x0004_0001, [4096, 0]), Tag::one(0x0004_0008, 7)];
        Mailbox::new(&core).ask_all(&mut tags).unwrap();
        assert_eq!(tags[0].answer(), Ok([32]));
        assert_eq!(tags[0].answer::<2>(), Err(MailboxError::Unanswered { tag: 0x0004_8005 }));
        assert_eq!(tags[1].answer(), Ok([0xfc10_0000, 0x12_c000]));
        assert_eq!(tags[2].answer::<1>(), Err(MailboxError::Unanswered { tag: 0x0004_0008 }));
    }

    #[test]
    fn a_tag_without_its_own_answer_bit_is_no_answer_though_the_buffer_says_success() {
        let core = videocore(|_, _| None);
        assert_eq!(
            Mailbox::new(&core).measured_clock(Clock::Arm),
            Err(MailboxError::Unanswered { tag: 0x0003_0047 })
        );
    }

    #[test]
    fn an_answer_shorter_than_its_tag_is_no_answer() {
        let core = videocore(|_, _| Some(4));
        assert_eq!(Mailbox::new(&core).clock(Clock::Arm), Err(MailboxError::Unanswered { tag: 0x0003_0002 }));
    }

    #[test]
    fn a_refused_request_and_a_silent_videocore_are_errors() {
        let mut core = videocore(|_, _| Some(4));
        core.code = 0x8000_0001;
        assert_eq!(Mailbox::new(&core).revision(), Err(MailboxError::Refused { code: 0x8000_0001 }));
        let mut core = videocore(|_, _| Some(4));
        core.deaf = true;
        assert_eq!(Mailbox::new(&core).revision(), Err(MailboxError::Silent));
        assert!(!core.posted.get());
    }

    #[test]
    fn a_message_left_over_is_not_taken_for_the_answer() {
        let core = videocore(|_, values| {
            values[0] = 0xb0_3115;
            Some(4)
        });
        core.stale.set(Some(0x1230_0000 | CHANNEL));
        assert_eq!(Mailbox::new(&core).revision(), Ok(0xb0_3115));
    }

    #[test]
    fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
        let core = videocore(|tag, values| {
            values[0] = tag;
            Some(4)
        });
        let limit = ANSWER_LIMIT.as_micros() as u32; // a look costs a microsecond
        core.late.set(limit + limit / 5);
        assert_eq!(Mailbox::new(&core).revision(), Err(MailboxError::Silent));
        core.written.set(false); // what it wrote meanwhile is nobody's
        assert_eq!(Mailbox::new(&core).throttled(), Ok(0x0003_0046));
        core.late.set(limit * 4);
        assert_eq!(Mailbox::new(&core).revision(), Err(MailboxError::Silent));
        assert_eq!(
            Mailbox::new(&core).revision(),
            Err(MailboxError::Silent),
            "nothing new is asked while owed"
        );
    }

    #[test]
    fn the_expanders_answer_may_have_any_length() {
        for length in [0, 4, 8] {
            let core = videocore(move |_, values| {
                assert_eq!(values, [134, 1]);
                values[0] = 0;
                Some(length)
            });
            assert_eq!(Mailbox::new(&core).set_expander(ExpanderPin::SdPower, true), Ok(()));
        }
        // A pin that it does not have keeps its number.
        let core = videocore(|_, _| Some(8));
        let refused = Err(MailboxError::Refused { code: 134 });
        assert_eq!(Mailbox::new(&core).set_expander(ExpanderPin::SdPower, true), refused);
        let core = videocore(|_, _| None);
        assert!(Mailbox::new(&core).set_expander(ExpanderPin::SdPower, true).is_err());
    }

    #[test]
    fn set_clock_sends_three_words_and_power_waits() {
        let core = videocore(|tag, values| {
            assert_eq!((tag, &*values), (0x0003_8002, &[3, 1_500_000_000, 0][..]));
            Some(8)
        });
        assert_eq!(Mailbox::new(&core).set_clock(Clock::Arm, 1_500_000_000), Ok(1_500_000_000));
        let core = videocore(|_, values| {
            assert_eq!(values, [0, 3]);
            values[1] = 1;
            Some(8)
        });
        assert_eq!(Mailbox::new(&core).set_power(0, true), Ok(true));
    }

    #[test]
    fn videocore_sees_the_first_gib_only() {
        assert_eq!(bus_address(0x8_0000), Some(0xc008_0000));
        assert_eq!(bus_address(1 << 30), None);
    }
}
