//! What the protocol asks of a host controller, and what that can answer.

use core::fmt;

use crate::drivers::sdhci::CardPower;

/// Which answer a command is given, and how it is checked: SD 4.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// None.
    None,
    /// Card status.
    R1,
    /// Card status, then the card may hold DAT0 low until it is done.
    R1Busy,
    /// Card identification or card-specific data, 128 bits.
    R2,
    /// Operating conditions; carries no checksum.
    R3,
    /// Relative address.
    R6,
    /// Echo of the voltage offered.
    R7,
}

/// One command to the card: SD 4.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// CMD number, 0 to 63.
    pub index: u8,
    /// Its argument.
    pub argument: u32,
    /// The answer to expect.
    pub reply: Reply,
}

impl Command {
    /// CMD12, which ends a transfer.
    pub const STOP_TRANSMISSION: u8 = 12;

    pub(super) const fn new(index: u8, argument: u32, reply: Reply) -> Self {
        Self { index, argument, reply }
    }
}

/// A card's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The 32 bits of a short answer.
    pub short: u32,
    /// The 128 bits of a long one; the checksum in bits 7:0 reads as 0.
    pub long: u128,
}

/// Data lines in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// DAT0 only.
    One,
    /// DAT0 to DAT3.
    Four,
}

/// What a command that got stuck was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The lines to be free for the next command.
    Lines,
    /// The answer.
    Answer,
    /// The card to be no longer busy.
    Busy,
    /// A block of data.
    Data,
    /// The end of the transfer.
    End,
}

/// What can go wrong between controller and card. `command` is the CMD number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The card did not answer a command.
    NoAnswer {
        /// CMD number.
        command: u8,
    },
    /// The answer arrived with a wrong checksum, index or end bit.
    AnswerGarbled {
        /// CMD number.
        command: u8,
    },
    /// The card accepted a read but sent nothing in time.
    NoData {
        /// CMD number.
        command: u8,
    },
    /// Data arrived with a wrong checksum or end bit.
    DataGarbled {
        /// CMD number.
        command: u8,
    },
    /// The card draws more current than the slot gives.
    Current {
        /// CMD number.
        command: u8,
    },
    /// The controller reported nothing at all before the deadline.
    Stuck {
        /// CMD number.
        command: u8,
        /// What was waited for.
        stage: Stage,
    },
    /// Another error the controller reported.
    Other {
        /// CMD number.
        command: u8,
        /// Interrupt status register.
        status: u32,
    },
    /// The controller found no way to the memory that a transfer was meant for.
    Memory {
        /// CMD number.
        command: u8,
    },
    /// A transfer that the controller cannot count.
    TransferSize {
        /// CMD number.
        command: u8,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The controller did not come out of reset.
    NoReset,
    /// No sampling clock was found at which the card's tuning pattern arrives.
    NotTuned,
    /// Signals did not get to 1.8 V.
    Voltage,
    /// The controller's clock did not become stable.
    ClockStuck,
    /// Nobody knows the clock that feeds the controller.
    ClockUnknown,
    /// The SD clock cannot be derived from the base clock.
    ClockRange {
        /// Clock that feeds the controller, Hz.
        base_hz: u32,
        /// SD clock asked for, Hz.
        wanted_hz: u32,
    },
    /// The controller follows an SDHCI specification before 3.00.
    TooOld {
        /// Specification version number as the register codes it.
        version: u32,
    },
}

impl HostError {
    /// Whether it is the controller's fault: trying again does not help.
    pub(super) fn is_final(&self) -> bool {
        use HostError::*;
        matches!(self, NoReset | ClockStuck | ClockUnknown | ClockRange { .. } | TooOld { .. })
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoAnswer { command } => write!(f, "no answer to CMD{command}"),
            Self::AnswerGarbled { command } => write!(f, "the answer to CMD{command} was garbled"),
            Self::NoData { command } => write!(f, "no data after CMD{command}"),
            Self::DataGarbled { command } => write!(f, "the data after CMD{command} was garbled (CRC)"),
            Self::Current { command } => write!(f, "the card drew too much current at CMD{command}"),
            Self::Stuck { command, stage } => {
                let what = match stage {
                    Stage::Lines => "for free lines before",
                    Stage::Answer => "for the controller to finish",
                    Stage::Busy => "for the card to finish",
                    Stage::Data => "for a block of data after",
                    Stage::End => "for the end of the transfer of",
                };
                write!(f, "waited too long {what} CMD{command}")
            }
            Self::Other { command, status } => {
                write!(f, "the controller reported an error at CMD{command} (status {status:#010x})")
            }
            Self::Memory { command } => {
                write!(f, "the SD controller could not reach memory at CMD{command} (ADMA error)")
            }
            Self::TransferSize { command, bytes } => {
                write!(f, "{bytes} bytes cannot be moved by one CMD{command}")
            }
            Self::NoReset => f.write_str("the SD controller did not come out of reset"),
            Self::NotTuned => f.write_str("the SD controller found no clock that suits the card's data"),
            Self::Voltage => f.write_str("the SD card's signals did not change to 1.8 V"),
            Self::ClockStuck => f.write_str("the SD controller's clock did not settle"),
            Self::ClockUnknown => f.write_str("the SD controller's base clock is unknown"),
            Self::ClockRange { base_hz, wanted_hz } => {
                write!(f, "the SD controller cannot make {wanted_hz} Hz from {base_hz} Hz")
            }
            Self::TooOld { version } => {
                write!(f, "the SD controller follows a specification before 3.00 (code {version})")
            }
        }
    }
}

/// A host controller, as the card protocol needs it.
pub trait Host {
    /// Resets everything, gives the card 3.3 V and a clock of at most 400 kHz.
    fn power_up(&mut self, power: &mut dyn CardPower) -> Result<(), HostError>;
    /// Sets the SD clock to at most `wanted_hz`; returns what it became.
    fn set_clock(&mut self, wanted_hz: u32) -> Result<u32, HostError>;
    /// Sets the number of data lines.
    fn set_width(&mut self, width: Width);
    /// Whether the controller can drive the high-speed timing.
    fn has_high_speed(&mut self) -> bool;
    /// Whether controller and slot can do a timing of 1.8 V, and undo it.
    fn can(&mut self, timing: Timing) -> bool;
    /// Selects a timing, which the card has been told. The clock may stand still until it is set.
    fn set_timing(&mut self, timing: Timing);
    /// Fits the controller to the card, where a timing needs that. Any change of the clock undoes it.
    fn tune(&mut self, timing: Timing) -> Result<(), HostError>;
    /// Takes signals to 1.8 V, once the card has agreed to (CMD11).
    fn signal_1v8(&mut self, power: &mut dyn CardPower) -> Result<(), HostError>;
    /// Sends a command without data. After an error the controller is ready for the next one.
    fn command(&mut self, command: &Command) -> Result<Response, HostError>;
    /// Sends a command and fills `buffer` with whole blocks of `block_bytes`. `done` tells how many
    /// arrived, also after an error; the last two of them are not to be trusted then, since the
    /// controller's buffer runs ahead. A transfer of several blocks is ended by the controller (CMD12).
    fn read(
        &mut self,
        command: &Command,
        block_bytes: usize,
        buffer: &mut [u8],
        done: &mut usize,
    ) -> Result<Response, HostError>;
    /// Blocks that one command can move.
    fn largest_transfer(&mut self) -> usize;
    /// Microseconds since any fixed moment.
    fn micros(&mut self) -> u64;
    /// Waits.
    fn pause(&mut self, micros: u64);
}

/// How a card's data lines are timed, at which signal level: SD 3.9, table 3-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// 3.3 V, up to 25 MHz.
    Default,
    /// 3.3 V, up to 50 MHz.
    HighSpeed,
    /// 1.8 V, up to 25 MHz.
    Sdr12,
    /// 1.8 V, up to 50 MHz.
    Sdr25,
    /// 1.8 V, up to 50 MHz, on both edges.
    Ddr50,
    /// 1.8 V, up to 100 MHz.
    Sdr50,
    /// 1.8 V, up to 208 MHz.
    Sdr104,
}
