//! set, reset: how the model answers.

use alloc::string::ToString;
use alloc::sync::Arc;

use embodios::Conversation;
use embodios::sampler::Settings;

use super::{Shell, Talker, capital, sentence};
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
        "speculate" => {} // the next answer asks for it
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
        Settings { seed, ..self.config.sampling }
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
        let free_now = self.platform.memory_free();
        let weights = bytes.saturating_sub(free_now.saturating_sub(free));
        let wanted = self.config.context.unwrap_or(old);
        let context = wanted.min(model.spec().context);
        if context < wanted {
            self.say(format_args!("The model was made for a context of {context} tokens, no more."));
        }
        let made = Conversation::new(Arc::clone(&model), context, sampling).or_else(|error| {
            self.say(sentence(error));
            self.config.context = Some(old);
            Conversation::new(model, old, sampling)
        });
        match made {
            Ok(mut conversation) => {
                conversation.set_system(self.config.system.clone());
                let context = conversation.session().context();
                let bytes = weights + free_now.saturating_sub(self.platform.memory_free());
                self.talker = Some(Talker { file, bytes, conversation });
                self.say(format_args!("The conversation starts afresh, with a context of {context} tokens."));
            }
            Err(error) => self.say(sentence(error)),
        }
    }
}
