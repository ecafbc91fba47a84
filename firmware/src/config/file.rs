//! `EMBODIOS.CFG`: lines of `key = value`.
//!
//! `#` begins a comment. A value may stand in double or single quotes, and in double quotes `\n`, `\"` and `\\` mean what
//! they mean elsewhere. A line that can't be used is a [`Warning`] with its number, and the others count all the same.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Config, SettingError, Wanted};

/// The file's name on the card; upper or lower case.
pub const FILE: &str = "EMBODIOS.CFG";
/// Bytes; larger than this it is no configuration.
pub const FILE_LIMIT: u64 = 64 * 1024;

/// A line of the file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FILE} line {}", self.0)
    }
}

/// Which line made which setting: some turn out to be of no use only when a board or a model is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(Vec<(&'static str, Place)>);

impl Lines {
    /// The line that made this setting, if the file did.
    pub fn of(&self, key: &str) -> Option<Place> {
        self.0.iter().find(|(made, _)| *made == key).map(|&(_, place)| place)
    }

    /// Has a setting made elsewhere from now on.
    pub fn forget(&mut self, key: &str) {
        self.0.retain(|(made, _)| *made != key);
    }

    fn note(&mut self, key: &'static str, place: Place) {
        self.forget(key);
        self.0.push((key, place));
    }
}

/// What was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The file is no text.
    NotText { utf16: bool },
    /// The line is not UTF-8.
    NotUtf8 { place: Place },
    /// No `=` in it.
    NotASetting { place: Place },
    /// The setting was refused.
    Refused { place: Place, why: SettingError },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText { utf16: true } => {
                write!(f, "{FILE} is written in UTF-16: save it as UTF-8. It is ignored.")
            }
            Self::NotText { utf16: false } => write!(f, "{FILE} is not text. It is ignored."),
            Self::NotUtf8 { place } => {
                write!(f, "{place} is not UTF-8 text: save the file as UTF-8. The line is ignored.")
            }
            Self::NotASetting { place } => {
                write!(f, "{place} is not of the form `key = value`. The line is ignored.")
            }
            Self::Refused { place, why } => write!(f, "{place}: {why} The line is ignored."),
        }
    }
}

/// Reads the file. What can't be used is reported, the rest is set; `sound` says of a form of answers why it is none.
pub fn parse(
    bytes: &[u8],
    mut sound: impl FnMut(&Wanted) -> Result<(), String>,
) -> (Config, Lines, Vec<Warning>) {
    let (mut config, mut lines, mut warnings) = (Config::default(), Lines::default(), Vec::new());
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.contains(&0) {
        let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        return (config, lines, [Warning::NotText { utf16 }].into());
    }
    for (n, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let place = Place(n + 1);
        // What a comment says is nobody's concern, whatever it is written in.
        if line.trim_ascii_start().starts_with(b"#") {
            continue;
        }
        let Ok(line) = core::str::from_utf8(line) else {
            warnings.push(Warning::NotUtf8 { place });
            continue;
        };
        let line = without_comment(line.trim());
        if line.is_empty() {
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            warnings.push(Warning::NotASetting { place });
            continue;
        };
        let before = config.form.clone();
        let made = config.set(key.trim(), &unquoted(value.trim())).and_then(|setting| {
            let changed = config.form.as_ref().filter(|form| before.as_ref() != Some(form));
            let sound = changed.map_or(Ok(()), &mut sound);
            sound.map(|()| setting).map_err(|why| SettingError::Unusable { key: setting.name(), why })
        });
        match made {
            Ok(setting) => lines.note(setting.name(), place),
            Err(why) => {
                config.form = before; // the only one that was made before it was found to be none
                warnings.push(Warning::Refused { place, why });
            }
        }
    }
    (config, lines, warnings)
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use embodios::grammar::Form;

    fn read(bytes: &[u8]) -> (Config, Vec<Warning>) {
        let (config, _, warnings) = parse(bytes, |_| Ok(()));
        (config, warnings)
    }

    fn warnings(text: &str) -> Vec<String> {
        read(text.as_bytes()).1.iter().map(Warning::to_string).collect()
    }

    #[test]
    fn windows_and_missing_line_ends_and_a_byte_order_mark_do_no_harm() {
        let (config, warnings) = read(b"\xef\xbb\xbfctx = 512\r\n\r\nlimit = 7\r\nseed = 3");
        assert_eq!(warnings, []);
        assert_eq!((config.context, config.limit, config.seed), (Some(512), 7, Some(3)));
        assert_eq!(read(b""), (Config::default(), Vec::new()));
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
            let (config, warnings) = read(line.as_bytes());
            assert_eq!(warnings, [], "{line}");
            assert_eq!(config.system.as_deref(), Some(system), "{line}");
        }
        assert_eq!(read(b"system = \"\"").0.system, None);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_and_the_others_count() {
        let text = "tempertaure = 1\nctx = many\nlimit = 9\n= hello\ncolour = red\ntop_p = 1.5\ntemperature = nan\nseed = -1\nseed =\n";
        let (config, _) = read(text.as_bytes());
        assert_eq!(config.limit, 9);
        let expected = [
            "EMBODIOS.CFG line 1: there is no setting `tempertaure`: did you mean `temperature`? The line is ignored.",
            "EMBODIOS.CFG line 2: `ctx` can't be `many`: it takes tokens of context, 16 to 1048576, or `auto`. The line is ignored.",
            "EMBODIOS.CFG line 4 is not of the form `key = value`. The line is ignored.",
            "EMBODIOS.CFG line 5: there is no setting `colour`; there are model, ctx, kv, context_shift, system, template, think, stop, json, grammar, logit_bias, limit, seed, speculate, console, prefetch, temperature, top_k, top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold, repeat_penalty, presence_penalty, frequency_penalty, repeat_last_n, dry_multiplier, dry_base, dry_allowed_length, dry_last_n, mirostat, mirostat_tau, mirostat_eta. The line is ignored.",
            "EMBODIOS.CFG line 6: `top_p` can't be `1.5`: it takes a share of probability from 0 to 1, 1 for all. The line is ignored.",
            "EMBODIOS.CFG line 7: `temperature` can't be `nan`: it takes a number from 0 (always the likeliest token) to 5. The line is ignored.",
            "EMBODIOS.CFG line 8: `seed` can't be `-1`: it takes a whole number, or `random`. The line is ignored.",
            "EMBODIOS.CFG line 9: `seed` has no value: it takes a whole number, or `random`. The line is ignored.",
        ];
        assert_eq!(warnings(text), expected);
    }

    #[test]
    fn a_file_that_is_no_text_is_one_warning() {
        let (config, warnings) = read(b"\xff\xfec\0t\0x\0");
        assert_eq!(config, Config::default());
        assert!(warnings[0].to_string().contains("UTF-16"));
        assert_eq!(read(b"PK\x03\x04\n\0ctx = 9\n").1, [Warning::NotText { utf16: false }]);
    }

    #[test]
    fn a_line_in_another_encoding_is_named_and_the_others_count() {
        // Latin-1, as old editors write it: a comment is left alone, a value is not.
        let text = b"model = a.gguf\n# gr\xfc\xdfe\nsystem = Sei h\xf6flich.\n  limit = 7\n\xa0\n";
        let (config, warnings) = read(text);
        assert_eq!((config.model.as_deref(), config.system, config.limit), (Some("a.gguf"), None, 7));
        let told: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            told,
            [
                "EMBODIOS.CFG line 3 is not UTF-8 text: save the file as UTF-8. The line is ignored.",
                "EMBODIOS.CFG line 5 is not UTF-8 text: save the file as UTF-8. The line is ignored.",
            ]
        );
    }

    #[test]
    fn a_form_of_answers_that_is_none_is_named_by_its_line_and_the_one_before_it_holds() {
        let sound = |form: &Wanted| match form {
            Wanted::File(name) => Err(alloc::format!("there is no file `{name}`")),
            Wanted::Form(Form::Schema(_)) => Err("line 1, column 2 of the JSON: expected a text.".into()),
            Wanted::Form(_) => Ok(()),
        };
        let text = b"limit = 3\njson = on\n\njson = {bad\ngrammar = none.gbnf\nseed = 1\n";
        let (config, lines, warnings) = parse(text, sound);
        assert_eq!((config.limit, config.seed, config.form), (3, Some(1), Some(Wanted::Form(Form::Json))));
        let told: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            told,
            [
                "EMBODIOS.CFG line 4: `json` can't be used: line 1, column 2 of the JSON: expected a text. The line is \
                 ignored.",
                "EMBODIOS.CFG line 5: `grammar` can't be used: there is no file `none.gbnf`. The line is ignored.",
            ]
        );
        assert_eq!(lines.of("json"), Some(Place(2)));
        assert_eq!((lines.of("grammar"), lines.of("model")), (None, None));
    }

    #[test]
    fn the_last_line_that_makes_a_setting_is_the_one_to_blame_until_it_is_made_at_the_prompt() {
        let (_, mut lines, _) = parse(b"console = pl011\nconsole = rp1\nconsole = nonsense\n", |_| Ok(()));
        assert_eq!(lines.of("console").map(|place| place.to_string()), Some("EMBODIOS.CFG line 2".into()));
        lines.forget("console");
        assert_eq!(lines.of("console"), None);
    }
}
