//! JSON, read as far as a schema needs it: objects keep their order, numbers their digits. RFC 8259.

use super::error::Place;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Values within values.
const DEEPEST: usize = 64;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where.
    pub place: Place,
    what: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} of the JSON: {}", self.place.line, self.place.column, self.what)
    }
}

impl core::error::Error for JsonError {}

impl Json {
    /// Reads a text that is one value.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut reader = Reader { text, at: 0 };
        reader.document().map_err(|what| {
            let before = &text[..text.floor_char_boundary(reader.at)];
            let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
            let place = Place { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 };
            JsonError { place, what }
        })
    }

    /// What an object has under this name: the last, where there are several.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// Writes it without spaces.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(number),
            Self::Text(text) => quote(text, out),
            Self::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    out.push(if index == 0 { '[' } else { ',' });
                    item.write(out);
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Self::Object(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push(if index == 0 { '{' } else { ',' });
                    quote(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push_str(if members.is_empty() { "{}" } else { "}" });
            }
        }
    }
}

/// Writes a text in quotes.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\0'..' ' | '\x7f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// A container that is not closed yet, and for an object the name that waits for its value.
enum Open {
    Array(Vec<Json>),
    Object(Vec<(String, Json)>, String),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn document(&mut self) -> Read<Json> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            self.space();
            let mut value = match self.peek() {
                Some(b'[' | b'{') if open.len() == DEEPEST => return Err("too many values within values"),
                Some(b'[') => {
                    self.at += 1;
                    self.space();
                    if !self.take(b']') {
                        open.push(Open::Array(Vec::new()));
                        continue;
                    }
                    Json::Array(Vec::new())
                }
                Some(b'{') => {
                    self.at += 1;
                    self.space();
                    if !self.take(b'}') {
                        let name = self.name()?;
                        open.push(Open::Object(Vec::new(), name));
                        continue;
                    }
                    Json::Object(Vec::new())
                }
                _ => self.scalar()?,
            };
            // A value is there: what it is in goes on or is closed, and then is a value itself.
            loop {
                self.space();
                match open.pop() {
                    None if self.at == self.text.len() => return Ok(value),
                    None => return Err("something follows the value"),
                    Some(Open::Array(mut items)) => {
                        items.push(value);
                        if self.take(b',') {
                            open.push(Open::Array(items));
                            break;
                        }
                        if !self.take(b']') {
                            return Err("expected `,` or `]`");
                        }
                        value = Json::Array(items);
                    }
                    Some(Open::Object(mut members, name)) => {
                        members.push((name, value));
                        if self.take(b',') {
                            self.space();
                            let name = self.name()?;
                            open.push(Open::Object(members, name));
                            break;
                        }
                        if !self.take(b'}') {
                            return Err("expected `,` or `}`");
                        }
                        value = Json::Object(members);
                    }
                }
            }
        }
    }

    fn name(&mut self) -> Read<String> {
        if self.peek() != Some(b'"') {
            return Err("expected a name in double quotes");
        }
        let name = self.string()?;
        self.space();
        if self.take(b':') { Ok(name) } else { Err("expected `:` after a name") }
    }

    fn scalar(&mut self) -> Read<Json> {
        let rest = &self.text[self.at..];
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        match self.peek() {
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            None => Err("it ends where a value should be"),
            Some(_) => Err("expected a value: {, [, a text in double quotes, a number, true, false or null"),
        }
    }

    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err("expected a digit") }
    }

    fn number(&mut self) -> Read<Json> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Json::Number(self.text[start..self.at].into()))
    }

    fn string(&mut self) -> Read<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(c) = self.text[self.at..].chars().next() else { return Err("a text is not closed") };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\0'..' ' => return Err("a control character in a text has to be written as an escape"),
                '\\' => out.push(self.escape()?),
                _ => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let escape = self.peek();
        self.at += 1;
        Ok(match escape {
            Some(c @ (b'"' | b'\\' | b'/')) => c.into(),
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'u') => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first).ok_or("half of a surrogate pair");
                }
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err("half of a surrogate pair");
                }
                let second = self.hex()?.checked_sub(0xdc00).filter(|second| *second < 0x400);
                let second = second.ok_or("half of a surrogate pair")?;
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
                    .ok_or("half of a surrogate pair")?
            }
            _ => {
                self.at -= 1; // which may be the middle of a character
                return Err("an escape that JSON does not have");
            }
        })
    }

    fn hex(&mut self) -> Read<u32> {
        let digits =
            self.text.get(self.at..self.at + 4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let code = code.ok_or("expected four hexadecimal digits after `\\u`")?;
        self.at += 4;
        Ok(code)
    }
}
