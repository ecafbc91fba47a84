//! Level: which instructions this CPU has proved to have.
//!
//! A level is a witness: `Neon` and `Dotprod` hold a value that only detection makes, so a kernel that takes
//! one may rely on the instructions being there. Every level gives the same bits; they differ in speed only.
#![allow(unsafe_code)] // vector loads and one instruction that stable Rust has no intrinsic for

use core::fmt;

#[cfg(target_arch = "aarch64")]
pub mod neon;

/// Which version of the kernels runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Plain Rust: the definition that the others are judged by.
    Plain,
    /// ARMv8.0 Advanced SIMD: Cortex-A72.
    Neon(Neon),
    /// With the int8 dot product of ARMv8.2: Cortex-A76.
    Dotprod(Dotprod),
}

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

    /// `plain`, `neon` or `dotprod`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
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
    let neon = cfg!(target_arch = "aarch64").then_some(Level::Neon(Neon(())));
    let dotprod = has_dotprod().then_some(Level::Dotprod(Dotprod(())));
    core::iter::once(Level::Plain).chain(neon).chain(dotprod)
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
