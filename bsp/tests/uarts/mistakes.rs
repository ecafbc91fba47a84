//! Each kind of mistake that a driver of a serial port can make, and what the models say to it.

use super::board::{Board, Device, refusal};
use super::uart::mini_uart::MiniUart;
use super::uart::pl011::Pl011;
use super::{BAUD, CLOCK, CORE, Port, mini_of, pl011_of};

/// A mistake, and what the model says to it.
type Mistake<T> = (fn(&Board, &T), &'static str);

/// At a port that a boot loader has left on.
const MISTAKES_AT_THE_PL011: &[Mistake<Pl011>] = &[
    (|_, p| _ = p.load(0x18, 1), "32-bit registers"),
    (|_, p| _ = p.load(0x00, 4), "a character is read where none has come"),
    (|_, p| (0..17).for_each(|_| p.store(0x00, 4, 0x78)), "a full transmitter"),
    (|_, p| p.store(0x24, 4, 26), "the divisor changes while the port is on"),
    (|_, p| p.store(0x2c, 4, 0x70), "the line control changes while the port is on"),
    (
        |board, p| {
            p.store(0x00, 4, 0x78);
            board.pass(10_000);
            p.store(0x30, 4, 0);
            p.store(0x2c, 4, 0);
        },
        "changes while a character is sent",
    ),
    (
        |board, p| {
            p.typed(b"x");
            board.pass(10_000);
            p.store(0x30, 4, 0);
            p.store(0x24, 4, 26);
        },
        "changes while a character is received",
    ),
    (|_, p| off(p, 0x24, 0), "UARTIBRD of 0"),
    (|_, p| off(p, 0x28, 64), "UARTFBRD of 64"),
    (|_, p| off(p, 0x2c, 0x78), "no parity, one stop bit"),
    (
        |_, p| {
            off(p, 0x24, 13);
            p.store(0x30, 4, 0x301);
        },
        "the divisor was written and does not count",
    ),
    (
        |_, p| {
            off(p, 0x2c, 0x10);
            p.store(0x30, 4, 0x301);
        },
        "characters of 8 bits",
    ),
    (|_, p| off(p, 0x00, 0x78), "a transmitter that is off"),
    (|_, p| p.store(0x30, 4, 0x101), "UARTCR changes while the port is on"),
    (|_, p| p.store(0x30, 4, 0x381), "loop-back"),
    (|_, p| p.store(0x34, 4, 0x2d), "UARTIFLS of 0x2d"),
    (|_, p| p.store(0x38, 4, 0x800), "UARTIMSC"),
    (|_, p| p.store(0x18, 4, 0), "no register at 0x18 to write"),
    (|_, p| _ = p.load(0x44, 4), "written, not read"),
];

/// Switches it off first.
fn off(port: &Pl011, offset: usize, value: u32) {
    port.store(0x30, 4, 0);
    port.store(offset, 4, value);
}

/// At a port that was set up.
const MISTAKES_AT_THE_MINI_UART: &[Mistake<MiniUart>] = &[
    (|_, p| _ = p.load(0x54, 1), "32-bit registers"),
    (|_, p| p.store(0x04, 4, 1), "the ports beside it are switched"),
    (
        |_, p| {
            p.store(0x04, 4, 0b110);
            p.load(0x54, 4);
        },
        "register 0x54 of a port that is not enabled",
    ),
    (|_, p| _ = p.load(0x40, 4), "a character is read where none has come"),
    (|_, p| (0..10).for_each(|_| p.store(0x40, 4, 0x78)), "a full transmitter"),
    (
        |_, p| {
            p.store(0x60, 4, 0);
            p.store(0x40, 4, 0x78);
        },
        "a transmitter that is off",
    ),
    (
        |_, p| {
            p.store(0x4c, 4, 0x83);
            p.store(0x44, 4, 0);
        },
        "hidden by the baud rate",
    ),
    (|_, p| p.store(0x4c, 4, 1), "8 bits, no break, is 3"),
    (
        |board, p| {
            p.store(0x40, 4, 0x78);
            board.pass(10_000);
            p.store(0x68, 4, 270);
        },
        "the baud rate changes while a character is sent",
    ),
    (
        |board, p| {
            p.typed(b"x");
            board.pass(10_000);
            p.store(0x4c, 4, 3);
        },
        "the line control changes while a character is received",
    ),
    (|_, p| p.store(0x68, 4, 0x1_0000), "it has 16 bits"),
    (|_, p| p.store(0x60, 4, 0x0f), "flow control"),
    (|_, p| p.store(0x48, 4, 8), "AUX_MU_IIR_REG"),
    (|_, p| p.store(0x54, 4, 0), "no register at 0x54"),
];

#[test]
fn every_mistake_is_refused_with_its_reason() {
    for (index, (mistake, words)) in MISTAKES_AT_THE_PL011.iter().enumerate() {
        let port = Pl011::in_use(u64::from(CLOCK), u64::from(BAUD), b"");
        let (board, _, _placed) = pl011_of(&port);
        let said = refusal(|| mistake(&board, &port));
        assert!(said.contains(words), "mistake {index} at the PL011: {words:?}, but {said:?}");
    }
    for (index, (mistake, words)) in MISTAKES_AT_THE_MINI_UART.iter().enumerate() {
        let port = MiniUart::new(u64::from(CORE));
        let (board, registers, _placed) = mini_of(&port);
        registers.start(CORE, BAUD);
        let said = refusal(|| mistake(&board, &port));
        assert!(said.contains(words), "mistake {index} at the mini-UART: {words:?}, but {said:?}");
    }
}
