//! Filters: what stands after `|`.

use super::call::{Given, generator};
use super::error::What;
use super::evaluate::Evaluator;
use super::lexer::is_space;
use super::print::{self, Json};
use super::value::{Order, Value};
use super::{methods, predicates};
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// All filters, for the test `is filter`.
pub const NAMES: [&str; 41] = [
    "abs",
    "attr",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "wordcount",
    "e",
    "escape",
    "batch",
];

/// The value after a filter.
pub fn apply(evaluator: &mut Evaluator, name: &str, value: &Value, given: &Given) -> Result<Value, What> {
    let wrong = || What::Arguments { name: name.into() };
    let text = || print::text(value);
    Ok(match name {
        "length" | "count" => {
            let length = value.length().ok_or(What::Kind { operation: "measure", value: value.kind() })?;
            Value::Integer(length as i64)
        }
        "default" | "d" => {
            given.only(name, 2, &["default_value", "boolean"])?;
            let falsy = given.get(1, "boolean").is_some_and(Value::is_true) && !value.is_true();
            match given.get(0, "default_value") {
                _ if !value.is_undefined() && !falsy => value.clone(),
                default => default.cloned().unwrap_or_else(|| "".into()),
            }
        }
        "string" => text().into(),
        "safe" => value.clone(), // nothing is ever escaped
        "trim" => {
            let text = text();
            match given.get(0, "chars").and_then(Value::text) {
                None => text.trim_matches(is_space).into(),
                Some(chars) => text.trim_matches(|c| chars.contains(c)).into(),
            }
        }
        "lower" => text().to_lowercase().into(),
        "upper" => text().to_uppercase().into(),
        "capitalize" => methods::capitalize(&text()).into(),
        "title" => methods::title(&text()).into(),
        "escape" | "e" => {
            let text = text();
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                match c {
                    '&' => out.push_str("&amp;"),
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '\'' => out.push_str("&#39;"),
                    '"' => out.push_str("&#34;"),
                    c => out.push(c),
                }
            }
            out.into()
        }
        "wordcount" => Value::Integer(
            text().split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count()
                as i64,
        ),
        "indent" => indent(&text(), given)?.into(),
        "replace" => {
            let part = |place, name| given.get(place, name).map(print::text);
            let (Some(old), Some(new)) = (part(0, "old"), part(1, "new")) else { return Err(wrong()) };
            methods::replace(evaluator, &text(), &old, &new, given.get(2, "count"))?
        }
        "tojson" => {
            given.only(name, 1, &["indent", "ensure_ascii", "separators", "sort_keys"])?;
            let named = |name: &str| given.get(usize::MAX, name);
            let separators = match named("separators") {
                Some(Value::Sequence(two)) => two.items.first().zip(two.items.get(1)),
                _ => None,
            };
            let separators = separators.and_then(|(comma, colon)| comma.text().zip(colon.text()));
            let spaces = |value: &Value| value.integer().and_then(|spaces| usize::try_from(spaces).ok());
            let json = Json {
                indent: named("indent")
                    .or(given.positional.first())
                    .and_then(spaces)
                    .map(|indent| indent.min(16)),
                ascii: named("ensure_ascii").is_some_and(Value::is_true),
                sorted: named("sort_keys").is_some_and(Value::is_true),
                separators,
            };
            let mut out = String::new();
            json.write(&mut out, value, 0)?;
            evaluator.spend(out.len())?;
            out.into()
        }
        "int" => {
            let default = given.get(0, "default").cloned().unwrap_or(Value::Integer(0));
            match value {
                Value::Float(number) if number.is_finite() && number.abs() < 9e18 => {
                    Value::Integer(*number as i64)
                }
                Value::Text(text) => {
                    let text = text.trim_matches(is_space);
                    let whole = || {
                        text.parse::<f64>()
                            .ok()
                            .filter(|number| number.abs() < 9e18)
                            .map(|number| number as i64)
                    };
                    text.parse().ok().or_else(whole).map_or(default, Value::Integer)
                }
                value => value.integer().map_or(default, Value::Integer),
            }
        }
        "float" => {
            let parsed = match value {
                Value::Text(text) => text.trim_matches(is_space).parse().ok(),
                value => value.number(),
            };
            parsed.map_or_else(|| given.get(0, "default").cloned().unwrap_or(Value::Float(0.0)), Value::Float)
        }
        "abs" => match (value.integer(), value) {
            (Some(number), _) => Value::Integer(number.checked_abs().ok_or(What::Arithmetic)?),
            (None, Value::Float(number)) => Value::Float(number.abs()),
            _ => return Err(What::Kind { operation: "take the absolute value of", value: value.kind() }),
        },
        "round" => {
            let digits = given.get(0, "precision").and_then(Value::integer).unwrap_or(0);
            let method = given.get(1, "method").and_then(Value::text).unwrap_or("common");
            let number = value.number().ok_or(What::Kind { operation: "round", value: value.kind() })?;
            let scale = libm::pow(10.0, digits as f64);
            Value::Float(match method {
                "ceil" => libm::ceil(number * scale) / scale,
                "floor" => libm::floor(number * scale) / scale,
                _ => libm::rint(number * scale) / scale,
            })
        }
        "format" => return Err(What::Unsupported { kind: "filter", name: name.into() }),
        _ => return sequence(evaluator, name, value, given),
    })
}

/// Lines after the first begin with spaces, unless they are empty.
fn indent(text: &str, given: &Given) -> Result<String, What> {
    given.only("indent", 3, &["width", "first", "blank"])?;
    let width = match given.get(0, "width") {
        None => " ".repeat(4),
        Some(Value::Text(spaces)) => String::from(&**spaces),
        Some(value) => " ".repeat(usize::try_from(value.integer().unwrap_or(0)).unwrap_or(0).min(64)),
    };
    let is = |place, name| given.get(place, name).is_some_and(Value::is_true);
    let (first, blank) = (is(1, "first"), is(2, "blank"));
    let mut out = String::new();
    for (n, line) in text.split('\n').enumerate() {
        out.push_str(if n == 0 { "" } else { "\n" });
        let indented = if n == 0 { first } else { blank || !line.is_empty() };
        out.push_str(if indented { &width } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

/// `a.b.0` of a value; what is not there is undefined.
fn path(value: &Value, path: &Value) -> Value {
    let step = |value: Value, part: &str| match &value {
        Value::Mapping(mapping) => mapping.named(part).cloned().unwrap_or(Value::Undefined),
        Value::Sequence(sequence) => part
            .parse::<usize>()
            .ok()
            .and_then(|at| sequence.items.get(at).cloned())
            .unwrap_or(Value::Undefined),
        _ => Value::Undefined,
    };
    match (path, value) {
        (Value::Text(names), _) => names.split('.').fold(value.clone(), step),
        (Value::Integer(at), Value::Sequence(sequence)) => usize::try_from(*at)
            .ok()
            .and_then(|at| sequence.items.get(at).cloned())
            .unwrap_or(Value::Undefined),
        _ => Value::Undefined,
    }
}

/// Order for sorting: strings in lower case unless told otherwise.
fn order(a: &Value, b: &Value, by_case: bool, failed: &mut Option<What>) -> Ordering {
    let folded = match (a.text(), b.text()) {
        (Some(a), Some(b)) if !by_case => Some(a.to_lowercase().cmp(&b.to_lowercase())),
        _ => a.compare(b),
    };
    folded.unwrap_or_else(|| {
        *failed = Some(What::Kinds { operation: "order", left: a.kind(), right: b.kind() });
        Ordering::Equal
    })
}

/// What a test's arguments are, when its name is the argument before them.
fn rest<'t>(given: &Given<'t>, from: usize) -> Given<'t> {
    Given {
        positional: given.positional.get(from..).unwrap_or_default().to_vec(),
        named: given.named.clone(),
    }
}

/// Filters of what can be walked.
fn sequence(evaluator: &mut Evaluator, name: &str, value: &Value, given: &Given) -> Result<Value, What> {
    if !NAMES.contains(&name) {
        return Err(What::Unsupported { kind: "filter", name: name.into() });
    }
    let wrong = || What::Arguments { name: name.into() };
    let flag = |place, name| given.get(place, name).is_some_and(Value::is_true);
    if let ("items" | "dictsort", Value::Mapping(mapping)) = (name, value) {
        evaluator.spend(mapping.entries.len() * 4 * size_of::<Value>())?;
        let mut entries: Vec<&(Value, Value)> = mapping.entries.iter().collect();
        if name == "dictsort" {
            given.only(name, 3, &["case_sensitive", "by", "reverse"])?;
            let by_value = given.get(1, "by").and_then(Value::text) == Some("value");
            let mut failed = None;
            entries.sort_by(|a, b| {
                let (a, b) = if by_value { (&a.1, &b.1) } else { (&a.0, &b.0) };
                let order = order(a, b, flag(0, "case_sensitive"), &mut failed);
                if flag(2, "reverse") { order.reverse() } else { order }
            });
            failed.map_or(Ok(()), Err)?;
        }
        let pair = |(key, value): &(Value, Value)| {
            Value::sequence(Order::Tuple, [key.clone(), value.clone()].into())
        };
        let pairs = entries.into_iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        return if name == "items" { generator(pairs) } else { Value::list(pairs) };
    }
    let mut items = match (name, value) {
        ("items", Value::Undefined) => Vec::new(),
        ("items" | "dictsort", value) => {
            return Err(What::Kind { operation: "list the items of", value: value.kind() });
        }
        // Python's asks first whether there is anything at all.
        ("map" | "select" | "reject" | "selectattr" | "rejectattr", value) if !value.is_true() => Vec::new(),
        ("attr", value) => return Ok(path(value, given.get(0, "name").ok_or_else(wrong)?)),
        _ => evaluator.walk(value)?,
    };
    Ok(match name {
        "items" => generator(items)?,
        "list" => Value::list(items)?,
        "first" => items.first().cloned().unwrap_or(Value::Undefined),
        "last" => items.last().cloned().unwrap_or(Value::Undefined),
        "join" => {
            given.only(name, 2, &["d", "attribute"])?;
            let between = given.get(0, "d").map(print::text).unwrap_or_default();
            let attribute = given.get(1, "attribute");
            let mut out = String::new();
            for (n, item) in items.iter().enumerate() {
                let item = attribute.map_or_else(|| item.clone(), |attribute| path(item, attribute));
                evaluator.spend(between.len() + item.bytes() as usize)?;
                out.push_str(if n == 0 { "" } else { &between });
                print::write(&mut out, &item, false);
            }
            out.into()
        }
        "reverse" => {
            items.reverse();
            match value {
                Value::Text(text) => text.chars().rev().collect::<String>().into(),
                _ => generator(items)?,
            }
        }
        "sum" => {
            let start = given.get(1, "start").cloned().unwrap_or(Value::Integer(0));
            let mut sum = start;
            for item in items {
                let item = given.get(0, "attribute").map_or(item.clone(), |attribute| path(&item, attribute));
                let not = || What::Kind { operation: "add up", value: item.kind() };
                sum = match (sum.integer(), item.integer()) {
                    (Some(a), Some(b)) => Value::Integer(a.checked_add(b).ok_or(What::Arithmetic)?),
                    _ => Value::Float(sum.number().ok_or_else(not)? + item.number().ok_or_else(not)?),
                };
            }
            sum
        }
        "min" | "max" => {
            let mut failed = None;
            let by = |a: &Value, b: &Value| order(a, b, flag(0, "case_sensitive"), &mut failed);
            // Of equals Python takes the first.
            let best =
                if name == "min" { items.into_iter().min_by(by) } else { items.into_iter().rev().max_by(by) };
            failed.map_or(Ok(()), Err)?;
            best.unwrap_or(Value::Undefined)
        }
        "sort" => {
            given.only(name, 3, &["reverse", "case_sensitive", "attribute"])?;
            let key = |value: &Value| {
                given.get(2, "attribute").map_or_else(|| value.clone(), |name| path(value, name))
            };
            let mut failed = None;
            items.sort_by(|a, b| {
                let order = order(&key(a), &key(b), flag(1, "case_sensitive"), &mut failed);
                if flag(0, "reverse") { order.reverse() } else { order }
            });
            failed.map_or(Ok(()), Err)?;
            Value::list(items)?
        }
        "unique" => {
            let mut seen: Vec<Value> = Vec::new();
            let mut kept = Vec::new();
            for item in items {
                let key = match item.text() {
                    Some(text) if !flag(0, "case_sensitive") => text.to_lowercase().into(),
                    _ => item.clone(),
                };
                evaluator.spend(seen.len())?;
                if !seen.iter().any(|seen| seen.equals(&key)) {
                    seen.push(key);
                    kept.push(item);
                }
            }
            generator(kept)?
        }
        "map" => {
            let mut mapped = Vec::with_capacity(items.len());
            let attribute = given.get(usize::MAX, "attribute");
            for item in items {
                mapped.push(match attribute {
                    Some(attribute) => match (path(&item, attribute), given.get(usize::MAX, "default")) {
                        (Value::Undefined, Some(default)) => default.clone(),
                        (found, _) => found,
                    },
                    None => {
                        let filter = given.positional.first().and_then(Value::text).ok_or_else(wrong)?;
                        if matches!(filter, "map" | "select" | "reject" | "selectattr" | "rejectattr") {
                            return Err(What::Unsupported { kind: "filter within map", name: filter.into() });
                        }
                        evaluator.spend(item.bytes() as usize)?;
                        apply(evaluator, filter, &item, &rest(given, 1))?
                    }
                });
            }
            generator(mapped)?
        }
        "select" | "reject" | "selectattr" | "rejectattr" => {
            let by_attribute = usize::from(name.ends_with("attr"));
            let test = given.positional.get(by_attribute);
            let of_test = rest(given, by_attribute + 1);
            let mut kept = Vec::new();
            for item in items {
                let judged = match by_attribute {
                    0 => item.clone(),
                    _ => path(&item, given.positional.first().ok_or_else(wrong)?),
                };
                let holds = match test {
                    None => judged.is_true(),
                    Some(test) => predicates::holds(test.text().ok_or_else(wrong)?, &judged, &of_test)?,
                };
                if holds == name.starts_with("select") {
                    kept.push(item);
                }
            }
            generator(kept)?
        }
        _ => return Err(What::Unsupported { kind: "filter", name: name.into() }),
    })
}
