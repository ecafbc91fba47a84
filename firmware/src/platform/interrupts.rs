//! The interrupts that each core takes.

use core::sync::atomic::{AtomicU64, Ordering};

use embodios_bsp::cpu::{self, timer};
use embodios_firmware::Interrupts;

use super::TEAM;
use super::board::{DEVICES, gic};
use super::console::receive;

/// Interrupts that each core has taken.
static INTERRUPTS: [Taken; cpu::CORES_MAX] = [const { Taken::new() }; cpu::CORES_MAX];

/// Interrupts that one core has taken, by what they were for; on a cache line of its own.
#[repr(align(64))]
struct Taken {
    console: AtomicU64,
    wake: AtomicU64,
    other: AtomicU64,
}

impl Taken {
    const fn new() -> Self {
        Self { console: AtomicU64::new(0), wake: AtomicU64::new(0), other: AtomicU64::new(0) }
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
    cpu::unmask_errors();
}

fn wake(core: usize) {
    if let Some(gic) = gic() {
        gic.wake(core);
    }
}

/// On cores 1 to 3, which take no other interrupts than the one that wakes them.
fn acknowledge() {
    if let Some(gic) = gic() {
        let counts = &INTERRUPTS[cpu::core() % cpu::CORES_MAX];
        gic.serve(|taken| {
            let kind = if taken.is_wake() { &counts.wake } else { &counts.other };
            kind.fetch_add(1, Ordering::Relaxed);
            taken.is_wake()
        });
    }
}

/// Takes what is pending on core 0.
pub fn interrupt() {
    let (Some(gic), Some((board, devices, _))) = (gic(), DEVICES.get()) else { return };
    let counts = &INTERRUPTS[cpu::core() % cpu::CORES_MAX];
    let mini = board.mini_uart.map(|(_, interrupt)| interrupt);
    gic.serve(|taken| {
        let number = taken.number();
        let (kind, known) = if number == devices.pl011_interrupt || Some(number) == mini {
            receive();
            (&counts.console, true)
        } else if taken.is_wake() {
            (&counts.wake, true)
        } else if number == timer::INTERRUPT {
            timer::cancel_wake();
            (&counts.other, true)
        } else {
            (&counts.other, false)
        };
        kind.fetch_add(1, Ordering::Relaxed);
        known
    });
}

/// Whether the console's interrupt has ever come.
pub fn console_has_interrupted() -> bool {
    INTERRUPTS[0].console.load(Ordering::Relaxed) != 0
}

/// How many all cores have taken since the start.
pub fn taken() -> Interrupts {
    let sum = |kind: fn(&Taken) -> &AtomicU64| {
        INTERRUPTS.iter().map(|core| kind(core).load(Ordering::Relaxed)).sum()
    };
    Interrupts {
        console: sum(|core| &core.console),
        wake: sum(|core| &core.wake),
        other: sum(|core| &core.other),
    }
}
