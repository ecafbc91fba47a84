//! `chat`: talk to a model on this PC, with the very engine that the board runs.

use crate::host::{self, Engine};
use crate::sampling::Sampling;
use anyhow::{Context, Result, ensure};
use embodios::Speculation;
use embodios::generate::{Conversation, Event, Report, Stop};
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;

/// Talk to a model on this PC, with the very engine that the board runs.
///
/// Without --prompt it reads lines until Ctrl-D. Ctrl-C stops an answer. `/reset` forgets the conversation.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    engine: Engine,
    /// Say this, print the answer, and end; given more than once: that many turns
    #[arg(long, short, value_name = "TEXT")]
    prompt: Vec<String>,
    /// The system message [default: the model's own]
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Continue the text as it stands, without the model's chat template
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    sampling: Sampling,
    /// At temperature 0, do not guess tokens ahead: same text, a forward pass for each token
    #[arg(long)]
    no_speculation: bool,
    /// Tokens an answer may have at most
    #[arg(short, value_name = "TOKENS", default_value_t = 512)]
    n: usize,
    /// Tokens of context [default: 4096, or what the model was made for if that is less]
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<usize>,
}

/// Context when none is asked for, as on the board.
const CONTEXT: usize = 4096;

/// Carries out `chat`.
pub fn run(args: &Args) -> Result<()> {
    let (model, threads) = args.engine.load()?;
    let most = model.spec().context;
    let context = args.ctx.unwrap_or_else(|| most.min(CONTEXT));
    ensure!(context <= most, "the model was made for a context of {most} tokens: ask for no more with --ctx");
    let settings = args.sampling.settings(&model);
    let mut conversation = Conversation::new(Arc::clone(&model), context, settings).map_err(host::said)?;
    args.sampling.apply(&mut conversation)?;
    conversation.set_system(args.system.clone());
    if args.no_speculation {
        conversation.set_speculation(Speculation::Off);
    }
    host::catch_interrupts()?;
    let answer = |text: &str, conversation: &mut Conversation| -> Result<Report> {
        host::clear_stop();
        let mut out = Output::default();
        let report = threads.with(|runtime| {
            let sink = &mut |event: Event| out.show(event);
            if args.raw {
                conversation.complete(text, args.n, runtime, sink)
            } else {
                conversation.say(text, args.n, runtime, sink)
            }
        });
        out.end();
        report.map_err(host::said)
    };
    if !args.prompt.is_empty() {
        for text in &args.prompt {
            summarize(&answer(text, &mut conversation)?);
        }
        return Ok(());
    }
    if io::stdin().is_terminal() {
        eprintln!("{}, level {}. Ctrl-C stops an answer, Ctrl-D ends.", model.name(), model.level());
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if io::stdin().is_terminal() {
            eprint!("> ");
        }
        let Some(line) = lines.next().transpose().context("could not read standard input")? else { break };
        match line.trim() {
            "" => {}
            "/reset" => conversation.reset(),
            text => match answer(text, &mut conversation) {
                Ok(report) => summarize(&report),
                Err(error) => eprintln!("{error}"), // too long, for example: the conversation goes on
            },
        }
    }
    Ok(())
}

/// The answer on standard output, as it comes; how far the prompt is on a terminal only.
#[derive(Default)]
struct Output {
    on_new_line: bool,
}

impl Output {
    fn show(&mut self, event: Event) {
        let Event::Text(text) = event else { return };
        let mut out = io::stdout();
        // A reader of our output that went away is no reason to stop.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.on_new_line = text.ends_with('\n');
    }

    fn end(&self) {
        if !self.on_new_line {
            println!();
        }
    }
}

/// One line about the answer, away from the answer itself.
fn summarize(report: &Report) {
    let (dim, normal) = if io::stderr().is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    let reason = match report.reason {
        Stop::End => "",
        Stop::Limit => "; cut at -n",
        Stop::Context => "; the context is full",
        Stop::Interrupted => "; stopped",
        Stop::String => "; stop string",
        Stop::Grammar => "; no token fits the grammar",
    };
    let passes = match report.drafted {
        0 => String::new(),
        drafted => format!(
            ", {} of {drafted} guesses right: {:.2} tokens a pass",
            report.accepted(),
            report.tokens_per_pass()
        ),
    };
    eprintln!(
        "{dim}[{} tokens read after {} kept, {:.1} tokens/s; {} written, {:.1} tokens/s, {:.2} GB/s of weights{passes}{reason}]{normal}",
        report.prompt_tokens,
        report.cached_tokens,
        report.prefill_rate(),
        report.generated,
        report.decode_rate(),
        report.gigabytes_per_second()
    );
}
