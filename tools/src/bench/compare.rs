//! `bench --compare`: instructions a token, ours beside the peer's.
//!
//! Instructions are what can be counted exactly without a board: QEMU's machines count one a nanosecond with
//! `-icount shift=0`, and the firmware reads them from core 0's performance monitor (INST_RETIRED) around prefill and
//! decode. The same image and model give the same count on every PC.

use super::{Row, split_csv};
use crate::project::{self, shown};
use crate::qemu::{Emulator, Machine};
use crate::setup::{self, Step};
use crate::{build, models, requantize};
use anyhow::{Context, Result, ensure};
use embodios::quant;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Tokens of the prompt, tokens decoded, cores at work.
const CASE: [usize; 3] = [32, 8, 1];
/// Boot, load and rearrange a model while instructions are counted.
const BOOT: Duration = Duration::from_secs(300);
/// The bench itself.
const BENCH: Duration = Duration::from_secs(600);
/// Machines that run at once: each takes one of the PC's cores.
const AT_ONCE: usize = 2;

/// How far a figure may be from the recorded one, either way, in percent.
const TOLERANCE: u64 = 2;

/// The peer's figures and the targets.
const PEER: &str = include_str!("../../data/peer.toml");

/// Where our own figures are recorded.
fn record_path() -> PathBuf {
    project::root().join("tests/data/instructions.toml")
}

/// Instructions of a phase, a token.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct Phases {
    /// Of a token of the prompt.
    pub prefill: f64,
    /// Of a decoded token.
    pub decode: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    figure: Vec<PeerFigure>,
}

/// A row of the table, in millions of instructions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerFigure {
    format: String,
    cpu: String,
    peer: Phases,
    target: Phases,
}

impl PeerFigure {
    fn machine(&self) -> Machine {
        if self.cpu == "A76" { Machine::Virt } else { Machine::Raspi4b }
    }
}

fn peer() -> Result<Vec<PeerFigure>> {
    Ok(toml::from_str::<Peer>(PEER).context("tools/data/peer.toml is not right")?.figure)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    figure: Vec<Figure>,
}

/// A figure of ours: whole instructions a token.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Weight format of the layers.
    pub format: String,
    /// The CPU: "A72" or "A76".
    pub cpu: String,
    /// Instructions of a token of the prompt.
    pub prefill: u64,
    /// Instructions of a decoded token.
    pub decode: u64,
}

/// The recorded figures.
pub fn recorded() -> Result<Vec<Figure>> {
    let path = record_path();
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", shown(&path)))?;
    Ok(toml::from_str::<Record>(&text).with_context(|| format!("{} is not right", shown(&path)))?.figure)
}

/// Measures all, prints the table; with `record`, makes it the record.
pub fn run(record: bool) -> Result<()> {
    setup::ensure(&[Step::BoardTarget, Step::System, Step::Model])?;
    eprintln!("building kernel8.img");
    let kernel = build::kernel()?;
    let rows = peer()?;
    let formats = ["Q4_1", "Q4_0", "Q8_0"].map(model);
    for made in formats {
        made?; // one after the other: the machines read them side by side
    }
    eprintln!("counting: {} machines, {AT_ONCE} at a time, a minute or two", rows.len());
    let measured: Vec<Mutex<Option<Result<Figure>>>> = rows.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let index = rows.iter().position(|other| std::ptr::eq(other, row)).unwrap_or(0);
                    let figure = measure(&kernel.image, row.machine(), &row.format);
                    *measured[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(figure);
                }
            });
        }
    });
    let figures: Vec<Figure> = measured
        .into_iter()
        .map(|slot| slot.into_inner().ok().flatten().context("a measurement ended without a result")?)
        .collect::<Result<_>>()?;
    println!(
        "Millions of instructions a token, SmolLM2-135M, one core, a prompt of 32 tokens, then 8 decoded:\n"
    );
    print!("{}", table(&rows, &figures));
    if record {
        let path = record_path();
        fs::write(&path, written(&figures)).with_context(|| format!("could not write {}", shown(&path)))?;
        println!("\nrecorded in {}", shown(&path));
    }
    Ok(())
}

/// The model with its layers in this format, made from the default model unless it is that.
fn model(format: &str) -> Result<PathBuf> {
    let given = models::named(models::DEFAULT)?.fetch()?;
    if format == "Q4_1" {
        return Ok(given);
    }
    requantize::cached(
        &given,
        quant::by_name(format).with_context(|| format!("there is no format {format}"))?,
    )
}

/// Counts the instructions of one model on one machine.
pub fn measure(kernel: &Path, machine: Machine, format: &str) -> Result<Figure> {
    let cpu = if machine == Machine::Virt { "A76" } else { "A72" };
    let what = || format!("{format} on the {cpu} could not be measured");
    let emulator = Emulator::new(machine, kernel).with_initrd(&model(format)?).counting_instructions();
    let mut board = emulator.start()?;
    board.prompt(BOOT).with_context(what)?;
    let [prompt, decode, cores] = CASE;
    let answer = board.ask(&format!("bench {prompt} {decode} {cores}"), BENCH).with_context(what)?;
    let (_, csv) = split_csv(&answer).with_context(what)?;
    let rows = Row::all(&csv)?;
    let phase = |name: &str| {
        let row = rows.iter().find(|row| row.get("phase").is_ok_and(|phase| phase == name));
        let row = row.with_context(|| format!("the board measured no {name}"))?;
        let (tokens, count) = (row.number("tokens")?, row.number("instructions")?);
        let count = count.context(
            "this QEMU counts no instructions: it takes one whose machines raspi4b and virt know `-icount` \
             (version 9 or later, with TCG): run `cargo embodi setup`",
        )?;
        for (heading, why) in [("allocations", "asked for memory"), ("interrupts", "took interrupts")] {
            let count = row.number(heading)?;
            ensure!(count.is_none_or(|count| count == 0), "{name} {why}: {}", count.unwrap_or_default());
        }
        Ok(count.div_ceil(tokens.unwrap_or(1).max(1)))
    };
    let (prefill, decode) = (phase("prefill").with_context(what)?, phase("decode").with_context(what)?);
    Ok(Figure { format: format.to_owned(), cpu: cpu.to_owned(), prefill, decode })
}

/// Compares a figure with the recorded one: an error says by how much it is off, and what to do.
pub fn holds(figure: &Figure, recorded: &[Figure]) -> Result<()> {
    let Figure { format, cpu, .. } = figure;
    let old = recorded.iter().find(|old| (&old.format, &old.cpu) == (format, cpu));
    let old = old.with_context(|| {
        format!("no figure of {format} on the {cpu} is recorded: run `cargo embodi bench --compare --record`")
    })?;
    for (phase, new, old) in [("prefill", figure.prefill, old.prefill), ("decode", figure.decode, old.decode)]
    {
        let change = new as f64 / old as f64 - 1.0;
        ensure!(
            new.abs_diff(old) * 100 <= old * TOLERANCE,
            "{phase} of {format} on the {cpu} takes {new} instructions a token, {:+.1} % from the recorded {old}: if \
             that is meant to be, run `cargo embodi bench --compare --record` and commit the record",
            change * 100.0
        );
    }
    Ok(())
}

/// The table: ours, the target, the peer's, and how many times fewer ours are.
fn table(rows: &[PeerFigure], figures: &[Figure]) -> String {
    let mut text = String::from(
        "| weights | CPU | prefill | target | llama.cpp | ratio | decode | target | llama.cpp | ratio |\n\
         | ------- | --- | ------: | -----: | --------: | ----: | -----: | -----: | --------: | ----: |\n",
    );
    for (row, figure) in rows.iter().zip(figures) {
        text += &format!("| {:7} | {:3} |", row.format, row.cpu);
        for (ours, target, peer) in [
            (figure.prefill, row.target.prefill, row.peer.prefill),
            (figure.decode, row.target.decode, row.peer.decode),
        ] {
            let millions = ours as f64 / 1e6;
            text += &format!(
                " {millions:7.2} | {:>6} | {peer:9.1} | {:5.1} |",
                format!("≤ {target}"),
                peer / millions
            );
        }
        text.push('\n');
    }
    text
}

/// The record as a file.
fn written(figures: &[Figure]) -> String {
    let mut text = String::from(
        "# Instructions a token on one core: SmolLM2-135M, a prompt of 32 tokens at once, then 8 one by one, counted in QEMU\n\
         # (raspi4b: A72; virt with a cortex-a76: A76). Written by `cargo embodi bench --compare --record`;\n\
         # `cargo embodi test bench` fails when a count is more than 2 % off, either way.\n",
    );
    for Figure { format, cpu, prefill, decode } in figures {
        text += &format!(
            "\n[[figure]]\nformat = \"{format}\"\ncpu = \"{cpu}\"\nprefill = {prefill}\ndecode = {decode}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(prefill: u64, decode: u64) -> Figure {
        Figure { format: "Q4_1".into(), cpu: "A72".into(), prefill, decode }
    }

    #[test]
    fn a_figure_may_be_two_percent_off_either_way_and_no_more() {
        let old = [figure(1000, 5000)];
        for (prefill, decode, good) in [
            (1000, 5000, true),
            (1020, 4900, true),
            (1021, 5000, false),
            (979, 5000, false),
            (1000, 5101, false),
            (1000, 4899, false),
        ] {
            let result = holds(&figure(prefill, decode), &old);
            assert_eq!(result.is_ok(), good, "{prefill} {decode}: {result:?}");
        }
        let error = holds(&figure(1100, 5000), &old).unwrap_err().to_string();
        assert!(error.contains("+10.0 %") && error.contains("--record"), "{error}");
        assert!(holds(&figure(1, 1), &[]).unwrap_err().to_string().contains("--record"));
    }

    #[test]
    fn what_is_recorded_is_what_is_read_and_every_row_of_the_table_has_a_peer() {
        let figures = [figure(36_000_000, 62_500_000)];
        assert_eq!(toml::from_str::<Record>(&written(&figures)).unwrap().figure, figures);
        let peer = peer().unwrap();
        assert_eq!(peer.len(), 6);
        let table = table(&peer, &figures);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("|   36.00 |   ≤ 36 |     118.9 |   3.3 |   62.50 |   ≤ 62 |"), "{table}");
    }
}
