//! Typed look-up by key; an error names the key, what was expected and what was found.

use super::GgufError;
use alloc::string::String;
use alloc::vec::Vec;

/// A value of the metadata. Integers keep their sign, not their width; arrays of numbers become the two
/// widths that anything asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// u8, u16, u32, u64.
    Unsigned(u64),
    /// i8, i16, i32, i64.
    Signed(i64),
    /// f32, f64.
    Float(f64),
    /// One byte, 0 or 1.
    Bool(bool),
    /// Text.
    String(String),
    /// An array of strings.
    Strings(StringArray),
    /// An array of integers or booleans, each at most 32 bits wide; signed ones keep their bits.
    Integers(Vec<u32>),
    /// An array of f32.
    Floats(Vec<f32>),
    /// An array of something else (64-bit numbers, arrays): skipped; this many elements.
    Skipped(u64),
}

impl Value {
    /// What the value is, as a word for an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a truth value",
            Self::String(_) => "a string",
            Self::Strings(_) => "an array of strings",
            Self::Integers(_) => "an array of integers",
            Self::Floats(_) => "an array of floats",
            Self::Skipped(_) => "an array of another kind",
        }
    }
}

/// Many strings in one allocation: a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringArray {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl StringArray {
    /// Reserves room for `count` strings of `bytes` bytes together; `None` when memory does not suffice.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Option<Self> {
        let mut array = Self::default();
        array.ends.try_reserve_exact(count).ok()?;
        array.bytes.try_reserve_exact(bytes).ok()?;
        Some(array)
    }
    /// Appends a string; `None` when the total exceeds 4 GiB.
    pub(super) fn push(&mut self, string: &[u8]) -> Option<()> {
        let end = u32::try_from(self.bytes.len() + string.len()).ok()?;
        self.bytes.extend_from_slice(string);
        self.ends.push(end);
        Some(())
    }
    /// Strings in the array.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// String `index` as the bytes of the file.
    pub fn get_bytes(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        self.bytes.get(start..end)
    }
    /// String `index`, if there is one and it is UTF-8.
    pub fn get(&self, index: usize) -> Option<&str> {
        core::str::from_utf8(self.get_bytes(index)?).ok()
    }
    /// All strings in order, as bytes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get_bytes(index).unwrap_or_default())
    }
    /// Bytes of all strings together.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Everything a file says about itself.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

/// What a conversion found: the wrong type, a value out of range, or the value.
enum Found<T> {
    WrongType,
    OutOfRange,
    Value(T),
}

impl<T> From<Option<T>> for Found<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::OutOfRange, Self::Value)
    }
}

macro_rules! typed {
    ($(#[$doc:meta])* $name:ident, $opt:ident, $out:ty, $expected:literal, $convert:expr) => {
        $(#[$doc])*
        ///
        /// A missing key is `None`.
        pub fn $opt(&self, key: &str) -> Result<Option<$out>, GgufError> {
            self.typed(key, $expected, $convert)
        }
        $(#[$doc])*
        ///
        /// A missing key is an error.
        pub fn $name(&self, key: &str) -> Result<$out, GgufError> {
            self.$opt(key)?.ok_or_else(|| GgufError::MissingKey { key: key.into() })
        }
    };
}

impl Metadata {
    pub(super) fn push(&mut self, key: String, value: Value) {
        self.entries.push((key, value));
    }

    /// The same without its arrays: what is worth keeping once a vocabulary has been built from them.
    pub fn without_arrays(self) -> Self {
        let is_array = |value: &Value| matches!(value.kind(), kind if kind.starts_with("an array"));
        Self { entries: self.entries.into_iter().filter(|(_, value)| !is_array(value)).collect() }
    }

    /// Keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: fn(&'a Value) -> Found<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Found::Value(value) => Ok(Some(value)),
            Found::OutOfRange => Err(GgufError::OutOfRange { key: key.into(), expected }),
            Found::WrongType => Err(GgufError::WrongType { key: key.into(), expected, found: value.kind() }),
        }
    }

    typed!(
    /// Text.
    string, opt_string, &str, "a string", |value| match value {
        Value::String(text) => Found::Value(text.as_str()),
        _ => Found::WrongType,
    });
    typed!(
    /// An integer of at most 32 bits, not negative.
    u32, opt_u32, u32, "an integer from 0 to 4294967295", |value| match value {
        Value::Unsigned(number) => u32::try_from(*number).ok().into(),
        Value::Signed(number) => u32::try_from(*number).ok().into(),
        _ => Found::WrongType,
    });
    typed!(
    /// A finite number.
    f32, opt_f32, f32, "a finite number", |value| {
        #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what the caller asked for
        let number = match value {
            Value::Float(number) => *number as f32,
            Value::Unsigned(number) => *number as f32,
            Value::Signed(number) => *number as f32,
            _ => return Found::WrongType,
        };
        number.is_finite().then_some(number).into()
    });
    typed!(
    /// A truth value.
    bool, opt_bool, bool, "a truth value", |value| match value {
        Value::Bool(truth) => Found::Value(*truth),
        _ => Found::WrongType,
    });
    typed!(
    /// An array of strings.
    strings, opt_strings, &StringArray, "an array of strings", |value| match value {
        Value::Strings(array) => Found::Value(array),
        _ => Found::WrongType,
    });
    typed!(
    /// An array of integers of at most 32 bits; negative ones keep their bits.
    u32s, opt_u32s, &[u32], "an array of integers", |value| match value {
        Value::Integers(array) => Found::Value(array.as_slice()),
        _ => Found::WrongType,
    });
    typed!(
    /// An array of f32.
    f32s, opt_f32s, &[f32], "an array of floats", |value| match value {
        Value::Floats(array) => Found::Value(array.as_slice()),
        _ => Found::WrongType,
    });
}
