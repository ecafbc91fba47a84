//! The picture on the display, where there is one.

use alloc::format;
use alloc::string::String;
use core::ops::Range;

use embodios_bsp::drivers::framebuffer::{self, Framebuffer, FramebufferError, Surface};
use embodios_bsp::handoff::Handoff;
use embodios_firmware::screen::Screen;
use spin::Once;

use super::board::mailbox;
use crate::boot;

/// The display, where there is one.
static SCREEN: Once<Screen> = Once::new();
/// Why there is none.
static NO_SCREEN: Once<FramebufferError> = Once::new();
/// The boot argument that says not to look for one.
const SCREEN_OFF: &str = "screen=off";

/// Shows text on the display, if there is one.
pub fn show(bytes: &[u8]) {
    if let Some(screen) = SCREEN.get() {
        screen.write(bytes);
    }
}

/// Asks VideoCore for a picture on the display, and keeps its memory out of ours.
pub fn ask_for_picture(handoff: &mut Handoff) -> Option<Framebuffer> {
    let mailbox = mailbox()?;
    if handoff.has_argument(SCREEN_OFF) {
        return None;
    }
    let picture = framebuffer::request(&mailbox).map_err(|error| *NO_SCREEN.call_once(|| error)).ok()?;
    let image = boot::image();
    let overlaps = |range: &Range<u64>| range.start < picture.memory.end && picture.memory.start < range.end;
    if overlaps(&(image.code.start..image.stacks.end)) || handoff.initrd.as_ref().is_some_and(overlaps) {
        return None; // that can't be, and must not be written to
    }
    handoff.keep_out(picture.memory.clone());
    Some(picture)
}

/// What `status` says of the display.
pub fn described() -> Option<String> {
    match (SCREEN.get(), NO_SCREEN.get()) {
        (Some(screen), _) => {
            let (columns, rows) = screen.size();
            let (width, height) = screen.pixels();
            Some(format!("{columns} x {rows} characters on a picture of {width} x {height}"))
        }
        (None, Some(why)) => Some(format!("none: {why}")),
        (None, None) => mailbox().map(|_| format!("none, as the boot argument {SCREEN_OFF} says")),
    }
}

/// Makes the picture a screen that shows what the console says.
pub fn open_screen(surface: Option<Surface>) {
    if let Some(screen) = surface.and_then(Screen::new) {
        SCREEN.call_once(|| screen);
    }
}
