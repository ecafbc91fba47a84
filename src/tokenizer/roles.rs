//! Which tokens begin a text, end an answer, or stand for more than their text: as llama.cpp derives it.
//!
//! Files name one end and models use several, and files forget to mark control tokens: llama.cpp goes by the texts of
//! tokens, and so do we (`llama_vocab::impl::load`).

use super::TokenizerError;
use super::vocab::{Kind, Vocabulary};
use crate::gguf::Metadata;
use alloc::vec::Vec;

/// Texts of tokens that end an answer in some model family.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// A role in filling gaps of code: the keys that name its token, the texts to go by when the file has no such key, and
/// whether it ends an answer as well.
struct FillRole {
    keys: &'static [&'static str],
    texts: &'static [&'static str],
    ends: bool,
}

const FILL_ROLES: &[FillRole] = &[
    FillRole {
        keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    FillRole {
        keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    FillRole {
        keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    FillRole {
        keys: &["tokenizer.ggml.fim_pad_token_id"],
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    FillRole {
        keys: &["tokenizer.ggml.fim_rep_token_id"],
        texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        ends: true,
    },
    FillRole { keys: &["tokenizer.ggml.fim_sep_token_id"], texts: &["<|file_sep|>"], ends: true },
];

/// Keys of tokens that end an answer.
const END_KEYS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Tokens that are shown and always looked for, whatever the file says: gpt-oss's.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// A token that does not end an answer after all when the others are among the ends, and what it is then.
const NOT_ENDS: &[(&str, &[&str], Kind)] = &[
    ("<|end|>", &["<|return|>", "<|call|>"], Kind::UserDefined),
    ("<|end|>", &["<|return|>", "<|calls|>"], Kind::UserDefined),
    ("<|end|>", &["<|flush|>", "<|call|>"], Kind::UserDefined),
    ("<|end|>", &["<|flush|>", "<|calls|>"], Kind::UserDefined),
    ("</s>", &["<|tool_response>"], Kind::Normal),
    ("</s>", &["<|plamo:eos|>"], Kind::Normal),
];

/// What llama.cpp takes where a file says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends one.
    pub eos: Option<u32>,
    /// The token for what the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// Whether a text is begun with the start token.
    pub add_bos: bool,
    /// Whether it is, whatever the file says.
    pub always_bos: bool,
}

/// Tokens with a role of their own.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    /// The token to add at the beginning, if one is.
    pub add_bos: Option<u32>,
    /// The token to add at the end, if one is.
    pub add_eos: Option<u32>,
    /// All tokens that end an answer, ascending.
    pub ends: Vec<u32>,
}

impl Roles {
    /// Reads the keys, looks for the texts, and corrects kinds in the vocabulary.
    pub fn new(
        metadata: &Metadata,
        vocabulary: &mut Vocabulary,
        defaults: Defaults,
    ) -> Result<Self, TokenizerError> {
        let tokens = vocabulary.len();
        let named = |key: &'static str| match metadata.opt_u32(key)? {
            Some(token) if token as usize >= tokens => {
                Err(TokenizerError::NoSuchToken { key, token, tokens })
            }
            token => Ok(token),
        };
        let named_or = |key, default: Option<u32>| -> Result<Option<u32>, TokenizerError> {
            Ok(named(key)?.or(default.filter(|token| (*token as usize) < tokens)))
        };
        let bos = named_or("tokenizer.ggml.bos_token_id", defaults.bos)?;
        let eos = named_or("tokenizer.ggml.eos_token_id", defaults.eos)?;
        let unknown = named_or("tokenizer.ggml.unknown_token_id", defaults.unknown)?;
        let added = |key: &'static str, default: bool, always: bool, token: Option<u32>| match (
            always || metadata.opt_bool(key)?.unwrap_or(default),
            token,
        ) {
            (true, None) => Err(TokenizerError::NothingToAdd { key }),
            (true, token) => Ok(token),
            (false, _) => Ok(None),
        };
        let add_bos = added("tokenizer.ggml.add_bos_token", defaults.add_bos, defaults.always_bos, bos)?;
        let add_eos = added("tokenizer.ggml.add_eos_token", false, false, eos)?;

        let mut ends: Vec<u32> = ENDS.iter().filter_map(|text| vocabulary.token(text.as_bytes())).collect();
        let mut controls = ends.clone();
        for role in FILL_ROLES {
            let mut token = None;
            for key in role.keys {
                token = named(key)?.or(token);
            }
            if token.is_none() {
                // Where several are there llama.cpp takes whichever its hash table has first.
                let found = role.texts.iter().filter_map(|text| vocabulary.token(text.as_bytes()));
                token = found.min();
                controls.extend(token);
            }
            ends.extend(token.filter(|_| role.ends));
        }
        for key in END_KEYS {
            ends.extend(named(key)?);
        }
        ends.extend(eos);
        // A token that ends the answer must not be shown, nor be typed by accident.
        controls.iter().for_each(|token| vocabulary.set_kind(*token, Kind::Control));
        for text in SHOWN {
            if let Some(token) = vocabulary.token(text.as_bytes()) {
                vocabulary.set_kind(token, Kind::UserDefined);
            }
        }
        let all = ends.clone();
        let is_end = |text: &str| vocabulary.token(text.as_bytes()).filter(|token| all.contains(token));
        let not_ends: Vec<(u32, Kind)> = NOT_ENDS
            .iter()
            .filter(|(_, others, _)| others.iter().all(|text| is_end(text).is_some()))
            .filter_map(|(text, _, kind)| Some((is_end(text)?, *kind)))
            .collect();
        for (token, kind) in not_ends {
            ends.retain(|end| *end != token);
            vocabulary.set_kind(token, kind);
        }
        ends.sort_unstable();
        ends.dedup();
        Ok(Self { bos, eos, unknown, add_bos, add_eos, ends })
    }
}

/// A special token of the text, and what it takes along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Special {
    pub token: u32,
    /// Only looked for when the caller asks for special tokens; user-defined ones always are.
    pub asked: bool,
    /// Swallows the white space before it.
    pub strips_left: bool,
    /// Swallows the white space after it.
    pub strips_right: bool,
}

/// The special tokens of a vocabulary, the longest first: one that contains another is looked for before it.
pub(super) fn specials(vocabulary: &Vocabulary, metadata: &Metadata) -> Result<Vec<Special>, TokenizerError> {
    // Files cannot say which tokens swallow white space; llama.cpp goes by names.
    let model = metadata.opt_string("general.name")?.unwrap_or_default().to_lowercase();
    let pre = metadata.opt_string("tokenizer.ggml.pre")?.unwrap_or_default();
    let left: &[u8] = if ["jina-v2-de", "jina-v2-es", "jina-v2-code"].iter().any(|name| pre.contains(name)) {
        b"<mask>"
    } else if model.contains("modern-bert") {
        b"[MASK]"
    } else {
        b""
    };
    let right = left.is_empty() && ["phi-3", "phi3"].iter().any(|name| model.contains(name));
    let keeps: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
    let special = |token: u32| {
        let asked = match vocabulary.kind(token)? {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Byte | Kind::Hidden => return None,
        };
        let text = vocabulary.text(token);
        let strips_right = right && !keeps.contains(&text);
        Some(Special { token, asked, strips_left: text == left, strips_right })
    };
    let mut specials: Vec<Special> = (0..vocabulary.len() as u32).filter_map(special).collect();
    specials.sort_by_key(|special| core::cmp::Reverse(vocabulary.text(special.token).len()));
    Ok(specials)
}
