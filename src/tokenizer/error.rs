//! Why a vocabulary is refused, in words for the person at the prompt.

use super::MODELS;
use super::split::PreTokenizer;
use crate::gguf::GgufError;
use alloc::string::String;
use core::fmt;

/// Why a vocabulary was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerError {
    /// A key is missing or of the wrong type.
    Metadata(GgufError),
    /// `tokenizer.ggml.model` names another kind of vocabulary.
    UnknownModel {
        /// What it says.
        name: String,
    },
    /// `tokenizer.ggml.pre` names a way to cut text that we do not have.
    UnknownPre {
        /// What it says.
        name: String,
    },
    /// No tokens, or more than can be numbered.
    Count {
        /// Tokens in the file.
        tokens: u64,
    },
    /// Fewer token types than tokens.
    MissingTypes {
        /// Types in the file.
        types: usize,
        /// Tokens in the file.
        tokens: usize,
    },
    /// Fewer scores than tokens.
    MissingScores {
        /// Scores in the file.
        scores: usize,
        /// Tokens in the file.
        tokens: usize,
    },
    /// A score that is not a number.
    Score {
        /// The token it is of.
        token: usize,
    },
    /// Two tokens with one text.
    SameText {
        /// The one.
        first: u32,
        /// The other.
        second: u64,
    },
    /// A merge that is not two texts with a space between.
    Merge {
        /// Its place in the list.
        index: usize,
    },
    /// A key names a token that is not in the vocabulary.
    NoSuchToken {
        /// The key.
        key: &'static str,
        /// The token it names.
        token: u32,
        /// Tokens in the file.
        tokens: usize,
    },
    /// A start or end token is to be added, and the file does not say which.
    NothingToAdd {
        /// The key that asks for it.
        key: &'static str,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(error) => error.fmt(f),
            Self::UnknownModel { name } => {
                write!(
                    f,
                    "the vocabulary is of kind '{name}', which is not supported (supported: {})",
                    MODELS.join(", ")
                )
            }
            Self::UnknownPre { name } => {
                write!(
                    f,
                    "the vocabulary cuts text by the rules '{name}', which are not supported (supported:"
                )?;
                PreTokenizer::names().try_for_each(|name| write!(f, " {name}"))?;
                f.write_str(")")
            }
            Self::Count { tokens } => {
                write!(f, "a vocabulary of {tokens} tokens cannot be used: the file is damaged")
            }
            Self::MissingTypes { types, tokens } => {
                write!(f, "the file has {tokens} tokens and the types of only {types}: it is damaged")
            }
            Self::MissingScores { scores, tokens } => {
                write!(f, "the file has {tokens} tokens and the scores of only {scores}: it is damaged")
            }
            Self::Score { token } => {
                write!(f, "the score of token {token} is not a number: the file is damaged")
            }
            Self::SameText { first, second } => {
                write!(f, "tokens {first} and {second} have the same text: the file is damaged")
            }
            Self::Merge { index } => {
                write!(f, "merge {index} of the vocabulary is not a pair: the file is damaged")
            }
            Self::NoSuchToken { key, token, tokens } => {
                write!(f, "{key} is {token}, but there are only {tokens} tokens: the file is damaged")
            }
            Self::NothingToAdd { key } => {
                write!(f, "{key} is set, but the file does not say which token it means")
            }
        }
    }
}

impl core::error::Error for TokenizerError {}

impl From<GgufError> for TokenizerError {
    fn from(error: GgufError) -> Self {
        Self::Metadata(error)
    }
}
