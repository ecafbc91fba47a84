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

use tock_registers::LocalRegisterCopy;

use super::sd_card::{Command, HostError, Reply, Response, Stage};

mod adma;
mod host;
mod power;
mod registers;

use adma::{LINE, Table};
pub use power::{AlwaysOn, CardPower, Unsupported};
use registers::bits::{Block, Capabilities, Clock, Control, Control2, Interrupt, Present, Transfer};
pub use registers::{Bus, Mmio, Register, Registers, Window};

/// Tuning blocks after which a controller that is not done never will be: SDHCI 3.7.7.
const TUNING_BLOCKS: usize = 40;
/// Largest number of blocks one command can count: the counter has 16 bits.
pub const LARGEST_TRANSFER: usize = 65_535;

// Deadlines, microseconds.
const RESET: u64 = 1_000_000; // SDHCI gives none; Linux and U-Boot `sdhci.c` wait 100 ms, Circle `emmc.cpp` 1 s
const LINES_FREE: u64 = 500_000; // a busy card may hold DAT0 for 250 ms (SD 4.6.2.2)
const ANSWER: u64 = 100_000; // 64 SD clocks (SD 4.12), 320 µs at the slowest clock; generous
const BUSY: u64 = 500_000; // as LINES_FREE
const BLOCK: u64 = 500_000; // a card has 100 ms to the first byte (SD 4.6.2.1); poor ones take more
const TUNING_BLOCK: u64 = 150_000; // SDHCI 3.7.7: all of them take at most 150 ms

const ALL: u32 = 0xffff_ffff;

/// Slowest card that is waited for, bytes a microsecond.
const SLOWEST_CARD: u64 = 1;
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
    /// `base_hz` is the clock that feeds the controller (Pi 4: mailbox clock 12, 100 MHz as Circle's `emmc.cpp` has it);
    /// without it the controller's own capabilities are believed. Touches nothing yet.
    pub const fn new(bus: B, base_hz: Option<u32>) -> Self {
        Self {
            table: Table::EMPTY,
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

    /// Pause between two register writes in microseconds: four SD clocks, or 10 µs while it stands still, as in Linux
    /// (`sdhci_iproc_writel`), which leaves it out above 400 kHz; we do above 20 MHz, where two of them are 100 ns.
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
        let table = self.table.range();
        let (Some(to), Some(from)) = (self.bus.reach(memory.clone()), self.bus.reach(table.clone())) else {
            return Way::Programmed;
        };
        let wide = to + buffer.len() as u64 > 1 << 32 || from + size_of::<Table>() as u64 > 1 << 32;
        if !able.is_set(Capabilities::ADMA2) || wide && !able.is_set(Capabilities::BUS_64) {
            return Way::Programmed;
        }
        self.table.describe(to, buffer.len(), wide);
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

impl<B> fmt::Debug for Sdhci<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sdhci").field("base_hz", &self.base_hz).field("clock_hz", &self.clock_hz).finish()
    }
}
