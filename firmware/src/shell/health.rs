//! Health: what VideoCore does to the board's speed, and a line in or under an answer when that changes.
//!
//! It is asked after an answer, and within one every [`EVERY_NANOS`] at most: on a Raspberry Pi 5 whose boot loader is older
//! than August 2026 each question takes its time. What happened meanwhile is not missed: VideoCore keeps a second set of
//! bits for what has happened since the start.
//!
//! Source: Raspberry Pi documentation, "Frequency management and thermal control"; mailbox tag 0x30046.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use super::Shell;
use crate::console::Console;
use crate::{Platform, Status};

/// Time between two questions within an answer.
pub const EVERY_NANOS: u64 = 20_000_000_000;

/// VideoCore's throttle bits, what is now; [`EARLIER`] higher: since the start.
const THROTTLE: [(u32, &str); 4] = [
    (0, "the supply voltage is too low: use a stronger power supply"),
    (1, "the Arm clock is capped"),
    (2, "throttled"),
    (3, "the soft temperature limit is reached: cool the board"),
];
const EARLIER: u32 = 16;

/// What is said of one of the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tense {
    Now,
    Earlier,
}

/// Which of the four things are, and which only were, with these bits.
fn told(bits: u32) -> impl Iterator<Item = (u32, &'static str, Tense)> {
    THROTTLE.into_iter().filter_map(move |(bit, words)| {
        match (bits >> bit & 1, bits >> (bit + EARLIER) & 1) {
            (1, _) => Some((bit, words, Tense::Now)),
            (_, 1) => Some((bit, words, Tense::Earlier)),
            _ => None,
        }
    })
}

/// The lines that a change of the bits is worth.
fn changes(before: u32, now: u32) -> impl Iterator<Item = String> {
    let begun = told(now).filter_map(move |(bit, words, tense)| {
        let was = |bit: u32| before >> bit & 1 == 1;
        match tense {
            Tense::Now if !was(bit) => Some(format!("slower: {words}")),
            // Told once; that it is over is told by the lines below.
            Tense::Earlier if !was(bit) && !was(bit + EARLIER) => {
                Some(format!("was slower for a time: {words}"))
            }
            _ => None,
        }
    });
    let over = THROTTLE.into_iter().filter(move |(bit, _)| before >> bit & 1 > now >> bit & 1);
    begun.chain(over.map(|(_, words)| format!("no longer: {}", words.split(':').next().unwrap_or(words))))
}

/// Temperature and clock in words, with a comma in front of each.
fn circumstances(status: &Status) -> String {
    let mut text = String::new();
    if let Some(milli) = status.temperature_milli {
        let _ = write!(text, ", {}.{} C", milli / 1000, milli % 1000 / 100);
    }
    if let Some(hz) = status.arm_hz {
        let _ = write!(text, ", Arm clock {} MHz", hz / 1_000_000);
    }
    text
}

/// Says what has changed since the last look, whose bits were `before`.
pub fn look(platform: &dyn Platform, console: &mut Console<'_>, before: &mut u32) {
    let Some(bits) = platform.throttled() else { return };
    let before = core::mem::replace(before, bits);
    if bits == before {
        return;
    }
    let now = circumstances(&platform.status());
    for change in changes(before, bits) {
        console.fresh_line();
        console.dim(format_args!("[{change}{now}]"));
    }
}

/// The lines of `status` about it.
pub fn report(shell: &mut Shell, status: &Status) {
    if let Some(milli) = status.temperature_milli {
        shell.say(format_args!("temperature  {}.{} C", milli / 1000, milli % 1000 / 100));
    }
    let Some(bits) = status.throttled else { return };
    for (_, words, tense) in told(bits) {
        let when = if tense == Tense::Earlier { "earlier: " } else { "" };
        shell.say(format_args!("power        {when}{words}"));
    }
    if told(bits).next().is_none() {
        shell.say("power        good");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(before: u32, now: u32) -> Vec<String> {
        changes(before, now).collect()
    }

    #[test]
    fn a_change_is_told_once_and_no_change_is_not() {
        const HOT: u32 = 1 << 2;
        let words = "slower: throttled";
        assert_eq!(lines(0, HOT | HOT << EARLIER), [words]);
        assert_eq!(lines(HOT | HOT << EARLIER, HOT | HOT << EARLIER), [""; 0]);
        assert_eq!(lines(HOT | HOT << EARLIER, HOT << EARLIER), ["no longer: throttled"]);
        assert_eq!(lines(HOT << EARLIER, HOT << EARLIER), [""; 0]);
        assert_eq!(lines(HOT << EARLIER, HOT | HOT << EARLIER), [words], "again");
    }

    #[test]
    fn what_began_and_ended_between_two_looks_is_told_too() {
        assert_eq!(
            lines(0, 1 << EARLIER),
            ["was slower for a time: the supply voltage is too low: use a stronger power supply"]
        );
        assert_eq!(
            lines(1 << EARLIER, 1 << EARLIER | 8),
            ["slower: the soft temperature limit is reached: cool the board"]
        );
        assert_eq!(lines(8, 1 << EARLIER).len(), 2, "one came, one went");
    }

    #[test]
    fn bits_that_nobody_has_explained_say_nothing() {
        assert_eq!(lines(0, 0xfff0_fff0), [""; 0]);
    }
}
