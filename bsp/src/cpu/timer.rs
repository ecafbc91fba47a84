//! Time: the generic timer, its frequency read and never assumed.
//!
//! `CNTPCT_EL0` counts from power-on at `CNTFRQ_EL0` hertz (54 MHz on the boards, 62.5 MHz in QEMU) on
//! every core alike. The EL1 physical timer (PPI 30) bounds how long a core sleeps.
//! On a PC the clock is made up: each look at it costs a microsecond, so deadlines pass in tests; or it is that of the machine
//! that a test has put in place.
//!
//! Sources: Arm DDI 0487, D12 "The Generic Timer"; `raspberrypi/tools` `armstub8.S` and TF-A `plat/rpi` for the boards' frequency.

use core::ops::Add;
use core::time::Duration;

#[cfg(target_os = "none")]
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTP_CTL_EL0, CNTP_TVAL_EL0, CNTPCT_EL0, Readable, Writeable};

/// Interrupt number of the timer that [`wake_after`] sets: the non-secure EL1 physical timer.
pub const INTERRUPT: u32 = 30;

const NANOS: u64 = 1_000_000_000;

/// Ticks since power-on.
pub fn ticks() -> u64 {
    #[cfg(target_os = "none")]
    {
        // Without the barrier the counter may be read before what stands in front of it has been done.
        aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
        CNTPCT_EL0.get()
    }
    #[cfg(not(target_os = "none"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        static TICKS: AtomicU64 = AtomicU64::new(0);
        crate::machine::here().ticks().unwrap_or_else(|| TICKS.fetch_add(1, Ordering::Relaxed))
    }
}

/// Ticks a second.
pub fn frequency() -> u64 {
    #[cfg(target_os = "none")]
    {
        CNTFRQ_EL0.get().max(1)
    }
    #[cfg(not(target_os = "none"))]
    1_000_000
}

/// Whole nanoseconds in so many ticks; exact until the result leaves 64 bits (584 years).
pub fn ticks_to_nanos(ticks: u64, frequency: u64) -> u64 {
    let (seconds, rest) = (ticks / frequency, ticks % frequency);
    seconds.wrapping_mul(NANOS) + rest * NANOS / frequency
}

/// Ticks that so much time takes, rounded up.
fn ticks_in(time: Duration, frequency: u64) -> u64 {
    let part = (u64::from(time.subsec_nanos()) * frequency).div_ceil(NANOS);
    time.as_secs().saturating_mul(frequency).saturating_add(part)
}

/// Nanoseconds since power-on.
pub fn now_nanos() -> u64 {
    ticks_to_nanos(ticks(), frequency())
}

/// Microseconds since power-on.
pub fn now_micros() -> u64 {
    now_nanos() / 1000
}

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        Self(ticks())
    }
    /// Whether this moment has been reached: the end of every waiting loop.
    pub fn passed(self) -> bool {
        ticks() >= self.0
    }
    /// Time since this moment; nothing if it lies ahead.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(ticks_to_nanos(ticks().saturating_sub(self.0), frequency()))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(ticks_in(time, frequency())))
    }
}

/// The moment this much time from now.
pub fn after(time: Duration) -> Instant {
    Instant::now() + time
}

/// Does nothing for so long. For device timings of micro- to milliseconds.
pub fn pause(time: Duration) {
    let end = after(time);
    while !end.passed() {
        core::hint::spin_loop();
    }
}

/// Waits until `condition` holds or the time is over; says whether it held.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = after(limit);
    loop {
        if condition() {
            return true;
        }
        if end.passed() {
            return condition(); // it may have come true while an interrupt held us up
        }
        core::hint::spin_loop();
    }
}

/// Makes this core's timer raise [`INTERRUPT`] once the time is over, at most 2³¹ ticks from now.
pub fn wake_after(time: Duration) {
    #[cfg(target_os = "none")]
    {
        CNTP_TVAL_EL0.set(ticks_in(time, frequency()).min(i32::MAX as u64));
        CNTP_CTL_EL0.write(CNTP_CTL_EL0::ENABLE::SET);
    }
    #[cfg(not(target_os = "none"))]
    let _ = time;
}

/// Silences this core's timer.
pub fn cancel_wake() {
    #[cfg(target_os = "none")]
    CNTP_CTL_EL0.set(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_exact_at_both_known_frequencies() {
        assert_eq!(ticks_to_nanos(54_000_000, 54_000_000), NANOS);
        assert_eq!(ticks_to_nanos(27, 54_000_000), 500);
        assert_eq!(ticks_to_nanos(1, 62_500_000), 16);
        assert_eq!(ticks_to_nanos(62_500_000 * 86_400 * 365 + 1, 62_500_000), 86_400 * 365 * NANOS + 16);
    }

    #[test]
    fn a_deadline_is_never_early() {
        assert_eq!(ticks_in(Duration::from_nanos(1), 54_000_000), 1);
        assert_eq!(ticks_in(Duration::from_micros(1), 54_000_000), 54);
        assert_eq!(ticks_in(Duration::from_secs(2), 62_500_000), 125_000_000);
        assert_eq!(ticks_in(Duration::MAX, 62_500_000), u64::MAX);
    }

    #[test]
    fn waiting_ends() {
        assert!(!wait_until(Duration::from_millis(1), || false));
        let mut looks = 0;
        assert!(wait_until(Duration::from_millis(1), || {
            looks += 1;
            looks == 3
        }));
    }
}
