//! Level: which instructions this CPU has proved to have.
//!
//! A level is a witness: `Neon` and `Dotprod` hold a value that only detection makes, so a kernel that takes
//! one may rely on the instructions being there. Every level gives the same bits; they differ in speed only.
#![allow(unsafe_code)] // vector loads and instructions that stable Rust has no intrinsic for

use core::fmt;

pub mod fused;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod read;

pub use fused::Fused;

/// Which version of the kernels runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Plain Rust: the definition that the others are judged by.
    Plain,
    /// AVX2, FMA and F16C: a PC. Tiles of its own, everything else plain Rust compiled for these.
    Fma(Fma),
    /// ARMv8.0 Advanced SIMD: Cortex-A72.
    Neon(Neon),
    /// With the int8 dot product of ARMv8.2: Cortex-A76.
    Dotprod(Dotprod),
}

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fma(());

/// Proof that the CPU has Advanced SIMD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neon(());

/// Proof that the CPU has `sdot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dotprod(());

impl Level {
    /// The best level of this CPU.
    pub fn detect() -> Self {
        levels().last().unwrap_or(Self::Plain)
    }

    /// The level of this name, if this CPU has it.
    pub fn named(name: &str) -> Option<Self> {
        levels().find(|level| level.name() == name)
    }

    /// `plain`, `fma`, `neon` or `dotprod`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fma(_) => "fma",
            Self::Neon(_) => "neon",
            Self::Dotprod(_) => "dotprod",
        }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::detect()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The levels that this CPU has, slowest first.
pub fn levels() -> impl Iterator<Item = Level> {
    let fma = has_fma().then_some(Level::Fma(Fma(())));
    let neon = cfg!(target_arch = "aarch64").then_some(Level::Neon(Neon(())));
    let dotprod = has_dotprod().then_some(Level::Dotprod(Dotprod(())));
    core::iter::once(Level::Plain).chain(fma).chain(neon).chain(dotprod)
}

/// Asks CPUID, and XGETBV whether the wide registers are kept for us.
#[cfg(target_arch = "x86_64")]
fn has_fma() -> bool {
    cpufeatures::new!(avx2_fma, "avx2", "fma");
    // F16C is bit 29 of ECX of leaf 1 (Intel SDM volume 2A, CPUID), which the crate does not know.
    avx2_fma::get() && core::arch::x86_64::__cpuid(1).ecx >> 29 & 1 == 1
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fma() -> bool {
    false
}

/// Reads ID_AA64ISAR0_EL1.DP (Arm ARM D19.2.61): 1 means `sdot` and `udot`. Linux lets user programs read
/// it too (Documentation/arch/arm64/cpu-feature-registers.rst).
#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "linux")))]
fn has_dotprod() -> bool {
    let isar0: u64;
    // SAFETY: a read of an identification register; at EL1 it is allowed, at EL0 Linux emulates it.
    unsafe { core::arch::asm!("mrs {}, ID_AA64ISAR0_EL1", out(reg) isar0, options(pure, nomem, nostack)) };
    (isar0 >> 44) & 0xf >= 1
}

#[cfg(not(all(target_arch = "aarch64", any(target_os = "none", target_os = "linux"))))]
fn has_dotprod() -> bool {
    false
}

/// A border between the phases of a measured run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Before the prompt.
    Prompt,
    /// After the prompt, before the first token of the answer is decoded.
    Decode,
    /// After decoding.
    End,
}

/// Executes `hint #0x60`, `#0x61` or `#0x62`: no-operations to a CPU (Arm ARM C6.2.126, unallocated hints), borders to
/// an instruction counter. Nothing on other architectures.
#[inline(always)]
pub fn mark(mark: Mark) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: unallocated hints do nothing. They are not `nomem`: the work of a phase may not be moved past them.
    unsafe {
        match mark {
            Mark::Prompt => core::arch::asm!("hint #0x60", options(nostack, preserves_flags)),
            Mark::Decode => core::arch::asm!("hint #0x61", options(nostack, preserves_flags)),
            Mark::End => core::arch::asm!("hint #0x62", options(nostack, preserves_flags)),
        }
    }
    #[cfg(not(target_arch = "aarch64"))]
    let _ = mark;
}
