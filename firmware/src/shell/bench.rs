//! perf, benchmark, digest: measured, on this board, now.

use alloc::sync::Arc;
use alloc::vec::Vec;

use embodios::session::BATCH;
use embodios::{Alone, Model, Runtime, Session, SessionError};

use super::{Shell, on_board, sentence};
use crate::config::unquoted;

/// Tokens of prompt and of answer that `benchmark` measures: half a minute on a Pi 4 with a model of 1 GB.
const PREFILL: usize = 64;
const DECODE: usize = 32;

/// `perf`: the last answer's numbers.
pub fn perf(shell: &mut Shell, _: &str) {
    let Some(answer) = &shell.last else {
        return shell.say("No answer has been given yet: say something first, or type `benchmark`.");
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
        "weights  {:.1} MB a token, {:.2} GB/s while decoding",
        report.weight_bytes as f64 / 1e6,
        report.gigabytes_per_second()
    ));
    if let Some(interrupts) = interrupts {
        let tokens = (report.prompt_tokens + report.generated).max(1);
        shell.say(format_args!(
            "kernel   {interrupts} interrupts on all cores, {:.2} a token",
            interrupts as f64 / tokens as f64
        ));
    }
}

/// `benchmark`: a prompt of fixed tokens at once, then one token at a time.
pub fn benchmark(shell: &mut Shell, _: &str) {
    let Some(talker) = shell.talker() else { return };
    let model = Arc::clone(talker.conversation.model());
    let weight_bytes = model.weight_bytes();
    shell.say(format_args!(
        "Reading {PREFILL} tokens, then writing {DECODE}; cores: {}.",
        shell.platform.pool().width()
    ));
    match measure(shell, model) {
        Ok((prefill, mut decode)) => {
            let total: u64 = decode.iter().sum();
            decode.sort_unstable();
            let rate = |tokens: usize, nanos: u64| tokens as f64 / seconds(nanos.max(1));
            let decode_rate = rate(decode.len(), total);
            shell.say(format_args!(
                "prefill  {:.2} tokens/s ({:.3} s)",
                rate(PREFILL, prefill),
                seconds(prefill)
            ));
            shell.say(format_args!(
                "decode   {decode_rate:.2} tokens/s ({:.3} s), {:.2} GB/s of weights",
                seconds(total),
                weight_bytes as f64 * decode_rate / 1e9
            ));
            let milli = |at: usize| decode.get(at).map_or(0.0, |&nanos| nanos as f64 / 1e6);
            shell.say(format_args!(
                "a token  {:.2} ms at least, {:.2} in the middle, {:.2} at most",
                milli(0),
                milli(decode.len() / 2),
                milli(decode.len().saturating_sub(1))
            ));
        }
        Err(SessionError::Stopped) => {
            shell.interrupt_served();
            shell.say("Stopped.");
        }
        Err(error) => shell.say(sentence(error)),
    }
}

/// Nanoseconds for the prompt, and for each token after it.
fn measure(shell: &Shell, model: Arc<Model>) -> Result<(u64, Vec<u64>), SessionError> {
    let vocabulary = model.spec().vocabulary.max(1);
    let context = (PREFILL + DECODE).min(model.spec().context);
    // Fixed tokens spread over the vocabulary: no file is needed and every run does the same work.
    let tokens: Vec<u32> = (1..=context).map(|n| ((n * 2_654_435_761) % vocabulary) as u32).collect();
    let (prompt, rest) = tokens.split_at(PREFILL.min(context));
    let mut session = Session::new(model, context)?;
    let platform = &*shell.platform;
    on_board(platform, |runtime| {
        let start = platform.nanos();
        session.feed(prompt, runtime)?;
        let mut last = platform.nanos();
        let prefill = last - start;
        let mut decode = Vec::with_capacity(rest.len());
        for &token in rest {
            session.feed(&[token], runtime)?;
            let now = platform.nanos();
            decode.push(now - last);
            last = now;
        }
        Ok((prefill, decode))
    })
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
