//! The engine's two adapters to a PC: a pool of threads and a file as a source of bytes; and the options
//! that all commands with a model share.

use crate::models;
use anyhow::{Context, Result, anyhow, ensure};
use embodios::KvFormat;
use embodios::gguf::split::{self, ShardName};
use embodios::model::{LoadOptions, Model};
use embodios::session::{Runtime, Session};
use embodios::{ByteSource, Level, Pool, ReadError};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// What every command that runs a model takes.
#[derive(clap::Args)]
pub struct Engine {
    /// The model: a name from `models list` or a path
    #[arg(value_name = "FILE")]
    pub model: String,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Instructions to use: plain, neon or dotprod [default: the best this CPU has]
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<String>,
    /// What keys and values are kept as: f16 or q8_0, which takes half the memory
    #[arg(long, value_name = "FORMAT", default_value = "f16", value_parser = kv)]
    pub kv: KvFormat,
}

/// Reads a `--kv`.
pub fn kv(name: &str) -> Result<KvFormat, String> {
    KvFormat::named(name).ok_or_else(|| "it takes f16 or q8_0".into())
}

impl Engine {
    /// Loads the model, with a progress bar, and starts the threads.
    pub fn load(&self) -> Result<(Arc<Model>, Threads)> {
        let level = match &self.level {
            None => Level::detect(),
            Some(name) => Level::named(name).with_context(|| {
                let names: Vec<_> = embodios::simd::levels().map(Level::name).collect();
                format!("this CPU has no level \"{name}\": it has {}", names.join(", "))
            })?,
        };
        let source = open(&self.model)?;
        let bar = ProgressBar::new(source.len()).with_style(
            ProgressStyle::with_template("loading [{bar:30}] {bytes}/{total_bytes}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let threads = Threads::new(self.threads.map_or_else(cores, usize::from))?;
        let options = LoadOptions { level, pool: Some(&threads), ..LoadOptions::default() };
        let model = Model::load(&source, &options, &mut |progress| {
            bar.set_position(progress.done);
            if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        let model = model.map_err(|error| anyhow!("{} can't be used: {error}", self.model))?;
        if !self.kv.fits(model.spec()) {
            eprintln!(
                "note: heads of {} values can't be kept in {}: f16 it is",
                model.spec().head_size,
                self.kv
            );
        }
        model.warnings().for_each(|warning| eprintln!("note: {warning}"));
        Ok((model, threads))
    }
}

/// Opens a model given as a name from the catalog or as a path.
pub fn open(model: &str) -> Result<Box<dyn ByteSource>> {
    open_file(&models::resolve(model)?)
}

/// Opens a model's file, or all its shards by the path of one of them.
pub fn open_file(path: &Path) -> Result<Box<dyn ByteSource>> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| ShardName::parse(name).is_some()) else {
        return Ok(Box::new(FileSource::open(path)?));
    };
    let beside = |name: &str| {
        let path = path.with_file_name(name);
        let source = path.exists().then(|| FileSource::open(&path)).transpose();
        source.map_err(|error| format!("{error:#}"))
    };
    split::open(name, &mut { beside }).map_err(said)
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// An error of the engine, which already is one clear sentence.
pub fn said(error: impl Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// A file, read in place.
pub struct FileSource {
    file: Mutex<File>,
    len: u64,
}

impl FileSource {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        let data = file.metadata()?;
        ensure!(data.is_file(), "{} is not a file", path.display());
        Ok(Self { len: data.len(), file: Mutex::new(file) })
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let wanted = buffer.len() as u64;
        if offset.checked_add(wanted).is_none_or(|end| end > self.len) {
            return Err(ReadError::PastEnd { offset, wanted, len: self.len });
        }
        let device = |error: std::io::Error| ReadError::Device(error.to_string());
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(buffer)).map_err(device)
    }
}

/// Threads that wait for work and do it side by side. rayon's: they spin a moment before they sleep, which
/// suits the hundreds of short jobs of a token.
pub struct Threads {
    pool: rayon_core::ThreadPool,
    jobs: AtomicU64,
}

impl Threads {
    /// Starts that many.
    pub fn new(count: usize) -> Result<Self> {
        let pool = rayon_core::ThreadPoolBuilder::new().num_threads(count).build();
        Ok(Self { pool: pool.context("the threads could not be started")?, jobs: AtomicU64::new(0) })
    }

    /// Jobs run so far.
    pub fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Does work that runs the engine on these threads, until it ends or Ctrl-C stops it.
    pub fn with<R: Send>(&self, work: impl FnOnce(&Runtime<'_>) -> R + Send) -> R {
        // On one of the threads itself: that saves a hand-over for each job.
        self.pool.install(|| work(&Runtime { pool: self, nanos: &nanos, stop: &stopped }))
    }
}

impl Pool for Threads {
    fn width(&self) -> usize {
        self.pool.current_num_threads()
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.pool.broadcast(|context| job(context.index()));
    }
    fn beside(&self, here: &mut dyn FnMut(), job: &(dyn Fn(usize) + Sync)) {
        // Whoever calls takes the place of worker 0, and thread 0 that of the caller, if it is another one of ours.
        self.jobs.fetch_add(1, Ordering::Relaxed);
        let me = self.pool.current_thread_index().unwrap_or(0);
        self.pool.in_place_scope(|scope| {
            scope.spawn_broadcast(|_, context| match context.index() {
                index if index == me => {}
                0 => job(me),
                index => job(index),
            });
            here();
        });
    }
}

/// Nanoseconds since this was first called.
fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed since [`clear_stop`].
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Forgets a Ctrl-C.
pub fn clear_stop() {
    STOP.store(false, Ordering::Relaxed);
}

/// Makes Ctrl-C stop the answer; pressed again before that was noticed, it ends the program.
pub fn catch_interrupts() -> Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("Ctrl-C can't be caught")
}

/// Feeds tokens into a fresh session and shows the logits after each.
pub fn logits_of_each(
    model: &Arc<Model>,
    (threads, kv): (&Threads, KvFormat),
    tokens: &[u32],
    show: &mut (dyn FnMut(usize, &[f32]) + Send),
) -> Result<()> {
    let mut session = Session::with_kv(Arc::clone(model), tokens.len().max(1), kv).map_err(said)?;
    threads.with(|runtime| session.feed_each(tokens, runtime, show)).map_err(said)
}

/// log Σ exp(logit), in double precision.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(most)).exp()).sum();
    f64::from(most) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_worker_does_its_part_once_each_time() {
        for width in [1, 2, 5] {
            let threads = Threads::new(width).unwrap();
            let done: Vec<AtomicUsize> = (0..width).map(|_| AtomicUsize::new(0)).collect();
            threads.with(|runtime| {
                for _ in 0..100 {
                    runtime.pool.run(&|worker| {
                        done[worker].fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
            threads.run(&|worker| {
                done[worker].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 101));
        }
    }

    #[test]
    fn something_else_is_done_here_while_the_others_work() {
        for width in [1, 2, 5] {
            let threads = Threads::new(width).unwrap();
            let done: Vec<AtomicUsize> = (0..width).map(|_| AtomicUsize::new(0)).collect();
            let mut here = 0;
            let mut beside = |pool: &dyn Pool| {
                for _ in 0..100 {
                    let before = here;
                    // The others can be seen to have begun before this returns.
                    pool.beside(
                        &mut || {
                            here += 1;
                            while width > 1 && done[1].load(Ordering::Relaxed) <= before {
                                std::thread::yield_now();
                            }
                        },
                        &|worker| {
                            done[worker].fetch_add(1, Ordering::Relaxed);
                        },
                    );
                }
            };
            beside(&threads);
            threads.with(|runtime| beside(runtime.pool));
            assert_eq!(here, 200);
            for (worker, count) in done.iter().enumerate() {
                assert_eq!(count.load(Ordering::Relaxed), if worker == 0 { 0 } else { 200 }, "{worker}");
            }
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_end_and_no_further() {
        let scratch = crate::project::Scratch::new().unwrap();
        let path = scratch.path().join("bytes");
        std::fs::write(&path, b"0123456789").unwrap();
        let source = FileSource::open(&path).unwrap();
        let mut buffer = [0; 4];
        source.read_at(6, &mut buffer).unwrap();
        assert_eq!(&buffer, b"6789");
        assert_eq!(source.read_at(7, &mut buffer), Err(ReadError::PastEnd { offset: 7, wanted: 4, len: 10 }));
        assert!(source.read_at(u64::MAX, &mut buffer).is_err());
        assert!(FileSource::open(scratch.path()).is_err());
    }

    #[test]
    fn a_model_in_three_files_gives_the_logits_of_the_whole_one() {
        let scratch = crate::project::Scratch::new().unwrap();
        let format = embodios::quant::by_name("Q4_0").unwrap();
        let whole = embodios::synth::tiny(1, format);
        let path = |name: &str| scratch.path().join(name);
        let shard = |index: usize| path(&format!("tiny-{:05}-of-00003.gguf", index + 1));
        std::fs::write(path("tiny.gguf"), &whole).unwrap();
        for (index, bytes) in embodios::synth::shards(&whole, 3).iter().enumerate() {
            std::fs::write(shard(index), bytes).unwrap();
        }
        let threads = Threads::new(2).unwrap();
        let digest = |path: &Path| {
            let source = open_file(path).unwrap();
            let options = LoadOptions { pool: Some(&threads), ..LoadOptions::default() };
            let model = Model::load(&source, &options, &mut |_| ControlFlow::Continue(())).unwrap();
            let tokens = model.tokenizer().encode("The same bits.", true, true);
            let mut session = Session::new(model, tokens.len()).unwrap();
            threads.with(|runtime| embodios::digest(session.feed(&tokens, runtime).unwrap()))
        };
        assert_eq!(digest(&shard(0)), digest(&path("tiny.gguf")));
        assert_eq!(digest(&shard(2)), digest(&path("tiny.gguf")));

        // Alone and under another name, none says what it is a part of.
        std::fs::copy(shard(0), path("alone.gguf")).unwrap();
        std::fs::remove_file(shard(1)).unwrap();
        let error = open_file(&shard(0)).err().unwrap().to_string();
        assert!(error.starts_with("the file tiny-00002-of-00003.gguf is missing"), "{error}");
        let source = open_file(&path("alone.gguf")).unwrap();
        let alone = Model::load(&source, &LoadOptions::default(), &mut |_| ControlFlow::Continue(()));
        let error = alone.err().unwrap().to_string();
        assert!(error.starts_with("this is one of 3 files of a split model"), "{error}");
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-9);
        assert!((log_sum_exp(&[0.0, f32::NEG_INFINITY]) - 0.0).abs() < 1e-12);
    }
}
