//! Config: the settings a user can make, in `EMBODIOS.CFG` on the card or with `set` at the prompt.

mod file;

pub use file::{FILE, FILE_LIMIT, Lines, Place, parse, unquoted};

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use embodios::chat::builtin;
use embodios::grammar::Form;
use embodios::sampler::{Asked, Chosen, FIELDS, Field, read_bias};
use embodios::{KvFormat, Overflow, Speculation};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// File name of the model to load at start.
    pub model: Option<String>,
    /// Tokens the conversation may hold; without one, what the model was trained for, as far as it fits.
    pub context: Option<usize>,
    /// What keys and values are kept as.
    pub kv: KvFormat,
    /// What happens when the context is full.
    pub overflow: Overflow,
    /// How a token is chosen, as far as that is not left to the model's file.
    pub sampling: Chosen,
    /// The seed; without one, a different number each time.
    pub seed: Option<u64>,
    /// What is added to the logits of tokens.
    pub bias: Vec<(u32, f32)>,
    /// The system message; without one, the model's own.
    pub system: Option<String>,
    /// The chat template; without one, that of the model's file.
    pub template: Option<String>,
    /// Whether the model is to think first; without it, the template decides.
    pub thinking: Option<bool>,
    /// What answers have to be.
    pub form: Option<Wanted>,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Tokens an answer may have at most.
    pub limit: usize,
    /// Whether tokens are guessed beforehand, where chance has no say.
    pub speculation: Speculation,
    /// Which serial port is the console; without one, the board's choice.
    pub console: Option<String>,
    /// How far ahead the cores prefetch; without it, as the boot loader has set it.
    pub prefetch: Option<u8>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: None,
            context: None,
            kv: KvFormat::F16,
            overflow: Overflow::Shift,
            sampling: Chosen::default(),
            seed: None,
            bias: Vec::new(),
            system: None,
            template: None,
            thinking: None,
            form: None,
            stops: Vec::new(),
            limit: 512,
            speculation: Speculation::Auto,
            console: None,
            prefetch: None,
        }
    }
}

/// What answers have to be, as far as a setting says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This.
    Form(Form),
    /// Texts of the grammar in this file on the card.
    File(String),
}

/// A setting: its name, what it accepts, how it is written and read.
pub struct Key {
    /// Its name.
    name: &'static str,
    /// Another name people try.
    alias: &'static str,
    /// The rest of the sentence "KEY takes …".
    accepts: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
    /// Its value as a person writes it.
    show: fn(&Config) -> String,
}

/// The settings that are not one of the sampler's numbers. A new one is a row, and a field of [`Config`].
static KEYS: &[Key] = &[
    Key {
        name: "model",
        alias: "",
        accepts: "the name of a .gguf file on the card",
        set: |c, v| words(v).map(|v| c.model = v),
        show: |c| c.model.clone().unwrap_or_else(|| "the only one on the card, or a menu".into()),
    },
    Key {
        name: "ctx",
        alias: "context",
        accepts: "tokens of context, 16 to 1048576, or `auto`",
        set: |c, v| or_word(v, "auto", |v| number(v, 16, 1 << 20)).map(|v| c.context = v),
        show: |c| c.context.map_or("auto".into(), |v| v.to_string()),
    },
    Key {
        name: "kv",
        alias: "cache_type",
        accepts: "`f16` or `q8_0` (half the memory for keys and values)",
        set: |c, v| KvFormat::named(&v.to_ascii_lowercase()).map(|v| c.kv = v),
        show: |c| c.kv.to_string(),
    },
    Key {
        name: "context_shift",
        alias: "overflow",
        accepts: "`on` (a full context forgets the oldest, never the system message) or `off` (the answer ends)",
        set: |c, v| {
            c.overflow = match v {
                "on" | "shift" => Overflow::Shift,
                "off" | "stop" => Overflow::Stop,
                _ => return None,
            };
            Some(())
        },
        show: |c| if c.overflow == Overflow::Shift { "on" } else { "off" }.into(),
    },
    Key {
        name: "system",
        alias: "",
        accepts: "the system message, or \"\" for the model's own",
        set: |c, v| words(v).map(|v| c.system = v),
        show: |c| c.system.clone().unwrap_or_else(|| "the model's own".into()),
    },
    Key {
        name: "template",
        alias: "chat_template",
        accepts: "`auto` (the one in the model's file) or a name: phi4, chatml, llama3, gemma, granite, command-r, deepseek3, exaone, phi3, tulu, zephyr, mistral-v7, llama2, mistral, minicpm, openchat, vicuna, deepseek, alpaca",
        set: |c, v| {
            or_word(v, "auto", |v| builtin::named(v).map(|row| row.name.into())).map(|v| c.template = v)
        },
        show: |c| c.template.clone().unwrap_or_else(|| "auto".into()),
    },
    Key {
        name: "think",
        alias: "thinking",
        accepts: "`on`, `off` or `auto`: whether models that can think before they answer",
        set: |c, v| {
            c.thinking = match v {
                "on" => Some(true),
                "off" => Some(false),
                "auto" => None,
                _ => return None,
            };
            Some(())
        },
        show: |c| c.thinking.map_or("auto", |on| if on { "on" } else { "off" }).into(),
    },
    Key {
        name: "stop",
        alias: "",
        accepts: "a text that ends an answer before it, another each time; `off` for none",
        set: |c, v| {
            match v {
                "" => return None,
                "off" => c.stops.clear(),
                text if c.stops.iter().any(|stop| stop == text) => {}
                text => c.stops.push(text.into()),
            }
            Some(())
        },
        show: |c| {
            let quoted = c.stops.iter().map(|stop| alloc::format!("{stop:?}")).collect::<Vec<_>>();
            if quoted.is_empty() { "off".into() } else { quoted.join(" ") }
        },
    },
    Key {
        name: "json",
        alias: "json_schema",
        accepts: "`on` (answers are JSON), a JSON schema that they have to follow, or `off`",
        set: |c, v| {
            c.form = match v {
                "on" => Some(Wanted::Form(Form::Json)),
                "off" => None,
                schema if schema.starts_with('{') => Some(Wanted::Form(Form::Schema(schema.into()))),
                _ => return None,
            };
            Some(())
        },
        show: |c| match &c.form {
            Some(Wanted::Form(Form::Json)) => "on".into(),
            Some(Wanted::Form(Form::Schema(schema))) => schema.clone(),
            _ => "off".into(),
        },
    },
    Key {
        name: "grammar",
        alias: "",
        accepts: "a grammar in GBNF, the name of a .gbnf file on the card, or `off`",
        set: |c, v| {
            c.form = match v {
                "" => return None,
                "off" => None,
                file if !file.contains("::=") => Some(Wanted::File(file.into())),
                text => Some(Wanted::Form(Form::Gbnf(text.into()))),
            };
            Some(())
        },
        show: |c| match &c.form {
            Some(Wanted::Form(Form::Gbnf(text))) | Some(Wanted::File(text)) => text.clone(),
            _ => "off".into(),
        },
    },
    Key {
        name: "logit_bias",
        alias: "",
        accepts: "tokens and what is added to their logits, like `15043+1, 29905-inf`, or `off`",
        set: |c, v| {
            c.bias = match v {
                "" => return None,
                "off" => Vec::new(),
                list => read_bias(list)?,
            };
            Some(())
        },
        show: |c| {
            let pairs =
                c.bias.iter().map(|(token, bias)| alloc::format!("{token}{bias:+}")).collect::<Vec<_>>();
            if pairs.is_empty() { "off".into() } else { pairs.join(", ") }
        },
    },
    Key {
        name: "limit",
        alias: "",
        accepts: "the most tokens an answer may have, 1 to 1048576",
        set: |c, v| number(v, 1, 1 << 20).map(|v| c.limit = v),
        show: |c| c.limit.to_string(),
    },
    Key {
        name: "seed",
        alias: "",
        accepts: "a whole number, or `random`",
        set: |c, v| or_word(v, "random", |v| number(v, 0, u64::MAX)).map(|v| c.seed = v),
        show: |c| c.seed.map_or("random".into(), |v| v.to_string()),
    },
    Key {
        name: "speculate",
        alias: "speculation",
        accepts: "`auto` (guess ahead at temperature 0: same text, fewer passes) or `off`",
        set: |c, v| {
            c.speculation = match v {
                "auto" | "on" => Speculation::Auto,
                "off" => Speculation::Off,
                _ => return None,
            };
            Some(())
        },
        show: |c| if c.speculation == Speculation::Off { "off" } else { "auto" }.into(),
    },
    Key {
        name: "console",
        alias: "",
        accepts: "`auto`, `pl011`, `mini-uart` or `rp1` (the header of a Raspberry Pi 5)",
        set: |c, v| match v {
            "auto" | "pl011" | "mini-uart" | "rp1" => {
                or_word(v, "auto", |v| Some(v.into())).map(|v| c.console = v)
            }
            _ => None,
        },
        show: |c| c.console.clone().unwrap_or_else(|| "auto".into()),
    },
    Key {
        name: "prefetch",
        alias: "",
        accepts: "`off` (as the boot loader has set it) or 0 to 3: how far ahead a Raspberry Pi 4's cores prefetch",
        set: |c, v| or_word(v, "off", |v| number(v, 0, 3)).map(|v| c.prefetch = v),
        show: |c| c.prefetch.map_or("off".into(), |v| v.to_string()),
    },
];

/// One of all settings.
#[derive(Clone, Copy)]
pub enum Setting {
    /// A row of [`KEYS`].
    Key(&'static Key),
    /// One of the sampler's numbers: what the model's file says, unless it is set.
    Number(&'static Field),
}

/// All settings: those of the conversation, then the sampler's numbers.
pub fn settings() -> impl Iterator<Item = Setting> + Clone {
    KEYS.iter().map(Setting::Key).chain(FIELDS.iter().map(Setting::Number))
}

impl Setting {
    /// The setting of this name, in any case, `-` as good as `_`.
    pub fn named(name: &str) -> Result<Self, SettingError> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let is_it =
            |setting: &Self| setting.name() == plain || (setting.alias() == plain && !plain.is_empty());
        settings().find(is_it).ok_or_else(|| SettingError::UnknownKey {
            key: name.into(),
            near: nearest(&plain, settings().map(|setting| setting.name())),
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key(key) => key.name,
            Self::Number(field) => field.name,
        }
    }

    fn alias(self) -> &'static str {
        match self {
            Self::Key(key) => key.alias,
            Self::Number(field) => field.alias,
        }
    }

    /// The rest of the sentence "NAME takes …".
    pub fn accepts(self) -> &'static str {
        match self {
            Self::Key(key) => key.accepts,
            Self::Number(field) => field.accepts,
        }
    }

    /// Its value as a person writes it, where the model's file asks for this.
    pub fn show(self, config: &Config, asked: &Asked) -> String {
        match self {
            Self::Key(key) => (key.show)(config),
            Self::Number(field) => field.get(&config.sampling.over(asked.settings)).to_string(),
        }
    }

    fn set(self, config: &mut Config, value: &str) -> Option<()> {
        match self {
            Self::Key(key) => (key.set)(config, value),
            Self::Number(field) if matches!(value, "default" | "auto") => {
                config.sampling.forget(field);
                Some(())
            }
            Self::Number(field) => config.sampling.read(field, value).then_some(()),
        }
    }
}

/// Why a setting was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// No such key; the one that was perhaps meant.
    UnknownKey { key: String, near: Option<&'static str> },
    /// The key is there, the value is not one of its.
    BadValue { key: &'static str, value: String, accepts: &'static str },
    /// The value is of the right kind, but can't be used.
    Unusable { key: &'static str, why: String },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, near: Some(near) } => {
                write!(f, "there is no setting `{key}`: did you mean `{near}`?")
            }
            Self::UnknownKey { key, near: None } => {
                write!(f, "there is no setting `{key}`; there are ")?;
                for (n, known) in settings().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, known.name())?;
                }
                f.write_str(".")
            }
            Self::BadValue { key, value, accepts } if value.is_empty() => {
                write!(f, "`{key}` has no value: it takes {accepts}.")
            }
            Self::BadValue { key, value, accepts } => {
                write!(f, "`{key}` can't be `{value}`: it takes {accepts}.")
            }
            Self::Unusable { key, why } => write!(f, "`{key}` can't be used: {}.", why.trim_end_matches('.')),
        }
    }
}

impl Config {
    /// Which setting says what answers have to be.
    pub fn form_key(&self) -> Option<&'static str> {
        self.form.as_ref().map(|form| match form {
            Wanted::Form(Form::Json | Form::Schema(_)) => "json",
            Wanted::Form(Form::Gbnf(_)) | Wanted::File(_) => "grammar",
        })
    }

    /// The wanted context, if any, and what its keys and values are kept as.
    pub fn needs(&self) -> (Option<usize>, KvFormat) {
        (self.context, self.kv)
    }

    /// Makes one setting.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Setting, SettingError> {
        let setting = Setting::named(name)?;
        setting.set(self, value).map(|()| setting).ok_or_else(|| SettingError::BadValue {
            key: setting.name(),
            value: value.into(),
            accepts: setting.accepts(),
        })
    }
}

/// A number in this range; nothing else (not NaN, not infinity).
fn number<N: FromStr + PartialOrd>(value: &str, least: N, most: N) -> Option<N> {
    value.parse().ok().filter(|number| (least..=most).contains(number))
}

/// The value, or `None` for the word that stands for having none.
fn or_word<T>(value: &str, word: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if value == word { Some(None) } else { parse(value).map(Some) }
}

fn words(value: &str) -> Option<Option<String>> {
    Some(Some(value).filter(|value| !value.is_empty()).map(String::from))
}

/// The name that was perhaps meant: one that this begins, or one or two typing errors away.
pub fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str> + Clone) -> Option<&'n str> {
    let begun = || names.clone().find(|name| word.len() >= 3 && name.starts_with(word));
    let allowed = if word.len() < 4 { 1 } else { 2 };
    let close = names.clone().map(|name| (distance(word, name), name)).min_by_key(|&(errors, _)| errors);
    close.filter(|&(errors, _)| errors <= allowed).map(|(_, name)| name).or_else(begun)
}

/// Insertions, deletions and replacements that make one word the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let mut text = String::from(
            "\
# all of them
model = SmolLM2-135M.gguf
ctx=1024
kv = Q8_0
context-shift = off
top-k = 10
TOP_P = 0.5
 temperature\t=  0.25   # cooler
seed = 18446744073709551615
system = \"You are \\\"brief\\\".\\nVery. # not a comment\" # a comment
template = llama3
think = off
stop = END
stop = \"\\n\"
json = {\"type\": \"object\"}
logit_bias = 7+1, 8-inf
limit = 100
speculate = off
console = pl011
prefetch = 2
",
        );
        let mut chosen = Chosen::default();
        for (name, value) in [("top_k", "10"), ("top_p", "0.5"), ("temperature", "0.25")] {
            assert!(chosen.read(Field::named(name).unwrap(), value));
        }
        // Every other number: the largest it takes.
        for field in FIELDS {
            if chosen.has(field) {
                continue;
            }
            text += &std::format!("{} = {}\n", field.name, field.most);
            assert!(chosen.read(field, &field.most.to_string()));
        }
        let (config, _, warnings) = parse(text.as_bytes(), |_| Ok(()));
        assert_eq!(warnings, []);
        assert_eq!(
            config,
            Config {
                model: Some("SmolLM2-135M.gguf".into()),
                context: Some(1024),
                kv: KvFormat::Q8_0,
                overflow: Overflow::Stop,
                sampling: chosen,
                seed: Some(u64::MAX),
                bias: [(7, 1.0), (8, f32::NEG_INFINITY)].into(),
                system: Some("You are \"brief\".\nVery. # not a comment".into()),
                template: Some("llama3".into()),
                thinking: Some(false),
                form: Some(Wanted::Form(Form::Schema("{\"type\": \"object\"}".into()))),
                stops: ["END".into(), "\n".into()].into(),
                limit: 100,
                speculation: Speculation::Off,
                console: Some("pl011".into()),
                prefetch: Some(2),
            }
        );
        for setting in settings().filter(|setting| setting.name() != "grammar") {
            let name = setting.name();
            assert!(text.to_lowercase().replace('-', "_").contains(name), "{name} is not tried here");
            assert!(!setting.show(&config, &Asked::default()).is_empty());
        }
    }

    #[test]
    fn a_grammar_is_a_text_or_a_file_and_takes_the_place_of_json() {
        let mut config = Config::default();
        for (name, value, form, shown) in [
            ("json", "on", Some(Wanted::Form(Form::Json)), "on"),
            ("grammar", "list.gbnf", Some(Wanted::File("list.gbnf".into())), "list.gbnf"),
            ("grammar", "root ::= x", Some(Wanted::Form(Form::Gbnf("root ::= x".into()))), "root ::= x"),
            ("grammar", "off", None, "off"),
            ("json", "off", None, "off"),
        ] {
            let setting = config.set(name, value).unwrap();
            assert_eq!((&config.form, setting.show(&config, &Asked::default()).as_str()), (&form, shown));
        }
        assert!(config.set("json", "yes").is_err());
        assert!(config.set("grammar", "").is_err());
    }

    #[test]
    fn lists_end_with_off_and_numbers_can_be_given_back_to_the_model() {
        let mut config = Config::default();
        for (name, value) in [("stop", "a"), ("stop", "a"), ("logit_bias", "3+1"), ("top_k", "3")] {
            config.set(name, value).unwrap();
        }
        assert_eq!((config.stops.len(), config.bias.len()), (1, 1));
        for (name, value) in [("stop", "off"), ("logit_bias", "off"), ("top_k", "default")] {
            config.set(name, value).unwrap();
        }
        assert_eq!(config, Config::default());
        let accepts = Setting::named("template").unwrap().accepts();
        for row in builtin::BUILT_IN {
            assert!(accepts.contains(&alloc::format!(" {}", row.name)), "{}", row.name);
        }
        assert!(config.set("logit_bias", "3").is_err() && config.set("template", "mine").is_err());
    }

    #[test]
    fn the_nearest_name_is_a_typing_error_or_a_beginning_away() {
        let names = ["temperature", "top_k", "top_p", "seed"];
        for (word, near) in [
            ("temprature", Some("temperature")),
            ("tempreature", Some("temperature")),
            ("temper", Some("temperature")),
            ("topk", Some("top_k")),
            ("sed", Some("seed")),
            ("x", None),
            ("the", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names.iter().copied()), near, "{word}");
        }
    }
}
