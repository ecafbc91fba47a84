//! Exceptions: the vectors of every core, and what a syndrome says in English.
//!
//! An interrupt saves what Rust may change and calls the handler that [`install`] named. Everything else is
//! a fault: the core moves to its own fault stack (the one it ran on may be what broke), keeps all registers
//! in a [`Frame`] and calls the fault handler, which prints and does not return. Only in the few lines of
//! `guarded`, which try a register that need not be there, a fault or a system error leads on to their end.
//!
//! Source: Arm DDI 0487, D1.10 (vectors), D17.2.37 (ESR_EL1).
#![allow(unsafe_code)] // vectors are assembly; the handlers it calls are told a raw frame

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

/// All a core knew when it faulted. The order is the assembly's.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Stack pointer before the fault.
    pub sp: u64,
    /// Address of the instruction (ELR_EL1).
    pub elr: u64,
    /// Processor state (SPSR_EL1).
    pub spsr: u64,
    /// Syndrome (ESR_EL1).
    pub esr: u64,
    /// Address that faulted (FAR_EL1); only with memory faults.
    pub far: u64,
    /// Which of the sixteen vectors.
    pub vector: u64,
    /// Keeps the frame a multiple of 16 bytes.
    pub reserved: u64,
}

/// What to do with an interrupt; it runs with interrupts masked.
pub type InterruptHandler = fn();
/// What to do with a fault.
pub type FaultHandler = fn(&Frame) -> !;

static INTERRUPT: AtomicUsize = AtomicUsize::new(0);
static FAULT: AtomicUsize = AtomicUsize::new(0);

/// Names the handlers, for all cores.
pub fn install(interrupt: InterruptHandler, fault: FaultHandler) {
    INTERRUPT.store(interrupt as usize, Ordering::Release);
    FAULT.store(fault as usize, Ordering::Release);
}

/// A fault in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The vector taken.
    pub vector: u64,
    /// ESR_EL1.
    pub esr: u64,
}

impl Cause {
    /// Bits 31:26: what kind of thing happened.
    fn class(self) -> u64 {
        (self.esr >> 26) & 0x3f
    }
    /// Whether FAR_EL1 holds the address.
    pub fn has_address(self) -> bool {
        let not_valid = self.esr & (1 << 10) != 0; // FnV: the address of an external abort got lost
        self.vector.is_multiple_of(4)
            && match self.class() {
                0x20 | 0x21 | 0x24 | 0x25 => !not_valid,
                0x22 | 0x34 | 0x35 => true,
                _ => false,
            }
    }
    /// Fault status code of an abort: DDI 0487, ISS encoding, DFSC and IFSC.
    fn status(self) -> &'static str {
        match self.esr & 0x3f {
            0x00..=0x03 => "address size",
            0x04..=0x07 => "nothing is mapped there",
            0x08..=0x0b => "access flag",
            0x0c..=0x0f => "not permitted there",
            0x10 | 0x14..=0x17 => "the bus reported an error: no device or no memory answers",
            0x18 | 0x1c..=0x1f => "memory error (parity or ECC)",
            0x21 => "not aligned",
            0x30 => "TLB conflict",
            _ => "other reason",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vector % 4 {
            1 => return f.write_str("unexpected IRQ vector"),
            2 => return f.write_str("unexpected FIQ"),
            3 => return f.write_str("system error (SError): a write or a device access failed later on"),
            _ => {}
        }
        match self.class() {
            0x00 => f.write_str("undefined instruction"),
            0x01 => f.write_str("trapped WFI or WFE"),
            0x07 => f.write_str("floating point or NEON is switched off"),
            0x0e => f.write_str("illegal execution state"),
            0x15 => f.write_str("supervisor call"),
            0x16 => f.write_str("hypervisor call"),
            0x17 => f.write_str("secure monitor call"),
            0x18 => f.write_str("trapped system register access"),
            0x20 | 0x21 => write!(f, "instruction fetch failed ({})", self.status()),
            0x22 => f.write_str("program counter is not aligned"),
            0x24 | 0x25 => {
                let what = if self.esr & (1 << 6) != 0 { "write" } else { "read" };
                write!(f, "{what} failed ({})", self.status())
            }
            0x26 => f.write_str("stack pointer is not aligned"),
            0x2c => f.write_str("floating-point exception"),
            0x2f => f.write_str("system error (SError)"),
            0x30 | 0x31 => f.write_str("hardware breakpoint"),
            0x32 | 0x33 => f.write_str("single step"),
            0x34 | 0x35 => f.write_str("watchpoint"),
            0x3c => f.write_str("breakpoint instruction"),
            other => write!(f, "exception class {other:#x}"),
        }
    }
}

impl Frame {
    /// Why, in words.
    pub fn cause(&self) -> Cause {
        Cause { vector: self.vector, esr: self.esr }
    }
}

/// Errors that [`provoke`] can commit, to see them caught.
pub const KINDS: &[&str] = &["read", "write", "undefined", "stack", "exec"];

/// Commits an error on purpose. Returns only if `kind` is none of [`KINDS`].
pub fn provoke(kind: &str) {
    /// Far above RAM and devices of every board, inside the 39 bits that can be mapped.
    const NOWHERE: usize = 0x7e_0000_0000;
    match kind {
        // SAFETY: there is none: these are the faults asked for, and none of them returns.
        "read" => unsafe {
            let _ = (NOWHERE as *const u32).read_volatile();
        },
        // SAFETY: as above: code is mapped read-only.
        "write" => unsafe { (provoke as *const () as *mut u32).write_volatile(0) },
        #[cfg(target_os = "none")]
        // SAFETY: as above.
        "undefined" => unsafe { core::arch::asm!("udf #0") },
        "stack" => {
            core::hint::black_box(descend(1));
        }
        "exec" => {
            static DATA: AtomicUsize = AtomicUsize::new(0);
            let data = &raw const DATA;
            // SAFETY: as above: data is mapped execute-never.
            let function: extern "C" fn() = unsafe { core::mem::transmute(data) };
            function();
        }
        _ => {}
    }
}

/// Uses stack until there is none.
#[allow(unconditional_recursion)]
#[inline(never)]
fn descend(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    descend(depth + 1) + room[(depth % 64) as usize]
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn embodios_interrupt() {
    let handler = INTERRUPT.load(Ordering::Acquire);
    if handler != 0 {
        // SAFETY: only `install` stores here, and it stores an `InterruptHandler`.
        let handler: InterruptHandler = unsafe { core::mem::transmute(handler) };
        handler();
    }
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn embodios_fault(frame: &Frame) -> ! {
    let handler = FAULT.load(Ordering::Acquire);
    if handler != 0 {
        // SAFETY: only `install` stores here, and it stores a `FaultHandler`.
        let handler: FaultHandler = unsafe { core::mem::transmute(handler) };
        handler(frame);
    }
    super::park()
}

// The vectors. TPIDR_EL1 holds the top of this core's fault stack (`firmware` boot.rs sets it); TPIDR_EL0 and
// TPIDRRO_EL0, which nothing else uses, hold x0 and the old stack pointer for the few instructions in between.
//
// An interrupt keeps x0-x18, x29, x30, all of q0-q31 (Rust code of the hard-float target may use any of
// them, and the handler's callees keep only the low halves of q8-q15), ELR, SPSR, FPSR and FPCR.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .macro FAULT number
    .balign 128
        msr     tpidr_el0, x0
        mov     x0, sp
        msr     tpidrro_el0, x0
        mrs     x0, tpidr_el1
        mov     sp, x0
        sub     sp, sp, #304
        stp     x1, x2, [sp, #8]
        mov     x1, #\number
        b       embodios_keep_fault
    .endm

    .macro INTERRUPT
    .balign 128
        b       embodios_keep_interrupt
    .endm

    .section .text.vectors, "ax"
    .balign 2048
    .global embodios_vectors
    embodios_vectors:
        FAULT 0
        FAULT 1
        FAULT 2
        FAULT 3
        FAULT 4
        INTERRUPT
        FAULT 6
        FAULT 7
        FAULT 8
        FAULT 9
        FAULT 10
        FAULT 11
        FAULT 12
        FAULT 13
        FAULT 14
        FAULT 15

    embodios_keep_fault:
        adrp    x2, embodios_guarded_start
        add     x2, x2, :lo12:embodios_guarded_start
        cmp     x1, #4                  // synchronous, in our own code …
        b.eq    2f
        adrp    x2, embodios_guarded_load
        add     x2, x2, :lo12:embodios_guarded_load
        cmp     x1, #7                  // … or a system error there, which a load alone allows for
        b.ne    1f
    2:  mrs     x0, elr_el1
        cmp     x0, x2
        b.lo    1f
        adrp    x2, embodios_guarded_end
        add     x2, x2, :lo12:embodios_guarded_end
        cmp     x0, x2
        b.hs    1f
        msr     elr_el1, x2
        ldp     x1, x2, [sp, #8]
        mrs     x0, tpidrro_el0
        mov     sp, x0
        mrs     x0, tpidr_el0
        eret
    1:  mrs     x0, tpidr_el0
        str     x0, [sp, #0]
        stp     x3, x4, [sp, #24]
        stp     x5, x6, [sp, #40]
        stp     x7, x8, [sp, #56]
        stp     x9, x10, [sp, #72]
        stp     x11, x12, [sp, #88]
        stp     x13, x14, [sp, #104]
        stp     x15, x16, [sp, #120]
        stp     x17, x18, [sp, #136]
        stp     x19, x20, [sp, #152]
        stp     x21, x22, [sp, #168]
        stp     x23, x24, [sp, #184]
        stp     x25, x26, [sp, #200]
        stp     x27, x28, [sp, #216]
        stp     x29, x30, [sp, #232]
        mrs     x0, tpidrro_el0
        mrs     x2, elr_el1
        stp     x0, x2, [sp, #248]
        mrs     x0, spsr_el1
        mrs     x2, esr_el1
        stp     x0, x2, [sp, #264]
        mrs     x0, far_el1
        stp     x0, x1, [sp, #280]
        str     xzr, [sp, #296]
        mov     x0, sp
        mov     x29, xzr
        mov     x30, xzr
        bl      embodios_fault
    1:  wfi
        b       1b

    embodios_keep_interrupt:
        sub     sp, sp, #720
        stp     x0, x1, [sp, #0]
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x29, [sp, #144]
        mrs     x0, elr_el1
        mrs     x1, spsr_el1
        stp     x30, x0, [sp, #160]
        mrs     x2, fpsr
        stp     x1, x2, [sp, #176]
        mrs     x3, fpcr
        str     x3, [sp, #192]
        add     x4, sp, #208
        stp     q0, q1, [x4, #0]
        stp     q2, q3, [x4, #32]
        stp     q4, q5, [x4, #64]
        stp     q6, q7, [x4, #96]
        stp     q8, q9, [x4, #128]
        stp     q10, q11, [x4, #160]
        stp     q12, q13, [x4, #192]
        stp     q14, q15, [x4, #224]
        stp     q16, q17, [x4, #256]
        stp     q18, q19, [x4, #288]
        stp     q20, q21, [x4, #320]
        stp     q22, q23, [x4, #352]
        stp     q24, q25, [x4, #384]
        stp     q26, q27, [x4, #416]
        stp     q28, q29, [x4, #448]
        stp     q30, q31, [x4, #480]
        bl      embodios_interrupt
        add     x4, sp, #208
        ldp     q0, q1, [x4, #0]
        ldp     q2, q3, [x4, #32]
        ldp     q4, q5, [x4, #64]
        ldp     q6, q7, [x4, #96]
        ldp     q8, q9, [x4, #128]
        ldp     q10, q11, [x4, #160]
        ldp     q12, q13, [x4, #192]
        ldp     q14, q15, [x4, #224]
        ldp     q16, q17, [x4, #256]
        ldp     q18, q19, [x4, #288]
        ldp     q20, q21, [x4, #320]
        ldp     q22, q23, [x4, #352]
        ldp     q24, q25, [x4, #384]
        ldp     q26, q27, [x4, #416]
        ldp     q28, q29, [x4, #448]
        ldp     q30, q31, [x4, #480]
        ldr     x3, [sp, #192]
        msr     fpcr, x3
        ldp     x1, x2, [sp, #176]
        msr     fpsr, x2
        msr     spsr_el1, x1
        ldp     x30, x0, [sp, #160]
        msr     elr_el1, x0
        ldp     x18, x29, [sp, #144]
        ldp     x16, x17, [sp, #128]
        ldp     x14, x15, [sp, #112]
        ldp     x12, x13, [sp, #96]
        ldp     x10, x11, [sp, #80]
        ldp     x8, x9, [sp, #64]
        ldp     x6, x7, [sp, #48]
        ldp     x4, x5, [sp, #32]
        ldp     x2, x3, [sp, #16]
        ldp     x0, x1, [sp, #0]
        add     sp, sp, #720
        eret
    "#
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_syndrome_reads_as_a_sentence() {
        let say = |vector, esr| format!("{}", Cause { vector, esr });
        assert_eq!(say(4, 0x9600_0005), "read failed (nothing is mapped there)");
        assert_eq!(say(4, 0x9600_004f), "write failed (not permitted there)");
        assert_eq!(
            say(4, 0x9600_0010),
            "read failed (the bus reported an error: no device or no memory answers)"
        );
        assert_eq!(say(4, 0x8600_000f), "instruction fetch failed (not permitted there)");
        assert_eq!(say(4, 0x0200_0000), "undefined instruction");
        assert_eq!(say(4, 0xf200_0000 | 0x1234), "breakpoint instruction");
        assert!(say(7, 0xbf00_0002).starts_with("system error"));
        assert_eq!(say(4, 0x2a << 26), "exception class 0x2a");
    }

    #[test]
    fn an_address_is_shown_only_when_there_is_one() {
        assert!(Cause { vector: 4, esr: 0x9600_0005 }.has_address());
        assert!(!Cause { vector: 4, esr: 0x0200_0000 }.has_address());
        assert!(!Cause { vector: 4, esr: 0x9600_0410 }.has_address());
        assert!(!Cause { vector: 7, esr: 0x9600_0005 }.has_address());
    }

    #[test]
    fn the_frame_is_as_long_as_the_assembly_thinks() {
        assert_eq!(core::mem::size_of::<Frame>(), 304);
        assert_eq!(core::mem::offset_of!(Frame, vector), 288);
    }

    #[test]
    fn an_unknown_kind_of_fault_is_not_committed() {
        provoke("none");
        assert!(!KINDS.contains(&"none"));
    }
}
