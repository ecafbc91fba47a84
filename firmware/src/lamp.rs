//! The activity light's switch, and the stages of the boot that it shows. What it looks like is `light.rs`'s.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use embodios_bsp::board::Devices;
use embodios_bsp::cpu::timer;
use embodios_bsp::handoff::Handoff;
use embodios_firmware::light::{self, Signal};

use crate::platform::devices;

/// Which stage of the boot is on: `main.rs` counts them.
static STAGE: AtomicU8 = AtomicU8::new(0);
/// What the activity light shows, as a number, and since when, in milliseconds.
static SIGNAL: AtomicU8 = AtomicU8::new(Signal::Starting as u8);
static SIGNALLED: AtomicU64 = AtomicU64::new(0);
/// Whether the light is lit, as far as we know.
static LIT: AtomicBool = AtomicBool::new(false);

fn millis() -> u64 {
    timer::now_nanos() / 1_000_000
}

/// A stage that is to fall, for a test of what is seen then: boot argument `fault=2`.
static FALL_AT: AtomicU8 = AtomicU8::new(0);
/// The light announces each stage of the boot: boot argument `light=stages`.
static ANNOUNCED: AtomicBool = AtomicBool::new(false);

/// Does what the boot arguments say of the stages of the boot: announce them, have one fall.
pub fn obey_arguments(handoff: &Handoff) {
    ANNOUNCED.store(handoff.has_argument("light=stages"), Ordering::Relaxed);
    let told = handoff.arguments.split_ascii_whitespace().find_map(|word| word.strip_prefix("fault="));
    if let Some(number @ 1..) = told.and_then(|number| number.parse().ok()) {
        FALL_AT.store(number, Ordering::Relaxed);
    }
    stage(STAGE.load(Ordering::Relaxed)); // it may be this one
}

/// Begins a stage of the boot. With the first one the light goes on.
pub fn stage(number: u8) {
    if STAGE.swap(number, Ordering::Relaxed) == 0
        && let Some(Devices { led: Some(led), .. }) = devices()
    {
        led.start();
        LIT.store(true, Ordering::Relaxed);
    }
    if let (true, Some(Devices { led: Some(led), .. })) = (ANNOUNCED.load(Ordering::Relaxed), devices()) {
        for (lit, time) in light::announced(number) {
            led.set(lit);
            timer::pause(time);
        }
    }
    if FALL_AT.load(Ordering::Relaxed) == number {
        FALL_AT.store(0, Ordering::Relaxed);
        panic!("provoked by the boot argument fault={number}");
    }
}

/// Switches the light, if it has to change.
pub fn light(lit: bool) {
    if LIT.load(Ordering::Relaxed) != lit
        && let Some(Devices { led: Some(led), .. }) = devices()
    {
        LIT.store(lit, Ordering::Relaxed);
        led.set(lit);
    }
}

/// Has the light show what it should now, of the signal that is on.
pub fn show() {
    let since = SIGNALLED.load(Ordering::Relaxed);
    light(signalled().pattern().lit(millis().saturating_sub(since)));
}

/// The signal that is on.
pub fn signalled() -> Signal {
    Signal::numbered(SIGNAL.load(Ordering::Relaxed))
}

/// Has the light show this from now on.
pub fn signal(signal: Signal) {
    if SIGNAL.swap(signal as u8, Ordering::Relaxed) != signal as u8 {
        SIGNALLED.store(millis(), Ordering::Relaxed);
    }
}

/// Shows by the light that the board has fallen: the one thing that is seen where no console works.
pub fn last_words() {
    if let Some(Devices { led: Some(led), .. }) = devices() {
        for (lit, time) in light::last_words(STAGE.load(Ordering::Relaxed)) {
            led.set(lit);
            timer::pause(time);
        }
    }
}
