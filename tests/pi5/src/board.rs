//! The devices of a Raspberry Pi 5 that `virt` does not have, as strict as silicon where we know how it is.
//!
//! Addresses: `bcm2712.dtsi`; stepping register, mailbox and watchdog: Circle `include/circle/bcm2712.h`, `bcm2835.h`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::entry::{self, RAM};

/// `virt`'s PL011, which plays UART10.
const PL011: u64 = 0x0900_0000;

const UART10: u64 = 0x10_7d00_1000;
/// RP1's UART0 on the header, in the window that newer and in the one that older boot loaders give RP1.
const HEADERS: [u64; 2] = [0x1c_0003_0000, 0x1f_0003_0000];
const MAILBOX: u64 = 0x10_7c01_3880;
const POWER: u64 = 0x10_7d20_0000;
const PINS: u64 = 0x10_7d51_7c00;
const SYSTEM_TIMER: u64 = 0x10_7c00_3000;
/// Pins that are ours: the card slot's 1.8 V and supply, the light. RP1's and the power chip's are among the others.
const OUR_PINS: u32 = 1 << 3 | 1 << 4 | 1 << 9;
const STEPPING: u64 = 0x10_0150_4004;
/// SD host, and the block that the chip has put beside it.
const SD: u64 = 0x10_00ff_f000;
const SD_CONFIG: u64 = 0x10_00ff_f400;
/// `virt`'s PCI bus 0, and where the registers of its SD host are put, which plays that of the board.
const PCI: u64 = 0x40_1000_0000;
const PCI_SD: u64 = 0x1000_0000;

/// What the boot loader has set at UART10.
const DIVISORS: [u32; 2] = [23, 55];
/// What 115200 baud are of the 44 MHz that TF-A and Circle take it to run on.
const OUR_DIVISORS: [u32; 2] = [23, 56];
/// A UART's divisors, if the boot loader has not touched it: as they are after a reset, until they are set.
static LEFT: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// The Arm clock: what the boot loader hands over at, and the most, Hz. Both are the defaults of `arm_freq_min` and `arm_freq`.
const SLOW: u32 = 1_500_000_000;
const MOST: u32 = 2_400_000_000;
/// VideoCore's number of that clock.
const ARM: u32 = 3;

/// What the Arm clock runs at: it changes on request only.
static RATE: AtomicU32 = AtomicU32::new(SLOW);
/// A message that VideoCore has for us.
static MESSAGE: AtomicU32 = AtomicU32::new(0);
/// Watchdog: RSTC, RSTS, WDOG. The always-on pins: data, direction.
static RESET: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
static LEVELS: [AtomicU32; 2] = [AtomicU32::new(0x0000_1004), AtomicU32::new(0xffff_eff8)];
/// SD_PIN_SEL, at 0x44 of the block beside the SD host: 2 stands for a card.
static PIN_SELECT: AtomicU32 = AtomicU32::new(0);
/// Whether an SD host is plugged into `virt`: 1 before it was looked for, 2 if it is there, 3 if not.
static SLOT: AtomicU32 = AtomicU32::new(1);
/// Whether the card was given a command since its supply was last cut, and when that was, microseconds.
static HEARD: AtomicU32 = AtomicU32::new(0);
static CUT_AT: AtomicU64 = AtomicU64::new(0);
/// The supply of a card must be gone for so long: SD 6.4.1.2 has 1 ms, the sheet of other drivers 10.
const SUPPLY_OFF: u64 = 10_000;
/// How often VideoCore was asked whether it throttles: it does from the third time on.
static ASKED: AtomicU32 = AtomicU32::new(0);

fn device(address: u64) -> *mut u32 {
    address as *mut u32
}

fn say(text: &str) {
    for byte in text.bytes() {
        // SAFETY: `virt`'s UART; QEMU takes any number of bytes.
        unsafe { device(PL011).write_volatile(u32::from(byte)) };
    }
}

/// Ends the run with what a board would not have forgiven.
pub fn refuse(why: &str, value: u64) -> ! {
    say("\r\nPANIC in the model of a Raspberry Pi 5: ");
    say(why);
    say(": 0x");
    for digit in (0..16).rev() {
        let digit = (value >> (digit * 4) & 0xf) as u8;
        let letter = [if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }];
        say(core::str::from_utf8(&letter).unwrap_or("?"));
    }
    say("\r\n");
    entry::power_off()
}

/// Which register of a block this is.
fn within(address: u64, block: u64, bytes: u64) -> Option<u64> {
    address.checked_sub(block).filter(|offset| *offset < bytes)
}

/// Finds `virt`'s SD host and gives it its place; whether there is one.
fn slot() -> bool {
    if SLOT.load(Relaxed) == 1 {
        let host = (0..32).map(|number| PCI + (number << 15)).find(|&function| {
            // SAFETY: PCI configuration space: the first function's class is at 8.
            unsafe { device(function + 8).read_volatile() >> 16 == 0x0805 }
        });
        if let Some(function) = host {
            // SAFETY: as above: base address 0 at 0x10, command at 4: memory, bus master.
            unsafe {
                device(function + 0x10).write_volatile(PCI_SD as u32);
                device(function + 4).write_volatile(6);
            }
        }
        SLOT.store(if host.is_some() { 2 } else { 3 }, Relaxed);
    }
    SLOT.load(Relaxed) == 2
}

/// Whether the slot signals at 1.8 V, or nobody says, and whether its card has its supply: always-on pins 3 and 4.
fn slot_levels() -> (bool, bool) {
    let (levels, inputs) = (LEVELS[0].load(Relaxed), LEVELS[1].load(Relaxed));
    ((levels | inputs) >> 3 & 1 == 1, levels & !inputs & 1 << 4 != 0)
}

/// Refuses to restart or stop with a card that a boot loader may not be able to wake: one that signals at 1.8 V does so until
/// its supply is cut.
pub fn check_card() {
    if HEARD.load(Relaxed) != 0 {
        refuse("the board is left with a card whose supply was not cut since it was used", 0);
    }
    let (levels, driven) = (LEVELS[0].load(Relaxed), !LEVELS[1].load(Relaxed));
    if levels & driven & 1 << 3 != 0 || !levels & driven & 1 << 4 != 0 {
        refuse("the board is left with its card slot at 1.8 V, or without supply", levels.into());
    }
}

/// Whether the boot loader has left its UARTs as they are after a reset.
fn is_untouched() -> bool {
    entry::wishes() & 64 != 0
}

/// Which register of a PL011 this is, and whether the cable is there.
fn uart(address: u64) -> Option<(u64, bool)> {
    let at_header = entry::wishes() & 4 != 0;
    let open = entry::wishes() & 8 == 0;
    let header = HEADERS[usize::from(entry::wishes() & 16 != 0)];
    match (within(address, UART10, 0x1000), within(address, header, 0x1000)) {
        (Some(offset), _) => Some((offset, !at_header)),
        (_, Some(offset)) if open => Some((offset, at_header)),
        _ => None,
    }
}

/// A load by the guest.
pub fn read(address: u64) -> u32 {
    if let Some((offset, cable)) = uart(address) {
        return match offset {
            0x18 if !cable => 0x90, // nothing to send, nothing received
            0x24 | 0x28 if is_untouched() => LEFT[(offset as usize - 0x24) / 4].load(Relaxed),
            0x24 | 0x28 => DIVISORS[(offset as usize - 0x24) / 4],
            // SAFETY: a register of `virt`'s PL011.
            _ => unsafe { device(PL011 + offset).read_volatile() },
        };
    }
    // The window in which RP1 is not, or that of a closed RP1.
    if HEADERS.iter().any(|&header| within(address, header, 0x1000).is_some()) {
        if entry::wishes() & 32 != 0 {
            entry::raise_system_error();
        }
        return 0xdead_dead;
    }
    if let Some(offset) = within(address, MAILBOX, 0x40) {
        return match offset {
            0x00 => MESSAGE.swap(0, Relaxed),
            0x18 => {
                if MESSAGE.load(Relaxed) == 0 {
                    1 << 30
                } else {
                    0
                }
            }
            0x38 => 0,
            _ => refuse("the mailbox has no such register to read", address),
        };
    }
    if let Some(offset @ (0x1c | 0x20 | 0x24)) = within(address, POWER, 0x28) {
        return RESET[(offset as usize - 0x1c) / 4].load(Relaxed);
    }
    if let Some(offset @ (4 | 8)) = within(address, PINS, 0x20) {
        return LEVELS[offset as usize / 4 - 1].load(Relaxed);
    }
    if let Some(offset @ (4 | 8)) = within(address, SYSTEM_TIMER, 0x1c) {
        return (entry::micros() >> ((offset - 4) * 8)) as u32;
    }
    if address == STEPPING {
        return if entry::wishes() & 2 == 0 { 0x2712_00d0 } else { 0x2712_00c1 };
    }
    if let Some(offset) = within(address, SD, 0x100) {
        if !slot() {
            return 0; // a controller that does nothing
        }
        // SAFETY: a register of `virt`'s SD host.
        let value = unsafe { device(PCI_SD + offset).read_volatile() };
        // It would put blocks where `virt` has that address, which is not where the guest's RAM is: no ADMA2.
        return if offset == 0x40 { value & !(1 << 19) } else { value };
    }
    if let Some(offset) = within(address, SD_CONFIG, 0x200) {
        return if offset == 0x44 { PIN_SELECT.load(Relaxed) } else { 0 };
    }
    refuse("a read where a Raspberry Pi 5 has nothing that this model knows", address)
}

/// A store by the guest.
pub fn write(address: u64, value: u32) {
    if let Some((offset, cable)) = uart(address) {
        if let 0x24 | 0x28 = offset {
            let number = (offset as usize - 0x24) / 4;
            if !is_untouched() {
                refuse("the divisors that the boot loader left at a UART were written", value.into());
            }
            if value != OUR_DIVISORS[number] {
                refuse("UART10 is given a divisor that is not that of 115200 baud at 44 MHz", value.into());
            }
            return LEFT[number].store(value, Relaxed);
        }
        if offset == 0 && is_untouched() && LEFT[0].load(Relaxed) == 0 {
            refuse("a byte for a UART without a divisor, which never sends", value.into());
        }
        if !cable {
            return;
        }
        // SAFETY: a register of `virt`'s PL011.
        return unsafe { device(PL011 + offset).write_volatile(value) };
    }
    if let Some(offset) = within(address, MAILBOX, 0x40) {
        return match offset {
            0x20 => answer(value),
            _ => refuse("the mailbox has no such register to write", address),
        };
    }
    if let Some(offset @ (0x1c | 0x20 | 0x24)) = within(address, POWER, 0x28) {
        if value >> 24 != 0x5a {
            refuse("a write to the watchdog without its password", value.into());
        }
        RESET[(offset as usize - 0x1c) / 4].store(value & 0x00ff_ffff, Relaxed);
        if RESET[0].load(Relaxed) & 0x30 == 0x20 && RESET[2].load(Relaxed) != 0 {
            check_card();
            // The partition to boot from is 63: stop.
            if RESET[1].load(Relaxed) & 0x555 == 0x555 { entry::power_off() } else { entry::reset() }
        }
        return;
    }
    if let Some(offset @ (4 | 8)) = within(address, PINS, 0x20) {
        let (_, was_supplied) = slot_levels();
        let before = LEVELS[offset as usize / 4 - 1].swap(value, Relaxed);
        if (before ^ value) & !OUR_PINS != 0 {
            refuse("an always-on pin was changed that is RP1's or the power chip's", value.into());
        }
        if entry::wishes() & 128 != 0 && (before ^ value) & 1 << 9 != 0 && offset == 4 {
            let drives = LEVELS[1].load(Relaxed) >> 9 & 1 == 0;
            say(match value >> 9 & 1 {
                _ if !drives => "the light's pin does not drive\r\n",
                0 => "the light is lit\r\n",
                _ => "the light is out\r\n",
            });
        }
        match (was_supplied, slot_levels()) {
            (true, (_, false)) => CUT_AT.store(entry::micros(), Relaxed),
            (false, (_, true)) => {
                if entry::micros() - CUT_AT.load(Relaxed) < SUPPLY_OFF {
                    refuse("the card's supply was not off for 10 ms", value.into());
                }
                HEARD.store(0, Relaxed);
            }
            _ => {}
        }
        return;
    }
    if let Some(offset) = within(address, SD, 0x100) {
        if offset == 0x0c {
            HEARD.store(1, Relaxed);
            let (low_voltage, supplied) = slot_levels();
            if !supplied {
                refuse("a command to a card without supply", value.into());
            }
            if low_voltage {
                refuse("a command at 1.8 V to a card at 3.3 V", value.into()); // QEMU's can't
            }
            if PIN_SELECT.load(Relaxed) & 3 != 2 {
                refuse("a command while the pins are not a card's (SD_PIN_SEL)", value.into());
            }
        }
        if slot() {
            // SAFETY: a register of `virt`'s SD host.
            unsafe { device(PCI_SD + offset).write_volatile(value) };
        }
        return;
    }
    if let Some(offset) = within(address, SD_CONFIG, 0x200) {
        if offset == 0x44 {
            PIN_SELECT.store(value, Relaxed);
        }
        return;
    }
    refuse("a write where a Raspberry Pi 5 has nothing that this model knows", address)
}

/// VideoCore, with a subset of the tags: it answers at once, in place.
fn answer(message: u32) {
    if message & 0xf != 8 {
        refuse("only the property channel, 8, is answered", message.into());
    }
    if message >> 30 != 3 {
        refuse("VideoCore sees RAM at 0xc0000000", message.into());
    }
    let buffer = RAM + u64::from(message & 0x3fff_fff0);
    // SAFETY: the guest's RAM in its first GiB, aligned to 16 bytes, of which it has given us as much as it says.
    let get = |word: u64| unsafe { device(buffer + word * 4).read_volatile() };
    // SAFETY: as above.
    let put = |word: u64, value: u32| unsafe { device(buffer + word * 4).write_volatile(value) };
    let words = u64::from(get(0) / 4);
    if get(1) != 0 || !(6..=64).contains(&words) {
        refuse("a request has its length in front, then a zero", message.into());
    }
    let mut tag = 2;
    while tag + 3 <= words && get(tag) != 0 {
        let (name, room) = (get(tag), u64::from(get(tag + 1) / 4));
        if tag + 3 + room >= words {
            refuse("a tag is longer than its request", name.into());
        }
        let id = get(tag + 3);
        let answered = match name {
            0x1_0002 => Some([0xc0_4170, 0, 4]),
            0x1_0005 => Some([0, 0x3fc0_0000, 8]),
            0x3_0002 | 0x3_0047 if id == ARM => Some([ARM, RATE.load(Relaxed), 8]),
            0x3_0004 if id == ARM => Some([ARM, MOST, 8]),
            0x3_8002 => {
                if room != 3 || id != ARM {
                    refuse(
                        "a clock is set with its number, its rate and a third word, and ours is the Arm's",
                        id.into(),
                    );
                }
                let (hz, skip_turbo) = (get(tag + 4), get(tag + 5));
                if !(SLOW..=MOST).contains(&hz) {
                    refuse("the Arm clock has no such rate", hz.into());
                }
                if skip_turbo != 0 {
                    refuse("the Arm clock was set without the voltage that goes with it", skip_turbo.into());
                }
                RATE.store(hz, Relaxed);
                Some([ARM, hz, 8])
            }
            0x3_0006 => Some([0, 61_500, 8]),
            0x3_0046 => Some([if ASKED.fetch_add(1, Relaxed) < 2 { 0 } else { 0x4_0004 }, 0, 4]),
            _ => None, // untouched, and the whole counts as a success all the same
        };
        if let Some([first, second, bytes]) = answered {
            put(tag + 2, 1 << 31 | bytes);
            put(tag + 3, first);
            if bytes == 8 {
                put(tag + 4, second);
            }
        }
        tag += 3 + room;
    }
    put(1, 1 << 31);
    MESSAGE.store(message, Relaxed);
}
