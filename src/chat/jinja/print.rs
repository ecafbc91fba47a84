//! Print: values as text, as Python's `str`, `repr` and `json.dumps` write them.

use super::error::What;
use super::value::{Order, Value};
use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write};

/// Appends what `format_args!` gives; text never fails to take it.
pub fn put(out: &mut String, what: fmt::Arguments) {
    let _ = out.write_fmt(what);
}

/// `str(value)`.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, false);
    out
}

/// Appends a value; strings within others are `quoted`.
pub fn write(out: &mut String, value: &Value, quoted: bool) {
    match value {
        Value::Undefined => {}
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Integer(number) => put(out, format_args!("{number}")),
        Value::Float(number) => float(out, *number),
        Value::Text(text) if quoted => quote(out, text),
        Value::Text(text) => out.push_str(text),
        Value::Sequence(sequence) => {
            let (open, close) = match sequence.order {
                Order::Tuple => ("(", if sequence.items.len() == 1 { ",)" } else { ")" }),
                Order::View => ("dict_items([", "])"),
                Order::List | Order::Generator => ("[", "]"),
            };
            out.push_str(open);
            for (n, item) in sequence.items.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                write(out, item, true);
            }
            out.push_str(close);
        }
        Value::Mapping(mapping) => {
            out.push('{');
            for (n, (key, value)) in mapping.entries.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                write(out, key, true);
                out.push_str(": ");
                write(out, value, true);
            }
            out.push('}');
        }
        Value::Namespace(_) | Value::Macro(_) | Value::Loop(_) | Value::Function(_) | Value::Method(_) => {
            put(out, format_args!("<{}>", value.kind()))
        }
    }
}

/// The shortest digits that give the number back, with an exponent from 10¹⁶ on and below 10⁻⁴.
fn float(out: &mut String, number: f64) {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        _ if number.is_nan() => out.push_str("nan"),
        _ if number.is_infinite() => out.push_str(if number > 0.0 { "inf" } else { "-inf" }),
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            put(out, format_args!("{digits}e{sign}{:02}", exponent.abs()));
        }
        _ => put(out, format_args!("{number:?}")),
    }
}

fn quote(out: &mut String, text: &str) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => put(out, format_args!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// How `tojson` writes.
#[derive(Clone, Copy, Default)]
pub struct Json<'a> {
    /// Spaces a level on lines of their own; without, all on one line.
    pub indent: Option<usize>,
    /// Characters beyond ASCII as numbers.
    pub ascii: bool,
    /// Keys in order.
    pub sorted: bool,
    /// What stands between items, and after a key; without, as usual.
    pub separators: Option<(&'a str, &'a str)>,
}

impl Json<'_> {
    /// Appends a value at a `level` of indentation.
    pub fn write(&self, out: &mut String, value: &Value, level: usize) -> Result<(), What> {
        let (comma, colon) =
            self.separators.unwrap_or((if self.indent.is_some() { "," } else { ", " }, ": "));
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(truth) => put(out, format_args!("{truth}")),
            Value::Integer(_) | Value::Float(_) => write(out, value, false),
            Value::Text(text) => self.string(out, text),
            Value::Sequence(sequence) if matches!(sequence.order, Order::List | Order::Tuple) => {
                out.push('[');
                for (n, item) in sequence.items.iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { comma });
                    self.line(out, level + 1);
                    self.write(out, item, level + 1)?;
                }
                if !sequence.items.is_empty() {
                    self.line(out, level);
                }
                out.push(']');
            }
            Value::Mapping(mapping) => {
                out.push('{');
                let mut order: alloc::vec::Vec<_> = mapping.entries.iter().collect();
                if self.sorted {
                    order.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(core::cmp::Ordering::Equal));
                }
                for (n, (key, value)) in order.into_iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { comma });
                    self.line(out, level + 1);
                    match key {
                        Value::Text(key) => self.string(out, key),
                        Value::None | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                            out.push('"');
                            self.write(out, key, level)?;
                            out.push('"');
                        }
                        _ => {
                            return Err(What::Kind {
                                operation: "write as a key of JSON",
                                value: key.kind(),
                            });
                        }
                    }
                    out.push_str(colon);
                    self.write(out, value, level + 1)?;
                }
                if !mapping.entries.is_empty() {
                    self.line(out, level);
                }
                out.push('}');
            }
            _ => return Err(What::Kind { operation: "write as JSON", value: value.kind() }),
        }
        Ok(())
    }

    fn line(&self, out: &mut String, level: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(core::iter::repeat_n(' ', indent * level));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
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
                '\0'..='\x1f' => put(out, format_args!("\\u{:04x}", c as u32)),
                c if self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        put(out, format_args!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_and_quotes_are_pythons() {
        for (number, written) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (0.0, "0.0"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(text(&Value::Float(number)), written);
        }
        let list = Value::list(["it's", "a \"b\" 'c'", "\n\x01é"].map(Value::from).into()).unwrap();
        assert_eq!(text(&list), r#"["it's", 'a "b" \'c\'', '\n\x01é']"#);
        let tuple = Value::sequence(Order::Tuple, [Value::None].into()).unwrap();
        assert_eq!(text(&tuple), "(None,)");
    }

    #[test]
    fn json_is_written_as_json_dumps_writes_it() {
        let inner =
            Value::mapping([("b".into(), Value::Integer(1)), ("a".into(), Value::None)].into()).unwrap();
        let empty = Value::list([].into()).unwrap();
        let value = Value::list([inner, empty, "é\"\n😀".into(), Value::Bool(true)].into()).unwrap();
        let json = |style: Json| {
            let mut out = String::new();
            style.write(&mut out, &value, 0).unwrap();
            out
        };
        assert_eq!(json(Json::default()), "[{\"b\": 1, \"a\": null}, [], \"é\\\"\\n😀\", true]");
        assert_eq!(
            json(Json { indent: Some(2), ascii: true, sorted: true, ..Json::default() }),
            "[\n  {\n    \"a\": null,\n    \"b\": 1\n  },\n  [],\n  \"\\u00e9\\\"\\n\\ud83d\\ude00\",\n  true\n]"
        );
        assert!(Json::default().write(&mut String::new(), &Value::Undefined, 0).is_err());
    }
}
