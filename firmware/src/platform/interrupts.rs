//! The interrupts that each core takes.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use embodios_bsp::cpu::{self, timer};
use embodios_bsp::drivers::gic::{Gic, Taken, WAKE};
use embodios_firmware::Interrupts;

use super::TEAM;
use super::board::{DEVICES, gic};
use super::console::receive;

/// How long an interrupt may take to come through before it is taken for one that never does. On silicon it is there at
/// once; an emulator's host may let its devices wait.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the timer is set to when it has to prove that its interrupt comes.
const SOON: Duration = Duration::from_micros(100);

/// Interrupts that each core has taken.
static INTERRUPTS: [Count; cpu::CORES_MAX] = [const { Count::new() }; cpu::CORES_MAX];

/// Interrupts that one core has taken, by what they were for; on a cache line of its own.
#[repr(align(64))]
struct Count {
    console: AtomicU64,
    wake: AtomicU64,
    other: AtomicU64,
}

impl Count {
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
    prove();
}

/// Lets another core be woken.
pub fn start_core_interrupts() {
    if let Some(gic) = gic() {
        gic.start_core();
    }
    prove();
    cpu::unmask_errors();
}

/// Tries whether interrupts reach this core: the one that wakes it, and on core 0 the timer's, too. Where they do not, as
/// the boot loader has kept the controller for the secure side, no wait of this core counts on one.
pub fn prove() {
    let Some(gic) = gic() else { return };
    let core = cpu::core();
    let hears = match core {
        0 => {
            wakes(gic, core, answer)
                && gic.gets_through(timer::INTERRUPT, PATIENCE, || timer::wake_after(SOON), answer)
        }
        _ => wakes(gic, core, answer_wake),
    };
    if core == 0 {
        timer::cancel_wake();
    }
    TEAM.set_deaf(core, !hears);
}

/// Whether the interrupt that wakes a core reaches this one.
fn wakes(gic: Gic, core: usize, answer: fn(Taken) -> bool) -> bool {
    gic.gets_through(WAKE, PATIENCE, || gic.wake(core), answer)
}

fn wake(core: usize) {
    if let Some(gic) = gic() {
        gic.wake(core);
    }
}

/// On cores 1 to 3, which take no other interrupts than the one that wakes them.
fn acknowledge() {
    if let Some(gic) = gic() {
        gic.serve(answer_wake);
    }
}

/// Deals with what one of cores 1 to 3 has taken; false if it knows nothing of it.
fn answer_wake(taken: Taken) -> bool {
    let counts = &INTERRUPTS[cpu::core() % cpu::CORES_MAX];
    let kind = if taken.is_wake() { &counts.wake } else { &counts.other };
    kind.fetch_add(1, Ordering::Relaxed);
    taken.is_wake()
}

/// Takes what is pending on core 0.
pub fn interrupt() {
    if let Some(gic) = gic() {
        gic.serve(answer);
    }
}

/// Deals with what core 0 has taken; false if it knows nothing of it.
fn answer(taken: Taken) -> bool {
    let Some((board, devices, _)) = DEVICES.get() else { return false };
    let counts = &INTERRUPTS[cpu::core() % cpu::CORES_MAX];
    let mini = board.mini_uart.map(|(_, interrupt)| interrupt);
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
}

/// Whether the console's interrupt has ever come.
pub fn console_has_interrupted() -> bool {
    INTERRUPTS[0].console.load(Ordering::Relaxed) != 0
}

/// How many all cores have taken since the start.
pub fn taken() -> Interrupts {
    let sum = |kind: fn(&Count) -> &AtomicU64| {
        INTERRUPTS.iter().map(|core| kind(core).load(Ordering::Relaxed)).sum()
    };
    Interrupts {
        console: sum(|core| &core.console),
        wake: sum(|core| &core.wake),
        other: sum(|core| &core.other),
    }
}
