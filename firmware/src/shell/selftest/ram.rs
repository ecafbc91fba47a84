//! Memory: patterns are written to much of what is free and read back, by all cores.
//!
//! A word that comes back wrong is told with its address. Patterns: each word its own address, which finds address
//! lines that are stuck or tied together; then the opposite; then checkerboards of bits. Each is written to everything
//! before anything is read, and everything is far more than the caches hold, so it comes from the chips.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use embodios::pool::share;
use spin::Mutex;

use super::{Bench, Outcome};
use crate::loader::Mib;

/// Words taken in one piece: small enough for memory in stretches, large enough not to come from the small heap.
const PIECE: usize = (8 << 20) / size_of::<u64>();
/// What stays free: for whatever needs memory meanwhile.
const SPARE: u64 = 16 << 20;
/// Words that a core does at once.
const UNIT: usize = PIECE / 32;

/// What is written where.
type Pattern = fn(address: u64) -> u64;
const PATTERNS: [(&str, Pattern); 4] = [
    ("own address", |address| address),
    ("opposite address", |address| !address),
    ("0xaa and 0x55", |address| if address & 8 == 0 { 0xaaaa_aaaa_aaaa_aaaa } else { 0x5555_5555_5555_5555 }),
    ("0x55 and 0xaa", |address| if address & 8 == 0 { 0x5555_5555_5555_5555 } else { 0xaaaa_aaaa_aaaa_aaaa }),
];

/// Examines as much as was asked for, or as there is.
pub fn memory(bench: &mut Bench) -> Outcome {
    let wanted = bench.mib << 20;
    let mut pieces: Vec<Vec<AtomicU64>> = Vec::new();
    let mut taken = 0;
    while taken < wanted && bench.platform.memory_free() > SPARE + (PIECE * size_of::<u64>()) as u64 {
        let mut piece = Vec::new();
        if pieces.try_reserve(1).is_err() || piece.try_reserve_exact(PIECE).is_err() {
            break;
        }
        piece.resize_with(PIECE, || AtomicU64::new(0));
        taken += (PIECE * size_of::<u64>()) as u64;
        pieces.push(piece);
    }
    if pieces.is_empty() {
        return Outcome::NotDone("no memory is free: `reboot`, choose no model, and try again".into());
    }
    let start = bench.platform.nanos();
    for (name, pattern) in PATTERNS {
        if bench.platform.interrupted() {
            return Outcome::NotDone("stopped by Ctrl-C".into());
        }
        if let Some(why) = examine(bench.platform.pool(), &pieces, pattern) {
            return Outcome::Failed(format!("pattern {name}: {why}"));
        }
    }
    let nanos = (bench.platform.nanos() - start).max(1);
    let moved = taken * 2 * PATTERNS.len() as u64;
    Outcome::Ok(format!(
        "{} in {} pieces, {} patterns by {} cores, {:.2} GB/s",
        Mib(taken),
        pieces.len(),
        PATTERNS.len(),
        bench.platform.pool().width(),
        moved as f64 / nanos as f64
    ))
}

/// Writes a pattern to all pieces, then reads it: who has written a word does not read it.
fn examine(pool: &dyn embodios::Pool, pieces: &[Vec<AtomicU64>], pattern: Pattern) -> Option<String> {
    let units = pieces.len() * (PIECE / UNIT);
    let words = |unit: usize| {
        let (piece, at) = (unit / (PIECE / UNIT), unit % (PIECE / UNIT) * UNIT);
        &pieces[piece][at..at + UNIT]
    };
    let address = |word: &AtomicU64| core::ptr::from_ref(word) as u64;
    share(pool, units, &|_, mine: Range<usize>| {
        for word in mine.flat_map(words) {
            word.store(pattern(address(word)), Ordering::Relaxed);
        }
    });
    let wrong = Mutex::new(None::<(u64, u64, u64)>);
    let count = AtomicU64::new(0);
    share(pool, units, &|_, mine: Range<usize>| {
        for word in mine.map(|unit| units - 1 - unit).flat_map(words) {
            let (got, wanted) = (word.load(Ordering::Relaxed), pattern(address(word)));
            if got != wanted {
                count.fetch_add(1, Ordering::Relaxed);
                wrong.lock().get_or_insert((address(word), got, wanted));
            }
        }
    });
    let (address, got, wanted) = wrong.into_inner()?;
    let count = count.into_inner();
    Some(format!("{count} words are wrong, one at {address:#x}: {got:#018x} for {wanted:#018x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodios::Alone;

    #[test]
    fn good_memory_passes_and_a_word_that_does_not_keep_its_value_is_told_with_its_address() {
        let pieces: Vec<Vec<AtomicU64>> =
            (0..2).map(|_| (0..PIECE).map(|_| AtomicU64::new(0)).collect()).collect();
        for (name, pattern) in PATTERNS {
            assert_eq!(examine(&Alone, &pieces, pattern), None, "{name}");
            // It is really written.
            let word = &pieces[1][12_345];
            assert_eq!(word.load(Ordering::Relaxed), pattern(core::ptr::from_ref(word) as u64), "{name}");
        }
        /// Memory in which a bit flips behind every job.
        struct Flipping<'a>(&'a AtomicU64);
        impl embodios::Pool for Flipping<'_> {
            fn width(&self) -> usize {
                2 // `share` would not ask a pool of one
            }
            fn run(&self, job: &(dyn Fn(usize) + Sync)) {
                job(0);
                job(1);
                self.0.fetch_xor(1 << 17, Ordering::Relaxed);
            }
        }
        let bad = &pieces[0][777];
        let why = examine(&Flipping(bad), &pieces, PATTERNS[0].1).unwrap();
        let address = core::ptr::from_ref(bad) as u64;
        assert!(why.starts_with(&format!("1 words are wrong, one at {address:#x}: ")), "{why}");
        assert!(why.ends_with(&format!("{:#018x} for {address:#018x}", address ^ (1 << 17))), "{why}");
    }
}
