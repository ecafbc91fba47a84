//! The card socket of a Raspberry Pi 4: its switches are lines of a GPIO expander that VideoCore drives for us.
//!
//! Source: `bcm2711-rpi-4-b.dts` (`sd_io_1v8_reg` on expander line 4, with 5 ms to settle, `sd_vcc_reg` on line 6, both active
//! high); VideoCore counts the expander's lines from 128 on. Circle `addon/SDCard/emmc.cpp` also tells VideoCore of the card's power.

use super::mailbox::{ExpanderPin, Mailbox, Port};
use super::sdhci::{CardPower, Unsupported};

/// VideoCore's number of the card among the devices that it powers.
const CARD: u32 = 0;

/// The socket's switches, behind the mailbox.
pub struct Socket<P: Port>(pub Mailbox<P>);

impl<P: Port> CardPower for Socket<P> {
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        self.0.set_expander(ExpanderPin::SdVoltage, false).map_err(|_| Unsupported)
    }
    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        self.0.set_expander(ExpanderPin::SdVoltage, true).map_err(|_| Unsupported)
    }
    fn supply(&mut self, on: bool) -> Result<(), Unsupported> {
        let pin = self.0.set_expander(ExpanderPin::SdPower, on);
        if on {
            let _ = self.0.set_power(CARD, true); // firmware that counts users of the card's clock wants to know
        }
        pin.map_err(|_| Unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::mailbox::tests::videocore;
    use std::cell::Cell;
    use std::rc::Rc;

    /// What the expander's two lines of the socket are for, and how they stand.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Lines {
        /// The card's signals: 1.8 V rather than 3.3 V.
        low_voltage: bool,
        /// Its supply.
        supply: bool,
    }

    /// VideoCore with the expander of a Raspberry Pi 4, as a reboot may leave it: a card at 1.8 V.
    fn expander(
        lines: &Rc<Cell<Lines>>,
        answers: usize,
    ) -> impl Fn(u32, &mut [u32]) -> Option<usize> + 'static {
        let lines = Rc::clone(lines);
        move |tag, values| match tag {
            0x0003_8041 => {
                let mut next = lines.get();
                let line = match values[0] {
                    132 => &mut next.low_voltage,
                    134 => &mut next.supply,
                    other => panic!("expander line {other} is not the socket's"),
                };
                assert!(values[1] <= 1, "a line is low or high");
                *line = values[1] == 1;
                assert!(!next.low_voltage || next.supply, "1.8 V at a card without supply");
                lines.set(next);
                values[0] = 0; // as it has been done
                Some(answers)
            }
            0x0002_8001 => {
                assert_eq!(values, [0, 3], "the card is on: wait for it");
                assert!(lines.get().supply, "VideoCore is told of a supply that is off");
                values[1] = 1;
                Some(8)
            }
            other => panic!("tag {other:#x} has nothing to do with the socket"),
        }
    }

    #[test]
    fn each_switch_moves_its_own_line_of_the_expander_and_to_the_right_side() {
        for answers in [0, 8] {
            let lines = Rc::new(Cell::new(Lines { low_voltage: true, supply: true }));
            let core = videocore(expander(&lines, answers));
            let mut socket = Socket(Mailbox::new(&core));
            let state = |low_voltage, supply| Lines { low_voltage, supply };
            socket.signal_3v3().unwrap();
            assert_eq!(lines.get(), state(false, true));
            socket.supply(false).unwrap();
            assert_eq!(lines.get(), state(false, false));
            socket.supply(true).unwrap();
            assert_eq!(lines.get(), state(false, true));
            socket.signal_1v8().unwrap();
            assert_eq!(lines.get(), state(true, true));
        }
    }

    #[test]
    fn a_firmware_without_the_expanders_tag_has_no_switch() {
        let core = videocore(|_, _| None);
        let mut socket = Socket(Mailbox::new(&core));
        assert_eq!(socket.supply(false), Err(Unsupported));
        assert_eq!(socket.supply(true), Err(Unsupported));
        assert_eq!(socket.signal_3v3(), Err(Unsupported));
        assert_eq!(socket.signal_1v8(), Err(Unsupported));
    }
}
