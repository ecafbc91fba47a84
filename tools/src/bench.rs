//! `bench`: how fast this PC, an emulated CPU or an emulated board runs a model, and what that costs.

mod board;
pub mod compare;
mod emulate;

use crate::host::{self, Engine, Threads};
use crate::models;
use crate::qemu::Machine;
use anyhow::{Context, Result, bail, ensure};
use embodios::KvFormat;
use embodios::bench::{Case, Meters, NoMeters, Plan, Report};
use embodios::{SessionError, bench};
use std::fs;
use std::path::{Path, PathBuf};

/// Measure how fast a model runs, and what that costs: on this PC, an emulated CPU or an emulated board.
///
/// What it prints is Markdown. On a board the same is the command `bench` at the prompt.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    #[arg(long, short, value_name = "NAME|PATH", default_value = models::DEFAULT)]
    model: String,
    /// Tokens of the prompt; several with commas [default: what tells most in about a minute]
    #[arg(long, value_name = "N,N…", value_delimiter = ',')]
    prompt: Vec<usize>,
    /// Tokens to decode after it; several with commas [default: 32]
    #[arg(long, value_name = "N,N…", value_delimiter = ',')]
    decode: Vec<usize>,
    /// Threads or cores at work; several with commas [default: all]
    #[arg(long, value_name = "N,N…", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Instructions to use: plain, neon … [default: the best this CPU has]
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Write every figure as CSV, too
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Run on an emulated CPU (qemu-aarch64): shows that it computes the same bits, and no times
    #[arg(long, value_enum, value_name = "CPU", conflicts_with = "machine")]
    emulate: Option<emulate::Cpu>,
    /// Boot kernel8.img in an emulated board and run `bench` there: its times are the emulator's
    #[arg(long, visible_alias = "board", value_enum, value_name = "MACHINE")]
    machine: Option<Machine>,
    /// Count instructions a token of three weight formats on two CPUs, beside llama.cpp's and the targets
    #[arg(
        long,
        conflicts_with_all = ["emulate", "machine", "prompt", "decode", "threads", "level", "csv", "model"]
    )]
    compare: bool,
    /// With --compare: make these figures the record that `cargo embodi test bench` holds later ones to
    #[arg(long, requires = "compare")]
    record: bool,
    /// Leave out times: for the program that --emulate runs
    #[arg(long, hide = true)]
    without_times: bool,
}

/// Carries out `bench`.
pub fn run(args: &Args) -> Result<()> {
    if args.compare {
        return compare::run(args.record);
    }
    let csv = match (args.machine, args.emulate) {
        (Some(machine), _) => board::run(args, machine)?,
        (_, Some(cpu)) => emulate::run(args, cpu)?,
        (None, None) => here(args)?,
    };
    if let Some(path) = &args.csv {
        fs::write(path, csv).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

/// On this machine's CPU. Gives the CSV.
fn here(args: &Args) -> Result<String> {
    host::catch_interrupts()?;
    let width = args.threads.iter().copied().max().unwrap_or_else(host::cores);
    let threads = u16::try_from(width).context("so many threads can't be started")?;
    let engine = Engine {
        model: args.model.clone(),
        threads: Some(threads),
        level: args.level.clone(),
        kv: KvFormat::F16,
    };
    let (model, threads) = engine.load()?;
    let context = model.spec().context;
    let plan = match args.lengths(width) {
        None => Plan::standard(width, context),
        Some((prompts, decodes, cores)) => {
            Plan::of(&prompts, &decodes, &cores, width, context).map_err(host::said)?
        }
    };
    println!("{}, level {}, {width} threads at most\n", emulate::this_cpu(), model.level());
    let report = threads.with(|runtime| {
        Report::run(&plan, &model, runtime, &threads, args.without_times, &mut |line| println!("{line}"))
    });
    let report = match report {
        Err(SessionError::Stopped) => bail!("stopped"),
        report => report.map_err(host::said)?,
    };
    report.rest(&mut |line| println!("{line}"));
    let mut csv = String::new();
    report.csv(&mut |line| csv += &format!("{line}\n"));
    Ok(csv)
}

/// Digest of the last logits of a case on this PC.
fn digest(model: &Path, prompt: usize, decode: usize) -> Result<u64> {
    let engine = Engine { model: model.display().to_string(), threads: None, level: None, kv: KvFormat::F16 };
    let (model, threads) = engine.load()?;
    let case = Case { prompt, decode, cores: host::cores() };
    let measured = threads.with(|runtime| bench::measure(&model, case, runtime, &NoMeters));
    Ok(measured.map_err(host::said)?.digest)
}

impl Meters for Threads {
    fn barriers(&self) -> Option<u64> {
        Some(self.jobs())
    }
}

impl Args {
    /// Prompts, tokens decoded, threads, if any of them was given.
    fn lengths(&self, width: usize) -> Option<(Vec<usize>, Vec<usize>, Vec<usize>)> {
        if self.prompt.is_empty() && self.decode.is_empty() && self.threads.is_empty() {
            return None;
        }
        let or =
            |given: &[usize], default: usize| if given.is_empty() { vec![default] } else { given.to_vec() };
        Some((or(&self.prompt, 128), or(&self.decode, 32), or(&self.threads, width)))
    }
}

/// One row of the CSV, by heading.
pub struct Row<'a> {
    headings: Vec<&'a str>,
    cells: Vec<&'a str>,
}

impl<'a> Row<'a> {
    /// The rows of a CSV.
    pub fn all(csv: &'a str) -> Result<Vec<Self>> {
        let mut lines = csv.lines();
        let headings: Vec<&str> = lines.next().context("the CSV is empty")?.split(',').collect();
        let row = |line: &'a str| {
            let cells: Vec<&str> = line.split(',').collect();
            ensure!(cells.len() == headings.len(), "a row of the CSV has {} cells: {line}", cells.len());
            Ok(Self { headings: headings.clone(), cells })
        };
        lines.map(row).collect()
    }

    /// The cell under a heading.
    pub fn get(&self, heading: &str) -> Result<&'a str> {
        let index = self.headings.iter().position(|name| *name == heading);
        index.map(|index| self.cells[index]).with_context(|| format!("the CSV has no column {heading}"))
    }

    /// The number under a heading; `None` where it is not known.
    pub fn number(&self, heading: &str) -> Result<Option<u64>> {
        match self.get(heading)? {
            "n/a" => Ok(None),
            text => Ok(Some(text.parse().with_context(|| format!("{heading} is no number: {text}"))?)),
        }
    }
}

/// What stands between the CSV's marker lines, and the text without them.
pub fn split_csv(text: &str) -> Result<(String, String)> {
    let (before, rest) = text.split_once(bench::CSV_BEGIN).context("the board printed no CSV")?;
    let (csv, after) = rest.split_once(bench::CSV_END).context("the board's CSV does not end")?;
    let csv: Vec<&str> = csv.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok((format!("{}{}", before.trim_end(), after.trim_end()), csv.join("\n") + "\n"))
}

/// A path that means the same from any folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} has no absolute path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_found_between_its_markers_and_read_by_heading() {
        let text = "a table\r\n\n--- bench csv begin ---\r\nphase,tokens,cycles\r\nprefill,32,n/a\r\n--- bench csv end ---\r\n";
        let (rest, csv) = split_csv(text).unwrap();
        assert_eq!((rest.as_str(), csv.as_str()), ("a table", "phase,tokens,cycles\nprefill,32,n/a\n"));
        let rows = Row::all(&csv).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].get("phase").unwrap(), "prefill");
        assert_eq!((rows[0].number("tokens").unwrap(), rows[0].number("cycles").unwrap()), (Some(32), None));
        assert!(rows[0].get("speed").is_err() && rows[0].number("phase").is_err());
        assert!(split_csv("a table").is_err());
        assert!(Row::all("a,b\n1").is_err());
    }
}
