//! Compute: the values of expressions, by Python's rules.

use super::error::{Error, What};
use super::evaluate::Evaluator;
use super::syntax::{Expression, Id, Operator};
use super::value::{Order, Value};
use super::{filters, methods, predicates, print};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

impl<'t> Evaluator<'t> {
    /// The value of an expression.
    pub fn expression(&mut self, id: Id) -> Result<Value, Error> {
        let (expression, line) = &self.tree.expressions[id as usize];
        match expression {
            Expression::Constant(value) => return Ok(value.clone()),
            Expression::Name(name) => return Ok(self.look_up(*name)),
            Expression::Captured => return Ok(self.captured.clone()),
            _ => {}
        }
        self.descend().map_err(|what| what.at(*line))?;
        let value = match expression {
            Expression::Chain(first, links) => self.chain(*first, links, *line)?,
            Expression::Attribute(of, name) => {
                let value = self.expression(*of)?;
                self.attribute(&value, *name, *of).map_err(|what| what.at(*line))?
            }
            Expression::Item(of, index) => {
                let value = self.expression(*of)?;
                let index = self.expression(*index)?;
                self.item(&value, &index, *of).map_err(|what| what.at(*line))?
            }
            Expression::Not(value) => Value::Bool(!self.expression(*value)?.is_true()),
            Expression::Choice { test, then, otherwise } => {
                if self.expression(*test)?.is_true() {
                    self.expression(*then)?
                } else {
                    otherwise.map_or(Ok(Value::Undefined), |otherwise| self.expression(otherwise))?
                }
            }
            Expression::Call(..) => self.call(id, None)?,
            expression => self.composite(expression, *line)?,
        };
        self.ascend();
        Ok(value)
    }

    fn expressions(&mut self, ids: &[Id]) -> Result<Vec<Value>, Error> {
        ids.iter().map(|id| self.expression(*id)).collect()
    }

    /// The rarer kinds, so that their variables do not lie on the stack of every level.
    #[inline(never)]
    fn composite(&mut self, expression: &'t Expression, line: u32) -> Result<Value, Error> {
        let at = |what: What| what.at(line);
        match expression {
            Expression::List(items) | Expression::Tuple(items) => {
                let order =
                    if matches!(expression, Expression::List(_)) { Order::List } else { Order::Tuple };
                let items = self.expressions(items)?;
                self.spend(size_of_val(&items[..]) + 64).map_err(at)?;
                Value::sequence(order, items).map_err(at)
            }
            Expression::Mapping(entries) => {
                let mut values = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    values.push((self.expression(*key)?, self.expression(*value)?));
                }
                self.spend(size_of_val(&values[..]) + 64).map_err(at)?;
                Value::mapping(values).map_err(at)
            }
            Expression::Negative(value) | Expression::Positive(value) => {
                let value = self.expression(*value)?;
                let negative = matches!(expression, Expression::Negative(_));
                match (value.integer(), &value) {
                    (Some(number), _) if negative => {
                        number.checked_neg().map(Value::Integer).ok_or_else(|| at(What::Arithmetic))
                    }
                    (Some(number), _) => Ok(Value::Integer(number)),
                    (_, Value::Float(number)) => Ok(Value::Float(if negative { -number } else { *number })),
                    _ => Err(at(What::Kind { operation: "give a sign to", value: value.kind() })),
                }
            }
            Expression::Slice(of, bounds) => {
                let value = self.expression(*of)?;
                let mut numbers = [None; 3];
                for (number, bound) in numbers.iter_mut().zip(bounds) {
                    let Some(bound) = bound else { continue };
                    let bound = self.expression(*bound)?;
                    *number = match bound.integer() {
                        _ if matches!(bound, Value::None) => None,
                        None => {
                            return Err(at(What::Kind { operation: "cut a list at", value: bound.kind() }));
                        }
                        number => number,
                    };
                }
                self.slice(&value, numbers).map_err(at)
            }
            Expression::Filter(of, name, arguments) => {
                let value = self.expression(*of)?;
                let given = self.given(arguments)?;
                let name = self.name(*name);
                self.spend(value.bytes() as usize).map_err(at)?;
                filters::apply(self, name, &value, &given).map_err(at)
            }
            Expression::Test(of, name, arguments) => {
                let value = self.expression(*of)?;
                let given = self.given(arguments)?;
                predicates::holds(self.name(*name), &value, &given).map(Value::Bool).map_err(at)
            }
            _ => Ok(Value::Undefined), // every other kind is `expression`'s
        }
    }

    /// What an expression is called, for an error.
    pub fn described(&self, id: Id) -> String {
        match &self.tree.expressions[id as usize].0 {
            Expression::Name(name) => self.name(*name).into(),
            Expression::Attribute(of, name)
                if !matches!(self.tree.expressions[*of as usize].0, Expression::Chain(..)) =>
            {
                format!("{}.{}", self.described(*of), self.name(*name))
            }
            Expression::Item(of, index) => match &self.tree.expressions[*index as usize].0 {
                Expression::Constant(Value::Text(key)) => format!("{}.{key}", self.described(*of)),
                Expression::Constant(Value::Integer(index)) => format!("{}[{index}]", self.described(*of)),
                _ => format!("{}[…]", self.described(*of)),
            },
            _ => "an expression".into(),
        }
    }

    /// `value.name`: a method, if there is one of this name, else the entry.
    fn attribute(&mut self, value: &Value, name: u32, of: Id) -> Result<Value, What> {
        let text = self.name(name);
        Ok(match value {
            Value::Undefined => return Err(What::Undefined { name: self.described(of) }),
            Value::Namespace(space) => {
                let found = self.namespaces[*space].iter().find(|(known, _)| *known == name);
                found.map_or(Value::Undefined, |(_, value)| value.clone())
            }
            Value::Loop(number) => self.loop_attribute(*number, text)?,
            _ if methods::has(value, text) => Value::Method(name),
            Value::Mapping(mapping) => mapping.named(text).cloned().unwrap_or(Value::Undefined),
            Value::Macro(number) if text == "name" => {
                self.macros[*number].name.map_or(Value::None, |name| self.name(name).into())
            }
            _ => Value::Undefined,
        })
    }

    fn loop_attribute(&self, number: usize, name: &str) -> Result<Value, What> {
        let Some(running) = self.loops.get(number) else {
            return Err(What::Undefined { name: "loop".into() });
        };
        let (index, count) = (running.index, running.items.len());
        let integer = |number: usize| Value::Integer(number as i64);
        Ok(match name {
            "index" => integer(index + 1),
            "index0" => integer(index),
            "revindex" => integer(count - index),
            "revindex0" => integer(count - index - 1),
            "first" => Value::Bool(index == 0),
            "last" => Value::Bool(index + 1 == count),
            "length" => integer(count),
            "depth" => integer(1), // only recursive loops are deeper
            "depth0" => integer(0),
            "previtem" => index.checked_sub(1).map_or(Value::Undefined, |index| running.items[index].clone()),
            "nextitem" => running.items.get(index + 1).cloned().unwrap_or(Value::Undefined),
            _ => Value::Undefined,
        })
    }

    /// `value[index]`: the entry, else a method of this name.
    fn item(&mut self, value: &Value, index: &Value, of: Id) -> Result<Value, What> {
        let at = |length: usize| {
            let index = index.integer()?;
            let index = if index < 0 { index.checked_add(length as i64)? } else { index };
            usize::try_from(index).ok().filter(|index| *index < length)
        };
        let found = match value {
            Value::Undefined => return Err(What::Undefined { name: self.described(of) }),
            Value::Mapping(mapping) => mapping.get(index).cloned(),
            Value::Sequence(sequence) if matches!(sequence.order, Order::List | Order::Tuple) => {
                at(sequence.items.len()).map(|index| sequence.items[index].clone())
            }
            Value::Text(text) if index.integer().is_some() => {
                self.spend(text.len() / 8 + 16)?;
                let found = at(text.chars().count()).and_then(|index| text.chars().nth(index));
                found.map(|c| Value::from(&*c.encode_utf8(&mut [0; 4])))
            }
            _ => None,
        };
        match (found, index.text()) {
            (Some(found), _) => Ok(found),
            (None, Some(name)) => {
                let symbol = self.tree.names.iter().position(|known| known == name);
                symbol.map_or(Ok(Value::Undefined), |symbol| match value {
                    Value::Mapping(_) if !methods::has(value, name) => Ok(Value::Undefined),
                    _ => self.attribute(value, symbol as u32, of),
                })
            }
            _ => Ok(Value::Undefined),
        }
    }

    #[inline(never)]
    fn slice(&mut self, value: &Value, [start, stop, step]: [Option<i64>; 3]) -> Result<Value, What> {
        let cut = |length: usize| {
            let (length, step) = (length as i64, step.unwrap_or(1));
            let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
            let within = |bound: i64| {
                let bound = if bound < 0 { bound.saturating_add(length) } else { bound };
                bound.clamp(low, high)
            };
            let start = start.map_or(if step < 0 { high } else { low }, within);
            let stop = stop.map_or(if step < 0 { low } else { high }, within);
            let mut at = start;
            let going = move |at: i64| if step < 0 { at > stop } else { at < stop };
            core::iter::from_fn(move || {
                let now = Some(at).filter(|at| going(*at))?;
                at = at.saturating_add(step);
                Some(now as usize)
            })
        };
        if step == Some(0) {
            return Err(What::Arithmetic);
        }
        match value {
            Value::Text(text) => {
                self.spend(text.len() * 5)?;
                let chars: Vec<char> = text.chars().collect();
                Ok(cut(chars.len()).map(|at| chars[at]).collect::<String>().into())
            }
            Value::Sequence(sequence) if matches!(sequence.order, Order::List | Order::Tuple) => {
                self.spend(size_of_val(&sequence.items[..]))?;
                let items = cut(sequence.items.len()).map(|at| sequence.items[at].clone()).collect();
                Value::sequence(sequence.order, items)
            }
            Value::Undefined => Err(What::Kind { operation: "take a part of", value: value.kind() }),
            _ => Ok(Value::Undefined),
        }
    }

    #[inline(never)]
    fn chain(&mut self, first: Id, links: &'t [(Operator, Id)], line: u32) -> Result<Value, Error> {
        let at = |what: What| what.at(line);
        let mut left = self.expression(first)?;
        match links.first().map(|(operator, _)| operator) {
            Some(Operator::Or | Operator::And) => {
                for (operator, right) in links {
                    if left.is_true() == (*operator == Operator::Or) {
                        break;
                    }
                    left = self.expression(*right)?;
                }
            }
            Some(Operator::Concatenate) => {
                let mut text = String::new();
                let mut add = |evaluator: &mut Self, value: &Value| {
                    evaluator.spend(value.bytes() as usize)?;
                    print::write(&mut text, value, false);
                    Ok(())
                };
                add(self, &left).map_err(at)?;
                for (_, right) in links {
                    let right = self.expression(*right)?;
                    add(self, &right).map_err(at)?;
                }
                self.spend(text.len()).map_err(at)?;
                left = text.into();
            }
            Some(operator) if is_comparison(*operator) => {
                for (operator, right) in links {
                    let right = self.expression(*right)?;
                    self.spend((left.bytes().min(right.bytes()) / 8) as usize).map_err(at)?;
                    if !compare(*operator, &left, &right).map_err(at)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                left = Value::Bool(true);
            }
            _ => {
                for (operator, right) in links {
                    let right = self.expression(*right)?;
                    left = self.calculate(*operator, left, &right).map_err(at)?;
                }
            }
        }
        Ok(left)
    }

    #[inline(never)]
    fn calculate(&mut self, operator: Operator, left: Value, right: &Value) -> Result<Value, What> {
        match (&left, operator, right) {
            (Value::Text(a), Operator::Add, Value::Text(b)) => {
                self.spend(a.len() + b.len())?;
                let mut text = String::with_capacity(a.len() + b.len());
                text.push_str(a);
                text.push_str(b);
                return Ok(text.into());
            }
            (Value::Sequence(a), Operator::Add, Value::Sequence(b))
                if a.order == b.order && matches!(a.order, Order::List | Order::Tuple) =>
            {
                self.spend(size_of_val(&a.items[..]) + size_of_val(&b.items[..]))?;
                return Value::sequence(a.order, a.items.iter().chain(&b.items).cloned().collect());
            }
            (Value::Text(_) | Value::Sequence(_), Operator::Multiply, times)
            | (times, Operator::Multiply, Value::Text(_) | Value::Sequence(_))
                if times.integer().is_some() =>
            {
                let times = usize::try_from(times.integer().unwrap_or(0)).unwrap_or(0);
                let value = if left.integer().is_some() { right } else { &left };
                self.spend(
                    (value.bytes() as usize).saturating_mul(times).saturating_mul(size_of::<Value>()),
                )?;
                return match value {
                    Value::Sequence(sequence) if matches!(sequence.order, Order::List | Order::Tuple) => {
                        let items = core::iter::repeat_n(&sequence.items[..], times).flatten().cloned();
                        Value::sequence(sequence.order, items.collect())
                    }
                    Value::Text(text) => Ok(text.repeat(times).into()),
                    _ => Err(What::Kind { operation: "repeat", value: value.kind() }),
                };
            }
            (Value::Text(_), Operator::Remainder, _) => {
                return Err(What::Unsupported { kind: "operator", name: "% on a string".into() });
            }
            _ => {}
        }
        let wrong = |operation| What::Kinds { operation, left: left.kind(), right: right.kind() };
        let operation = match operator {
            Operator::Add => "add",
            Operator::Subtract => "subtract",
            Operator::Multiply => "multiply",
            _ => "divide",
        };
        if let (Some(a), Some(b)) = (left.integer(), right.integer())
            && operator != Operator::Divide
        {
            let floor = |(quotient, remainder): (i64, i64)| {
                if remainder != 0 && (remainder < 0) != (b < 0) {
                    (quotient - 1, remainder + b)
                } else {
                    (quotient, remainder)
                }
            };
            let divided = || Some(floor((a.checked_div(b)?, a.checked_rem(b)?)));
            let result = match operator {
                Operator::Add => a.checked_add(b),
                Operator::Subtract => a.checked_sub(b),
                Operator::Multiply => a.checked_mul(b),
                Operator::DivideWhole => divided().map(|(quotient, _)| quotient),
                Operator::Remainder => divided().map(|(_, remainder)| remainder),
                _ if b < 0 => return Ok(Value::Float(libm::pow(a as f64, b as f64))),
                _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            };
            return result.map(Value::Integer).ok_or(What::Arithmetic);
        }
        let (Some(a), Some(b)) = (left.number(), right.number()) else { return Err(wrong(operation)) };
        Ok(Value::Float(match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Power => libm::pow(a, b),
            _ if b == 0.0 => return Err(What::Arithmetic),
            Operator::Divide => a / b,
            Operator::DivideWhole => libm::floor(a / b),
            _ => a - b * libm::floor(a / b),
        }))
    }
}

fn is_comparison(operator: Operator) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::Equal | O::Unequal | O::Less | O::LessEqual | O::Greater | O::GreaterEqual | O::In | O::NotIn
    )
}

/// One comparison of a chain.
pub fn compare(operator: Operator, left: &Value, right: &Value) -> Result<bool, What> {
    let is: fn(Ordering) -> bool = match operator {
        Operator::Equal => return Ok(left.equals(right)),
        Operator::Unequal => return Ok(!left.equals(right)),
        Operator::In => return right.contains(left),
        Operator::NotIn => return right.contains(left).map(|contains| !contains),
        Operator::Less => Ordering::is_lt,
        Operator::LessEqual => Ordering::is_le,
        Operator::Greater => Ordering::is_gt,
        _ => Ordering::is_ge,
    };
    let numbers = left.number().is_some() && right.number().is_some();
    match left.compare(right) {
        Some(order) => Ok(is(order)),
        None if numbers => Ok(false), // not a number
        None => Err(What::Kinds { operation: "order", left: left.kind(), right: right.kind() }),
    }
}
