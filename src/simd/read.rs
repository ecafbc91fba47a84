//! Reading memory as fast as one core can, to know what a board's memory gives.

/// Bytes that one turn of the loop reads.
const STEP: usize = 128;

/// Reads every byte of `bytes` once, in 16-byte loads, and uses none of them. What is left behind the last
/// whole 128 bytes is not read; gives the number of bytes read.
///
/// Each load is one instruction that the compiler can't drop: a figure of bandwidth would mean nothing else.
#[inline(never)] // so that its machine code has a name, which a test looks up
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub fn read(bytes: &[u8]) -> usize {
    let steps = bytes.len() / STEP;
    if steps > 0 {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: reads `steps` × STEP bytes from the slice's beginning, which are all within it; the registers that
        // are overwritten are named. Advanced SIMD is part of every AArch64 target of ours.
        unsafe {
            core::arch::asm!(
                "2:",
                "ldr {v:q}, [{at}]",
                "ldr {v:q}, [{at}, #16]",
                "ldr {v:q}, [{at}, #32]",
                "ldr {v:q}, [{at}, #48]",
                "ldr {v:q}, [{at}, #64]",
                "ldr {v:q}, [{at}, #80]",
                "ldr {v:q}, [{at}, #96]",
                "ldr {v:q}, [{at}, #112]",
                "add {at}, {at}, #128",
                "subs {steps}, {steps}, #1",
                "b.ne 2b",
                at = inout(reg) bytes.as_ptr() => _,
                steps = inout(reg) steps => _,
                v = out(vreg) _,
                options(readonly, nostack),
            );
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads `steps` × STEP bytes from the slice's beginning, which are all within it; the registers that
        // are overwritten are named. SSE is part of every x86-64 target.
        unsafe {
            core::arch::asm!(
                "2:",
                "movups {v}, [{at}]",
                "movups {v}, [{at} + 16]",
                "movups {v}, [{at} + 32]",
                "movups {v}, [{at} + 48]",
                "movups {v}, [{at} + 64]",
                "movups {v}, [{at} + 80]",
                "movups {v}, [{at} + 96]",
                "movups {v}, [{at} + 112]",
                "add {at}, 128",
                "dec {steps}",
                "jnz 2b",
                at = inout(reg) bytes.as_ptr() => _,
                steps = inout(reg) steps => _,
                v = out(xmm_reg) _,
                options(readonly, nostack),
            );
        }
    }
    steps * STEP
}

/// The same for other machines, with the widest load that the compiler must not drop.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub fn read(bytes: &[u8]) -> usize {
    let whole = bytes.len() / STEP * STEP;
    for word in bytes[..whole].chunks_exact(8) {
        // SAFETY: eight bytes of a slice; a u64 made of any bytes is a u64, and the read asks for no alignment.
        core::hint::black_box(unsafe { word.as_ptr().cast::<u64>().read_unaligned() });
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_steps_are_read_and_nothing_behind_the_end() {
        let bytes = std::vec![7u8; 1000];
        for (len, expected) in [(0, 0), (127, 0), (128, 128), (129, 128), (999, 896)] {
            assert_eq!(read(&bytes[1..][..len]), expected);
        }
        assert!(bytes.iter().all(|&byte| byte == 7));
    }
}
