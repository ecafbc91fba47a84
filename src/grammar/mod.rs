//! Grammars: what a text may be, in GBNF, the notation of llama.cpp; or as a JSON schema, which becomes GBNF.
//!
//! [`gbnf`] reads a grammar, [`check`] refuses one that could not be followed, [`stacks`] and [`matcher`] follow it token
//! by token, [`schema`] writes one for a JSON schema. Nothing here recurses, and everything has a bound with a name.

mod check;
mod error;
mod form;
mod gbnf;
mod integers;
mod json;
mod matcher;
mod pattern;
mod schema;
mod stacks;
#[cfg(test)]
mod tests;

pub use error::{GrammarError, Place, Wrong};
pub use form::{Form, FormError};
pub use json::JsonError;
pub use matcher::{Matcher, Within};
pub use schema::{SchemaError, from_schema};

use alloc::vec::Vec;

/// Any JSON value: objects, arrays, strings, numbers, true, false, null. With `space` as little as it takes to be read.
pub const JSON: &str = r#"root ::= value
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" space ( string ":" space value ( "," space string ":" space value )* )? space "}"
array ::= "[" space ( value ( "," space value )* )? space "]"
string ::= "\"" char* "\""
char ::= [^"\\\x7F\x00-\x1F] | [\\] ( ["\\bfnrt] | "u" [0-9a-fA-F]{4} )
number ::= "-"? integral ( "." [0-9]{1,16} )? ( [eE] [-+]? integral )?
integral ::= [0] | [1-9] [0-9]{0,15}
space ::= | " " | "\n"{1,2} [ \t]{0,20}
"#;

/// Elements of all rules together: 8 bytes each.
pub const MOST_ELEMENTS: usize = 1 << 16;
/// Times that a thing may have to be repeated; `{m,n}` with a larger n has no upper bound, as in llama.cpp.
pub const MOST_TIMES: usize = 2000;

/// A step of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// This character.
    Char(u32),
    /// One of the characters of a class.
    Class(u32),
    /// What this rule says.
    Rule(u32),
    /// This token, whatever its text.
    Token(u32),
    /// Any other token.
    NotToken(u32),
    /// The end of an alternative.
    End,
}

/// A grammar that can be followed.
#[derive(Clone, Debug)]
pub struct Grammar {
    /// Alternatives one after the other, each closed by [`Element::End`].
    elements: Vec<Element>,
    /// Where each alternative begins.
    alternatives: Vec<u32>,
    /// For each rule, which of `alternatives` are its: first and past the last.
    rules: Vec<(u32, u32)>,
    /// Characters of a class: ranges in order, both ends included, that do not touch.
    classes: Vec<(u32, u32)>,
    /// For each class, which of `classes` are its.
    spans: Vec<(u32, u32)>,
    root: u32,
}

impl Grammar {
    fn element(&self, position: u32) -> Element {
        self.elements[position as usize]
    }

    fn is_end(&self, position: u32) -> bool {
        self.element(position) == Element::End
    }

    /// Where the alternatives of a rule begin.
    fn alternatives(&self, rule: u32) -> &[u32] {
        let (first, end) = self.rules[rule as usize];
        &self.alternatives[first as usize..end as usize]
    }

    /// The characters that an element takes: none for what is no character.
    fn ranges(&self, element: Element) -> Ranges<'_> {
        match element {
            Element::Char(c) => Ranges::One(c),
            Element::Class(class) => {
                let (first, end) = self.spans[class as usize];
                Ranges::Many(&self.classes[first as usize..end as usize])
            }
            _ => Ranges::Many(&[]),
        }
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        8 * (self.elements.len() + self.rules.len() + self.classes.len() + self.spans.len())
            + 4 * self.alternatives.len()
    }
}

/// Characters that an element takes.
enum Ranges<'g> {
    One(u32),
    Many(&'g [(u32, u32)]),
}

impl Ranges<'_> {
    /// Whether any character from `low` to `high` is among them.
    fn meet(&self, low: u32, high: u32) -> bool {
        match self {
            Self::One(c) => (low..=high).contains(c),
            Self::Many(ranges) => {
                let next = ranges.partition_point(|range| range.1 < low);
                ranges.get(next).is_some_and(|range| range.0 <= high)
            }
        }
    }

    /// Calls `each` with every range.
    fn each(&self, each: &mut dyn FnMut(u32, u32)) {
        match self {
            Self::One(c) => each(*c, *c),
            Self::Many(ranges) => ranges.iter().for_each(|&(low, high)| each(low, high)),
        }
    }
}
