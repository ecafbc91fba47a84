//! The interrupt controller's driver against a strict model of a GIC-400, on either side of it: every test also proves that
//! nothing was done that silicon would not forgive; see `strict/gic`.

#[path = "strict/board.rs"]
mod board;
#[path = "strict/gic/mod.rs"]
mod gic;
#[path = "interrupts/mistakes.rs"]
mod mistakes;

use std::time::Duration;

use board::{Board, Device, refusal};
use embodios_bsp::cpu;
use embodios_bsp::drivers::gic::{Gic, Taken, WAKE};
use embodios_bsp::machine::Placed;
use gic::{CORES, Gic as Model, Side};

/// The console's, and the timer's of a core.
const CONSOLE: usize = 153;
const TIMER: usize = 30;
/// Longer than anything takes that comes at all.
const SOON: Duration = Duration::from_millis(1);

/// A controller and its driver, not set up yet.
fn machine(model: &Model) -> (Gic, Placed) {
    let board = Board::default();
    let gic = model.on(&board);
    (gic, board.put())
}

/// The states in which a boot loader may leave the controller.
fn left_behind() -> [Model; 7] {
    [
        Model::after_entry_at_el3(),
        Model::new(Side::Single, 1024).left_in_the_middle(CONSOLE),
        Model::after_stub(),
        Model::after_tf_a(),
        Model::new(Side::Single, 288),
        Model::after_stub().left_in_the_middle(CONSOLE),
        Model::new(Side::Single, 192).left_in_the_middle(TIMER),
    ]
}

/// Sets it up as the firmware does: core 0, then each other core its own part.
fn start(model: &Model, gic: Gic) {
    gic.start();
    for core in 0..CORES {
        model.be(core);
        gic.start_core();
    }
    model.be(0);
    gic.enable(TIMER as u32);
    gic.enable(CONSOLE as u32);
}

/// What a core is interrupted by, each answered as `answer` does.
fn handle(gic: Gic, mut answer: impl FnMut(usize)) -> Vec<usize> {
    let mut numbers = Vec::new();
    gic.serve(|taken| {
        numbers.push(taken.number() as usize);
        answer(taken.number() as usize);
        true
    });
    numbers
}

#[test]
fn in_whatever_state_it_is_left_the_console_and_the_timer_come_through_to_core_0() {
    for model in left_behind() {
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        assert_eq!(handle(gic, |_| {}), [], "nobody has asked for anything");
        model.line(CONSOLE, true);
        model.own_line(0, TIMER, true);
        assert!(model.interrupts(0) && !model.interrupts(1));
        let quiet = |number| match number {
            TIMER => model.own_line(0, TIMER, false),
            _ => model.line(CONSOLE, false),
        };
        assert_eq!(handle(gic, quiet), [TIMER, CONSOLE]);
        assert_eq!((model.unfinished(0), model.interrupts(0)), (0, false));
        // Another core's timer is another core's.
        model.own_line(2, TIMER, true);
        assert!((0..CORES).all(|core| !model.interrupts(core)));
    }
}

#[test]
fn every_core_wakes_every_other_and_each_knows_who_called() {
    for model in left_behind() {
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        for (from, to) in (0..CORES).flat_map(|from| (0..CORES).map(move |to| (from, to))) {
            model.be(from);
            gic.wake(to);
            assert!((0..CORES).all(|core| model.interrupts(core) == (core == to)));
            model.be(to);
            cpu::wait_for_interrupt();
            assert_eq!(handle(gic, |_| {}), [WAKE as usize]);
        }
        // Two at once are two, each ended with its caller's number.
        for from in [3, 1] {
            model.be(from);
            gic.wake(2);
        }
        model.be(2);
        assert_eq!(handle(gic, |_| {}), [0, 0]);
    }
}

/// Whether the software interrupt that wakes a core, and its timer's, come through to the core that asks.
fn proof(model: &Model, gic: Gic, core: usize) -> [bool; 2] {
    model.be(core);
    gic.enable(TIMER as u32);
    let answer = |taken: Taken| {
        if taken.number() as usize == TIMER {
            model.own_line(core, TIMER, false);
        }
        true
    };
    let wake = gic.gets_through(WAKE, SOON, || gic.wake(core), answer);
    [wake, gic.gets_through(TIMER as u32, SOON, || model.own_line(core, TIMER, true), answer)]
}

#[test]
fn a_core_proves_that_interrupts_reach_it_and_leaves_nothing_behind() {
    for model in left_behind() {
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        for core in 0..CORES {
            assert_eq!(proof(&model, gic, core), [true, true]);
            assert_eq!((model.unfinished(core), model.interrupts(core)), (0, false));
        }
        // What comes meanwhile is answered, and is no proof.
        model.be(0);
        model.line(CONSOLE, true);
        let mut answered = Vec::new();
        assert!(!gic.gets_through(
            WAKE,
            SOON,
            || {},
            |taken| {
                answered.push(taken.number() as usize);
                model.line(CONSOLE, false);
                true
            }
        ));
        assert_eq!(answered, [CONSOLE]);
    }
}

#[test]
fn a_core_finds_out_that_no_interrupt_reaches_it() {
    // Out of reset all are the secure side's, and only the timer's; and a mask in the secure half, which isn't ours to raise.
    let reset = Model::new(Side::NonSecure, 256);
    for (model, wanted) in [
        (reset, [false, false]),
        (Model::after_stub().of_the_secure_side(0..16), [false, true]),
        (Model::after_stub().of_the_secure_side(TIMER..TIMER + 1), [true, false]),
        (Model::after_stub().masked(0), [false, false]),
    ] {
        let (gic, _placed) = machine(&model);
        gic.start();
        gic.start_core();
        assert_eq!(proof(&model, gic, 0), wanted);
    }
}

#[test]
fn a_level_that_stays_up_comes_again_until_it_is_stopped() {
    for model in left_behind() {
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        model.line(CONSOLE, true);
        for _ in 0..3 {
            let taken = gic.take().unwrap();
            assert!(!model.interrupts(0), "not while it is handled");
            gic.end(taken);
            assert!(model.interrupts(0));
        }
        gic.disable(CONSOLE as u32);
        assert_eq!(gic.take(), None);
        model.line(CONSOLE, false);
        gic.enable(CONSOLE as u32);
        assert_eq!(gic.take(), None);
    }
}

#[test]
fn nothing_pre_empts_a_handler() {
    for model in left_behind() {
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        model.line(CONSOLE, true);
        let taken = gic.take().unwrap();
        model.own_line(0, TIMER, true);
        gic.wake(0);
        assert!(!model.interrupts(0) && gic.take().is_none());
        model.line(CONSOLE, false);
        gic.end(taken);
        let quiet = |number| {
            if number == TIMER {
                model.own_line(0, TIMER, false);
            }
        };
        assert_eq!(handle(gic, quiet), [WAKE as usize, TIMER]);
    }
}

#[test]
fn of_cores_that_an_interrupt_is_sent_to_only_one_takes_it() {
    let model = Model::after_stub();
    let (gic, _placed) = machine(&model);
    start(&model, gic);
    model.line(CONSOLE, true);
    model.be(1);
    assert_eq!(gic.take(), None, "it is core 0's");
    model.be(0);
    let taken = gic.take().unwrap();
    assert_eq!(gic.take(), None, "a second look finds nothing");
    model.line(CONSOLE, false);
    gic.end(taken);
}

#[test]
fn an_interrupt_that_nobody_knows_comes_once() {
    const STRANGER: usize = 77;
    const MAINTENANCE: usize = 25;
    for model in left_behind() {
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        gic.enable(STRANGER as u32);
        gic.enable(MAINTENANCE as u32);
        model.line(STRANGER, true);
        model.own_line(0, MAINTENANCE, true);
        gic.wake(0);
        let mut numbers = Vec::new();
        let mut serve = || {
            gic.serve(|taken| {
                numbers.push(taken.number() as usize);
                false
            });
            std::mem::take(&mut numbers)
        };
        assert_eq!(serve(), [WAKE as usize, MAINTENANCE, STRANGER]);
        assert!(!model.interrupts(0), "their lines are still up");
        gic.wake(0);
        assert_eq!(serve(), [WAKE as usize], "cores are still heard");
    }
}

#[test]
fn an_interrupt_that_a_handler_forgets_to_quiet_is_found() {
    let model = Model::after_stub();
    let (gic, _placed) = machine(&model);
    start(&model, gic);
    model.line(CONSOLE, true);
    let said = refusal(|| gic.serve(|_| true));
    assert!(said.contains("nobody gets its line down"), "{said}");
}

#[test]
fn a_core_that_is_not_told_its_target_bit_knows_it_by_its_number() {
    // Its first words are the secure side's, and read as zero: as those of a controller with one core do.
    let model = Model::after_stub().of_the_secure_side(0..4);
    let (gic, _placed) = machine(&model);
    start(&model, gic);
    assert_eq!(model.distributor().load(0x800, 4), 0);
    model.line(CONSOLE, true);
    assert_eq!(handle(gic, |_| model.line(CONSOLE, false)), [CONSOLE]);
}

#[test]
fn one_of_the_other_group_is_none_of_ours() {
    let model = Model::new(Side::Single, 256).in_group_1(CONSOLE);
    let (gic, _placed) = machine(&model);
    start(&model, gic);
    model.line(CONSOLE, true);
    assert!(!model.interrupts(0), "that group's gates are closed");
    model.distributor().store(0, 4, 3);
    model.interface().store(0, 4, 3);
    assert!(model.interrupts(0));
    assert_eq!(gic.take(), None, "GICC_IAR gives 1022");
}

#[test]
fn interrupts_of_the_secure_side_are_out_of_reach_and_do_no_harm() {
    // As out of reset: all of them are the secure side's, which masks everything.
    let model = Model::new(Side::NonSecure, 256);
    let (gic, _placed) = machine(&model);
    gic.start();
    gic.start_core();
    gic.enable(TIMER as u32);
    model.line(CONSOLE, true);
    model.own_line(0, TIMER, true);
    gic.wake(0);
    assert_eq!(gic.take(), None);
}

#[test]
fn what_is_wrong_without_a_word_from_silicon_shows_in_what_does_not_come() {
    let model = Model::after_stub();
    let (gic, _placed) = machine(&model);
    start(&model, gic);
    let (distributor, interface) = (model.distributor(), model.interface());
    model.line(CONSOLE, true);
    // A mask as high as what it should let through; both gates; the lower half of the priorities is not ours to give.
    interface.store(0x04, 4, 0xa0);
    assert!(!model.interrupts(0));
    interface.store(0x04, 4, 0xb0);
    assert!(model.interrupts(0));
    distributor.store(0, 4, 0);
    assert!(!model.interrupts(0));
    distributor.store(0, 4, 1);
    interface.store(0, 4, 0x60);
    assert!(!model.interrupts(0));
    interface.store(0, 4, 0x61);
    assert!(model.interrupts(0));
    distributor.store(0x400 + 27, 1, 0x4f);
    assert_eq!(distributor.load(0x400 + 27, 1), 0x40, "16 levels");
    interface.store(0x04, 4, 0);
    assert_eq!(interface.load(0x04, 4), 0);
    // The console's target bit is core 0's own, which each core is told by a register of its own.
    for core in 0..CORES {
        model.be(core);
        assert_eq!(distributor.load(0x800, 4), 0x0101_0101 << core);
    }
}

#[test]
fn an_interrupt_that_was_ended_only_at_the_distributor_still_blocks_its_core() {
    let model = Model::after_stub().left_in_the_middle(CONSOLE);
    let (gic, _placed) = machine(&model);
    gic.start(); // deactivates it
    assert_eq!(model.unfinished(0), 1, "its priority is still the running one");
    gic.start_core();
    assert_eq!(model.unfinished(0), 0);
}
