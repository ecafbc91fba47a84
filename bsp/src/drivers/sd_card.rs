//! The SD card protocol over any host controller: which card is it, and what is in block N.
//!
//! Identification at 400 kHz and 3.3 V, then four data lines and, where the card can, the 50 MHz high-speed mode; where the
//! slot can be switched to 1.8 V, too, what UHS-I has of more: 208 MHz (SDR104, 100 MB/s), or 50 MHz on both edges (DDR50,
//! 50 MB/s), or 100 MHz (SDR50). A card that fails at one is started again with the next. Blocks are 512 bytes on every
//! card; standard-capacity cards (up to 2 GB) are addressed in bytes, all later ones in blocks. Cards are only read:
//! writing adds CMD24 and CMD25 beside CMD17 and CMD18, and changes nothing that is here.
//!
//! Source: SD Specifications Part 1, Physical Layer Simplified Specification 9.00 ("SD" below).

use core::fmt;

use super::BlockDevice;
use super::sdhci::CardPower;

mod host;

pub use host::{Command, Host, HostError, Reply, Response, Stage, Timing, Width};

/// Bytes in a block.
pub const BLOCK: usize = 512;

/// Why a card cannot be used, or a block not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardError {
    /// Nothing in the socket answers.
    NoCard,
    /// The card answered but could not be started.
    Start(HostError),
    /// The card did not leave its busy state within the second it has.
    NotReady,
    /// The card does not work at 3.3 V.
    Voltage,
    /// The card is locked with a password.
    Locked,
    /// A card over 2 TB, or with a data structure this driver does not know.
    UnknownKind,
    /// The card refused a command of the start-up.
    Refused {
        /// CMD number.
        command: u8,
        /// Card status register.
        status: u32,
    },
    /// A block could not be read, after retries.
    Read {
        /// First block that is missing.
        sector: u64,
        /// What happened at the last try.
        cause: HostError,
    },
    /// The card itself reports that it cannot read a block.
    Unreadable {
        /// First block of the refused read.
        sector: u64,
        /// Card status register.
        status: u32,
    },
    /// The card no longer answers.
    Removed {
        /// First block that is missing.
        sector: u64,
    },
    /// Beyond the last block.
    BeyondEnd {
        /// Block asked for.
        sector: u64,
        /// Blocks there are.
        blocks: u64,
    },
    /// Something tried to write.
    ReadOnly {
        /// Block it was meant for.
        sector: u64,
    },
    /// The buffer is not a whole number of blocks.
    NotWholeBlocks {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoCard => f.write_str("no SD card answers: insert one, contacts down, and try again"),
            Self::Start(cause) => write!(f, "the SD card could not be started: {cause}"),
            Self::NotReady => f.write_str("the SD card did not become ready within a second: try another"),
            Self::Voltage => f.write_str("the SD card does not work at 3.3 V: try another"),
            Self::Locked => f.write_str("the SD card is locked with a password: unlock it on a PC first"),
            Self::UnknownKind => f.write_str("this kind of SD card is not supported: use one of up to 2 TB"),
            Self::Refused { command, status } => {
                write!(f, "the SD card refused CMD{command} (status {status:#010x})")
            }
            Self::Read { sector, cause } => write!(f, "SD card sector {sector} could not be read: {cause}"),
            Self::Unreadable { sector, status } => write!(
                f,
                "the SD card cannot read its sector {sector} (status {status:#010x}): copy what is left \
                 and replace the card"
            ),
            Self::Removed { sector } => {
                write!(f, "the SD card no longer answers (at sector {sector}): was it taken out?")
            }
            Self::BeyondEnd { sector, blocks } => {
                write!(f, "sector {sector} is beyond the end of the card, which has {blocks}")
            }
            Self::ReadOnly { sector } => write!(f, "sector {sector} was not written: cards are only read"),
            Self::NotWholeBlocks { bytes } => {
                write!(f, "{bytes} bytes are not a whole number of {BLOCK}-byte blocks")
            }
        }
    }
}

impl core::error::Error for CardError {}

impl From<HostError> for CardError {
    fn from(cause: HostError) -> Self {
        Self::Start(cause)
    }
}

/// How a card is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// SDSC, up to 2 GB: byte addresses.
    Standard,
    /// SDHC and SDXC: block addresses.
    High,
}

/// A card that is ready to be read.
#[derive(Debug)]
pub struct SdCard<H> {
    host: H,
    address: u32, // RCA in bits 31:16, as commands want it
    capacity: Capacity,
    blocks: u64,
    clock_hz: u32,
    width: Width,
    timing: Timing,
    /// How many of [`FASTEST`] are passed over: they were tried and failed.
    passed: usize,
    retries: u32,
}

impl Timing {
    /// Function of group 1 (SD 4.3.10.3, table 4-11), and the clock.
    fn function(self) -> (u8, u32) {
        match self {
            Self::Default | Self::Sdr12 => (0, DEFAULT_HZ),
            Self::HighSpeed | Self::Sdr25 => (1, HIGH_SPEED_HZ),
            Self::Sdr50 => (2, 100_000_000),
            Self::Sdr104 => (3, 208_000_000),
            Self::Ddr50 => (4, HIGH_SPEED_HZ),
        }
    }
}

/// Timings of 1.8 V that are worth the change, in the order in which they are tried.
const FASTEST: [Timing; 3] = [Timing::Sdr104, Timing::Ddr50, Timing::Sdr50];

/// Bits of the card status that say a read went wrong: SD 4.10.1. Bits about the command before
/// (checksum, illegal command) are left out.
const READ_ERRORS: u32 = 1 << 31 | 1 << 30 | 1 << 29 | 1 << 26 | 1 << 24 | 1 << 21 | 1 << 20 | 1 << 19;
const CARD_IS_LOCKED: u32 = 1 << 25;
const STATE_TRANSFER: u32 = 4; // bits 12:9
const HIGH_CAPACITY: u32 = 1 << 30; // HCS in the question, CCS in the answer: SD 5.1
const LOW_VOLTAGE: u32 = 1 << 24; // S18R in the question, S18A in the answer
const MORE_POWER: u32 = 1 << 28; // XPC: the slot gives 150 mA at 3.6 V
const POWERED_UP: u32 = 1 << 31;
const VOLTAGES: u32 = 0x00ff_8000; // 2.7 to 3.6 V

const DEFAULT_HZ: u32 = 25_000_000; // SD 6.7: default speed
const HIGH_SPEED_HZ: u32 = 50_000_000; // SD 6.7: high speed
const SLOWEST_HZ: u32 = 6_000_000; // retries do not go below a quarter of default speed

const READY: u64 = 1_000_000; // SD 4.2.3: ACMD41 is done within 1 s of the first
const ASK_AGAIN: u64 = 1_000; // between two ACMD41
const RECOVER: u64 = 500_000; // a card may be busy that long after CMD12
const START_ATTEMPTS: u32 = 3; // EMMC2 has been seen to need a second reset: Circle `addon/SDCard/emmc.cpp` tries as often
const READ_ATTEMPTS: u32 = 4; // tries that bring no new block before a read is given up
const FAILURES: u32 = 32; // tries in all for one call, whatever they bring
const READ_BACK: usize = 2; // blocks in the controller's buffer: EMMC2 has 1 KiB

impl<H: Host> SdCard<H> {
    /// Powers the socket up and gets the card in it ready: SD 4.2 and 4.3, figure 4-2.
    ///
    /// Every step has its deadline; where there is no card, all attempts together take about 160 ms.
    ///
    /// # Errors
    /// [`CardError::NoCard`] when nothing answers; else what the last of three attempts met.
    pub fn identify(host: H, power: &mut dyn CardPower) -> Result<Self, CardError> {
        let mut card = Self {
            host,
            address: 0,
            capacity: Capacity::Standard,
            blocks: 0,
            clock_hz: 0,
            width: Width::One,
            timing: Timing::Default,
            passed: 0,
            retries: 0,
        };
        let mut result = Ok(());
        let mut attempts = 0;
        while attempts < START_ATTEMPTS {
            result = card.start(power);
            // What failed was perhaps the timing: then comes the next one, and after trouble with 1.8 V itself none.
            match FASTEST.iter().position(|&timing| timing == card.timing) {
                Some(tried) => card.passed = tried + 1,
                None if card.timing == Timing::Default => attempts += 1,
                None => (attempts, card.passed) = (attempts + 1, FASTEST.len()),
            }
            match result {
                Err(CardError::Start(cause)) if !cause.is_final() => {}
                Err(CardError::NoCard | CardError::Refused { .. } | CardError::Removed { .. }) => {}
                _ => break,
            }
        }
        result.map(|()| card)
    }

    fn start(&mut self, power: &mut dyn CardPower) -> Result<(), CardError> {
        self.timing = Timing::Default;
        self.host.power_up(power)?;
        self.host.command(&Command::new(0, 0, Reply::None))?; // GO_IDLE_STATE

        // SEND_IF_COND, 2.7-3.6 V, check pattern 0xAA: cards before version 2 do not know it.
        let modern = match self.host.command(&Command::new(8, 0x1aa, Reply::R7)) {
            Ok(response) if response.short & 0xfff == 0x1aa => true,
            Ok(_) => return Err(CardError::Voltage),
            Err(HostError::NoAnswer { .. }) => false,
            Err(cause) => return Err(cause.into()),
        };
        let fast = modern && self.wanted().next().is_some();
        if self.power_up_card(modern, fast)? {
            self.timing = Timing::Sdr12;
            self.host.command(&Command::new(11, 0, Reply::R1))?; // VOLTAGE_SWITCH
            self.host.signal_1v8(power)?;
        }

        self.host.command(&Command::new(2, 0, Reply::R2))?; // ALL_SEND_CID
        let address = self.host.command(&Command::new(3, 0, Reply::R6))?; // SEND_RELATIVE_ADDR
        self.address = address.short & 0xffff_0000;
        let csd = self.host.command(&Command::new(9, self.address, Reply::R2))?.long; // SEND_CSD
        self.blocks = capacity(csd).ok_or(CardError::UnknownKind)?;
        let selected = self.host.command(&Command::new(7, self.address, Reply::R1Busy))?; // SELECT_CARD
        if selected.short & CARD_IS_LOCKED != 0 {
            return Err(CardError::Locked);
        }
        self.clock_hz = self.host.set_clock(DEFAULT_HZ)?;
        if self.capacity == Capacity::Standard {
            let response = self.host.command(&Command::new(16, BLOCK as u32, Reply::R1))?; // SET_BLOCKLEN
            if response.short & READ_ERRORS != 0 {
                return Err(CardError::Refused { command: 16, status: response.short });
            }
        }
        // ACMD51 has been seen to time out on a Pi 4 (Circle `addon/SDCard/emmc.cpp`); a card whose SCR stays unknown works all the
        // same: four lines are mandatory for memory cards (SD 3.6.1), only high speed is passed over.
        let configuration = self.configuration();
        self.application_command(6, 0b10)?; // SET_BUS_WIDTH: four lines
        self.host.set_width(Width::Four);
        self.width = Width::Four;
        let has_switch = configuration.is_some_and(|scr| scr >> 56 & 0xf >= 1); // SD_SPEC 1.10: SD 5.6
        if has_switch && self.timing == Timing::Sdr12 {
            for timing in &FASTEST[self.passed..] {
                if self.host.can(*timing) && self.try_timing(*timing)? {
                    return Ok(());
                }
            }
        }
        if has_switch && self.host.has_high_speed() {
            self.try_high_speed()?;
        }
        Ok(())
    }

    /// ACMD41 until the card has powered up; learns how it is addressed, and whether it can go to 1.8 V if `fast` asks.
    fn power_up_card(&mut self, modern: bool, fast: bool) -> Result<bool, CardError> {
        let fast = if fast { LOW_VOLTAGE | MORE_POWER } else { 0 };
        let question = VOLTAGES | if modern { HIGH_CAPACITY } else { 0 } | fast;
        let end = self.host.micros() + READY;
        loop {
            let now = self.host.micros();
            match self.host.command(&Command::new(55, 0, Reply::R1)) {
                Err(HostError::NoAnswer { .. }) if !modern => return Err(CardError::NoCard),
                other => other?,
            };
            let conditions = self.host.command(&Command::new(41, question, Reply::R3))?.short;
            if conditions & VOLTAGES == 0 {
                return Err(CardError::Voltage);
            }
            if conditions & POWERED_UP != 0 {
                let high = modern && conditions & HIGH_CAPACITY != 0;
                self.capacity = if high { Capacity::High } else { Capacity::Standard };
                return Ok(high && fast != 0 && conditions & LOW_VOLTAGE != 0);
            }
            if now > end {
                return Err(CardError::NotReady);
            }
            self.host.pause(ASK_AGAIN);
        }
    }

    fn application_command(&mut self, index: u8, argument: u32) -> Result<Response, HostError> {
        self.host.command(&Command::new(55, self.address, Reply::R1))?; // APP_CMD
        self.host.command(&Command::new(index, argument, Reply::R1))
    }

    /// The SD configuration register, ACMD51: SD 5.6.
    fn configuration(&mut self) -> Option<u64> {
        for _ in 0..START_ATTEMPTS {
            let mut register = [0; 8];
            let result = self.host.command(&Command::new(55, self.address, Reply::R1)).and_then(|_| {
                self.host.read(&Command::new(51, 0, Reply::R1), register.len(), &mut register, &mut 0)
            });
            match result {
                Ok(_) => return Some(u64::from_be_bytes(register)),
                Err(_) => self.settle(0).ok()?,
            }
        }
        None
    }

    /// CMD6: asks for, then selects a function of group 1; whether it was.
    fn select(&mut self, function: u8) -> Result<bool, CardError> {
        for set in [false, true] {
            match self.switch_function(function, set) {
                Ok(status) if has(&status, function) => {}
                Ok(_) => return Ok(false),
                Err(_) => return self.settle(0).map(|()| false),
            }
        }
        self.host.pause(10); // SD 4.3.10.1: the new timing holds 8 clocks after the status
        Ok(true)
    }

    /// What of [`FASTEST`] the host can do and has not failed yet.
    fn wanted(&mut self) -> impl Iterator<Item = Timing> {
        let host = &mut self.host;
        FASTEST[self.passed..].iter().copied().filter(move |&timing| host.can(timing))
    }

    /// Selects one of [`FASTEST`]. Whether the card knows it; one that then does not answer properly is an error.
    fn try_timing(&mut self, timing: Timing) -> Result<bool, CardError> {
        let (function, hz) = timing.function();
        if !self.select(function)? {
            return Ok(false);
        }
        self.timing = timing;
        self.host.set_timing(timing);
        self.set_clock(hz)?;
        let status = self.switch_function(function, false)?;
        if !has(&status, function) {
            return Err(HostError::DataGarbled { command: 6 }.into());
        }
        Ok(true)
    }

    /// Sets the clock, and what depends on it.
    fn set_clock(&mut self, hz: u32) -> Result<(), HostError> {
        self.clock_hz = self.host.set_clock(hz)?;
        self.host.tune(self.timing)
    }

    /// Selects the high-speed mode, at 1.8 V SDR25. A card that then does not answer properly at 50 MHz goes on at 25.
    fn try_high_speed(&mut self) -> Result<(), CardError> {
        let timing = if self.timing == Timing::Sdr12 { Timing::Sdr25 } else { Timing::HighSpeed };
        let (function, hz) = timing.function();
        if !self.select(function)? {
            return Ok(());
        }
        self.timing = timing;
        self.host.set_timing(timing);
        self.clock_hz = self.host.set_clock(hz)?;
        if !matches!(self.switch_function(function, false), Ok(status) if has(&status, function)) {
            self.clock_hz = self.host.set_clock(DEFAULT_HZ)?;
            self.settle(0)?;
        }
        Ok(())
    }

    /// CMD6, SWITCH_FUNC: SD 4.3.10. All other groups stay as they are.
    fn switch_function(&mut self, function: u8, set: bool) -> Result<[u8; 64], HostError> {
        let argument = if set { 0x80ff_fff0 } else { 0x00ff_fff0 } | u32::from(function);
        let mut status = [0; 64];
        self.host.read(&Command::new(6, argument, Reply::R1), status.len(), &mut status, &mut 0)?;
        Ok(status)
    }

    /// After a failed transfer: ends it and waits until the card is ready for the next.
    fn settle(&mut self, sector: u64) -> Result<(), CardError> {
        // One that was not sending anything does not answer; only the status counts.
        let _ = self.host.command(&Command::new(Command::STOP_TRANSMISSION, 0, Reply::R1Busy));
        let end = self.host.micros() + RECOVER;
        let mut silent = 0;
        loop {
            let now = self.host.micros();
            match self.host.command(&Command::new(13, self.address, Reply::R1)) {
                Ok(response) if response.short >> 9 & 0xf == STATE_TRANSFER => return Ok(()),
                Ok(_) => {}
                Err(HostError::NoAnswer { .. }) => {
                    silent += 1;
                    if silent == 3 {
                        return Err(CardError::Removed { sector });
                    }
                }
                Err(_) => {}
            }
            if now > end {
                return Err(CardError::Removed { sector });
            }
            self.host.pause(ASK_AGAIN);
        }
    }

    /// Reads whole blocks from `first` on into `buffer`, in commands as long as the host can count.
    ///
    /// A transfer that fails is taken up again where it failed, from the third try on at a slower
    /// clock, which then stays.
    ///
    /// # Errors
    /// After four tries in a row without a new block, the block and the reason.
    pub fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), CardError> {
        if !buffer.len().is_multiple_of(BLOCK) {
            return Err(CardError::NotWholeBlocks { bytes: buffer.len() });
        }
        let count = buffer.len() / BLOCK;
        let end = first.checked_add(count as u64);
        if end.is_none_or(|end| end > self.blocks) {
            return Err(CardError::BeyondEnd { sector: first.max(self.blocks), blocks: self.blocks });
        }
        let (mut position, mut attempts, mut failures) = (0, 0, 0);
        while position < count {
            let sector = first + position as u64;
            let length = (count - position).min(self.host.largest_transfer());
            let part = &mut buffer[position * BLOCK..(position + length) * BLOCK];
            let (done, result) = self.read_once(sector, part);
            let Err(error) = result else {
                (position, attempts) = (position + length, 0);
                continue;
            };
            let progress = done.saturating_sub(READ_BACK);
            position += progress;
            attempts = if progress > 0 { 1 } else { attempts + 1 };
            failures += 1;
            self.retries = self.retries.saturating_add(1);
            self.settle(first + position as u64)?;
            if attempts >= READ_ATTEMPTS || failures >= FAILURES {
                return Err(match error {
                    CardError::Read { cause, .. } => CardError::Read { sector: sector + done as u64, cause },
                    other => other,
                });
            }
            if attempts >= 2 && self.clock_hz / 2 >= SLOWEST_HZ {
                self.clock_hz = self.host.set_clock(self.clock_hz / 2)?;
            }
            // Warmer or colder than when it was fitted, or at another clock: if that fails, the next try does, too.
            let _ = self.host.tune(self.timing);
        }
        Ok(())
    }

    fn read_once(&mut self, sector: u64, buffer: &mut [u8]) -> (usize, Result<(), CardError>) {
        let index = if buffer.len() > BLOCK { 18 } else { 17 }; // READ_MULTIPLE_BLOCK, READ_SINGLE_BLOCK
        // `read` has checked that the sector is on the card, whose capacity fits the argument.
        let argument = match self.capacity {
            Capacity::Standard => (sector * BLOCK as u64) as u32,
            Capacity::High => sector as u32,
        };
        let mut done = 0;
        match self.host.read(&Command::new(index, argument, Reply::R1), BLOCK, buffer, &mut done) {
            Ok(response) if response.short & READ_ERRORS != 0 => {
                (0, Err(CardError::Unreadable { sector, status: response.short }))
            }
            Ok(_) => (done, Ok(())),
            Err(cause) => (done, Err(CardError::Read { sector, cause })),
        }
    }

    /// Size of the card in blocks of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How the card is addressed.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// SD clock in use, Hz.
    pub fn clock_hz(&self) -> u32 {
        self.clock_hz
    }

    /// How the data lines are timed.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Data lines in use.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Transfers that had to be repeated so far.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The host controller.
    pub fn host_ref(&self) -> &H {
        &self.host
    }

    /// The host controller, for whoever lent it.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }
}

impl<H: Host> BlockDevice for SdCard<H> {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), CardError> {
        SdCard::read(self, first, buffer)
    }
}

/// Whether a status of CMD6 (512 bits, the most significant byte first) says that a function of group 1 is there (bits 415:400)
/// and would be, or is, selected (379:376).
fn has(status: &[u8; 64], function: u8) -> bool {
    status[13] >> function & 1 != 0 && status[16] & 0xf == function
}

/// Blocks of 512 bytes according to the card-specific data: SD 5.3.2 (version 1), 5.3.3 (version 2).
fn capacity(csd: u128) -> Option<u64> {
    let field = |high: u32, low: u32| (csd >> low) as u64 & ((1 << (high - low + 1)) - 1);
    match field(127, 126) {
        0 => {
            let (size, multiplier, block_bits) = (field(73, 62), field(49, 47), field(83, 80));
            if !(9..=11).contains(&block_bits) {
                return None;
            }
            Some((size + 1) << (multiplier + 2) << (block_bits - 9))
        }
        1 => Some((field(69, 48) + 1) * 1024),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_both_versions_of_the_card_specific_data() {
        // A 1 GB card with 1024-byte read blocks: 3,879 × 512 × 1024 bytes.
        let version1 = (10u128 << 80) | (3_878 << 62) | (7 << 47);
        assert_eq!(capacity(version1), Some(3_879 * 512 * 2));
        // A 32 GB card.
        let version2 = (1u128 << 126) | (60_905 << 48);
        assert_eq!(capacity(version2), Some(60_906 * 1024));
        assert_eq!(capacity(2u128 << 126), None, "over 2 TB");
        assert_eq!(capacity(12u128 << 80), None, "a block length that does not exist");
    }
}
