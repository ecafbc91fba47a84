//! Predicates: what stands after `is`.

use super::call::Given;
use super::compute::compare;
use super::error::What;
use super::syntax::Operator;
use super::value::{Order, Value};

/// Whether a value passes the test of this name.
pub fn holds(name: &str, value: &Value, given: &Given) -> Result<bool, What> {
    let argument = || given.get(0, "other").ok_or_else(|| What::Arguments { name: name.into() });
    let compared = |operator| compare(operator, value, argument()?);
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Integer(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.number().is_some(),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Mapping(_)),
        "iterable" => {
            matches!(value, Value::Undefined | Value::Text(_) | Value::Sequence(_) | Value::Mapping(_))
        }
        "sequence" => match value {
            Value::Sequence(sequence) => matches!(sequence.order, Order::List | Order::Tuple),
            value => matches!(value, Value::Undefined | Value::Text(_) | Value::Mapping(_)),
        },
        "callable" => matches!(value, Value::Macro(_) | Value::Function(_) | Value::Method(_)),
        "odd" | "even" => {
            let number = value.integer().ok_or(What::Kind { operation: "halve", value: value.kind() })?;
            number.rem_euclid(2) == i64::from(name == "odd")
        }
        "divisibleby" => match (value.integer(), argument()?.integer()) {
            (_, Some(0)) => return Err(What::Arithmetic),
            (Some(number), Some(by)) => number.checked_rem(by) == Some(0),
            _ => return Err(What::Kind { operation: "divide", value: value.kind() }),
        },
        "lower" | "upper" => {
            let text = super::print::text(value);
            let wrong = |c: char| if name == "lower" { c.is_uppercase() } else { c.is_lowercase() };
            text.chars().any(char::is_alphabetic) && !text.chars().any(wrong)
        }
        "sameas" => match (value, argument()?) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Bool(_), _) | (_, Value::Bool(_)) => false,
            (value, other) => value.equals(other),
        },
        "in" => compared(Operator::In)?,
        "eq" | "equalto" | "==" => compared(Operator::Equal)?,
        "ne" | "!=" => compared(Operator::Unequal)?,
        "lt" | "lessthan" | "<" => compared(Operator::Less)?,
        "le" | "<=" => compared(Operator::LessEqual)?,
        "gt" | "greaterthan" | ">" => compared(Operator::Greater)?,
        "ge" | ">=" => compared(Operator::GreaterEqual)?,
        "escaped" => false,
        "filter" => value.text().is_some_and(|name| super::filters::NAMES.contains(&name)),
        _ => return Err(What::Unsupported { kind: "test", name: name.into() }),
    })
}
