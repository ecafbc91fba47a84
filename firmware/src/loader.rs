//! Loader: which model, whether it fits, and its way into memory.
//!
//! Which: the one the boot loader already put in memory, else the one `EMBODIOS.CFG` names, else the only
//! `.gguf` file on the card, else the user's choice from a menu. Everything that can go wrong is one sentence
//! at the prompt.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::ops::ControlFlow;

use embodios::gguf::Gguf;
use embodios::gguf::split::{self, ShardName};
use embodios::model::budget::Budget;
use embodios::model::{self, LoadError, LoadOptions, Model, Opened, Progress, families};
use embodios::{ByteSource, KvFormat, Level};

use crate::config::{FILE, Place, unquoted};
use crate::console::{Console, Line};
use crate::shell::sentence;
use crate::{FileEntry, Platform};

/// Tokens of context when nothing is set: room for a long conversation, and for SmolLM2 94 MB of cache.
const CONTEXT: usize = 4096;
/// Shorter contexts than this are not worth offering when memory is short.
const CONTEXT_LEAST: usize = 256;
/// Time between two drawings of the progress bar.
const REDRAW_NANOS: u64 = 100_000_000;

/// What a model is called that the boot loader put in memory.
pub const PRELOADED: &str = "the preloaded model";

/// A model's bytes and what to call it.
pub struct Source {
    /// Its file name.
    pub name: String,
    /// Where its bytes come from.
    pub bytes: Box<dyn ByteSource>,
}

/// A model in memory.
pub struct Loaded {
    /// The model.
    pub model: Arc<Model>,
    /// Tokens of context that fit with it.
    pub context: usize,
}

/// A number of bytes as people read it.
pub struct Mib(pub u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..0x10_0000 => write!(f, "{} KiB", self.0 >> 10),
            0x10_0000..0xa0_0000 => write!(f, "{}.{} MiB", self.0 >> 20, ((self.0 & 0xf_ffff) * 10) >> 20),
            _ => write!(f, "{} MiB", self.0 >> 20),
        }
    }
}

/// The models on the card, by name; one in several files is there once, by the first of them, with the bytes of all.
pub fn models(platform: &mut dyn Platform) -> Result<Vec<FileEntry>, String> {
    let mut files = platform.files().map_err(sentence)?;
    // A Mac writes a file `._NAME` beside each: no model.
    files.retain(|file| file.name.to_ascii_lowercase().ends_with(".gguf") && !file.name.starts_with('.'));
    files.sort_by_cached_key(|file| (file.name.to_lowercase(), file.name.clone()));
    let mut models: Vec<FileEntry> = Vec::new();
    for file in files {
        match models.last_mut().filter(|last| are_of_one(&last.name, &file.name)) {
            Some(first) => first.bytes += file.bytes,
            None => models.push(file),
        }
    }
    Ok(models)
}

/// Whether two files are shards of one model.
fn are_of_one(name: &str, other: &str) -> bool {
    ShardName::parse(name).zip(ShardName::parse(other)).is_some_and(|(name, other)| name.is_of(&other))
}

/// Opens a model's file, or all its shards by the name of one of them. The error is a sentence.
pub fn open_bytes(platform: &mut dyn Platform, name: &str) -> Result<Box<dyn ByteSource>, String> {
    if ShardName::parse(name).is_none() {
        return platform.open(name);
    }
    let files = platform.files()?;
    let mut open = |name: &str| {
        let file = files.iter().find(|file| file.name.eq_ignore_ascii_case(name));
        file.map(|file| platform.open(&file.name)).transpose()
    };
    split::open(name, &mut open).map_err(|error| error.to_string())
}

/// The model meant by a name (case, `.gguf` and which shard don't matter) or by its number in the list.
pub fn find<'f>(files: &'f [FileEntry], wanted: &str) -> Option<&'f FileEntry> {
    let lower = wanted.to_lowercase();
    let same = |name: &str| name.to_lowercase() == lower;
    let with_extension = format!("{wanted}.gguf");
    let stem = |name: &str| ShardName::parse(name).is_some_and(|shard| same(shard.stem));
    files
        .iter()
        .find(|file| same(&file.name))
        .or_else(|| files.iter().find(|file| same(&file.name[..file.name.len() - ".gguf".len()])))
        .or_else(|| files.iter().find(|file| stem(&file.name)))
        .or_else(|| {
            let shard =
                |file: &&FileEntry| are_of_one(&file.name, wanted) || are_of_one(&file.name, &with_extension);
            files.iter().find(shard)
        })
        .or_else(|| files.get(wanted.parse::<usize>().ok()?.checked_sub(1)?))
}

/// Opens the model of this name; the error says why not, with a full stop.
pub fn open(platform: &mut dyn Platform, name: &str) -> Result<Source, String> {
    if name.eq_ignore_ascii_case("preloaded")
        && let Some(source) = preloaded(platform)
    {
        return Ok(source);
    }
    let files = models(platform)?;
    let Some(file) = find(&files, name).or_else(|| find(&files, &unquoted(name))) else {
        let mut list = format!("there is no model `{name}` on the card");
        for (n, file) in files.iter().enumerate() {
            let _ = write!(list, "{}{}", if n == 0 { "; there is " } else { ", " }, file.name);
        }
        let end = if files.is_empty() { ": it has none." } else { "." };
        return Err(list + end);
    };
    open_file(platform, &file.name)
}

fn preloaded(platform: &dyn Platform) -> Option<Source> {
    platform.preloaded().map(|model| Source { name: PRELOADED.into(), bytes: Box::new(model) })
}

fn open_file(platform: &mut dyn Platform, name: &str) -> Result<Source, String> {
    let bytes = open_bytes(platform, name).map_err(sentence)?;
    Ok(Source { name: name.into(), bytes })
}

/// The model to start with: the one that the file on the card wants at this line, the only one, or the user's choice; says
/// why if there is none.
pub fn choose(
    console: &mut Console,
    platform: &mut dyn Platform,
    wanted: Option<(String, Place)>,
) -> Option<Source> {
    if let Some(source) = preloaded(platform) {
        return Some(source);
    }
    if let Some((wanted, place)) = wanted {
        return match open(platform, &wanted) {
            Ok(source) => Some(source),
            Err(why) => {
                console.line(format_args!("{place}: {why}"));
                console.line("Correct it, or type `models` to see what there is.");
                None
            }
        };
    }
    let files = match models(platform) {
        Ok(files) => files,
        Err(why) => {
            console.line(why);
            return None;
        }
    };
    let source = match files.as_slice() {
        [] => {
            console.line(
                "There is no model on the card: copy a .gguf file to its root directory, then type `models`.",
            );
            return None;
        }
        [only] => open_file(platform, &only.name),
        several => {
            let name = menu(console, platform, several)?;
            open_file(platform, &name)
        }
    };
    source.map_err(|why| console.line(why)).ok()
}

fn menu(console: &mut Console, platform: &mut dyn Platform, files: &[FileEntry]) -> Option<String> {
    console.line("Several models are on the card:");
    for (n, file) in files.iter().enumerate() {
        console.line(format_args!("{:3}  {}, {}", n + 1, file.name, Mib(file.bytes)));
    }
    console.line(format_args!(
        "Type the number of the one to load, or nothing for none. (`model = NAME` in {FILE}"
    ));
    console.line("on the card answers this for good.)");
    loop {
        match console.read_line("> ") {
            Line::Interrupted => {
                platform.clear_interrupt();
                return None;
            }
            Line::Text(answer) => match (answer.trim(), find(files, answer.trim())) {
                ("", _) => return None,
                (_, Some(file)) => return Some(file.name.clone()),
                (_, None) => {
                    console.line(format_args!("Type a number from 1 to {}, or nothing.", files.len()))
                }
            },
        }
    }
}

/// How much context a model can have.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit {
    /// As much as was wanted.
    Whole(usize),
    /// Less: all that memory allows.
    Less(usize),
    /// None worth having: bytes it needs at least.
    Not(u64),
    /// None: free memory would do, but is in stretches too short for these bytes.
    Scattered(u64),
}

/// The largest context up to `wanted` that fits into `free` bytes.
pub fn fit(wanted: usize, free: u64, need: impl Fn(usize) -> u64) -> Fit {
    if need(wanted) <= free {
        return Fit::Whole(wanted);
    }
    let least = CONTEXT_LEAST.min(wanted);
    if need(least) > free {
        return Fit::Not(need(least));
    }
    let (mut fits, mut too_many) = (least, wanted);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        if need(middle) <= free { fits = middle } else { too_many = middle }
    }
    Fit::Less(fits)
}

/// What a header says of a model in some memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// How much of the wanted context it can have.
    pub fit: Fit,
    /// The largest context that fits, up to what the model was made for; 0 where none does.
    pub largest: usize,
}

/// Reads the header and says how much context the model can have in `free` bytes, which are in stretches that
/// `holds` knows; a sentence if it can't be used.
pub fn plan(
    gguf: &Gguf,
    source: &Source,
    (wanted, kv): (Option<usize>, KvFormat),
    free: u64,
    holds: impl Fn(&[u64]) -> bool,
) -> Result<Plan, LoadError> {
    let spec = families::spec(gguf)?;
    model::check(gguf)?;
    let context = wanted.unwrap_or(CONTEXT).min(spec.context);
    // Weights that are in memory already take no more of it.
    let there = source.bytes.in_place().is_some();
    let budget = |context| {
        let mut budget = Budget::of(gguf, context, kv).ok()?;
        budget.weights = if there { 0 } else { budget.weights };
        Some(budget)
    };
    // What was accepted by `families::spec` is accepted here; if it were not, it would not fit.
    let need = |context| budget(context).map_or(u64::MAX, |budget| budget.total());
    // The weights are one piece, and so are the keys and the values.
    let held = |context| {
        budget(context).is_some_and(|budget| {
            let half = budget.cache.div_ceil(2);
            holds(&[budget.weights, half, half, budget.scratch, budget.tokenizer])
        })
    };
    let need_held = |context| if held(context) { need(context) } else { u64::MAX };
    let fit_held = match (fit(context, free, need), fit(context, free, need_held)) {
        (Fit::Whole(least) | Fit::Less(least), Fit::Not(_)) => Fit::Scattered(need(CONTEXT_LEAST.min(least))),
        (too_big @ Fit::Not(_), _) => too_big,
        (_, held) => held,
    };
    let largest = match fit(spec.context, free, need_held) {
        Fit::Whole(context) | Fit::Less(context) => context,
        Fit::Not(_) | Fit::Scattered(_) => 0,
    };
    Ok(Plan { fit: fit_held, largest })
}

/// Reads a model's header and checks that it can run and fits into `free` bytes; gives its context, too, and says so
/// where it falls short. Takes no memory for weights, so a model that runs meanwhile stays.
pub fn check(
    console: &mut Console,
    platform: &dyn Platform,
    source: &Source,
    (wanted, kv): (Option<usize>, KvFormat),
    free: u64,
) -> Option<(Opened, usize)> {
    let name = &source.name;
    let header = Gguf::open(&*source.bytes).map_err(LoadError::from);
    let holds = |pieces: &[u64]| platform.memory_holds(pieces);
    let fits = header.and_then(|gguf| Ok((plan(&gguf, source, (wanted, kv), free, holds)?, gguf)));
    let refuse = |console: &mut Console, why: LoadError| {
        console.line(format_args!("{name} can't be used: {why}."));
    };
    let (Plan { fit, largest }, gguf) = match fits {
        Ok(fits) => fits,
        Err(why) => {
            refuse(console, why);
            return None;
        }
    };
    let context = match fit {
        Fit::Not(need) => {
            let (need, free) = (Mib(need), Mib(free));
            console.line(format_args!(
                "{name} needs {need} of memory and {free} is free: choose a smaller file."
            ));
            return None;
        }
        Fit::Scattered(need) => {
            let (need, free) = (Mib(need), Mib(free));
            console.line(format_args!(
                "{name} needs {need} of memory; {free} is free, but in stretches too short for it: choose a \
                 smaller file."
            ));
            return None;
        }
        Fit::Less(context) => {
            let free = Mib(free);
            console.line(format_args!(
                "The context is {context} tokens: more does not fit into the {free} free."
            ));
            context
        }
        Fit::Whole(context) => {
            if let Some(wanted) = wanted.filter(|&wanted| wanted > context) {
                console.line(format_args!(
                    "The context is {context} tokens: the model was made for no more than that (ctx is {wanted})."
                ));
            }
            context
        }
    };
    if let Ok(budget) = Budget::of(&gguf, context, kv) {
        let there = source.bytes.in_place().is_some();
        let largest = largest.max(context);
        console.dim(Needs { budget, there, largest, free });
    }
    match Opened::new(gguf) {
        Ok(opened) => Some((opened, context)),
        Err(why) => {
            refuse(console, why);
            None
        }
    }
}

/// What a model takes, in a line.
struct Needs {
    budget: Budget,
    /// The weights are in memory already.
    there: bool,
    largest: usize,
    free: u64,
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget { weights, cache, scratch, tokenizer, context, kv } = self.budget;
        let there = if self.there { " in place" } else { "" };
        write!(
            f,
            "[weights {}{there}, {kv} keys and values {} for {context} tokens, the rest {}; {} free: at most {} tokens]",
            Mib(weights),
            Mib(cache),
            Mib(scratch + tokenizer),
            Mib(self.free),
            self.largest
        )
    }
}

/// Brings the model into memory, showing how far it is. Ctrl-C stops it.
pub fn load(
    console: &mut Console,
    platform: &dyn Platform,
    source: &Source,
    opened: Opened,
    (context, kv): (usize, KvFormat),
    level: Level,
) -> Option<Loaded> {
    let start = platform.nanos();
    let mut drawn = None;
    let mut show = |progress: Progress| {
        let now = platform.nanos();
        if progress.done == progress.total || drawn.is_none_or(|last| now - last >= REDRAW_NANOS) {
            drawn = Some(now);
            console.rewrite(Bar { progress, nanos: now - start });
        }
        if platform.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = LoadOptions {
        level,
        memory_free: Some(platform.memory_free()),
        context: Some(context),
        kv,
        pool: Some(platform.pool()),
    };
    let loaded = opened.load(&*source.bytes, &options, &mut show);
    console.fresh_line();
    match loaded {
        Ok(model) => Some(Loaded { model, context }),
        Err(LoadError::Interrupted) => {
            platform.clear_interrupt();
            console.interrupt_served();
            console.line("Stopped: no model is loaded.");
            None
        }
        Err(error) => {
            console.line(format_args!("{} can't be used: {error}.", source.name));
            None
        }
    }
}

/// A progress bar, short enough for one row.
struct Bar {
    progress: Progress,
    nanos: u64,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CELLS: u64 = 20;
        let Progress { done, total } = self.progress;
        let share = |of: u64| (u128::from(done) * u128::from(of) / u128::from(total.max(1))) as u64;
        let full = share(CELLS) as usize;
        let per_second = done as f64 / f64::from(1 << 20) * 1e9 / self.nanos.max(1_000_000) as f64;
        write!(
            f,
            "[{:#<full$}{:.<rest$}] {:3} %, {} of {}, {per_second:.1} MiB/s",
            "",
            "",
            share(100),
            Mib(done),
            Mib(total),
            rest = CELLS as usize - full,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_the_largest_that_fits() {
        let need = |context: usize| 1_000_000 + context as u64 * 1000;
        assert_eq!(fit(4096, 10_000_000, need), Fit::Whole(4096));
        assert_eq!(fit(4096, 5_096_000, need), Fit::Whole(4096));
        assert_eq!(fit(4096, 5_095_999, need), Fit::Less(4095));
        assert_eq!(fit(4096, 1_300_000, need), Fit::Less(300));
        assert_eq!(fit(4096, 1_256_000, need), Fit::Less(256));
        assert_eq!(fit(4096, 1_255_999, need), Fit::Not(1_256_000));
        assert_eq!(fit(16, 1_015_999, need), Fit::Not(1_016_000));
        assert_eq!(fit(16, 1_016_000, need), Fit::Whole(16));
    }

    #[test]
    fn a_model_needs_stretches_of_ram_as_long_as_its_pieces() {
        let format = embodios::quant::FORMATS.first().expect("there are formats");
        let bytes = embodios::synth::tiny(1, format).leak();
        let source = Source { name: "tiny.gguf".into(), bytes: Box::new(embodios::source::Memory(bytes)) };
        let gguf = Gguf::open(&*source.bytes).expect("a sound file");
        let whole = embodios::model::families::spec(&gguf).expect("a family").context;
        let planned = |wanted: Option<usize>, free: u64, holds: &dyn Fn(&[u64]) -> bool| {
            plan(&gguf, &source, (wanted, KvFormat::F16), free, holds).expect("a model that runs")
        };
        let least = Budget::of(&gguf, CONTEXT_LEAST.min(whole), KvFormat::F16).expect("a family").total();
        assert_eq!(
            planned(None, 1 << 40, &|_| true),
            Plan { fit: Fit::Whole(whole.min(CONTEXT)), largest: whole }
        );
        assert_eq!(planned(None, 1 << 40, &|_| false), Plan { fit: Fit::Scattered(least), largest: 0 });
        // What it needs is told, whether or not there is a stretch for it.
        assert_eq!(planned(None, 10, &|_| true), Plan { fit: Fit::Not(least), largest: 0 });
        assert_eq!(planned(None, 10, &|_| false), Plan { fit: Fit::Not(least), largest: 0 });
        let keys = |context: usize| {
            let seen = core::cell::Cell::new(0);
            planned(Some(context), 1 << 40, &|pieces| {
                if seen.get() == 0 {
                    seen.set(pieces[1]);
                }
                true
            });
            seen.get()
        };
        let held = |pieces: &[u64]| pieces[1] <= keys(300);
        assert_eq!(planned(Some(400), 1 << 40, &held), Plan { fit: Fit::Less(300), largest: 300 });
    }

    #[test]
    fn a_model_is_found_by_name_in_any_case_without_its_ending_or_by_number() {
        let files = ["a.gguf", "B.GGUF", "2.gguf", "x.y.gguf", "Nä me.gguf"]
            .map(|name| FileEntry { name: name.into(), bytes: 1 });
        let found = |wanted: &str| find(&files, wanted).map(|file| file.name.as_str());
        assert_eq!(found("A.gguf"), Some("a.gguf"));
        assert_eq!(found("b"), Some("B.GGUF"));
        assert_eq!(found("2"), Some("2.gguf")); // a name before a number
        assert_eq!(found("1"), Some("a.gguf"));
        assert_eq!(found("4"), Some("x.y.gguf"));
        assert_eq!(found("NÄ ME"), Some("Nä me.gguf"));
        for wanted in ["0", "6", "-1", "", "c", "99999999999999999999"] {
            assert_eq!(found(wanted), None, "{wanted}");
        }
    }

    #[test]
    fn the_bar_fits_a_row_at_every_size() {
        for (done, total) in
            [(0, 0), (0, 1), (1, 2), (98_765_432, 98_765_432), (7_999_999_999, 8_000_000_000)]
        {
            for nanos in [0, 1, 1_000_000_000, u64::MAX] {
                let progress = Progress { done, total };
                let bar = Bar { progress, nanos }.to_string();
                assert!(bar.len() < 79, "{bar}");
            }
        }
        let progress = Progress { done: 45 << 20, total: 90 << 20 };
        let bar = Bar { progress, nanos: 15_000_000_000 }.to_string();
        assert_eq!(bar, "[##########..........]  50 %, 45 MiB of 90 MiB, 3.0 MiB/s");
    }
}
