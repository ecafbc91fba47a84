//! The card: its first MiB, read twice past all buffers, is the same.

use alloc::format;
use alloc::vec::Vec;

use super::{Bench, Outcome};

/// Bytes that are read.
const LENGTH: usize = 1 << 20;

/// Reads and compares.
pub fn card(bench: &mut Bench) -> Outcome {
    let platform = &mut *bench.platform;
    if !platform.has_card_slot() {
        return Outcome::NotDone("this board has no card slot".into());
    }
    let mut first = Vec::new();
    let mut again = Vec::new();
    if first.try_reserve_exact(LENGTH).is_err() || again.try_reserve_exact(LENGTH).is_err() {
        return Outcome::NotDone("no memory is free for it".into());
    }
    first.resize(LENGTH, 0u8);
    again.resize(LENGTH, 0xffu8); // what is not read must differ
    // The first read also wakes the card up: the second one is timed.
    if let Err(why) = platform.read_card(0, &mut first) {
        return Outcome::Failed(why);
    }
    let start = platform.nanos();
    if let Err(why) = platform.read_card(0, &mut again) {
        return Outcome::Failed(format!("the second time: {why}"));
    }
    let nanos = (platform.nanos() - start).max(1);
    if let Some(at) = first.iter().zip(&again).position(|(one, other)| one != other) {
        let (one, other) = (first[at], again[at]);
        return Outcome::Failed(format!(
            "two reads differ at byte {at}: {one:#04x} and {other:#04x} (sector {})",
            at / 512
        ));
    }
    let kind = platform.status().card.unwrap_or_default();
    let rate = LENGTH as f64 / nanos as f64 * 1e3;
    Outcome::Ok(format!("first MiB read twice, the same, {rate:.1} MB/s; {kind}"))
}
