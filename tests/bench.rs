//! Instructions a token, counted on emulated boards, against the committed record: a kernel that got slower is seen
//! here, and so is one that got faster without anybody saying so.
//!
//! Counts do not depend on how fast this PC is. Each test is a machine that runs on one thread.

use embodi::bench::compare::{self, Case, Named, holds, recorded};
use embodi::bench::{Row, split_csv};
use embodi::qemu::{Emulator, Machine};
use embodi::{build, models};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

fn kernel() -> PathBuf {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| build::kernel().expect("the kernel builds").image).clone()
}

fn check(case: Case<'_>, machine: Machine) {
    let figure = compare::measure(&kernel(), machine, case).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{figure:?}");
    holds(&figure, &recorded().expect("a record")).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn q4_1_on_a72() {
    check(Case::smollm2("Q4_1"), Machine::Raspi4b);
}

#[test]
fn q4_0_on_a72() {
    check(Case::smollm2("Q4_0"), Machine::Raspi4b);
}

#[test]
fn q8_0_on_a72() {
    check(Case::smollm2("Q8_0"), Machine::Raspi4b);
}

#[test]
fn q4_1_on_a76() {
    check(Case::smollm2("Q4_1"), Machine::Virt);
}

#[test]
fn q4_0_on_a76() {
    check(Case::smollm2("Q4_0"), Machine::Virt);
}

#[test]
fn q8_0_on_a76() {
    check(Case::smollm2("Q8_0"), Machine::Virt);
}

/// The mixture of formats that most files have, as the peer was measured with it.
const MIXTURE: Case<'_> = Case { model: Named::SmolLm2, format: "Q4_K_M", prompt: 16 };
const GEMMA: Case<'_> = Case { model: Named::Gemma3, format: "Q4_K_M", prompt: 32 };

#[test]
fn q4_k_m_on_a72() {
    check(MIXTURE, Machine::Raspi4b);
}

#[test]
fn q4_k_m_on_a76() {
    check(MIXTURE, Machine::Virt);
}

#[test]
fn gemma_3_on_a72() {
    check(GEMMA, Machine::Raspi4b);
}

#[test]
fn gemma_3_on_a76() {
    check(GEMMA, Machine::Virt);
}

/// Bytes of a size as `mem` writes it: "4.5 MiB", "900 KiB".
fn bytes(size: &str) -> f64 {
    let (number, unit) = size.trim().split_once(' ').expect("a number and a unit");
    let unit = match unit {
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        other => panic!("what is a {other}?"),
    };
    number.parse::<f64>().expect("a number") * unit
}

#[test]
fn beyond_weights_and_cache_smollm2_takes_at_most_16_mib_with_2048_tokens() {
    let model = models::named(models::DEFAULT).and_then(|model| model.fetch()).expect("the default model");
    let emulator = Emulator::new(Machine::Raspi4b, &kernel()).with_initrd(&model);
    let mut board = emulator.start().expect("QEMU");
    let minutes = Duration::from_secs(300);
    board.prompt(minutes).expect("a prompt");
    board.ask("set ctx 2048", minutes).expect("a context");
    // An answer, so that what is reserved when it is first needed is there.
    board.ask("set limit 1", minutes).expect("a limit");
    board.ask("hi", minutes).expect("an answer");
    let mem = board.ask("mem", minutes).expect("an answer");
    assert!(mem.contains("for 2048 tokens"), "{mem}");
    let words = "scratch and heap beyond weights, keys and values: ";
    let size = mem.lines().find_map(|line| line.strip_prefix(words)).unwrap_or_else(|| panic!("{mem}"));
    assert!(bytes(size) <= 16.0 * 1024.0 * 1024.0, "{mem}");
}

#[test]
fn on_a_board_bench_counts_what_it_can_and_ends_with_ctrl_c() {
    let model = models::named(models::DEFAULT).and_then(|model| model.fetch()).expect("the default model");
    let minutes = Duration::from_secs(300);
    // Without counting instructions: then this event is not there, and must not be told as 0.
    let mut board = Emulator::new(Machine::Virt, &kernel()).with_initrd(&model).start().expect("QEMU");
    board.prompt(minutes).expect("a prompt");
    let answer = board.ask("bench 4 2 1,4", minutes).expect("a bench");
    let (_, csv) = split_csv(&answer).expect("CSV");
    let rows = Row::all(&csv).expect("rows");
    assert_eq!(rows.len(), 4, "{answer}");
    for row in &rows {
        let number = |heading| row.number(heading).unwrap_or_else(|error| panic!("{error:#}: {answer}"));
        assert_eq!(row.get("digest").ok(), rows[0].get("digest").ok(), "the same bits: {answer}");
        assert_eq!(number("allocations"), Some(0), "{answer}");
        assert_eq!(number("instructions"), None, "{answer}");
        assert!(number("copied_bytes").is_some() && number("cycles") > Some(0), "{answer}");
        assert_eq!(number("barriers") > Some(0), number("cores") == Some(4), "{answer}");
    }
    board.type_line("bench 512 32 1");
    board.expect("cores | prefill/s", minutes).expect("the first case has begun");
    board.send(b"\x03");
    let last = board.prompt(minutes).expect("a prompt");
    assert!(last.ends_with("Stopped.\n"), "{last}");
}
