//! The processor: which core this is, what it is called, barriers, interrupt masking, sleep.
//!
//! Everything the rest of the board needs of an AArch64 core without knowing an instruction. On a PC the
//! same functions exist and do the nearest harmless thing, so that drivers can be tested there.
#![allow(unsafe_code)] // barriers, cache maintenance and system registers are instructions

pub mod cores;
pub mod exception;
pub mod guarded;
pub mod mmu;
pub mod pmu;
pub mod prefetch;
pub mod psci;
pub mod timer;

#[cfg(target_os = "none")]
use aarch64_cpu::registers::{CurrentEL, DAIF, MIDR_EL1, MPIDR_EL1, Readable};
#[cfg(target_os = "none")]
use core::arch::asm;

/// Cores a board can have; stacks and tables are laid out for this many.
pub const CORES_MAX: usize = 4;

/// Where in MPIDR the cores of the board are counted: affinity level 0 on a Cortex-A72; level 1 on a core that
/// reports itself as multi-threaded (MPIDR bit 24, Cortex-A76).
fn core_shift(mpidr: u64) -> u32 {
    if mpidr & (1 << 24) == 0 { 0 } else { 8 }
}

/// This core's MPIDR.
fn mpidr() -> u64 {
    #[cfg(target_os = "none")]
    {
        MPIDR_EL1.get()
    }
    #[cfg(not(target_os = "none"))]
    crate::machine::here().affinity()
}

/// The core this runs on, 0 to [`CORES_MAX`] - 1.
pub fn core() -> usize {
    core_of(mpidr())
}

fn core_of(mpidr: u64) -> usize {
    ((mpidr >> core_shift(mpidr)) & 0xff) as usize
}

/// What a firmware calls the core of this number.
pub fn affinity(core: usize) -> u64 {
    affinity_beside(mpidr(), core)
}

/// What a firmware calls the core of this number, on a board one of whose cores has this MPIDR.
fn affinity_beside(mpidr: u64, core: usize) -> u64 {
    (core as u64) << core_shift(mpidr)
}

/// The exception level this runs at.
pub fn exception_level() -> u8 {
    #[cfg(target_os = "none")]
    {
        CurrentEL.read(CurrentEL::EL) as u8
    }
    #[cfg(not(target_os = "none"))]
    0
}

/// The core's part number: MIDR_EL1 bits 15:4.
pub fn part() -> u32 {
    #[cfg(target_os = "none")]
    {
        (MIDR_EL1.get() >> 4) as u32 & 0xfff
    }
    #[cfg(not(target_os = "none"))]
    0
}

/// The whole identification register of the core that asks: who made it, which kind, which revision.
pub fn identification() -> u64 {
    #[cfg(target_os = "none")]
    {
        MIDR_EL1.get()
    }
    #[cfg(not(target_os = "none"))]
    0
}

/// What the core is called, from its part number.
pub fn name() -> &'static str {
    part_name(part())
}

/// Part numbers of Arm's own cores: MIDR_EL1 bits 15:4 in each core's reference manual.
fn part_name(part: u32) -> &'static str {
    match part {
        0xd03 => "Cortex-A53",
        0xd08 => "Cortex-A72",
        0xd0b => "Cortex-A76",
        0xd0c => "Neoverse N1",
        _ => "AArch64 core",
    }
}

/// Waits until every store made so far can be seen by all cores and devices.
pub fn publish() {
    #[cfg(target_os = "none")]
    // SAFETY: a barrier changes no state that Rust knows of.
    unsafe {
        asm!("dsb sy", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        crate::machine::here().barrier();
    }
}

/// Sleeps until an interrupt is pending, also when interrupts are masked.
pub fn wait_for_interrupt() {
    #[cfg(target_os = "none")]
    // SAFETY: the core goes on where it was; the barrier makes its stores visible before it sleeps.
    unsafe {
        asm!("dsb sy", "wfi", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    {
        let machine = crate::machine::here();
        machine.barrier();
        machine.wait_for_interrupt();
    }
}

/// Whether an interrupt is pending at this core, also when interrupts are masked.
///
/// Source: Arm DDI 0487, ISR_EL1: what pends at the core, whatever PSTATE masks.
pub fn interrupt_pending() -> bool {
    #[cfg(target_os = "none")]
    {
        let pending: u64;
        // SAFETY: reading it changes nothing.
        unsafe {
            asm!("mrs {pending}, isr_el1", pending = out(reg) pending, options(nostack, preserves_flags))
        };
        pending & (1 << 7) != 0
    }
    #[cfg(not(target_os = "none"))]
    crate::machine::here().interrupt_pending()
}

/// Wakes cores that wait for an event: those still in the boot loader's spin table.
pub fn send_event() {
    #[cfg(target_os = "none")]
    // SAFETY: an event wakes sleepers and changes nothing else.
    unsafe {
        asm!("dsb sy", "sev", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    {
        let machine = crate::machine::here();
        machine.barrier();
        machine.send_event();
    }
}

/// Stops this core for good. Interrupts are masked, so it sleeps.
pub fn park() -> ! {
    let _masked = Masked::new();
    loop {
        wait_for_interrupt();
    }
}

/// Lets this core take interrupts.
pub fn unmask_interrupts() {
    #[cfg(target_os = "none")]
    // SAFETY: called when vectors and a handler are in place (`firmware` main); IRQ and SError only.
    unsafe {
        asm!("msr daifclr, #6", options(nostack));
    }
}

/// Lets this core report system errors; interrupts stay as they are.
pub fn unmask_errors() {
    #[cfg(target_os = "none")]
    // SAFETY: the vectors are in place since the entry code; a system error is reported and ends the run.
    unsafe {
        asm!("msr daifclr, #4", options(nostack));
    }
}

/// Interrupts are masked on this core as long as this lives.
pub struct Masked {
    #[cfg(target_os = "none")]
    before: u64,
}

impl Masked {
    /// Masks interrupts and remembers whether they were.
    #[allow(clippy::new_without_default)] // it does something
    pub fn new() -> Self {
        #[cfg(target_os = "none")]
        {
            let before = DAIF.get();
            // SAFETY: masking an interrupt only delays it.
            unsafe { asm!("msr daifset, #2", options(nostack)) };
            Self { before }
        }
        #[cfg(not(target_os = "none"))]
        Self {}
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        #[cfg(target_os = "none")]
        if self.before & (1 << 7) == 0 {
            // SAFETY: they were unmasked when this value was made.
            unsafe { asm!("msr daifclr, #2", options(nostack)) };
        }
    }
}

/// Ends an emulated machine with an exit code (semihosting SYS_EXIT_EXTENDED's 64-bit SYS_EXIT).
///
/// Only where the boot arguments allow it: elsewhere the instruction is undefined. Source: Arm
/// "Semihosting for AArch32 and AArch64", 7.12: `ADP_Stopped_ApplicationExit` = 0x20026.
pub fn semihosting_exit(code: u32) {
    #[cfg(target_os = "none")]
    {
        let block: [u64; 2] = [0x20026, u64::from(code)];
        // SAFETY: the debugger reads the two words the register points to, and the machine ends.
        unsafe {
            asm!("hlt #0xf000", inout("x0") 0x18_u64 => _, in("x1") block.as_ptr(), options(nostack));
        }
    }
    #[cfg(not(target_os = "none"))]
    let _ = code;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_where_their_kind_counts_them() {
        const A72: u64 = 0x8000_0000;
        const A76: u64 = 0x8100_0000;
        for core in 0..CORES_MAX {
            assert_eq!(core_of(A72 | core as u64), core);
            assert_eq!(core_of(A76 | (core as u64) << 8), core);
            assert_eq!(affinity_beside(A72, core), core as u64, "BCM2711's tree: reg = 0, 1, 2, 3");
            assert_eq!(
                affinity_beside(A76, core),
                core as u64 * 0x100,
                "BCM2712's: reg = 0, 0x100, 0x200, 0x300"
            );
        }
    }

    #[test]
    fn the_boards_processors_have_names() {
        assert_eq!(part_name(0xd08), "Cortex-A72");
        assert_eq!(part_name(0xd0b), "Cortex-A76");
        assert_eq!(part_name(0xfff), "AArch64 core");
    }
}
