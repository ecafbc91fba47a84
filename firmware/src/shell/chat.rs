//! chat, talk, infer: words to the model, and its words back as they come.

use core::fmt::{self, Write};

use embodios::{Event, Report, Stop};

use super::{Answer, PROMPT, Shell, health, on_board, sentence};
use crate::console::Line;

/// A prompt that takes longer than this to read is worth a progress line.
const SILENCE_NANOS: u64 = 1_000_000_000;

/// `chat TEXT`, and every line that is no command.
pub fn chat(shell: &mut Shell, text: &str) {
    answer(shell, text, true);
}

/// `infer TEXT`.
pub fn infer(shell: &mut Shell, text: &str) {
    answer(shell, text, false);
}

/// `talk`.
pub fn talk(shell: &mut Shell, _: &str) {
    if shell.talker().is_none() {
        return;
    }
    shell.say("Every line goes to the model now, even one like `help`. An empty line, `/end` or");
    shell.say("Ctrl-C leads back to the commands.");
    loop {
        match shell.console.read_line(PROMPT) {
            Line::Interrupted => {
                shell.platform.clear_interrupt();
                break;
            }
            Line::Text(line) if line.trim().is_empty() || line.trim() == "/end" => break,
            Line::Text(line) => answer(shell, line.trim(), true),
        }
    }
    shell.say("Commands work again.");
}

fn answer(shell: &mut Shell, text: &str, as_turn: bool) {
    if shell.talker().is_none() {
        return;
    }
    let Shell { console, platform, talker: Some(talker), config, throttled, .. } = shell else { return };
    let platform = &**platform;
    let (start, interrupts) = (platform.nanos(), platform.interrupts());
    let (mut waiting, mut drawn, mut asked) = (false, start, start);
    let mut sink = |event: Event| match event {
        Event::Prefill { done, total } => {
            let now = platform.nanos();
            if done < total && now - start >= SILENCE_NANOS && now - drawn >= SILENCE_NANOS / 4 {
                (waiting, drawn) = (true, now);
                console.rewrite(format_args!("reading: {done} of {total} tokens"));
            }
        }
        Event::Text(text) => {
            if core::mem::take(&mut waiting) {
                console.erase_row();
            }
            let _ = console.write_str(text); // never fails
            let now = platform.nanos();
            if now - asked >= health::EVERY_NANOS {
                asked = now;
                health::look(platform, console, throttled);
            }
        }
        Event::Forgotten { messages, tokens } => {
            console.fresh_line();
            console.dim(Forgotten { messages, tokens });
        }
    };
    let conversation = &mut talker.conversation;
    let report = on_board(platform, |runtime| {
        if as_turn {
            conversation.say(text, config.limit, runtime, &mut sink)
        } else {
            conversation.complete(text, config.limit, runtime, &mut sink)
        }
    });
    if waiting {
        console.erase_row();
    }
    console.fresh_line();
    match report {
        Ok(report) => {
            if report.reason == Stop::Interrupted {
                shell.interrupt_served();
            }
            if report.prompt_tokens == 0 {
                return shell.say("Stopped while reading; the conversation is as it was.");
            }
            shell.console.dim(Summary(&report));
            if report.reason == Stop::Context {
                shell.say(
                    "The context is full: `reset` begins anew, `set context_shift on` forgets the oldest.",
                );
            }
            let taken = |before| shell.platform.interrupts().map(|now| now.since(before));
            shell.last = Some(Answer { interrupts: interrupts.and_then(taken), report });
            health::look(&*shell.platform, &mut shell.console, &mut shell.throttled);
        }
        Err(error) => shell.say(sentence(error)),
    }
}

/// What a full context has cost.
struct Forgotten {
    messages: usize,
    tokens: usize,
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.messages {
            0 => write!(
                f,
                "[context full: the oldest {} tokens are forgotten, the rest is read again]",
                self.tokens
            ),
            messages => write!(
                f,
                "[context full: the oldest {messages} messages are forgotten, {} tokens]",
                self.tokens
            ),
        }
    }
}

/// The line under an answer: rates are tokens a second, so that it fits one row.
struct Summary<'r>(&'r Report);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        write!(f, "[prefill {} tokens", report.prompt_tokens)?;
        if report.cached_tokens > 0 {
            write!(f, " ({} kept)", report.cached_tokens)?;
        }
        write!(f, " at {:.1}/s, decode {}", report.prefill_rate(), report.generated)?;
        if report.decoded > 0 {
            let (rate, bandwidth) = (report.decode_rate(), report.gigabytes_per_second());
            write!(f, " at {rate:.1}/s, {bandwidth:.2} GB/s")?;
        }
        f.write_str(match report.reason {
            Stop::End => "]",
            Stop::Limit => "; limit reached]",
            Stop::Context => "; context full]",
            Stop::Interrupted => "; stopped]",
            Stop::String => "; stop string]",
            Stop::Grammar => "; no token fits the grammar]",
        })
    }
}
