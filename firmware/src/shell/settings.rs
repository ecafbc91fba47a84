//! set, reset: how the model answers.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use embodios::Conversation;
use embodios::chat::{Specials, Template};
use embodios::grammar::{Form, Grammar};
use embodios::sampler::{Asked, Settings};
use embodios::tokenizer::Tokenizer;

use super::{Shell, Talker, capital, sentence};
use crate::Platform;
use crate::config::{Config, Setting, Wanted, settings, unquoted};

/// Larger than this a file is no grammar.
const GRAMMAR_LIMIT: u64 = 256 * 1024;

/// `set`, `set KEY`, `set KEY VALUE`.
pub fn set(shell: &mut Shell, rest: &str) {
    let (key, value) = match rest.split_once(|c: char| c.is_whitespace() || c == '=') {
        Some((key, value)) => (key, value.trim_start().trim_start_matches('=').trim()),
        None => (rest, ""),
    };
    let asked = shell.asked();
    if key.is_empty() {
        for setting in settings() {
            let value = setting.show(&shell.config, &asked);
            shell.say(format_args!("{:18} {value}", setting.name()));
        }
        return;
    }
    if value.is_empty() {
        return match Setting::named(key) {
            Ok(setting) => {
                let (name, now, accepts) =
                    (setting.name(), setting.show(&shell.config, &asked), setting.accepts());
                shell.say(format_args!("{name} is {now}. It takes {accepts}."));
            }
            Err(why) => shell.say(capital(why.to_string())),
        };
    }
    let before = shell.config.clone();
    let setting = match shell.config.set(key, &unquoted(value)) {
        Ok(setting) => setting,
        Err(why) => return shell.say(capital(why.to_string())),
    };
    if shell.config.form != before.form && !shell.take_form() {
        shell.config.form = before.form;
        return;
    }
    shell.lines.forget(setting.name());
    let value = setting.show(&shell.config, &asked);
    shell.say(format_args!("{} is {value}", setting.name()));
    match setting.name() {
        "ctx" | "kv" if (shell.config.context, shell.config.kv) != (before.context, before.kv) => {
            shell.change_context(&before);
        }
        "console" => shell.choose_console(),
        "prefetch" => shell.choose_prefetch(),
        "model" => shell.say("`load NAME` loads a model now; this setting is for EMBODIOS.CFG."),
        "system" | "template" => {
            shell.prepare();
            if shell.talker.is_some() {
                shell.say("The conversation starts afresh with it.");
            }
        }
        "think" => {
            shell.prepare_next();
            let deaf = |talker: &Talker| !talker.conversation.template().switches_thinking();
            if shell.config.thinking.is_some() && shell.talker.as_ref().is_some_and(deaf) {
                shell.say("This model's template knows no such switch: it makes no difference.");
            }
        }
        "logit_bias" => {
            shell.prepare_next();
            shell.check_bias();
        }
        _ => shell.prepare_next(),
    }
}

/// `reset`.
pub fn reset(shell: &mut Shell, _: &str) {
    if shell.talker().is_none() {
        return;
    }
    shell.prepare_next(); // from the beginning of the seed's sequence
    if let Some(talker) = &mut shell.talker {
        talker.conversation.reset();
    }
    shell.say("The conversation is forgotten.");
}

impl Shell<'_> {
    /// What the model's file says about sampling.
    pub fn asked(&self) -> Asked {
        let file = |talker: &Talker| Asked::by(talker.conversation.model().metadata());
        self.talker.as_ref().map_or_else(Asked::default, file)
    }

    /// The sampler's settings for a file that asks for these, with a seed.
    pub fn sampling(&self, asked: &Asked) -> Settings {
        let seed = self.config.seed.unwrap_or_else(|| self.platform.random_seed());
        Settings { seed, ..self.config.sampling.over(asked.settings) }
    }

    /// Tells the conversation all that is set: it starts afresh.
    pub fn prepare(&mut self) {
        let Some(talker) = &mut self.talker else { return };
        let conversation = &mut talker.conversation;
        conversation.set_system(self.config.system.clone());
        let model = Arc::clone(conversation.model());
        let named = |name: &String| Template::named(name, Specials::of(model.tokenizer()));
        let template = self.config.template.as_ref().and_then(named);
        conversation.set_template(template.unwrap_or_else(|| Arc::clone(model.template())));
        self.take_form();
        self.prepare_next();
        self.check_bias();
    }

    /// Says which tokens with a bias the model does not have.
    fn check_bias(&mut self) {
        let Some(talker) = &self.talker else { return };
        let vocabulary = talker.conversation.model().spec().vocabulary;
        let unknown =
            self.config.bias.iter().map(|(token, _)| *token).find(|token| *token as usize >= vocabulary);
        if let Some(token) = unknown {
            let last = vocabulary.saturating_sub(1);
            self.say_of(
                "logit_bias",
                format_args!("The model has no token {token}: its last is {last}. This bias does nothing."),
            );
        }
    }

    /// Tells the conversation what is set about the next answers.
    pub fn prepare_next(&mut self) {
        let sampling = self.sampling(&self.asked());
        let Some(talker) = &mut self.talker else { return };
        let (conversation, config) = (&mut talker.conversation, &self.config);
        conversation.set_sampling(sampling);
        conversation.set_bias(config.bias.clone());
        conversation.set_stops(config.stops.iter().cloned());
        conversation.set_overflow(config.overflow);
        conversation.set_speculation(config.speculation);
        conversation.set_thinking(config.thinking);
    }

    /// Makes the wanted form of answers the conversation's; if it can't be, says why.
    fn take_form(&mut self) -> bool {
        let key = self.config.form_key().unwrap_or_default();
        let grammar = match &self.config.form {
            None => None,
            Some(form) => {
                let model = self.talker.as_ref().map(|talker| Arc::clone(talker.conversation.model()));
                let tokenizer = model.as_ref().map(|model| model.tokenizer());
                match grammar(self.platform, form, tokenizer) {
                    Ok((grammar, ignored)) => {
                        if !ignored.is_empty() {
                            let list = ignored.join(", ");
                            self.say_of(
                                key,
                                format_args!("The schema asks for what is not enforced: {list}."),
                            );
                        }
                        Some(Arc::new(grammar))
                    }
                    Err(why) => {
                        self.say_of(key, sentence(why));
                        return false;
                    }
                }
            }
        };
        if let Some(talker) = &mut self.talker {
            talker.conversation.set_grammar(grammar);
        }
        true
    }

    /// Tells the board which console was chosen.
    pub fn choose_console(&mut self) {
        if let Some(name) = self.config.console.clone() {
            self.console.fresh_line();
            if let Err(why) = self.platform.set_console(&name) {
                self.say_of("console", why);
            }
        }
    }

    /// Has the cores prefetch as configured; if that can't be, says why.
    pub fn choose_prefetch(&mut self) {
        if let Some(distance) = self.config.prefetch
            && let Err(why) = self.platform.set_prefetch(distance)
        {
            self.config.prefetch = None;
            self.say_of("prefetch", format_args!("`prefetch` stays off: {}", sentence(why)));
        }
    }

    /// Gives the model a cache of the new size or format. The weights stay where they are.
    fn change_context(&mut self, before: &Config) {
        let sampling = self.sampling(&self.asked());
        let Some(Talker { file, bytes, conversation }) = self.talker.take() else { return };
        let (model, old) = (Arc::clone(conversation.model()), conversation.session().context());
        let free = self.platform.memory_free();
        drop(conversation);
        let free_now = self.platform.memory_free();
        let weights = bytes.saturating_sub(free_now.saturating_sub(free));
        let wanted = self.config.context.unwrap_or(old);
        let context = wanted.min(model.spec().context);
        if context < wanted {
            self.say(format_args!("The model was made for a context of {context} tokens, no more."));
        }
        let kv = self.config.kv;
        if !kv.fits(model.spec()) {
            let size = model.spec().head_size;
            self.say(format_args!("Heads of {size} values can't be kept in {kv}: they are kept in f16."));
        }
        let made = Conversation::with_kv(Arc::clone(&model), context, kv, sampling).or_else(|error| {
            self.say(sentence(error));
            (self.config.context, self.config.kv) = (Some(old), before.kv);
            Conversation::with_kv(model, old, before.kv, sampling)
        });
        match made {
            Ok(conversation) => {
                let context = conversation.session().context();
                let bytes = weights + free_now.saturating_sub(self.platform.memory_free());
                self.talker = Some(Talker { file, bytes, conversation });
                self.prepare();
                self.say(format_args!("The conversation starts afresh, with a context of {context} tokens."));
            }
            Err(error) => self.say(sentence(error)),
        }
    }
}

/// The grammar of a form of answers, for the tokens of a model, or read without one to see whether it is sound; and what a
/// schema asks for that is not enforced.
pub fn grammar(
    platform: &mut dyn Platform,
    form: &Wanted,
    tokenizer: Option<&Tokenizer>,
) -> Result<(Grammar, Vec<String>), String> {
    let read = match form {
        Wanted::Form(form) => form.grammar(tokenizer),
        Wanted::File(name) => Form::Gbnf(read_grammar(platform, name)?).grammar(tokenizer),
    };
    read.map_err(|error| error.to_string())
}

/// The text of a grammar on the card; `.gbnf` may be left out.
fn read_grammar(platform: &mut dyn Platform, name: &str) -> Result<String, String> {
    let files = platform.files()?;
    let same = |wanted: &str| files.iter().find(|file| file.name.eq_ignore_ascii_case(wanted));
    let Some(file) = same(name).or_else(|| same(&format!("{name}.gbnf"))) else {
        return Err(format!("there is no file `{name}` on the card, and a grammar has a rule `root ::= …`"));
    };
    if file.bytes > GRAMMAR_LIMIT {
        return Err(format!("{} has {} bytes, which no grammar needs", file.name, file.bytes));
    }
    let mut bytes = alloc::vec![0; file.bytes as usize];
    let source = platform.open(&file.name)?;
    source.read_at(0, &mut bytes).map_err(|error| format!("{} can't be read: {error}", file.name))?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", file.name))
}

impl Talker {
    /// The template in use, in words.
    pub fn template(&self) -> String {
        let template = self.conversation.template();
        match template.name() {
            None => "the model's own".into(),
            Some(name) if Arc::ptr_eq(template, self.conversation.model().template()) => {
                format!("{name}, since the file has none that can be used")
            }
            Some(name) => format!("{name}, as set"),
        }
    }
}
