//! Chat templates: how turns become one prompt.
//!
//! What counts is the Jinja program in the file (`tokenizer.chat_template`). It is read once, tried on a small
//! conversation, and run for every turn. One that can't be used is a [`ChatError`] that says why and where, and one of
//! the [built-in templates](builtin::BUILT_IN) takes its place.

pub mod builtin;
pub mod jinja;

use crate::gguf::{GgufError, Metadata};
use crate::tokenizer::Tokenizer;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use builtin::BuiltIn;
use core::fmt;
use jinja::{Date, Error, Program, Value, What};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sets the scene.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The role's name inside prompts.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One thing said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: &'a str,
}

/// How a prompt is to be rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether it ends where the model is to speak.
    pub generation_prompt: bool,
    /// Whether the model is to think before it answers; `None` leaves it to the template.
    pub thinking: Option<bool>,
    /// What day it is, if anybody knows.
    pub date: Option<Date>,
}

impl Style {
    /// A prompt to be answered.
    pub const ANSWER: Self = Self { generation_prompt: true, thinking: None, date: None };
}

/// Texts of the tokens that a template may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    /// Begins a text.
    pub bos: String,
    /// Ends it.
    pub eos: String,
}

impl Specials {
    /// Those of a vocabulary.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let text = |token: Option<u32>| {
            token
                .map(|token| String::from_utf8_lossy(tokenizer.piece(token)).into_owned())
                .unwrap_or_default()
        };
        Self { bos: text(tokenizer.bos()), eos: text(tokenizer.eos()) }
    }
}

/// A template that was read and tried.
#[derive(Debug)]
pub struct Template {
    built_in: Option<&'static BuiltIn>,
    program: Program,
    specials: Specials,
    takes_system: bool,
    /// Whether `tools` is defined, as none: some templates want that, some take it for a list all the same.
    defines_tools: bool,
}

/// What the trial conversation says.
const TRIAL: [Turn; 4] = [
    Turn { role: Role::System, content: "Be brief." },
    Turn { role: Role::User, content: "Hello" },
    Turn { role: Role::Assistant, content: "Hi" },
    Turn { role: Role::User, content: "Bye" },
];

impl Template {
    /// Reads a Jinja program and tries it.
    pub fn new(program: &str, specials: Specials) -> Result<Self, Error> {
        let program = Program::parse(program)?;
        let mut template =
            Self { built_in: None, program, specials, takes_system: true, defines_tools: true };
        let [system, first, ..] = TRIAL;
        let says = |prompt: &str, turn: Turn| prompt.contains(turn.content);
        let first_try = template.render(&TRIAL[1..], Style::ANSWER);
        if first_try.is_err() {
            template.defines_tools = false;
            template.render(&TRIAL[1..], Style::ANSWER).or(first_try)?;
        }
        let prompt = template.render(&[first], Style::ANSWER)?;
        if !says(&prompt, first) {
            let message = "nothing of what the user said".into();
            return Err(What::Raised { message }.at(1));
        }
        // Some refuse a system turn, some leave it out without a word.
        let prompt = template.render(&[system, first], Style::ANSWER);
        template.takes_system = prompt.is_ok_and(|prompt| says(&prompt, system));
        Ok(template)
    }

    fn built_in(row: &'static BuiltIn, specials: Specials) -> Option<Self> {
        let template = Self::new(row.program, specials).ok()?;
        Some(Self { built_in: Some(row), ..template })
    }

    /// The built-in template of this name.
    pub fn named(name: &str, specials: Specials) -> Option<Arc<Self>> {
        Self::built_in(builtin::named(name)?, specials).map(Arc::new)
    }

    /// The template of a model: the file's own, or what stands in for it, and why.
    ///
    /// `None` only if the built-in templates themselves were broken.
    pub fn of(metadata: &Metadata, tokenizer: &Tokenizer) -> Option<(Arc<Self>, Option<ChatError>)> {
        let specials = Specials::of(tokenizer);
        let has = |mark: &str| tokenizer.token(mark).is_some();
        let (why, row) = match metadata.opt_string("tokenizer.chat_template") {
            Ok(Some(program)) => match Self::new(program, specials.clone()) {
                Ok(template) => return Some((Arc::new(template), None)),
                Err(error) => (
                    Failure::Unusable(error),
                    builtin::recognised(|mark| program.contains(mark)).or_else(|| builtin::recognised(has)),
                ),
            },
            Ok(None) => (Failure::Missing, builtin::recognised(has)),
            Err(error) => (Failure::Metadata(error), builtin::recognised(has)),
        };
        let row = row.or(builtin::named(FALL_BACK))?;
        let template = Self::built_in(row, specials)?;
        Some((Arc::new(template), Some(ChatError { why, fall_back: row.name })))
    }

    /// The name of a built-in template; the file's own has none.
    pub fn name(&self) -> Option<&'static str> {
        self.built_in.map(|row| row.name)
    }

    /// Whether it has a place for a system turn. If not, [`render`](Self::render) puts it before the user's first words.
    pub fn takes_system(&self) -> bool {
        self.takes_system
    }

    /// Whether it can be told to have the model think, or not to.
    pub fn switches_thinking(&self) -> bool {
        THINKING.iter().any(|name| self.program.mentions(name))
    }

    /// The prompt of a chat.
    ///
    /// Tokenize it with special tokens parsed: what a person typed is in it too, so a control token's name typed by them
    /// counts as that token, as it does with every engine that goes through Jinja.
    pub fn render(&self, turns: &[Turn], style: Style) -> Result<String, Error> {
        let merged;
        let mut turns = turns.to_vec();
        if let (false, [system, user, ..]) = (self.takes_system, &turns[..])
            && system.role == Role::System
            && user.role == Role::User
        {
            merged = [system.content, user.content].join("\n\n");
            turns.remove(0);
            turns[0].content = &merged;
        }
        let message = |turn: &Turn| {
            let entry = |key: &str, text: &str| (Value::from(key), Value::from(text));
            Value::mapping([entry("role", turn.role.name()), entry("content", turn.content)].into())
        };
        let too_long = |what: What| what.at(1);
        let messages = turns.iter().map(message).collect::<Result<Vec<_>, _>>().and_then(Value::list);
        let mut given = Vec::from([
            ("messages", messages.map_err(too_long)?),
            ("add_generation_prompt", style.generation_prompt.into()),
        ]);
        if self.defines_tools {
            given.extend(["tools", "documents"].map(|name| (name, Value::None)));
        }
        for (name, text) in [("bos_token", &self.specials.bos), ("eos_token", &self.specials.eos)] {
            given.push((name, text.as_str().into()));
        }
        if let Some(thinking) = style.thinking {
            given.extend(THINKING.map(|name| (name, thinking.into())));
        }
        self.program.render(&given, style.date)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            None => f.write_str("the file's own"),
            Some(name) => write!(f, "{name}, built in"),
        }
    }
}

/// Variables by which templates are told whether the model is to think.
const THINKING: [&str; 2] = ["enable_thinking", "thinking"];

/// What stands in for a template of which nothing is known.
const FALL_BACK: &str = "chatml";

/// Why a model's own template is not used, and what is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatError {
    /// Why.
    pub why: Failure,
    /// Name of the built-in template that is used.
    pub fall_back: &'static str,
}

/// Why a model's own template can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The key is not text.
    Metadata(GgufError),
    /// The file has none: probably it is a base model, which was never taught to chat.
    Missing,
    /// It can't be read or rendered.
    Unusable(Error),
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.fall_back;
        match &self.why {
            Failure::Metadata(error) => {
                write!(f, "{error}: chatting with the built-in template '{name}' instead")
            }
            Failure::Missing => write!(
                f,
                "the model has no chat template and may never have learnt to chat: using '{name}', but completing text may suit it better"
            ),
            Failure::Unusable(error) => write!(
                f,
                "the model's own chat template can't be used ({}): chatting with the built-in template '{name}' instead, and answers may be odd; `set template NAME` (on a PC `--template NAME`) chooses another",
                error.to_string().trim_end_matches('.')
            ),
        }
    }
}

impl core::error::Error for ChatError {}

#[cfg(test)]
mod tests;
