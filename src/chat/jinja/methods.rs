//! Methods: what Python's strings, lists and dictionaries can do.

use super::call::Given;
use super::error::What;
use super::evaluate::Evaluator;
use super::lexer::is_space;
use super::print;
use super::value::{Order, Value};
use alloc::string::String;
use alloc::vec::Vec;

const OF_TEXT: &[&str] = &[
    "capitalize",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isdigit",
    "islower",
    "isspace",
    "isupper",
    "join",
    "lower",
    "lstrip",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "title",
    "upper",
];
const OF_LISTS: &[&str] =
    &["append", "clear", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
const OF_MAPPINGS: &[&str] =
    &["clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];
/// Methods that change their list or dictionary, which Jinja's sandbox does not allow.
const CHANGING: &[&str] = &[
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// Whether a value has a method of this name.
pub fn has(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) => OF_TEXT.contains(&name),
        Value::Sequence(sequence) => match sequence.order {
            Order::List => OF_LISTS.contains(&name),
            Order::Tuple => matches!(name, "count" | "index"),
            _ => false,
        },
        Value::Mapping(_) => OF_MAPPINGS.contains(&name),
        _ => false,
    }
}

/// Calls a method that the value [has](has).
pub fn call(evaluator: &mut Evaluator, value: &Value, name: &str, given: &Given) -> Result<Value, What> {
    match value {
        Value::Text(text) => of_text(evaluator, text, name, given),
        _ if CHANGING.contains(&name) => {
            Err(What::Unsupported { kind: "change by the method", name: name.into() })
        }
        Value::Mapping(mapping) => {
            evaluator.spend(mapping.entries.len() * 4 * size_of::<Value>())?;
            let parts = |part: fn(&(Value, Value)) -> Value| {
                Value::sequence(Order::View, mapping.entries.iter().map(part).collect())
            };
            match name {
                "get" => {
                    given.only(name, 2, &[])?;
                    let key =
                        given.positional.first().ok_or_else(|| What::Arguments { name: name.into() })?;
                    let default = || given.positional.get(1).cloned().unwrap_or(Value::None);
                    Ok(mapping.get(key).cloned().unwrap_or_else(default))
                }
                "keys" => parts(|(key, _)| key.clone()),
                "values" => parts(|(_, value)| value.clone()),
                "items" => {
                    let pair = |(key, value): &(Value, Value)| {
                        Value::sequence(Order::Tuple, [key.clone(), value.clone()].into())
                    };
                    Value::sequence(Order::View, mapping.entries.iter().map(pair).collect::<Result<_, _>>()?)
                }
                _ => Ok(value.clone()), // copy
            }
        }
        Value::Sequence(sequence) => {
            let wanted = given.positional.first().ok_or_else(|| What::Arguments { name: name.into() })?;
            let mut places = sequence.items.iter().enumerate().filter(|(_, item)| item.equals(wanted));
            match name {
                "count" => Ok(Value::Integer(places.count() as i64)),
                _ => places.next().map(|(at, _)| Value::Integer(at as i64)).ok_or(What::Arithmetic),
            }
        }
        _ => Err(What::Kind { operation: "call a method of", value: value.kind() }),
    }
}

/// `text.replace(old, new, count)`.
pub fn replace(
    evaluator: &mut Evaluator,
    text: &str,
    old: &str,
    new: &str,
    count: Option<&Value>,
) -> Result<Value, What> {
    let most =
        count.and_then(Value::integer).and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(most);
    evaluator.spend(text.len() + found.saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, most).into())
}

/// The first letter large, the others small.
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars.flat_map(char::to_lowercase)).collect()
}

/// Every word's first letter large.
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        if within {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        within = c.is_alphabetic();
    }
    out
}

fn of_text(evaluator: &mut Evaluator, text: &str, name: &str, given: &Given) -> Result<Value, What> {
    let wrong = || What::Arguments { name: name.into() };
    let argument = |place: usize| given.positional.get(place);
    let word = |place: usize| argument(place).and_then(Value::text).ok_or_else(wrong);
    if name == "format" {
        return format(evaluator, text, given);
    }
    given.only(name, 3, &["sep", "maxsplit", "keepends", "count"])?;
    let all = |is: fn(char) -> bool| Value::Bool(!text.is_empty() && text.chars().all(is));
    let place = |at: Option<usize>| Value::Integer(at.map_or(-1, |at| text[..at].chars().count() as i64));
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let chars = match argument(0) {
                None | Some(Value::None) => None,
                Some(_) => Some(word(0)?),
            };
            let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
            match name {
                "strip" => text.trim_matches(goes),
                "lstrip" => text.trim_start_matches(goes),
                _ => text.trim_end_matches(goes),
            }
            .into()
        }
        "split" | "rsplit" => {
            let most = given.get(1, "maxsplit").and_then(Value::integer);
            let most = most
                .and_then(|most| usize::try_from(most).ok())
                .map_or(usize::MAX, |most| most.saturating_add(1));
            let parts: Vec<&str> = match given.get(0, "sep") {
                None | Some(Value::None) => words(text, most, name == "rsplit"),
                Some(Value::Text(separator)) if !separator.is_empty() => {
                    let mut parts: Vec<&str> = match name {
                        "split" => text.splitn(most, &**separator).collect(),
                        _ => text.rsplitn(most, &**separator).collect(),
                    };
                    if name == "rsplit" {
                        parts.reverse();
                    }
                    parts
                }
                _ => return Err(wrong()),
            };
            evaluator.spend(parts.len() * 2 * size_of::<Value>())?;
            Value::list(parts.into_iter().map(Value::from).collect())?
        }
        "splitlines" => Value::list(text.lines().map(Value::from).collect())?,
        "startswith" | "endswith" => {
            let is = |part: &Value| match (part.text(), name) {
                (Some(part), "startswith") => Ok(text.starts_with(part)),
                (Some(part), _) => Ok(text.ends_with(part)),
                _ => Err(wrong()),
            };
            match argument(0).ok_or_else(wrong)? {
                Value::Sequence(parts) if parts.order == Order::Tuple => {
                    let mut any = false;
                    for part in &parts.items {
                        any |= is(part)?;
                    }
                    any
                }
                part => is(part)?,
            }
            .into()
        }
        "replace" => replace(evaluator, text, word(0)?, word(1)?, given.get(2, "count"))?,
        "removeprefix" => text.strip_prefix(word(0)?).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(word(0)?).unwrap_or(text).into(),
        "lower" => text.to_lowercase().into(),
        "upper" => text.to_uppercase().into(),
        "capitalize" => capitalize(text).into(),
        "title" => title(text).into(),
        "isdigit" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "islower" => (text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into(),
        "isupper" => (text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into(),
        "find" => place(text.find(word(0)?)),
        "rfind" => place(text.rfind(word(0)?)),
        "index" => place(Some(text.find(word(0)?).ok_or(What::Arithmetic)?)),
        "count" => match word(0)? {
            "" => Value::Integer(text.chars().count() as i64 + 1),
            part => Value::Integer(text.matches(part).count() as i64),
        },
        "join" => {
            let items = evaluator.walk(argument(0).ok_or_else(wrong)?)?;
            let mut out = String::new();
            for (n, item) in items.iter().enumerate() {
                let part = item.text().ok_or(What::Kind { operation: "join", value: item.kind() })?;
                evaluator.spend(text.len() + part.len())?;
                out.push_str(if n == 0 { "" } else { text });
                out.push_str(part);
            }
            out.into()
        }
        _ => return Err(What::Unsupported { kind: "method", name: name.into() }),
    })
}

/// Words between white space, at most so many; the rest of the text stays with the last, or the first.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() {
        let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        match cut {
            Some(at) if parts.len() + 1 < most => {
                let (before, after) = (rest[..at].trim_matches(is_space), rest[at..].trim_matches(is_space));
                let (part, left) = if from_end { (after, before) } else { (before, after) };
                parts.push(part);
                rest = left;
            }
            _ => {
                parts.push(rest);
                break;
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// `'{} {0} {name}'.format(…)`, without formats of numbers.
fn format(evaluator: &mut Evaluator, text: &str, given: &Given) -> Result<Value, What> {
    let wrong = || What::Arguments { name: "format".into() };
    let mut out = String::new();
    let (mut rest, mut next) = (text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        let (field, after) = after.split_once('}').filter(|_| brace == "{").ok_or_else(wrong)?;
        if field.contains([':', '!', '.', '[', '{']) {
            return Err(What::Unsupported { kind: "format of a field", name: field.into() });
        }
        let place = if field.is_empty() { Some(next) } else { field.parse().ok() };
        next += usize::from(field.is_empty());
        let value = given.get(place.unwrap_or(usize::MAX), field).ok_or_else(wrong)?;
        evaluator.spend(value.bytes() as usize)?;
        print::write(&mut out, value, false);
        rest = after;
    }
    out.push_str(rest);
    evaluator.spend(out.len())?;
    Ok(out.into())
}
