//! `chat`: talk to a model on this PC, with the very engine that the board runs.

use crate::host::{self, Engine};
use crate::sampling::Sampling;
use anyhow::{Context, Result, ensure};
use embodios::chat::builtin::BUILT_IN;
use embodios::chat::{Specials, Template};
use embodios::generate::{Conversation, Event, Report, Stop};
use embodios::{Overflow, Speculation};
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
    /// Use this built-in chat template instead of the file's: phi4, chatml, llama3, gemma, granite, command-r, deepseek3, exaone, phi3, tulu, zephyr, mistral-v7, llama2, mistral, minicpm, openchat, vicuna, deepseek, alpaca
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Ask a model that can think before it answers to do so
    #[arg(long, conflicts_with = "no_think")]
    think: bool,
    /// Ask it not to
    #[arg(long)]
    no_think: bool,
    /// End the answer when the context is full, instead of forgetting the oldest
    #[arg(long)]
    no_context_shift: bool,
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
    let mut conversation =
        Conversation::with_kv(Arc::clone(&model), context, args.engine.kv, settings).map_err(host::said)?;
    args.sampling.apply(&mut conversation)?;
    conversation.set_system(args.system.clone());
    if let Some(name) = &args.template {
        let template = Template::named(name, Specials::of(model.tokenizer())).with_context(|| {
            let names = BUILT_IN.iter().map(|row| row.name).collect::<Vec<_>>();
            format!("there is no built-in template {name}: there are {}", names.join(", "))
        })?;
        conversation.set_template(template);
    }
    conversation.set_thinking(if args.think { Some(true) } else { args.no_think.then_some(false) });
    conversation.set_overflow(if args.no_context_shift { Overflow::Stop } else { Overflow::Shift });
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
        let text = match event {
            Event::Text(text) => text,
            Event::Prefill { .. } => return,
            Event::Forgotten { messages: 0, tokens } => {
                eprintln!(
                    "\n[context full: the oldest {tokens} tokens are forgotten, the rest is read again]"
                );
                return;
            }
            Event::Forgotten { messages, tokens } => {
                eprintln!("[context full: the oldest {messages} messages are forgotten, {tokens} tokens]");
                return;
            }
        };
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
