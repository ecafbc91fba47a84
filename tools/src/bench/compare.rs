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
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Tokens of the prompt where a row does not say otherwise.
const PROMPT: usize = 32;
/// Tokens decoded, cores at work.
const DECODED: usize = 8;
const CORES: usize = 1;
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
    #[serde(default)]
    model: Named,
    format: String,
    cpu: String,
    #[serde(default = "prompt")]
    prompt: usize,
    peer: Phases,
    /// None was set where there is none.
    target: Option<Phases>,
}

fn prompt() -> usize {
    PROMPT
}

impl PeerFigure {
    fn machine(&self) -> Machine {
        if self.cpu == "A76" { Machine::Virt } else { Machine::Raspi4b }
    }

    fn case(&self) -> Case<'_> {
        Case { model: self.model, format: &self.format, prompt: self.prompt }
    }
}

/// A model that is compared.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Named {
    /// The default model, its layers requantized unless they are wanted as they are.
    #[default]
    #[serde(rename = "SmolLM2-135M")]
    SmolLm2,
    /// Gemma 3 270M, as it is.
    #[serde(rename = "Gemma 3 270M")]
    Gemma3,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::SmolLm2 => "SmolLM2-135M",
            Self::Gemma3 => "Gemma 3 270M",
        })
    }
}

/// What is measured on a machine.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The model.
    pub model: Named,
    /// Weight format of its layers.
    pub format: &'a str,
    /// Tokens of the prompt.
    pub prompt: usize,
}

impl<'a> Case<'a> {
    /// The default model in a format, with a prompt of the usual length.
    pub fn smollm2(format: &'a str) -> Self {
        Self { model: Named::SmolLm2, format, prompt: PROMPT }
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
    /// The model.
    pub model: Named,
    /// Weight format of the layers.
    pub format: String,
    /// The CPU: "A72" or "A76".
    pub cpu: String,
    /// Tokens of the prompt.
    pub prompt: usize,
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
    setup::ensure(&[Step::BoardTarget, Step::System, Step::Model, Step::Gemma])?;
    eprintln!("building kernel8.img");
    let kernel = build::kernel()?;
    let rows = peer()?;
    for row in &rows {
        model(row.case())?; // one after the other: the machines read them side by side
    }
    eprintln!("counting: {} machines, {AT_ONCE} at a time, a minute or two", rows.len());
    let measured: Vec<Mutex<Option<Result<Figure>>>> = rows.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let index = rows.iter().position(|other| std::ptr::eq(other, row)).unwrap_or(0);
                    let figure = measure(&kernel.image, row.machine(), row.case());
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
        "Millions of instructions a token, one core, a prompt at once, then {DECODED} tokens decoded:\n"
    );
    print!("{}", table(&rows, &figures));
    if record {
        let path = record_path();
        fs::write(&path, written(&figures)).with_context(|| format!("could not write {}", shown(&path)))?;
        println!("\nrecorded in {}", shown(&path));
    }
    Ok(())
}

/// The model of a case, made from the default model where it is not that.
fn model(case: Case<'_>) -> Result<PathBuf> {
    match (case.model, case.format) {
        (Named::Gemma3, _) => models::named(models::GEMMA)?.fetch(),
        (Named::SmolLm2, "Q4_1") => models::named(models::DEFAULT)?.fetch(),
        (Named::SmolLm2, format) => {
            requantize::cached(&models::named(models::DEFAULT)?.fetch()?, requantize::Choice::named(format)?)
        }
    }
}

/// Counts the instructions of one case on one machine.
pub fn measure(kernel: &Path, machine: Machine, case: Case<'_>) -> Result<Figure> {
    let cpu = if machine == Machine::Virt { "A76" } else { "A72" };
    let what = || format!("{} {} on the {cpu} could not be measured", case.model, case.format);
    let emulator = Emulator::new(machine, kernel).with_initrd(&model(case)?).counting_instructions();
    let mut board = emulator.start()?;
    board.prompt(BOOT).with_context(what)?;
    let answer = board.ask(&format!("bench {} {DECODED} {CORES}", case.prompt), BENCH).with_context(what)?;
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
    let Case { model, format, prompt } = case;
    Ok(Figure { model, format: format.to_owned(), cpu: cpu.to_owned(), prompt, prefill, decode })
}

/// Compares a figure with the recorded one: an error says by how much it is off, and what to do.
pub fn holds(figure: &Figure, recorded: &[Figure]) -> Result<()> {
    let Figure { model, format, cpu, prompt, .. } = figure;
    let key = |figure: &Figure| (figure.model, figure.format.clone(), figure.cpu.clone(), figure.prompt);
    let old = recorded.iter().find(|old| key(old) == key(figure));
    let old = old.with_context(|| {
        format!(
            "no figure of {model} {format} on the {cpu} with {prompt} tokens is recorded: run \
             `cargo embodi bench --compare --record`"
        )
    })?;
    for (phase, new, old) in [("prefill", figure.prefill, old.prefill), ("decode", figure.decode, old.decode)]
    {
        let change = new as f64 / old as f64 - 1.0;
        ensure!(
            new.abs_diff(old) * 100 <= old * TOLERANCE,
            "{phase} of {model} {format} on the {cpu} takes {new} instructions a token, {:+.1} % from the recorded {old}: if \
             that is meant to be, run `cargo embodi bench --compare --record` and commit the record",
            change * 100.0
        );
    }
    Ok(())
}

/// The table: ours, the target, the peer's, and how many times fewer ours are.
fn table(rows: &[PeerFigure], figures: &[Figure]) -> String {
    let mut text = String::from(
        "| model        | weights | CPU | prompt | prefill | target | llama.cpp | ratio | decode | target | llama.cpp | ratio |\n\
         | ------------ | ------- | --- | -----: | ------: | -----: | --------: | ----: | -----: | -----: | --------: | ----: |\n",
    );
    for (row, figure) in rows.iter().zip(figures) {
        text += &format!("| {:12} | {:7} | {:3} | {:6} |", row.model, row.format, row.cpu, row.prompt);
        let target = |phase: fn(Phases) -> f64| {
            row.target.map_or_else(|| "–".into(), |target| format!("≤ {}", phase(target)))
        };
        for (ours, target, peer) in [
            (figure.prefill, target(|phases| phases.prefill), row.peer.prefill),
            (figure.decode, target(|phases| phases.decode), row.peer.decode),
        ] {
            let millions = ours as f64 / 1e6;
            text += &format!(" {millions:7.2} | {target:>6} | {peer:9.1} | {:5.1} |", peer / millions);
        }
        text.push('\n');
    }
    text
}

/// The record as a file.
fn written(figures: &[Figure]) -> String {
    let mut text = String::from(
        "# Instructions a token on one core: a prompt at once, then 8 tokens one by one, counted in QEMU\n\
         # (raspi4b: A72; virt with a cortex-a76: A76). Written by `cargo embodi bench --compare --record`;\n\
         # `cargo embodi test bench` fails when a count is more than 2 % off, either way.\n",
    );
    for Figure { model, format, cpu, prompt, prefill, decode } in figures {
        text += &format!(
            "\n[[figure]]\nmodel = \"{model}\"\nprompt = {prompt}\nformat = \"{format}\"\ncpu = \"{cpu}\"\nprefill = {prefill}\ndecode = {decode}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(prefill: u64, decode: u64) -> Figure {
        Figure {
            model: Named::SmolLm2,
            format: "Q4_1".into(),
            cpu: "A72".into(),
            prompt: PROMPT,
            prefill,
            decode,
        }
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
        assert_eq!(peer.len(), 10);
        let table = table(&peer, &figures);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("|   36.00 |   ≤ 36 |     118.9 |   3.3 |   62.50 |   ≤ 62 |"), "{table}");
    }
}
