//! The console: which UART it is, what it has received, and the shell's terminal on it.

use alloc::format;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use core::time::Duration;

use embodios_bsp::board::{Board, Devices, HeaderUart};
use embodios_bsp::cpu;
use embodios_bsp::drivers::mailbox::Clock;
use embodios_bsp::drivers::pl011::Registers;
use embodios_bsp::drivers::{self, Ring, Serial};
use embodios_bsp::handoff::Handoff;
use embodios_firmware::{Greeting, Terminal, noise};
use spin::Once;

use super::board::{DEVICES, clock, devices, gic};
use super::display::show;
use super::{TEAM, interrupts};
use crate::{boot, lamp};

/// Speed of the console.
const BAUD: u32 = 115_200;
/// A Raspberry Pi 4's VPU core clock in hertz, if VideoCore does not say: `core_freq` (Raspberry Pi documentation, "Overclocking
/// options"), at which `enable_uart=1` holds it (`raspberrypi/documentation`, issue 1614).
const CORE_CLOCK: u32 = 500_000_000;
/// What RP1's UART0 runs on, in hertz (Circle `lib/serial.cpp`), should a boot loader have left it without a speed.
const HEADER_CLOCK: u32 = 50_000_000;
/// Why the header's UART can't be the console.
pub const NO_HEADER_UART: &str = "No UART answers behind RP1, a Raspberry Pi 5's: put `enable_rp1_uart=1` and `pciex4_reset=0` \
                              into config.txt. The console is the pl011.";
/// Longest sleep at the prompt where the receiver has to be looked at: at 115200 baud its 32 bytes (Arm DDI 0183, 1.1, "Features")
/// take 2.8 ms.
const SHORT_NAP: Duration = Duration::from_millis(2);
/// Longest sleep at the prompt.
const NAP: Duration = Duration::from_millis(10);

/// What was received: room for a paste of 100 KB while the program is busy.
pub static RECEIVED: Ring<{ 128 * 1024 }> = Ring::new();
/// Somebody was asked for a line.
static ASKED: AtomicBool = AtomicBool::new(false);
/// The banner has begun.
static GREETED: AtomicBool = AtomicBool::new(false);
/// Which [`Port`] is the console; 0 before it is chosen.
static CONSOLE: AtomicU8 = AtomicU8::new(0);

/// The console, once it is chosen.
pub fn console() -> Option<&'static dyn Serial> {
    let devices = devices()?;
    match chosen()? {
        Port::Pl011 => Some(devices.pl011),
        Port::Mini => devices.mini_uart.map(|mini| mini as &dyn Serial),
        Port::Header => header_uart().map(|uart| uart as &dyn Serial),
    }
}

/// Which port is the console, once it is chosen.
fn chosen() -> Option<Port> {
    let number = CONSOLE.load(Ordering::Acquire);
    [Port::Pl011, Port::Mini, Port::Header].into_iter().find(|&port| port as u8 == number)
}

/// Whether this port is the console.
pub fn is_console(port: Port) -> bool {
    chosen() == Some(port)
}

/// A line that takes bytes and drops them.
struct Nowhere;

impl Serial for Nowhere {
    fn read(&self) -> Option<u8> {
        None
    }
    fn write(&self, _: u8) -> bool {
        true
    }
    fn flush(&self) {}
    fn notify(&self, _: bool) {}
    fn acknowledge(&self) {}
}

/// Sets the PL011 up, on a clock of so many hertz.
fn start_pl011(board: &Board, devices: &Devices, hz: u32) {
    if board.pl011_as_left {
        devices.pl011.start_as_left(hz, BAUD);
    } else {
        devices.pl011.start(Some((hz, BAUD)));
    }
}

/// The console for last words: the chosen one, else a PL011 started as well as one can without asking anybody.
pub fn last_resort() -> &'static dyn Serial {
    match (console(), DEVICES.get()) {
        (Some(console), _) => console,
        (None, Some((board, devices, _))) => {
            CONSOLE.store(Port::Pl011 as u8, Ordering::Release);
            if let Some(pins) = devices.gpio {
                pins.route_pl011_to_header();
            }
            start_pl011(board, devices, board.pl011_clock);
            devices.pl011
        }
        (None, None) => &Nowhere,
    }
}

/// A serial port that can be the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The PL011: on the header of a Raspberry Pi 4, the debug port of a Pi 5.
    Pl011 = 1,
    /// The mini-UART, on the same pins of a Raspberry Pi 4.
    Mini,
    /// The UART on the header of a Raspberry Pi 5, behind RP1.
    Header,
}

impl Port {
    /// The one that the boot arguments ask for.
    pub fn asked_for(handoff: &Handoff) -> Self {
        match () {
            () if handoff.has_argument("console=mini") => Self::Mini,
            () if handoff.has_argument("console=rp1") => Self::Header,
            () => Self::Pl011,
        }
    }
}

/// The header's UART behind RP1, looked for once, when it is asked for.
pub fn header_uart() -> Option<&'static Registers> {
    static FOUND: Once<Option<HeaderUart>> = Once::new();
    let (board, ..) = DEVICES.get()?;
    FOUND.call_once(|| boot::header_uart(board)).map(|found| found.0)
}

/// Makes a port the console; where there is none such, the PL011, and false is returned. The others fall silent.
pub fn choose_console(port: Port) -> bool {
    let Some((board, devices, _)) = DEVICES.get() else { return false };
    if let Some(before) = console() {
        before.flush();
        before.notify(false);
    }
    CONSOLE.store(0, Ordering::Release);
    let (chosen, interrupt) = match (port, devices.mini_uart, board.mini_uart) {
        (Port::Mini, Some(uart), Some((_, interrupt))) => {
            if let Some(pins) = devices.gpio {
                pins.route_mini_uart_to_header();
            }
            uart.start(clock(Clock::Core).unwrap_or(CORE_CLOCK), BAUD);
            (Port::Mini, Some(interrupt))
        }
        (Port::Header, ..)
            if header_uart().is_some_and(|uart| {
                uart.start_as_left(HEADER_CLOCK, BAUD);
                true
            }) =>
        {
            (Port::Header, None) // its interrupt is a message over PCIe: it is looked at instead
        }
        _ => {
            if let Some(pins) = devices.gpio {
                pins.route_pl011_to_header();
            }
            let hz = if board.pl011_as_left { None } else { clock(Clock::Uart) };
            start_pl011(board, devices, hz.unwrap_or(board.pl011_clock));
            (Port::Pl011, Some(devices.pl011_interrupt))
        }
    };
    CONSOLE.store(chosen as u8, Ordering::Release);
    if let (Some(gic), Some(console), Some(interrupt)) = (gic(), console(), interrupt) {
        gic.enable(interrupt);
        console.notify(true);
    }
    chosen == port
}

/// Sets the mini-UART's divisor anew, if that is the console: the core clock has moved.
pub fn follow_core_clock() {
    if is_console(Port::Mini)
        && let Some(Devices { mini_uart: Some(uart), .. }) = devices()
        && let Some(hz) = clock(Clock::Core)
    {
        uart.set_clock(hz, BAUD);
    }
}

/// Sends the banner's first line to the console just chosen, and with the first one to the display: whatever goes
/// wrong from here on is seen to come from a board that runs.
pub fn greet() {
    let text = format!("\r\n{Greeting}\r\n");
    if let Some(console) = console() {
        let _ = text.bytes().all(|byte| console.write(byte)); // as any text
    }
    if !GREETED.swap(true, Ordering::Relaxed) {
        show(text.as_bytes());
    }
}

/// Takes everything out of the console's receiver.
pub fn receive() {
    if let Some(console) = console() {
        // As many as come within a second at 115200 baud: a line that is never empty is no line.
        drivers::receive(console, BAUD as usize / 10, |byte| RECEIVED.push(byte));
    }
}

/// Whether the receiver counts on being looked at: one behind RP1, and one that has never interrupted us.
fn is_looked_at() -> bool {
    is_console(Port::Header) || !interrupts::console_has_interrupted()
}

/// Looks at the receiver, also at one that interrupts us. Should its interrupt be another than we think, or come no more,
/// which no emulator can tell, the console works all the same.
pub fn look_for_input() {
    let _masked = cpu::Masked::new();
    receive();
}

/// Whether what was received may be noise, not asked for by anybody.
fn may_be_noise() -> bool {
    !ASKED.load(Ordering::Relaxed) && DEVICES.get().is_some_and(|(board, ..)| board.open_line)
}

/// Whether a Ctrl-C has come that somebody meant.
pub fn interrupted() -> bool {
    let mut came = [0; noise::LOOKED_AT];
    RECEIVED.interrupted() && (!may_be_noise() || noise::asks_to_stop(RECEIVED.peek(&mut came)))
}

/// Throws away what came before anybody was asked for a line, if it is noise.
fn ask() {
    if may_be_noise() {
        look_for_input();
        let mut came = [0; noise::LOOKED_AT];
        if !noise::is_typed(RECEIVED.peek(&mut came)) {
            while RECEIVED.pop().is_some() {}
            RECEIVED.clear_interrupt();
        }
    }
    ASKED.store(true, Ordering::Relaxed);
}

/// The console as the shell's terminal.
pub struct Line;

impl Terminal for Line {
    fn read(&mut self) -> Option<u8> {
        ask();
        RECEIVED.pop()
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(console) = console() {
            // A line that takes no byte in time takes none of this text.
            let _ = bytes.iter().all(|&byte| console.write(byte));
        }
        show(bytes); // while the last of them are sent
    }

    fn wait(&mut self) {
        lamp::show();
        look_for_input();
        TEAM.nap(if is_looked_at() { SHORT_NAP } else { NAP }, || !RECEIVED.is_empty());
    }

    fn greeted(&self) -> bool {
        GREETED.load(Ordering::Relaxed)
    }

    fn lost(&mut self) -> u64 {
        RECEIVED.take_lost() + drivers::take_lost()
    }
}
