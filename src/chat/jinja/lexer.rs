//! Lexer: a template cut into text and tokens, white space controlled as Jinja2 does.
//!
//! As the transformers library sets Jinja up: `trim_blocks` (a line break right after a block tag or comment goes),
//! `lstrip_blocks` (so do spaces before one that is the first of its line), and the line break that ends the
//! program. `-` and `+` beside a tag's brace overrule both.

use super::error::{Error, What};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Text to be put out as it is.
    Text(String),
    /// `{{`
    OutputBegin,
    /// `}}`
    OutputEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    /// A name or a word of the language.
    Name(String),
    /// A string in quotes, its escapes resolved.
    Quoted(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// Punctuation, one or two characters.
    Mark(&'static str),
}

/// The longest first.
const MARKS: [&str; 27] = [
    "//", "**", "==", "!=", "<=", ">=", "+", "-", "/", "*", "%", "~", "<", ">", "=", ".", ":", "|", ",", ";",
    "(", ")", "[", "]", "{", "}", "!",
];

/// White space as Python's `str.isspace` has it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

struct Lexer<'s> {
    rest: &'s str,
    line: u32,
    /// Whether the last token ended a line, or there was none.
    line_starting: bool,
    tokens: Vec<(Token, u32)>,
}

/// Cuts a template. Every token has its line.
pub fn lex(source: &str) -> Result<Vec<(Token, u32)>, Error> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, line: 1, line_starting: true, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.text()?;
    }
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    /// Goes on by so many bytes.
    fn take(&mut self, bytes: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count() as u32;
        self.line_starting = taken.ends_with('\n');
        self.rest = rest;
        taken
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn error(&self, what: What) -> Error {
        what.at(self.line)
    }

    /// Text up to the next tag, and the tag.
    fn text(&mut self) -> Result<(), Error> {
        let is_tag = |at: &usize| matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
        let Some(at) = self.rest.match_indices('{').map(|(at, _)| at).find(is_tag) else {
            let text = self.take(self.rest.len());
            self.push(Token::Text(text.to_string()));
            return Ok(());
        };
        let kind = self.rest.as_bytes()[at + 1];
        let sign = self.rest.as_bytes().get(at + 2).copied().filter(|sign| matches!(sign, b'-' | b'+'));
        let mut text = &self.rest[..at];
        if sign == Some(b'-') {
            text = text.trim_end_matches(is_space);
        } else if sign.is_none() && kind != b'{' {
            let row = text.rfind('\n').map_or(0, |at| at + 1);
            if (row > 0 || self.line_starting) && text[row..].chars().all(is_space) {
                text = &text[..row];
            }
        }
        if !text.is_empty() {
            self.push(Token::Text(text.to_string()));
        }
        // `{{+` is no sign but a plus.
        self.take(at + 2 + usize::from(sign.is_some_and(|sign| sign == b'-' || kind != b'{')));
        match kind {
            b'#' => self.comment(),
            b'%' if self.raw_begins() => self.raw(),
            b'%' => self.tag(Token::BlockBegin, Token::BlockEnd, "%}"),
            _ => self.tag(Token::OutputBegin, Token::OutputEnd, "}}"),
        }
    }

    /// The end of a tag, with what its sign takes along.
    fn end(&mut self, end: &str) -> Option<()> {
        let (sign, rest) = match self.rest.as_bytes().first() {
            Some(b'-') => (Some(b'-'), &self.rest[1..]),
            Some(b'+') if end != "}}" => (Some(b'+'), &self.rest[1..]),
            _ => (None, self.rest),
        };
        let after = rest.strip_prefix(end)?;
        let left = match sign {
            Some(b'-') => after.trim_start_matches(is_space),
            None if end != "}}" => after.strip_prefix('\n').unwrap_or(after),
            _ => after,
        };
        self.take(self.rest.len() - left.len());
        Some(())
    }

    fn comment(&mut self) -> Result<(), Error> {
        let Some(end) = self.rest.find("#}") else {
            return Err(self.error(What::Unclosed { what: "a comment" }));
        };
        let sign = end > 0 && matches!(self.rest.as_bytes()[end - 1], b'-' | b'+');
        self.take(end - usize::from(sign));
        self.end("#}").ok_or_else(|| self.error(What::Unclosed { what: "a comment" }))
    }

    fn raw_begins(&self) -> bool {
        let after = self.rest.trim_start_matches(is_space).strip_prefix("raw");
        after.is_some_and(|after| {
            let after = after.trim_start_matches(is_space);
            after.starts_with("%}") || after.starts_with("-%}")
        })
    }

    /// What stands between `raw` and `endraw` is text.
    fn raw(&mut self) -> Result<(), Error> {
        let begin = self.rest.find("%}").unwrap_or(0);
        let strips = self.rest.as_bytes()[..begin].ends_with(b"-");
        self.take(begin + 2);
        if strips {
            let spaces = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.take(spaces);
        }
        let unclosed = || What::Unclosed { what: "a raw block" };
        let mut from = 0;
        loop {
            let Some(at) = self.rest[from..].find("{%").map(|at| from + at) else {
                return Err(self.error(unclosed()));
            };
            let inside = &self.rest[at + 2..];
            let signed = inside.trim_start_matches(['-', '+']);
            let sign = inside.as_bytes().first().copied().filter(|sign| matches!(sign, b'-' | b'+'));
            let Some(after) = signed.trim_start_matches(is_space).strip_prefix("endraw") else {
                from = at + 2;
                continue;
            };
            let mut text = &self.rest[..at];
            match sign {
                Some(b'-') => text = text.trim_end_matches(is_space),
                None => {
                    let row = text.rfind('\n').map_or(0, |at| at + 1);
                    if row > 0 && text[row..].chars().all(is_space) {
                        text = &text[..row];
                    }
                }
                _ => {}
            }
            self.push(Token::Text(text.to_string()));
            let after = after.trim_start_matches(is_space);
            self.take(self.rest.len() - after.len());
            return self.end("%}").ok_or_else(|| self.error(unclosed()));
        }
    }

    /// The tokens of a tag.
    fn tag(&mut self, begin: Token, last: Token, end: &'static str) -> Result<(), Error> {
        self.push(begin);
        let mut open = 0_usize;
        loop {
            let spaces = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.take(spaces);
            if open == 0 {
                let line = self.line;
                if self.end(end).is_some() {
                    self.tokens.push((last, line));
                    return Ok(());
                }
            }
            let Some(first) = self.rest.chars().next() else {
                return Err(self.error(What::Unclosed { what: "a tag" }));
            };
            let line = self.line;
            let token = match first {
                '\'' | '"' => self.quoted(first)?,
                '0'..='9' => self.number()?,
                _ if first == '_' || first.is_alphabetic() => {
                    let is_part = |c: char| c == '_' || c.is_alphanumeric();
                    let length = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
                    Token::Name(self.take(length).to_string())
                }
                _ => {
                    let Some(mark) = MARKS.into_iter().find(|mark| self.rest.starts_with(mark)) else {
                        let found = String::from(first);
                        return Err(self.error(What::Syntax { expected: "an expression", found }));
                    };
                    match mark {
                        "(" | "[" | "{" => open += 1,
                        ")" | "]" | "}" => open = open.saturating_sub(1),
                        _ => {}
                    }
                    self.take(mark.len());
                    Token::Mark(mark)
                }
            };
            self.tokens.push((token, line));
        }
    }

    /// A number. Underscores may stand between digits.
    fn number(&mut self) -> Result<Token, Error> {
        let bad = |found: &str| What::Syntax { expected: "a number", found: found.into() };
        let radix = match self.rest.get(..2) {
            Some("0x" | "0X") => Some(16),
            Some("0o" | "0O") => Some(8),
            Some("0b" | "0B") => Some(2),
            _ => None,
        };
        let digits = |text: &str, radix: u32| {
            text.find(|c: char| !c.is_digit(radix) && c != '_').unwrap_or(text.len())
        };
        if let Some(radix) = radix {
            let length = digits(&self.rest[2..], radix);
            let text = self.take(2 + length)[2..].replace('_', "");
            return i64::from_str_radix(&text, radix).map(Token::Integer).map_err(|_| self.error(bad(&text)));
        }
        let mut length = digits(self.rest, 10);
        let mut whole = true;
        if let Some(after) = self.rest[length..].strip_prefix('.')
            && after.starts_with(|c: char| c.is_ascii_digit())
        {
            (length, whole) = (length + 1 + digits(after, 10), false);
        }
        if let Some(after) = self.rest[length..].strip_prefix(['e', 'E']) {
            let sign = usize::from(after.starts_with(['+', '-']));
            if after[sign..].starts_with(|c: char| c.is_ascii_digit()) {
                (length, whole) = (length + 1 + sign + digits(&after[sign..], 10), false);
            }
        }
        let text = self.take(length).replace('_', "");
        if whole {
            text.parse().map(Token::Integer).map_err(|_| self.error(bad(&text)))
        } else {
            text.parse().map(Token::Float).map_err(|_| self.error(bad(&text)))
        }
    }

    /// A string; escapes are Python's.
    fn quoted(&mut self, quote: char) -> Result<Token, Error> {
        let mut text = String::new();
        let unclosed = What::Unclosed { what: "a string" };
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.take(1 + at + 1);
                    return Ok(Token::Quoted(text));
                }
                '\\' => {
                    let Some((_, escaped)) = chars.next() else { break };
                    let after = chars.as_str();
                    let number = |digits: usize, radix: u32| {
                        let digits = after.get(..digits)?;
                        char::from_u32(u32::from_str_radix(digits, radix).ok()?)
                    };
                    let (character, more) = match escaped {
                        'n' => (Some('\n'), 0),
                        't' => (Some('\t'), 0),
                        'r' => (Some('\r'), 0),
                        'a' => (Some('\x07'), 0),
                        'b' => (Some('\x08'), 0),
                        'f' => (Some('\x0c'), 0),
                        'v' => (Some('\x0b'), 0),
                        '\n' => (None, 0),
                        '\\' | '\'' | '"' => (Some(escaped), 0),
                        'x' => (number(2, 16), 2),
                        'u' => (number(4, 16), 4),
                        'U' => (number(8, 16), 8),
                        '0'..='7' => {
                            let more = after.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                            let digits = after[..more].bytes().fold(escaped as u32 - 48, |value, digit| {
                                value * 8 + u32::from(digit - b'0')
                            });
                            (char::from_u32(digits), more)
                        }
                        _ => {
                            text.push('\\');
                            (Some(escaped), 0)
                        }
                    };
                    if character.is_none() && more > 0 {
                        let found = alloc::format!("\\{escaped}");
                        return Err(self.error(What::Syntax { expected: "a character's number", found }));
                    }
                    text.extend(character);
                    chars.by_ref().take(more).for_each(drop);
                }
                _ => text.push(c),
            }
        }
        Err(self.error(unclosed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn texts(source: &str) -> String {
        let tokens = lex(source).unwrap();
        tokens
            .into_iter()
            .filter_map(|(token, _)| if let Token::Text(text) = token { Some(text) } else { None })
            .collect()
    }

    #[test]
    fn white_space_beside_tags_goes_as_in_jinja2() {
        for (source, left) in [
            ("a\n  {% x %}\n b", "a\n b"),
            ("a  {% x %}\n\nb", "a  \nb"),
            ("  {% x %} {% y %}  \nb", "   \nb"),
            ("a\n  {%+ x +%}\nb", "a\n  \nb"),
            ("a \n {%- x -%} \n b", "ab"),
            ("a\n {{ x }}\n b", "a\n \n b"),
            ("a \n{{- x -}} \n b", "ab"),
            ("a\n {# x #}\nb", "a\nb"),
            ("a {#- x -#} b", "ab"),
            ("a\r\nb\r\n", "a\nb"),
            ("a\n\n", "a\n"),
            ("{% raw %}{{ x }}{% endraw %}\nz", "{{ x }}z"),
            ("{ {", "{ {"),
        ] {
            assert_eq!(texts(source), left, "{source:?}");
        }
    }

    #[test]
    fn strings_and_numbers_are_pythons() {
        let tokens = lex(r#"{{ 'a\n\'\x41\u00e9\101\d' "b'" 1_000 0x1f 1.5e2 "}}" {'a': {}} }}"#).unwrap();
        let values: Vec<Token> = tokens.into_iter().map(|(token, _)| token).collect();
        assert_eq!(
            values[1..7],
            [
                Token::Quoted("a\n'AéA\\d".into()),
                Token::Quoted("b'".into()),
                Token::Integer(1000),
                Token::Integer(31),
                Token::Float(150.0),
                Token::Quoted("}}".into()),
            ]
        );
        assert_eq!(values.last(), Some(&Token::OutputEnd));
    }

    #[test]
    fn what_is_never_closed_is_an_error_with_its_line() {
        for source in [
            "\n{{ x",
            "\n{% x",
            "\n{# x",
            "\n{{ 'x",
            "\n{% raw %}{% end",
            "\n{{ '\\",
            "\n{{ {'a': }}",
            "\n{{ 9999999999999999999999 }}",
            "\n{{ ? }}",
            "\n{{ '\\x4' }}",
        ] {
            assert_eq!(lex(source).map_err(|error| error.line), Err(2), "{source:?}");
        }
        assert_eq!(lex(""), Ok(vec![]));
        assert!(lex("{").is_ok() && lex("{{}}").is_ok());
    }
}
