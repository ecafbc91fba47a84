//! SD host controller (SDHCI 3.0), by ADMA2 where it reaches memory, else by programmed I/O: EMMC2 of the BCM2711, and its kin.
//!
//! What EMMC2 asks of a driver beyond the standard, and gets here:
//! - it takes 32-bit accesses only, so block size goes with block count, and transfer mode with
//!   command, in one write each;
//! - at 400 kHz a register write that follows another within two SD clocks can be lost, so writes are
//!   kept four SD clocks apart while the card is being identified (the data port excepted);
//! - below 200 kHz of SD clock it can hang, so it is never asked for that;
//! - the 3.3 V / 1.8 V choice and the card's supply are pins outside the controller: [`CardPower`].
//!
//! # ADMA2
//!
//! Whole blocks that lie in whole cache lines are put there by the controller itself, from a table of descriptors, if the
//! [`Bus`] knows under which address the controller sees that memory: on a Pi 4 that depends on the chip's stepping, and a wrong
//! guess overwrites other memory, so without the device tree's word there is none. Nothing keeps caches and controller in
//! agreement: table and destination leave the caches before, and the destination once more after. What the controller reports
//! of its way to memory ends DMA for good; a garbled transfer is taken up again by programmed I/O, which knows how far it came.
//!
//! All waits are measured with the clock of the [`Bus`], in microseconds, and all of them end.
//! This driver reads; writing a block needs one more data direction and nothing else changed.
//!
//! Source: SD Host Controller Simplified Specification 3.00 ("SDHCI" below), BCM2711 device tree,
//! Linux `sdhci-iproc.c` for the BCM2711 particulars.

use core::fmt;
use core::hint::spin_loop;
use core::ops::Range;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{LocalRegisterCopy, register_structs};

use crate::cpu::mmu;

use super::sd_card::{Command, Host, HostError, Reply, Response, Stage, Timing, Width};

/// Names for the bits of the registers.
mod bits {
    use tock_registers::register_bitfields;

    register_bitfields![u32,
        /// Block size and block count: SDHCI 2.2.2, 2.2.3.
        pub Block [
            SIZE OFFSET(0) NUMBITS(12) [],            // bytes in a block
            COUNT OFFSET(16) NUMBITS(16) []           // blocks in this transfer
        ],
        /// Transfer mode and command: SDHCI 2.2.5, 2.2.6.
        pub Transfer [
            DMA OFFSET(0) NUMBITS(1) [],
            COUNT_ENABLE OFFSET(1) NUMBITS(1) [],     // stop after Block::COUNT blocks
            AUTO_STOP OFFSET(2) NUMBITS(2) [Off = 0, Command12 = 1],
            DIRECTION OFFSET(4) NUMBITS(1) [Write = 0, Read = 1],
            MULTIPLE OFFSET(5) NUMBITS(1) [],
            RESPONSE OFFSET(16) NUMBITS(2) [None = 0, Bits136 = 1, Bits48 = 2, Bits48Busy = 3],
            CHECK_CRC OFFSET(19) NUMBITS(1) [],
            CHECK_INDEX OFFSET(20) NUMBITS(1) [],
            DATA OFFSET(21) NUMBITS(1) [],
            KIND OFFSET(22) NUMBITS(2) [Normal = 0, Abort = 3],
            INDEX OFFSET(24) NUMBITS(6) []
        ],
        /// Present state: SDHCI 2.2.9.
        pub Present [
            COMMAND_BUSY OFFSET(0) NUMBITS(1) [],
            DATA_BUSY OFFSET(1) NUMBITS(1) [],
            BUFFER_READABLE OFFSET(11) NUMBITS(1) [],
            CARD OFFSET(16) NUMBITS(1) [],
            DATA_LINES OFFSET(20) NUMBITS(4) [],      // their levels
            DATA0_HIGH OFFSET(20) NUMBITS(1) []       // low while the card is busy
        ],
        /// Host control 1 and power control: SDHCI 2.2.10, 2.2.11.
        pub Control [
            FOUR_BITS OFFSET(1) NUMBITS(1) [],
            HIGH_SPEED OFFSET(2) NUMBITS(1) [],
            DMA OFFSET(3) NUMBITS(2) [Adma32 = 2, Adma64 = 3],
            BUS_POWER OFFSET(8) NUMBITS(1) [],
            VOLTAGE OFFSET(9) NUMBITS(3) [V33 = 7]
        ],
        /// Clock control, timeout control and software reset: SDHCI 2.2.14 to 2.2.16.
        pub Clock [
            INTERNAL OFFSET(0) NUMBITS(1) [],
            STABLE OFFSET(1) NUMBITS(1) [],
            CARD OFFSET(2) NUMBITS(1) [],
            DIVISOR_HIGH OFFSET(6) NUMBITS(2) [],     // bits 9:8 of the divisor
            DIVISOR_LOW OFFSET(8) NUMBITS(8) [],      // SD clock = base / (2 × divisor), or base for 0
            TIMEOUT OFFSET(16) NUMBITS(4) [],         // data time-out = 2^(13 + n) timeout clocks
            RESET_ALL OFFSET(24) NUMBITS(1) [],
            RESET_COMMAND OFFSET(25) NUMBITS(1) [],
            RESET_DATA OFFSET(26) NUMBITS(1) []
        ],
        /// Normal and error interrupt status, and the two enables alike: SDHCI 2.2.17 to 2.2.22.
        pub Interrupt [
            COMMAND_DONE OFFSET(0) NUMBITS(1) [],
            TRANSFER_DONE OFFSET(1) NUMBITS(1) [],
            BUFFER_READABLE OFFSET(5) NUMBITS(1) [],
            ERROR OFFSET(15) NUMBITS(1) [],           // any of the bits above it
            COMMAND_TIMEOUT OFFSET(16) NUMBITS(1) [],
            COMMAND_CRC OFFSET(17) NUMBITS(1) [],
            COMMAND_END_BIT OFFSET(18) NUMBITS(1) [],
            COMMAND_INDEX OFFSET(19) NUMBITS(1) [],
            DATA_TIMEOUT OFFSET(20) NUMBITS(1) [],
            DATA_CRC OFFSET(21) NUMBITS(1) [],
            DATA_END_BIT OFFSET(22) NUMBITS(1) [],
            CURRENT_LIMIT OFFSET(23) NUMBITS(1) [],
            AUTO_COMMAND OFFSET(24) NUMBITS(1) [],
            ADMA OFFSET(25) NUMBITS(1) []             // no descriptor, or no way to memory
        ],
        /// Auto-command errors and host control 2: SDHCI 2.2.24, 2.2.25.
        pub Control2 [
            MODE OFFSET(16) NUMBITS(3) [Sdr12 = 0, Sdr25 = 1, Sdr50 = 2, Sdr104 = 3, Ddr50 = 4], // at 1.8 V only
            SIGNAL_1V8 OFFSET(19) NUMBITS(1) [],
            TUNE OFFSET(22) NUMBITS(1) [],            // cleared by the controller when it is done
            TUNED OFFSET(23) NUMBITS(1) []            // the sampling clock was found
        ],
        /// Capabilities, high word: SDHCI 2.2.26.
        pub CapabilitiesHigh [
            SDR50 OFFSET(0) NUMBITS(1) [],
            SDR104 OFFSET(1) NUMBITS(1) [],
            DDR50 OFFSET(2) NUMBITS(1) [],
            TUNE_SDR50 OFFSET(13) NUMBITS(1) []       // SDR50 has to be tuned, too
        ],
        /// Capabilities, low word: SDHCI 2.2.26.
        pub Capabilities [
            BASE_CLOCK_MHZ OFFSET(8) NUMBITS(8) [],
            ADMA2 OFFSET(19) NUMBITS(1) [],
            HIGH_SPEED OFFSET(21) NUMBITS(1) [],
            BUS_64 OFFSET(28) NUMBITS(1) []           // descriptors with addresses of 64 bits
        ],
        /// Slot interrupt status and host controller version: SDHCI 2.2.34, 2.2.35.
        pub Version [
            SPECIFICATION OFFSET(16) NUMBITS(8) [V3 = 2]
        ]
    ];
}
use bits::{
    Block, Capabilities, CapabilitiesHigh, Clock, Control, Control2, Interrupt, Present, Transfer, Version,
};

register_structs! {
    /// The standard register map as 32-bit words: SDHCI table 2-1.
    pub Registers {
        (0x00 => _argument2),
        (0x04 => block: ReadWrite<u32, Block::Register>),
        (0x08 => argument: ReadWrite<u32>),
        (0x0c => transfer: ReadWrite<u32, Transfer::Register>),
        (0x10 => response: [ReadOnly<u32>; 4]),
        (0x20 => data: ReadWrite<u32>),
        (0x24 => present: ReadOnly<u32, Present::Register>),
        (0x28 => control: ReadWrite<u32, Control::Register>),
        (0x2c => clock: ReadWrite<u32, Clock::Register>),
        (0x30 => status: ReadWrite<u32, Interrupt::Register>),        // write 1 to clear
        (0x34 => status_enable: ReadWrite<u32, Interrupt::Register>),
        (0x38 => signal_enable: ReadWrite<u32, Interrupt::Register>),
        (0x3c => control2: ReadWrite<u32, Control2::Register>),
        (0x40 => capabilities: ReadOnly<u32, Capabilities::Register>),
        (0x44 => capabilities_high: ReadOnly<u32, CapabilitiesHigh::Register>),
        (0x48 => _reserved),
        (0x58 => adma: [ReadWrite<u32>; 2]),
        (0x60 => _reserved2),
        (0xfc => version: ReadOnly<u32, Version::Register>),
        (0x100 => @END),
    }
}

/// A register of the map, by name, for [`Bus`]. The value is its byte offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Register {
    /// Block size and count.
    Block = 0x04,
    /// Command argument.
    Argument = 0x08,
    /// Transfer mode and command; writing it sends the command.
    Transfer = 0x0c,
    /// Bits 39:8 of a short answer, of a long one likewise.
    Response0 = 0x10,
    /// Bits 71:40 of a long answer.
    Response1 = 0x14,
    /// Bits 103:72 of a long answer.
    Response2 = 0x18,
    /// Bits 127:104 of a long answer.
    Response3 = 0x1c,
    /// Data port: a read takes one word out of the buffer.
    Data = 0x20,
    /// Present state.
    Present = 0x24,
    /// Host control 1 and power control.
    Control = 0x28,
    /// Clock, timeout and software reset.
    Clock = 0x2c,
    /// Interrupt status, normal and error.
    Status = 0x30,
    /// Which status bits may be set at all.
    StatusEnable = 0x34,
    /// Which status bits raise an interrupt.
    SignalEnable = 0x38,
    /// Auto-command errors and host control 2.
    Control2 = 0x3c,
    /// Capabilities, low word.
    Capabilities = 0x40,
    /// Capabilities, high word.
    CapabilitiesHigh = 0x44,
    /// Address of the descriptor table, low word: SDHCI 2.2.31.
    AdmaLow = 0x58,
    /// High word.
    AdmaHigh = 0x5c,
    /// Slot status and controller version.
    Version = 0xfc,
}

/// The way to a controller's registers, and the clock that measures waits and pauses.
///
/// On a board this is [`Mmio`]; in tests a strict model of controller and card.
pub trait Bus {
    /// Reads 32 bits.
    fn read(&mut self, register: Register) -> u32;
    /// Writes 32 bits.
    fn write(&mut self, register: Register, value: u32);
    /// Microseconds since any fixed moment; never goes backwards.
    fn micros(&mut self) -> u64;
    /// The address at which the controller sees this memory, all of it; none if it does not, or nobody knows.
    fn reach(&mut self, memory: Range<usize>) -> Option<u64>;
    /// Takes this memory, whole cache lines, out of the caches: what was stored is in memory, and what the controller puts
    /// there is what the next load sees. Needed before and after it does.
    fn settle(&mut self, memory: Range<usize>);
}

/// Memory as a controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The controller's address of the first byte.
    pub bus: u64,
    /// Our address of it.
    pub memory: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Window {
    /// The controller's address of a part of memory that lies in here whole. Where RAM is joined ([`mmu::JOINED`]), our
    /// addresses are nobody else's.
    pub fn reach(&self, memory: Range<usize>) -> Option<u64> {
        let (start, end) = (memory.start as u64, memory.end as u64);
        if end > mmu::JOINED.start {
            return None;
        }
        let offset = start.checked_sub(self.memory)?;
        (start <= end && end - self.memory <= self.bytes).then(|| self.bus.checked_add(offset)).flatten()
    }
}

/// A controller in the address space of this machine.
pub struct Mmio {
    registers: &'static Registers,
    micros: fn() -> u64,
    window: Option<Window>,
}

impl Mmio {
    /// `registers` is the mapped block, `micros` a free-running microsecond clock, `window` the memory that the controller is
    /// known to reach.
    pub const fn new(registers: &'static Registers, micros: fn() -> u64, window: Option<Window>) -> Self {
        Self { registers, micros, window }
    }
}

impl Bus for Mmio {
    #[inline]
    fn read(&mut self, register: Register) -> u32 {
        let block = self.registers;
        match register {
            Register::Block => block.block.get(),
            Register::Argument => block.argument.get(),
            Register::Transfer => block.transfer.get(),
            Register::Response0 => block.response[0].get(),
            Register::Response1 => block.response[1].get(),
            Register::Response2 => block.response[2].get(),
            Register::Response3 => block.response[3].get(),
            Register::Data => block.data.get(),
            Register::Present => block.present.get(),
            Register::Control => block.control.get(),
            Register::Clock => block.clock.get(),
            Register::Status => block.status.get(),
            Register::StatusEnable => block.status_enable.get(),
            Register::SignalEnable => block.signal_enable.get(),
            Register::Control2 => block.control2.get(),
            Register::Capabilities => block.capabilities.get(),
            Register::CapabilitiesHigh => block.capabilities_high.get(),
            Register::AdmaLow => block.adma[0].get(),
            Register::AdmaHigh => block.adma[1].get(),
            Register::Version => block.version.get(),
        }
    }

    #[inline]
    fn write(&mut self, register: Register, value: u32) {
        let block = self.registers;
        match register {
            Register::Block => block.block.set(value),
            Register::Argument => block.argument.set(value),
            Register::Transfer => block.transfer.set(value),
            Register::Data => block.data.set(value),
            Register::Control => block.control.set(value),
            Register::Clock => block.clock.set(value),
            Register::Status => block.status.set(value),
            Register::StatusEnable => block.status_enable.set(value),
            Register::SignalEnable => block.signal_enable.set(value),
            Register::Control2 => block.control2.set(value),
            Register::AdmaLow => block.adma[0].set(value),
            Register::AdmaHigh => block.adma[1].set(value),
            Register::Response0
            | Register::Response1
            | Register::Response2
            | Register::Response3
            | Register::Present
            | Register::Capabilities
            | Register::CapabilitiesHigh
            | Register::Version => debug_assert!(false, "{register:?} is read-only"),
        }
    }

    #[inline]
    fn micros(&mut self) -> u64 {
        (self.micros)()
    }

    fn reach(&mut self, memory: Range<usize>) -> Option<u64> {
        self.window?.reach(mmu::behind(memory)?)
    }

    fn settle(&mut self, memory: Range<usize>) {
        mmu::clean_and_invalidate_range(memory);
    }
}

/// The board has no such switch, or its firmware does not know the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

/// The pins around the card socket that no SDHCI register reaches.
///
/// On a Pi 4 both are lines of the firmware's GPIO expander, set through the mailbox. A card left in
/// 1.8 V signalling by whoever ran before (the boot loader, Linux before a warm reboot) only comes back
/// when its supply is cut. [`Unsupported`] is not a failure: start-up goes on with what there is.
pub trait CardPower {
    /// Sets the signal level to 3.3 V (Pi 4: expander line 132 = 0). The driver waits for it to settle.
    fn signal_3v3(&mut self) -> Result<(), Unsupported>;
    /// Sets it to 1.8 V (Pi 4: expander line 132 = 1). Only after the supply could be switched off and on is it asked for.
    fn signal_1v8(&mut self) -> Result<(), Unsupported>;
    /// Switches the card's supply (Pi 4: expander line 134; and SET_POWER_STATE of device 0).
    fn supply(&mut self, on: bool) -> Result<(), Unsupported>;
}

/// A socket whose power cannot be switched.
pub struct AlwaysOn;

impl CardPower for AlwaysOn {
    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
    fn supply(&mut self, _on: bool) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
}

/// Clock while the card is being identified: SD Physical Layer 6.6.6 allows 100 to 400 kHz.
const IDENTIFY_HZ: u32 = 400_000;
/// EMMC2 can hang at about 100 kHz when the core clock is 500 MHz or more (Linux `sdhci-iproc.c`).
const SLOWEST_HZ: u32 = 200_000;
/// Tuning blocks after which a controller that is not done never will be: SDHCI 3.7.7.
const TUNING_BLOCKS: usize = 40;
/// Largest divisor of the 10-bit divided clock: SDHCI 2.2.14.
const LARGEST_DIVISOR: u32 = 0x3ff;
/// Bytes in a block of a card's data.
const BLOCK_BYTES: usize = 512;
/// Largest number of blocks one command can count: the counter has 16 bits.
pub const LARGEST_TRANSFER: usize = 65_535;
/// Data time-out of the controller, 2^(13 + n) timeout clocks: the value known to work on EMMC2.
const TIMEOUT_EXPONENT: u32 = 0xb;

// Deadlines, microseconds.
const RESET: u64 = 1_000_000; // SDHCI gives none; other drivers wait from 100 ms to 1 s
const CLOCK_STABLE: u64 = 150_000; // SDHCI 3.2.1: 150 ms
const LINES_FREE: u64 = 500_000; // a busy card may hold DAT0 for 250 ms (SD 4.6.2.2)
const ANSWER: u64 = 100_000; // 64 SD clocks (SD 4.12), 320 µs at the slowest clock; generous
const BUSY: u64 = 500_000; // as LINES_FREE
const BLOCK: u64 = 500_000; // a card has 100 ms to the first byte (SD 4.6.2.1); poor ones take more
const SETTLE_SIGNAL: u64 = 5_000; // regulator of the signal level (BCM2711 device tree)
const LINES_BACK: u64 = 1_000; // SD 4.2.4.2: the card lets its lines go within 1 ms of the clock
const TUNING_BLOCK: u64 = 150_000; // SDHCI 3.7.7: all of them take at most 150 ms
const SUPPLY_OFF: u64 = 10_000; // the supply must fall below 0.5 V for 1 ms (SD 6.4.1.2)
const SUPPLY_ON: u64 = 36_000; // it may take 35 ms to rise, and 1 ms of it must be stable (SD 6.4.1)
const FIRST_CLOCKS: u64 = 2_000; // 74 clocks before CMD0 (SD 6.4.1.1): 370 µs at 200 kHz

/// Everything that can go wrong, for the two enables; card insertion and removal left out since
/// the Pi 4's card detect is not wired.
const WATCHED: u32 = 0x03ff_0000 | 0x0000_0033;
const ALL: u32 = 0xffff_ffff;

/// Bytes of a cache line, on all boards.
const LINE: usize = 64;
/// Bytes of a descriptor's piece of memory: half of what its 16 bits of length can say.
const PIECE: usize = 32 << 10;
/// Descriptors: 4 MiB a transfer.
const PIECES: usize = 128;
/// Slowest card that is waited for, bytes a microsecond.
const SLOWEST_CARD: u64 = 1;
/// A descriptor that is valid and moves data: SDHCI 1.13.4, table 1-11. The last one says so.
const MOVES: u32 = 0x21;
const LAST: u32 = 1 << 1;

/// Descriptors of one transfer, of two words each, or of three where addresses have 64 bits: SDHCI 1.13.3. Cache lines of its own.
#[repr(C, align(64))]
struct Table([u32; 3 * PIECES]);

/// What takes a transfer's data to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The core, word by word.
    Programmed,
    /// The controller, to addresses of so many bits.
    Adma2 {
        /// 32 or 64.
        bits: u8,
    },
}

/// An SDHCI 3.0 controller with a card socket.
pub struct Sdhci<B> {
    table: Table,
    /// Why the controller is not asked to reach memory: it failed at it once.
    dma_failed: bool,
    /// The next transfer is programmed: the last one was garbled.
    careful: bool,
    /// What took the last transfer's data to memory.
    way: Way,
    /// Bytes that the core and that the controller took to memory.
    moved: (u64, u64),
    /// Whether the card's supply was switched off and on: whatever goes wrong at 1.8 V can be undone then.
    switchable: bool,
    bus: B,
    base_hz: Option<u32>,
    /// SD clock, Hz; 0 while it stands still.
    clock_hz: u32,
    /// Moment of the last register write, microseconds.
    written: u64,
}

impl<B: Bus> Sdhci<B> {
    /// `base_hz` is the clock that feeds the controller (Pi 4: mailbox clock 12, usually 100 MHz);
    /// without it the controller's own capabilities are believed. Touches nothing yet.
    pub const fn new(bus: B, base_hz: Option<u32>) -> Self {
        Self {
            table: Table([0; 3 * PIECES]),
            dma_failed: false,
            careful: false,
            way: Way::Programmed,
            moved: (0, 0),
            switchable: false,
            bus,
            base_hz,
            clock_hz: 0,
            written: 0,
        }
    }

    /// What took the data of the last transfer to memory.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Bytes that the core took to memory so far, and those that the controller did.
    pub fn moved(&self) -> (u64, u64) {
        self.moved
    }

    /// The way to the registers, for whoever lent it.
    pub fn bus(&mut self) -> &mut B {
        &mut self.bus
    }

    /// Pause between two register writes in microseconds: four SD clocks while two of them take longer
    /// than the access itself, some 100 ns; none at full speed.
    fn spacing(&self) -> u64 {
        match self.clock_hz {
            0 => 10,
            hz @ 1..20_000_000 => u64::from(4_000_000u32.div_ceil(hz)),
            _ => 0,
        }
    }

    fn pause(&mut self, micros: u64) {
        // One more than asked: the first microsecond had begun already.
        let end = self.bus.micros() + micros + 1;
        while self.bus.micros() < end {
            spin_loop();
        }
    }

    fn write(&mut self, register: Register, value: u32) {
        let spacing = self.spacing();
        if spacing > 0 {
            let end = self.written + spacing + 1;
            while self.bus.micros() < end {
                spin_loop();
            }
        }
        self.bus.write(register, value);
        self.written = self.bus.micros();
    }

    /// Has the controller try sampling clocks on the card's tuning pattern until it has found the best: SDHCI 3.7.7. It says
    /// nothing of these commands but that their data have come.
    fn find_sampling_clock(&mut self) -> Result<(), HostError> {
        const INDEX: u8 = 19; // SEND_TUNING_BLOCK
        let control2 = self.bus.read(Register::Control2) & !Control2::TUNED::SET.value;
        self.write(Register::Control2, control2 | Control2::TUNE::SET.value);
        let word = (Transfer::DIRECTION::Read
            + Transfer::RESPONSE::Bits48
            + Transfer::CHECK_CRC::SET
            + Transfer::CHECK_INDEX::SET
            + Transfer::DATA::SET
            + Transfer::INDEX.val(INDEX.into()))
        .value;
        for _ in 0..TUNING_BLOCKS {
            self.wait(LINES_FREE, HostError::Stuck { command: INDEX, stage: Stage::Lines }, |host| {
                let present = host.present();
                !present.is_set(Present::COMMAND_BUSY) && !present.is_set(Present::DATA_BUSY)
            })?;
            self.write(Register::Block, (Block::SIZE.val(64) + Block::COUNT.val(1)).value);
            self.write(Register::Argument, 0);
            self.write(Register::Transfer, word);
            let readable = Interrupt::BUFFER_READABLE::SET.value;
            self.wait_status(readable, TUNING_BLOCK, INDEX, Stage::Data)?;
            let control2: LocalRegisterCopy<u32, Control2::Register> =
                LocalRegisterCopy::new(self.bus.read(Register::Control2));
            if !control2.is_set(Control2::TUNE) {
                return if control2.is_set(Control2::TUNED) { Ok(()) } else { Err(HostError::NotTuned) };
            }
        }
        Err(HostError::NotTuned)
    }

    fn clock(&mut self) -> LocalRegisterCopy<u32, Clock::Register> {
        LocalRegisterCopy::new(self.bus.read(Register::Clock))
    }

    fn present(&mut self) -> LocalRegisterCopy<u32, Present::Register> {
        LocalRegisterCopy::new(self.bus.read(Register::Present))
    }

    /// Polls until `ready` says so; looks once more after the deadline, in case we were held up.
    fn wait(
        &mut self,
        limit: u64,
        error: HostError,
        mut ready: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), HostError> {
        let end = self.bus.micros() + limit;
        loop {
            let now = self.bus.micros();
            if ready(self) {
                return Ok(());
            }
            if now > end {
                return Err(error);
            }
            spin_loop();
        }
    }

    /// Waits for a status bit, acknowledges it, and turns an error bit into an error.
    fn wait_status(&mut self, bits: u32, limit: u64, command: u8, stage: Stage) -> Result<(), HostError> {
        let end = self.bus.micros() + limit;
        loop {
            let now = self.bus.micros();
            let status = self.bus.read(Register::Status);
            if let Some(error) = fault(status, command) {
                return Err(error);
            }
            if status & bits != 0 {
                self.write(Register::Status, status & bits);
                return Ok(());
            }
            if now > end {
                return Err(HostError::Stuck { command, stage });
            }
            spin_loop();
        }
    }

    fn reset(&mut self, bits: u32) -> Result<(), HostError> {
        let clock = self.clock().get();
        self.write(Register::Clock, clock | bits);
        self.wait(RESET, HostError::NoReset, |host| host.bus.read(Register::Clock) & bits == 0)
    }

    /// Makes the controller usable after an error: SDHCI 3.10.1.
    fn recover(&mut self) -> Result<(), HostError> {
        self.reset((Clock::RESET_COMMAND::SET + Clock::RESET_DATA::SET).value)?;
        self.write(Register::Status, ALL);
        Ok(())
    }

    /// Sends a command and waits for its answer. `data` is block register and transfer mode of one
    /// with data.
    fn send(&mut self, command: &Command, data: Option<(u32, u32)>) -> Result<Response, HostError> {
        let index = command.index;
        let abort = index == Command::STOP_TRANSMISSION;
        let needs_data_line = (data.is_some() || command.reply == Reply::R1Busy) && !abort;
        self.wait(LINES_FREE, HostError::Stuck { command: index, stage: Stage::Lines }, |host| {
            let present = host.present();
            let data_busy = needs_data_line && present.is_set(Present::DATA_BUSY);
            !present.is_set(Present::COMMAND_BUSY) && !data_busy
        })?;

        let left_over = self.bus.read(Register::Status);
        if left_over != 0 {
            self.write(Register::Status, left_over);
        }
        let reply = match command.reply {
            Reply::None => Transfer::RESPONSE::None,
            Reply::R2 => Transfer::RESPONSE::Bits136 + Transfer::CHECK_CRC::SET,
            Reply::R3 => Transfer::RESPONSE::Bits48,
            Reply::R1 | Reply::R6 | Reply::R7 => {
                Transfer::RESPONSE::Bits48 + Transfer::CHECK_CRC::SET + Transfer::CHECK_INDEX::SET
            }
            Reply::R1Busy => {
                Transfer::RESPONSE::Bits48Busy + Transfer::CHECK_CRC::SET + Transfer::CHECK_INDEX::SET
            }
        };
        let kind = if abort { Transfer::KIND::Abort } else { Transfer::KIND::Normal };
        let mut word = (reply + kind + Transfer::INDEX.val(u32::from(index))).value;
        if let Some((size, mode)) = data {
            self.write(Register::Block, size);
            word |= mode;
        }
        self.write(Register::Argument, command.argument);
        self.write(Register::Transfer, word);

        self.wait_status(Interrupt::COMMAND_DONE::SET.value, ANSWER, index, Stage::Answer)?;
        let short = self.bus.read(Register::Response0);
        let response = match command.reply {
            Reply::None => Response::default(),
            Reply::R2 => {
                let words = [Register::Response1, Register::Response2, Register::Response3];
                let [r1, r2, r3] = words.map(|register| u128::from(self.bus.read(register)));
                // The controller keeps bits 127:8 and drops the checksum below them.
                Response { short, long: (r3 << 96 | r2 << 64 | r1 << 32 | u128::from(short)) << 8 }
            }
            _ => Response { short, long: 0 },
        };
        if command.reply == Reply::R1Busy {
            let done = Interrupt::TRANSFER_DONE::SET.value;
            match self.wait_status(done, BUSY, index, Stage::Busy) {
                // No interrupt but the line is free again: the card had nothing to be busy with.
                Err(HostError::Stuck { .. })
                    if self.present().is_set(Present::DATA0_HIGH)
                        && !self.present().is_set(Present::DATA_BUSY) => {}
                other => other?,
            }
        }
        Ok(response)
    }

    /// Takes the blocks of a running transfer out of the data port: SDHCI 3.7.2.1.
    fn take(
        &mut self,
        command: u8,
        block_bytes: usize,
        buffer: &mut [u8],
        done: &mut usize,
    ) -> Result<(), HostError> {
        let readable = Interrupt::BUFFER_READABLE::SET.value;
        for block in buffer.chunks_exact_mut(block_bytes) {
            self.wait_status(readable, BLOCK, command, Stage::Data)?;
            for word in block.chunks_exact_mut(4) {
                word.copy_from_slice(&self.bus.read(Register::Data).to_le_bytes());
            }
            *done += 1;
        }
        self.wait_status(Interrupt::TRANSFER_DONE::SET.value, BLOCK, command, Stage::End)
    }

    /// Makes the descriptors that bring a transfer into `buffer`, and takes both out of the caches. [`Way::Programmed`] where the
    /// controller can't, or should not.
    fn prepare(&mut self, buffer: &mut [u8]) -> Way {
        let memory = buffer.as_ptr_range();
        let memory = memory.start as usize..memory.end as usize;
        let lines = memory.start.is_multiple_of(LINE) && buffer.len().is_multiple_of(LINE);
        if core::mem::take(&mut self.careful) || self.dma_failed || !lines {
            return Way::Programmed;
        }
        let able: LocalRegisterCopy<u32, Capabilities::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::Capabilities));
        let table = self.table_range();
        let (Some(to), Some(from)) = (self.bus.reach(memory.clone()), self.bus.reach(table.clone())) else {
            return Way::Programmed;
        };
        let wide = to + buffer.len() as u64 > 1 << 32 || from + size_of::<Table>() as u64 > 1 << 32;
        if !able.is_set(Capabilities::ADMA2) || wide && !able.is_set(Capabilities::BUS_64) {
            return Way::Programmed;
        }
        let words = if wide { 3 } else { 2 };
        let pieces = buffer.len().div_ceil(PIECE);
        for (index, descriptor) in self.table.0.chunks_exact_mut(words).take(pieces).enumerate() {
            let bytes = (buffer.len() - index * PIECE).min(PIECE) as u32;
            let address = to + (index * PIECE) as u64;
            let last = if index + 1 == pieces { LAST } else { 0 };
            descriptor[0] = bytes << 16 | MOVES | last;
            descriptor[1] = address as u32;
            if wide {
                descriptor[2] = (address >> 32) as u32;
            }
        }
        self.bus.settle(table);
        self.bus.settle(memory);
        let select = if wide { Control::DMA::Adma64 } else { Control::DMA::Adma32 };
        let control: LocalRegisterCopy<u32, Control::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::Control));
        let mut selected = control;
        selected.modify(select);
        if selected.get() != control.get() {
            self.write(Register::Control, selected.get());
        }
        self.write(Register::AdmaLow, from as u32);
        if able.is_set(Capabilities::BUS_64) {
            self.write(Register::AdmaHigh, (from >> 32) as u32);
        }
        Way::Adma2 { bits: if wide { 64 } else { 32 } }
    }

    fn table_range(&self) -> Range<usize> {
        let table = self.table.0.as_ptr_range();
        table.start as usize..table.end as usize
    }

    /// Waits until the controller has put a running transfer into `buffer`.
    fn land(&mut self, command: u8, buffer: &mut [u8]) -> Result<(), HostError> {
        let limit = BLOCK + buffer.len() as u64 / SLOWEST_CARD;
        let done = self.wait_status(Interrupt::TRANSFER_DONE::SET.value, limit, command, Stage::Data);
        let memory = buffer.as_ptr_range();
        self.bus.settle(memory.start as usize..memory.end as usize);
        done
    }

    fn base_hz(&mut self) -> Result<u32, HostError> {
        let capabilities: LocalRegisterCopy<u32, Capabilities::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::Capabilities));
        match self.base_hz {
            Some(hz) if hz != 0 => Ok(hz),
            _ => match capabilities.read(Capabilities::BASE_CLOCK_MHZ) {
                0 => Err(HostError::ClockUnknown),
                mhz => Ok(mhz * 1_000_000),
            },
        }
    }
}

/// What the error half of the interrupt status says, most telling first: SDHCI 2.2.18.
fn fault(status: u32, command: u8) -> Option<HostError> {
    let status: LocalRegisterCopy<u32, Interrupt::Register> = LocalRegisterCopy::new(status);
    let any = |fields: &[u32]| fields.iter().any(|bits| status.get() & bits != 0);
    if status.get() >> 16 == 0 && !status.is_set(Interrupt::ERROR) {
        return None;
    }
    Some(if any(&[Interrupt::CURRENT_LIMIT::SET.value]) {
        HostError::Current { command }
    } else if status.is_set(Interrupt::ADMA) {
        HostError::Memory { command }
    } else if any(&[
        Interrupt::COMMAND_CRC::SET.value,
        Interrupt::COMMAND_END_BIT::SET.value,
        Interrupt::COMMAND_INDEX::SET.value,
    ]) {
        HostError::AnswerGarbled { command } // with the time-out bit: two drivers on the line
    } else if status.is_set(Interrupt::COMMAND_TIMEOUT) {
        HostError::NoAnswer { command }
    } else if any(&[Interrupt::DATA_CRC::SET.value, Interrupt::DATA_END_BIT::SET.value]) {
        HostError::DataGarbled { command }
    } else if status.is_set(Interrupt::DATA_TIMEOUT) {
        HostError::NoData { command }
    } else {
        HostError::Other { command, status: status.get() }
    })
}

impl<B: Bus> Host for Sdhci<B> {
    fn power_up(&mut self, power: &mut dyn CardPower) -> Result<(), HostError> {
        self.clock_hz = 0;
        self.pause(self.spacing()); // whoever drove it before may have written just now
        self.reset(Clock::RESET_ALL::SET.value)?; // stops the card's clock, too
        let version: LocalRegisterCopy<u32, Version::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::Version));
        let version = version.read(Version::SPECIFICATION);
        if version < Version::SPECIFICATION::V3.read(Version::SPECIFICATION) {
            return Err(HostError::TooOld { version });
        }
        self.write(Register::Control, 0);
        // Whatever the firmware says it did: a card that is off and taken for on would never answer.
        let off = power.supply(false);
        let level = power.signal_3v3();
        self.pause(if level.is_ok() { SUPPLY_OFF.max(SETTLE_SIGNAL) } else { SUPPLY_OFF });
        self.switchable = off.and(power.supply(true)).is_ok();
        self.write(Register::Control, (Control::BUS_POWER::SET + Control::VOLTAGE::V33).value);
        self.pause(SUPPLY_ON);
        self.write(Register::Control2, 0);
        self.write(Register::SignalEnable, 0); // polled
        self.write(Register::StatusEnable, WATCHED);
        self.write(Register::Status, ALL);
        self.set_clock(IDENTIFY_HZ)?;
        self.pause(FIRST_CLOCKS);
        Ok(())
    }

    fn set_clock(&mut self, wanted_hz: u32) -> Result<u32, HostError> {
        let base_hz = self.base_hz()?;
        let divisor = if wanted_hz >= base_hz { 0 } else { base_hz.div_ceil(wanted_hz.max(1)).div_ceil(2) };
        let hz = if divisor == 0 { base_hz } else { base_hz / (2 * divisor) };
        if divisor > LARGEST_DIVISOR || hz < SLOWEST_HZ {
            return Err(HostError::ClockRange { base_hz, wanted_hz });
        }
        self.wait(LINES_FREE, HostError::ClockStuck, |host| {
            let present = host.present();
            !present.is_set(Present::COMMAND_BUSY) && !present.is_set(Present::DATA_BUSY)
        })?;
        // SDHCI 3.2.3: stop the card's clock, change the divisor, wait, start it again.
        self.write(Register::Clock, Clock::TIMEOUT.val(TIMEOUT_EXPONENT).value);
        self.clock_hz = 0;
        let running = (Clock::INTERNAL::SET
            + Clock::DIVISOR_LOW.val(divisor & 0xff)
            + Clock::DIVISOR_HIGH.val(divisor >> 8)
            + Clock::TIMEOUT.val(TIMEOUT_EXPONENT))
        .value;
        self.write(Register::Clock, running);
        self.wait(CLOCK_STABLE, HostError::ClockStuck, |host| host.clock().is_set(Clock::STABLE))?;
        self.write(Register::Clock, running | Clock::CARD::SET.value);
        self.clock_hz = hz;
        Ok(hz)
    }

    fn set_width(&mut self, width: Width) {
        let control = self.bus.read(Register::Control) & !Control::FOUR_BITS::SET.value;
        let four = if width == Width::Four { Control::FOUR_BITS::SET.value } else { 0 };
        self.write(Register::Control, control | four);
    }

    fn set_timing(&mut self, timing: Timing) {
        let mode = match timing {
            Timing::Default | Timing::HighSpeed => {
                let control = self.bus.read(Register::Control) & !Control::HIGH_SPEED::SET.value;
                let fast = if timing == Timing::HighSpeed { Control::HIGH_SPEED::SET.value } else { 0 };
                return self.write(Register::Control, control | fast);
            }
            Timing::Sdr12 => Control2::MODE::Sdr12,
            Timing::Sdr25 => Control2::MODE::Sdr25,
            Timing::Sdr50 => Control2::MODE::Sdr50,
            Timing::Sdr104 => Control2::MODE::Sdr104,
            Timing::Ddr50 => Control2::MODE::Ddr50,
        };
        // The card's clock stands still until it is set: SDHCI 2.2.25.
        let clock = self.clock().get();
        self.write(Register::Clock, clock & !Clock::CARD::SET.value);
        self.clock_hz = 0;
        self.write(Register::Control2, (Control2::SIGNAL_1V8::SET + mode).value);
    }

    fn can(&mut self, timing: Timing) -> bool {
        let able: LocalRegisterCopy<u32, CapabilitiesHigh::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::CapabilitiesHigh));
        self.switchable
            && match timing {
                Timing::Sdr104 => able.is_set(CapabilitiesHigh::SDR104),
                Timing::Ddr50 => able.is_set(CapabilitiesHigh::DDR50),
                Timing::Sdr50 => able.is_set(CapabilitiesHigh::SDR50),
                _ => false,
            }
    }

    fn tune(&mut self, timing: Timing) -> Result<(), HostError> {
        let sdr50 = CapabilitiesHigh::TUNE_SDR50::SET.value;
        match timing {
            Timing::Sdr104 => {}
            Timing::Sdr50 if self.bus.read(Register::CapabilitiesHigh) & sdr50 != 0 => {}
            _ => return Ok(()),
        }
        let result = self.find_sampling_clock();
        if result.is_err() {
            let control2 = self.bus.read(Register::Control2);
            self.write(Register::Control2, control2 & !(Control2::TUNE::SET + Control2::TUNED::SET).value);
            self.recover()?;
        }
        result
    }

    fn signal_1v8(&mut self, power: &mut dyn CardPower) -> Result<(), HostError> {
        // SD 4.2.4.2, SDHCI 3.6.1: the card holds its lines low until the clock has stopped and come back at 1.8 V.
        let clock = self.clock();
        let running = self.clock_hz;
        self.write(Register::Clock, clock.get() & !Clock::CARD::SET.value);
        self.clock_hz = 0;
        if self.present().read(Present::DATA_LINES) != 0 || power.signal_1v8().is_err() {
            return Err(HostError::Voltage);
        }
        self.write(Register::Control2, Control2::SIGNAL_1V8::SET.value);
        self.pause(SETTLE_SIGNAL);
        if self.bus.read(Register::Control2) & Control2::SIGNAL_1V8::SET.value == 0 {
            return Err(HostError::Voltage); // the controller does not see 1.8 V
        }
        self.write(Register::Clock, clock.get());
        self.clock_hz = running;
        self.pause(LINES_BACK);
        if self.present().read(Present::DATA_LINES) != 0xf {
            return Err(HostError::Voltage);
        }
        Ok(())
    }

    fn has_high_speed(&mut self) -> bool {
        self.bus.read(Register::Capabilities) & Capabilities::HIGH_SPEED::SET.value != 0
    }

    fn command(&mut self, command: &Command) -> Result<Response, HostError> {
        let result = self.send(command, None);
        if result.is_err() {
            self.recover()?;
        }
        result
    }

    fn read(
        &mut self,
        command: &Command,
        block_bytes: usize,
        buffer: &mut [u8],
        done: &mut usize,
    ) -> Result<Response, HostError> {
        *done = 0;
        let blocks = buffer.len() / block_bytes.max(1);
        let whole = block_bytes != 0 && block_bytes.is_multiple_of(4) && blocks * block_bytes == buffer.len();
        if !whole || blocks == 0 || blocks > LARGEST_TRANSFER || block_bytes > 512 {
            return Err(HostError::TransferSize { command: command.index, bytes: buffer.len() });
        }
        let mut mode = Transfer::DATA::SET + Transfer::DIRECTION::Read;
        if blocks > 1 {
            mode += Transfer::MULTIPLE::SET + Transfer::COUNT_ENABLE::SET + Transfer::AUTO_STOP::Command12;
        }
        // Both fit: block_bytes <= 512 and blocks <= 65,535 were checked above.
        let size = Block::SIZE.val(block_bytes as u32) + Block::COUNT.val(blocks as u32);
        self.way = if buffer.len() <= PIECE * PIECES { self.prepare(buffer) } else { Way::Programmed };
        let direct = self.way != Way::Programmed;
        if direct {
            mode += Transfer::DMA::SET;
        }
        let result = self.send(command, Some((size.value, mode.value))).and_then(|response| {
            if direct {
                self.land(command.index, buffer)?;
                *done = blocks;
            } else {
                self.take(command.index, block_bytes, buffer, done)?;
            }
            Ok(response)
        });
        let bytes = (*done * block_bytes) as u64;
        let moved = if direct { &mut self.moved.1 } else { &mut self.moved.0 };
        *moved += bytes;
        if let Err(error) = &result {
            // A controller that never came to an end has not reached memory, either, or is still at it: the reset stops it.
            self.dma_failed |= direct && matches!(error, HostError::Memory { .. } | HostError::Stuck { .. });
            self.careful = direct;
            self.recover()?;
        }
        result
    }

    fn largest_transfer(&mut self) -> usize {
        let table = self.table_range();
        let direct = !self.dma_failed && self.bus.reach(table).is_some();
        if direct { PIECE * PIECES / BLOCK_BYTES } else { LARGEST_TRANSFER }
    }

    fn micros(&mut self) -> u64 {
        self.bus.micros()
    }

    fn pause(&mut self, micros: u64) {
        Sdhci::pause(self, micros);
    }
}

impl<B> fmt::Debug for Sdhci<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sdhci").field("base_hz", &self.base_hz).field("clock_hz", &self.clock_hz).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::{in_memory, view};

    #[test]
    fn every_name_reaches_its_own_32_bit_word() {
        let registers = in_memory::<Registers>();
        let words = view::<[ReadWrite<u32>; 64]>(core::ptr::from_ref(registers) as usize);
        let mut bus = Mmio::new(registers, || 0, None);
        use Register::*;
        let written = [
            Block,
            Argument,
            Transfer,
            Data,
            Control,
            Clock,
            Status,
            StatusEnable,
            SignalEnable,
            Control2,
            AdmaLow,
            AdmaHigh,
        ];
        let read =
            [Response0, Response1, Response2, Response3, Present, Capabilities, CapabilitiesHigh, Version];
        for (register, value) in written.into_iter().zip(0xa000_0001..) {
            bus.write(register, value);
            assert_eq!(words[register as usize / 4].get(), value, "{register:?}");
        }
        for (word, value) in words.iter().zip(0xb000_0000..) {
            word.set(value);
        }
        for register in written.into_iter().chain(read) {
            assert_eq!(bus.read(register), 0xb000_0000 + register as u32 / 4, "{register:?}");
        }
    }

    #[test]
    fn a_window_reaches_what_lies_in_it_whole() {
        let alias = Window { bus: 0xc000_0000, memory: 0, bytes: 1 << 30 };
        assert_eq!(alias.reach(0x1000..0x2000), Some(0xc000_1000));
        assert_eq!(alias.reach(0x3fff_f000..0x4000_0000), Some(0xffff_f000));
        assert_eq!(alias.reach(0x3fff_f000..0x4000_0001), None);
        let above = Window { bus: 0x1000, memory: 0x4000_0000, bytes: 0x1000 };
        assert_eq!(above.reach(0x3fff_ffff..0x4000_0001), None);
        assert_eq!(above.reach(0x4000_0100..0x4000_0200), Some(0x1100));
        let endless = Window { bus: u64::MAX, memory: 0, bytes: u64::MAX };
        assert_eq!(endless.reach(1..2), None);
        let all = Window { bus: 0, memory: 0, bytes: u64::MAX };
        assert_eq!(all.reach(0x2_0000_0000..0x2_0000_1000), Some(0x2_0000_0000));
        let joined = mmu::JOINED.start as usize;
        assert_eq!(all.reach(joined..joined + 64), None, "no device knows that address");
    }
}
