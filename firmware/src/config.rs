//! Config: the settings a user can make, in `EMBODIOS.CFG` on the card or with `set` at the prompt.
//!
//! The file is lines of `key = value`; `#` begins a comment. A value may stand in double or single quotes,
//! and in double quotes `\n`, `\"` and `\\` mean what they mean elsewhere. A line that can't be used is a
//! [`Warning`] with its number, and the others count all the same.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use embodios::Speculation;
use embodios::sampler::Settings;

/// The file's name on the card; upper or lower case.
pub const FILE: &str = "EMBODIOS.CFG";
/// Larger than this it is no configuration.
pub const FILE_LIMIT: u64 = 64 * 1024;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// File name of the model to load at start.
    pub model: Option<String>,
    /// Tokens the conversation may hold; without one, what the model was trained for, as far as it fits.
    pub context: Option<usize>,
    /// How a token is chosen. The seed in here is only used if [`Config::seed`] has one.
    pub sampling: Settings,
    /// The seed; without one, a different number each time.
    pub seed: Option<u64>,
    /// The system message; without one, the model's own.
    pub system: Option<String>,
    /// Tokens an answer may have at most.
    pub limit: usize,
    /// Whether tokens are guessed beforehand, where chance has no say.
    pub speculation: Speculation,
    /// Which serial port is the console; without one, the board's choice.
    pub console: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: None,
            context: None,
            sampling: Settings::default(),
            seed: None,
            system: None,
            limit: 512,
            speculation: Speculation::Auto,
            console: None,
        }
    }
}

/// A setting: its name, what it accepts, how it is written and read.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Another name people try.
    alias: &'static str,
    /// The rest of the sentence "KEY takes …".
    pub accepts: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
    /// Its value as a person writes it.
    pub show: fn(&Config) -> String,
}

/// All settings. A new one is a row, and a field of [`Config`].
pub static KEYS: &[Key] = &[
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
        name: "temperature",
        alias: "temp",
        accepts: "a number from 0 (always the likeliest token) to 5",
        set: |c, v| number(v, 0.0, 5.0).map(|v| c.sampling.temperature = v),
        show: |c| c.sampling.temperature.to_string(),
    },
    Key {
        name: "top_k",
        alias: "k",
        accepts: "how many of the likeliest tokens to choose from, 0 for all",
        set: |c, v| number(v, 0, 1 << 20).map(|v| c.sampling.top_k = v),
        show: |c| c.sampling.top_k.to_string(),
    },
    Key {
        name: "top_p",
        alias: "p",
        accepts: "a share of probability from 0 to 1, 1 for all",
        set: |c, v| number(v, 0.0, 1.0).map(|v| c.sampling.top_p = v),
        show: |c| c.sampling.top_p.to_string(),
    },
    Key {
        name: "min_p",
        alias: "",
        accepts: "a share of the likeliest token's probability from 0 (off) to 1",
        set: |c, v| number(v, 0.0, 1.0).map(|v| c.sampling.min_p = v),
        show: |c| c.sampling.min_p.to_string(),
    },
    Key {
        name: "repeat_penalty",
        alias: "",
        accepts: "a number from 0.1 to 10, 1 for none",
        set: |c, v| number(v, 0.1, 10.0).map(|v| c.sampling.repeat_penalty = v),
        show: |c| c.sampling.repeat_penalty.to_string(),
    },
    Key {
        name: "repeat_last_n",
        alias: "",
        accepts: "how many tokens the penalty looks back, 0 to 65536",
        set: |c, v| number(v, 0, 1 << 16).map(|v| c.sampling.repeat_last_n = v),
        show: |c| c.sampling.repeat_last_n.to_string(),
    },
    Key {
        name: "seed",
        alias: "",
        accepts: "a whole number, or `random`",
        set: |c, v| or_word(v, "random", |v| number(v, 0, u64::MAX)).map(|v| c.seed = v),
        show: |c| c.seed.map_or("random".into(), |v| v.to_string()),
    },
    Key {
        name: "system",
        alias: "",
        accepts: "the system message, or \"\" for the model's own",
        set: |c, v| words(v).map(|v| c.system = v),
        show: |c| c.system.clone().unwrap_or_else(|| "the model's own".into()),
    },
    Key {
        name: "limit",
        alias: "",
        accepts: "the most tokens an answer may have, 1 to 1048576",
        set: |c, v| number(v, 1, 1 << 20).map(|v| c.limit = v),
        show: |c| c.limit.to_string(),
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
        accepts: "`auto`, `pl011` or `mini-uart`",
        set: |c, v| match v {
            "auto" | "pl011" | "mini-uart" => or_word(v, "auto", |v| Some(v.into())).map(|v| c.console = v),
            _ => None,
        },
        show: |c| c.console.clone().unwrap_or_else(|| "auto".into()),
    },
];

/// Why a setting was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// No such key; the one that was perhaps meant.
    UnknownKey { key: String, near: Option<&'static str> },
    /// The key is there, the value is not one of its.
    BadValue { key: &'static str, value: String, accepts: &'static str },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, near: Some(near) } => {
                write!(f, "there is no setting `{key}`: did you mean `{near}`?")
            }
            Self::UnknownKey { key, near: None } => {
                write!(f, "there is no setting `{key}`; there are ")?;
                for (n, known) in KEYS.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, known.name)?;
                }
                f.write_str(".")
            }
            Self::BadValue { key, value, accepts } if value.is_empty() => {
                write!(f, "`{key}` has no value: it takes {accepts}.")
            }
            Self::BadValue { key, value, accepts } => {
                write!(f, "`{key}` can't be `{value}`: it takes {accepts}.")
            }
        }
    }
}

/// The setting of this name, in any case, `-` as good as `_`.
pub fn key(name: &str) -> Result<&'static Key, SettingError> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let is_it = |key: &&Key| key.name == plain || (key.alias == plain && !plain.is_empty());
    KEYS.iter().find(is_it).ok_or_else(|| SettingError::UnknownKey {
        key: name.into(),
        near: nearest(&plain, KEYS.iter().map(|key| key.name)),
    })
}

impl Config {
    /// Makes one setting.
    pub fn set(&mut self, name: &str, value: &str) -> Result<&'static Key, SettingError> {
        let key = key(name)?;
        (key.set)(self, value).map(|()| key).ok_or_else(|| SettingError::BadValue {
            key: key.name,
            value: value.into(),
            accepts: key.accepts,
        })
    }
}

/// A line of the file that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Not UTF-8 text at all.
    NotText { utf16: bool },
    /// No `=` in it.
    NotASetting { line: usize },
    /// The setting was refused.
    Refused { line: usize, why: SettingError },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText { utf16: true } => {
                write!(f, "{FILE} is written in UTF-16: save it as UTF-8. It is ignored.")
            }
            Self::NotText { utf16: false } => write!(f, "{FILE} is not UTF-8 text. It is ignored."),
            Self::NotASetting { line } => {
                write!(f, "{FILE} line {line} is not of the form `key = value`. The line is ignored.")
            }
            Self::Refused { line, why } => write!(f, "{FILE} line {line}: {why} The line is ignored."),
        }
    }
}

/// Reads the file. What can't be used is reported, the rest is set.
pub fn parse(bytes: &[u8]) -> (Config, Vec<Warning>) {
    let mut config = Config::default();
    let mut warnings = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Ok(text) = core::str::from_utf8(bytes) else {
        let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        return (config, [Warning::NotText { utf16 }].into());
    };
    for (n, line) in text.split('\n').enumerate() {
        let line_number = n + 1;
        let line = without_comment(line.trim());
        if line.is_empty() {
            continue;
        }
        match line.split_once('=') {
            None => warnings.push(Warning::NotASetting { line: line_number }),
            Some(("", _)) => warnings.push(Warning::NotASetting { line: line_number }),
            Some((key, value)) => {
                if let Err(why) = config.set(key.trim(), &unquoted(value.trim())) {
                    warnings.push(Warning::Refused { line: line_number, why });
                }
            }
        }
    }
    (config, warnings)
}

/// The text before a `#` that begins the line or follows a space; in a quoted value it is a character
/// like any other.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let (mut before, mut before_spaces) = (' ', ' ');
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return line[..at].trim_end(),
            (None, '"' | '\'') if before_spaces == '=' => quote = Some(c),
            (Some(open), _) if c == open && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
        if !c.is_whitespace() {
            before_spaces = c;
        }
    }
    line
}

/// The text between quotes; a text without both of them as it is.
pub fn unquoted(value: &str) -> Cow<'_, str> {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(text) = inside('\'') {
        return text.into();
    }
    let Some(text) = inside('"') else {
        return value.into();
    };
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(next @ ('"' | '\\'))) => out.push(next),
            _ => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    out.into()
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

    fn warnings(text: &str) -> Vec<String> {
        parse(text.as_bytes()).1.iter().map(Warning::to_string).collect()
    }

    #[test]
    fn every_key_is_read() {
        let text = "\
# all of them
model = SmolLM2-135M.gguf
ctx=1024
 temperature\t=  0.25   # cooler
top-k = 10
TOP_P = 0.5
min_p = 0
repeat_penalty = 1.1
repeat_last_n = 32
seed = 18446744073709551615
system = \"You are \\\"brief\\\".\\nVery. # not a comment\" # a comment
limit = 100
speculate = off
console = pl011
";
        let (config, warnings) = parse(text.as_bytes());
        assert_eq!(warnings, []);
        assert_eq!(
            config,
            Config {
                model: Some("SmolLM2-135M.gguf".into()),
                context: Some(1024),
                sampling: Settings {
                    temperature: 0.25,
                    top_k: 10,
                    top_p: 0.5,
                    min_p: 0.0,
                    repeat_penalty: 1.1,
                    repeat_last_n: 32,
                    ..Settings::default()
                },
                seed: Some(u64::MAX),
                system: Some("You are \"brief\".\nVery. # not a comment".into()),
                limit: 100,
                speculation: Speculation::Off,
                console: Some("pl011".into()),
            }
        );
        for key in KEYS {
            assert!(
                text.to_lowercase().replace('-', "_").contains(key.name),
                "{} is not tried here",
                key.name
            );
            assert!(!(key.show)(&config).is_empty());
        }
    }

    #[test]
    fn windows_and_missing_line_ends_and_a_byte_order_mark_do_no_harm() {
        let (config, warnings) = parse(b"\xef\xbb\xbfctx = 512\r\n\r\nlimit = 7\r\nseed = 3");
        assert_eq!(warnings, []);
        assert_eq!((config.context, config.limit, config.seed), (Some(512), 7, Some(3)));
        assert_eq!(parse(b""), (Config::default(), Vec::new()));
    }

    #[test]
    fn quotes_and_apostrophes_are_told_apart() {
        for (line, system) in [
            ("system = It's C#1, isn't it? # yes", "It's C#1, isn't it?"),
            ("system = 'single # quotes'", "single # quotes"),
            ("system = \"half", "\"half"),
            ("system=\"\\n\\x\\\\\"", "\n\\x\\"),
            ("system = a = b", "a = b"),
            ("system = C# and F#", "C# and F#"),
        ] {
            let (config, warnings) = parse(line.as_bytes());
            assert_eq!(warnings, [], "{line}");
            assert_eq!(config.system.as_deref(), Some(system), "{line}");
        }
        assert_eq!(parse(b"system = \"\"").0.system, None);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_and_the_others_count() {
        let text = "tempertaure = 1\nctx = many\nlimit = 9\n= hello\ncolour = red\ntop_p = 1.5\ntemperature = nan\nseed = -1\nseed =\n";
        let (config, _) = parse(text.as_bytes());
        assert_eq!(config.limit, 9);
        let expected = [
            "EMBODIOS.CFG line 1: there is no setting `tempertaure`: did you mean `temperature`? The line is ignored.",
            "EMBODIOS.CFG line 2: `ctx` can't be `many`: it takes tokens of context, 16 to 1048576, or `auto`. The line is ignored.",
            "EMBODIOS.CFG line 4 is not of the form `key = value`. The line is ignored.",
            "EMBODIOS.CFG line 5: there is no setting `colour`; there are model, ctx, temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed, system, limit, speculate, console. The line is ignored.",
            "EMBODIOS.CFG line 6: `top_p` can't be `1.5`: it takes a share of probability from 0 to 1, 1 for all. The line is ignored.",
            "EMBODIOS.CFG line 7: `temperature` can't be `nan`: it takes a number from 0 (always the likeliest token) to 5. The line is ignored.",
            "EMBODIOS.CFG line 8: `seed` can't be `-1`: it takes a whole number, or `random`. The line is ignored.",
            "EMBODIOS.CFG line 9: `seed` has no value: it takes a whole number, or `random`. The line is ignored.",
        ];
        assert_eq!(warnings(text), expected);
    }

    #[test]
    fn a_file_that_is_no_text_is_one_warning() {
        let (config, warnings) = parse(b"\xff\xfec\0t\0x\0");
        assert_eq!(config, Config::default());
        assert!(warnings[0].to_string().contains("UTF-16"));
        assert!(parse(b"ctx = 512\nsystem = \x80").1[0].to_string().contains("not UTF-8"));
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
