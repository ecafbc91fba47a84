//! The controller as the card protocol's host: supply, clock, lines, commands, data.

use tock_registers::LocalRegisterCopy;

use super::adma::{PIECE, PIECES};
use super::registers::bits::{
    Block, Capabilities, CapabilitiesHigh, Clock, Control, Control2, Present, Transfer, Version,
};
use super::{ALL, Bus, CardPower, LARGEST_TRANSFER, LINES_FREE, Register, Sdhci, Way};
use crate::drivers::sd_card::{Command, Host, HostError, Response, Timing, Width};

/// Clock while the card is being identified: SD Physical Layer 6.6.6 allows 100 to 400 kHz.
const IDENTIFY_HZ: u32 = 400_000;
/// EMMC2 can hang at about 100 kHz when the core clock is 500 MHz or more (Linux `sdhci-iproc.c`).
const SLOWEST_HZ: u32 = 200_000;
/// Largest divisor of the 10-bit divided clock: SDHCI 2.2.14.
const LARGEST_DIVISOR: u32 = 0x3ff;
/// Bytes in a block of a card's data.
const BLOCK_BYTES: usize = 512;
/// What a card may take to the first byte (SD 4.6.2.1), in fractions of a second: the controller must not give up before.
const FIRST_BYTE: u32 = 10;
/// Everything that can go wrong, for the two enables; card insertion and removal left out since
/// the Pi 4's card detect is not wired.
const WATCHED: u32 = 0x03ff_0000 | 0x0000_0033;

// Deadlines, microseconds.
const CLOCK_STABLE: u64 = 150_000; // SDHCI 3.2.1: 150 ms
const SETTLE_SIGNAL: u64 = 5_000; // regulator of the signal level (BCM2711 device tree)
const LINES_BACK: u64 = 1_000; // SD 4.2.4.2: the card lets its lines go within 1 ms of the clock
const SUPPLY_OFF: u64 = 10_000; // the supply must fall below 0.5 V for 1 ms (SD 6.4.1.2)
const SUPPLY_ON: u64 = 36_000; // it may take 35 ms to rise, and 1 ms of it must be stable (SD 6.4.1)
const FIRST_CLOCKS: u64 = 2_000; // 74 clocks before CMD0 (SD 6.4.1.1): 370 µs at 200 kHz

impl<B: Bus> Sdhci<B> {
    /// Leaves slot and card as they are when a board is switched on, whatever was under way: signals at 3.3 V, and the card
    /// without memory of anything, since its supply was cut. A card that signals at 1.8 V does so until then, over a restart,
    /// too, and not every boot loader brings it back (Raspberry Pi 4 EEPROM release notes, 2022-12-07 and 2024-10-10).
    ///
    /// A controller that does not get out of its reset is left alone, the card is not.
    pub fn give_back(&mut self, power: &mut dyn CardPower) {
        if self.stop().is_ok() {
            self.write(Register::Control, 0);
        }
        self.cut_supply(power);
    }

    /// Stops the controller, and with it the card's clock.
    fn stop(&mut self) -> Result<(), HostError> {
        self.clock_hz = 0;
        self.pause(self.spacing()); // whoever drove it before may have written just now
        self.reset(Clock::RESET_ALL::SET.value)
    }

    /// Switches the card's supply off and, at 3.3 V, on again.
    fn cut_supply(&mut self, power: &mut dyn CardPower) {
        // Whatever the firmware says it did: a card that is off and taken for on would never answer.
        let off = power.supply(false);
        let level = power.signal_3v3();
        self.pause(if level.is_ok() { SUPPLY_OFF.max(SETTLE_SIGNAL) } else { SUPPLY_OFF });
        self.switchable = off.and(power.supply(true)).is_ok();
    }
}

impl<B: Bus> Host for Sdhci<B> {
    fn power_up(&mut self, power: &mut dyn CardPower) -> Result<(), HostError> {
        self.stop()?;
        let version: LocalRegisterCopy<u32, Version::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::Version));
        let version = version.read(Version::SPECIFICATION);
        if version < Version::SPECIFICATION::V3.read(Version::SPECIFICATION) {
            return Err(HostError::TooOld { version });
        }
        self.write(Register::Control, 0);
        self.cut_supply(power);
        self.write(Register::Control, (Control::BUS_POWER::SET + Control::VOLTAGE::V33).value);
        self.pause(SUPPLY_ON);
        self.write(Register::Control2, 0);
        self.write(Register::SignalEnable, 0); // polled
        self.write(Register::StatusEnable, WATCHED);
        self.write(Register::Status, ALL);
        self.set_clock(IDENTIFY_HZ)?;
        self.pause(FIRST_CLOCKS);
        Ok(())
    }

    fn set_clock(&mut self, wanted_hz: u32) -> Result<u32, HostError> {
        let base_hz = self.base_hz()?;
        let divisor = if wanted_hz >= base_hz { 0 } else { base_hz.div_ceil(wanted_hz.max(1)).div_ceil(2) };
        let hz = if divisor == 0 { base_hz } else { base_hz / (2 * divisor) };
        if divisor > LARGEST_DIVISOR || hz < SLOWEST_HZ {
            return Err(HostError::ClockRange { base_hz, wanted_hz });
        }
        self.wait(LINES_FREE, HostError::ClockStuck, |host| {
            let present = host.present();
            !present.is_set(Present::COMMAND_BUSY) && !present.is_set(Present::DATA_BUSY)
        })?;
        // SDHCI 3.2.3: stop the card's clock, change the divisor, wait, start it again.
        let timeout = Clock::TIMEOUT.val(timeout_exponent(base_hz));
        self.write(Register::Clock, timeout.value);
        self.clock_hz = 0;
        let running = (Clock::INTERNAL::SET
            + Clock::DIVISOR_LOW.val(divisor & 0xff)
            + Clock::DIVISOR_HIGH.val(divisor >> 8)
            + timeout)
            .value;
        self.write(Register::Clock, running);
        self.wait(CLOCK_STABLE, HostError::ClockStuck, |host| host.clock().is_set(Clock::STABLE))?;
        self.write(Register::Clock, running | Clock::CARD::SET.value);
        self.clock_hz = hz;
        Ok(hz)
    }

    fn set_width(&mut self, width: Width) {
        let control = self.bus.read(Register::Control) & !Control::FOUR_BITS::SET.value;
        let four = if width == Width::Four { Control::FOUR_BITS::SET.value } else { 0 };
        self.write(Register::Control, control | four);
    }

    fn set_timing(&mut self, timing: Timing) {
        let mode = match timing {
            Timing::Default | Timing::HighSpeed => {
                let control = self.bus.read(Register::Control) & !Control::HIGH_SPEED::SET.value;
                let fast = if timing == Timing::HighSpeed { Control::HIGH_SPEED::SET.value } else { 0 };
                return self.write(Register::Control, control | fast);
            }
            Timing::Sdr12 => Control2::MODE::Sdr12,
            Timing::Sdr25 => Control2::MODE::Sdr25,
            Timing::Sdr50 => Control2::MODE::Sdr50,
            Timing::Sdr104 => Control2::MODE::Sdr104,
            Timing::Ddr50 => Control2::MODE::Ddr50,
        };
        // The card's clock stands still until it is set: SDHCI 2.2.25.
        let clock = self.clock().get();
        self.write(Register::Clock, clock & !Clock::CARD::SET.value);
        self.clock_hz = 0;
        self.write(Register::Control2, (Control2::SIGNAL_1V8::SET + mode).value);
    }

    fn can(&mut self, timing: Timing) -> bool {
        let able: LocalRegisterCopy<u32, CapabilitiesHigh::Register> =
            LocalRegisterCopy::new(self.bus.read(Register::CapabilitiesHigh));
        self.switchable
            && match timing {
                Timing::Sdr104 => able.is_set(CapabilitiesHigh::SDR104),
                Timing::Ddr50 => able.is_set(CapabilitiesHigh::DDR50),
                Timing::Sdr50 => able.is_set(CapabilitiesHigh::SDR50),
                _ => false,
            }
    }

    fn tune(&mut self, timing: Timing) -> Result<(), HostError> {
        let sdr50 = CapabilitiesHigh::TUNE_SDR50::SET.value;
        match timing {
            Timing::Sdr104 => {}
            Timing::Sdr50 if self.bus.read(Register::CapabilitiesHigh) & sdr50 != 0 => {}
            _ => return Ok(()),
        }
        let result = self.find_sampling_clock();
        if result.is_err() {
            let control2 = self.bus.read(Register::Control2);
            self.write(Register::Control2, control2 & !(Control2::TUNE::SET + Control2::TUNED::SET).value);
            self.recover()?;
        }
        result
    }

    fn signal_1v8(&mut self, power: &mut dyn CardPower) -> Result<(), HostError> {
        // SD 4.2.4.2, SDHCI 3.6.1: the card holds its lines low until the clock has stopped and come back at 1.8 V.
        let clock = self.clock();
        let running = self.clock_hz;
        self.write(Register::Clock, clock.get() & !Clock::CARD::SET.value);
        self.clock_hz = 0;
        if self.present().read(Present::DATA_LINES) != 0 || power.signal_1v8().is_err() {
            return Err(HostError::Voltage);
        }
        self.write(Register::Control2, Control2::SIGNAL_1V8::SET.value);
        self.pause(SETTLE_SIGNAL);
        if self.bus.read(Register::Control2) & Control2::SIGNAL_1V8::SET.value == 0 {
            return Err(HostError::Voltage); // the controller does not see 1.8 V
        }
        self.write(Register::Clock, clock.get());
        self.clock_hz = running;
        self.pause(LINES_BACK);
        if self.present().read(Present::DATA_LINES) != 0xf {
            return Err(HostError::Voltage);
        }
        Ok(())
    }

    fn has_high_speed(&mut self) -> bool {
        self.bus.read(Register::Capabilities) & Capabilities::HIGH_SPEED::SET.value != 0
    }

    fn command(&mut self, command: &Command) -> Result<Response, HostError> {
        let result = self.send(command, None);
        if result.is_err() {
            self.recover()?;
        }
        result
    }

    fn read(
        &mut self,
        command: &Command,
        block_bytes: usize,
        buffer: &mut [u8],
        done: &mut usize,
    ) -> Result<Response, HostError> {
        *done = 0;
        let blocks = buffer.len() / block_bytes.max(1);
        let whole = block_bytes != 0 && block_bytes.is_multiple_of(4) && blocks * block_bytes == buffer.len();
        if !whole || blocks == 0 || blocks > LARGEST_TRANSFER || block_bytes > 512 {
            return Err(HostError::TransferSize { command: command.index, bytes: buffer.len() });
        }
        let mut mode = Transfer::DATA::SET + Transfer::DIRECTION::Read;
        if blocks > 1 {
            mode += Transfer::MULTIPLE::SET + Transfer::COUNT_ENABLE::SET + Transfer::AUTO_STOP::Command12;
        }
        // Both fit: block_bytes <= 512 and blocks <= 65,535 were checked above.
        let size = Block::SIZE.val(block_bytes as u32) + Block::COUNT.val(blocks as u32);
        self.way = if buffer.len() <= PIECE * PIECES { self.prepare(buffer) } else { Way::Programmed };
        let direct = self.way != Way::Programmed;
        if direct {
            mode += Transfer::DMA::SET;
        }
        let result = self.send(command, Some((size.value, mode.value))).and_then(|response| {
            if direct {
                self.land(command.index, buffer)?;
                *done = blocks;
            } else {
                self.take(command.index, block_bytes, buffer, done)?;
            }
            Ok(response)
        });
        let bytes = (*done * block_bytes) as u64;
        let moved = if direct { &mut self.moved.1 } else { &mut self.moved.0 };
        *moved += bytes;
        if let Err(error) = &result {
            // A controller that never came to an end has not reached memory, either, or is still at it: the reset stops it.
            self.dma_failed |= direct && matches!(error, HostError::Memory { .. } | HostError::Stuck { .. });
            self.careful = direct;
            self.recover()?;
        }
        result
    }

    fn largest_transfer(&mut self) -> usize {
        let table = self.table.range();
        let direct = !self.dma_failed && self.bus.reach(table).is_some();
        if direct { PIECE * PIECES / BLOCK_BYTES } else { LARGEST_TRANSFER }
    }

    fn micros(&mut self) -> u64 {
        self.bus.micros()
    }

    fn pause(&mut self, micros: u64) {
        Sdhci::pause(self, micros);
    }
}

/// The controller's data time-out, 2^(13 + n) clocks: the smallest that leaves a card its time. That is 0xb at a Pi 4's 100 MHz
/// and 0xc at a Pi 5's 200, the values that are known to work there (Circle `addon/SDCard/emmc.cpp`).
fn timeout_exponent(base_hz: u32) -> u32 {
    (0..0xe).find(|n| 1 << (13 + n) >= base_hz / FIRST_BYTE).unwrap_or(0xe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_out_is_what_is_known_to_work_and_never_below_100_ms() {
        assert_eq!((timeout_exponent(100_000_000), timeout_exponent(200_000_000)), (0xb, 0xc));
        assert_eq!((timeout_exponent(0), timeout_exponent(u32::MAX)), (0, 0xe));
    }
}
