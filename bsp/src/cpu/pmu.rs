//! The performance monitor (PMUv3): cycles, instructions, refills and stalls of the core that asks.
//!
//! Cycles have a 64-bit counter. Event counters have 32 bits and a flag each that says that they have overflowed:
//! it is looked at whenever they are read and by [`keep_count`], which every core calls once a job. No job has 2³²
//! of anything. (The other way, event 0x1e that chains two counters, costs counters, and QEMU does not have it.)
//! What the core does not say it can count (PMCEID) is not listed. QEMU counts instructions only under `-icount`,
//! and says so only then.
//!
//! The entry code gives all counters to EL1 and traps none (`MDCR_EL2`). No counter interrupts.
//!
//! Source: Arm DDI 0487, D11 "The Performance Monitors Extension"; event numbers, D11.11.
#![allow(unsafe_code)] // system registers

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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

/// Overflows seen of each event counter since [`Pmu::start`]; each core has its own row, on its own cache line.
#[repr(align(64))]
struct Overflows([AtomicU32; EVENTS.len()]);

static OVERFLOWS: [Overflows; CORES_MAX] =
    [const { Overflows([const { AtomicU32::new(0) }; EVENTS.len()]) }; CORES_MAX];
/// Some core has been started.
static COUNTING: AtomicBool = AtomicBool::new(false);

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
            overflows()[index].store(0, Ordering::Relaxed);
        }
        COUNTING.store(true, Ordering::Relaxed);
        registers::start(START);
    }

    /// The calling core's counts since [`Self::start`], one for each of [`Self::events`].
    pub fn read(&self, counts: &mut [u64]) {
        let Some((cycles, counts)) = counts.split_first_mut() else { return };
        *cycles = registers::cycles();
        for (index, count) in counts.iter_mut().enumerate().take(self.used) {
            // An overflow that is noted may have come before the first look or after it.
            let before = registers::count(index);
            let overflowed = note(registers::take_overflows());
            let low = if overflowed { registers::count(index) } else { before };
            *count = u64::from(overflows()[index].load(Ordering::Relaxed)) << 32 | u64::from(low);
        }
    }
}

/// The calling core's row.
fn overflows() -> &'static [AtomicU32; EVENTS.len()] {
    &OVERFLOWS[super::core() % CORES_MAX].0
}

/// Adds these overflows, a bit a counter, to those seen before; says whether there are any.
fn note(flags: u64) -> bool {
    for (index, seen) in overflows().iter().enumerate() {
        let new = (flags >> index & 1) as u32;
        seen.store(seen.load(Ordering::Relaxed) + new, Ordering::Relaxed); // this core's own: no other writes it
    }
    flags != 0
}

/// Notes which of the calling core's counters have overflowed. Cheap: does nothing until counting has begun.
pub fn keep_count() {
    if COUNTING.load(Ordering::Relaxed) {
        note(registers::take_overflows());
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
        write!("pmselr_el0", index as u64);
        settle();
        read!("pmxevcntr_el0") as u32
    }

    /// Event counters that have overflowed since the last call, a bit each.
    pub fn take_overflows() -> u64 {
        settle();
        let flags = read!("pmovsclr_el0") & 0x7fff_ffff;
        if flags != 0 {
            write!("pmovsclr_el0", flags);
        }
        flags
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
    pub fn take_overflows() -> u64 {
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
    fn overflows_add_up() {
        let before: [u32; 2] = [0, 5].map(|index| overflows()[index].load(Ordering::Relaxed));
        assert!(!note(0));
        assert!(note(0b10_0001) && note(0b10_0000));
        let more: [u32; 2] = [0, 5].map(|index| overflows()[index].load(Ordering::Relaxed));
        assert_eq!([more[0] - before[0], more[1] - before[1]], [1, 2]);
    }

    #[test]
    fn only_versions_that_are_no_makers_own_are_used() {
        assert!(!is_known(0) && is_known(1) && is_known(4) && is_known(0xe) && !is_known(0xf));
    }
}
