//! The drivers of both serial ports against strict models of them, with somebody at the other end of the line: every test also
//! proves that nothing was done that silicon would not forgive; see `strict/uart`.

#[path = "strict/board.rs"]
mod board;
#[path = "strict/gic/mod.rs"]
mod gic;
#[path = "uarts/mistakes.rs"]
mod mistakes;
#[path = "strict/uart/mod.rs"]
mod uart;

use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};

use board::{Board, Device, refusal};
use embodios_bsp::drivers::{Serial, mini_uart, pl011, receive, take_lost};
use gic::Gic;
use uart::mini_uart::MiniUart;
use uart::pl011::{Pl011, character};

const BAUD: u32 = 115_200;
const CLOCK: u32 = 48_000_000;
const CORE: u32 = 500_000_000;
/// The two ports' interrupts on a Raspberry Pi 4.
const PL011: u32 = 153;
const MINI: u32 = 125;
const MILLISECOND: u64 = 1_000_000; // ns

/// A port of either kind, as its board and its other end see it.
trait Port: Device + Clone + 'static {
    fn typed(&self, bytes: &[u8]);
    fn sent(&self) -> Vec<u8>;
    fn asks(&self) -> bool;
}

impl Port for Pl011 {
    fn typed(&self, bytes: &[u8]) {
        self.types(bytes, u64::from(BAUD));
    }
    fn sent(&self) -> Vec<u8> {
        self.take_sent(u64::from(BAUD))
    }
    fn asks(&self) -> bool {
        self.interrupts()
    }
}

impl Port for MiniUart {
    fn typed(&self, bytes: &[u8]) {
        self.types(bytes, u64::from(BAUD));
    }
    fn sent(&self) -> Vec<u8> {
        self.take_sent(u64::from(BAUD))
    }
    fn asks(&self) -> bool {
        self.interrupts()
    }
}

/// A board with that port, and its registers.
fn on_board<T>(port: &(impl Device + Clone + 'static)) -> (Board, &'static T, board::Placed) {
    let board = Board::default();
    let registers = board.add(Rc::new(port.clone()));
    let placed = board.put();
    (board, registers, placed)
}

fn pl011_of(port: &Pl011) -> (Board, &'static pl011::Registers, board::Placed) {
    on_board(port)
}

fn mini_of(port: &MiniUart) -> (Board, &'static mini_uart::Registers, board::Placed) {
    on_board(port)
}

/// The count of lost bytes is one for all ports: whoever looks at it is alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Has text typed that is read by interrupts as the firmware reads it, each so late (ns); gives what was read.
fn typed_and_read(
    board: &Board,
    port: &impl Port,
    serial: &dyn Serial,
    number: u32,
    text: &[u8],
    late: u64,
) -> Vec<u8> {
    let model = Gic::after_stub();
    let gic = model.on(board);
    gic.start();
    gic.start_core();
    gic.enable(number);
    serial.notify(true);
    port.typed(text);
    let end = board.nanos() + text.len() as u64 * character(u64::from(BAUD)) + 20 * MILLISECOND;
    let mut read = Vec::new();
    while board.nanos() < end {
        board.pass(5_000);
        model.line(number as usize, port.asks());
        if !model.interrupts(0) {
            continue;
        }
        board.pass(late);
        gic.serve(|taken| {
            receive(serial, usize::MAX, |byte| read.push(byte));
            model.line(number as usize, port.asks());
            taken.number() == number
        });
    }
    assert_eq!(serial.read(), None, "a character waits that nobody is told of");
    read
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 % 251) as u8).collect()
}

#[test]
fn a_pl011_out_of_reset_sends_at_the_speed_asked_for_whatever_its_clock() {
    for clock in [3_000_000, 44_000_000, CLOCK, 50_000_000, 250_000_000] {
        let port = Pl011::new(u64::from(clock));
        let (_, registers, _placed) = pl011_of(&port);
        registers.start(Some((clock, BAUD)));
        assert!(text(100).iter().all(|&byte| registers.write(byte)));
        registers.flush();
        assert_eq!(port.sent(), text(100), "{clock} Hz");
    }
}

#[test]
fn what_a_boot_loader_has_left_in_a_pl011_is_sent_at_its_speed_before_ours_counts() {
    for (baud, left) in
        [9_600, 38_400, 115_200, 921_600].into_iter().flat_map(|baud| [0, 1, 16].map(|left| (baud, left)))
    {
        let port = Pl011::in_use(u64::from(CLOCK), baud, &text(left));
        let (board, registers, _placed) = pl011_of(&port);
        board.pass(1_000); // the first character is on its way
        registers.start(Some((CLOCK, BAUD)));
        assert_eq!(port.take_sent(baud), text(left), "{left} at {baud}");
        assert!(registers.write(b'x'));
        registers.flush();
        assert_eq!(port.sent(), b"x");
    }
}

#[test]
fn a_pl011_of_an_unknown_clock_keeps_the_boot_loaders_speed() {
    let port = Pl011::in_use(44_000_244, u64::from(BAUD), b"BL31");
    let (board, registers, _placed) = pl011_of(&port);
    registers.start_as_left(CLOCK, 9_600); // neither of which is so
    let read = typed_and_read(&board, &port, registers, PL011, &text(300), 0);
    assert!(registers.write(b'x'));
    registers.flush();
    assert_eq!((read, port.sent()), (text(300), b"BL31x".to_vec()));
}

#[test]
fn a_pl011_of_an_uncertain_clock_gets_ours_where_no_boot_loader_has_set_a_speed() {
    // A Raspberry Pi 5's, as its clock was measured, and as TF-A and Circle take it.
    let port = Pl011::new(44_000_244);
    let (board, registers, _placed) = pl011_of(&port);
    registers.start_as_left(44_000_000, BAUD);
    let read = typed_and_read(&board, &port, registers, PL011, &text(300), 0);
    assert!(registers.write(b'x'));
    registers.flush();
    assert_eq!((read, port.sent()), (text(300), b"x".to_vec()));
    // Once set, it is what was left there.
    registers.start_as_left(CLOCK, 9_600);
    assert!(registers.write(b'y'));
    registers.flush();
    assert_eq!(port.sent(), b"y");
}

#[test]
fn a_pl011_is_set_up_while_somebody_types() {
    let _alone = alone(); // what is typed at a port that is being set up may be lost
    for wait in (0..10).map(|step| step * 31_000) {
        let port = Pl011::in_use(u64::from(CLOCK), 9_600, b"");
        let (board, registers, _placed) = pl011_of(&port);
        port.types(b"impatient", 9_600);
        board.pass(wait);
        registers.start(Some((CLOCK, BAUD)));
        board.pass(20 * MILLISECOND);
        while registers.read().is_some() {} // at another speed it is noise
        assert_eq!(typed_and_read(&board, &port, registers, PL011, b"help\r", 0), b"help\r");
    }
}

#[test]
fn a_wedged_pl011_takes_no_more_than_it_holds_and_is_set_up_all_the_same() {
    let port = Pl011::in_use(u64::from(CLOCK), u64::from(BAUD), &text(9));
    port.hold();
    let (board, registers, _placed) = pl011_of(&port);
    registers.start(Some((CLOCK, BAUD)));
    let taken = (0..100).take_while(|_| registers.write(b'x')).count();
    assert_eq!(taken, 16);
    let before = board.nanos();
    registers.flush();
    assert!(board.nanos() - before < 30 * MILLISECOND);
    registers.start(Some((CLOCK, BAUD)));
    assert!(registers.write(b'y'));
}

#[test]
fn every_byte_typed_at_either_port_is_read_if_interrupts_come_within_half_a_fifo() {
    let _alone = alone();
    take_lost();
    let one = character(u64::from(BAUD));
    for late in [0, one, 7 * one] {
        let port = Pl011::new(u64::from(CLOCK));
        let (board, registers, _placed) = pl011_of(&port);
        registers.start(Some((CLOCK, BAUD)));
        assert!(
            typed_and_read(&board, &port, registers, PL011, &text(1_000), late) == text(1_000),
            "{late} ns"
        );
    }
    for late in [0, one, 6 * one] {
        let port = MiniUart::new(u64::from(CORE));
        let (board, registers, _placed) = mini_of(&port);
        registers.start(CORE, BAUD);
        assert!(
            typed_and_read(&board, &port, registers, MINI, &text(1_000), late) == text(1_000),
            "{late} ns"
        );
    }
    assert_eq!(take_lost(), 0);
}

#[test]
fn a_single_key_is_told_of_without_a_second_one() {
    for count in 1..=9 {
        let port = Pl011::new(u64::from(CLOCK));
        let (board, registers, _placed) = pl011_of(&port);
        registers.start(Some((CLOCK, BAUD)));
        assert_eq!(typed_and_read(&board, &port, registers, PL011, &text(count), 0), text(count));
        let port = MiniUart::new(u64::from(CORE));
        let (board, registers, _placed) = mini_of(&port);
        registers.start(CORE, BAUD);
        assert_eq!(typed_and_read(&board, &port, registers, MINI, &text(count), 0), text(count));
    }
}

/// A line whose reader is held up before it ends an interrupt.
struct HeldUp<'a>(&'a pl011::Registers, &'a Board);

impl Serial for HeldUp<'_> {
    fn read(&self) -> Option<u8> {
        self.0.read()
    }
    fn write(&self, byte: u8) -> bool {
        self.0.write(byte)
    }
    fn flush(&self) {
        self.0.flush();
    }
    fn notify(&self, on: bool) {
        self.0.notify(on);
    }
    fn acknowledge(&self) {
        self.1.pass(character(u64::from(BAUD)) * 83 / 10);
        self.0.acknowledge();
    }
}

#[test]
fn half_a_fifo_that_comes_while_an_interrupt_is_ended_is_not_forgotten() {
    let _alone = alone();
    take_lost();
    let port = Pl011::new(u64::from(CLOCK));
    let (board, registers, _placed) = pl011_of(&port);
    registers.start(Some((CLOCK, BAUD)));
    let line = HeldUp(registers, &board);
    assert!(typed_and_read(&board, &port, &line, PL011, &text(1_000), 0) == text(1_000));
    assert_eq!(take_lost(), 0);
}

#[test]
fn what_a_receiver_drops_is_counted_and_the_rest_is_right() {
    let _alone = alone();
    let late = 40 * character(u64::from(BAUD));
    let port = Pl011::new(u64::from(CLOCK));
    let (board, registers, _placed) = pl011_of(&port);
    registers.start(Some((CLOCK, BAUD)));
    take_lost();
    let read = typed_and_read(&board, &port, registers, PL011, &text(200), late);
    assert!(read.len() < 200 && read[..16] == text(16), "{read:?}");
    assert!(take_lost() > 0);
    let port = MiniUart::new(u64::from(CORE));
    let (board, registers, _placed) = mini_of(&port);
    registers.start(CORE, BAUD);
    let read = typed_and_read(&board, &port, registers, MINI, &text(200), late);
    assert!(read.len() < 200 && read[..8] == text(8), "{read:?}");
    assert!(take_lost() > 0);
    // Counted also where it is the transmitter that somebody looks at.
    port.typed(&text(20));
    board.pass(20 * character(u64::from(BAUD)) + MILLISECOND);
    assert!(registers.write(b'x'));
    assert_eq!(std::iter::from_fn(|| registers.read()).count(), 8);
    assert!(take_lost() > 0);
}

#[test]
fn a_break_and_noise_are_no_keys() {
    let _alone = alone();
    let port = Pl011::new(u64::from(CLOCK));
    let (board, registers, _placed) = pl011_of(&port);
    registers.start(Some((CLOCK, BAUD)));
    port.breaks();
    port.types(b"at another speed", 9_600);
    board.pass(40 * MILLISECOND);
    assert_eq!(typed_and_read(&board, &port, registers, PL011, b"ok", 0), b"ok");
}

#[test]
fn what_a_boot_loader_has_left_in_a_mini_uart_is_sent_before_it_is_set_up() {
    let _alone = alone(); // what is typed at a port that is being set up may be lost
    for (baud, left) in [9_600, 115_200].into_iter().flat_map(|baud| [0, 1, 8].map(|left| (baud, left))) {
        let port = MiniUart::in_use(u64::from(CORE), baud, &text(left));
        let (board, registers, _placed) = mini_of(&port);
        port.types(b"impatient", baud);
        board.pass(1_000);
        registers.start(CORE, BAUD);
        assert_eq!(port.take_sent(baud), text(left), "{left} at {baud}");
        board.pass(20 * MILLISECOND);
        while registers.read().is_some() {}
        assert!(registers.write(b'x'));
        registers.flush();
        assert_eq!(port.sent(), b"x");
        assert_eq!(typed_and_read(&board, &port, registers, MINI, b"help\r", 0), b"help\r");
    }
}

#[test]
fn the_mini_uart_keeps_its_speed_when_the_core_clock_moves() {
    let port = MiniUart::new(200_000_000);
    let (board, registers, _placed) = mini_of(&port);
    registers.start(200_000_000, BAUD);
    for hz in [500_000_000_u32, 250_000_000, 600_000_000] {
        assert!(text(8).iter().all(|&byte| registers.write(byte)));
        registers.flush();
        port.set_core_clock(u64::from(hz));
        registers.set_clock(hz, BAUD);
        assert_eq!(port.sent(), text(8));
        assert_eq!(typed_and_read(&board, &port, registers, MINI, &text(20), 0), text(20), "{hz}");
    }
}

#[test]
fn a_character_that_the_mini_uart_still_sends_is_not_cut_by_a_new_speed() {
    let port = MiniUart::new(u64::from(CORE));
    let (_, registers, _placed) = mini_of(&port);
    registers.start(CORE, BAUD);
    assert!(text(5).iter().all(|&byte| registers.write(byte)));
    registers.set_clock(CORE, BAUD);
    assert_eq!(port.sent(), text(5));
}

#[test]
fn a_wedged_mini_uart_takes_no_more_than_it_holds() {
    let port = MiniUart::in_use(u64::from(CORE), u64::from(BAUD), &text(3));
    port.hold();
    let (_, registers, _placed) = mini_of(&port);
    registers.start(CORE, BAUD);
    assert_eq!((0..100).take_while(|_| registers.write(b'x')).count(), 8);
}

#[test]
fn what_is_wrong_without_a_word_from_silicon_shows_at_the_other_end() {
    // Without the interrupt of a receiver left alone, a key waits for seven more.
    let port = Pl011::in_use(u64::from(CLOCK), u64::from(BAUD), b"");
    let (board, _, _placed) = pl011_of(&port);
    port.store(0x38, 4, 1 << 4);
    port.typed(b"x");
    board.pass(10 * MILLISECOND);
    assert!(!port.asks() && port.waiting() == 1);
    port.typed(b"1234567");
    board.pass(10 * MILLISECOND);
    assert!(port.asks());
    // Cleared and not read, a receiver says no more.
    port.store(0x44, 4, 1 << 4);
    assert!(!port.asks());
    // A divisor of another clock: the other end reads noise.
    let port = Pl011::in_use(u64::from(CLOCK), 600_000, b"x");
    let (board, _, _placed) = pl011_of(&port);
    board.pass(MILLISECOND);
    assert!(refusal(|| _ = port.sent()).contains("bits of"));
    // Without its two undocumented bits a mini-UART does not interrupt.
    let port = MiniUart::new(u64::from(CORE));
    let (board, registers, _placed) = mini_of(&port);
    registers.start(CORE, BAUD);
    port.store(0x44, 4, 1);
    port.typed(b"x");
    board.pass(MILLISECOND);
    assert!(!port.asks());
    port.store(0x44, 4, 0b1101);
    assert!(port.asks());
}
