//! Form: what a person asks answers to be, JSON or a schema or a grammar, and the grammar that it is.

use super::{Grammar, GrammarError, JSON, SchemaError, from_schema};
use crate::tokenizer::Tokenizer;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What answers have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Any JSON value.
    Json,
    /// A value of this JSON schema.
    Schema(String),
    /// A text of this grammar, in GBNF.
    Gbnf(String),
}

/// Why a form can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormError {
    /// The schema is not one that can be followed.
    Schema(SchemaError),
    /// Nor is the grammar; or the one that a schema became, which then is too large or a circle.
    Grammar(GrammarError),
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(error) => error.fmt(f),
            Self::Grammar(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FormError {}

impl Form {
    /// The grammar, for the tokens of a model or, without one, to see whether it is sound; and what a schema asks for that
    /// it does not enforce.
    pub fn grammar(&self, tokenizer: Option<&Tokenizer>) -> Result<(Grammar, Vec<String>), FormError> {
        let (text, ignored) = match self {
            Self::Json => (JSON.into(), Vec::new()),
            Self::Schema(schema) => {
                let schema = from_schema(schema).map_err(FormError::Schema)?;
                (schema.grammar, schema.ignored)
            }
            Self::Gbnf(text) => (text.clone(), Vec::new()),
        };
        let grammar = Grammar::parse(&text, tokenizer).map_err(FormError::Grammar)?;
        Ok((grammar, ignored))
    }
}
