//! The card slot of a Raspberry Pi 5: what stands around the SDHCI controller of the BCM2712.
//!
//! The controller has a block of its own for what the standard leaves to the chip; supply and signal level of the slot are
//! pins of the always-on GPIO block, reached without VideoCore.
//!
//! Sources: Linux `sdhci-brcmstb.c` (`sdhci_brcmstb_cfginit_2712`: pins of a removable card, 50 MHz mode), `bcm2712-rpi-5-b.dts`
//! (`sd_io_1v8_reg` on pin 3 with 5 ms to settle, `sd_vcc_reg` on pin 4), Circle `include/circle/bcm2712.h` (AON GPIO).

use tock_registers::interfaces::ReadWriteable;
use tock_registers::register_structs;
use tock_registers::registers::ReadWrite;

use super::sdhci::{CardPower, Unsupported};

mod bits {
    use tock_registers::register_bitfields;

    register_bitfields![u32,
        /// Which protocol the pins are for.
        pub PinSelect [
            KIND OFFSET(0) NUMBITS(2) [Mmc = 1, Card = 2]
        ],
        /// What the data lines are timed by. Faster modes than 50 MHz are only right with the interface's delay loop.
        pub Slow [
            MODE OFFSET(0) NUMBITS(1) [],
            OVERRIDE OFFSET(31) NUMBITS(1) []         // of what the chip's straps say
        ],
        /// Pins of the always-on block that belong to the slot.
        pub Pins [
            VOLTAGE_1V8 OFFSET(3) NUMBITS(1) [],
            SUPPLY OFFSET(4) NUMBITS(1) []
        ]
    ];
}
use bits::{PinSelect, Pins, Slow};

register_structs! {
    /// The controller's configuration block.
    pub Config {
        (0x00 => _control),
        (0x44 => pin_select: ReadWrite<u32, PinSelect::Register>),
        (0x48 => _more),
        (0x1ac => slow: ReadWrite<u32, Slow::Register>),
        (0x1b0 => _rest),
        (0x200 => @END),
    },
    /// The always-on GPIO block's first bank.
    pub AlwaysOnPins {
        (0x00 => _open_drain),
        (0x04 => data: ReadWrite<u32, Pins::Register>),
        (0x08 => input: ReadWrite<u32, Pins::Register>),          // 0: the pin is driven
        (0x0c => _rest),
        (0x20 => @END),
    }
}

/// Where a board has them, and what it knows of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Configuration block.
    pub config: u64,
    /// Always-on pins.
    pub pins: u64,
    /// Clock of the controller, Hz: it never changes.
    pub clock: u32,
    /// Bytes of memory, from 0 on, that the controller sees at our addresses.
    pub reach: u64,
}

/// The slot's switches.
#[derive(Clone, Copy)]
pub struct Slot {
    /// The controller's configuration block.
    pub config: &'static Config,
    /// The pins.
    pub pins: &'static AlwaysOnPins,
}

impl CardPower for Slot {
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        self.config.pin_select.modify(PinSelect::KIND::Card);
        self.config.slow.modify(Slow::MODE::CLEAR + Slow::OVERRIDE::SET);
        // The level first: a pin that begins to be driven shows what is in its bit.
        self.pins.data.modify(Pins::VOLTAGE_1V8::CLEAR);
        self.pins.input.modify(Pins::VOLTAGE_1V8::CLEAR);
        Ok(())
    }

    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        self.pins.data.modify(Pins::VOLTAGE_1V8::SET);
        Ok(())
    }

    fn supply(&mut self, on: bool) -> Result<(), Unsupported> {
        self.pins.data.modify(if on { Pins::SUPPLY::SET } else { Pins::SUPPLY::CLEAR });
        self.pins.input.modify(Pins::SUPPLY::CLEAR);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::tests::in_memory;
    use tock_registers::interfaces::{Readable, Writeable};

    #[test]
    fn the_slot_is_switched_by_its_own_two_pins_and_no_other_changes() {
        let mut slot = Slot { config: in_memory(), pins: in_memory() };
        // Left by whoever ran before: 1.8 V, the pins of a soldered chip, all pins but one inputs.
        slot.config.pin_select.set(0xabcd_0001);
        slot.pins.data.set(0xffff_ffef);
        slot.pins.input.set(0xffff_fffd);
        slot.config.slow.set(0x0000_1001);
        slot.signal_3v3().unwrap();
        assert_eq!((slot.config.pin_select.get(), slot.config.slow.get()), (0xabcd_0002, 0x8000_1000));
        assert_eq!((slot.pins.data.get(), slot.pins.input.get()), (0xffff_ffe7, 0xffff_fff5));
        slot.supply(true).unwrap();
        assert_eq!((slot.pins.data.get(), slot.pins.input.get()), (0xffff_fff7, 0xffff_ffe5));
        slot.signal_1v8().unwrap();
        assert_eq!((slot.pins.data.get(), slot.pins.input.get()), (0xffff_ffff, 0xffff_ffe5));
        slot.signal_3v3().unwrap();
        slot.supply(false).unwrap();
        assert_eq!((slot.pins.data.get(), slot.pins.input.get()), (0xffff_ffe7, 0xffff_ffe5));
    }
}
