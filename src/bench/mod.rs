//! Bench: how fast a model is read and written on this machine, and what that costs, on a PC and on a board.
//!
//! A [`Plan`] is a list of [`Case`]s: a prompt of so many tokens at once, then so many tokens one by one, on so many
//! cores. [`measure`] runs one; a [`Report`] makes the Markdown and the CSV. What a machine can count beside time it
//! offers as [`Meters`]; what it can't is `None` from here to the last table, never 0.

mod plan;
mod report;

pub use plan::{BadPlan, Case, HELP, Plan};
pub use report::{CSV_BEGIN, CSV_END, Report};

use crate::model::Model;
use crate::pool::{First, Pool};
use crate::session::{Runtime, Session, SessionError};
use crate::simd::{self, Mark};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// The events that have a column in the report, by the names [`Counters::events`] gives them.
pub const EVENTS: [&str; 7] =
    ["cycles", "instructions", "L1D refills", "L2D refills", "DTLB refills", "stalls backend", "bus access"];

/// The performance monitor, one per core; methods act on the calling core.
pub trait Counters: Sync {
    /// What it counts: names out of [`EVENTS`], those that this CPU has.
    fn events(&self) -> &[&'static str];
    /// Sets this core's counters to 0 and lets them count.
    fn start(&self);
    /// This core's counts since [`Self::start`], one for each event.
    fn read(&self, counts: &mut [u64]);
}

/// How a pool's workers have waited for each other, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Jobs run on more than one worker: each ends in a barrier.
    pub jobs: u64,
    /// How often a worker, the caller included, went to sleep.
    pub sleeps: u64,
}

/// What a machine can count. `None`: it can't.
pub trait Meters {
    /// The performance monitor.
    fn counters(&self) -> Option<&dyn Counters> {
        None
    }
    /// Interrupts taken by all cores since the start.
    fn interrupts(&self) -> Option<u64> {
        None
    }
    /// How the cores have waited for each other since the start.
    fn waits(&self) -> Option<Waits> {
        None
    }
    /// Jobs run on more than one worker since the start.
    fn barriers(&self) -> Option<u64> {
        self.waits().map(|waits| waits.jobs)
    }
    /// Calls of the allocator since the start.
    fn allocations(&self) -> Option<u64> {
        None
    }
    /// Bytes that were copied from one place in memory to another since the start, in copies long enough to be a call.
    fn copied(&self) -> Option<u64> {
        None
    }
}

/// A machine that counts nothing.
pub struct NoMeters;

impl Meters for NoMeters {}

/// What one phase of a case took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// Tokens run.
    pub tokens: usize,
    /// Time.
    pub nanos: u64,
    /// Counts of [`EVENTS`], summed over the cores at work.
    pub events: [Option<u64>; EVENTS.len()],
    /// Interrupts taken.
    pub interrupts: Option<u64>,
    /// Barriers: jobs run on more than one core.
    pub barriers: Option<u64>,
    /// How the cores waited.
    pub waits: Option<Waits>,
    /// Calls of the allocator.
    pub allocations: Option<u64>,
    /// Bytes copied.
    pub copied: Option<u64>,
}

impl Phase {
    /// Tokens a second.
    pub fn rate(&self) -> f64 {
        self.tokens as f64 * 1e9 / self.nanos.max(1) as f64
    }

    /// Count of an event, a token.
    pub fn a_token(&self, event: &str) -> Option<f64> {
        let index = EVENTS.iter().position(|name| *name == event)?;
        Some(self.events[index]? as f64 / self.tokens.max(1) as f64)
    }
}

/// What a case took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The case.
    pub case: Case,
    /// Reading the prompt.
    pub prefill: Phase,
    /// The tokens after it.
    pub decode: Phase,
    /// Nanoseconds of each decoded token, in rising order.
    pub each: Vec<u64>,
    /// [`crate::digest`] of the last logits: the same on every machine.
    pub digest: u64,
}

impl Measured {
    /// Nanoseconds of a decoded token: the least, the one in the middle, the one that 99 of 100 do not exceed, the most.
    pub fn jitter(&self) -> Option<[u64; 4]> {
        let (first, last) = (*self.each.first()?, *self.each.last()?);
        let rank = |percent: usize| self.each[(self.each.len() * percent).div_ceil(100).max(1) - 1];
        Some([first, rank(50), rank(99), last])
    }
}

/// Meters at one moment.
struct Reading {
    interrupts: Option<u64>,
    barriers: Option<u64>,
    waits: Option<Waits>,
    allocations: Option<u64>,
    copied: Option<u64>,
}

impl Reading {
    fn of(meters: &dyn Meters) -> Self {
        Self {
            interrupts: meters.interrupts(),
            barriers: meters.barriers(),
            waits: meters.waits(),
            allocations: meters.allocations(),
            copied: meters.copied(),
        }
    }

    /// What has come since.
    fn until(&self, now: &Self, phase: &mut Phase) {
        let more = |now: Option<u64>, before: Option<u64>| Some(now?.wrapping_sub(before?));
        phase.interrupts = more(now.interrupts, self.interrupts);
        phase.barriers = more(now.barriers, self.barriers);
        phase.allocations = more(now.allocations, self.allocations);
        phase.copied = more(now.copied, self.copied);
        phase.waits = now.waits.zip(self.waits).map(|(now, before)| Waits {
            jobs: now.jobs.wrapping_sub(before.jobs),
            sleeps: now.sleeps.wrapping_sub(before.sleeps),
        });
    }
}

/// Sums of events over all cores.
type Sums = [AtomicU64; EVENTS.len()];

/// Runs a phase between two looks at all meters. The counters are the last to be started and the first to be read.
fn phase<R>(
    tokens: usize,
    runtime: &Runtime<'_>,
    meters: &dyn Meters,
    mark: Mark,
    work: impl FnOnce() -> Result<R, SessionError>,
) -> Result<(Phase, R), SessionError> {
    let counters = meters.counters();
    let sums: Sums = Default::default();
    let mut phase = Phase { tokens, ..Phase::default() };
    if let Some(counters) = counters {
        runtime.pool.run(&|_| counters.start());
    }
    let before = Reading::of(meters);
    let start = (runtime.nanos)();
    if let Some(counters) = counters {
        counters.start(); // once more here: what the lines above cost is not the phase's
    }
    simd::mark(mark);
    let result = work()?;
    let mut here = [0; EVENTS.len()];
    if let Some(counters) = counters {
        counters.read(&mut here[..counters.events().len().min(EVENTS.len())]);
    }
    phase.nanos = (runtime.nanos)() - start;
    before.until(&Reading::of(meters), &mut phase);
    if let Some(counters) = counters {
        let events = &counters.events()[..counters.events().len().min(EVENTS.len())];
        runtime.pool.run(&|worker| {
            let mut counts = here;
            if worker > 0 {
                counters.read(&mut counts[..events.len()]);
            }
            for (sum, count) in sums.iter().zip(counts) {
                sum.fetch_add(count, Ordering::Relaxed);
            }
        });
        for (name, sum) in events.iter().zip(&sums) {
            if let Some(index) = EVENTS.iter().position(|event| event == name) {
                phase.events[index] = Some(sum.load(Ordering::Relaxed));
            }
        }
    }
    Ok((phase, result))
}

/// Runs a case in a session of its own. The marks of [`simd::mark`] stand around its phases.
pub fn measure(
    model: &Arc<Model>,
    case: Case,
    runtime: &Runtime<'_>,
    meters: &dyn Meters,
) -> Result<Measured, SessionError> {
    let vocabulary = model.spec().vocabulary.max(1);
    // Fixed tokens spread over the vocabulary: no file is needed and every run does the same work.
    let tokens: Vec<u32> = (1..=case.prompt + case.decode)
        .map(|n| ((n as u64 * 2_654_435_761) % vocabulary as u64) as u32)
        .collect();
    let (prompt, rest) = tokens.split_at(case.prompt);
    let mut session = Session::new(Arc::clone(model), tokens.len())?;
    session.set_batch(case.prompt);
    let mut each = Vec::with_capacity(rest.len());
    let pool = First { pool: runtime.pool, width: case.cores };
    let runtime = &Runtime { pool: &pool, ..*runtime };

    let (prefill, ()) =
        phase(prompt.len(), runtime, meters, Mark::Prompt, || session.feed(prompt, runtime).map(drop))?;
    let (decode, ()) = phase(rest.len(), runtime, meters, Mark::Decode, || {
        let mut last = (runtime.nanos)();
        for token in rest {
            session.feed(core::slice::from_ref(token), runtime)?;
            let now = (runtime.nanos)();
            each.push(now - last);
            last = now;
        }
        Ok(())
    })?;
    simd::mark(Mark::End);
    each.sort_unstable();
    let digest = crate::digest(session.logits_and_tokens().0);
    Ok(Measured { case, prefill, decode, each, digest })
}

/// How long memory is read to know its bandwidth.
const READ_NANOS: u64 = 200_000_000;

/// Bytes a second that so many cores read from memory together: each its share of the model's weights, where they
/// lie, from one end to the other, the best of several passes. `None` when stopped.
pub fn bandwidth(model: &Model, cores: usize, runtime: &Runtime<'_>) -> Option<f64> {
    let weights = model.weight_memory();
    let pool = First { pool: runtime.pool, width: cores };
    let width = pool.width();
    let start = (runtime.nanos)();
    let (mut best, mut last) = (0f64, start);
    for pass in 0.. {
        let read = AtomicU64::new(0);
        pool.run(&|worker| {
            let at = |worker: usize| weights.len() / width * worker;
            let share = if worker + 1 == width {
                &weights[at(worker)..]
            } else {
                &weights[at(worker)..at(worker + 1)]
            };
            read.fetch_add(simd::read::read(share) as u64, Ordering::Relaxed);
        });
        let now = (runtime.nanos)();
        // The first pass may be the first touch.
        if pass > 0 {
            best = best.max(read.load(Ordering::Relaxed) as f64 * 1e9 / (now - last).max(1) as f64);
        }
        last = now;
        if (runtime.stop)() {
            return None;
        }
        if pass >= 2 && now - start >= READ_NANOS {
            break;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Memory;
    use crate::{Alone, LoadOptions, quant, synth};
    use core::cell::Cell;
    use core::ops::ControlFlow;

    fn tiny() -> Arc<Model> {
        let bytes = synth::tiny(1, quant::by_name("Q4_0").unwrap()).leak();
        Model::load(&Memory(bytes), &LoadOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap()
    }

    /// Counts the calls of `start` and `read`, and what is asked of the clock.
    #[derive(Default)]
    struct Fake {
        started: AtomicU64,
        read: AtomicU64,
        asked: AtomicU64,
    }

    impl Counters for Fake {
        fn events(&self) -> &[&'static str] {
            &["cycles", "instructions", "an event that has no column", "DTLB refills"]
        }
        fn start(&self) {
            self.started.fetch_add(1, Ordering::Relaxed);
        }
        fn read(&self, counts: &mut [u64]) {
            self.read.fetch_add(1, Ordering::Relaxed);
            counts.copy_from_slice(&[3200, 1600, 5, 0]);
        }
    }

    impl Meters for Fake {
        fn counters(&self) -> Option<&dyn Counters> {
            Some(self)
        }
        fn interrupts(&self) -> Option<u64> {
            Some(self.asked.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn clock(now: &Cell<u64>) -> u64 {
        now.set(now.get() + 1000);
        now.get()
    }

    #[test]
    fn a_case_is_measured_phase_by_phase_and_what_is_not_counted_stays_unknown() {
        let (model, fake, now) = (tiny(), Fake::default(), Cell::new(0));
        let nanos = || clock(&now);
        let runtime = Runtime { pool: &Alone, nanos: &nanos, stop: &|| false };
        let case = Case { prompt: 5, decode: 3, cores: 1 };
        let measured = measure(&model, case, &runtime, &fake).unwrap();
        assert_eq!((measured.prefill.tokens, measured.decode.tokens, measured.each.len()), (5, 3, 3));
        assert_eq!(measured.prefill.a_token("cycles"), Some(640.0));
        assert_eq!(measured.prefill.a_token("DTLB refills"), Some(0.0));
        assert_eq!(measured.prefill.a_token("bus access"), None);
        assert_eq!(measured.decode.interrupts, Some(1));
        assert_eq!(
            (measured.decode.allocations, measured.decode.copied, measured.decode.waits),
            (None, None, None)
        );
        assert_eq!(fake.read.load(Ordering::Relaxed), 2, "once a phase on the only core");
        let again = measure(&model, case, &runtime, &NoMeters).unwrap();
        assert_eq!(again.digest, measured.digest);
        assert_eq!(again.prefill.events, [None; EVENTS.len()]);
        assert!(matches!(
            measure(&model, case, &Runtime { stop: &|| true, ..runtime }, &fake),
            Err(SessionError::Stopped)
        ));
    }

    #[test]
    fn jitter_has_the_corners_of_one_token_and_of_a_hundred() {
        let with = |each: Vec<u64>| {
            let case = Case { prompt: 1, decode: each.len(), cores: 1 };
            Measured { case, prefill: Phase::default(), decode: Phase::default(), each, digest: 0 }.jitter()
        };
        assert_eq!(with(Vec::new()), None);
        assert_eq!(with(alloc::vec![7]), Some([7, 7, 7, 7]));
        assert_eq!(with(alloc::vec![7, 9]), Some([7, 7, 9, 9]));
        assert_eq!(with((1..=100).collect()), Some([1, 50, 99, 100]));
        assert_eq!(with((1..=1000).collect()), Some([1, 500, 990, 1000]));
    }

    #[test]
    fn bandwidth_is_what_the_passes_after_the_first_read_and_ends_when_stopped() {
        let (model, now) = (tiny(), Cell::new(0));
        // A pass takes 0.1 s by this clock.
        let nanos = || {
            now.set(now.get() + 100_000_000);
            now.get()
        };
        let runtime = Runtime { pool: &Alone, nanos: &nanos, stop: &|| false };
        let bytes = bandwidth(&model, 4, &runtime).unwrap();
        let expected = (model.weight_memory().len() / 128 * 128) as f64 * 10.0;
        assert!((bytes - expected).abs() < 1.0, "{bytes} {expected}");
        assert_eq!(bandwidth(&model, 1, &Runtime { stop: &|| true, ..runtime }), None);
    }
}
