//! Tokenizer: text to tokens and back, as llama.cpp does it for the same file.
//!
//! Text is first cut at special tokens ([`roles`]). Of byte-level BPE (`tokenizer.ggml.model` = `gpt2`) what lies between
//! is cut into words ([`split`]), and each word is merged by rank ([`bpe`]); of SentencePiece (`llama`) it is merged
//! by score as a whole ([`spm`]).

mod bpe;
mod classes;
mod error;
mod pattern;
mod roles;
pub mod split;
mod spm;
mod stream;
mod vocab;

pub use error::TokenizerError;
pub use stream::Utf8Stream;

use crate::gguf::Metadata;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use roles::{Defaults, Roles, Special};
use split::{PreTokenizer, Splitter};
use vocab::{Kind, Spelling, Vocabulary};

/// The kinds of vocabulary that we read: SentencePiece with scores, byte-level BPE, and BPE spelt as SentencePiece.
const MODELS: [&str; 3] = ["llama", "gpt2", "gemma4"];

/// How a stretch of text without special tokens becomes tokens.
#[derive(Clone, Debug)]
enum Algorithm {
    /// Merge by score; a text begins with a space, and so does what follows a special token, if wanted.
    Scores { scores: spm::Scores, space_before: bool },
    /// Cut into words, merge each by rank; or take a word that is a token at once.
    Merges { merges: bpe::Merges, splitter: Splitter, row: &'static PreTokenizer },
}

/// A vocabulary ready for use.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    roles: Roles,
    /// The longest first: a token that contains another is looked for before it.
    specials: Vec<Special>,
    /// The first byte and the length of each, in order, without those that are there already.
    special_lengths: Vec<(u8, usize)>,
    pre_is_missing: bool,
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let model = metadata.string("tokenizer.ggml.model")?;
        let mut pre_is_missing = false;
        let (vocabulary, algorithm, roles) = match model {
            "llama" => {
                let mut vocabulary = Vocabulary::from_metadata(metadata)?;
                let defaults = Defaults {
                    bos: Some(1),
                    eos: Some(2),
                    unknown: Some(0),
                    add_bos: true,
                    always_bos: false,
                };
                let roles = Roles::new(metadata, &mut vocabulary, defaults)?;
                vocabulary.spell(Spelling::Spaces);
                let scores = spm::Scores::new(metadata, &vocabulary, roles.unknown)?;
                let space_before = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                (vocabulary, Algorithm::Scores { scores, space_before }, roles)
            }
            "gpt2" | "gemma4" => {
                let pre = match model {
                    "gpt2" => metadata.opt_string("tokenizer.ggml.pre")?,
                    name => Some(name),
                };
                pre_is_missing = pre.is_none();
                let pre = pre.unwrap_or("default");
                let unknown_pre = || TokenizerError::UnknownPre { name: pre.into() };
                let row = PreTokenizer::named(pre).ok_or_else(unknown_pre)?;
                let splitter = Splitter::new(row.steps).ok_or_else(unknown_pre)?;
                let mut vocabulary = Vocabulary::from_metadata(metadata)?;
                // llama.cpp's defaults of Falcon, which it takes for every vocabulary of the kind gpt2.
                let falcons = Some(11).filter(|_| model == "gpt2");
                let (bos, eos) = (falcons.filter(|_| row.has_bos), falcons);
                let (add_bos, always_bos) = (row.adds_bos, row.always_bos);
                let defaults = Defaults { bos, eos, unknown: None, add_bos, always_bos };
                let roles = Roles::new(metadata, &mut vocabulary, defaults)?;
                let spelling = if row.characters { Spelling::Spaces } else { Spelling::Bytes };
                vocabulary.spell(spelling);
                let merges = metadata.strings("tokenizer.ggml.merges")?;
                let merges = bpe::Merges::new(merges, &mut vocabulary, spelling)?;
                (vocabulary, Algorithm::Merges { merges, splitter, row }, roles)
            }
            name => return Err(TokenizerError::UnknownModel { name: name.into() }),
        };
        let specials = roles::specials(&vocabulary, metadata)?;
        let names = specials.iter().map(|special| vocabulary.text(special.token));
        let mut special_lengths: Vec<_> =
            names.filter_map(|name| Some((*name.first()?, name.len()))).collect();
        special_lengths.sort_unstable();
        special_lengths.dedup();
        Ok(Self { vocabulary, algorithm, roles, specials, special_lengths, pre_is_missing })
    }

    /// The tokens of a text, as llama.cpp's `llama_tokenize` gives them.
    ///
    /// `add_special` adds what the model wants at the ends (a start token, an end token); `parse_special`
    /// takes control tokens spelt out in the text for what they say, otherwise they are plain text.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
        tokens.extend(self.roles.add_bos.filter(|_| add_special));
        let parts = self.parts(text, parse_special);
        match &self.algorithm {
            Algorithm::Scores { scores, space_before } => {
                let mut scratch = spm::Scratch::default();
                let mut after_special = true;
                for part in parts {
                    after_special = match part {
                        Part::Token(token) => {
                            tokens.push(token);
                            true
                        }
                        Part::Text(text) => {
                            let space = *space_before && after_special;
                            spm::encode(text, space, &self.vocabulary, scores, &mut scratch, &mut tokens);
                            false
                        }
                    };
                }
            }
            Algorithm::Merges { merges, splitter, row } => {
                let (mut scratch, mut spelt) = (bpe::Scratch::default(), Vec::new());
                for part in parts {
                    let text = match part {
                        Part::Text(text) if row.characters => &text.replace(' ', spm::SPACE),
                        Part::Text(text) => text,
                        Part::Token(token) => {
                            tokens.push(token);
                            continue;
                        }
                    };
                    splitter.split(text, &mut |word| {
                        let whole = match (row.words_first, row.characters) {
                            (false, _) => None,
                            (true, true) => word.starts_with('\n').then_some(word.as_bytes()),
                            (true, false) => {
                                vocab::spelt(word, &mut spelt);
                                Some(spelt.as_slice())
                            }
                        };
                        match whole.and_then(|text| self.vocabulary.token(text)) {
                            Some(token) => tokens.push(token),
                            None => {
                                bpe::encode_word(word, &self.vocabulary, merges, &mut scratch, &mut tokens);
                            }
                        }
                    });
                }
            }
        }
        tokens.extend(self.roles.add_eos.filter(|_| add_special));
        tokens
    }

    /// Cuts a text at its special tokens. The longest token is cut out everywhere before the next one is
    /// looked for in what is left.
    fn parts<'a>(&self, text: &'a str, parse_special: bool) -> Vec<Part<'a>> {
        let is_space = |c: char| matches!(c, ' ' | '\t'..='\r');
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
                while let Some((mut before, mut after)) = rest.split_once(name) {
                    if special.strips_left {
                        before = before.trim_end_matches(is_space);
                    }
                    if special.strips_right {
                        after = after.trim_start_matches(is_space);
                    }
                    cut.extend(Some(Part::Text(before)).filter(|_| !before.is_empty()));
                    cut.push(Part::Token(special.token));
                    rest = after;
                }
                cut.extend(Some(Part::Text(rest)).filter(|_| !rest.is_empty()));
            }
            parts = cut;
        }
        parts
    }

    /// The special tokens that occur in a text at all, found in one pass: some vocabularies have thousands.
    fn present(&self, text: &str, parse_special: bool) -> Vec<Special> {
        let mut found = BTreeSet::new();
        for (at, byte) in text.bytes().enumerate() {
            let first = self.special_lengths.partition_point(|(other, _)| *other < byte);
            for (_, len) in self.special_lengths[first..].iter().take_while(|(other, _)| *other == byte) {
                let name = text.as_bytes().get(at..at + len);
                found.extend(name.and_then(|name| self.vocabulary.token(name)));
            }
        }
        let wanted = |special: &&Special| (parse_special || !special.asked) && found.contains(&special.token);
        self.specials.iter().filter(wanted).copied().collect()
    }

    /// The bytes of a text, as llama.cpp's `llama_detokenize` gives them but for one thing: spaces before
    /// punctuation are never cleaned away. With `special` control tokens are spelt out, else left out.
    pub fn decode(&self, tokens: &[u32], special: bool) -> Vec<u8> {
        let shown = |token: &u32| special || !self.is_special(*token);
        let mut bytes = Vec::new();
        for (index, token) in tokens.iter().enumerate().filter(|(_, token)| shown(token)) {
            let mut piece = self.piece(*token);
            // The space that a text was begun with.
            if index == 0 && matches!(self.algorithm, Algorithm::Scores { space_before: true, .. }) {
                piece = piece.strip_prefix(b" ").unwrap_or(piece);
            }
            bytes.extend_from_slice(piece);
        }
        bytes
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
        self.roles.ends.binary_search(&token).is_ok()
    }
    /// All tokens that end an answer, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.roles.ends
    }
    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }
    /// The token that the file names as the end of a text; see [`ends`](Self::ends) for all of them.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }
    /// What the user should know of this vocabulary.
    pub fn warning(&self) -> Option<&'static str> {
        self.pre_is_missing.then_some(
            "the file does not say how text is cut into words (tokenizer.ggml.pre), so it is done as llama.cpp does by \
             default, and answers may be worse for it: a newer conversion of this model says it",
        )
    }
    /// Tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }
    /// Whether there are none; never true of a tokenizer that was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The token with this text in the file: a special token's name, or a piece as the file spells it.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.vocabulary.token(text.as_bytes())
    }
    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        let algorithm = match &self.algorithm {
            Algorithm::Scores { scores, .. } => scores.memory(),
            Algorithm::Merges { merges, .. } => merges.memory(),
        };
        self.vocabulary.bytes() + algorithm
    }
}

/// A stretch of text, or a special token found in it.
enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::gguf::writer::Writer;
    use crate::source::Memory;

    /// A vocabulary of these tokens, their types (1 normal, 3 control, 4 user-defined) and merges.
    fn tokenizer(tokens: &[(&str, i32)], merges: &[&str], more: &dyn Fn(&mut Writer)) -> Tokenizer {
        let mut writer = Writer::new();
        more(&mut writer); // of two keys of a name the first counts
        writer
            .string("tokenizer.ggml.model", "gpt2")
            .string("tokenizer.ggml.pre", "smollm")
            .strings("tokenizer.ggml.tokens", &tokens.iter().map(|(text, _)| *text).collect::<Vec<_>>())
            .i32s("tokenizer.ggml.token_type", &tokens.iter().map(|(_, kind)| *kind).collect::<Vec<_>>())
            .strings("tokenizer.ggml.merges", merges);
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
        assert!(passing.encode("yé", false, false).is_empty());
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
    fn a_file_that_does_not_say_how_to_cut_words_is_read_as_by_default_with_a_warning() {
        assert_eq!(tokenizer(&letters(&[]), &[], &|_| {}).warning(), None);
        let mut writer = Writer::new();
        writer.string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", &["a", "b"]);
        writer.strings::<&str>("tokenizer.ggml.merges", &[]);
        let gguf = Gguf::open(&Memory(writer.finish().leak())).expect("a good file");
        let unsaid = Tokenizer::from_metadata(&gguf.metadata).expect("a good vocabulary");
        assert!(unsaid.warning().is_some_and(|words| words.contains("tokenizer.ggml.pre")));
        assert_eq!(unsaid.encode("ab", false, false), [0, 1]);
    }

    #[test]
    fn gemma_4_merges_characters_takes_new_lines_whole_and_spells_the_rest_in_bytes() {
        let tokens =
            [("a", 1), ("▁", 1), ("▁a", 1), ("\n", 1), ("\n\n", 1), ("<0xC3>", 6), ("<0x0A>", 6), ("é", 1)];
        let t = tokenizer(&tokens, &["▁ a", "a x"], &|w| {
            w.string("tokenizer.ggml.model", "gemma4").bool("tokenizer.ggml.add_bos_token", false);
            w.u32("tokenizer.ggml.bos_token_id", 0);
        });
        let ids =
            |texts: &[&str]| texts.iter().map(|text| t.token(text).expect("a token")).collect::<Vec<_>>();
        for (text, tokens) in [
            ("a a", &["a", "▁a"][..]),
            ("a\n\na", &["a", "\n\n", "a"]),
            ("\n\n\n", &["\n", "\n", "\n"]),
            ("éaè", &["é", "a", "<0xC3>"]), // 0xA8 has no token
            ("ax", &[]),                    // "ax" is no token, and its bytes have none
            ("", &[]),
        ] {
            assert_eq!(t.encode(text, false, false), ids(tokens), "{text:?}");
        }
        assert_eq!(t.decode(&ids(&["▁a", "<0xC3>", "<0x0A>"]), false), b" a\xc3\n");
        assert_eq!(t.encode("a", true, false), [0, 0], "a start token though the file says no");
    }

    #[test]
    fn every_byte_of_a_vocabulary_may_be_wrong_without_a_panic() {
        let texts = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "ab", "▁a", "é", "\n", "<|im_end|>"];
        for model in MODELS {
            let mut writer = Writer::new();
            writer
                .string("tokenizer.ggml.model", model)
                .string("tokenizer.ggml.pre", "llama-bpe")
                .strings("tokenizer.ggml.tokens", &texts)
                .f32s("tokenizer.ggml.scores", &[-1.0; 12])
                .i32s("tokenizer.ggml.token_type", &[2, 3, 3, 6, 1, 1, 1, 1, 1, 4, 1, 3])
                .strings("tokenizer.ggml.merges", &["a b", "▁ a"])
                .u32("tokenizer.ggml.bos_token_id", 1)
                .u32("tokenizer.ggml.eos_token_id", 2)
                .bool("tokenizer.ggml.add_bos_token", true)
                .bool("tokenizer.ggml.add_space_prefix", true);
            let good = writer.finish();
            let opens = |file: &[u8]| {
                let Ok(gguf) = Gguf::open(&Memory(file.to_vec().leak())) else { return false };
                let Ok(t) = Tokenizer::from_metadata(&gguf.metadata) else { return false };
                let tokens = t.encode("<s> ab é\n\n1234 <|im_end|>\u{1f600}", true, true);
                t.decode(&tokens, true);
                t.decode(&[0, u32::MAX], false);
                true
            };
            assert!(opens(&good), "{model}");
            for at in 0..good.len() {
                for wrong in [0, 0x80, 0xff, good[at] ^ 1, good[at].wrapping_add(1)] {
                    let mut file = good.clone();
                    file[at] = wrong;
                    opens(&file);
                }
            }
        }
    }
}
