//! The SDHCI register map, the way to it, and the memory that a controller reaches.
//!
//! Source: SD Host Controller Simplified Specification 3.00.

use core::ops::Range;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

use crate::cpu::mmu;

/// Names for the bits of the registers.
pub(super) mod bits {
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
        // Of later steppings: a board with 8 GB has as much again above 4 GiB, out of the controller's reach.
        let same = Window { bus: 0, memory: 0, bytes: 0xfc00_0000 };
        assert_eq!(same.reach(0xfbff_f000..0xfc00_0000), Some(0xfbff_f000));
        assert_eq!(same.reach(0xfbff_f000..0xfc00_0040), None);
        assert_eq!(same.reach(0x1_0000_0000..0x1_0000_1000), None);
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
