//! `selftest`: the board examines itself, and says so in a report that can be pasted into a bug report.
//!
//! Each check is a row of [`CHECKS`]: a name, and a function that gives what was done, or why it failed. A check that
//! this board can't have says so and counts for nothing.

mod card;
mod cores;
mod kernels;
mod ram;

use alloc::string::String;
use core::fmt::Write;

use super::{Shell, VERSION};
use crate::loader::Mib;
use crate::{Platform, Status};

/// Lines that say which part to paste.
pub const BEGIN: &str = "-------- selftest: paste from here --------";
/// The other one.
pub const END: &str = "-------- selftest: to here --------";

/// How a check ended.
pub enum Outcome {
    /// What was done, with numbers.
    Ok(String),
    /// What is wrong.
    Failed(String),
    /// Why it was not done.
    NotDone(String),
}

/// What the checks may know.
pub struct Bench<'a> {
    platform: &'a mut dyn Platform,
    /// MiB of memory to examine.
    mib: u64,
}

type Check = (&'static str, fn(&mut Bench) -> Outcome);

/// All checks, quick ones first.
static CHECKS: &[Check] = &[
    ("cores", cores::cores),
    ("timer", cores::timer),
    ("interrupts", cores::interrupts),
    ("kernels", kernels::kernels),
    ("memory", ram::memory),
    ("card", card::card),
];

/// MiB of memory that are examined unless the user says otherwise: far more than all caches, a second's work.
const MIB: u64 = 64;

/// `selftest [MIB]`.
pub fn selftest(shell: &mut Shell, argument: &str) {
    let mib = match argument {
        "" => Some(MIB),
        "all" => Some(u64::MAX >> 20),
        number => number.parse().ok().filter(|&mib| mib > 0),
    };
    let Some(mib) = mib else {
        return shell.say("selftest [MIB]: how much memory to examine, 64 MiB without a number, or `all`.");
    };
    shell.say(BEGIN);
    for line in facts(&*shell.platform, shell.level.name()).lines() {
        shell.say(line);
    }
    let (mut ok, mut failed, mut not_done) = (0, String::new(), 0);
    for &(name, check) in CHECKS {
        if shell.platform.interrupted() {
            shell.interrupt_served();
            return shell.say("selftest stopped by Ctrl-C.");
        }
        let outcome = check(&mut Bench { platform: &mut *shell.platform, mib });
        let line = match outcome {
            Outcome::Ok(what) => {
                ok += 1;
                alloc::format!("{name:12} ok: {what}")
            }
            Outcome::Failed(why) => {
                let _ = write!(failed, " {name}");
                alloc::format!("{name:12} failed: {why}")
            }
            Outcome::NotDone(why) => {
                not_done += 1;
                alloc::format!("{name:12} not done: {why}")
            }
        };
        shell.say(line);
    }
    let verdict =
        if failed.is_empty() { String::from("nothing failed") } else { alloc::format!("FAILED:{failed}") };
    shell.say(alloc::format!("summary      {verdict}; {ok} ok, {not_done} not done, of {}", CHECKS.len()));
    shell.say(END);
}

/// What a reader of the report has to know of the board.
fn facts(platform: &dyn Platform, level: &str) -> String {
    let status = platform.status();
    let Status { board, cores, cpu, ram, .. } = &status;
    let mut text = alloc::format!("EMBODIOS     {VERSION}\nboard        {board}");
    if let Some(revision) = status.revision {
        let _ = write!(text, ", revision {revision:x}");
    }
    if let Some(firmware) = platform.firmware() {
        let _ = write!(text, ", firmware {firmware:#x}");
    }
    let _ = write!(text, "\ncpu          {cores} x {cpu}, level {level}");
    for (name, hz) in [("Arm", status.arm_hz), ("core", status.core_hz)] {
        if let Some(hz) = hz {
            let _ = write!(text, ", {name} clock {} MHz", hz / 1_000_000);
        }
    }
    let _ = write!(text, "\nram          {}, {} free for a model", Mib(*ram), Mib(platform.memory_free()));
    if let Some(milli) = status.temperature_milli {
        let _ = write!(text, "\ntemperature  {}.{} C", milli / 1000, milli % 1000 / 100);
    }
    if let Some(bits) = status.throttled {
        let _ = write!(text, ", throttle bits {bits:#x}");
    }
    if let Some(display) = &status.display {
        let _ = write!(text, "\ndisplay      {display}");
    }
    let arguments = platform.arguments();
    let _ = write!(text, "\narguments    {}", if arguments.is_empty() { "none" } else { arguments });
    text
}
