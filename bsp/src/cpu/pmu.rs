//! The performance monitor (PMUv3): cycles, instructions, refills and stalls of the core that asks.
//!
//! Cycles have a 64-bit counter. Event counters have 32 bits, so what they have gained is added up whenever they are
//! read and by [`keep_count`], which every core calls once a job: no job has 2³² of anything. (Two ways that lost:
//! event 0x1e, which chains two counters, costs counters, and QEMU does not have it; the overflow flags QEMU sets
//! only when a counter is read.)
//!
//! What the core does not say it can count (PMCEID) is not listed. QEMU counts instructions only under `-icount`,
//! and says so only then; stalls it says it counts, and finds none.
//!
//! The entry code gives all counters to EL1 and traps none (`MDCR_EL2`). No counter interrupts.
//!
//! Source: Arm DDI 0487, D11 "The Performance Monitors Extension"; event numbers, D11.11.
#![allow(unsafe_code)] // system registers

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::CORES_MAX;

/// What is counted besides cycles, in order of worth: names, event numbers.
const EVENTS: [(&str, u16); 6] = [
    ("instructions", 0x08),   // INST_RETIRED
    ("L1D refills", 0x03),    // L1D_CACHE_REFILL
    ("L2D refills", 0x17),    // L2D_CACHE_REFILL
    ("DTLB refills", 0x05),   // L1D_TLB_REFILL
    ("stalls backend", 0x24), // STALL_BACKEND: not on a Cortex-A72
    ("bus access", 0x19),     // BUS_ACCESS
];
const CYCLES: &str = "cycles";

/// What the cores count: cycles, then with counter 0, 1, … one event each.
#[derive(Clone, Debug)]
pub struct Pmu {
    names: [&'static str; 1 + EVENTS.len()],
    events: [u16; EVENTS.len()],
    /// Event counters in use.
    used: usize,
}

/// What a core's event counters had counted when it last looked; on cache lines of its own.
#[repr(align(64))]
struct Totals([AtomicU64; EVENTS.len()]);

static TOTALS: [Totals; CORES_MAX] =
    [const { Totals([const { AtomicU64::new(0) }; EVENTS.len()]) }; CORES_MAX];
/// Event counters in use: none until some core has been started.
static COUNTING: AtomicUsize = AtomicUsize::new(0);

/// Whether a version of the monitor (ID_AA64DFR0_EL1.PMUVer) is one that works as described here.
fn is_known(version: u64) -> bool {
    (1..0xf).contains(&version)
}

/// PMCR_EL0: count (0), event counters to 0 (1), cycles to 0 (2), cycles in 64 bits (6).
const START: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 6;

impl Pmu {
    /// The monitor, if this core has one.
    pub fn detect() -> Option<Self> {
        let has = is_known(registers::version());
        // Without a monitor even to ask it is undefined.
        has.then(|| Self::plan(registers::counters(), registers::events()))
    }

    /// Gives counters to events: `counters` there are; bit n of `has` says that the core has event n.
    fn plan(counters: usize, has: u64) -> Self {
        let mut plan = Self { names: [CYCLES; 1 + EVENTS.len()], events: [0; EVENTS.len()], used: 0 };
        for (name, event) in EVENTS.into_iter().filter(|&(_, event)| has >> event & 1 != 0).take(counters) {
            (plan.names[1 + plan.used], plan.events[plan.used]) = (name, event);
            plan.used += 1;
        }
        plan
    }

    /// What is counted, cycles first.
    pub fn events(&self) -> &[&'static str] {
        &self.names[..1 + self.used]
    }

    /// Sets the calling core's counters to 0 and lets them count.
    pub fn start(&self) {
        registers::stop();
        for (index, &event) in self.events[..self.used].iter().enumerate() {
            registers::select(index, event);
            totals()[index].store(0, Ordering::Relaxed);
        }
        COUNTING.store(self.used, Ordering::Relaxed);
        registers::start(START);
    }

    /// The calling core's counts since [`Self::start`], one for each of [`Self::events`].
    pub fn read(&self, counts: &mut [u64]) {
        let Some((cycles, counts)) = counts.split_first_mut() else { return };
        *cycles = registers::cycles();
        for (index, count) in counts.iter_mut().enumerate().take(self.used) {
            *count = update(index);
        }
    }
}

/// The calling core's row.
fn totals() -> &'static [AtomicU64; EVENTS.len()] {
    &TOTALS[super::core() % CORES_MAX].0
}

/// What a counter that had counted `total` has counted now that it shows `low`.
fn advance(total: u64, low: u32) -> u64 {
    total + u64::from(low.wrapping_sub(total as u32))
}

/// Adds what a counter of the calling core has gained.
fn update(index: usize) -> u64 {
    let total = &totals()[index]; // no other core writes it
    let now = advance(total.load(Ordering::Relaxed), registers::count(index));
    total.store(now, Ordering::Relaxed);
    now
}

/// Adds up what the calling core's counters have gained, before they come round. Does nothing until counting has begun.
pub fn keep_count() {
    for index in 0..COUNTING.load(Ordering::Relaxed) {
        update(index);
    }
}

#[cfg(target_os = "none")]
mod registers {
    use core::arch::asm;

    macro_rules! read {
        ($register:literal) => {{
            let value: u64;
            // SAFETY: reading this register changes nothing.
            unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }};
    }
    macro_rules! write {
        ($register:literal, $value:expr) => {{
            let value: u64 = $value;
            // SAFETY: the monitor counts; it changes nothing that a program is made of. Not `nomem`: what is
            // measured stays on its side.
            unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }};
    }

    /// What was written counts from here on, and what was asked to be counted has been done.
    fn settle() {
        // SAFETY: a barrier changes nothing.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
    }

    pub fn version() -> u64 {
        read!("id_aa64dfr0_el1") >> 8 & 0xf
    }

    /// Event counters.
    pub fn counters() -> usize {
        (read!("pmcr_el0") >> 11 & 0x1f) as usize
    }

    /// Events 0 to 63 that this core has.
    pub fn events() -> u64 {
        (read!("pmceid0_el0") & 0xffff_ffff) | read!("pmceid1_el0") << 32
    }

    /// Stops all counters, their interrupts and their filters: EL1 and EL0 are counted.
    pub fn stop() {
        settle();
        write!("pmcr_el0", 1 << 6);
        write!("pmcntenclr_el0", 0xffff_ffff);
        write!("pmintenclr_el1", 0xffff_ffff);
        write!("pmovsclr_el0", 0xffff_ffff);
        write!("pmccfiltr_el0", 0);
    }

    /// Has a counter count an event and lets it count.
    pub fn select(index: usize, event: u16) {
        write!("pmselr_el0", index as u64);
        settle();
        write!("pmxevtyper_el0", u64::from(event));
        write!("pmcntenset_el0", 1 << index);
    }

    /// Starts all that may count, and the cycles.
    pub fn start(control: u64) {
        write!("pmcntenset_el0", 1 << 31);
        write!("pmcr_el0", control);
        settle();
    }

    pub fn cycles() -> u64 {
        settle();
        read!("pmccntr_el0")
    }

    pub fn count(index: usize) -> u32 {
        let count = match index {
            0 => read!("pmevcntr0_el0"),
            1 => read!("pmevcntr1_el0"),
            2 => read!("pmevcntr2_el0"),
            3 => read!("pmevcntr3_el0"),
            4 => read!("pmevcntr4_el0"),
            _ => read!("pmevcntr5_el0"),
        };
        count as u32
    }
}

/// On a PC there is none.
#[cfg(not(target_os = "none"))]
mod registers {
    pub fn version() -> u64 {
        0
    }
    pub fn counters() -> usize {
        0
    }
    pub fn events() -> u64 {
        0
    }
    pub fn stop() {}
    pub fn select(_: usize, _: u16) {}
    pub fn start(_: u64) {}
    pub fn cycles() -> u64 {
        0
    }
    pub fn count(_: usize) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PMCEID of a Cortex-A72 by its reference manual.
    const A72: u64 = 0x7fff_0f3f;
    /// A Cortex-A76 has stalls beside.
    const A76: u64 = A72 | 0x3 << 0x23;

    #[test]
    fn a_cortex_a72_counts_all_but_stalls() {
        let names = ["cycles", "instructions", "L1D refills", "L2D refills", "DTLB refills", "bus access"];
        assert_eq!(Pmu::plan(6, A72).events(), names);
        assert_eq!(Pmu::plan(6, A72).events[..5], [0x08, 0x03, 0x17, 0x05, 0x19]);
    }

    #[test]
    fn a_cortex_a76_counts_all() {
        let pmu = Pmu::plan(6, A76);
        assert_eq!(pmu.events().len(), 7);
        assert_eq!((pmu.events()[5], pmu.events[4]), ("stalls backend", 0x24));
    }

    #[test]
    fn what_a_core_does_not_have_is_not_listed() {
        // QEMU's, without and with -icount.
        assert_eq!(Pmu::plan(6, 0x20001).events(), ["cycles"; 1]);
        assert_eq!(Pmu::plan(6, 0x20101).events(), ["cycles", "instructions"]);
        assert_eq!(Pmu::plan(0, u64::MAX).events(), ["cycles"; 1]);
        assert_eq!(Pmu::plan(1, u64::MAX).events(), ["cycles", "instructions"]);
        assert_eq!(Pmu::plan(31, u64::MAX).events().len(), 7);
        assert!(Pmu::detect().is_none(), "not on a PC");
    }

    #[test]
    fn a_counter_that_has_come_round_has_gained() {
        let looks = [0x8000_0000, 0xffff_ffff, 0, 0, 0x9000_0000, 0x8fff_ffff];
        let totals: [u64; 6] =
            core::array::from_fn(|n| looks[..=n].iter().fold(0, |sum, &low| advance(sum, low)));
        let expected = [0x8000_0000, 0xffff_ffff, 1 << 32, 1 << 32, 0x1_9000_0000, 0x2_8fff_ffff];
        assert_eq!(totals, expected);
    }

    #[test]
    fn only_versions_that_are_no_makers_own_are_used() {
        assert!(!is_known(0) && is_known(1) && is_known(4) && is_known(0xe) && !is_known(0xf));
    }
}
