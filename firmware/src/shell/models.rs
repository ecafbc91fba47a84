//! models, load, tokens: what is on the card, and how a model reads.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write;

use embodios::gguf::Gguf;
use embodios::sampler::Asked;
use embodios::{Conversation, LoadError};

use super::{Shell, Talker, capital, sentence};
use crate::light::Signal;
use crate::loader::{self, Fit, Loaded, Mib, Source};

/// `models`: name, size, and whether it fits. Reads each file's header.
pub fn models(shell: &mut Shell, _: &str) {
    if let Some(model) = shell.platform.preloaded() {
        let loaded = shell.talker.as_ref().is_some_and(|talker| talker.file == loader::PRELOADED);
        let verdict = if loaded { "loaded" } else { "`load preloaded` loads it again" };
        shell.say(format_args!(
            "     {}, {}: {verdict}",
            loader::PRELOADED,
            Mib(embodios::ByteSource::len(&model))
        ));
    }
    let files = match loader::models(shell.platform) {
        Ok(files) => files,
        Err(why) => return shell.say(why),
    };
    if files.is_empty() {
        return shell.say("There is no .gguf file in the card's root directory: copy one there.");
    }
    let free = shell.free_without_model();
    for (n, file) in files.iter().enumerate() {
        if shell.platform.interrupted() {
            return shell.interrupt_served();
        }
        let loaded = shell.talker.as_ref().is_some_and(|talker| talker.file == file.name);
        let verdict = match loader::open_bytes(shell.platform, &file.name) {
            _ if loaded => "loaded".into(),
            Err(why) => why,
            Ok(bytes) => {
                let source = Source { name: file.name.clone(), bytes };
                let holds = |pieces: &[u64]| shell.platform.memory_holds(pieces);
                let fits = Gguf::open(&*source.bytes)
                    .map_err(LoadError::from)
                    .and_then(|gguf| loader::plan(&gguf, &source, shell.config.needs(), free, holds));
                match fits.map(|plan| plan.fit) {
                    Ok(Fit::Whole(context)) => format!("fits, context {context}"),
                    Ok(Fit::Less(context)) => format!("fits with a context of {context}"),
                    Ok(Fit::Not(need)) => format!("too big: needs {}, {} is free", Mib(need), Mib(free)),
                    Ok(Fit::Scattered(need)) => {
                        let (need, free) = (Mib(need), Mib(free));
                        format!("too big: needs {need}, {free} is free in shorter stretches")
                    }
                    Err(why) => why.to_string(),
                }
            }
        };
        shell.say(format_args!("{:3}  {}, {}: {verdict}", n + 1, file.name, Mib(file.bytes)));
    }
}

/// `load NAME`.
pub fn load(shell: &mut Shell, name: &str) {
    match loader::open(shell.platform, name) {
        Ok(source) => shell.take(&source),
        Err(why) => shell.say(capital(why)),
    }
}

/// `tokens TEXT`: ids and pieces, wrapped.
pub fn tokens(shell: &mut Shell, text: &str) {
    let Some(talker) = shell.talker() else { return };
    let model = talker.conversation.model().clone();
    let ids = model.tokenizer().encode(text, false, true);
    let mut row = String::new();
    for &id in &ids {
        let token = format!("{id} {}", quoted(model.tokenizer().piece(id)));
        if !row.is_empty() && row.chars().count() + token.chars().count() > 76 {
            shell.say(core::mem::take(&mut row));
        }
        let _ = write!(row, "{}{token}", if row.is_empty() { "" } else { "  " });
    }
    shell.say(row);
    shell.say(format_args!("{} tokens", ids.len()));
}

/// Bytes in quotes: as text where they are text.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let _ = write!(out, "{}", chunk.valid().escape_debug());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

impl Shell<'_> {
    /// Bytes a model could take if the present one were gone.
    pub fn free_without_model(&self) -> u64 {
        self.platform.memory_free() + self.talker.as_ref().map_or(0, |talker| talker.bytes)
    }

    /// Puts this model in the place of the present one, which stays if the new one can't be used.
    pub fn take(&mut self, source: &Source) {
        self.platform.signal(Signal::ModelRefused); // unless the card fails, or it is loaded
        self.try_to_take(source);
        if self.talker.is_some() {
            self.platform.signal(Signal::Ready);
        }
    }

    fn try_to_take(&mut self, source: &Source) {
        self.say(format_args!("Loading {}, {}", source.name, Mib(source.bytes.len())));
        let start = self.platform.nanos();
        let free = self.free_without_model();
        let wanted = self.config.needs();
        let Some((opened, context)) = loader::check(&mut self.console, self.platform, source, wanted, free)
        else {
            return;
        };
        self.talker = None; // its memory is what the next one gets
        self.last = None;
        let before = self.platform.memory_free();
        let loaded = loader::load(
            &mut self.console,
            self.platform,
            source,
            opened,
            (context, self.config.kv),
            self.level,
        );
        let Some(Loaded { model, context }) = loaded else { return };
        let sampling = self.sampling(&Asked::by(model.metadata()));
        match Conversation::with_kv(model, context, self.config.kv, sampling) {
            Ok(conversation) => {
                let bytes = before.saturating_sub(self.platform.memory_free());
                let name = String::from(conversation.model().name());
                for warning in conversation.model().warnings() {
                    self.say(sentence(warning));
                }
                self.talker = Some(Talker { file: source.name.clone(), bytes, conversation });
                self.prepare();
                let seconds = (self.platform.nanos() - start) as f64 / 1e9;
                self.say(format_args!(
                    "{name} is loaded, with a context of {context} tokens, in {seconds:.1} s."
                ));
            }
            Err(error) => self.say(sentence(error)),
        }
    }
}
