//! `selftest` on emulated boards.

use super::*;

/// The lines of the report, without those that say where it begins and ends.
#[track_caller]
fn report(rig: &mut Rig) -> Vec<String> {
    let answer = rig.ask("selftest 32");
    let lines: Vec<String> = answer.lines().map(|line| line.trim_end().to_owned()).collect();
    let at = |words: &str| {
        let found = lines.iter().position(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("no line {words:?}. The console:\n{}", rig.board.transcript()))
    };
    lines[at("paste from here") + 1..at("to here")].to_vec()
}

#[track_caller]
fn has(report: &[String], words: &str) {
    assert!(report.iter().any(|line| line.starts_with(words)), "{words:?} is missing: {report:#?}");
}

#[test]
fn selftest_finds_nothing_wrong_with_an_emulated_pi_4_and_its_card() {
    let mut rig = Rig::boot(&tiny_card(), "");
    rig.prompt();
    let lines = report(&mut rig);
    has(&lines, "board        Raspberry Pi 4 Model B, revision b03115, firmware 0x548e1");
    has(&lines, "cpu          4 x Cortex-A72, level neon");
    has(&lines, "temperature  25.0 C, throttle bits 0x0");
    has(&lines, "cores        ok: 4 answered, MIDR 0x410fd083, one clock of ");
    has(&lines, "timer        ok: ");
    has(&lines, "interrupts   ok: wake-ups reach 4 cores, the timer's core 0");
    has(&lines, &format!("kernels      ok: {} formats at plain and neon on 4 cores, ", quant::FORMATS.len()));
    has(&lines, "memory       ok: 32 MiB in 4 pieces, 4 patterns by 4 cores, ");
    has(&lines, "card         ok: first MiB read twice, the same, ");
    has(&lines, "summary      nothing failed; 6 ok, 0 not done, of 6");
    let status = rig.answers("status", "temperature  25.0 C");
    rig.holds(&status, "power        good");
    // The model is still there, and so is the memory.
    rig.answers("hello", "prefill");
    let free = |rig: &mut Rig| rig.answers("mem", "free for a model: ");
    let before = free(&mut rig);
    report(&mut rig);
    let line = |text: &str| text.lines().find(|line| line.contains("free for a model")).map(str::to_owned);
    assert_eq!(line(&before), line(&free(&mut rig)));
}

#[test]
fn selftest_on_virt_has_the_dot_product_level_and_says_what_that_board_lacks() {
    let mut rig = Rig::with_model(Machine::Virt, &tiny("Q4_0"), |emulator| emulator);
    rig.prompt();
    let lines = report(&mut rig);
    has(&lines, "board        QEMU virt");
    has(&lines, "cores        ok: 4 answered, MIDR 0x414fd0b1, ");
    has(&lines, "timer        not done: this board has no second clock");
    has(
        &lines,
        &format!(
            "kernels      ok: {} formats at plain and neon and dotprod on 4 cores",
            quant::FORMATS.len()
        ),
    );
    has(&lines, "card         not done: this board has no card slot");
    has(&lines, "summary      nothing failed; 4 ok, 2 not done, of 6");
}

#[test]
fn selftest_without_a_card_fails_for_that_reason_alone() {
    let mut rig = Rig::boot_with(None, |machine| machine);
    rig.prompt();
    let lines = report(&mut rig);
    has(&lines, "card         failed: no SD card answers");
    has(&lines, "summary      FAILED: card; 5 ok, 0 not done, of 6");
}
