//! Cores: waking those that the boot loader parked, and running one job on all of them.
//!
//! The barrier is a sense-reversing one whose sense is a count: core 0 publishes a job by counting `epoch` up,
//! a worker that has finished sets its own `done` to that count, and core 0 looks at one `done` after the other.
//! Nothing has to be reset between two jobs, and a late look can't take one job for another.
//!
//! **Lines.** A `done` shares its cache line with nothing that another core writes, so finishing costs one transfer
//! a worker. `epoch` is one line that all workers read, not a line each: on Cortex-A72 and A76 the snoop filter
//! takes a line that three cores share away from all of them in one go, so publishing costs core 0 one request for
//! ownership where a line each would cost three, one after the other out of its store buffer; either way every
//! worker then fetches one line. What the job is stands on that line too, and comes with it.
//!
//! **Waiting** has three stages, at both ends:
//! 1. *Spin* for [`SPIN`], looking at one line, of which the core has a copy: nothing moves until it changes.
//! 2. *Doze* in WFE for up to [`DOZE`]: longer than any gap between two jobs of a token. Whoever has news sends an
//!    event after the store ([`announce`]). News that come between the look and the WFE leave the event register
//!    set, and WFE returns at once. Events for others end the WFE too: the core looks again. The event stream of the
//!    timer ends it now and then, so that the clock is looked at.
//! 3. *Sleep* in WFI until an interrupt is sent: events don't reach a sleeper. The core first says in `asleep` that
//!    it sleeps, and whoever has news looks there. An interrupt that comes between the last look and the WFI
//!    stays pending, and WFI returns at once.
//!
//! Core 0, whose waits have an end, dozes to that end instead: the timer's events end each WFE whatever becomes of the
//! interrupt controller. So does a core that no interrupt reaches ([`Team::set_deaf`]), for as long as it takes.
//!
//! Where WFE does not wait (an emulator runs straight through it) the second stage would be spinning at the expense of
//! the cores that work: each core tries that once, and goes without, but spins a little longer ([`SPIN_ONLY`]).
#![allow(unsafe_code)] // a borrowed job crosses to other cores, which are done with it before the borrow ends

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use core::time::Duration;

use super::timer::Instant;
use super::{CORES_MAX, Masked, timer};

/// How long a core looks for news before it dozes: the next job of a forward pass is a few microseconds away.
/// Not measured on a board yet.
pub const SPIN: Duration = Duration::from_micros(5);
/// How long it dozes before it sleeps: longer than core 0 samples, and than a few letters take on the console.
pub const DOZE: Duration = Duration::from_millis(1);
/// How long it looks where it can't doze.
const SPIN_ONLY: Duration = Duration::from_micros(50);
/// A wait for an event that is one. The timer's event comes after 65 microseconds at the earliest: [`start_event_stream`].
const WAIT: Duration = Duration::from_micros(40);
/// Looks between two looks at the clock, which costs more.
const LOOKS: u32 = 32;
/// A worker may finish this much later than core 0, and as many times as long as core 0 worked as [`SLOWER`] says:
/// an emulator's host may run one core and leave another waiting.
const LATE: Duration = Duration::from_secs(10);
const SLOWER: u32 = 4;

const ABSENT: u8 = 0;
const ARRIVED: u8 = 1;
const REFUSED: u8 = 2;

/// A cache line of its own: 64 bytes on Cortex-A72 and A76.
#[repr(align(64))]
struct Line<T>(T);

/// What only one core writes.
struct Seat {
    /// [`ABSENT`] until the core has come.
    state: AtomicU8,
    /// The core is about to sleep or asleep: send it an interrupt. Changes seldom, so whoever looks has a copy.
    asleep: AtomicBool,
    /// The last epoch whose job this core has finished.
    done: AtomicU64,
    /// WFE waits on this core.
    dozes: AtomicBool,
    /// No interrupt reaches this core.
    deaf: AtomicBool,
    /// How often it went to sleep.
    sleeps: AtomicU64,
}

/// The job under way. Core 0 writes both words one right after the other: while it owns the line.
struct Job {
    /// Counts jobs.
    epoch: AtomicU64,
    /// What to run. Written by core 0 while all workers are done, read by workers after they saw the epoch.
    work: UnsafeCell<Option<&'static (dyn Fn(usize) + Sync)>>,
}

/// What hardly ever changes: all cores keep a copy.
struct Settings {
    /// Workers, core 0 included: cores 0 to width - 1.
    width: AtomicUsize,
    /// How a core is woken: set once by [`Team::open`].
    wake: AtomicUsize,
    /// Takes the interrupt that woke this core.
    acknowledge: AtomicUsize,
}

/// All cores of the board, as workers of one job at a time.
pub struct Team {
    job: Line<Job>,
    seats: [Line<Seat>; CORES_MAX],
    settings: Line<Settings>,
    /// A job is under way. Only core 0 looks here, and a job that runs a job.
    busy: Line<AtomicBool>,
}

// SAFETY: `work` is written only while every worker is done with the previous job (`run_beside` holds `busy` and
// waits for all `done`), and read only after the epoch that was counted up behind the write.
unsafe impl Sync for Team {}

impl Default for Team {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits for the workers of a job, also when core 0's part panics (where that unwinds: in tests on a PC).
struct Join<'a> {
    team: &'a Team,
    epoch: u64,
    began: Instant,
}

impl Drop for Join<'_> {
    fn drop(&mut self) {
        self.team.join(self.epoch, LATE + self.began.elapsed() * SLOWER);
        self.team.busy.0.store(false, Ordering::Release);
    }
}

impl Team {
    /// A team of the calling core alone.
    pub const fn new() -> Self {
        Self {
            job: Line(Job { epoch: AtomicU64::new(0), work: UnsafeCell::new(None) }),
            seats: [const {
                Line(Seat {
                    state: AtomicU8::new(ABSENT),
                    asleep: AtomicBool::new(false),
                    done: AtomicU64::new(0),
                    dozes: AtomicBool::new(false),
                    deaf: AtomicBool::new(false),
                    sleeps: AtomicU64::new(0),
                })
            }; CORES_MAX],
            settings: Line(Settings {
                width: AtomicUsize::new(1),
                wake: AtomicUsize::new(0),
                acknowledge: AtomicUsize::new(0),
            }),
            busy: Line(AtomicBool::new(false)),
        }
    }

    /// Says how a core is woken from WFI (by number) and how a woken core takes that interrupt. On core 0.
    pub fn open(&self, wake: fn(usize), acknowledge: fn()) {
        self.settings.0.wake.store(wake as usize, Ordering::Release);
        self.settings.0.acknowledge.store(acknowledge as usize, Ordering::Release);
        self.seats[0].0.dozes.store(start_event_stream(), Ordering::Relaxed);
    }

    /// Says whether interrupts reach a core: one that is deaf to them never waits for one. Before it begins to work.
    pub fn set_deaf(&self, core: usize, deaf: bool) {
        if let Some(seat) = self.seats.get(core) {
            seat.0.deaf.store(deaf, Ordering::Relaxed);
        }
    }

    /// How many of the workers no interrupt reaches.
    pub fn deaf(&self) -> usize {
        self.seats[..self.width()].iter().filter(|seat| seat.0.deaf.load(Ordering::Relaxed)).count()
    }

    /// Has core 0 wait until `news` is true, at most for so long. Interrupts are taken meanwhile, and may be what brings them.
    pub fn nap(&self, limit: Duration, news: impl Fn() -> bool) {
        let seat = &self.seats[0].0;
        if seat.dozes.load(Ordering::Relaxed) || seat.deaf.load(Ordering::Relaxed) {
            // The return from a handler is an event, too: what it brings after the look ends the WFE that follows.
            let end = timer::after(limit);
            while !news() && !end.passed() {
                wait_for_event();
            }
            return;
        }
        // Masked, so that what comes after the look still ends the sleep.
        let masked = Masked::new();
        if !news() {
            timer::wake_after(limit);
            wait_for_interrupt();
        }
        drop(masked);
        timer::cancel_wake();
    }

    /// Workers, the caller of [`Team::run`] included.
    pub fn width(&self) -> usize {
        self.settings.0.width.load(Ordering::Relaxed)
    }

    /// Jobs run on more than one core so far.
    pub fn jobs(&self) -> u64 {
        self.job.0.epoch.load(Ordering::Relaxed)
    }

    /// How often a core went to sleep (WFI) for want of news so far, all cores together.
    pub fn sleeps(&self) -> u64 {
        self.seats.iter().map(|seat| seat.0.sleeps.load(Ordering::Relaxed)).sum()
    }

    /// Waits for cores that were released and takes on those that come in time. `nudge` is called again and
    /// again. Returns for each core whether it works; one that comes later is sent to sleep for good.
    ///
    /// The team is made of cores 0 to n - 1, so a core behind a missing one stays out.
    pub fn gather(&self, wanted: usize, limit: Duration, mut nudge: impl FnMut()) -> [bool; CORES_MAX] {
        let all_here =
            || self.seats[1..wanted].iter().all(|seat| seat.0.state.load(Ordering::Acquire) == ARRIVED);
        let mut next = timer::after(Duration::ZERO);
        timer::wait_until(limit, || {
            if next.passed() {
                nudge();
                next = timer::after(Duration::from_millis(1));
            }
            all_here()
        });
        let mut here = [false; CORES_MAX];
        here[0] = true;
        for (core, seat) in self.seats.iter().enumerate().take(wanted).skip(1) {
            let refused =
                seat.0.state.compare_exchange(ABSENT, REFUSED, Ordering::AcqRel, Ordering::Acquire).is_ok();
            here[core] = !refused;
        }
        let width = here.iter().take_while(|&&here| here).count();
        self.settings.0.width.store(width, Ordering::Release);
        here
    }

    /// The life of core 1, 2 or 3: run what comes, sleep in between. Interrupts stay masked.
    pub fn work(&self, core: usize) -> ! {
        let _masked = Masked::new();
        let Some(seat) = self.seats.get(core) else { super::park() };
        seat.0.dozes.store(start_event_stream(), Ordering::Relaxed);
        let mut seen = self.job.0.epoch.load(Ordering::Acquire);
        if seat.0.state.compare_exchange(ABSENT, ARRIVED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            super::park();
        }
        loop {
            self.await_news(core, None, || self.job.0.epoch.load(Ordering::Acquire) != seen);
            seen += 1;
            if core >= self.width() {
                continue; // came, but behind a core that did not: nobody waits for us
            }
            // SAFETY: the epoch was counted up behind the write of `work`, which stays until we are done.
            if let Some(work) = unsafe { *self.job.0.work.get() } {
                work(core);
            }
            seat.0.done.store(seen, Ordering::Release);
            announce();
            if self.seats[0].0.asleep.load(Ordering::SeqCst) {
                self.wake(0);
            }
        }
    }

    /// Runs `job(0)` … `job(width - 1)` side by side, `job(0)` here, and returns when all have returned.
    ///
    /// A job that itself runs a job gets it done, by its own core alone.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        self.run_beside(&mut || job(0), job);
    }

    /// Runs `here` on the calling core and `job(1)` … `job(width - 1)` on the others, side by side, and returns
    /// when all have returned.
    pub fn run_beside(&self, here: &mut dyn FnMut(), job: &(dyn Fn(usize) + Sync)) {
        let width = self.width();
        if width == 1 || self.busy.0.swap(true, Ordering::Acquire) {
            here();
            (1..width).for_each(job);
            return;
        }
        let began = Instant::now();
        // SAFETY: only the lifetime changes. Every worker has returned from the job before this function does: `join`.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { core::mem::transmute(job) };
        // SAFETY: `busy` was ours to take, so all workers are done with the last job and wait for the epoch.
        unsafe { *self.job.0.work.get() = Some(work) };
        let epoch = self.job.0.epoch.load(Ordering::Relaxed) + 1;
        self.job.0.epoch.store(epoch, Ordering::Release);
        let join = Join { team: self, epoch, began };
        announce();
        for core in 1..width {
            if self.seats[core].0.asleep.load(Ordering::SeqCst) {
                self.wake(core);
            }
        }
        here();
        drop(join);
    }

    /// Waits until all workers have finished the job of that epoch.
    ///
    /// # Panics
    /// If one has not after `limit`. A worker that faulted has said so by then, and the panic adds nothing to it.
    fn join(&self, epoch: u64, limit: Duration) {
        for (core, seat) in self.seats.iter().enumerate().take(self.width()).skip(1) {
            let come = self.await_news(0, Some(limit), || seat.0.done.load(Ordering::Acquire) == epoch);
            assert!(
                come,
                "core {core} has not finished its part of a job that core 0 finished {limit:?} ago"
            );
        }
    }

    /// Waits until `news` is true, in three stages; says whether it is. Without a limit it waits for ever.
    fn await_news(&self, core: usize, limit: Option<Duration>, news: impl Fn() -> bool) -> bool {
        let spin = || {
            (0..LOOKS).any(|_| {
                core::hint::spin_loop();
                news()
            })
        };
        if news() || spin() {
            return true;
        }
        let seat = &self.seats[core].0;
        let dozes = seat.dozes.load(Ordering::Relaxed);
        let began = Instant::now();
        let spin_end = began + if dozes { SPIN } else { SPIN_ONLY };
        while !spin_end.passed() {
            if spin() {
                return true;
            }
        }
        let end = limit.map(|limit| began + limit);
        let never_sleeps = core == 0 && dozes || seat.deaf.load(Ordering::Relaxed);
        let doze_end = if never_sleeps { end } else { Some(began + DOZE) };
        while (dozes || never_sleeps) && !doze_end.is_some_and(Instant::passed) {
            wait_for_event();
            if news() {
                return true;
            }
        }
        while !news() {
            if end.is_some_and(Instant::passed) {
                return news(); // it may have come while an interrupt held us up
            }
            let masked = Masked::new();
            #[cfg(test)]
            model::dawdle();
            seat.asleep.store(true, Ordering::SeqCst);
            // Either we see the news here, or its bringer, who has a barrier between its store and its look at
            // `asleep`, sees that we sleep. STLR and LDAR alone promise that on silicon, but QEMU on x86 lets the
            // load pass the store; the barrier (DMB) holds everywhere.
            fence(Ordering::SeqCst);
            if !news() {
                seat.sleeps.store(seat.sleeps.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                if let Some(limit) = limit {
                    timer::wake_after(limit); // so that the deadline is looked at; core 0's timer
                }
                wait_for_interrupt();
                if limit.is_some() {
                    timer::cancel_wake();
                }
            }
            seat.asleep.store(false, Ordering::SeqCst);
            if core != 0 {
                self.acknowledge();
            }
            drop(masked); // core 0 takes its interrupts here, the one that woke it among them
        }
        true
    }

    fn wake(&self, core: usize) {
        let wake = self.settings.0.wake.load(Ordering::Relaxed);
        if wake != 0 {
            // SAFETY: only `open` stores here, and it stores a `fn(usize)`.
            let wake: fn(usize) = unsafe { core::mem::transmute(wake) };
            wake(core);
        }
    }

    fn acknowledge(&self) {
        let acknowledge = self.settings.0.acknowledge.load(Ordering::Relaxed);
        if acknowledge != 0 {
            // SAFETY: only `open` stores here, and it stores a `fn()`.
            let acknowledge: fn() = unsafe { core::mem::transmute(acknowledge) };
            acknowledge();
        }
    }
}

/// Makes what was stored so far seen by all cores, then ends each core's WFE, now or the next. Loads that follow
/// come after it: the barrier that a look at `asleep` needs.
///
/// DSB rather than DMB, since SEV is no memory access: the event must not be there before the store is (Arm DDI
/// 0487, D1.6.1). The inner shareable domain is all cores.
fn announce() {
    #[cfg(target_os = "none")]
    // SAFETY: a barrier and an event change no state that Rust knows of.
    unsafe {
        core::arch::asm!("dsb ish", "sev", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    fence(Ordering::SeqCst);
    #[cfg(test)]
    model::send_event();
}

/// Waits for an event, or returns at once if one came since the last wait.
fn wait_for_event() {
    #[cfg(target_os = "none")]
    // SAFETY: the core goes on where it was.
    unsafe {
        core::arch::asm!("wfe", options(nostack, preserves_flags));
    }
    #[cfg(test)]
    model::wait_for_event();
}

fn wait_for_interrupt() {
    #[cfg(not(test))]
    super::wait_for_interrupt();
    #[cfg(test)]
    model::wait_for_interrupt();
}

/// Lets this core's timer send it an event every 125 to 250 microseconds (or as often as 16 bits of the counter allow):
/// each time a certain bit of the counter becomes 1. Says whether WFE then waits.
///
/// Source: Arm DDI 0487, D12.2.4 "Event streams".
fn start_event_stream() -> bool {
    #[cfg(target_os = "none")]
    {
        use aarch64_cpu::registers::{CNTKCTL_EL1, ReadWriteable};
        let period = (timer::frequency() / 4_000).max(2);
        let bit = u64::from(period.ilog2() - 1).min(15); // it becomes 1 every 2^(bit + 1) ticks
        CNTKCTL_EL1.modify(
            CNTKCTL_EL1::EVNTIS::CLEAR
                + CNTKCTL_EL1::EVNTI.val(bit)
                + CNTKCTL_EL1::EVNTDIR::CLEAR
                + CNTKCTL_EL1::EVNTEN::SET,
        );
    }
    #[cfg(test)]
    if model::has_events() {
        return true;
    }
    // Events of other cores cut some of them short, an emulator's host draws some out.
    let waited = || {
        let began = Instant::now();
        wait_for_event();
        began.elapsed() >= WAIT
    };
    (0..16).filter(|_| waited()).take(4).count() == 4
}

/// Releases a core from the boot loader's spin table: 64-bit store of `entry`, cleaned to memory because the
/// parked core reads with its caches off, then an event.
///
/// # Safety
/// `word` must be the release word of a parked core, mapped and not used by anything else, and `entry` code
/// that a core can begin with, caches and MMU off.
pub unsafe fn release(word: usize, entry: usize) {
    #[cfg(not(target_os = "none"))]
    let stored = crate::machine::here().store(word, 8, entry as u64);
    #[cfg(target_os = "none")]
    let stored = false;
    if !stored {
        // SAFETY: the caller vouches for the word.
        unsafe { (word as *mut u64).write_volatile(entry as u64) };
    }
    super::mmu::clean_range(word..word + 8);
    super::send_event();
}

/// Events and interrupts for threads that stand in for cores: a wake-up that gets lost keeps its thread waiting.
#[cfg(test)]
mod model {
    use std::cell::RefCell;
    use std::sync::{Arc, Condvar, Mutex};
    use std::thread_local;
    use std::time::Duration;

    /// Longer than anything takes.
    const EVER: Duration = Duration::from_secs(20);

    #[derive(Default)]
    pub struct Core {
        /// Event register and pending interrupt.
        state: Mutex<(bool, bool)>,
        changed: Condvar,
    }

    #[derive(Default)]
    pub struct Board {
        pub cores: [Core; 4],
        /// How often a timer ends a wait for an event, if it does.
        pub stream: Option<Duration>,
        /// Cores that no interrupt reaches.
        pub deaf: [bool; 4],
    }

    thread_local! {
        static HERE: RefCell<Option<(Arc<Board>, usize)>> = const { RefCell::new(None) };
    }

    /// Makes this thread a core of that board.
    pub fn be(board: &Arc<Board>, core: usize) {
        HERE.with(|here| *here.borrow_mut() = Some((Arc::clone(board), core)));
    }

    pub fn has_events() -> bool {
        here().is_some()
    }

    fn here() -> Option<(Arc<Board>, usize)> {
        HERE.with(|here| here.borrow().clone())
    }

    /// Widens the gap between two steps, for whoever would slip into it.
    pub fn dawdle() {
        if here().is_some() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub fn send_event() {
        let Some((board, _)) = here() else { return };
        for core in &board.cores {
            core.state.lock().unwrap().0 = true;
            core.changed.notify_all();
        }
    }

    pub fn send_interrupt(core: usize) {
        let Some((board, _)) = here() else { return };
        if board.deaf[core] {
            return;
        }
        board.cores[core].state.lock().unwrap().1 = true;
        board.cores[core].changed.notify_all();
    }

    /// A worker takes the interrupt when it is awake, core 0 when it unmasks: both before they sleep again.
    pub fn take_interrupt() {
        let Some((board, core)) = here() else { return };
        board.cores[core].state.lock().unwrap().1 = false;
    }

    pub fn wait_for_event() {
        let Some((board, me)) = here() else { return std::thread::yield_now() };
        let core = &board.cores[me];
        let limit = board.stream.unwrap_or(EVER);
        let state = core.state.lock().unwrap();
        let (mut state, over) = core.changed.wait_timeout_while(state, limit, |state| !state.0).unwrap();
        state.0 = false;
        drop(state);
        match board.stream {
            // The clock runs by looks.
            Some(stream) => (0..stream.as_micros()).for_each(|_| _ = crate::cpu::timer::ticks()),
            None => assert!(!over.timed_out() || me != 0, "core 0 got no event"),
        }
    }

    pub fn wait_for_interrupt() {
        let Some((board, me)) = here() else { return std::thread::yield_now() };
        let core = &board.cores[me];
        let state = core.state.lock().unwrap();
        assert!(!board.deaf[me], "core {me} sleeps, and no interrupt will wake it");
        let (mut state, over) = core.changed.wait_timeout_while(state, EVER, |state| !state.1).unwrap();
        if me == 0 {
            state.1 = false; // taken at once when it unmasks
        }
        drop(state);
        assert!(!over.timed_out() || me != 0, "core 0 got no interrupt");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::string::String;
    use std::sync::Arc;
    use std::thread;
    use std::vec::Vec;

    /// Threads stand in for cores; without a model of a board, sleeping is looking again.
    fn team(width: usize) -> &'static Team {
        team_on(width, None)
    }

    fn team_on(width: usize, board: Option<&Arc<model::Board>>) -> &'static Team {
        team_with(width, board, [false; 4])
    }

    fn team_with(width: usize, board: Option<&Arc<model::Board>>, deaf: [bool; 4]) -> &'static Team {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        deaf.iter().enumerate().for_each(|(core, &deaf)| team.set_deaf(core, deaf));
        for core in 1..width {
            let board = board.cloned();
            thread::spawn(move || {
                if let Some(board) = board {
                    model::be(&board, core);
                }
                team.work(core)
            });
        }
        if let Some(board) = board {
            model::be(board, 0);
        }
        team.open(model::send_interrupt, model::take_interrupt);
        // The made-up clock runs by looks: wait by real time until all threads are there.
        while !team.seats[1..width].iter().all(|seat| seat.0.state.load(Ordering::Acquire) == ARRIVED) {
            thread::yield_now();
        }
        let here = team.gather(width, Duration::from_millis(1), || {});
        assert_eq!(here.iter().filter(|&&here| here).count(), width);
        team
    }

    #[test]
    fn every_worker_runs_every_job_once() {
        let team = team(4);
        let sums: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        for round in 1..=500_u64 {
            team.run(&|worker| {
                sums[worker].fetch_add(round, Ordering::Relaxed);
            });
            for sum in &sums {
                assert_eq!(sum.load(Ordering::Relaxed), round * (round + 1) / 2);
            }
        }
        assert_eq!(team.jobs(), 500);
    }

    /// A thread that waits for an event or an interrupt that was lost waits for ever here, and the test fails.
    #[test]
    fn no_wake_up_is_lost_whatever_the_delays() {
        // Without the timer's events only a job's own can end a doze, and nobody gets as far as sleeping.
        let streams = [None, Some(Duration::from_micros(50)), Some(Duration::from_micros(200))];
        for (seed, stream) in streams.into_iter().enumerate() {
            let board = Arc::new(model::Board { stream, ..Default::default() });
            let team = team_on(4, Some(&board));
            let sums: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
            // Delays from none over a few looks to longer than the longest doze.
            let delay = |mut random: u64| {
                random = (random + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                random = (random ^ random >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
                match random % 8 {
                    0..3 => {}
                    3..6 => (0..random >> 4 & 0xfff).for_each(|_| core::hint::spin_loop()),
                    6 => thread::yield_now(),
                    _ => thread::sleep(Duration::from_micros(random >> 4 & 0x7ff)),
                }
            };
            const ROUNDS: u64 = 1500;
            for round in 0..ROUNDS {
                let start = round * 8 + seed as u64 * 100_000;
                team.run(&|worker| {
                    delay(start + worker as u64);
                    sums[worker].fetch_add(round, Ordering::Relaxed);
                });
                delay(start + 4);
            }
            assert!(sums.iter().all(|sum| sum.load(Ordering::Relaxed) == ROUNDS * (ROUNDS - 1) / 2));
            match stream {
                None => {}
                Some(_) => assert!(team.sleeps() > 0, "nobody slept"),
            }
        }
    }

    #[test]
    fn cores_that_no_interrupt_reaches_never_wait_for_one_with_the_timers_events_and_without() {
        for deaf in [[true; 4], [true, false, true, false], [false, true, true, true]] {
            for stream in [None, Some(Duration::from_micros(50))] {
                let board = stream.map(|stream| {
                    Arc::new(model::Board { stream: Some(stream), deaf, ..Default::default() })
                });
                let team = team_with(4, board.as_ref(), deaf);
                let done = AtomicU64::new(0);
                for round in 0..200 {
                    team.run(&|worker| {
                        if worker == round % 4 {
                            thread::sleep(Duration::from_micros(round as u64 % 7 * 100));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                    if round % 20 == 0 {
                        thread::sleep(Duration::from_millis(2)); // until whoever sleeps does
                    }
                }
                assert_eq!(done.into_inner(), 800);
                assert_eq!(team.deaf(), deaf.iter().filter(|&&deaf| deaf).count());
                for (seat, deaf) in team.seats.iter().zip(deaf) {
                    assert!(!deaf || seat.0.sleeps.load(Ordering::Relaxed) == 0, "a deaf one slept");
                }
            }
        }
    }

    #[test]
    fn a_nap_ends_with_its_time_or_with_news_whether_interrupts_come_or_not() {
        for (stream, deaf) in
            [(Some(Duration::from_micros(50)), true), (Some(Duration::from_micros(50)), false)]
        {
            let board = Arc::new(model::Board { stream, deaf: [deaf; 4], ..Default::default() });
            let team = team_with(1, Some(&board), [deaf; 4]);
            let began = Instant::now();
            team.nap(Duration::from_millis(2), || false);
            assert!(began.elapsed() >= Duration::from_millis(2));
            let looks = AtomicU64::new(0);
            team.nap(Duration::from_secs(1000), || looks.fetch_add(1, Ordering::Relaxed) == 3);
            assert_eq!(looks.into_inner(), 4);
        }
        // Where WFE does not wait, and no interrupt comes, it looks until the time is over.
        let team = Team::new();
        team.set_deaf(0, true);
        let began = Instant::now();
        team.nap(Duration::from_millis(2), || false);
        assert!(began.elapsed() >= Duration::from_millis(2));
    }

    #[test]
    fn something_else_is_done_here_while_the_others_work() {
        for width in [1, 4] {
            let team = team(width);
            let done: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
            let mut here = 0;
            for _ in 0..100 {
                team.run_beside(&mut || here += 1, &|worker| {
                    done[worker].fetch_add(1, Ordering::Relaxed);
                });
            }
            let done: Vec<u64> = done.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            assert_eq!(here, 100);
            assert_eq!(done, (0..4).map(|w| if w > 0 && w < width { 100 } else { 0 }).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_job_within_a_job_is_done_by_its_own_core() {
        let team = team(2);
        let count = AtomicU64::new(0);
        team.run(&|_| {
            team.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_core_that_does_not_come_back_is_named() {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        team.settings.0.width.store(3, Ordering::Relaxed);
        team.seats[1].0.done.store(1, Ordering::Relaxed);
        let error = catch_unwind(AssertUnwindSafe(|| team.join(1, Duration::from_millis(100)))).unwrap_err();
        let words = error.downcast_ref::<String>().unwrap();
        assert!(words.starts_with("core 2 has not finished"), "{words}");
        assert!(team.sleeps() > 0);
    }

    #[test]
    fn what_different_cores_write_lies_on_different_lines() {
        assert_eq!((size_of::<Line<Seat>>(), align_of::<Line<Seat>>()), (64, 64));
        let team = Team::new();
        let line = |at: usize| at / 64;
        let mut lines = Vec::from([
            line(&raw const team.job as usize),
            line(&raw const team.settings as usize),
            line(&raw const team.busy as usize),
        ]);
        lines.extend(team.seats.iter().map(|seat| line(&raw const seat.0.done as usize)));
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 7);
        assert!(size_of::<Job>() <= 64, "the epoch brings the job along");
    }

    #[test]
    fn a_core_that_does_not_come_is_left_out_and_so_are_those_behind_it() {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        team.seats[1].0.state.store(ARRIVED, Ordering::Release);
        team.seats[3].0.state.store(ARRIVED, Ordering::Release);
        let mut nudges = 0;
        let here = team.gather(4, Duration::from_millis(5), || nudges += 1);
        assert_eq!(here, [true, true, false, true]);
        assert_eq!(team.width(), 2);
        assert!(nudges >= 3);
        assert_eq!(team.seats[2].0.state.load(Ordering::Acquire), REFUSED);
    }

    #[test]
    fn alone_it_just_runs() {
        let team = Team::new();
        let count = AtomicU64::new(0);
        team.run(&|worker| {
            assert_eq!(worker, 0);
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
