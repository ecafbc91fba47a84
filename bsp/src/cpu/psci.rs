//! PSCI: the calls by which a firmware starts cores, restarts the board and switches it off.
//!
//! The device tree says by which instruction it is called. To call where no firmware listens is an undefined
//! instruction at best: QEMU's raspi4b hangs.
//!
//! Source: Arm DEN 0022 (PSCI 1.1), chapter 5; Arm DEN 0028 (SMC Calling Convention) for the registers.
#![allow(unsafe_code)] // a call to the firmware is an instruction

use core::fmt;

/// A firmware that a device tree has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psci(Way);

/// How it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By `hvc`: it plays the hypervisor.
    Hypervisor,
    /// By `smc`: it is the secure monitor.
    Monitor,
}

/// SYSTEM_OFF, 5.10.
const SYSTEM_OFF: u64 = 0x8400_0008;
/// SYSTEM_RESET, 5.11.
const SYSTEM_RESET: u64 = 0x8400_0009;
/// CPU_ON with 64-bit arguments, 5.6.
const CPU_ON: u64 = 0xc400_0003;

/// Why a core was not started: 5.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such core.
    NoSuchCore,
    /// Any other reason, as the firmware numbers it.
    Because(i32),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCore => f.write_str("there is no such core"),
            Self::Because(-4) => f.write_str("the firmware says that it is on already"),
            Self::Because(-5) => f.write_str("the firmware says that it is about to be"),
            Self::Because(code) => write!(f, "the firmware refused with code {code}"),
        }
    }
}

/// What a CPU_ON gave.
fn outcome(result: u64) -> Result<(), Refused> {
    match result as i32 {
        0 => Ok(()),
        -2 => Err(Refused::NoSuchCore), // INVALID_PARAMETERS
        code => Err(Refused::Because(code)),
    }
}

impl Psci {
    /// The secure monitor, called by `smc`.
    pub const MONITOR: Self = Self(Way::Monitor);

    /// Whether it is there to hear us if we were entered at this exception level: a monitor runs at EL3, what plays
    /// the hypervisor at EL2. Entered there ourselves, the call would come to our own entry code, or be undefined.
    pub fn is_below(self, entered_at: u8) -> bool {
        entered_at
            < match self.0 {
                Way::Hypervisor => 2,
                Way::Monitor => 3,
            }
    }

    /// The firmware that is called by the `method` of the device tree's node `psci`.
    pub fn named(method: &str) -> Option<Self> {
        match method {
            "hvc" => Some(Self(Way::Hypervisor)),
            "smc" => Some(Self(Way::Monitor)),
            _ => None,
        }
    }

    /// Switches on the core of this affinity ([`super::affinity`]), which begins at `entry` with its caches off.
    ///
    /// # Safety
    /// `entry` must be code that a core can begin with, MMU and caches off.
    pub unsafe fn start_core(self, affinity: u64, entry: u64) -> Result<(), Refused> {
        outcome(self.call(CPU_ON, affinity, entry))
    }

    /// Restarts the board. Returns only if the firmware does not obey.
    pub fn reset(self) {
        self.call(SYSTEM_RESET, 0, 0);
    }

    /// Switches the board off. Returns only if the firmware does not obey.
    pub fn power_off(self) {
        self.call(SYSTEM_OFF, 0, 0);
    }

    fn call(self, function: u64, first: u64, second: u64) -> u64 {
        super::publish();
        #[cfg(target_os = "none")]
        {
            let mut result = function;
            macro_rules! call {
                ($instruction:literal) => {
                    // SAFETY: a firmware may change x0 to x17 (DEN 0028, 2.7) and does what is asked: `start_core`
                    // vouches for what that is. Without a firmware the instruction is an exception.
                    unsafe {
                        core::arch::asm!(
                            $instruction,
                            inout("x0") result,
                            inout("x1") first => _, inout("x2") second => _, inout("x3") 0_u64 => _,
                            lateout("x4") _, lateout("x5") _, lateout("x6") _, lateout("x7") _,
                            lateout("x8") _, lateout("x9") _, lateout("x10") _, lateout("x11") _,
                            lateout("x12") _, lateout("x13") _, lateout("x14") _, lateout("x15") _,
                            lateout("x16") _, lateout("x17") _,
                            options(nostack),
                        )
                    }
                };
            }
            match self.0 {
                Way::Hypervisor => call!("hvc #0"),
                Way::Monitor => call!("smc #0"),
            }
            result
        }
        #[cfg(not(target_os = "none"))]
        {
            use crate::machine::{self, Conduit};
            let conduit = match self.0 {
                Way::Hypervisor => Conduit::Hvc,
                Way::Monitor => Conduit::Smc,
            };
            machine::here().call(conduit, [function, first, second, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_ways_of_the_specification_are_ways() {
        assert_eq!(Psci::named("hvc"), Some(Psci(Way::Hypervisor)));
        assert_eq!(Psci::named("smc"), Some(Psci(Way::Monitor)));
        assert_eq!(Psci::named("spin-table"), None);
    }

    #[test]
    fn a_core_that_is_missing_differs_from_one_that_fails() {
        assert_eq!(outcome(0), Ok(()));
        assert_eq!(outcome(-2_i64 as u64), Err(Refused::NoSuchCore));
        assert_eq!(outcome(0xffff_fffe), Err(Refused::NoSuchCore), "as a 32-bit number");
        assert_eq!(outcome(-4_i64 as u64), Err(Refused::Because(-4)));
    }
}
