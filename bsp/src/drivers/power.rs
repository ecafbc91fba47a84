//! Reboot and power-off through the watchdog.
//!
//! A reset after ten 1/65536 s ticks restarts the board; with the halt partition noted first, the boot loader
//! stops instead of starting us again, which is as off as a Raspberry Pi 4 gets.
//!
//! Source: Linux `drivers/watchdog/bcm2835_wdt.c` (registers, password 0x5a in bits 31:24 of every write, ten ticks, partition 63),
//! and TF-A `plat/rpi/common/rpi3_pm.c`, which does the same on a Raspberry Pi 5; Broadcom's manual has no chapter on the PM block.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::ReadWrite;

register_structs! {
    /// Power management block, the part about reset.
    pub Registers {
        (0x00 => _reserved),
        (0x1c => reset: ReadWrite<u32>),           // RSTC: bits 5:4 what happens when the watchdog ends
        (0x20 => status: ReadWrite<u32>),          // RSTS: bits 0, 2, 4 … 10 the partition to boot from
        (0x24 => watchdog: ReadWrite<u32>),        // WDOG: ticks left
        (0x28 => @END),
    }
}

const PASSWORD: u32 = 0x5a00_0000;
const FULL_RESET: u32 = 0x20;
/// Partition 63: stop.
const HALT: u32 = 0x555;
/// Ticks of 1/65536 s before the reset.
const TICKS: u32 = 10;

impl Registers {
    /// Has the board reset in a moment.
    pub fn reboot(&self) {
        let partition = self.status.get() & !HALT & 0x00ff_ffff;
        self.status.set(PASSWORD | partition);
        self.start();
    }

    /// Has the board stop in a moment.
    pub fn power_off(&self) {
        self.status.set(PASSWORD | (self.status.get() & 0x00ff_ffff) | HALT);
        self.start();
    }

    fn start(&self) {
        self.watchdog.set(PASSWORD | TICKS);
        self.reset.set(PASSWORD | (self.reset.get() & 0x00ff_ffcf) | FULL_RESET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::in_memory;

    #[test]
    fn every_write_carries_the_password_and_reboot_forgets_the_halt_partition() {
        let power: &Registers = in_memory();
        power.power_off();
        assert_eq!(power.status.get(), 0x5a00_0555);
        assert_eq!(power.watchdog.get(), 0x5a00_000a);
        assert_eq!(power.reset.get(), 0x5a00_0020);
        power.reboot();
        assert_eq!(power.status.get(), 0x5a00_0000);
    }
}
