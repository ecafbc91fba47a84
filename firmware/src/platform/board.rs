//! Which board this is, and what is asked of its firmware and of VideoCore.

use core::sync::atomic::{AtomicBool, Ordering};

use embodios_bsp::board::{Board, Devices};
use embodios_bsp::cpu;
use embodios_bsp::cpu::psci::Psci;
use embodios_bsp::drivers::gic::Gic;
use embodios_bsp::drivers::mailbox::{self, Clock, Mailbox};
use embodios_bsp::handoff::Handoff;
use spin::Once;

use super::card::give_back;
use super::console::{console, follow_core_clock, last_resort};
use crate::boot;

/// The board, its register blocks, and the firmware that its device tree names.
pub static DEVICES: Once<(&'static Board, Devices, Option<Psci>)> = Once::new();

/// Makes the board known to interrupts and last words; with the firmware that its device tree names.
pub fn set_board(board: &'static Board, devices: Devices, firmware: Option<Psci>) {
    DEVICES.call_once(|| (board, devices, firmware));
}

/// The board's register blocks, once it is known.
pub fn devices() -> Option<&'static Devices> {
    DEVICES.get().map(|(_, devices, _)| devices)
}

/// The board was only guessed: nothing else was known when something fell.
static GUESSED: AtomicBool = AtomicBool::new(false);

/// For last words before the hand-over was read: the board that has cores like these. False if there is none, or
/// if this has led to a fault itself.
pub fn guess_board() -> bool {
    if DEVICES.get().is_some() {
        return !GUESSED.load(Ordering::Relaxed);
    }
    GUESSED.store(true, Ordering::Relaxed);
    let board = Board::detect(core::iter::empty(), cpu::part());
    set_board(board, boot::devices(board), None);
    if let Some(Devices { led: Some(led), .. }) = devices() {
        led.start();
    }
    true
}

/// VideoCore's mailbox, on boards that have one.
pub fn mailbox() -> Option<Mailbox<&'static mailbox::Registers>> {
    devices()?.mailbox.map(Mailbox::new)
}

/// A clock as VideoCore tells it. Off, it may be told as 0.
pub fn clock(clock: Clock) -> Option<u32> {
    mailbox()?.clock(clock).ok().filter(|&hz| hz > 0)
}

pub fn gic() -> Option<Gic> {
    devices().map(|devices| Gic::new(devices.distributor, devices.interface))
}

/// Raises the Arm clock to its maximum: the boot loader hands over at its lowest. The core clock may move with
/// it, and the mini-UART's speed hangs on that.
pub fn raise_clocks() {
    let Some(mailbox) = mailbox() else { return };
    if let Ok(most) = mailbox.max_clock(Clock::Arm)
        && most > 0
        && let Some(console) = console()
    {
        console.flush();
        let _ = mailbox.set_clock(Clock::Arm, most); // refused, it stays as it is: `status` shows it
    }
    follow_core_clock();
}

/// RAM as VideoCore knows it, when the boot loader told nothing: the part in the first GiB. And its own share,
/// should the boot loader have counted that as ours.
pub fn ask_for_memory(handoff: &mut Handoff) {
    let Some(mailbox) = mailbox() else { return };
    let range = |(start, bytes): (u32, u32)| u64::from(start)..u64::from(start) + u64::from(bytes);
    if let (true, Ok(memory)) = (handoff.banks.is_empty(), mailbox.arm_memory()) {
        let _ = handoff.banks.push(range(memory)); // the first fits
    }
    if let Ok(share) = mailbox.videocore_memory().map(range) {
        handoff.keep_out(share);
    }
}

/// Has the board restart, or switch itself off, in a moment: by its watchdog, else by its firmware. The card is given back first.
pub fn restart_board() {
    give_back();
    match DEVICES.get() {
        Some((_, Devices { power: Some(power), .. }, _)) => power.reboot(),
        Some((_, _, Some(firmware))) => firmware.reset(),
        _ => {}
    }
}

pub fn switch_off_board() {
    give_back();
    match DEVICES.get() {
        Some((_, Devices { power: Some(power), .. }, _)) => power.power_off(),
        Some((_, _, Some(firmware))) => firmware.power_off(),
        _ => {}
    }
}

/// The boot arguments allow semihosting.
static SEMIHOSTING: AtomicBool = AtomicBool::new(false);

/// Allows [`exit_emulator`], whose instruction is undefined where no debugger or emulator takes it.
pub fn allow_semihosting(allowed: bool) {
    SEMIHOSTING.store(allowed, Ordering::Relaxed);
}

/// Ends the emulator with this code where the boot arguments allow it; else returns.
pub fn exit_emulator(code: u32) {
    if SEMIHOSTING.load(Ordering::Relaxed) {
        last_resort().flush();
        cpu::semihosting_exit(code);
    }
}
