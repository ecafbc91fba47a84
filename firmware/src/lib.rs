//! The portable half of the firmware: line editing, configuration, model loading, the shell.
//!
//! Nothing in here knows a register. The board is seen through two traits, [`Terminal`] and [`Platform`],
//! so that everything a user meets at the prompt is tested on a PC with a scripted terminal.
//! [`run`] is the whole program from the banner to `off`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod config;
mod console;
pub mod layout;
pub mod light;
mod loader;
pub mod memory;
pub mod noise;
pub mod screen;
mod shell;
#[cfg(test)]
mod testing;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use embodios::bench::{Counters, Waits};
use embodios::source::InPlace;
use embodios::{ByteSource, Pool};
pub use loader::Mib;

pub use shell::{Greeting, run};

/// The serial line to the user, as bytes.
pub trait Terminal {
    /// The next byte received, if there is one.
    ///
    /// Bytes keep their order and none is taken out: a Ctrl-C (0x03) is noted by
    /// [`Platform::interrupted`] *and* delivered here, so that the editor knows what came before it.
    fn read(&mut self) -> Option<u8>;
    /// Sends bytes as they are; returns when all have been handed to the device or its deadline passed.
    fn write(&mut self, bytes: &[u8]);
    /// Sleeps until there may be something to read, at most about 10 ms.
    fn wait(&mut self);
    /// Whether it has been sent the [`Greeting`].
    fn greeted(&self) -> bool {
        false
    }
    /// Bytes that came while the receive ring was full, since the last call.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// What the shell needs of the board.
pub trait Platform {
    /// The cores.
    fn pool(&self) -> &dyn Pool;
    /// A clock that never goes back, in nanoseconds.
    fn nanos(&self) -> u64;
    /// Time from the first instruction to this call, in nanoseconds: the banner asks once.
    fn boot_to_prompt_nanos(&self) -> u64;
    /// A number that differs from one start to the next: the sampler's seed when the user gave none.
    fn random_seed(&self) -> u64;

    /// Whether a Ctrl-C was received since [`Platform::clear_interrupt`]. Cheap: asked once a layer.
    fn interrupted(&self) -> bool;
    /// Forgets a Ctrl-C that was noted.
    fn clear_interrupt(&self);

    /// The board, its clocks, its temperature, as they are now.
    fn status(&self) -> Status;
    /// VideoCore's throttle bits ([`Status::throttled`]) alone, if it can be asked. Asked once after an answer.
    fn throttled(&self) -> Option<u32> {
        None
    }
    /// RAM by use.
    fn memory(&self) -> Vec<Region>;
    /// Bytes that a model with its cache and scratch may still take.
    fn memory_free(&self) -> u64;
    /// Whether pieces of these sizes could all be had, each in one stretch of RAM, if no model were loaded.
    fn memory_holds(&self, _pieces: &[u64]) -> bool {
        true
    }
    /// Interrupts taken by all cores since the start, if they are counted.
    fn interrupts(&self) -> Option<Interrupts> {
        None
    }
    /// Cores that no interrupt reaches: what comes for them is looked for.
    fn deaf_cores(&self) -> usize {
        0
    }
    /// Has every core try anew whether interrupts reach it; gives the number of those that they do not reach, or none if
    /// there is nothing to try.
    fn prove_interrupts(&self) -> Option<usize> {
        None
    }
    /// The performance monitor, if the CPU has one that works.
    fn counters(&self) -> Option<&dyn Counters> {
        None
    }
    /// How the cores have waited for each other since the start.
    fn waits(&self) -> Option<Waits> {
        None
    }
    /// Calls of the allocator since the start.
    fn allocations(&self) -> Option<u64> {
        None
    }
    /// Bytes that `memcpy` and `memmove` have copied since the first call of this.
    fn copied(&self) -> Option<u64> {
        None
    }
    /// The cores' stacks.
    fn stacks(&self) -> Vec<Stack> {
        Vec::new()
    }
    /// Bytes of the small heap in use: now, and at most since the start.
    fn heap(&self) -> Option<(u64, u64)> {
        None
    }

    /// What each core says of itself, asked of all of them at once.
    fn cores(&self) -> Vec<CoreReport> {
        Vec::new()
    }
    /// Microseconds by a second clock, which does not hang on the cores', if there is one.
    fn chip_micros(&self) -> Option<u64> {
        None
    }
    /// The revision of VideoCore's firmware, where there is one.
    fn firmware(&self) -> Option<u32> {
        None
    }
    /// Whether there is a place for a card.
    fn has_card_slot(&self) -> bool {
        true
    }
    /// Reads the card's own sectors from `first` on, whatever is on them, past all buffers.
    fn read_card(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), String>;

    /// The files in the card's root directory. The error is one sentence that says what to do.
    fn files(&mut self) -> Result<Vec<FileEntry>, String>;
    /// Opens a file of the card's root directory by the name [`Platform::files`] gave.
    fn open(&mut self, name: &str) -> Result<Box<dyn ByteSource>, String>;
    /// A model that the boot loader has put in memory (initrd).
    fn preloaded(&self) -> Option<&'static InPlace>;
    /// The boot arguments.
    fn arguments(&self) -> &str;
    /// Has the activity light show this from now on, whenever the board waits for a key.
    fn signal(&self, _: light::Signal) {}

    /// Makes `pl011` or `mini-uart` the console; an error says why that can't be.
    fn set_console(&mut self, name: &str) -> Result<(), String>;
    /// Sets how far ahead all cores prefetch, 0 to 3; an error says why that can't be.
    fn set_prefetch(&mut self, _distance: u8) -> Result<(), String> {
        Err(String::from("this board has no such setting"))
    }
    /// Commits an error of this kind, to see it caught (`fault` command): does not return if it works.
    /// The error lists the kinds there are.
    fn provoke(&mut self, kind: &str) -> Result<(), String>;
    /// Ends an emulated machine with this code if the boot arguments allow it (`semihosting`); else returns.
    fn exit(&mut self, code: u32);
    /// Restarts the board. Returns only in tests.
    fn reboot(&mut self);
    /// Switches the board off, or stops it for good where it can't. Returns only in tests.
    fn power_off(&mut self);
}

/// The board as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its name: "Raspberry Pi 4 Model B".
    pub board: String,
    /// The revision code VideoCore gives, if it was asked.
    pub revision: Option<u32>,
    /// Cores at work.
    pub cores: usize,
    /// What the cores are: "Cortex-A72".
    pub cpu: String,
    /// RAM in bytes.
    pub ram: u64,
    /// Arm clock, measured where the firmware can, else as set.
    pub arm_hz: Option<u64>,
    /// The highest Arm clock that the firmware allows this board.
    pub arm_max_hz: Option<u64>,
    /// VPU core clock, which the mini-UART hangs on.
    pub core_hz: Option<u64>,
    /// Thousandths of a degree Celsius.
    pub temperature_milli: Option<i32>,
    /// VideoCore's throttle bits (mailbox tag 0x30046).
    pub throttled: Option<u32>,
    /// The display, or why there is none, where the board could have one.
    pub display: Option<String>,
    /// The card, once it was looked at: its kind, how it is read, how much was.
    pub card: Option<String>,
}

/// Interrupts by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Something was received: on core 0 only.
    pub console: u64,
    /// A core that slept was woken by another.
    pub wake: u64,
    /// Any other: the timer that ends a nap at the prompt.
    pub other: u64,
}

impl Interrupts {
    /// All of them.
    pub fn total(self) -> u64 {
        self.console + self.wake + self.other
    }

    /// Those that came after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            console: self.console.saturating_sub(before.console),
            wake: self.wake.saturating_sub(before.wake),
            other: self.other.saturating_sub(before.other),
        }
    }
}

impl fmt::Display for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { console, wake, other } = self;
        write!(f, "{} interrupts (console {console}, wake-ups {wake}, other {other})", self.total())
    }
}

/// That interrupts do not come where they should, for the user.
#[derive(Clone, Copy, Debug)]
pub struct NoInterrupts {
    /// Cores that none reaches.
    pub deaf: usize,
    /// All of them.
    pub cores: usize,
}

impl fmt::Display for NoInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deaf, cores } = self;
        write!(
            f,
            "No interrupt reaches {deaf} of {cores} cores: the boot loader has left them to the secure side. All goes on \
             without, keys are looked for every 2 ms; idle cores take more power. On a Raspberry Pi 4 take `enable_gic=0` \
             and `armstub` out of config.txt."
        )
    }
}

/// What a core says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreReport {
    /// Its number.
    pub number: usize,
    /// Its identification register (MIDR_EL1).
    pub kind: u64,
    /// Ticks a second of its timer.
    pub frequency: u64,
    /// When it was asked, on the clock of [`Platform::nanos`].
    pub nanos: u64,
}

/// A stretch of RAM and what it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it serves: "kernel", "heap", "model", "stacks", "VideoCore".
    pub name: String,
    /// First byte.
    pub start: u64,
    /// Size.
    pub bytes: u64,
    /// How much of it is in use.
    pub used: u64,
}

/// A core's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Whose it is: "core 0".
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The most that was ever in use.
    pub most: u64,
}

/// A file on the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its long name.
    pub name: String,
    /// Size.
    pub bytes: u64,
}
