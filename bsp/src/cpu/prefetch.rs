//! How far ahead a Cortex-A72 prefetches into its second-level cache.
//!
//! The boot stub of a Raspberry Pi 4 leaves both distances at their lowest (it overwrites CPUECTLR_EL1 with SMPEN alone),
//! and allows the levels below it to change them. Which setting is best nobody has measured, so it is an option. The
//! register is not architecture: a core that has another, or a stub that forbids it, traps; a trap that comes to us is
//! caught ([`super::guarded`]), and the setting is not made. One that a foreign stub takes at EL3 we
//! can't catch: that is why nothing is written unless it is asked for.
//!
//! Source: Cortex-A72 TRM (100095) 4.3.67, CPUECTLR_EL1: bits 36:35 distance of L2 instruction prefetch (0 off, 3 after a
//! reset), 33:32 of L2 load prefetch.

use super::guarded;

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
    match guarded::write_extended_control(DISTANCES, wanted) {
        None => Err(Refused::Trapped),
        Some(now) if now & DISTANCES != wanted => Err(Refused::Unchanged),
        Some(_) => Ok(()),
    }
}

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
