//! The loop: a prompt in, text out piece by piece, why it stopped, and how fast it was.

mod overflow;

pub use overflow::Overflow;

use crate::chat::jinja::Date;
use crate::chat::{Role, Style, Template};
use crate::grammar::{Grammar, Matcher, Within};
use crate::model::Model;
use crate::sampler::{BREAKERS, Breakers, Sampler, Settings};
use crate::session::{GROUP, KvFormat, Runtime, Session, SessionError};
use crate::speculate::{Drafter, Speculation};
use crate::stops::Stops;
use crate::tokenizer::Utf8Stream;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What happens while an answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// So many tokens of the prompt have been run.
    Prefill {
        /// So far.
        done: usize,
        /// In all.
        total: usize,
    },
    /// The next piece of the answer: whole characters.
    Text(&'a str),
    /// The context was full: the oldest has been forgotten, and what stays is about to be read again.
    Forgotten {
        /// Whole messages, before an answer begins; 0 within an answer.
        messages: usize,
        /// Tokens.
        tokens: usize,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model said so.
    End,
    /// As many tokens as were asked for.
    Limit,
    /// The context is full.
    Context,
    /// The user asked to stop.
    Interrupted,
    /// A stop string came; the text ends before it.
    String,
    /// The grammar allows none of the model's tokens here.
    Grammar,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Tokens of the prompt that were run now.
    pub prompt_tokens: usize,
    /// Tokens that the cache held already.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub generated: usize,
    /// Tokens of the answer that were run, too: all but the last, which is where the answer ended, or all.
    pub decoded: usize,
    /// Forward passes that this took: fewer where guesses were right.
    pub passes: usize,
    /// Tokens that were guessed beforehand.
    pub drafted: usize,
    /// Time that the prompt took, in nanoseconds.
    pub prefill_nanos: u64,
    /// Time that the answer took, in nanoseconds.
    pub decode_nanos: u64,
    /// Bytes of weights that a forward pass reads.
    pub weight_bytes: u64,
    /// Why the answer ended.
    pub reason: Stop,
}

impl Report {
    /// Tokens a second through the prompt.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill_nanos)
    }
    /// Tokens a second through the answer.
    pub fn decode_rate(&self) -> f64 {
        rate(self.decoded, self.decode_nanos)
    }
    /// Gigabytes (10⁹) of weights read a second while decoding.
    pub fn gigabytes_per_second(&self) -> f64 {
        rate(self.passes, self.decode_nanos) * self.weight_bytes as f64 / 1e9
    }
    /// Guessed tokens that the model agreed with.
    pub fn accepted(&self) -> usize {
        self.decoded.saturating_sub(self.passes)
    }
    /// Tokens that a forward pass gave on average: 1 where nothing was guessed.
    pub fn tokens_per_pass(&self) -> f64 {
        self.decoded as f64 / self.passes.max(1) as f64
    }
}

fn rate(tokens: usize, nanos: u64) -> f64 {
    if nanos == 0 { 0.0 } else { tokens as f64 * 1e9 / nanos as f64 }
}

/// Before a model's thoughts.
const THOUGHT: &str = "<think>";

/// A conversation: turns of text over a session whose cache is kept, so that only what is new is prefilled.
pub struct Conversation {
    session: Session,
    sampler: Sampler,
    speculation: Speculation,
    overflow: Overflow,
    template: Arc<Template>,
    style: Style,
    system: Option<String>,
    turns: Vec<(Role, String)>,
    /// The text that the session's tokens, then `pending`, stand for.
    rendered: String,
    /// Tokens of the answer that have been shown but not yet run.
    pending: Vec<u32>,
    /// What ends a sequence for DRY, and whether the sampler has been told.
    breakers: Vec<String>,
    breakers_known: bool,
    stops: Stops,
    /// What answers have to obey.
    grammar: Option<Matcher>,
    /// Where the last answer ended at a stop string: bytes of it that the session's tokens stand for.
    settled: Option<usize>,
    /// No template: what is in the session is a text as it stands.
    raw: bool,
}

impl Conversation {
    /// An empty conversation with room for `context` tokens, whose keys and values are kept in binary16.
    pub fn new(model: Arc<Model>, context: usize, sampling: Settings) -> Result<Self, SessionError> {
        Self::with_kv(model, context, KvFormat::F16, sampling)
    }

    /// [`Self::new`] with keys and values kept in this format, as [`Session::with_kv`] says.
    pub fn with_kv(
        model: Arc<Model>,
        context: usize,
        kv: KvFormat,
        sampling: Settings,
    ) -> Result<Self, SessionError> {
        let sampler = Sampler::new(sampling, model.spec().vocabulary);
        let mut conversation = Self {
            template: Arc::clone(model.template()),
            style: Style::ANSWER,
            session: Session::with_kv(model, context, kv)?,
            sampler,
            speculation: Speculation::default(),
            overflow: Overflow::default(),
            system: None,
            turns: Vec::new(),
            rendered: String::new(),
            pending: Vec::with_capacity(1),
            breakers: BREAKERS.map(String::from).into(),
            breakers_known: false,
            stops: Stops::default(),
            grammar: None,
            settled: None,
            raw: false,
        };
        conversation.tell_breakers();
        Ok(conversation)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.session.model()
    }
    /// The session below.
    pub fn session(&self) -> &Session {
        &self.session
    }
    /// The session below, to set its batch size.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }
    /// How tokens are chosen.
    pub fn sampling(&self) -> &Settings {
        self.sampler.settings()
    }
    /// Chooses tokens in another way from now on; the random sequence starts anew from the seed.
    pub fn set_sampling(&mut self, sampling: Settings) {
        self.sampler.set(sampling);
        self.tell_breakers();
    }
    /// Sets what is added to the logits of some tokens; −∞ forbids one.
    pub fn set_bias(&mut self, bias: Vec<(u32, f32)>) {
        self.sampler.set_bias(bias);
    }
    /// Sets the texts that end a sequence that DRY looks for.
    pub fn set_breakers(&mut self, breakers: Vec<String>) {
        self.breakers = breakers;
        self.breakers_known = false;
        self.tell_breakers();
    }
    /// Looks through the vocabulary for breakers, once they are needed.
    fn tell_breakers(&mut self) {
        if !self.breakers_known && self.sampler.settings().breaks_repetition() {
            let texts = self.breakers.iter().map(String::as_str);
            self.sampler.set_breakers(Breakers::new(self.session.model().tokenizer(), texts));
            self.breakers_known = true;
        }
    }
    /// The texts at which an answer ends.
    pub fn stops(&self) -> &[String] {
        self.stops.strings()
    }
    /// Ends answers before these texts.
    pub fn set_stops(&mut self, strings: impl Iterator<Item = String>) {
        self.stops = Stops::new(strings);
    }
    /// Lets answers be texts of a grammar only; each begins it anew.
    pub fn set_grammar(&mut self, grammar: Option<Arc<Grammar>>) {
        self.grammar = grammar.map(Matcher::new);
    }
    /// Whether tokens are guessed beforehand.
    pub fn speculation(&self) -> Speculation {
        self.speculation
    }
    /// Sets how many tokens are guessed beforehand, where the likeliest token is always the next one. The text is the
    /// same for all.
    pub fn set_speculation(&mut self, speculation: Speculation) {
        self.speculation = speculation;
    }
    /// What happens when the context is full.
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }
    /// Sets what happens when the context is full.
    pub fn set_overflow(&mut self, overflow: Overflow) {
        self.overflow = overflow;
    }
    /// The system message, if one was set; else the template's own applies.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }
    /// Sets the system message and starts the conversation anew.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
        self.reset();
    }
    /// The chat template in use.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }
    /// Uses another chat template and starts the conversation anew.
    pub fn set_template(&mut self, template: Arc<Template>) {
        self.template = template;
        self.reset();
    }
    /// Whether the model is asked to think before it answers; `None` leaves it to the template.
    pub fn thinking(&self) -> Option<bool> {
        self.style.thinking
    }
    /// Sets from the next turn on whether the model is asked to think. Only templates that know how listen.
    pub fn set_thinking(&mut self, thinking: Option<bool>) {
        self.style.thinking = thinking;
    }
    /// Sets what day templates are told it is.
    pub fn set_date(&mut self, date: Option<Date>) {
        self.style.date = date;
    }
    /// Forgets all turns. The random sequence starts anew, so the same words get the same answers.
    pub fn reset(&mut self) {
        self.session.rewind(0);
        self.turns.clear();
        self.rendered.clear();
        self.pending.clear();
        self.sampler.set(*self.sampler.settings());
    }

    /// One turn: `text` from the user, an answer of at most `limit` tokens from the model, shown through `sink`.
    ///
    /// After an error, or when stopped before the first token, the conversation is as it was.
    pub fn say(
        &mut self,
        text: &str,
        limit: usize,
        runtime: &Runtime<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Report, SessionError> {
        let mut prompt = self.render(0, text)?;
        let (kept, pending) = (self.session.position(), self.pending.clone());
        let (mut rewritten, mut forgotten) = (false, 0);
        let continued = prompt.strip_prefix(self.rendered.as_str()).map(|rest| {
            let mut new = pending.clone();
            new.extend(self.tokens_of(rest, kept == 0));
            new
        });
        let continued = continued.filter(|new| self.leaves_room(kept + new.len(), limit) || !self.forgets());
        let new = match continued {
            Some(new) => new,
            // A template that rewrites earlier turns, or too many of them: all is rendered anew, and what still agrees is
            // kept.
            None => {
                let mut all = self.tokens_of(&prompt, true);
                if self.forgets() && !self.leaves_room(all.len(), limit) {
                    let before = all.len();
                    let shorter = self.shortened(text)?;
                    (prompt, all, forgotten) = (shorter.text, shorter.tokens, shorter.forgotten);
                    self.fits(&all)?;
                    let tokens = before.saturating_sub(all.len());
                    sink(Event::Forgotten { messages: forgotten, tokens });
                }
                let same = all.iter().zip(self.session.tokens()).take_while(|(a, b)| a == b).count();
                let same = same.min(all.len().saturating_sub(1));
                self.fits(&all)?;
                rewritten = true;
                all.split_off(self.session.rewind(same))
            }
        };
        self.raw = false;
        // A prompt may end with the beginning of a thought: it is shown, and belongs to what the model said.
        let opened = if prompt.trim_end().ends_with(THOUGHT) { prompt.rfind(THOUGHT) } else { None };
        let opened = &prompt[opened.unwrap_or(prompt.len())..];
        let mut answer = String::new();
        let report = self.run(&new, limit, runtime, &mut |event| {
            if let Event::Text(piece) = event {
                if answer.is_empty() && !opened.is_empty() {
                    sink(Event::Text(opened));
                }
                answer.push_str(piece);
            }
            sink(event);
        })?;
        if report.generated == 0 && report.reason == Stop::Interrupted {
            if rewritten || self.session.rewind(kept) < kept {
                self.start_over();
            } else {
                self.pending = pending;
            }
            return Ok(report);
        }
        let said = [opened, &answer].concat();
        self.rendered = prompt;
        self.rendered.push_str(&answer[..self.settled.unwrap_or(answer.len())]);
        if self.session.position() == 0 {
            // Stopped while the rest was read again: the next message reads all.
            self.start_over();
        }
        self.turns.drain(..forgotten);
        self.turns.push((Role::User, text.into()));
        self.turns.push((Role::Assistant, said));
        Ok(report)
    }

    /// Whether old messages can be forgotten for the next.
    fn forgets(&self) -> bool {
        self.overflow == Overflow::Shift && !self.turns.is_empty()
    }

    /// Empties the session, but forgets no turn.
    fn start_over(&mut self) {
        self.session.rewind(0);
        self.rendered.clear();
        self.pending.clear();
    }

    /// The tokens of a rendered prompt, or of what comes after its beginning. A template that writes the start token
    /// itself does not get a second one from the tokenizer.
    fn tokens_of(&self, prompt: &str, begins: bool) -> Vec<u32> {
        let tokenizer = self.session.model().tokenizer();
        let mut tokens = tokenizer.encode(prompt, begins, true);
        if let Some(bos) = tokenizer.bos()
            && begins
            && tokens.starts_with(&[bos, bos])
            && prompt.as_bytes().starts_with(tokenizer.piece(bos))
        {
            tokens.remove(0);
        }
        tokens
    }

    /// Continues `text` as it stands, without a template, from an empty context. The conversation is forgotten.
    pub fn complete(
        &mut self,
        text: &str,
        limit: usize,
        runtime: &Runtime<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Report, SessionError> {
        let tokens = self.session.model().tokenizer().encode(text, true, true);
        self.fits(&tokens)?;
        self.reset();
        self.raw = true;
        let report = self.run(&tokens, limit, runtime, sink);
        self.reset();
        report
    }

    /// Whether a whole prompt fits into an empty context: asked before anything is forgotten for it.
    fn fits(&self, tokens: &[u32]) -> Result<(), SessionError> {
        let (tokens, context) = (tokens.len(), self.session.context());
        if tokens > context { Err(SessionError::Full { tokens, used: 0, context }) } else { Ok(()) }
    }

    /// Prefills `new`, then decodes.
    fn run(
        &mut self,
        new: &[u32],
        limit: usize,
        runtime: &Runtime<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Report, SessionError> {
        let model = self.session.model().clone();
        let (tokenizer, before) = (model.tokenizer(), self.session.position());
        let mut report = Report {
            prompt_tokens: new.len(),
            cached_tokens: before,
            generated: 0,
            decoded: 0,
            passes: 0,
            drafted: 0,
            prefill_nanos: 0,
            decode_nanos: 0,
            weight_bytes: model.weight_bytes(),
            reason: Stop::Limit,
        };
        let start = (runtime.nanos)();
        let total = new.len();
        sink(Event::Prefill { done: 0, total });
        let mut progress = |done| sink(Event::Prefill { done, total });
        let likeliest = self.sampler.takes_likeliest() && self.grammar.is_none();
        // Where the likeliest token is always the next one: what comes after each token of the last pass.
        let mut next = [0; GROUP];
        let fed = if likeliest {
            self.session.feed_likeliest(new, &mut next[..1], runtime, &mut progress)
        } else {
            self.session.feed_reporting(new, runtime, &mut progress).map(|_| ())
        };
        match fed {
            Ok(()) => {}
            Err(SessionError::Stopped) => {
                report.reason = Stop::Interrupted;
                report.prompt_tokens = 0;
                return Ok(report);
            }
            Err(error) => return Err(error),
        }
        self.pending.clear();
        let middle = (runtime.nanos)();
        report.prefill_nanos = middle.saturating_sub(start);
        let speculation = if likeliest { self.speculation } else { Speculation::Off };
        let mut drafter = Drafter::new(speculation, model.level());
        let mut characters = Utf8Stream::new();
        let mut pass = [0; GROUP];
        // Tokens run that belong to the text so far; those past them were right guesses that are about to be shown.
        let mut kept = self.session.position();
        let (answer, mut forgotten) = (kept, 0);
        let mut sure = 1;
        self.stops.begin();
        if let Some(matcher) = &mut self.grammar {
            matcher.reset();
        }
        // Bytes of text shown; and when nothing was held back last: how many, and after how many tokens.
        let mut shown = 0;
        let mut settled = (0, kept);
        self.settled = None;
        report.reason = 'answer: loop {
            for (index, token) in next[..sure].iter_mut().enumerate() {
                kept += usize::from(index > 0);
                self.pending.clear();
                if report.generated == limit {
                    break 'answer Stop::Limit;
                }
                if (runtime.stop)() {
                    break 'answer Stop::Interrupted;
                }
                if !likeliest {
                    let (logits, recent) = self.session.logits_and_tokens();
                    *token = match &mut self.grammar {
                        None => self.sampler.sample(logits, recent),
                        Some(matcher) => {
                            let mut within = Within { matcher, tokenizer };
                            match self.sampler.sample_within(logits, recent, &mut within) {
                                Some(token) if matcher.accept(token, tokenizer) => token,
                                _ => break 'answer Stop::Grammar,
                            }
                        }
                    };
                }
                let token = *token;
                if tokenizer.is_end(token) {
                    break 'answer Stop::End;
                }
                report.generated += 1;
                let piece = if tokenizer.is_special(token) { &[][..] } else { tokenizer.piece(token) };
                let (text, stopped) = self.stops.push(characters.push(piece));
                shown += text.len();
                if !text.is_empty() {
                    sink(Event::Text(text));
                }
                if stopped {
                    self.settled = Some(settled.0);
                    break 'answer Stop::String;
                }
                if characters.is_empty() && !self.stops.is_holding() {
                    settled = (shown, kept + 1);
                }
                self.pending.push(token);
                if self.grammar.as_ref().is_some_and(Matcher::must_end) {
                    break 'answer Stop::End;
                }
            }
            if report.generated == limit {
                break Stop::Limit;
            }
            let room = (limit - report.generated).min(self.session.context() - kept).saturating_sub(1);
            let count = drafter.draft(self.session.tokens(), next[sure - 1], room, &mut pass);
            let tokens = &pass[..count];
            // Nothing is run behind a guessed end, nor the end itself.
            let end = tokens[1..].iter().position(|&token| tokenizer.is_end(token));
            let tokens = &tokens[..end.map_or(count, |end| 1 + end)];
            let fed = if likeliest {
                self.session.feed_likeliest(tokens, &mut next[..tokens.len()], runtime, &mut |_| {})
            } else {
                self.session.feed(tokens, runtime).map(|_| ())
            };
            match fed {
                Ok(()) => {}
                Err(SessionError::Full { .. }) => {
                    let before = (runtime.nanos)();
                    match self.shift(pass[0], likeliest.then_some(&mut next[..1]), runtime, sink) {
                        Ok(Some((tokens, read))) => {
                            (kept, forgotten) = (kept - tokens, forgotten + tokens);
                            settled.1 = settled.1.saturating_sub(tokens);
                            report.prompt_tokens += read;
                            report.prefill_nanos += (runtime.nanos)().saturating_sub(before);
                        }
                        Ok(None) => break Stop::Context,
                        Err(SessionError::Stopped) => break Stop::Interrupted,
                        Err(error) => return Err(error),
                    }
                }
                Err(SessionError::Stopped) => break Stop::Interrupted,
                Err(error) => return Err(error),
            }
            let accepted = tokens[1..].iter().zip(&next).take_while(|(guess, model)| guess == model).count();
            drafter.learn(tokens.len() - 1, accepted);
            (report.passes, report.drafted) = (report.passes + 1, report.drafted + tokens.len() - 1);
            kept += 1;
            sure = 1 + accepted;
            self.session.rewind(kept + accepted);
        };
        report.decoded = kept + forgotten - answer;
        // What a stop began with may have been run: it is taken back, with all of its tokens.
        self.session.rewind(if self.settled.is_some() { settled.1 } else { kept });
        if report.reason != Stop::String {
            let rest = characters.finish();
            for rest in [self.stops.rest(), &rest] {
                if !rest.is_empty() {
                    sink(Event::Text(rest));
                }
            }
        }
        // Reading again is no decoding.
        let reread = report.prefill_nanos.saturating_sub(middle.saturating_sub(start));
        report.decode_nanos = (runtime.nanos)().saturating_sub(middle).saturating_sub(reread);
        Ok(report)
    }
}
