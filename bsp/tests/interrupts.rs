//! The interrupt controller's driver against a strict model of a GIC-400, on either side of it: every test also proves that
//! nothing was done that silicon would not forgive; see `strict/gic`.

#[path = "strict/board.rs"]
mod board;
#[path = "strict/gic/mod.rs"]
mod gic;

use board::{Board, Device, refusal};
use embodios_bsp::cpu;
use embodios_bsp::drivers::gic::{Gic, WAKE};
use embodios_bsp::machine::Placed;
use gic::{CORES, Gic as Model, Side};

/// The console's, and the timer's of a core.
const CONSOLE: usize = 153;
const TIMER: usize = 30;

/// A controller and its driver, not set up yet.
fn machine(model: &Model) -> (Gic, Placed) {
    let board = Board::default();
    let gic = model.on(&board);
    (gic, board.put())
}

/// The states in which a boot loader may leave the controller.
fn left_behind() -> [Model; 5] {
    [
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
    while let Some(taken) = gic.take() {
        numbers.push(taken.number() as usize);
        answer(taken.number() as usize);
        gic.end(taken);
    }
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

/// A driver's mistake, what the model says to it.
type Mistake = (fn(&Model, &dyn Device, &dyn Device), &'static str);

/// Takes the console's interrupt, by the register.
fn take(model: &Model, interface: &dyn Device) -> u32 {
    model.line(CONSOLE, true);
    interface.load(IAR, 4)
}

const IAR: usize = 0x0c;
const EOIR: usize = 0x10;
const SGIR: usize = 0xf00;
/// Of the word of four interrupts in which the console's is the second.
const PRIORITY: usize = 0x400 + CONSOLE / 4 * 4;
const TARGET: usize = 0x800 + CONSOLE / 4 * 4;

/// Each on a controller that was set up as it should be, on core 0.
const MISTAKES: &[Mistake] = &[
    (|_, d, _| _ = d.load(0x100, 1), "distributor 0x100 has no access of 1 bytes"),
    (|_, d, _| d.store(PRIORITY, 2, 0), "has no access of 2 bytes"),
    (|_, _, i| _ = i.load(IAR, 1), "32-bit registers"),
    (|_, d, _| d.store(0x100 + 32, 4, 1), "interrupt 256: the controller has 256"),
    (|_, d, _| d.store(0x04, 4, 0), "no register at 0x4 for us to write"),
    (|_, d, _| d.store(0x80, 4, u32::MAX), "groups are the secure side's business"),
    (|_, d, _| d.store(0, 4, 3), "GICD_CTLR: bits that are not ours"),
    (|_, d, _| d.store(0x800, 1, 1), "GICD_ITARGETSR of interrupt 0 is read only"),
    (|_, d, _| d.store(TARGET + 1, 1, 0x10), "sent to a core that is not there"),
    (|_, d, _| d.store(TARGET, 4, 0x0000_0200), "the target of interrupt 153 changes while it may fire"),
    (|_, d, _| d.store(PRIORITY + 1, 1, 0x40), "the priority of interrupt 153 changes while it may fire"),
    (|_, d, _| d.store(0xc00 + 36, 4, 1 << 19), "interrupt 153 is enabled while its kind changes"),
    (|_, d, _| d.store(0x100 + 16, 4, 1), "interrupt 128 is enabled for nobody"),
    (|_, d, _| d.store(0x280, 4, 1), "software interrupt 0 is set and cleared by other registers"),
    (|_, d, _| d.store(0x300, 4, 1), "is made active"),
    (|_, d, _| d.store(SGIR, 4, 1 << 17), "overtakes what was stored before it"),
    (|_, d, _| settled(d, SGIR, 0), "a software interrupt for nobody"),
    (|_, d, _| settled(d, SGIR, 1 << 20), "for a core that is not there"),
    (|_, d, _| settled(d, SGIR, 3 << 24 | 1 << 16), "a filter that is reserved"),
    (|_, d, _| settled(d, SGIR, 1 << 16 | 1 << 15), "GICD_SGIR: bits that are not ours"),
    (|_, d, _| _ = d.load(SGIR, 4), "written, not read"),
    (|_, _, i| i.store(0, 4, 1), "a line that goes round the controller is opened"),
    (|_, _, i| i.store(0, 4, 0x1e1), "GICC_CTLR: bits that are not ours"),
    (|_, _, i| i.store(0x08, 4, 8), "3 bits"),
    (|_, _, i| i.store(0xd0, 4, 1), "any other value than none"),
    (|_, _, i| settled(i, 0x1000, CONSOLE as u32), "GICC_DIR is unpredictable"),
    (|_, _, i| settled(i, EOIR, CONSOLE as u32), "nothing has been taken"),
    (
        |m, _, i| {
            let word = take(m, i);
            i.access();
            i.store(EOIR, 4, word);
        },
        "before the device has got what its handler stored",
    ),
    (
        |m, d, i| {
            take(m, i);
            d.barrier();
            i.store(EOIR, 4, TIMER as u32);
        },
        "what is ended has not been taken: 0x1e, but 0x99",
    ),
    (
        |m, d, i| {
            m.be(3);
            settled(d, SGIR, 1 << 16);
            m.be(0);
            assert_eq!(i.load(IAR, 4), 3 << 10);
            settled(i, EOIR, 0);
        },
        "another core's number",
    ),
    (
        |m, d, i| {
            let outer = take(m, i);
            // Its priority is so high that it comes in between: where a driver allows that.
            d.store(0x400 + TIMER, 1, 0);
            i.store(0x08, 4, 3);
            d.store(0x100, 4, 1 << TIMER);
            m.own_line(0, TIMER, true);
            assert_eq!(i.load(IAR, 4), TIMER as u32);
            settled(i, EOIR, outer);
        },
        "0x99 is ended before 0x1e, which came later",
    ),
    (
        |m, _, i| {
            take(m, i);
            i.sleep();
        },
        "sleeps in the middle of a handler",
    ),
    (
        |m, _, i| {
            for _ in 0..100 {
                let word = take(m, i);
                settled(i, EOIR, word);
            }
        },
        "interrupt 153 comes for ever: nobody gets its line down",
    ),
];

fn settled(device: &dyn Device, offset: usize, value: u32) {
    device.barrier();
    device.store(offset, 4, value);
    device.access();
}

#[test]
fn every_mistake_is_refused_with_its_reason() {
    for (index, (mistake, words)) in MISTAKES.iter().enumerate() {
        let model = Model::after_stub();
        let (gic, _placed) = machine(&model);
        start(&model, gic);
        gic.disable(TIMER as u32);
        let said = refusal(|| mistake(&model, &model.distributor(), &model.interface()));
        assert!(said.contains(words), "mistake {index}: {words:?}, but {said:?}");
    }
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
