//! Tokenizer: text to tokens and back, as llama.cpp does it for the same file.
//!
//! Text is first cut at special tokens, then into words ([`split`]), then each word is merged ([`bpe`]).
//! Here: byte-level BPE, `tokenizer.ggml.model` = `gpt2`.

mod bpe;
mod classes;
pub mod split;
mod vocab;

use crate::gguf::{GgufError, Metadata};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use split::{PRE_TOKENIZERS, Rule};
use vocab::{Kind, Vocabulary};

/// The one kind of vocabulary that we read.
const MODEL: &str = "gpt2";

/// Texts of tokens that end an answer in some model family: llama.cpp goes by these, since files name
/// only one end and models use several.
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

/// Fill-in-the-middle roles whose token ends an answer as well: the key that names it, and the texts to
/// go by when the file has no such key.
const FILL_ENDS: &[(&str, &[&str])] = &[
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// Keys of tokens that end an answer.
const END_KEYS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Tokens that do not end an answer after all when the others of their row are in the vocabulary.
const NOT_ENDS: &[(&str, &[&str])] = &[
    ("<|end|>", &["<|return|>", "<|call|>"]),
    ("<|end|>", &["<|flush|>", "<|call|>"]),
    ("<|end|>", &["<|flush|>", "<|calls|>"]),
    ("<|end|>", &["<|return|>", "<|calls|>"]),
    ("</s>", &["<|tool_response>"]),
];

/// A special token of the text, and what it takes along.
#[derive(Clone, Copy, Debug)]
struct Special {
    token: u32,
    /// Only looked for when the caller asks for special tokens; user-defined ones always are.
    asked: bool,
    /// Swallows the white space after it.
    strips_right: bool,
}

/// A vocabulary ready for use.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    merges: bpe::Merges,
    rule: Rule,
    /// The longest first: a token that contains another is looked for before it.
    specials: Vec<Special>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: Option<u32>,
    add_eos: Option<u32>,
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let model = metadata.string("tokenizer.ggml.model")?;
        if model != MODEL {
            return Err(TokenizerError::UnknownModel { name: model.into() });
        }
        let pre = metadata.opt_string("tokenizer.ggml.pre")?.unwrap_or("default");
        let rule = Rule::named(pre).ok_or_else(|| TokenizerError::UnknownPre { name: pre.into() })?;
        let mut vocabulary = Vocabulary::from_metadata(metadata)?;
        let merges = bpe::Merges::new(metadata.strings("tokenizer.ggml.merges")?, &mut vocabulary)?;

        let named = |key: &'static str| -> Result<Option<u32>, TokenizerError> {
            match metadata.opt_u32(key)? {
                Some(token) if !vocabulary.is_token(token) => {
                    Err(TokenizerError::NoSuchToken { key, token, tokens: vocabulary.len() })
                }
                token => Ok(token),
            }
        };
        let bos = named("tokenizer.ggml.bos_token_id")?;
        let eos = named("tokenizer.ggml.eos_token_id")?;
        let added = |key: &'static str, token: Option<u32>| match (metadata.opt_bool(key)?, token) {
            (Some(true), None) => Err(TokenizerError::NothingToAdd { key }),
            (Some(true), token) => Ok(token),
            _ => Ok(None), // byte-level BPE adds nothing unless told to
        };
        let add_bos = added("tokenizer.ggml.add_bos_token", bos)?;
        let add_eos = added("tokenizer.ggml.add_eos_token", eos)?;

        let find = |text: &str| vocabulary.token(text.as_bytes());
        let mut ends: Vec<u32> = ENDS.iter().filter_map(|text| find(text)).collect();
        for (key, texts) in FILL_ENDS {
            let named = named(key)?;
            ends.extend(named.or_else(|| texts.iter().filter_map(|text| find(text)).min()));
        }
        let controls = ends.clone();
        for key in END_KEYS {
            ends.extend(named(key)?);
        }
        for (not_end, others) in NOT_ENDS {
            if others.iter().all(|text| find(text).is_some()) {
                let not_end = find(not_end);
                ends.retain(|token| Some(*token) != not_end);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        // Files forget to mark some of these: a token that ends the answer must not be shown, nor be
        // typed by accident.
        controls.iter().filter(|token| ends.contains(token)).for_each(|token| vocabulary.set_control(*token));

        let specials = specials(&vocabulary, metadata.opt_string("general.name")?.unwrap_or_default());
        Ok(Self { vocabulary, merges, rule, specials, bos, eos, add_bos, add_eos, ends })
    }

    /// The tokens of a text, as llama.cpp's `llama_tokenize` gives them.
    ///
    /// `add_special` adds what the model wants at the ends (a start token, an end token); `parse_special`
    /// takes control tokens spelt out in the text for what they say, otherwise they are plain text.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
        let mut scratch = bpe::Scratch::default();
        tokens.extend(self.add_bos.filter(|_| add_special));
        for part in self.parts(text, parse_special) {
            match part {
                Part::Token(token) => tokens.push(token),
                Part::Text(text) => self.rule.split(text, &mut |word| {
                    bpe::encode_word(word, &self.vocabulary, &self.merges, &mut scratch, &mut tokens);
                }),
            }
        }
        tokens.extend(self.add_eos.filter(|_| add_special));
        tokens
    }

    /// Cuts a text at its special tokens. The longest token is cut out everywhere before the next one is
    /// looked for in what is left.
    fn parts<'a>(&self, text: &'a str, parse_special: bool) -> Vec<Part<'a>> {
        let mut parts = vec![Part::Text(text)];
        parts.retain(|_| !text.is_empty());
        for special in self.present(text, parse_special) {
            let Ok(name) = core::str::from_utf8(self.vocabulary.text(special.token)) else { continue };
            let mut cut = Vec::with_capacity(parts.len());
            for part in parts {
                let Part::Text(mut rest) = part else {
                    cut.push(part);
                    continue;
                };
                while let Some((before, after)) = rest.split_once(name) {
                    cut.extend(Some(Part::Text(before)).filter(|_| !before.is_empty()));
                    cut.push(Part::Token(special.token));
                    rest = match special.strips_right {
                        true => after.trim_start_matches(|c: char| matches!(c, ' ' | '\t'..='\r')),
                        false => after,
                    };
                }
                cut.extend(Some(Part::Text(rest)).filter(|_| !rest.is_empty()));
            }
            parts = cut;
        }
        parts
    }

    /// The special tokens that occur in a text at all, found in one pass: some vocabularies have thousands.
    fn present(&self, text: &str, parse_special: bool) -> Vec<Special> {
        let wanted = |special: &&Special| parse_special || !special.asked;
        let name = |special: &Special| self.vocabulary.text(special.token);
        let mut begins = [false; 256];
        for special in self.specials.iter().filter(wanted) {
            name(special).first().into_iter().for_each(|byte| begins[usize::from(*byte)] = true);
        }
        let mut found = vec![false; self.specials.len()];
        for (at, _) in text.bytes().enumerate().filter(|(_, byte)| begins[usize::from(*byte)]) {
            for (special, found) in self.specials.iter().zip(&mut found).filter(|(_, found)| !**found) {
                *found = text.as_bytes()[at..].starts_with(name(special));
            }
        }
        let found = self.specials.iter().zip(found).filter(|(_, found)| *found).map(|(special, _)| special);
        found.filter(wanted).copied().collect()
    }

    /// The bytes of a text, as llama.cpp's `llama_detokenize` gives them but for one thing: spaces before
    /// punctuation are never cleaned away. With `special` control tokens are spelt out, else left out.
    pub fn decode(&self, tokens: &[u32], special: bool) -> Vec<u8> {
        let shown = tokens.iter().filter(|token| special || !self.is_special(**token));
        shown.flat_map(|token| self.piece(*token)).copied().collect()
    }

    /// The bytes that a token stands for, not always whole characters; none when out of range. A special
    /// token gives its name.
    pub fn piece(&self, token: u32) -> &[u8] {
        self.vocabulary.piece(token)
    }

    /// Whether a token is a control token or the one for unknown text.
    pub fn is_special(&self, token: u32) -> bool {
        matches!(self.vocabulary.kind(token), Some(Kind::Control | Kind::Unknown))
    }

    /// Whether an answer is over when this token comes.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }
    /// All tokens that end an answer, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }
    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }
    /// The token that the file names as the end of a text; see [`ends`](Self::ends) for all of them.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }
    /// Tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }
    /// Whether there are none; never true of a tokenizer that was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The token with this text in the file: a special token's name, or a piece in GPT-2's spelling.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.vocabulary.token(text.as_bytes())
    }
    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.vocabulary.bytes() + self.merges.memory()
    }
}

/// The special tokens of a vocabulary, the longest first.
fn specials(vocabulary: &Vocabulary, model: &str) -> Vec<Special> {
    // Files cannot say which tokens swallow white space; llama.cpp goes by the model's name.
    let model = model.to_lowercase();
    let phi3 = model.contains("phi-3") || model.contains("phi3");
    let keeps: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
    let special = |token: u32| {
        let asked = match vocabulary.kind(token)? {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Byte | Kind::Hidden => return None,
        };
        Some(Special { token, asked, strips_right: phi3 && !keeps.contains(&vocabulary.text(token)) })
    };
    let mut specials: Vec<Special> = (0..vocabulary.len() as u32).filter_map(special).collect();
    specials.sort_by_key(|special| core::cmp::Reverse(vocabulary.text(special.token).len()));
    specials
}

/// A stretch of text, or a special token found in it.
enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

/// Bytes in, whole characters out: tokens end in the middle of a character as they please.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// A character's beginning, at most three bytes.
    held: Vec<u8>,
    text: String,
}

impl Utf8Stream {
    /// A stream with nothing held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes and gives the text that is now whole. What can never become a character is U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.held.extend_from_slice(bytes);
        self.text.clear();
        let mut rest = self.held.as_slice();
        let waiting = loop {
            match core::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    break 0;
                }
                Err(error) => {
                    let (whole, from) = rest.split_at(error.valid_up_to());
                    self.text.push_str(core::str::from_utf8(whole).unwrap_or_default());
                    let Some(bad) = error.error_len() else { break from.len() };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &from[bad..];
                }
            }
        };
        self.held.drain(..self.held.len() - waiting);
        &self.text
    }

    /// Whether no part of a character waits for the rest.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The end: a character that never became whole is U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

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
                write!(f, "the vocabulary is of kind '{name}', which is not supported (supported: {MODEL})")
            }
            Self::UnknownPre { name } => {
                write!(
                    f,
                    "the vocabulary cuts text by the rules '{name}', which are not supported (supported:"
                )?;
                PRE_TOKENIZERS.iter().try_for_each(|(name, _)| write!(f, " {name}"))?;
                f.write_str(")")
            }
            Self::Count { tokens } => {
                write!(f, "a vocabulary of {tokens} tokens cannot be used: the file is damaged")
            }
            Self::MissingTypes { types, tokens } => {
                write!(f, "the file has {tokens} tokens and the types of only {types}: it is damaged")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::gguf::writer::Writer;
    use crate::source::Memory;
    use proptest::prelude::*;

    /// A vocabulary of these tokens, their types (1 normal, 3 control, 4 user-defined) and merges.
    fn tokenizer(tokens: &[(&str, i32)], merges: &[&str], more: &dyn Fn(&mut Writer)) -> Tokenizer {
        let mut writer = Writer::new();
        writer
            .string("tokenizer.ggml.model", "gpt2")
            .string("tokenizer.ggml.pre", "smollm")
            .strings("tokenizer.ggml.tokens", &tokens.iter().map(|(text, _)| *text).collect::<Vec<_>>())
            .i32s("tokenizer.ggml.token_type", &tokens.iter().map(|(_, kind)| *kind).collect::<Vec<_>>())
            .strings("tokenizer.ggml.merges", merges);
        more(&mut writer);
        let file = writer.finish().leak();
        let gguf = Gguf::open(&Memory(file)).expect("a good file");
        Tokenizer::from_metadata(&gguf.metadata).expect("a good vocabulary")
    }

    fn letters(more: &[(&'static str, i32)]) -> Vec<(&'static str, i32)> {
        let letters = ["a", "b", "c", "ab", "bc", "Ġ", "<", ">", "|", "x"];
        letters.into_iter().map(|letter| (letter, 1)).chain(more.iter().copied()).collect()
    }

    #[test]
    fn the_lowest_rank_is_merged_first_and_of_equal_ranks_the_leftmost() {
        let abc = tokenizer(&letters(&[("aa", 1)]), &["b c", "a b", "a a"], &|_| {});
        let spell =
            |text| abc.encode(text, false, false).iter().map(|t| abc.piece(*t).to_vec()).collect::<Vec<_>>();
        assert_eq!(spell("abc"), [&b"a"[..], b"bc"]);
        assert_eq!(spell("aaa"), [&b"aa"[..], b"a"]);
        assert_eq!(spell(" ab"), [&b" "[..], b"ab"]);
        assert_eq!(spell(""), [b""; 0]);
    }

    #[test]
    fn merges_may_pass_through_texts_that_are_no_tokens_and_unknown_bytes_are_lost() {
        // "xy" is no token, and neither is "y": it is reached through both.
        let passing = tokenizer(&letters(&[("xya", 1)]), &["x y", "xy a"], &|_| {});
        assert_eq!(passing.encode("xya", false, false), [passing.token("xya").expect("a token")]);
        assert_eq!(passing.decode(&passing.encode("xyb", false, false), true), b"xb");
        assert_eq!(passing.encode("yé", false, false), []);
        assert_eq!(passing.token("xy"), None);
    }

    #[test]
    fn the_longest_special_token_wins_and_user_defined_ones_need_no_asking() {
        let tokens = letters(&[("<a>", 3), ("a>x", 3), ("x<a>x", 3), ("bb", 4), ("<|im_end|>", 1)]);
        let t = tokenizer(&tokens, &[], &|w| {
            w.u32("tokenizer.ggml.eos_token_id", 11);
        });
        let token = |text| t.token(text).expect("a token");
        assert_eq!(t.encode("x<a>x<a>x", false, true), [token("x<a>x"), token("<a>"), token("x")]);
        assert_eq!(t.encode("<abb>", false, false), ["<", "a", "bb", ">"].map(token));
        assert_eq!(t.encode("<a>", false, false), ["<", "a", ">"].map(token));
        assert!(t.is_special(token("<|im_end|>")), "it ends an answer, so it is a control token");
        assert_eq!(t.ends(), [token("a>x"), token("<|im_end|>")]);
        assert_eq!(t.decode(&[token("a"), token("<a>"), token("bb"), 999], false), b"abb");
        assert_eq!(t.decode(&[token("a"), token("<a>"), token("bb"), 999], true), b"a<a>bb");
    }

    #[test]
    fn start_and_end_are_added_only_when_the_file_and_the_caller_ask() {
        let t = tokenizer(&letters(&[]), &[], &|w| {
            w.u32("tokenizer.ggml.bos_token_id", 3).u32("tokenizer.ggml.eos_token_id", 4);
            w.bool("tokenizer.ggml.add_bos_token", true).bool("tokenizer.ggml.add_eos_token", true);
        });
        assert_eq!(t.encode("a", true, false), [3, 0, 4]);
        assert_eq!(t.encode("", true, false), [3, 4]);
        assert_eq!(t.encode("a", false, false), [0]);
    }

    #[test]
    fn phi_3_special_tokens_swallow_the_white_space_after_them() {
        let t = tokenizer(&letters(&[("<x>", 3), ("<s>", 3)]), &[], &|w| {
            w.string("general.name", "Phi-3 mini");
        });
        let token = |text| t.token(text).expect("a token");
        assert_eq!(t.encode("<x> a<x> ", false, true), ["<x>", "a", "<x>"].map(token));
        assert_eq!(t.encode("<s> a", false, true), ["<s>", "Ġ", "a"].map(token));
    }

    #[test]
    fn a_stream_holds_what_is_not_whole_and_replaces_what_never_will_be() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push("a😀".as_bytes().split_at(3).0), "a");
        assert_eq!(stream.push(&"a😀".as_bytes()[3..]), "😀");
        assert_eq!(stream.push(b"\xff\xe2\x82"), "\u{fffd}");
        assert_eq!(stream.push(b"x"), "\u{fffd}x");
        assert_eq!(stream.push(b""), "");
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(Utf8Stream::new().finish(), "");
    }

    proptest! {
        #[test]
        fn a_stream_cut_anywhere_gives_the_text_decoded_at_once(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80..0xc0u8, 0xe0..0xf8u8], 0..40),
            cut in prop::collection::vec(0..40usize, 0..6),
        ) {
            let mut cut: Vec<usize> = cut.into_iter().map(|at| at.min(bytes.len())).collect();
            cut.sort_unstable();
            cut.push(bytes.len());
            let (mut stream, mut text, mut from) = (Utf8Stream::new(), String::new(), 0);
            for to in cut {
                text += stream.push(&bytes[from..to]);
                from = to;
            }
            text += &stream.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
