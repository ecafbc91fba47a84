//! Regular expressions of JSON schemas, as rules of a grammar.

use super::json::quote;
use super::schema::{NOT_PLAIN, in_class, literal};
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// A regular expression as the rule of a JSON text: characters, classes, `.`, groups, alternatives and repetitions look much
/// the same in both. Without `^` anything may come before it, without `$` anything after.
pub(super) fn body(pattern: &str) -> Result<String, &'static str> {
    const PLAIN: &str = "only characters, classes, groups, `|` and repetitions are supported";
    let (start, inner) = match pattern.strip_prefix('^') {
        Some(rest) => ("", rest),
        None => ("char* ", pattern),
    };
    let (end, inner) = match inner.strip_suffix('$') {
        Some(rest) if !rest.ends_with('\\') => ("", rest),
        _ => (" char*", inner),
    };
    let class_of = |c: char| match c {
        'd' => Some("0-9"),
        'w' => Some("0-9A-Za-z\\U0000005F"),
        's' => Some(" "), // other white space can't stand in a JSON text as it is
        _ => None,
    };
    let mut body = String::new();
    let mut chars = inner.chars().peekable();
    let mut repeatable = false;
    let mut depth = 0;
    while let Some(c) = chars.next() {
        let was_repeatable = core::mem::replace(&mut repeatable, true);
        match c {
            '.' => body.push_str("char "),
            '(' => {
                if chars.next_if_eq(&'?').is_some() && chars.next_if_eq(&':').is_none() {
                    return Err("groups that look around or have names are not supported");
                }
                depth += 1;
                repeatable = false;
                body.push_str("( ");
            }
            ')' => {
                if depth == 0 {
                    return Err("a `)` too many");
                }
                depth -= 1;
                body.push_str(") ");
            }
            '|' => {
                repeatable = false;
                body.push_str("| ");
            }
            '*' | '+' | '?' | '{' if !was_repeatable => return Err("there is nothing to repeat"),
            '*' | '+' | '?' => {
                repeatable = false;
                body.truncate(body.trim_end().len());
                body.extend([c, ' ']);
            }
            '{' => {
                repeatable = false;
                body.truncate(body.trim_end().len());
                body.push('{');
                loop {
                    match chars.next() {
                        Some('}') => break,
                        Some(c @ ('0'..='9' | ',')) => body.push(c),
                        _ => return Err("expected {m}, {m,} or {m,n}"),
                    }
                }
                body.push_str("} ");
            }
            '^' | '$' => return Err("`^` and `$` may only be its first and its last character"),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                body.push_str(if negated { "[^" } else { "[" });
                loop {
                    match chars.next() {
                        None => return Err("a class is not closed"),
                        Some(']') => break,
                        Some('-') => body.push_str(if chars.peek() == Some(&']') { "\\-" } else { "-" }),
                        Some('\\') => {
                            let c = chars.next().ok_or("it ends with a backslash")?;
                            match class_of(c) {
                                Some(class) => body.push_str(class),
                                None if c.is_ascii_alphanumeric() => return Err(PLAIN),
                                None if !negated && matches!(c, '"' | '\\') => {
                                    return Err(
                                        "a class can't have `\"` or `\\`: JSON writes them with two characters",
                                    );
                                }
                                None => body.push_str(&in_class(c)),
                            }
                        }
                        Some('"') if !negated => {
                            return Err(
                                "a class can't have `\"` or `\\`: JSON writes them with two characters",
                            );
                        }
                        Some(c) => body.push_str(&in_class(c)),
                    }
                }
                body.push_str(if negated { NOT_PLAIN } else { "" });
                body.push_str("] ");
            }
            '\\' => {
                let c = chars.next().ok_or("it ends with a backslash")?;
                match class_of(c) {
                    Some(class) => {
                        let _ = write!(body, "[{class}] ");
                    }
                    None if c.is_ascii_alphanumeric() => return Err(PLAIN),
                    None => character(c, &mut body),
                }
            }
            c => character(c, &mut body),
        }
    }
    if depth > 0 {
        return Err("a group is not closed");
    }
    Ok(format!("\"\\\"\" {start}( {body}){end} \"\\\"\""))
}

/// A character of a JSON text.
fn character(c: char, body: &mut String) {
    let mut json = String::new();
    quote(c.encode_utf8(&mut [0; 4]), &mut json);
    // A group, so that a repetition repeats all of it.
    let text = literal(&json[1..json.len() - 1]);
    body.push_str(&text);
    body.push(' ');
}
