//! The board as the shell sees it: console, cores, clocks, memory, files.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use core::time::Duration;

use embodios_bsp::board::{Board, Devices};
use embodios_bsp::cpu::cores::Team;
use embodios_bsp::cpu::{self, timer};
use embodios_bsp::drivers::gic::Gic;
use embodios_bsp::drivers::mailbox::{Clock, Mailbox};
use embodios_bsp::drivers::{self, Ring, Serial};
use embodios_firmware::Terminal;
use spin::Once;

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("EMBODIOS_COMMIT"));
/// Speed of the console.
const BAUD: u32 = 115_200;
/// What a PL011 runs on if VideoCore does not say: the firmware's `init_uart_clock`.
const PL011_CLOCK: u32 = 48_000_000;
/// A Raspberry Pi 4's VPU core clock with `enable_uart=1`, if VideoCore does not say.
const CORE_CLOCK: u32 = 500_000_000;
/// Longest sleep at the prompt.
const NAP: Duration = Duration::from_millis(10);

/// All cores.
pub static TEAM: Team = Team::new();
/// What was received: room for a paste of 100 KB while the program is busy.
static RECEIVED: Ring<{ 128 * 1024 }> = Ring::new();
static DEVICES: Once<(&'static Board, Devices)> = Once::new();
/// Which UART is the console.
static CONSOLE: AtomicU8 = AtomicU8::new(NONE);
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

const NONE: u8 = 0;
const PL011: u8 = 1;
const MINI: u8 = 2;

/// Makes the board known to interrupts and last words.
pub fn set_board(board: &'static Board, devices: Devices) {
    DEVICES.call_once(|| (board, devices));
}

/// The board's register blocks, once it is known.
pub fn devices() -> Option<&'static Devices> {
    DEVICES.get().map(|(_, devices)| devices)
}

fn gic() -> Option<Gic> {
    devices().map(|devices| Gic::new(devices.distributor, devices.interface))
}

/// The console, once it is chosen.
pub fn console() -> Option<&'static dyn Serial> {
    let devices = devices()?;
    match CONSOLE.load(Ordering::Acquire) {
        PL011 => Some(devices.pl011),
        MINI => Some(devices.mini_uart),
        _ => None,
    }
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

/// The console for last words: the chosen one, else a PL011 started as well as one can without asking anybody.
pub fn last_resort() -> &'static dyn Serial {
    match (console(), devices()) {
        (Some(console), _) => console,
        (None, Some(devices)) => {
            CONSOLE.store(PL011, Ordering::Release);
            devices.gpio.route_pl011_to_header();
            devices.pl011.start(PL011_CLOCK, BAUD);
            devices.pl011
        }
        (None, None) => &Nowhere,
    }
}

/// Makes one of the two the console. The other falls silent.
pub fn choose_console(mini: bool) {
    let Some((board, devices)) = DEVICES.get() else { return };
    let mailbox = Mailbox::new(devices.mailbox);
    if let Some(before) = console() {
        before.flush();
        before.notify(false);
    }
    CONSOLE.store(NONE, Ordering::Release);
    let interrupt = if mini {
        devices.gpio.route_mini_uart_to_header();
        devices.mini_uart.start(mailbox.clock(Clock::Core).unwrap_or(CORE_CLOCK), BAUD);
        board.mini_uart.1
    } else {
        devices.gpio.route_pl011_to_header();
        let clock = mailbox.clock(Clock::Uart).ok().filter(|&hz| hz > 0);
        devices.pl011.start(clock.unwrap_or(PL011_CLOCK), BAUD);
        board.pl011.1
    };
    CONSOLE.store(if mini { MINI } else { PL011 }, Ordering::Release);
    if let (Some(gic), Some(console)) = (gic(), console()) {
        gic.enable(interrupt);
        console.notify(true);
    }
}

/// Lets core 0 take interrupts: console and timer.
pub fn start_interrupts() {
    if let Some(gic) = gic() {
        gic.start();
        gic.start_core();
        gic.enable(timer::INTERRUPT);
    }
    TEAM.open(wake, acknowledge);
}

/// Lets another core be woken.
pub fn start_core_interrupts() {
    if let Some(gic) = gic() {
        gic.start_core();
    }
}

fn wake(core: usize) {
    if let Some(gic) = gic() {
        gic.wake(core);
    }
}

/// On cores 1 to 3, which take no other interrupts than the one that wakes them.
fn acknowledge() {
    if let Some(gic) = gic() {
        while let Some(taken) = gic.take() {
            INTERRUPTS.fetch_add(1, Ordering::Relaxed);
            gic.end(taken);
        }
    }
}

/// Takes what is pending on core 0.
pub fn interrupt() {
    let (Some(gic), Some((board, _))) = (gic(), DEVICES.get()) else { return };
    while let Some(taken) = gic.take() {
        INTERRUPTS.fetch_add(1, Ordering::Relaxed);
        let number = taken.number();
        if number == board.pl011.1 || number == board.mini_uart.1 {
            receive();
        } else if number == timer::INTERRUPT {
            timer::cancel_wake();
        } else if number >= 32 {
            gic.disable(number); // nobody asked for it: it would come for ever
        }
        gic.end(taken);
    }
}

/// Takes everything out of the console's receiver.
fn receive() {
    if let Some(console) = console() {
        console.acknowledge();
        while let Some(byte) = console.read() {
            RECEIVED.push(byte);
        }
    }
}

/// The console as the shell's terminal.
pub struct Line;

impl Terminal for Line {
    fn read(&mut self) -> Option<u8> {
        RECEIVED.pop()
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(console) = console() {
            // A line that takes no byte in time takes none of this text.
            let _ = bytes.iter().all(|&byte| console.write(byte));
        }
    }

    fn wait(&mut self) {
        {
            // Masked, so that a byte that comes after the look still ends the sleep.
            let _masked = cpu::Masked::new();
            if RECEIVED.is_empty() {
                timer::wake_after(NAP);
                cpu::wait_for_interrupt();
            }
        }
        timer::cancel_wake();
    }

    fn lost(&mut self) -> u64 {
        RECEIVED.take_lost() + drivers::take_lost()
    }
}
