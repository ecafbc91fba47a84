//! Instructions that may fault: registers that a core or a board need not have.
//!
//! A fault in these few lines, at EL1 (`exception`) or taken at EL2 (`firmware` boot.rs), goes on at their end, and is a
//! result instead of last words. So is an error that the bus reports later on (SError), within a quarter of a millisecond after a
//! load: the window in which RP1 is not may answer so (a Raspberry Pi 5's; seen on a board by others).
//!
//! Source: Arm DDI 0487, D1 (asynchronous exceptions, PSTATE.A): an SError that PSTATE.A masks stays pending, and is taken once it is unmasked.
#![allow(unsafe_code)] // instructions, and the addresses that they try

/// Clears and sets bits of a Cortex-A72's CPUECTLR_EL1 and gives what it then reads; none if the access trapped.
pub(super) fn write_extended_control(clear: u64, set: u64) -> Option<u64> {
    #[cfg(target_os = "none")]
    {
        let (now, done): (u64, u64);
        // SAFETY: the caller is on a Cortex-A72, where the bits that change are a matter of speed alone; the function
        // uses no stack and only the registers named, and a fault in it leads to its end.
        unsafe {
            core::arch::asm!(
                "bl embodios_guarded_control",
                inout("x0") clear => now, inout("x1") set => done, out("x2") _, out("x3") _, out("x30") _,
                options(nostack),
            );
        }
        (done == 1).then_some(now)
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = (clear, set);
        None
    }
}

/// What a 32-bit register reads; none where the bus reports an error, at once or soon after.
///
/// # Safety
/// `address` must be mapped as device memory, aligned, and reading what may be there must do no harm.
pub unsafe fn load(address: usize) -> Option<u32> {
    #[cfg(target_os = "none")]
    {
        let (value, done): (u64, u64);
        // SAFETY: the caller vouches for the address; a fault leads to the end of the function called.
        unsafe {
            core::arch::asm!(
                "mrs x6, daif",
                "bl embodios_guarded_load",
                "msr daif, x6",
                inout("x0") address as u64 => value, out("x1") done, out("x2") _, out("x3") _, out("x4") _,
                out("x6") _, out("x30") _,
                options(nostack),
            );
        }
        (done == 1).then_some(value as u32)
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = address;
        None
    }
}

/// Executes an undefined instruction where one is allowed for. Returns whether it was caught.
pub fn trap_on_purpose() -> bool {
    #[cfg(target_os = "none")]
    {
        let done: u64;
        // SAFETY: as above; the instruction is undefined, and that is caught.
        unsafe {
            core::arch::asm!(
                "bl embodios_guarded_undefined",
                out("x0") _, out("x1") done, out("x2") _, out("x3") _, out("x30") _,
                options(nostack),
            );
        }
        done == 0
    }
    #[cfg(not(target_os = "none"))]
    true
}

// Between start and end a fault is a result: `exception` goes on at the end. x1 is 0 until all was done.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .text.guarded, "ax"
    .global embodios_guarded_start
    .global embodios_guarded_end
    .global embodios_guarded_control
    .global embodios_guarded_undefined
    .global embodios_guarded_load
    embodios_guarded_control:
        mov     x2, x1
        mov     x1, xzr
    embodios_guarded_start:
        mrs     x3, S3_1_C15_C2_1
        bic     x3, x3, x0
        orr     x3, x3, x2
        msr     S3_1_C15_C2_1, x3
        isb
        mrs     x0, S3_1_C15_C2_1
        mov     x1, #1
        ret
    embodios_guarded_undefined:
        mov     x1, xzr
        udf     #0
        mov     x1, #1
        ret
    embodios_guarded_load:              // from here on an SError is a result, too; the caller puts DAIF back
        mov     x1, xzr
        msr     daifclr, #4
        isb
        ldr     w0, [x0]
        dsb     sy                      // the answer is here, or the error …
        mrs     x2, cntfrq_el0
        mrs     x3, cntpct_el0
        add     x2, x3, x2, lsr #12
    1:  isb                             // … or it comes now
        mrs     x4, cntpct_el0
        cmp     x4, x2
        b.lo    1b
        mov     x1, #1
    embodios_guarded_end:
        ret
    "#
);
