//! The report of a bench: Markdown for people, CSV for programs.

use super::{Case, EVENTS, Measured, Meters, Phase, Plan, Waits, bandwidth, measure};
use crate::model::Model;
use crate::session::{Runtime, SessionError};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// The line before the CSV, where it comes over a serial line among other text.
pub const CSV_BEGIN: &str = "--- bench csv begin ---";
/// The line behind it.
pub const CSV_END: &str = "--- bench csv end ---";

/// What can't be known here.
const UNKNOWN: &str = "n/a";

/// All that a plan gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// Bytes of weights that a decoded token reads.
    pub weight_bytes: u64,
    /// Bytes a second that so many cores read from memory.
    pub bandwidth: Vec<(usize, f64)>,
    /// The cases, in the order in which they were run.
    pub measured: Vec<Measured>,
    /// Cases that would have taken too long, and how long (nanoseconds).
    pub left_out: Vec<(Case, u64)>,
    /// Times and what follows from them mean nothing here: an emulator's clock.
    pub without_times: bool,
}

/// A heading and, for the cases in turn, what stands under it.
type Column = (&'static str, fn(&Report, &Measured) -> String);

const CASE: [Column; 3] = [
    ("prompt", |_, m| m.case.prompt.to_string()),
    ("decode", |_, m| m.case.decode.to_string()),
    ("cores", |_, m| m.case.cores.to_string()),
];

const SPEED: [Column; 7] = [
    CASE[0],
    CASE[1],
    CASE[2],
    ("prefill/s", |_, m| format!("{:.2}", m.prefill.rate())),
    ("decode/s", |_, m| known(m.jitter().map(|_| format!("{:.2}", m.decode.rate())))),
    ("GB/s", |r, m| known(r.gigabytes(m).map(|rate| format!("{rate:.2}")))),
    ("of reads", |r, m| known(r.share(m).map(|share| format!("{:.0} %", share * 100.0)))),
];

const JITTER: [Column; 7] = [
    CASE[0],
    CASE[1],
    CASE[2],
    ("min ms", |_, m| millis(m, 0)),
    ("median", |_, m| millis(m, 1)),
    ("p99", |_, m| millis(m, 2)),
    ("max", |_, m| millis(m, 3)),
];

fn millis(measured: &Measured, index: usize) -> String {
    known(measured.jitter().map(|jitter| format!("{:.3}", jitter[index] as f64 / 1e6)))
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.into(), |value| value.to_string())
}

/// A count as people read it: three digits and a letter.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            x if x >= 999.5e6 => (x / 1e9, "G"),
            x if x >= 999.5e3 => (x / 1e6, "M"),
            x if x >= 9999.5 => (x / 1e3, "k"),
            x => (x, ""),
        };
        let digits = match value {
            x if x >= 99.95 || (unit.is_empty() && libm::rint(x) == x) => 0,
            x if x >= 9.995 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$}{unit}")
    }
}

/// A row of a Markdown table, right-aligned so that it reads as a table on a terminal, too.
fn row<'a>(widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
    let mut row = String::from("|");
    for (width, cell) in widths.iter().zip(cells) {
        row += &format!(" {cell:>width$} |");
    }
    row
}

fn rule(widths: &[usize]) -> String {
    widths
        .iter()
        .fold(String::from("|"), |rule, width| rule + &format!(" {:->width$}: |", "", width = width - 1))
}

/// A whole table: headings, rows of cells.
fn table(headings: &[&str], rows: &[Vec<String>], say: &mut dyn FnMut(&str)) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.max().unwrap_or(0).max(headings[column].len()).max(2)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    say(&row(&widths, headings.iter().copied()));
    say(&rule(&widths));
    for cells in rows {
        say(&row(&widths, cells.iter().map(String::as_str)));
    }
}

impl Report {
    /// Runs a plan: first the bandwidth for each number of cores, then the cases. Each line that `say` gets is for a
    /// person to read while it runs: the table of speeds, as it grows.
    pub fn run(
        plan: &Plan,
        model: &Arc<Model>,
        runtime: &Runtime<'_>,
        meters: &dyn Meters,
        without_times: bool,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self, SessionError> {
        let start = (runtime.nanos)();
        let weight_bytes = model.weight_bytes();
        let mut report = Self { model: model.name().into(), weight_bytes, without_times, ..Self::default() };
        let mut widths: Vec<usize> = plan.cases.iter().map(|case| case.cores).collect();
        widths.sort_unstable();
        widths.dedup();
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        say(&format!("{}: {:.1} MB of weights a token", report.model, megabytes(weight_bytes)));
        if !without_times {
            for cores in widths {
                let rate = bandwidth(model, cores, runtime).ok_or(SessionError::Stopped)?;
                report.bandwidth.push((cores, rate));
                let (of, rate) = (megabytes(model.weight_memory().len() as u64), rate / 1e9);
                say(&format!("{}: {rate:.2} GB/s read from memory, {of:.0} MB at a time", Cores(cores)));
            }
            say("");
        }
        let widths = SPEED.map(|(heading, _)| heading.len().max(6));
        if !without_times && !plan.cases.is_empty() {
            say(&row(&widths, SPEED.iter().map(|(heading, _)| *heading)));
            say(&rule(&widths));
        }
        for &case in &plan.cases {
            let estimate = Plan::estimate(case, &report.measured);
            if plan.limit_nanos.is_some_and(|limit| (runtime.nanos)() - start + estimate > limit) {
                report.left_out.push((case, estimate));
                continue;
            }
            let measured = measure(model, case, runtime, meters)?;
            if !without_times {
                let cells = SPEED.map(|(_, cell)| cell(&report, &measured));
                say(&row(&widths, cells.iter().map(String::as_str)));
            }
            report.measured.push(measured);
        }
        Ok(report)
    }

    /// What [`Self::run`] has not said yet.
    pub fn rest(&self, say: &mut dyn FnMut(&str)) {
        for &(Case { prompt, decode, cores }, nanos) in &self.left_out {
            let seconds = nanos / 1_000_000_000;
            say(&format!("left out, as it would take {seconds} s: bench {prompt} {decode} {cores}"));
        }
        if self.measured.is_empty() {
            return;
        }
        if !self.without_times && self.measured.iter().any(|measured| measured.jitter().is_some()) {
            say("");
            say("A decoded token:");
            self.table(&JITTER, say);
        }
        say("");
        say("A token costs, on all cores together:");
        let (headings, rows) = self.costs();
        table(&headings, &rows, say);
        let missing: Vec<&str> = EVENTS.into_iter().filter(|event| !self.has(event)).collect();
        if !missing.is_empty() {
            say(&format!("Not counted here: {}.", missing.join(", ")));
        }
    }

    fn table(&self, columns: &[Column], say: &mut dyn FnMut(&str)) {
        let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
        let cells = |measured| columns.iter().map(|(_, cell)| cell(self, measured)).collect();
        table(&headings, &self.measured.iter().map(cells).collect::<Vec<_>>(), say);
    }

    /// Whether an event was counted.
    fn has(&self, event: &str) -> bool {
        self.measured.iter().any(|measured| measured.prefill.a_token(event).is_some())
    }

    /// Headings and rows of what a token costs beside time: two rows a case.
    fn costs(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let short = |name: &'static str| match name {
            "L1D refills" => "L1D",
            "L2D refills" => "L2D",
            "DTLB refills" => "DTLB",
            "stalls backend" => "stalls",
            "bus access" => "bus",
            name => name,
        };
        let events: Vec<&str> = EVENTS.into_iter().filter(|event| self.has(event)).collect();
        let mut headings =
            alloc::vec!["", "prompt", "cores", "barriers", "sleeps", "interrupts", "allocs", "copied B"];
        headings.extend(events.iter().map(|event| short(event)));
        let mut rows = Vec::new();
        for measured in &self.measured {
            for (name, phase) in measured.phases() {
                let each = |count: Option<u64>| {
                    known(count.map(|count| Short(count as f64 / phase.tokens.max(1) as f64)))
                };
                let wait = |get: fn(Waits) -> u64| each(phase.waits.map(get));
                let mut cells = alloc::vec![
                    name.to_string(),
                    measured.case.prompt.to_string(),
                    measured.case.cores.to_string(),
                    each(phase.barriers),
                    wait(|waits| waits.sleeps),
                    each(phase.interrupts),
                    each(phase.allocations),
                    each(phase.copied),
                ];
                cells.extend(events.iter().map(|event| known(phase.a_token(event).map(Short))));
                rows.push(cells);
            }
        }
        (headings, rows)
    }

    /// Gigabytes (10⁹) of weights read a second while decoding.
    fn gigabytes(&self, measured: &Measured) -> Option<f64> {
        measured.jitter()?;
        Some(measured.decode.rate() * self.weight_bytes as f64 / 1e9)
    }

    /// That as a share of what the same cores read when they do nothing else.
    fn share(&self, measured: &Measured) -> Option<f64> {
        let &(_, reads) = self.bandwidth.iter().find(|(cores, _)| *cores == measured.case.cores)?;
        Some(self.gigabytes(measured)? * 1e9 / reads)
    }

    /// Two rows a case, all counts whole and not a token's: headings first. What is not known is `n/a`.
    pub fn csv(&self, say: &mut dyn FnMut(&str)) {
        let head = "phase,prompt,decode,cores,tokens,nanos,tokens_per_second,weight_bytes,weight_gb_per_second,\
                    read_gb_per_second,min_nanos,median_nanos,p99_nanos,max_nanos,interrupts,barriers,sleeps,\
                    allocations,copied_bytes,digest";
        let events = EVENTS.map(|event| event.to_ascii_lowercase().replace(' ', "_"));
        say(&format!("{head},{}", events.join(",")));
        for measured in &self.measured {
            for (name, phase) in measured.phases() {
                say(&self.csv_row(measured, name, phase));
            }
        }
    }

    fn csv_row(&self, measured: &Measured, name: &str, phase: &Phase) -> String {
        let Case { prompt, decode, cores } = measured.case;
        let decodes = name == "decode";
        let times = !self.without_times;
        let jitter = measured.jitter().filter(|_| times && decodes);
        let wait = |get: fn(Waits) -> u64| known(phase.waits.map(get));
        let reads = self.bandwidth.iter().find(|(width, _)| *width == cores);
        let mut cells = alloc::vec![
            name.to_string(),
            prompt.to_string(),
            decode.to_string(),
            cores.to_string(),
            phase.tokens.to_string(),
            known(times.then_some(phase.nanos)),
            known(times.then(|| format!("{:.4}", phase.rate()))),
            self.weight_bytes.to_string(),
            known(self.gigabytes(measured).filter(|_| times && decodes).map(|rate| format!("{rate:.4}"))),
            known(reads.map(|(_, rate)| format!("{:.4}", rate / 1e9))),
        ];
        cells.extend((0..4).map(|index| known(jitter.map(|jitter| jitter[index]))));
        cells.extend([
            known(phase.interrupts),
            known(phase.barriers),
            wait(|waits| waits.sleeps),
            known(phase.allocations),
            known(phase.copied),
            format!("{:016x}", measured.digest),
        ]);
        cells.extend(phase.events.iter().map(|event| known(*event)));
        cells.join(",")
    }
}

impl Measured {
    /// The phases that have tokens, by name.
    fn phases(&self) -> impl Iterator<Item = (&'static str, &Phase)> {
        let both = [("prefill", &self.prefill), ("decode", &self.decode)];
        both.into_iter().filter(|(_, phase)| phase.tokens > 0)
    }
}

/// "1 core", "4 cores".
struct Cores(usize);

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} core{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn report() -> Report {
        let case = Case { prompt: 32, decode: 4, cores: 2 };
        let mut prefill = Phase { tokens: 32, nanos: 500_000_000, interrupts: Some(0), ..Phase::default() };
        prefill.events[0] = Some(64_000_000);
        let decode = Phase { tokens: 4, nanos: 200_000_000, copied: Some(400), ..prefill.clone() };
        let each = alloc::vec![40_000_000, 50_000_000, 50_000_000, 60_000_000];
        let measured = alloc::vec![Measured { case, prefill, decode, each, digest: 0xab }];
        Report {
            model: "m".into(),
            weight_bytes: 100_000_000,
            bandwidth: alloc::vec![(2, 4e9)],
            measured,
            left_out: alloc::vec![(Case { prompt: 512, decode: 32, cores: 1 }, 70_000_000_000)],
            without_times: false,
        }
    }

    fn text(write: impl FnOnce(&mut dyn FnMut(&str))) -> Vec<String> {
        let mut lines = Vec::new();
        write(&mut |line: &str| lines.push(line.to_string()));
        lines
    }

    #[test]
    fn counts_are_three_digits_and_a_letter() {
        for (count, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.0, "7"),
            (151.0, "151"),
            (9999.0, "9999"),
            (12_340.0, "12.3k"),
            (999_600.0, "1.00M"),
            (61_234_567.0, "61.2M"),
            (149_400_000.0, "149M"),
            (2.5e9, "2.50G"),
        ] {
            assert_eq!(Short(count).to_string(), text);
        }
    }

    #[test]
    fn speed_is_tokens_bytes_and_their_share_of_what_memory_gives() {
        let report = report();
        let cells: Vec<String> = SPEED.iter().map(|(_, cell)| cell(&report, &report.measured[0])).collect();
        assert_eq!(cells, ["32", "4", "2", "64.00", "20.00", "2.00", "50 %"]);
    }

    #[test]
    fn the_rest_has_jitter_costs_and_what_is_missing() {
        let report = report();
        let lines = text(|say| report.rest(say));
        let all = lines.join("\n");
        assert_eq!(lines[0], "left out, as it would take 70 s: bench 512 32 1");
        assert!(all.contains("| 40.000 | 50.000 | 60.000 | 60.000 |"), "{all}");
        let decode = lines.iter().find(|line| line.starts_with("|  decode |")).unwrap();
        assert!(decode.contains("n/a") && decode.contains(" 16.0M |"), "{decode}");
        assert!(decode.contains(" 100 |"), "bytes copied a token: {decode}");
        assert!(all.ends_with(
            "Not counted here: instructions, L1D refills, L2D refills, DTLB refills, stalls backend, bus access."
        ));
        let rows: Vec<_> = lines.iter().filter(|line| line.starts_with('|')).collect();
        assert!(rows.iter().all(|row| row.ends_with('|')));
    }

    #[test]
    fn csv_has_a_cell_under_every_heading_and_never_a_0_for_what_is_unknown() {
        let mut report = report();
        for without_times in [false, true] {
            report.without_times = without_times;
            let lines = text(|say| report.csv(say));
            let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split(',').collect()).collect();
            assert_eq!(cells.len(), 3);
            assert!(cells.iter().all(|row| row.len() == cells[0].len()), "{lines:?}");
            let cell = |row: usize, heading: &str| {
                cells[row][cells[0].iter().position(|cell| *cell == heading).expect(heading)]
            };
            assert_eq!((cell(1, "phase"), cell(2, "phase")), ("prefill", "decode"));
            assert_eq!(cell(2, "nanos"), if without_times { "n/a" } else { "200000000" });
            assert_eq!(cell(2, "p99_nanos"), if without_times { "n/a" } else { "60000000" });
            assert_eq!(cell(1, "p99_nanos"), "n/a");
            assert_eq!((cell(1, "cycles"), cell(1, "l1d_refills")), ("64000000", "n/a"));
            assert_eq!((cell(1, "allocations"), cell(1, "interrupts")), ("n/a", "0"));
            assert_eq!(cell(1, "digest"), "00000000000000ab");
        }
    }
}
