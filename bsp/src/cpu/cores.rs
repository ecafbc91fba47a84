//! Cores: waking those that the boot loader parked, and running one job on all of them.
//!
//! A job is published by counting an epoch up; each worker watches that one number. Who has nothing to do
//! spins for [`SPIN`] (the next job of a forward pass is a few microseconds away) and then sleeps in WFI, so
//! that an idle core costs nothing; it says so first in a flag of its own, and whoever has news for it sends
//! an interrupt. An interrupt that comes between the last look and the WFI stays pending, and WFI returns at
//! once, so none is missed. Joining works the same way round.
#![allow(unsafe_code)] // a borrowed job crosses to other cores, which are done with it before the borrow ends

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
use core::time::Duration;

use super::{CORES_MAX, Masked, timer};

/// How long a core looks for work before it sleeps. Not measured on a board yet.
///
/// On a board the jobs of a forward pass follow each other within microseconds and end together, so that nobody
/// should sleep but between tokens, while core 0 samples and prints: about one interrupt a worker and token.
/// An emulator with more cores than its host sends hundreds.
pub const SPIN: Duration = Duration::from_micros(50);

const ABSENT: u8 = 0;
const ARRIVED: u8 = 1;
const REFUSED: u8 = 2;

/// What only one core writes, on a cache line of its own.
#[repr(align(64))]
struct Seat {
    /// [`ABSENT`] until the core has come.
    state: AtomicU8,
    /// The core is about to sleep or asleep: send it an interrupt.
    asleep: AtomicBool,
    /// The last epoch whose job this core has finished.
    done: AtomicU32,
}

/// The job under way.
#[repr(align(64))]
struct Job {
    /// Counts jobs.
    epoch: AtomicU32,
    /// What to run. Written by core 0 while all workers are done, read by workers after they saw the epoch.
    work: UnsafeCell<Option<&'static (dyn Fn(usize) + Sync)>>,
}

/// All cores of the board, as workers of one job at a time.
pub struct Team {
    job: Job,
    seats: [Seat; CORES_MAX],
    /// Workers, core 0 included: cores 0 to width - 1.
    width: AtomicUsize,
    /// A job is under way.
    busy: AtomicBool,
    /// How a core is woken: set once by [`Team::open`].
    wake: AtomicUsize,
    /// Takes the interrupt that woke this core.
    acknowledge: AtomicUsize,
}

// SAFETY: `work` is written only while every worker is done with the previous job (`run` holds `busy` and
// waits for all `done`), and read only after the epoch that was counted up behind the write.
unsafe impl Sync for Team {}

impl Default for Team {
    fn default() -> Self {
        Self::new()
    }
}

impl Team {
    /// A team of the calling core alone.
    pub const fn new() -> Self {
        Self {
            job: Job { epoch: AtomicU32::new(0), work: UnsafeCell::new(None) },
            seats: [const {
                Seat { state: AtomicU8::new(ABSENT), asleep: AtomicBool::new(false), done: AtomicU32::new(0) }
            }; CORES_MAX],
            width: AtomicUsize::new(1),
            busy: AtomicBool::new(false),
            wake: AtomicUsize::new(0),
            acknowledge: AtomicUsize::new(0),
        }
    }

    /// Says how a core is woken from WFI (by number) and how a woken core takes that interrupt.
    pub fn open(&self, wake: fn(usize), acknowledge: fn()) {
        self.wake.store(wake as usize, Ordering::Release);
        self.acknowledge.store(acknowledge as usize, Ordering::Release);
    }

    /// Workers, the caller of [`Team::run`] included.
    pub fn width(&self) -> usize {
        self.width.load(Ordering::Relaxed)
    }

    /// Waits for cores that were released and takes on those that come in time. `nudge` is called again and
    /// again. Returns for each core whether it works; one that comes later is sent to sleep for good.
    ///
    /// The team is made of cores 0 to n - 1, so a core behind a missing one stays out.
    pub fn gather(&self, wanted: usize, limit: Duration, mut nudge: impl FnMut()) -> [bool; CORES_MAX] {
        let all_here =
            || self.seats[1..wanted].iter().all(|seat| seat.state.load(Ordering::Acquire) == ARRIVED);
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
                seat.state.compare_exchange(ABSENT, REFUSED, Ordering::AcqRel, Ordering::Acquire).is_ok();
            here[core] = !refused;
        }
        let width = here.iter().take_while(|&&here| here).count();
        self.width.store(width, Ordering::Release);
        here
    }

    /// The life of core 1, 2 or 3: run what comes, sleep in between. Interrupts stay masked.
    pub fn work(&self, core: usize) -> ! {
        let _masked = Masked::new();
        let Some(seat) = self.seats.get(core) else { super::park() };
        let mut seen = self.job.epoch.load(Ordering::Acquire);
        if seat.state.compare_exchange(ABSENT, ARRIVED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            super::park();
        }
        loop {
            self.await_news(seat, || self.job.epoch.load(Ordering::SeqCst) != seen);
            seen = seen.wrapping_add(1);
            if core >= self.width() {
                continue; // came, but behind a core that did not: nobody waits for us
            }
            // SAFETY: the epoch was counted up behind the write of `work`, which stays until we are done.
            if let Some(work) = unsafe { *self.job.work.get() } {
                work(core);
            }
            seat.done.store(seen, Ordering::SeqCst);
            fence(Ordering::SeqCst); // as in `await_news`
            if self.seats[0].asleep.load(Ordering::SeqCst) {
                self.wake(0);
            }
        }
    }

    /// Runs `job(0)` … `job(width - 1)` side by side, `job(0)` here, and returns when all have returned.
    ///
    /// A job that itself runs a job gets it done, by its own core alone.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let width = self.width();
        if width == 1 || self.busy.swap(true, Ordering::Acquire) {
            (0..width).for_each(job);
            return;
        }
        // SAFETY: only the lifetime changes. Every worker has returned from the job before this function does.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { core::mem::transmute(job) };
        // SAFETY: `busy` was ours to take, so all workers are done with the last job and wait for the epoch.
        unsafe { *self.job.work.get() = Some(work) };
        let epoch = self.job.epoch.load(Ordering::Relaxed).wrapping_add(1);
        self.job.epoch.store(epoch, Ordering::SeqCst);
        fence(Ordering::SeqCst); // as in `await_news`
        for core in 1..width {
            if self.seats[core].asleep.load(Ordering::SeqCst) {
                self.wake(core);
            }
        }
        job(0);
        for seat in &self.seats[1..width] {
            self.await_news(&self.seats[0], || seat.done.load(Ordering::SeqCst) == epoch);
        }
        self.busy.store(false, Ordering::Release);
    }

    /// Spins, then sleeps, until `news` is true.
    fn await_news(&self, seat: &Seat, news: impl Fn() -> bool) {
        // Looking at the clock costs more than looking at a flag.
        let spin_until = timer::after(SPIN);
        loop {
            for _ in 0..32 {
                if news() {
                    return;
                }
                core::hint::spin_loop();
            }
            if spin_until.passed() {
                break;
            }
        }
        while !news() {
            let masked = Masked::new();
            seat.asleep.store(true, Ordering::SeqCst);
            // Either we see the news here, or its bringer sees that we sleep. STLR and LDAR alone promise that
            // on silicon, but QEMU on x86 lets the load pass the store; the barrier (DMB) holds everywhere.
            fence(Ordering::SeqCst);
            if !news() {
                super::wait_for_interrupt();
            }
            seat.asleep.store(false, Ordering::SeqCst);
            if !core::ptr::eq(seat, &self.seats[0]) {
                self.acknowledge();
            }
            drop(masked); // core 0 takes its interrupts here, the one that woke it among them
        }
    }

    fn wake(&self, core: usize) {
        let wake = self.wake.load(Ordering::Relaxed);
        if wake != 0 {
            // SAFETY: only `open` stores here, and it stores a `fn(usize)`.
            let wake: fn(usize) = unsafe { core::mem::transmute(wake) };
            wake(core);
        }
    }

    fn acknowledge(&self) {
        let acknowledge = self.acknowledge.load(Ordering::Relaxed);
        if acknowledge != 0 {
            // SAFETY: only `open` stores here, and it stores a `fn()`.
            let acknowledge: fn() = unsafe { core::mem::transmute(acknowledge) };
            acknowledge();
        }
    }
}

/// Releases a core from the boot loader's spin table: 64-bit store of `entry`, cleaned to memory because the
/// parked core reads with its caches off, then an event.
///
/// # Safety
/// `word` must be the release word of a parked core, mapped and not used by anything else, and `entry` code
/// that a core can begin with, caches and MMU off.
pub unsafe fn release(word: usize, entry: usize) {
    // SAFETY: the caller vouches for the word.
    unsafe { (word as *mut u64).write_volatile(entry as u64) };
    super::mmu::clean_range(word..word + 8);
    super::send_event();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::sync::atomic::AtomicU64;
    use std::thread;
    use std::vec::Vec;

    /// Threads stand in for cores; `wait_for_interrupt` returns at once on a PC, so sleeping is looking again.
    fn team(width: usize) -> &'static Team {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        for core in 1..width {
            thread::spawn(move || team.work(core));
        }
        // The made-up clock runs by looks: wait by real time until all threads are there.
        while !team.seats[1..width].iter().all(|seat| seat.state.load(Ordering::Acquire) == ARRIVED) {
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
    fn a_core_that_does_not_come_is_left_out_and_so_are_those_behind_it() {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        team.seats[1].state.store(ARRIVED, Ordering::Release);
        team.seats[3].state.store(ARRIVED, Ordering::Release);
        let mut nudges = 0;
        let here = team.gather(4, Duration::from_millis(5), || nudges += 1);
        assert_eq!(here, [true, true, false, true]);
        assert_eq!(team.width(), 2);
        assert!(nudges >= 3);
        assert_eq!(team.seats[2].state.load(Ordering::Acquire), REFUSED);
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
