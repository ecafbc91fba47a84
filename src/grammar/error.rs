//! Why a grammar can't be used: where, and what to do.

use super::{MOST_ELEMENTS, MOST_TIMES};
use alloc::string::String;
use core::fmt;

/// A place in the text of a grammar, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// Why a grammar can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError {
    /// Where.
    pub place: Place,
    /// Why.
    pub wrong: Wrong,
}

/// What is wrong with a grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Something else should stand there.
    Expected(&'static str),
    /// A backslash before a character that means nothing after it.
    Escape(char),
    /// A text or a class that is not closed.
    Unclosed(&'static str),
    /// `*`, `+`, `?` or `{` after nothing.
    NothingToRepeat,
    /// `[]` or `[^]`.
    EmptyClass,
    /// A range whose end is before its beginning.
    Backwards,
    /// A repetition that has to occur more often than can be.
    TooOften,
    /// The grammar has more elements than there is room for.
    TooLarge,
    /// A rule that is used and never defined.
    Undefined(String),
    /// A rule that begins with itself.
    LeftRecursion(String),
    /// There is no rule to begin with.
    NoRoot,
    /// `<text>` that is not one token of the model.
    NoToken(String),
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        match &self.wrong {
            Wrong::NoRoot => {
                return f
                    .write_str("the grammar has no rule `root`: name the one to begin with `root ::= …`");
            }
            Wrong::TooLarge => {
                return write!(
                    f,
                    "the grammar has more than {MOST_ELEMENTS} elements: use fewer or smaller repetitions"
                );
            }
            _ => write!(f, "line {line}, column {column} of the grammar: ")?,
        }
        match &self.wrong {
            Wrong::Expected(what) => write!(f, "expected {what}"),
            Wrong::Escape(c) => {
                write!(
                    f,
                    "`\\{c}` means nothing: there are \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\xHH \\uHHHH \\UHHHHHHHH"
                )
            }
            Wrong::Unclosed(what) => write!(f, "{what} is not closed"),
            Wrong::NothingToRepeat => f.write_str("there is nothing before this to repeat"),
            Wrong::EmptyClass => {
                f.write_str("an empty class takes no character: leave it out or put some in")
            }
            Wrong::Backwards => f.write_str("the range ends before it begins"),
            Wrong::TooOften => write!(f, "more than {MOST_TIMES} repetitions: use fewer, or `*`"),
            Wrong::Undefined(name) => write!(f, "the rule `{name}` is used here and defined nowhere"),
            Wrong::LeftRecursion(name) => write!(
                f,
                "the rule `{name}` begins with itself, which can't be followed: let it begin with something else"
            ),
            Wrong::NoToken(text) => write!(f, "`{text}` is not one token of this model"),
            Wrong::NoRoot | Wrong::TooLarge => Ok(()),
        }
    }
}

impl core::error::Error for GrammarError {}
