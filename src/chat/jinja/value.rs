//! Values: what a template computes with, as Python has them.
//!
//! Values never change once made and never contain themselves. Each knows how deep and how large it is, so walking
//! one, printing it or dropping it has a bound that was checked when it was made.

use super::error::What;
use super::syntax::Symbol;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// Lists within lists.
const DEPTH: u16 = 64;
/// Bytes that a value may stand for, shared parts counted each time.
const SIZE: u32 = 1 << 26;
/// Entries of a dictionary, which are looked for one after the other.
const ENTRIES: usize = 256;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// What a name that was never set stands for.
    Undefined,
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// A list, a tuple, or what can only be walked.
    Sequence(Arc<Sequence>),
    /// A dictionary.
    Mapping(Arc<Mapping>),
    /// `namespace(…)`, by its number: the one thing whose attributes can be set.
    Namespace(usize),
    /// A macro, by its number.
    Macro(usize),
    /// The variable `loop`, by its depth.
    Loop(usize),
    /// A function that is always there.
    Function(Function),
    /// A method that was named and not called.
    Method(Symbol),
}

/// Functions that are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Makes a [`Value::Namespace`].
    Namespace,
    /// Whole numbers in order.
    Range,
    /// Makes a dictionary of named arguments.
    Dict,
    /// The template refuses to go on.
    RaiseException,
    /// The date in words.
    StrftimeNow,
}

impl Function {
    /// The function of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "namespace" => Self::Namespace,
            "range" => Self::Range,
            "dict" => Self::Dict,
            "raise_exception" => Self::RaiseException,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }
}

/// What a [`Sequence`] is to Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[1, 2]`
    List,
    /// `(1, 2)`
    Tuple,
    /// A dictionary's keys, values or items: has a length, cannot be indexed.
    View,
    /// Can only be walked.
    Generator,
}

/// Values in order.
#[derive(Debug)]
pub struct Sequence {
    /// Which kind.
    pub order: Order,
    /// The values.
    pub items: Vec<Value>,
    size: Size,
}

/// Keys and values in the order in which they were given.
#[derive(Debug)]
pub struct Mapping {
    /// No key twice.
    pub entries: Vec<(Value, Value)>,
    size: Size,
}

/// How deep and how large.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    depth: u16,
    bytes: u32,
}

impl Size {
    fn of<'v>(parts: impl Iterator<Item = &'v Value>) -> Result<Self, What> {
        let size = parts.fold(Self { depth: 0, bytes: 1 }, |size, part| {
            let part = part.size();
            Self { depth: size.depth.max(part.depth + 1), bytes: size.bytes.saturating_add(part.bytes) }
        });
        match size {
            Self { depth, .. } if depth > DEPTH => Err(What::Limit { what: "lists within lists" }),
            Self { bytes, .. } if bytes > SIZE => Err(What::Limit { what: "a list's size" }),
            size => Ok(size),
        }
    }
}

impl Mapping {
    /// The value of a key.
    pub fn get(&self, key: &Value) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name.equals(key)).map(|(_, value)| value)
    }
    /// The value of a key that is a string.
    pub fn named(&self, key: &str) -> Option<&Value> {
        let is_it = |name: &Value| matches!(name, Value::Text(name) if **name == *key);
        self.entries.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl Value {
    /// A sequence.
    pub fn sequence(order: Order, items: Vec<Value>) -> Result<Self, What> {
        let size = Size::of(items.iter())?;
        Ok(Self::Sequence(Arc::new(Sequence { order, items, size })))
    }
    /// A list.
    pub fn list(items: Vec<Value>) -> Result<Self, What> {
        Self::sequence(Order::List, items)
    }
    /// A dictionary. Of entries with one key the last counts, in the place of the first.
    pub fn mapping(entries: Vec<(Value, Value)>) -> Result<Self, What> {
        let size = Size::of(entries.iter().flat_map(|(key, value)| [key, value]))?;
        if entries.len() > ENTRIES {
            return Err(What::Limit { what: "256 entries of a dictionary" });
        }
        let mut kept: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match &key {
                Self::Mapping(_) => return Err(What::Kind { operation: "use as a key", value: key.kind() }),
                Self::Sequence(list) if list.order == Order::List => {
                    return Err(What::Kind { operation: "use as a key", value: key.kind() });
                }
                _ => {}
            }
            match kept.iter_mut().find(|(name, _)| name.equals(&key)) {
                Some((_, old)) => *old = value,
                None => kept.push((key, value)),
            }
        }
        Ok(Self::Mapping(Arc::new(Mapping { entries: kept, size })))
    }

    fn size(&self) -> Size {
        match self {
            Self::Sequence(sequence) => sequence.size,
            Self::Mapping(mapping) => mapping.size,
            Self::Text(text) => Size { depth: 0, bytes: u32::try_from(text.len()).unwrap_or(u32::MAX) },
            _ => Size { depth: 0, bytes: 1 },
        }
    }
    /// How many bytes it stands for, about: what walking it costs.
    pub fn bytes(&self) -> u32 {
        self.size().bytes
    }

    /// What it is, for an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "an undefined value",
            Self::None => "none",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Sequence(sequence) => match sequence.order {
                Order::List => "a list",
                Order::Tuple => "a tuple",
                Order::View => "a view of a dictionary",
                Order::Generator => "a generator",
            },
            Self::Mapping(_) => "a dictionary",
            Self::Namespace(_) => "a namespace",
            Self::Macro(_) => "a macro",
            Self::Loop(_) => "a loop",
            Self::Function(_) => "a function",
            Self::Method(_) => "a method",
        }
    }

    /// Whether it counts as true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(truth) => *truth,
            Self::Integer(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Sequence(sequence) => sequence.order == Order::Generator || !sequence.items.is_empty(),
            Self::Mapping(mapping) => !mapping.entries.is_empty(),
            _ => true,
        }
    }

    /// Whether it was never set.
    pub fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined)
    }

    /// As a string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As a whole number; Python's truth values are some.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Bool(truth) => Some(i64::from(*truth)),
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// As a float, if it is a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => self.integer().map(|number| number as f64),
        }
    }

    /// Its length, if it has one.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Undefined => Some(0),
            Self::Text(text) => Some(text.chars().count()),
            Self::Sequence(sequence) if sequence.order != Order::Generator => Some(sequence.items.len()),
            Self::Mapping(mapping) => Some(mapping.entries.len()),
            _ => None,
        }
    }

    /// What a walk through it gives: a string's characters, a dictionary's keys.
    pub fn items(&self) -> Result<Vec<Value>, What> {
        Ok(match self {
            Self::Undefined => Vec::new(),
            Self::Text(text) => text.chars().map(|c| Self::from(&*c.encode_utf8(&mut [0; 4]))).collect(),
            Self::Sequence(sequence) => sequence.items.clone(),
            Self::Mapping(mapping) => mapping.entries.iter().map(|(key, _)| key.clone()).collect(),
            _ => return Err(What::Kind { operation: "walk through", value: self.kind() }),
        })
    }

    /// Python's `==`.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => true,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Sequence(a), Self::Sequence(b)) if Arc::ptr_eq(a, b) => true,
            (Self::Sequence(a), Self::Sequence(b)) => {
                matches!(a.order, Order::List | Order::Tuple)
                    && a.order == b.order
                    && a.items.len() == b.items.len()
                    && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b))
            }
            (Self::Mapping(a), Self::Mapping(b)) => {
                let in_b =
                    |(key, value): &(Value, Value)| b.get(key).is_some_and(|other| value.equals(other));
                a.entries.len() == b.entries.len() && a.entries.iter().all(in_b)
            }
            (Self::Namespace(a), Self::Namespace(b)) => a == b,
            (Self::Macro(a), Self::Macro(b)) => a == b,
            (Self::Function(a), Self::Function(b)) => a == b,
            _ => match (self.integer(), other.integer()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((self.number(), other.number()), (Some(a), Some(b)) if a == b),
            },
        }
    }

    /// Python's `<` and `>`; `None` where it has none.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Sequence(a), Self::Sequence(b)) if a.order == b.order => {
                let differ = a.items.iter().zip(&b.items).find(|(a, b)| !a.equals(b));
                differ.map_or(Some(a.items.len().cmp(&b.items.len())), |(a, b)| a.compare(b))
            }
            _ => match (self.integer(), other.integer()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => self.number()?.partial_cmp(&other.number()?),
            },
        }
    }

    /// Python's `in`, of what is in this value.
    pub fn contains(&self, item: &Self) -> Result<bool, What> {
        match (self, item) {
            (Self::Undefined, _) => Ok(false),
            (Self::Text(text), Self::Text(part)) => Ok(text.contains(&**part)),
            (Self::Sequence(sequence), _) => Ok(sequence.items.iter().any(|value| value.equals(item))),
            (Self::Mapping(mapping), _) => Ok(mapping.get(item).is_some()),
            _ => Err(What::Kinds {
                operation: "look for one in the other:",
                left: item.kind(),
                right: self.kind(),
            }),
        }
    }
}
