//! Why a template can't be read or rendered, with the line of the program.

use alloc::string::String;
use core::fmt;

/// What went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Line of the template, from 1.
    pub line: u32,
    /// What is there.
    pub what: What,
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Not Jinja.
    Syntax {
        /// What would have been.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// Something opened that is never closed.
    Unclosed {
        /// What.
        what: &'static str,
    },
    /// Jinja that we do not have.
    Unsupported {
        /// Its kind: "statement", "filter" …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The template itself refuses this conversation.
    Raised {
        /// In its own words.
        message: String,
    },
    /// Something was asked of a value that there is not.
    Undefined {
        /// As the template names it.
        name: String,
    },
    /// A value of a kind that does not allow this.
    Kind {
        /// What was to be done.
        operation: &'static str,
        /// With what.
        value: &'static str,
    },
    /// Two values that do not go together.
    Kinds {
        /// What was to be done.
        operation: &'static str,
        /// With what.
        left: &'static str,
        /// And what.
        right: &'static str,
    },
    /// Arguments that a filter, method or macro does not take.
    Arguments {
        /// Which.
        name: String,
    },
    /// A number too large, or a division by zero.
    Arithmetic,
    /// More than a template may use.
    Limit {
        /// Of what.
        what: &'static str,
    },
}

impl What {
    /// The error at a line.
    pub fn at(self, line: u32) -> Error {
        Error { line, what: self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Unclosed { what } => write!(f, "{what} is never closed"),
            Self::Unsupported { kind, name } => write!(f, "the {kind} '{name}' is not supported"),
            Self::Raised { message } => write!(f, "the template says: {message}"),
            Self::Undefined { name } => write!(f, "'{name}' is undefined"),
            Self::Kind { operation, value } => write!(f, "can't {operation} {value}"),
            Self::Kinds { operation, left, right } => write!(f, "can't {operation} {left} and {right}"),
            Self::Arguments { name } => write!(f, "'{name}' was given arguments that it does not take"),
            Self::Arithmetic => f.write_str("a number became too large, or was divided by zero"),
            Self::Limit { what } => write!(f, "the template goes beyond the limit of {what}"),
        }
    }
}

impl core::error::Error for Error {}
