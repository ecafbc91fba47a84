//! How far ahead a Cortex-A72 prefetches into its second-level cache.
//!
//! The boot stub of a Raspberry Pi 4 leaves both distances at their lowest (it overwrites CPUECTLR_EL1 with SMPEN alone),
//! and allows the levels below it to change them. Which setting is best nobody has measured, so it is an option. The
//! register is not architecture: a core that has another, or a stub that forbids it, traps; a trap that comes to us is
//! caught ([`super::exception`], guarded lines), and the setting is not made. One that a foreign stub takes at EL3 we
//! can't catch: that is why nothing is written unless it is asked for.
//!
//! Source: Cortex-A72 TRM (100095) 4.3.67, CPUECTLR_EL1: bits 36:35 distance of L2 instruction prefetch (0 off, 3 after a
//! reset), 33:32 of L2 load prefetch.
#![allow(unsafe_code)] // a system register is written by an instruction

/// The longest distance there is.
pub const LONGEST: u8 = 3;

/// Bits 36:35 and 33:32.
const DISTANCES: u64 = 0b11 << 35 | 0b11 << 32;

/// The two fields for a distance: of loads as asked for, of instructions as after a reset.
fn fields(distance: u8) -> u64 {
    0b11 << 35 | u64::from(distance.min(LONGEST)) << 32
}

/// Why it was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The processor is none that has this setting.
    OtherProcessor,
    /// The register can't be written from here.
    Trapped,
    /// It was written and kept its value.
    Unchanged,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OtherProcessor => "only a Cortex-A72 has this setting",
            Self::Trapped => "the boot stub does not allow this setting",
            Self::Unchanged => "the processor did not take this setting",
        })
    }
}

/// Sets the distance on the core this runs on.
pub fn set(distance: u8) -> Result<(), Refused> {
    if super::name() != "Cortex-A72" {
        return Err(Refused::OtherProcessor);
    }
    let wanted = fields(distance);
    match write_extended_control(DISTANCES, wanted) {
        None => Err(Refused::Trapped),
        Some(now) if now & DISTANCES != wanted => Err(Refused::Unchanged),
        Some(_) => Ok(()),
    }
}

/// Clears and sets bits of CPUECTLR_EL1 and gives what it then reads; none if the access trapped.
fn write_extended_control(clear: u64, set: u64) -> Option<u64> {
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

// Between the two labels a fault is a result: `exception` goes on at the second. x1 is 0 until all was done.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .text.guarded, "ax"
    .global embodios_guarded_start
    .global embodios_guarded_end
    .global embodios_guarded_control
    .global embodios_guarded_undefined
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
    embodios_guarded_end:
        ret
    "#
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_distances_change() {
        for distance in 0..=LONGEST {
            assert_eq!(fields(distance) & !DISTANCES, 0);
            assert_eq!(fields(distance) >> 32 & 3, u64::from(distance));
            assert_eq!(fields(distance) >> 35 & 3, 3);
        }
        assert_eq!(fields(200), fields(LONGEST));
        assert_eq!(DISTANCES & 0x40, 0, "SMPEN, without which a core leaves the others' coherency");
    }

    #[test]
    fn another_processor_is_not_touched() {
        assert_eq!(set(3), Err(Refused::OtherProcessor));
    }
}
