//! perf, bench, digest: measured, on this board, now.

use alloc::sync::Arc;

use embodios::bench::{self, CSV_BEGIN, CSV_END, Meters, Plan, Report};
use embodios::session::BATCH;
use embodios::{Alone, Model, Runtime, Session, SessionError};

use super::{Shell, VERSION, on_board, sentence};
use crate::config::unquoted;
use crate::{Counters, Interrupts, Platform, Waits};

/// `perf`: the last answer's numbers.
pub fn perf(shell: &mut Shell, _: &str) {
    let Some(answer) = &shell.last else {
        return shell.say("No answer has been given yet: say something first, or type `bench`.");
    };
    let (report, interrupts) = (answer.report, answer.interrupts);
    shell.say(format_args!(
        "prefill  {} tokens in {:.3} s, {:.2} tokens/s ({} tokens were kept from before)",
        report.prompt_tokens,
        seconds(report.prefill_nanos),
        report.prefill_rate(),
        report.cached_tokens
    ));
    shell.say(format_args!(
        "decode   {} tokens in {:.3} s, {:.2} tokens/s",
        report.decoded,
        seconds(report.decode_nanos),
        report.decode_rate()
    ));
    shell.say(format_args!(
        "weights  {:.1} MB a pass, {:.2} GB/s while decoding",
        report.weight_bytes as f64 / 1e6,
        report.gigabytes_per_second()
    ));
    if report.drafted > 0 {
        shell.say(format_args!(
            "guesses  {} of {} right: {:.2} tokens a pass",
            report.accepted(),
            report.drafted,
            report.tokens_per_pass()
        ));
    }
    if let Some(interrupts) = interrupts {
        let tokens = (report.prompt_tokens + report.generated).max(1);
        shell.say(format_args!(
            "kernel   {interrupts} on all cores, {:.2} a token",
            interrupts.total() as f64 / tokens as f64
        ));
    }
}

/// `bench [PROMPT [DECODE [CORES]]]`: prefill and decode, what they cost, as Markdown and as CSV.
pub fn bench(shell: &mut Shell, arguments: &str) {
    if arguments == "help" {
        return bench::HELP.lines().for_each(|line| shell.say(line));
    }
    let Some(talker) = shell.talker() else { return };
    let model = Arc::clone(talker.conversation.model());
    let width = shell.platform.pool().width();
    let plan = match Plan::parse(arguments, width, model.spec().context) {
        Ok(plan) => plan,
        Err(why) => return shell.say(sentence(why)),
    };
    let (status, level) = (shell.platform.status(), shell.level);
    shell.say(format_args!(
        "{}, {} x {}, level {level}, EMBODIOS {VERSION}",
        status.board, status.cores, status.cpu
    ));
    let Shell { console, platform, .. } = shell;
    let platform = &**platform;
    let ran = on_board(platform, |runtime| {
        Report::run(&plan, &model, runtime, &Board(platform), false, &mut |line| console.line(line))
    });
    match ran {
        Ok(report) => {
            report.rest(&mut |line| console.line(line));
            console.line("");
            console.line(CSV_BEGIN);
            report.csv(&mut |line| console.line(line));
            console.line(CSV_END);
        }
        Err(SessionError::Stopped) => {
            shell.interrupt_served();
            shell.say("Stopped.");
        }
        Err(error) => shell.say(sentence(error)),
    }
}

/// What the board counts.
struct Board<'a>(&'a dyn Platform);

impl Meters for Board<'_> {
    fn counters(&self) -> Option<&dyn Counters> {
        self.0.counters()
    }
    fn interrupts(&self) -> Option<u64> {
        self.0.interrupts().map(Interrupts::total)
    }
    fn waits(&self) -> Option<Waits> {
        self.0.waits()
    }
    fn allocations(&self) -> Option<u64> {
        self.0.allocations()
    }
    fn copied(&self) -> Option<u64> {
        self.0.copied()
    }
}

/// `digest TEXT`: the same text gives the same digest on every board, level and number of cores, however
/// many tokens are read at once.
pub fn digest(shell: &mut Shell, text: &str) {
    let Some(talker) = shell.talker() else { return };
    let model = Arc::clone(talker.conversation.model());
    let tokens = model.tokenizer().encode(&unquoted(text), true, true); // quotes: for line ends
    let cores = shell.platform.pool().width();
    let mut first = None;
    for (cores, batch) in [(cores, BATCH), (1, BATCH), (cores, 7), (cores, 1)] {
        match digest_once(shell, &model, &tokens, cores, batch) {
            Ok(digest) if first.is_none() => first = Some(digest),
            Ok(digest) if first == Some(digest) => {}
            Ok(digest) => {
                return shell.say(format_args!(
                    "digest differs: {:016x}, but {digest:016x} on {cores} cores reading {batch} tokens at once",
                    first.unwrap_or_default()
                ));
            }
            Err(SessionError::Stopped) => return shell.interrupt_served(),
            Err(error) => return shell.say(sentence(error)),
        }
    }
    shell.say(format_args!(
        "digest {:016x} of the logits after {} tokens; the same on {cores} and 1 cores, reading {BATCH}, 7 and 1 at once",
        first.unwrap_or_default(),
        tokens.len()
    ));
}

fn digest_once(
    shell: &Shell,
    model: &Arc<Model>,
    tokens: &[u32],
    cores: usize,
    batch: usize,
) -> Result<u64, SessionError> {
    let mut session = Session::new(Arc::clone(model), tokens.len().max(1))?;
    session.set_batch(batch);
    on_board(&*shell.platform, |runtime| {
        let runtime = if cores == 1 { Runtime { pool: &Alone, ..*runtime } } else { *runtime };
        session.feed(tokens, &runtime).map(|logits| embodios::digest(logits))
    })
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
