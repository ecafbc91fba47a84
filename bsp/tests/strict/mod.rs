//! A strict model of an SDHCI 3.0 controller like EMMC2 with an SD card in it, in time of its own.
//!
//! It panics on what silicon would not forgive: writes closer together than two SD clocks (four while
//! the clock is 400 kHz or stands still), a clock under 200 kHz or over what the card is ready for, a
//! divisor changed under a running clock, a command without power, before 74 clocks, on busy lines, with
//! unacknowledged interrupts, or after an error without a reset of the lines, a wrong answer type, a
//! data port read without data, a signal level changed under a running clock, a clock back before the level has settled, a
//! timing that card and controller do not share. And the card gives wrong data for a wrong bus width or address.
//!
//! Memory is reached past the caches: the controller sees what was there when lines were last settled, and nobody sees what
//! it wrote before they are settled again. Lines that were not settled before it writes are dirty, and a fault.

#![allow(dead_code)] // each test program uses its part
#![allow(unsafe_code)] // the controller writes into the buffer that the driver was given

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use embodios_bsp::drivers::sdhci::{Bus, CardPower, Register, Unsupported};

const ACCESS: u64 = 100; // ns: a register access over the bus
const LOOK: u64 = 40; // ns: a look at the clock
const MS: u64 = 1_000_000;
const FIRST_DATA: u64 = 200_000; // ns: from a command to the first bit of its data
const STOP: u64 = 20_000; // ns: from the last block to the end of the transfer, CMD12 included

const COMMAND_DONE: u32 = 1;
const TRANSFER_DONE: u32 = 1 << 1;
const READABLE: u32 = 1 << 5;
const ERROR: u32 = 1 << 15;
const COMMAND_TIMEOUT: u32 = 1 << 16 | ERROR;
const COMMAND_CRC: u32 = 1 << 17 | ERROR;
const DATA_TIMEOUT: u32 = 1 << 20 | ERROR;
const DATA_CRC: u32 = 1 << 21 | ERROR;
const ADMA: u32 = 1 << 25 | ERROR;
const LINE: usize = 64;

/// What is in the socket, and how it behaves.
#[derive(Clone)]
pub struct CardKind {
    pub present: bool,
    /// Knows CMD8.
    pub modern: bool,
    /// Addressed by block, and has the second version of the CSD.
    pub high_capacity: bool,
    pub blocks: u64,
    /// How long ACMD41 answers "busy", ms of model time.
    pub busy_ms: u64,
    pub high_speed: bool,
    /// Garbles data over 25 MHz.
    pub poor_at_50: bool,
    /// Reads of the SCR that time out.
    pub scr_failures: u32,
    /// Left in 1.8 V signalling: silent until its supply is cut.
    pub stuck_at_1v8: bool,
    /// Has a password.
    pub locked: bool,
    /// Knows 1.8 V, and which functions of group 1 there.
    pub low_voltage: LowVoltage,
    /// Agrees to 1.8 V, but never lets its lines go.
    pub lines_stuck: bool,
    /// Garbles data on both edges of the clock.
    pub poor_at_ddr: bool,
    /// No sampling clock suits its data.
    pub untunable: bool,
}

/// What a card can do at 1.8 V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LowVoltage {
    Nothing,
    Sdr25,
    /// SDR50 and DDR50.
    Ddr50,
    /// And SDR104.
    Sdr104,
}

impl CardKind {
    pub fn sdhc() -> Self {
        Self {
            present: true,
            modern: true,
            high_capacity: true,
            blocks: 8 * 1024 * 1024,
            busy_ms: 30,
            high_speed: true,
            poor_at_50: false,
            scr_failures: 0,
            stuck_at_1v8: false,
            locked: false,
            low_voltage: LowVoltage::Nothing,
            lines_stuck: false,
            poor_at_ddr: false,
            untunable: false,
        }
    }
    /// One of today's: DDR50 at 1.8 V.
    pub fn uhs() -> Self {
        Self { low_voltage: LowVoltage::Ddr50, ..Self::sdhc() }
    }
    pub fn sdsc() -> Self {
        Self { high_capacity: false, blocks: 131_072, ..Self::sdhc() }
    }
    pub fn version1() -> Self {
        Self { modern: false, high_speed: false, ..Self::sdsc() }
    }
    pub fn none() -> Self {
        Self { present: false, ..Self::sdhc() }
    }
}

/// Faults to come.
#[derive(Default)]
pub struct Faults {
    /// Sector → how many times its data arrives with a wrong checksum.
    pub crc: HashMap<u64, u32>,
    /// Sector → how many times it takes for ever to arrive.
    pub silence: HashMap<u64, u32>,
    /// The card is pulled when this sector is due.
    pub pull_at: Option<u64>,
    /// The controller never says that its buffer is readable, nor that it timed out.
    pub deaf: bool,
    /// Sectors the card's own error correction gives up on.
    pub unreadable: Vec<u64>,
    /// The controller never gets out of reset.
    pub stuck_reset: bool,
    /// The controller's clock never settles.
    pub stuck_clock: bool,
    /// Garbled answers to come.
    pub garbled_answers: u32,
    /// The slot stays at 3.3 V whatever it is told, and the controller notices.
    pub no_1v8: bool,
    /// Transfers by ADMA2 to come that end with the controller's complaint.
    pub adma: u32,
}

/// SDR50, for [`Model::with_uhs`].
pub const SDR50: u32 = 1;
/// SDR104.
pub const SDR104: u32 = 1 << 1;
/// DDR50.
pub const DDR50: u32 = 1 << 2;
/// SDR50 has to be tuned, too.
pub const TUNE_SDR50: u32 = 1 << 13;

/// How the controller reaches memory by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not at all.
    None,
    /// By descriptors with 32-bit addresses.
    Low,
    /// Memory lies above 4 GiB, and the controller knows descriptors with 64-bit addresses.
    High,
    /// Memory lies above 4 GiB, and the controller knows no such descriptors.
    TooHigh,
}

/// Memory as the controller sees it.
struct Memory {
    reach: Reach,
    /// Pieces that were asked for: our addresses, and the controller's for the first byte.
    known: Vec<(std::ops::Range<usize>, u64)>,
    /// Lines that no cache holds, with what is in memory.
    settled: HashMap<usize, [u8; LINE]>,
    /// Lines that the controller wrote, until they are settled again.
    written: HashMap<usize, [u8; LINE]>,
}

impl Memory {
    fn ours(&self, bus: u64) -> Option<usize> {
        self.known.iter().find_map(|(range, first)| {
            let offset = bus.checked_sub(*first)? as usize;
            (offset < range.len()).then_some(range.start + offset)
        })
    }

    /// A word of the descriptor table.
    fn word(&self, bus: u64) -> u32 {
        let at = self.ours(bus).expect("a descriptor where there is memory");
        let line = self.settled.get(&(at & !(LINE - 1))).expect("a descriptor that left the caches");
        u32::from_le_bytes(line[at % LINE..][..4].try_into().unwrap())
    }

    /// What the controller writes.
    fn store(&mut self, at: usize, bytes: &[u8]) {
        for (line, bytes) in (at..).step_by(LINE).zip(bytes.chunks(LINE)) {
            assert!(line.is_multiple_of(LINE) && bytes.len() == LINE, "whole lines");
            assert!(self.settled.remove(&line).is_some(), "a line of the destination may be dirty");
            self.written.insert(line, bytes.try_into().unwrap());
        }
    }
}

/// A command as the card saw it: number, argument, blocks asked for (0 without data).
pub type Seen = (u8, u32, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Ready,
    Identification,
    Standby,
    Transfer,
    Data,
}

struct Sending {
    /// Where its bytes go by themselves: pieces of memory.
    pieces: Option<VecDeque<(usize, usize)>>,
    block_bytes: usize,
    left: u32,
    count: u32,
    source: Source,
    fifo: VecDeque<Vec<u8>>,
    /// Word of the front block that is read next; the block is announced.
    position: Option<usize>,
    arrives: Option<u64>,
    stopped: bool,
}

enum Source {
    Sector(u64),
    Bytes(Vec<u8>),
}

struct Inner {
    now: u64,
    kind: CardKind,
    disk: Option<Vec<u8>>,
    faults: Faults,
    seen: Vec<Seen>,
    supplies: Vec<(bool, u64)>,
    base_hz: u64,
    /// What of UHS-I the controller can do: SDHCI 2.2.26, the low bits of its high word.
    uhs: u32,
    /// Blocks that are still to come until the sampling clock is found.
    tuning: u32,
    tuned: bool,
    /// Signal level of the slot, and since when.
    level: (Level, u64),
    /// Level that the card takes part at.
    card_level: Level,
    /// The card holds its lines low for the change to 1.8 V: until the clock is back at it.
    changing: bool,
    /// Function of group 1 that the card is at.
    function: u8,
    /// The function that the card is at once the status of its choice has been sent.
    later: Option<u8>,
    /// The last ACMD41 was answered with the word for 1.8 V.
    agreed: bool,
    control2: u32,
    memory: Memory,
    /// Transfers that the controller brought to memory itself.
    direct: u32,
    // Controller.
    adma: [u32; 2],
    /// Where the data of the command that is being sent go by themselves.
    pieces: Option<VecDeque<(usize, usize)>>,
    block: u32,
    argument: u32,
    response: [u32; 4],
    control: u32,
    clock: u32,
    stable_at: u64,
    hz: u64,
    clock_since: u64,
    status: u32,
    enable: u32,
    signal: u32,
    last_write: Option<u64>,
    resetting: Option<(u64, u32)>,
    reset_needed: u32,
    command_busy: bool,
    data_busy: bool,
    events: Vec<(u64, u32)>,
    sending: Option<Sending>,
    // Card.
    state: State,
    application: bool,
    illegal: bool,
    first_41: Option<u64>,
    four_bits: bool,
    fast: bool,
    block_length_set: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    V33,
    V18,
}

/// The model; clones are the same device.
#[derive(Clone)]
pub struct Model(Rc<RefCell<Inner>>);

/// The content of a sector: no two alike, no two words alike.
pub fn content(sector: u64) -> Vec<u8> {
    (0..128u64)
        .flat_map(|word| {
            let x = (sector * 128 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((x >> 29) as u32).to_le_bytes()
        })
        .collect()
}

impl Model {
    pub fn new(kind: CardKind) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            now: 5_000,
            kind,
            disk: None,
            faults: Faults::default(),
            seen: Vec::new(),
            supplies: Vec::new(),
            base_hz: 100_000_000,
            uhs: 0,
            tuning: 0,
            tuned: false,
            level: (Level::V33, 0),
            card_level: Level::V33,
            changing: false,
            function: 0,
            later: None,
            agreed: false,
            control2: 0,
            memory: Memory {
                reach: Reach::None,
                known: Vec::new(),
                settled: HashMap::new(),
                written: HashMap::new(),
            },
            direct: 0,
            adma: [0; 2],
            pieces: None,
            block: 0,
            argument: 0,
            response: [0; 4],
            control: 0,
            clock: 0,
            stable_at: 0,
            hz: 0,
            clock_since: 0,
            status: 0,
            enable: 0,
            signal: 0,
            last_write: None,
            resetting: None,
            reset_needed: 0,
            command_busy: false,
            data_busy: false,
            events: Vec::new(),
            sending: None,
            state: State::Idle,
            application: false,
            illegal: false,
            first_41: None,
            four_bits: false,
            fast: false,
            block_length_set: false,
        })))
    }

    /// An SDHC card with these bytes on it, and zeroes behind them.
    pub fn with_disk(disk: Vec<u8>) -> Self {
        let blocks = (disk.len() as u64 / 512).next_multiple_of(1024);
        let model = Self::new(CardKind { blocks, ..CardKind::sdhc() });
        model.0.borrow_mut().disk = Some(disk);
        model
    }

    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        change(&mut self.0.borrow_mut().faults)
    }
    /// A controller that can do this of UHS-I, see [`SDR50`] and its kin.
    pub fn with_uhs(self, able: u32) -> Self {
        self.0.borrow_mut().uhs = able;
        self
    }
    /// Lets the controller reach memory.
    pub fn with_reach(self, reach: Reach) -> Self {
        self.0.borrow_mut().memory.reach = reach;
        self
    }
    /// Transfers by ADMA2 since the last call.
    pub fn take_direct(&self) -> u32 {
        std::mem::take(&mut self.0.borrow_mut().direct)
    }
    pub fn set_base(&self, hz: u64) {
        self.0.borrow_mut().base_hz = hz;
    }
    /// Commands since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.borrow_mut().seen)
    }
    /// Model time, ms; see [`Model::nanos`].
    pub fn millis(&self) -> u64 {
        self.0.borrow().now / MS
    }
    /// Model time, ns.
    pub fn nanos(&self) -> u64 {
        self.0.borrow().now
    }
    /// Whoever drives the controller does something else for so long.
    pub fn work(&self, nanos: u64) {
        let mut inner = self.0.borrow_mut();
        inner.now += nanos;
        inner.tick();
    }
    /// The SD clock as the card gets it, Hz.
    pub fn clock_hz(&self) -> u64 {
        self.0.borrow().hz
    }
    /// Supply switched, and when (ms).
    pub fn supplies(&self) -> Vec<(bool, u64)> {
        self.0.borrow().supplies.clone()
    }
    /// Whether slot and card signal at 3.3 V, and the card has heard nothing since its supply came: as on a board that is
    /// switched on.
    pub fn is_as_new(&self) -> bool {
        let inner = self.0.borrow();
        let levels = (inner.level.0, inner.card_level, inner.kind.stuck_at_1v8);
        let supplied = inner.supplies.last().is_none_or(|(on, _)| *on);
        levels == (Level::V33, Level::V33, false) && inner.state == State::Idle && inner.hz == 0 && supplied
    }
    /// Puts another card in.
    pub fn insert(&self, kind: CardKind) {
        let mut inner = self.0.borrow_mut();
        inner.kind = kind;
        inner.power_lost();
    }
}

/// The socket's switches, as the Pi 4's firmware offers them.
pub struct Switches(pub Model);

impl CardPower for Switches {
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        self.0.0.borrow_mut().set_level(Level::V33);
        Ok(())
    }
    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        self.0.0.borrow_mut().set_level(Level::V18);
        Ok(())
    }
    fn supply(&mut self, on: bool) -> Result<(), Unsupported> {
        let mut inner = self.0.0.borrow_mut();
        let now = inner.now;
        if on {
            let &(was_on, off_at) = inner.supplies.last().expect("switched on before off");
            assert!(!was_on && now / MS - off_at >= 10, "the supply was off for too short a time");
        } else {
            assert_eq!(inner.hz, 0, "the supply was cut under a running clock");
            inner.power_lost();
            inner.kind.stuck_at_1v8 = false;
        }
        inner.supplies.push((on, now / MS));
        Ok(())
    }
}

impl Bus for Model {
    fn read(&mut self, register: Register) -> u32 {
        let mut inner = self.0.borrow_mut();
        inner.now += ACCESS;
        inner.tick();
        inner.read(register)
    }
    fn write(&mut self, register: Register, value: u32) {
        let mut inner = self.0.borrow_mut();
        inner.tick();
        inner.write(register, value);
        inner.now += ACCESS;
        inner.tick();
    }
    fn micros(&mut self) -> u64 {
        let mut inner = self.0.borrow_mut();
        inner.now += LOOK;
        inner.now / 1000
    }
    fn reach(&mut self, range: std::ops::Range<usize>) -> Option<u64> {
        let memory = &mut self.0.borrow_mut().memory;
        let base = match memory.reach {
            Reach::None => return None,
            Reach::Low => 0xc000_0000,
            Reach::High | Reach::TooHigh => 0x1_0000_0000,
        };
        if let Some((_, first)) = memory.known.iter().find(|(known, _)| *known == range) {
            return Some(*first);
        }
        // No two pieces of memory follow each other for the controller: a descriptor too long leads nowhere.
        let end = memory.known.iter().map(|(range, first)| first + range.len() as u64).max().unwrap_or(base);
        let first = (end + 0x10_0000).next_multiple_of(LINE as u64) + range.start as u64 % LINE as u64;
        memory.known.push((range, first));
        Some(first)
    }
    fn settle(&mut self, range: std::ops::Range<usize>) {
        let inner = &mut *self.0.borrow_mut();
        assert!(range.start.is_multiple_of(LINE) && range.end.is_multiple_of(LINE), "whole lines");
        for line in range.step_by(LINE) {
            let bytes = line as *mut [u8; LINE];
            // SAFETY: the driver's own table, or the buffer that it was given to fill.
            unsafe {
                if let Some(written) = inner.memory.written.remove(&line) {
                    bytes.write(written);
                }
                inner.memory.settled.insert(line, bytes.read());
            }
        }
    }
}

impl Inner {
    fn clocks(&self, count: u64) -> u64 {
        count * 1_000_000_000 / self.hz.max(1)
    }

    /// Whether data arrive garbled.
    fn poor(&self) -> bool {
        let tuned = self.function == 3 || self.function == 2 && self.uhs & TUNE_SDR50 != 0;
        self.kind.poor_at_50 && self.hz > 25_000_000
            || self.kind.poor_at_ddr && self.function == 4
            || tuned && !self.tuned
    }

    fn set_level(&mut self, level: Level) {
        if level != self.level.0 {
            assert_eq!(self.hz, 0, "the signal level changed under a running clock");
            self.level = (level, self.now);
        }
    }

    /// The card's supply is gone: the one thing that brings it back to 3.3 V.
    fn power_lost(&mut self) {
        (self.card_level, self.changing) = (Level::V33, false);
        self.forget();
    }

    /// What CMD0 makes the card forget.
    fn forget(&mut self) {
        (self.function, self.later) = (0, None);
        self.state = State::Idle;
        (self.application, self.illegal, self.first_41) = (false, false, None);
        (self.four_bits, self.fast, self.block_length_set) = (false, false, false);
        self.sending = None;
    }

    fn raise(&mut self, bits: u32) {
        self.status |= bits & (self.enable | ERROR);
        if bits & 0x000f_0000 != 0 {
            self.reset_needed |= 1 << 25;
            self.command_busy = false;
        }
        if bits & 0x02f0_0000 != 0 {
            self.reset_needed |= 1 << 26;
        }
        if bits & COMMAND_DONE != 0 {
            self.command_busy = false;
        }
        if bits & TRANSFER_DONE != 0 {
            self.data_busy = false;
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        if let Some((end, bits)) = self.resetting
            && now >= end
            && !self.faults.stuck_reset
        {
            self.clock &= !bits;
            self.resetting = None;
        }
        while let Some(at) = self.events.iter().position(|(at, _)| *at <= now) {
            let (_, bits) = self.events.remove(at);
            self.raise(bits);
        }
        self.send();
    }

    /// Moves the running transfer on.
    fn send(&mut self) {
        let now = self.now;
        let Some(mut sending) = self.sending.take() else { return };
        while let Some(at) = sending.arrives
            && at <= now
            && sending.fifo.len() < 2
            && !sending.stopped
        {
            let block = match &sending.source {
                Source::Bytes(bytes) => bytes.clone(),
                Source::Sector(first) => {
                    let sector = first + u64::from(sending.count - sending.left);
                    if self.faults.pull_at == Some(sector) {
                        self.kind.present = false;
                        self.power_lost();
                        self.events.push((now + 100 * MS, DATA_TIMEOUT));
                        return;
                    }
                    let poor = self.poor();
                    if take(&mut self.faults.crc, sector) || poor {
                        sending.stopped = true;
                        self.raise(DATA_CRC);
                        break;
                    }
                    if take(&mut self.faults.silence, sector) {
                        sending.stopped = true;
                        self.events.push((now + 300 * MS, DATA_TIMEOUT));
                        break;
                    }
                    if sector >= self.kind.blocks {
                        sending.stopped = true; // nothing comes, and nobody says so
                        break;
                    }
                    match &self.disk {
                        Some(disk) => {
                            disk.chunks_exact(512).nth(sector as usize).map_or(vec![0; 512], Vec::from)
                        }
                        None => content(sector),
                    }
                }
            };
            let poor = self.poor();
            if matches!(sending.source, Source::Bytes(_)) && poor {
                sending.stopped = true;
                self.raise(DATA_CRC);
                break;
            }
            let lines = if self.four_bits { 4 } else { 1 } * if self.function == 4 { 2 } else { 1 };
            let bits = block.len() as u64 * 8 / lines + 20;
            if let Some(pieces) = &mut sending.pieces {
                let (at, left) = pieces.front_mut().expect("a descriptor for each block");
                assert!(*left >= block.len(), "pieces of whole blocks");
                self.memory.store(*at, &block);
                (*at, *left) = (*at + block.len(), *left - block.len());
                if *left == 0 {
                    pieces.pop_front();
                }
            } else {
                sending.fifo.push_back(block);
            }
            sending.left -= 1;
            sending.arrives = (sending.left > 0).then(|| now.max(at) + self.clocks(bits));
        }
        if sending.position.is_none() && !sending.fifo.is_empty() && !self.faults.deaf {
            sending.position = Some(0);
            self.raise(READABLE);
        }
        if sending.left == 0 && sending.fifo.is_empty() && !sending.stopped {
            assert!(
                sending.pieces.is_none_or(|pieces| pieces.is_empty()),
                "descriptors for more than there is"
            );
            self.events.push((now + STOP.max(self.clocks(200)), TRANSFER_DONE));
            self.function = self.later.take().unwrap_or(self.function);
            self.state = State::Transfer;
            return;
        }
        self.sending = Some(sending);
    }

    fn read(&mut self, register: Register) -> u32 {
        match register {
            Register::Block => self.block,
            Register::Argument => self.argument,
            Register::Transfer => 0,
            Register::Response0 => self.response[0],
            Register::Response1 => self.response[1],
            Register::Response2 => self.response[2],
            Register::Response3 => self.response[3],
            Register::Data => self.word(),
            Register::Present => {
                let readable = self.sending.as_ref().is_some_and(|sending| sending.position.is_some());
                u32::from(self.command_busy)
                    | u32::from(self.data_busy) << 1
                    | u32::from(readable) << 11
                    | u32::from(self.kind.present) << 16
                    | if self.changing { 0 } else { u32::from(!self.data_busy) << 20 | 7 << 21 }
            }
            Register::Control => self.control,
            Register::Clock => {
                let stable = self.clock & 1 != 0 && self.now >= self.stable_at && !self.faults.stuck_clock;
                self.clock & !2 | u32::from(stable) << 1
            }
            Register::Status => self.status,
            Register::StatusEnable => self.enable,
            Register::SignalEnable => self.signal,
            Register::Control2 => {
                let lost = self.faults.no_1v8 && self.control2 & 1 << 19 != 0;
                self.control2 & if lost { !(1 << 19) } else { u32::MAX }
            }
            Register::CapabilitiesHigh => self.uhs,
            Register::Capabilities => {
                let adma2 = u32::from(self.memory.reach != Reach::None) << 19;
                let wide = u32::from(self.memory.reach == Reach::High) << 28;
                wide | adma2 | 1 << 21 | ((self.base_hz / 1_000_000) as u32) << 8
            }
            Register::AdmaLow => self.adma[0],
            Register::AdmaHigh => self.adma[1],
            Register::Version => 0x1002_0000,
        }
    }

    fn word(&mut self) -> u32 {
        let sending = self.sending.as_mut().expect("data port read with no transfer");
        let position = sending.position.expect("data port read with no block announced");
        assert_eq!(self.status & READABLE, 0, "data port read before the announcement was acknowledged");
        let block = sending.fifo.front().expect("an announced block");
        let word = u32::from_le_bytes(block[position * 4..position * 4 + 4].try_into().unwrap());
        if position * 4 + 4 == block.len() {
            sending.fifo.pop_front();
            sending.position = None;
        } else {
            sending.position = Some(position + 1);
        }
        word
    }

    fn write(&mut self, register: Register, value: u32) {
        assert!(self.resetting.is_none(), "{register:?} written during reset");
        if let Some(last) = self.last_write
            && register != Register::Data
        {
            let apart = match self.hz {
                0 => 10_000,
                hz @ 1..=400_000 => 4_000_000_000 / hz,
                hz => 2_000_000_000 / hz,
            };
            let gap = self.now - last;
            assert!(gap >= apart, "{register:?} written {gap} ns after another write at {} Hz", self.hz);
        }
        self.last_write = Some(self.now);
        match register {
            Register::Block => {
                assert!(self.sending.is_none(), "block size written during a transfer");
                assert!(value >> 16 != 0 && matches!(value & 0xfff, 1..=512) && value & 0xf000 == 0);
                self.block = value;
            }
            Register::Argument => {
                assert!(!self.command_busy);
                self.argument = value;
            }
            Register::Transfer => self.command(value),
            Register::Control => {
                assert!(self.sending.is_none(), "bus changed during a transfer");
                if value & 1 << 8 != 0 {
                    assert_eq!(value >> 9 & 7, 7, "3.3 V only");
                } // the card's supply is a switch of the slot
                self.control = value;
            }
            Register::Clock => self.set_clock(value),
            Register::Status => self.status &= !value,
            Register::StatusEnable => self.enable = value,
            Register::SignalEnable => {
                assert_eq!(value, 0, "nobody handles the interrupt");
                self.signal = value;
            }
            Register::Control2 => {
                const TUNE: u32 = 3 << 22;
                assert!(
                    self.hz == 0 || (value ^ self.control2) & !TUNE == 0,
                    "the timing changed under a running clock"
                );
                assert_eq!(value & !(0x000f_0000 | TUNE), 0, "what nobody needs");
                if value & 1 << 22 != 0 && self.control2 & 1 << 22 == 0 {
                    assert_eq!(value & 1 << 23, 0, "tuning from scratch");
                    self.tuning = 20;
                }
                self.tuned &= value & 1 << 23 != 0;
                let low = value & 1 << 19 != 0;
                assert!(low || value == 0, "a timing of 1.8 V without it");
                assert_eq!(
                    low,
                    self.level.0 == Level::V18,
                    "what the controller and the slot take for the level"
                );
                self.control2 = value;
            }
            Register::AdmaLow | Register::AdmaHigh => {
                assert!(self.sending.is_none(), "the table's address changed during a transfer");
                self.adma[usize::from(register == Register::AdmaHigh)] = value;
            }
            other => panic!("{other:?} is read-only, or this driver does not write"),
        }
    }

    fn set_clock(&mut self, value: u32) {
        let resets = value & 0x0700_0000;
        if resets != 0 {
            assert_eq!(resets & 1 << 24 != 0, resets == 1 << 24);
            self.resetting = Some((self.now + 2_000, resets));
            self.reset_needed &= !resets;
            self.command_busy &= resets & 1 << 25 == 0;
            if resets & 1 << 26 != 0 {
                self.data_busy = false;
                self.sending = None;
                self.status &= !(READABLE | TRANSFER_DONE);
            }
            self.events.clear();
            self.clock |= resets;
            if resets & 1 << 24 != 0 {
                (self.control, self.enable, self.status, self.block) = (0, 0, 0, 0);
                (self.hz, self.clock, self.reset_needed) = (0, resets, 0);
                (self.command_busy, self.data_busy, self.sending) = (false, false, None);
            }
            return;
        }
        let divisor = |word: u32| word >> 8 & 0xff | (word >> 6 & 3) << 8;
        let running = self.hz != 0;
        if running {
            assert!(!self.command_busy && self.sending.is_none(), "clock changed during a transfer");
            assert!(
                value & 4 == 0 || divisor(value) == divisor(self.clock),
                "divisor changed under a running clock"
            );
        }
        if value & 1 != 0 && (self.clock & 1 == 0 || divisor(value) != divisor(self.clock)) {
            self.stable_at = self.now + 60_000;
        }
        if value & 4 == 0 {
            self.hz = 0;
        } else if !running {
            assert!(value & 1 != 0 && self.now >= self.stable_at && self.clock & 1 != 0, "clock not stable");
            let hz = match divisor(value) {
                0 => self.base_hz,
                n => self.base_hz / (2 * u64::from(n)),
            };
            let most = match self.state {
                State::Transfer | State::Data if self.function == 3 => 208_000_000,
                State::Transfer | State::Data if self.function == 2 => 100_000_000,
                State::Transfer | State::Data if self.fast => 50_000_000,
                State::Transfer | State::Data => 25_000_000,
                _ => 400_000,
            };
            assert!((200_000..=most).contains(&hz), "{hz} Hz, at most {most} in {:?}", self.state);
            let timed = if self.control2 & 1 << 19 != 0 {
                self.control2 >> 16 & 7 != 0
            } else {
                self.control & 4 != 0
            };
            assert!(hz <= 25_000_000 || timed, "high speed without its timing");
            if self.changing {
                assert_eq!(self.level.0, Level::V18, "the clock is back at the old level");
                assert!(self.now - self.level.1 >= 5 * MS, "the clock is back before the level has settled");
                assert_ne!(self.control2 & 1 << 19, 0, "the controller does not know of 1.8 V");
                (self.changing, self.card_level) = (self.kind.lines_stuck, Level::V18);
            }
            let patience = 1u64 << (13 + (value >> 16 & 0xf));
            assert!(patience * 10 >= self.base_hz, "the controller gives up before a card has to answer");
            self.tuned &= self.hz == hz;
            self.hz = hz;
            self.clock_since = self.now;
        }
        self.clock = value;
    }

    fn command(&mut self, word: u32) {
        let (index, data) = ((word >> 24 & 0x3f) as u8, word >> 21 & 1 != 0);
        let application = std::mem::take(&mut self.application);
        let name = format!("{}CMD{index}", if application { "A" } else { "" });
        assert!(self.control & 1 << 8 != 0, "{name} without power");
        assert!(self.hz != 0, "{name} without a clock");
        assert!(self.now - self.clock_since >= self.clocks(74) || index != 0, "{name} before 74 clocks");
        assert!(!self.changing, "{name} while the card waits for 1.8 V");
        if index == 0 {
            self.forget(); // or the card does not hear it, and nothing that follows
        }
        if self.kind.present && self.state != State::Idle {
            assert_eq!(self.level.0, self.card_level, "{name}: signal level of slot and card");
        }
        assert!(!self.command_busy, "{name} while the command line is busy");
        assert_eq!(self.status, 0, "{name} with unacknowledged interrupts");
        assert_eq!(self.reset_needed, 0, "{name} after an error, without a reset of the lines");
        assert_eq!(self.enable & 0x03ff_0033, 0x03ff_0033, "{name} with status bits masked");
        let kind = word >> 22 & 3;
        assert_eq!(kind, if index == 12 { 3 } else { 0 }, "{name} of the wrong type");
        // Answer type, checksum check, index check: SDHCI table 2-12.
        let answer = (word >> 16 & 3, word >> 19 & 1, word >> 20 & 1);
        let expected = match (application, index) {
            (_, 0) => (0, 0, 0),
            (true, 41) => (2, 0, 0),
            (_, 2 | 9) => (1, 1, 0),
            (_, 7 | 12) => (3, 1, 1),
            _ => (2, 1, 1),
        };
        assert_eq!(answer, expected, "{name} expects the wrong answer");
        if data || answer.0 == 3 && index != 12 {
            assert!(!self.data_busy, "{name} while the data lines are busy");
        }
        let reads = matches!((application, index), (false, 6 | 17 | 18 | 19) | (true, 51));
        assert_eq!(data, reads, "{name}: data present");
        let count = if data { self.block >> 16 } else { 0 };
        if data {
            assert_eq!(word & 0x10, 0x10, "{name} has the wrong direction");
            self.pieces =
                (word & 1 != 0).then(|| self.descriptors(count as usize * (self.block & 0xfff) as usize));
            let multiple = index == 18;
            assert_eq!(word & 0x2e, if multiple { 0x26 } else { 0 }, "{name}: transfer mode");
            assert!(multiple || count == 1, "{name} of {count} blocks");
            let four_bits = self.control >> 1 & 1 != 0;
            assert!(
                !self.kind.present || four_bits == self.four_bits,
                "{name}: host and card disagree on the width"
            );
            let mode = (self.control2 >> 16 & 7) as u8;
            let low = self.card_level == Level::V18;
            assert!(
                !self.kind.present || !low || mode == self.function,
                "{name}: timing of controller and card"
            );
            if index == 19 {
                assert!(low && self.tuning > 0, "{name} without tuning");
                assert!(self.control2 & 1 << 22 != 0 && self.block & 0xfff == 64);
                self.tuning -= 1;
                if self.tuning == 0 {
                    self.tuned = !self.kind.untunable;
                    self.control2 = self.control2 & !(1 << 22) | u32::from(self.tuned) << 23;
                }
                self.pieces = None;
                self.events.push((self.now + self.clocks(300), READABLE));
                return;
            }
            self.data_busy = true;
        }
        self.seen.push((index, self.argument, count));
        self.command_busy = true;
        if answer.0 == 0 {
            self.events.push((self.now + self.clocks(60), COMMAND_DONE));
        }
        let known = self.kind.present && !self.kind.stuck_at_1v8 && self.level.0 == self.card_level;
        let reply = if known { self.card(index, application) } else { None };
        if answer.0 == 0 {
            return;
        }
        if self.faults.garbled_answers > 0 && index == 13 {
            self.faults.garbled_answers -= 1;
            self.events.push((self.now + self.clocks(60), COMMAND_CRC | COMMAND_DONE));
            return;
        }
        match reply {
            None => {
                self.sending = if index == 12 { self.sending.take() } else { None };
                self.events.push((self.now + self.clocks(112), COMMAND_TIMEOUT | COMMAND_DONE));
            }
            Some(response) => {
                self.response = response;
                self.events.push((self.now + self.clocks(120), COMMAND_DONE));
                if answer.0 == 3 {
                    self.data_busy = true;
                    self.events.push((self.now + self.clocks(180), TRANSFER_DONE));
                }
            }
        }
    }

    /// The pieces of memory that the table says, which are for so many bytes.
    fn descriptors(&mut self, bytes: usize) -> VecDeque<(usize, usize)> {
        self.direct += 1;
        let wide = match self.control >> 3 & 3 {
            2 => false,
            3 => true,
            other => panic!("DMA of kind {other}"),
        };
        assert!(!wide || self.memory.reach == Reach::High, "64-bit descriptors");
        let mut at = u64::from(self.adma[0]) | if wide { u64::from(self.adma[1]) << 32 } else { 0 };
        assert!(at.is_multiple_of(if wide { 8 } else { 4 }), "the table's alignment");
        let mut pieces = VecDeque::new();
        loop {
            let (head, low) = (self.memory.word(at), self.memory.word(at + 4));
            let high = if wide { self.memory.word(at + 8) } else { 0 };
            at += if wide { 12 } else { 8 };
            assert_eq!(head & 0x31, 0x21, "a valid descriptor that moves data");
            assert_eq!(head & 0xffcc, 0, "reserved bits, and no interrupt");
            let length = match head >> 16 {
                0 => 65_536,
                length => length as usize,
            };
            let bus = u64::from(high) << 32 | u64::from(low);
            assert!(bus.is_multiple_of(if wide { 8 } else { 4 }), "the alignment of data");
            pieces.push_back((self.memory.ours(bus).expect("memory at a descriptor's address"), length));
            if head & 2 != 0 {
                break;
            }
        }
        assert_eq!(
            pieces.iter().map(|piece| piece.1).sum::<usize>(),
            bytes,
            "descriptors for the whole transfer"
        );
        pieces
    }

    fn status_word(&mut self) -> u32 {
        let state = match self.state {
            State::Idle => 0,
            State::Ready => 1,
            State::Identification => 2,
            State::Standby => 3,
            State::Transfer => 4,
            State::Data => 5,
        };
        let illegal = std::mem::take(&mut self.illegal);
        let locked = self.kind.locked && matches!(self.state, State::Standby | State::Transfer);
        state << 9 | 1 << 8 | u32::from(illegal) << 22 | u32::from(locked) << 25
    }

    /// What the card makes of a command; nothing if it does not know it.
    fn card(&mut self, index: u8, application: bool) -> Option<[u32; 4]> {
        const RCA: u32 = 0xb368;
        let argument = self.argument;
        let mut status = self.status_word();
        let short = |word: u32| Some([word, 0, 0, 0]);
        let addressed = argument >> 16 == RCA;
        match (application, index, self.state) {
            (_, 0, _) => short(0),
            (_, 8, State::Idle) if self.kind.modern => short(argument & 0xfff),
            (_, 55, State::Idle) => {
                self.application = true;
                short(status | 1 << 5)
            }
            (_, 55, State::Standby | State::Transfer) => {
                assert!(addressed, "CMD55 with a wrong address");
                self.application = true;
                short(status | 1 << 5)
            }
            (true, 41, State::Idle) => {
                assert_eq!(argument & 0x00ff_8000, 0x00ff_8000, "the voltage window");
                assert!(self.kind.modern || argument >> 30 & 1 == 0, "HCS offered to an old card");
                assert!(
                    argument >> 24 & 1 == 0 || self.uhs & 7 != 0,
                    "1.8 V offered by a controller that has nothing to do there"
                );
                let first = *self.first_41.get_or_insert(self.now);
                let ready = self.now - first >= self.kind.busy_ms * MS
                    && (!self.kind.high_capacity || argument >> 30 & 1 != 0);
                if ready {
                    self.state = State::Ready;
                }
                let capacity = u32::from(self.kind.high_capacity && ready);
                let low = argument >> 24 & 1 != 0 && self.kind.low_voltage != LowVoltage::Nothing && ready;
                self.agreed = low;
                short(0x00ff_8000 | u32::from(ready) << 31 | capacity << 30 | u32::from(low) << 24)
            }
            (_, 11, State::Ready) if self.agreed => {
                self.changing = true;
                short(status)
            }
            (_, 2, State::Ready) => {
                self.state = State::Identification;
                Some([0x1234_5678, 2, 3, 0x0003_5344])
            }
            (_, 3, State::Identification) => {
                self.state = State::Standby;
                short(RCA << 16 | 0x500)
            }
            (_, 9, State::Standby) if addressed => {
                let csd: u128 = if self.kind.high_capacity {
                    1 << 126 | u128::from(self.kind.blocks / 1024 - 1) << 48
                } else {
                    // 1024-byte read blocks, multiplier 512.
                    10 << 80 | u128::from(self.kind.blocks / 1024 - 1) << 62 | 7 << 47
                };
                let kept = csd >> 8;
                Some([kept as u32, (kept >> 32) as u32, (kept >> 64) as u32, (kept >> 96) as u32])
            }
            (_, 7, State::Standby) if addressed => {
                self.state = State::Transfer;
                short(status)
            }
            (_, 13, State::Standby | State::Transfer | State::Data) if addressed => short(status),
            (_, 12, State::Data) => {
                self.state = State::Transfer;
                self.sending = None;
                short(status)
            }
            (false, 16, State::Transfer) => {
                assert_eq!(argument, 512);
                self.block_length_set = true;
                short(status)
            }
            (true, 6, State::Transfer) => {
                assert_eq!(argument, 2);
                self.four_bits = true;
                short(status)
            }
            (true, 51, State::Transfer) => {
                if self.kind.scr_failures > 0 {
                    self.kind.scr_failures -= 1;
                    self.start(8, Source::Bytes(Vec::new()));
                    self.sending.as_mut().unwrap().stopped = true;
                    self.events.push((self.now + 200 * MS, DATA_TIMEOUT));
                } else {
                    let version = if self.kind.modern { 2 } else { 0 };
                    self.start(8, Source::Bytes(vec![version, 0x05, 0, 0, 0, 0, 0, 0]));
                }
                short(status)
            }
            (false, 6, State::Transfer) if self.kind.modern => {
                let mut report = vec![0; 64];
                let low =
                    if self.card_level == Level::V18 { self.kind.low_voltage } else { LowVoltage::Nothing };
                let when = |able: bool, bits: u8| if able { bits } else { 0 };
                report[13] = when(true, 0b1)
                    | when(self.kind.high_speed || low >= LowVoltage::Sdr25, 0b10)
                    | when(low >= LowVoltage::Ddr50, 0b1_0100)
                    | when(low == LowVoltage::Sdr104, 0b1000);
                let wanted = (argument & 0xf) as u8;
                assert_eq!(argument & 0x7fff_fff0, 0x00ff_fff0, "other groups stay");
                let able = report[13] >> wanted & 1 != 0;
                report[16] = if able { wanted } else { 0xf };
                if argument >> 31 != 0 && able {
                    (self.fast, self.later) = (true, Some(wanted));
                }
                self.start(64, Source::Bytes(report));
                short(status)
            }
            (false, 17 | 18, State::Transfer) => {
                let sector = if self.kind.high_capacity {
                    u64::from(argument)
                } else {
                    assert!(self.block_length_set && argument.is_multiple_of(512), "byte address {argument}");
                    u64::from(argument / 512)
                };
                if sector >= self.kind.blocks {
                    status |= 1 << 31;
                } else if self.faults.unreadable.contains(&sector) {
                    status |= 1 << 21;
                }
                self.start(512, Source::Sector(sector));
                short(status)
            }
            _ => {
                self.illegal = true;
                None
            }
        }
    }

    fn start(&mut self, bytes: usize, source: Source) {
        assert_eq!(self.block & 0xfff, bytes as u32, "block size");
        let count = self.block >> 16;
        let bits = bytes as u64 * 8 / if self.four_bits { 4 } else { 1 };
        let arrives = Some(self.now + FIRST_DATA + self.clocks(120 + bits));
        self.state = State::Data;
        let pieces = self.pieces.take();
        let stopped = pieces.is_some() && self.faults.adma > 0;
        if stopped {
            self.faults.adma -= 1;
            self.events.push((self.now + self.clocks(200), ADMA));
        }
        self.sending = Some(Sending {
            pieces,
            block_bytes: bytes,
            left: count,
            count,
            source,
            fifo: VecDeque::new(),
            position: None,
            arrives,
            stopped,
        });
    }
}

fn take(faults: &mut HashMap<u64, u32>, sector: u64) -> bool {
    match faults.get_mut(&sector) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}
