//! set, reset: how the model answers.

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use embodios::Conversation;
use embodios::sampler::Settings;

use super::{Shell, Talker, capital};
use crate::config::{self, KEYS, unquoted};

/// `set`, `set KEY`, `set KEY VALUE`.
pub fn set(shell: &mut Shell, rest: &str) {
    let (key, value) = match rest.split_once(|c: char| c.is_whitespace() || c == '=') {
        Some((key, value)) => (key, value.trim_start().trim_start_matches('=').trim()),
        None => (rest, ""),
    };
    if key.is_empty() {
        for key in KEYS {
            let value = (key.show)(&shell.config);
            shell.say(format_args!("{:15} {value}", key.name));
        }
        return;
    }
    if value.is_empty() {
        return match config::key(key) {
            Ok(key) => {
                let now = (key.show)(&shell.config);
                shell.say(format_args!("{} is {now}. It takes {}.", key.name, key.accepts));
            }
            Err(why) => shell.say(capital(why.to_string())),
        };
    }
    let before = shell.config.clone();
    let key = match shell.config.set(key, &unquoted(value)) {
        Ok(key) => key,
        Err(why) => return shell.say(capital(why.to_string())),
    };
    let value = (key.show)(&shell.config);
    shell.say(format_args!("{} is {value}", key.name));
    match key.name {
        "ctx" if shell.config.context != before.context => shell.change_context(),
        "console" => shell.choose_console(),
        "model" => shell.say("`load NAME` loads a model now; this setting is for EMBODIOS.CFG."),
        "system" => {
            let system = shell.config.system.clone();
            if let Some(talker) = &mut shell.talker {
                talker.conversation.set_system(system);
                talker.conversation.reset();
                shell.say("The conversation starts afresh with it.");
            }
        }
        _ => {
            let sampling = shell.sampling();
            if let Some(talker) = &mut shell.talker {
                talker.conversation.set_sampling(sampling);
            }
        }
    }
}

/// `reset`.
pub fn reset(shell: &mut Shell, _: &str) {
    let sampling = shell.sampling();
    let Some(talker) = shell.talker() else { return };
    talker.conversation.reset();
    talker.conversation.set_sampling(sampling); // from the beginning of the seed's sequence
    shell.say("The conversation is forgotten.");
}

impl Shell<'_> {
    /// The sampler's settings, with a seed.
    pub fn sampling(&self) -> Settings {
        let seed = self.config.seed.unwrap_or_else(|| self.platform.random_seed());
        Settings { seed, ..self.config.sampling.clone() }
    }

    /// Tells the board which console was chosen.
    pub fn choose_console(&mut self) {
        if let Some(name) = self.config.console.clone() {
            self.console.fresh_line();
            if let Err(why) = self.platform.set_console(&name) {
                self.say(why);
            }
        }
    }

    /// Gives the model a cache of the new size. The weights stay where they are.
    fn change_context(&mut self) {
        let sampling = self.sampling();
        let Some(Talker { file, bytes, conversation }) = self.talker.take() else { return };
        let (model, old) = (Arc::clone(conversation.model()), conversation.session().context());
        let free = self.platform.memory_free();
        drop(conversation);
        let cache = self.platform.memory_free().saturating_sub(free);
        let trained = model.spec().context;
        let wanted = self.config.context.unwrap_or(old).min(trained);
        let free = self.platform.memory_free();
        let made = Conversation::new(Arc::clone(&model), wanted, sampling.clone());
        let mut made = match made {
            Ok(made) => made,
            Err(error) => {
                self.say(super::sentence(error));
                match Conversation::new(model, old, sampling) {
                    Ok(made) => made,
                    Err(error) => return self.say(super::sentence(error)),
                }
            }
        };
        made.set_system(self.config.system.clone());
        let context = made.session().context();
        let taken = free.saturating_sub(self.platform.memory_free());
        let bytes = bytes.saturating_sub(cache) + taken;
        self.talker = Some(Talker { file: String::from(file.as_str()), bytes, conversation: made });
        self.say(format_args!("The conversation starts afresh, with a context of {context} tokens."));
    }
}
