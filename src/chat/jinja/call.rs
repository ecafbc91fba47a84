//! Call: functions, macros and methods, and the arguments they are given.

use super::date::Date;
use super::error::{Error, What};
use super::evaluate::{Evaluator, Scope};
use super::methods;
use super::print;
use super::syntax::{Arguments, Expression, Id, Symbol};
use super::value::{Function, Order, Value};
use alloc::vec::Vec;

/// Arguments with their values.
#[derive(Debug, Default)]
pub struct Given<'t> {
    /// In order.
    pub positional: Vec<Value>,
    /// By name.
    pub named: Vec<(&'t str, Value)>,
}

impl Given<'_> {
    /// The argument at this place or of this name.
    pub fn get(&self, place: usize, name: &str) -> Option<&Value> {
        let named = || self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        self.positional.get(place).or_else(named)
    }

    /// Refuses arguments beyond `most` and names that are not among these.
    pub fn only(&self, function: &str, most: usize, names: &[&str]) -> Result<(), What> {
        let known = self.named.iter().all(|(name, _)| names.contains(name));
        if self.positional.len() <= most && known {
            Ok(())
        } else {
            Err(What::Arguments { name: function.into() })
        }
    }
}

impl<'t> Evaluator<'t> {
    /// The values of arguments.
    pub fn given(&mut self, arguments: &'t Arguments) -> Result<Given<'t>, Error> {
        let mut given = Given::default();
        for argument in &arguments.positional {
            given.positional.push(self.expression(*argument)?);
        }
        for (name, argument) in &arguments.named {
            given.named.push((self.name(*name), self.expression(*argument)?));
        }
        Ok(given)
    }

    /// Calls what expression `id` calls. `caller` is the body of a `call` block.
    #[inline(never)]
    pub fn call(&mut self, id: Id, caller: Option<Value>) -> Result<Value, Error> {
        let (Expression::Call(callee, arguments), line) = &self.tree.expressions[id as usize] else {
            return Ok(Value::Undefined); // the parser lets nothing else through
        };
        let at = |what: What| what.at(*line);
        let callee = *callee;
        if let Expression::Attribute(of, name) = &self.tree.expressions[callee as usize].0 {
            let receiver = self.expression(*of)?;
            let method = self.name(*name);
            if receiver.is_undefined() {
                return Err(at(What::Undefined { name: self.described(*of) }));
            }
            if methods::has(&receiver, method) {
                let given = self.given(arguments)?;
                let of_given: usize = given.positional.iter().map(|value| value.bytes() as usize).sum();
                self.spend(receiver.bytes() as usize + of_given).map_err(at)?;
                return methods::call(self, &receiver, method, &given).map_err(at);
            }
            if let Value::Loop(number) = receiver {
                let given = self.given(arguments)?;
                return self.loop_method(number, method, given).map_err(at);
            }
        }
        let function = self.expression(callee)?;
        match function {
            Value::Function(function) => {
                let given = self.given(arguments)?;
                self.function(function, &given, arguments).map_err(at)
            }
            Value::Macro(number) => {
                let given = self.given(arguments)?;
                self.expand(number, given, caller, *line)
            }
            Value::Undefined if self.is_named(callee, "strftime_now") => {
                let given = self.given(arguments)?;
                self.function(Function::StrftimeNow, &given, arguments).map_err(at)
            }
            Value::Undefined => {
                let name = match &self.tree.expressions[callee as usize].0 {
                    Expression::Attribute(_, name) => alloc::format!("….{}()", self.name(*name)),
                    _ => self.described(callee),
                };
                Err(at(What::Undefined { name }))
            }
            other => Err(at(What::Kind { operation: "call", value: other.kind() })),
        }
    }

    fn is_named(&self, id: Id, name: &str) -> bool {
        matches!(&self.tree.expressions[id as usize].0, Expression::Name(symbol) if self.name(*symbol) == name)
    }

    fn loop_method(&mut self, number: usize, method: &str, given: Given) -> Result<Value, What> {
        let Some(running) = self.loops.get_mut(number) else {
            return Err(What::Undefined { name: "loop".into() });
        };
        match method {
            "cycle" if !given.positional.is_empty() => {
                Ok(given.positional[running.index % given.positional.len()].clone())
            }
            "changed" => {
                let same = running.last.as_ref().is_some_and(|last| {
                    last.len() == given.positional.len()
                        && last.iter().zip(&given.positional).all(|(a, b)| a.equals(b))
                });
                running.last = Some(given.positional);
                Ok(Value::Bool(!same))
            }
            _ => Err(What::Unsupported { kind: "method of loops", name: method.into() }),
        }
    }

    #[inline(never)]
    fn function(
        &mut self,
        function: Function,
        given: &Given,
        arguments: &'t Arguments,
    ) -> Result<Value, What> {
        let wrong = |name: &str| What::Arguments { name: name.into() };
        match function {
            Function::Namespace | Function::Dict => {
                let mut entries: Vec<(Value, Value)> = Vec::new();
                match &given.positional[..] {
                    [] => {}
                    [Value::Mapping(mapping)] => entries.extend(mapping.entries.iter().cloned()),
                    _ => return Err(wrong("namespace")),
                }
                self.spend((entries.len() + given.named.len()) * 2 * size_of::<Value>() + 64)?;
                if function == Function::Dict {
                    entries.extend(given.named.iter().map(|(name, value)| ((*name).into(), value.clone())));
                    return Value::mapping(entries);
                }
                let mut space = Scope::new();
                for (key, value) in entries {
                    let symbol =
                        key.text().and_then(|key| self.tree.names.iter().position(|name| name == key));
                    // An entry whose name the template never writes is one that it can never read.
                    space.extend(symbol.map(|symbol| (symbol as Symbol, value)));
                }
                for ((name, _), (_, value)) in arguments.named.iter().zip(&given.named) {
                    Self::set_in(&mut space, *name, value.clone());
                }
                self.namespaces.push(space);
                Ok(Value::Namespace(self.namespaces.len() - 1))
            }
            Function::Range => {
                let mut numbers = [0_i64; 3];
                let count = given.positional.len();
                if !(1..=3).contains(&count) || !given.named.is_empty() {
                    return Err(wrong("range"));
                }
                for (number, value) in numbers.iter_mut().zip(&given.positional) {
                    *number =
                        value.integer().ok_or(What::Kind { operation: "count to", value: value.kind() })?;
                }
                let (start, stop, step) = match count {
                    1 => (0, numbers[0], 1),
                    2 => (numbers[0], numbers[1], 1),
                    _ => (numbers[0], numbers[1], numbers[2]),
                };
                if step == 0 {
                    return Err(What::Arithmetic);
                }
                let (start_wide, stop_wide, step_wide) =
                    (i128::from(start), i128::from(stop), i128::from(step));
                let (span, pace) = if step > 0 {
                    (stop_wide - start_wide, step_wide)
                } else {
                    (start_wide - stop_wide, -step_wide)
                };
                let length = (span + pace - 1) / pace;
                let length = usize::try_from(length.max(0)).unwrap_or(usize::MAX);
                self.spend(length.saturating_mul(size_of::<Value>()))?;
                let mut next = start;
                let items = core::iter::from_fn(|| {
                    let now = next;
                    let going = if step > 0 { now < stop } else { now > stop };
                    next = next.saturating_add(step);
                    going.then_some(Value::Integer(now))
                });
                Value::list(items.collect())
            }
            Function::RaiseException => {
                given.only("raise_exception", 1, &["message"])?;
                let message = given.get(0, "message").map(print::text).unwrap_or_default();
                Err(What::Raised { message })
            }
            Function::StrftimeNow => {
                given.only("strftime_now", 1, &["format"])?;
                let format =
                    given.get(0, "format").and_then(Value::text).ok_or_else(|| wrong("strftime_now"))?;
                let text = self.date.unwrap_or(Date::DEFAULT).format(format)?;
                Ok(text.into())
            }
        }
    }

    /// Runs a macro; what it puts out is its value.
    #[inline(never)]
    fn expand(
        &mut self,
        number: usize,
        given: Given,
        caller: Option<Value>,
        line: u32,
    ) -> Result<Value, Error> {
        let called = self.macros[number];
        let name = || called.name.map_or("caller", |name| &self.tree.names[name as usize]);
        let mut scope = Scope::new();
        let mut named = given.named;
        let mut positional = given.positional.into_iter();
        let mut missing = Vec::new();
        for (parameter, default) in called.parameters {
            let text = self.name(*parameter);
            let by_name = named.iter().position(|(known, _)| *known == text);
            let value = match (positional.next(), by_name) {
                (Some(_), Some(_)) => return Err(What::Arguments { name: name().into() }.at(line)),
                (Some(value), None) => value,
                (None, Some(at)) => named.swap_remove(at).1,
                (None, None) => {
                    missing.extend(default.map(|default| (*parameter, default)));
                    Value::Undefined
                }
            };
            scope.push((*parameter, value));
        }
        if positional.next().is_some() || !named.is_empty() {
            return Err(What::Arguments { name: name().into() }.at(line));
        }
        scope.extend(self.name_caller.zip(caller));
        // The macro sees the scopes in which it was written, not those of its caller.
        let visible = called.depth.min(self.scopes.len());
        let hidden = self.scopes.split_off(visible);
        for (parameter, default) in missing {
            self.scopes.push(core::mem::take(&mut scope));
            let value = self.expression(default)?;
            scope = self.scopes.pop().unwrap_or_default();
            Self::set_in(&mut scope, parameter, value);
        }
        let (text, _) = self.capture(scope, called.body)?;
        self.scopes.truncate(visible);
        self.scopes.extend(hidden);
        Ok(text.into())
    }
}

/// A sequence that can only be walked.
pub fn generator(items: Vec<Value>) -> Result<Value, What> {
    Value::sequence(Order::Generator, items)
}
