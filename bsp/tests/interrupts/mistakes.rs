//! Each kind of mistake that a driver of the controller can make, and what the model says to it.

use super::board::{Device, refusal};
use super::gic::Gic as Model;
use super::{CONSOLE, TIMER, machine, start};

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
