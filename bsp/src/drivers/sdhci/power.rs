//! The switches around a card socket.

/// The board has no such switch, or its firmware does not know the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

/// The pins around the card socket that no SDHCI register reaches.
///
/// On a Pi 4 both are lines of the firmware's GPIO expander, set through the mailbox (device tree `bcm2711-rpi-4-b.dts`,
/// `sd_io_1v8_reg` and `sd_vcc_reg`; a Pi 5's are in `sd_slot`). A card left in 1.8 V signalling by whoever ran before (the
/// boot loader, Linux before a warm reboot) only comes back when its supply is cut (`raspberrypi/rpi-eeprom`,
/// firmware-2711/release-notes.md, 2024-10-10). [`Unsupported`] is not a failure: start-up goes on with what there is.
pub trait CardPower {
    /// Sets the signal level to 3.3 V (Pi 4: expander line 132 = 0). The driver waits for it to settle.
    fn signal_3v3(&mut self) -> Result<(), Unsupported>;
    /// Sets it to 1.8 V (Pi 4: expander line 132 = 1). Only after the supply could be switched off and on is it asked for.
    fn signal_1v8(&mut self) -> Result<(), Unsupported>;
    /// Switches the card's supply (Pi 4: expander line 134; and SET_POWER_STATE of device 0).
    fn supply(&mut self, on: bool) -> Result<(), Unsupported>;
}

/// A socket whose power cannot be switched.
pub struct AlwaysOn;

impl CardPower for AlwaysOn {
    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
    fn supply(&mut self, _on: bool) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
}
