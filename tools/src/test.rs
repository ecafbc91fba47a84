//! `test`: every test there is, and one line at the end that says how it went.

use crate::project::{BOARD_TARGET, Toolchain, answers, execute, words};
use crate::setup::{self, Step};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// CPUs under which the NEON tests run: a Pi 4's, and a Pi 5's, which has the dot product instructions.
const CPUS: [&str; 2] = ["cortex-a72", "cortex-a76"];

/// This package in the profile it was built in: what it depends on need not be built twice.
const THIS_TOOL: [&str; 4] = ["--package", "embodi", "--profile", "tool"];

/// Run every test: host, NEON under emulation, the firmware in an emulated Pi 4, formatting and lints.
///
/// Sets up what is missing first. The last lines say what was skipped and why, and `N passed, N failed`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this part
    #[arg(value_enum)]
    part: Option<Part>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Formatting and lints, for this PC and for the board; skipped where the tools can't be had
    Lint,
    /// Everything that runs on this PC
    Host,
    /// The engine under qemu-aarch64, without and with dot product instructions
    Neon,
    /// The image in QEMU's raspi4b, driven over its serial line
    Boot,
    /// Instructions a token, held to the recorded ones
    Bench,
    /// The kernels' machine code in the image: how it loads, what it spills
    Code,
    /// A model of more than 4 GiB, from the card to its end: a quarter of an hour, 14 GB of disk, 12 GB of memory; only
    /// if it is asked for
    Large,
}

impl Part {
    /// What every run has.
    const USUAL: [Self; 6] = [Self::Lint, Self::Host, Self::Neon, Self::Boot, Self::Bench, Self::Code];

    fn needs(self) -> &'static [Step] {
        match self {
            Self::Lint | Self::Code => &[Step::BoardTarget],
            Self::Host => &[Step::Model, Step::Gemma, Step::Reference, Step::BootFiles, Step::CardTools],
            Self::Neon => &[Step::TestTarget, Step::User, Step::Model],
            Self::Boot => {
                &[Step::BoardTarget, Step::System, Step::Model, Step::Gemma, Step::BootFiles, Step::CardTools]
            }
            Self::Bench => &[Step::BoardTarget, Step::System, Step::Model, Step::Gemma],
            Self::Large => &[Step::BoardTarget, Step::System],
        }
    }
}

/// Carries out `test`.
pub fn run(args: &Args) -> Result<()> {
    let parts = args.part.map_or_else(|| Part::USUAL.to_vec(), |only| vec![only]);
    // All of the set-up first: what is missing shows before half an hour of tests.
    let mut summary = Vec::new();
    for step in Step::ALL {
        if parts.iter().any(|part| part.needs().contains(&step))
            && let Err(error) = setup::ensure(&[step])
        {
            if !step.is_optional() {
                return Err(error);
            }
            summary.push(format!("skipped, for want of it: {error:#}"));
        }
    }
    let filter = args.filter.as_deref();
    let mut total = Tally::default();
    for part in parts {
        for (title, tally, seconds) in carry_out(part, filter)? {
            summary.push(format!("{title:28} {tally}  ({seconds} s)"));
            total.add(tally);
        }
    }
    println!();
    summary.iter().for_each(|line| println!("{line}"));
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    told_skips(&skipped).iter().for_each(|line| println!("{line}"));
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("not all tests passed");
    }
    Ok(())
}

type Outcome = (String, Tally, u64);

fn carry_out(part: Part, filter: Option<&str>) -> Result<Vec<Outcome>> {
    match part {
        Part::Lint => lint(),
        Part::Host => {
            // The firmware's tests need a board and are a part of their own.
            let all = ["--workspace", "--exclude", "embodi", "--lib", "--tests"];
            let tool = [&THIS_TOOL[..], &["--lib"]].concat();
            Ok(vec![
                timed("host", || cargo_test(Toolchain::Current.cargo(), &all, filter, &[])),
                timed("host, this tool", || cargo_test(Toolchain::Current.cargo(), &tool, filter, &[])),
            ])
        }
        Part::Neon => {
            let (toolchain, target) =
                Toolchain::for_tests().context("no Rust target for tests: run `cargo embodi setup`")?;
            let variable = format!("CARGO_TARGET_{}", target.to_uppercase().replace('-', "_"));
            let under = |cpu: &str| {
                let mut cargo = toolchain.cargo();
                cargo.env(format!("{variable}_RUNNER"), format!("qemu-aarch64 -cpu {cpu}"));
                if toolchain == Toolchain::Debian {
                    cargo.env(format!("{variable}_LINKER"), "aarch64-linux-gnu-gcc");
                }
                // Not everything: an emulated CPU is some ten times slower.
                let chosen = [
                    "--package",
                    "embodios",
                    "--target",
                    target,
                    "--lib",
                    "--test",
                    "kernels",
                    "--test",
                    "same_bits",
                ];
                cargo_test(cargo, &chosen, filter, &[])
            };
            Ok(CPUS.map(|cpu| timed(&format!("NEON, {cpu}"), || under(cpu))).into())
        }
        Part::Bench => {
            let chosen = [&THIS_TOOL[..], &["--test", "bench"]].concat();
            // A machine that counts instructions runs on one thread.
            let threads = ["--test-threads", "2"];
            Ok(vec![timed("instructions a token", || {
                cargo_test(Toolchain::Current.cargo(), &chosen, filter, &threads)
            })])
        }
        Part::Code => {
            let chosen = [&THIS_TOOL[..], &["--test", "disassembly"]].concat();
            Ok(vec![timed("kernels' machine code", || {
                cargo_test(Toolchain::Current.cargo(), &chosen, filter, &[])
            })])
        }
        Part::Large => {
            let chosen = [&THIS_TOOL[..], &["--test", "boot"]].concat();
            Ok(vec![timed("firmware, a large model", || {
                cargo_test(Toolchain::Current.cargo(), &chosen, filter, &["--ignored"])
            })])
        }
        Part::Boot => {
            let chosen = [&THIS_TOOL[..], &["--test", "boot"]].concat();
            // Each test is a machine of four cores: two at a time keep two real ones busy.
            let threads = ["--test-threads", "2"];
            Ok(vec![timed("firmware, raspi4b", || {
                cargo_test(Toolchain::Current.cargo(), &chosen, filter, &threads)
            })])
        }
    }
}

fn timed(title: &str, work: impl FnOnce() -> Tally) -> Outcome {
    println!("\n── {title} ──");
    let start = Instant::now();
    let tally = work();
    (title.to_owned(), tally, start.elapsed().as_secs())
}

/// Formatting, and clippy for both machines. One test each.
fn lint() -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut one = |title: &str, component: &str, arguments: &[&str]| {
        let tool = if component == "rustfmt" { "fmt" } else { component };
        let has = || {
            Toolchain::Current
                .cargo()
                .args([tool, "--version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
        };
        let is_there = has().is_ok_and(|status| status.success())
            || (answers("rustup", &["component", "add", component])
                && has().is_ok_and(|status| status.success()));
        if is_there {
            let check = || match execute(Toolchain::Current.cargo().args(arguments)) {
                Ok(()) => Tally { passed: 1, failed: 0 },
                Err(error) => {
                    println!("{error:#}");
                    Tally { passed: 0, failed: 1 }
                }
            };
            outcomes.push(timed(title, check));
        } else {
            println!("\n── {title} ── skipped");
            skip(&format!("{SKIP}{title}: rustup can't add {component} here"));
        }
    };
    one("formatting", "rustfmt", &["fmt", "--all", "--check"]);
    one("lints", "clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    if Toolchain::Current.has_core(BOARD_TARGET) {
        let packages = [
            "clippy",
            "--package",
            "embodios",
            "--package",
            "embodios-bsp",
            "--package",
            "embodios-firmware",
        ];
        let arguments = [&packages[..], &["--target", BOARD_TARGET, "--", "-D", "warnings"]].concat();
        one("lints, as for the board", "clippy", &arguments);
    }
    Ok(outcomes)
}

/// How a line on standard error begins by which a test says that it was not done, or a part of it: then a name, a colon and
/// why. The harness, which shows nothing of a test that passes, counts it as passed.
const SKIP: &str = "SKIPPED ";

/// What was skipped, in the words of the tests.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a line, if it is one about a test that was skipped.
fn skip(line: &str) {
    if let Some(words) = line.strip_prefix(SKIP) {
        SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).push(words.to_owned());
    }
}

/// How many were skipped, and why: a line a reason.
fn told_skips(skipped: &[String]) -> Vec<String> {
    if skipped.is_empty() {
        return Vec::new();
    }
    let mut lines =
        vec![format!("skipped, and counted as passed: {} tests or parts of tests", skipped.len())];
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for words in skipped {
        let (name, why) = words.split_once(": ").unwrap_or((words, "it does not say why"));
        match reasons.iter_mut().find(|(other, _)| *other == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    lines.extend(reasons.iter().map(|(why, names)| format!("  {why}: {}", names.join(", "))));
    lines
}

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// What one line of a test program's output adds: "test result: ok. 3 passed; 0 failed; …".
    fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let part = counts.split(';').map(str::trim).find_map(|part| part.strip_suffix(what))?;
            part.trim().parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")? })
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5} passed, {} failed", self.passed, self.failed)
    }
}

/// Runs `cargo test`, passing its output on. What did not build or crashed counts as one failure.
fn cargo_test(mut cargo: Command, arguments: &[&str], filter: Option<&str>, harness: &[&str]) -> Tally {
    cargo.arg("test").args(arguments).arg("--no-fail-fast");
    if std::io::stdout().is_terminal() {
        cargo.args(["--color", "always"]);
    }
    cargo.args(filter).arg("--").args(harness);
    match count(&mut cargo) {
        Ok((tally, true)) => tally,
        Ok((tally, false)) => {
            println!("`{}` failed", words(&cargo));
            Tally { failed: tally.failed.max(1), ..tally }
        }
        Err(error) => {
            println!("{error:#}");
            Tally { passed: 0, failed: 1 }
        }
    }
}

fn count(cargo: &mut Command) -> Result<(Tally, bool)> {
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` could not be started", words(cargo)))?;
    let errors = child.stderr.take().context("cargo has no standard error")?;
    let errors = thread::spawn(move || pass_on(errors, std::io::stderr()));
    let mut tally = Tally::default();
    let mut out = std::io::stdout();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).split(b'\n') {
        let line = line?;
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        if let Some(found) = Tally::of_line(&without_colour(&String::from_utf8_lossy(&line))) {
            tally.add(found);
        }
    }
    let success = child.wait()?.success();
    let _ = errors.join(); // it does not panic
    Ok((tally, success))
}

/// Writes line by line what comes, and keeps what was skipped.
fn pass_on(from: impl Read, mut to: impl Write) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        skip(&String::from_utf8_lossy(&line));
        let _ = to.write_all(&[&line[..], b"\n"].concat()); // whoever has closed it does not want it
    }
}

fn without_colour(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split("\x1b[");
    plain.push_str(parts.next().unwrap_or(""));
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, text)| text));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_with_and_without_colour() {
        let plain =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(Tally::of_line(plain), Some(Tally { passed: 12, failed: 0 }));
        let red = "test result: \x1b[31mFAILED\x1b[0m. 3 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(Tally::of_line(&without_colour(red)), Some(Tally { passed: 3, failed: 2 }));
        assert_eq!(Tally::of_line("test a::result: ok. 3 passed; 2 failed"), None);
    }

    #[test]
    fn what_was_skipped_is_counted_and_told_by_reason() {
        assert_eq!(told_skips(&[]), [""; 0]);
        let skipped = ["a card: no mdir", "a tree: not fetched: try again", "another card: no mdir", "mute"];
        assert_eq!(
            told_skips(&skipped.map(String::from)),
            [
                "skipped, and counted as passed: 4 tests or parts of tests",
                "  no mdir: a card, another card",
                "  not fetched: try again: a tree",
                "  it does not say why: mute",
            ]
        );
    }

    #[test]
    fn a_test_that_says_it_was_skipped_is_heard_between_the_compilers_lines() {
        let said = "   Compiling x\nSKIPPED here: a reason of this test\nSKIPPEDnot: this\n";
        let mut passed_on = Vec::new();
        pass_on(said.as_bytes(), &mut passed_on);
        assert_eq!(String::from_utf8(passed_on).unwrap(), said);
        let skipped = SKIPPED.lock().unwrap();
        assert_eq!(*skipped, ["here: a reason of this test"]);
    }
}
