//! Whether all cores work, and whether their clocks are one clock.

use alloc::format;
use alloc::string::ToString;

use super::{Bench, Outcome};
use crate::NoInterrupts;

/// How long the two clocks are compared.
const COMPARED_NANOS: u64 = 50_000_000;
/// How far apart they may be: both hang on crystals, but each is read a little before or after the other.
const TOLERANCE_PERMILLE: u64 = 20;

/// Every core says who it is, and what time it is.
pub fn cores(bench: &mut Bench) -> Outcome {
    let before = bench.platform.nanos();
    let told = bench.platform.cores();
    let after = bench.platform.nanos();
    let wanted = bench.platform.status().cores;
    let Some(first) = told.first() else {
        return Outcome::NotDone("the board does not ask its cores".into());
    };
    if told.len() != wanted {
        return Outcome::Failed(format!("{} of {wanted} cores answered", told.len()));
    }
    for (index, core) in told.iter().enumerate() {
        if told[..index].iter().any(|other| other.number == core.number) {
            return Outcome::Failed(format!("two cores say that they are number {}", core.number));
        }
        if core.kind != first.kind {
            return Outcome::Failed(format!(
                "core {} is of kind {:#x}, core {} of {:#x}",
                core.number, core.kind, first.number, first.kind
            ));
        }
        if core.frequency != first.frequency {
            return Outcome::Failed(format!(
                "core {} counts {} Hz, core {} {} Hz",
                core.number, core.frequency, first.number, first.frequency
            ));
        }
        if !(before..=after).contains(&core.nanos) {
            return Outcome::Failed(format!(
                "core {} says it is {} ns, between {before} and {after} on core {}",
                core.number, core.nanos, first.number
            ));
        }
    }
    Outcome::Ok(format!("{wanted} answered, MIDR {:#x}, one clock of {} Hz", first.kind, first.frequency))
}

/// Every core sends itself the interrupt that wakes it; core 0's timer interrupts it, too.
pub fn interrupts(bench: &mut Bench) -> Outcome {
    let cores = bench.platform.status().cores;
    match bench.platform.prove_interrupts() {
        None => Outcome::NotDone("the board does not try its interrupts".into()),
        Some(0) => Outcome::Ok(format!("wake-ups reach {cores} cores, the timer's core 0")),
        Some(deaf) => Outcome::Failed(NoInterrupts { deaf, cores }.to_string()),
    }
}

/// The cores' timer against the chip's own, if there is one.
pub fn timer(bench: &mut Bench) -> Outcome {
    let platform = &*bench.platform;
    let (Some(chip_before), before) = (platform.chip_micros(), platform.nanos()) else {
        return Outcome::NotDone("this board has no second clock".into());
    };
    let mut last = before;
    while platform.nanos() < before + COMPARED_NANOS {
        let now = platform.nanos();
        if now < last {
            return Outcome::Failed(format!("time went back from {last} to {now} ns"));
        }
        last = now;
    }
    let (Some(chip_after), after) = (platform.chip_micros(), platform.nanos()) else {
        return Outcome::Failed("the second clock fell silent".into());
    };
    let (ours, chip) = ((after - before) / 1000, chip_after.wrapping_sub(chip_before));
    if ours.abs_diff(chip) * 1000 > ours * TOLERANCE_PERMILLE {
        return Outcome::Failed(format!("{ours} us by the cores' timer are {chip} us by the chip's"));
    }
    Outcome::Ok(format!("{ours} us by the cores' timer, {chip} us by the chip's"))
}
