//! SentencePiece with scores: merge neighbours into the token of the highest score (Llama 2, Mistral, Gemma).
//!
//! Kudo, Richardson: SentencePiece, 2018; in the form that llama.cpp gives it: of all adjacent pairs whose
//! text is a token the one with the highest score is merged, the leftmost first, until none is left. What is no token
//! then is spelt in bytes.

use super::TokenizerError;
use super::vocab::{Vocabulary, byte_tokens};
use crate::gguf::{Metadata, Value};
use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;

const KEY: &str = "tokenizer.ggml.scores";

/// The character that stands for a space in the texts of such a vocabulary: U+2581.
pub(super) const SPACE: &str = "▁";

/// How much each token is wanted, and the tokens of single bytes.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    /// Larger is sooner: the scores' order as integers.
    ranks: Vec<u32>,
    bytes: Box<[Option<u32>; 256]>,
}

impl Scores {
    /// Reads `tokenizer.ggml.scores`. A byte that has no token is `unknown`.
    pub fn new(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let ranks: Vec<u32> = match metadata.get(KEY) {
            // Whole numbers are written as such by some converters; the bits are those of an i32.
            Some(Value::Integers(scores)) => {
                scores.iter().map(|score| rank(score.cast_signed() as f32)).collect()
            }
            _ => {
                let scores = metadata.f32s(KEY)?;
                if let Some(token) = scores.iter().position(|score| score.is_nan()) {
                    return Err(TokenizerError::Score { token });
                }
                scores.iter().map(|score| rank(*score)).collect()
            }
        };
        if ranks.len() < vocabulary.len() {
            return Err(TokenizerError::MissingScores { scores: ranks.len(), tokens: vocabulary.len() });
        }
        let mut bytes = byte_tokens(vocabulary);
        for (byte, token) in (0..=u8::MAX).zip(bytes.iter_mut()) {
            *token = token.or_else(|| vocabulary.token(&[byte])).or(unknown);
        }
        Ok(Self { ranks, bytes })
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        4 * self.ranks.capacity()
    }
}

/// A number that orders as the score does; 0 and −0 are equal.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // −0 + 0 = 0
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// A stretch of the text, and its living neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: u32,
    /// 0: merged into the one before it.
    len: u32,
    previous: u32,
    next: u32,
}

/// No neighbour on this side.
const NONE: u32 = u32::MAX;

/// Two neighbours that would be a token: the highest rank is the greatest, of equal ones the leftmost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    rank: u32,
    /// The place of the left one, counted from the end of all numbers.
    left: core::cmp::Reverse<u32>,
    right: u32,
    /// Bytes of both: when they are others meanwhile, the pair is out of date.
    len: u32,
}

/// The working memory of encoding, kept from part to part.
#[derive(Default)]
pub(super) struct Scratch {
    text: Vec<u8>,
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
}

/// Appends the tokens of a text, with a space before it if wanted.
pub(super) fn encode(
    text: &str,
    space_before: bool,
    vocabulary: &Vocabulary,
    scores: &Scores,
    scratch: &mut Scratch,
    out: &mut Vec<u32>,
) {
    let Scratch { text: escaped, symbols, pairs } = scratch;
    escaped.clear();
    symbols.clear();
    pairs.clear();
    for c in Some(' ').filter(|_| space_before).into_iter().chain(text.chars()) {
        let place = symbols.len() as u32;
        let start = escaped.len() as u32;
        match c {
            ' ' => escaped.extend_from_slice(SPACE.as_bytes()),
            c => escaped.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        let len = escaped.len() as u32 - start;
        symbols.push(Symbol { start, len, previous: place.wrapping_sub(1), next: place + 1 });
    }
    let Some(last) = symbols.last_mut() else { return };
    last.next = NONE;

    let of = |start: u32, len: u32| vocabulary.token(&escaped[start as usize..][..len as usize]);
    let pair = |symbols: &[Symbol], left: u32| {
        let symbol = symbols.get(left as usize)?;
        let len = symbol.len + symbols.get(symbol.next as usize)?.len;
        let rank = scores.ranks[of(symbol.start, len)? as usize];
        Some(Pair { rank, left: core::cmp::Reverse(left), right: symbol.next, len })
    };
    pairs.extend((0..symbols.len() as u32).filter_map(|left| pair(symbols, left)));

    while let Some(Pair { left: core::cmp::Reverse(left), right, len, .. }) = pairs.pop() {
        let (Symbol { previous, .. }, gone) = (symbols[left as usize], symbols[right as usize]);
        if symbols[left as usize].len == 0 || gone.len == 0 || symbols[left as usize].len + gone.len != len {
            continue;
        }
        symbols[right as usize].len = 0;
        symbols[left as usize].len = len;
        symbols[left as usize].next = gone.next;
        if let Some(after) = symbols.get_mut(gone.next as usize) {
            after.previous = left;
        }
        pairs.extend(pair(symbols, previous));
        pairs.extend(pair(symbols, left));
    }

    for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
        match of(symbol.start, symbol.len) {
            Some(token) => out.push(token),
            None => {
                let bytes = &escaped[symbol.start as usize..][..symbol.len as usize];
                out.extend(bytes.iter().filter_map(|byte| scores.bytes[usize::from(*byte)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use super::*;
    use crate::gguf::Gguf;
    use crate::gguf::writer::Writer;
    use crate::source::Memory;
    use alloc::string::ToString;

    /// Text, score, type (1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte).
    const TOKENS: [(&str, f32, i32); 13] = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("<0x0A>", 0.0, 6),
        ("<0xC3>", 0.0, 6),
        ("▁", -9.0, 1),
        ("a", -9.0, 1),
        ("b", -9.0, 1),
        ("ab", -2.0, 1),
        ("ba", -1.0, 1),
        ("aa", -3.0, 1),
        ("▁a", -4.0, 1),
        ("b b", 0.0, 4),
    ];

    /// The vocabulary with other scores, or none, and more keys; of two keys of a name the first counts.
    fn open(scores: Option<&[f32]>, more: &dyn Fn(&mut Writer)) -> Result<Tokenizer, TokenizerError> {
        let mut writer = Writer::new();
        more(&mut writer);
        writer
            .string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &TOKENS.map(|(text, ..)| text))
            .i32s("tokenizer.ggml.token_type", &TOKENS.map(|(.., kind)| kind));
        if let Some(scores) = scores {
            writer.f32s(KEY, scores);
        }
        Tokenizer::from_metadata(&Gguf::open(&Memory(writer.finish().leak())).expect("a good file").metadata)
    }

    fn tokenizer(more: &dyn Fn(&mut Writer)) -> Tokenizer {
        open(Some(&TOKENS.map(|(_, score, _)| score)), more).expect("a good vocabulary")
    }

    fn ids(texts: &[&str]) -> Vec<u32> {
        let place =
            |text: &&str| TOKENS.iter().position(|(other, ..)| other == text).expect("a token") as u32;
        texts.iter().map(place).collect()
    }

    #[test]
    fn ranks_order_as_scores_do() {
        let scores = [f32::NEG_INFINITY, -1e9, -1.5, -1.0, -1e-30, 0.0, 1e-30, 2.0, f32::INFINITY];
        assert!(scores.map(rank).is_sorted_by(|a, b| a < b));
        assert_eq!(rank(0.0), rank(-0.0));
    }

    #[test]
    fn the_highest_score_is_merged_first_and_of_equal_scores_the_leftmost() {
        let t = tokenizer(&|w| {
            w.bool("tokenizer.ggml.add_space_prefix", false);
        });
        for (text, tokens) in [
            ("aba", &["a", "ba"][..]),
            ("abb", &["ab", "b"]),
            ("aaa", &["aa", "a"]),
            ("aaaa", &["aa", "aa"]),
            (" ab", &["▁", "ab"]),
            ("", &[]),
        ] {
            assert_eq!(t.encode(text, false, false), ids(tokens), "{text:?}");
            assert_eq!(t.decode(&ids(tokens), false), text.as_bytes());
        }
    }

    #[test]
    fn a_text_begins_with_a_space_that_comes_off_again_and_so_does_what_follows_a_control_token() {
        let t = tokenizer(&|_| {});
        for (text, tokens) in [
            ("a", &["▁a"][..]),
            (" a", &["▁", "▁a"]),
            ("a a", &["▁a", "▁a"]),
            ("", &[]),
            ("<s>a</s> a", &["<s>", "▁a", "</s>", "▁", "▁a"]),
            ("ab b", &["▁a", "b b"]),
            ("b ba", &["b b", "▁a"]),
        ] {
            assert_eq!(t.encode(text, false, true), ids(tokens), "{text:?}");
        }
        assert_eq!(t.decode(&ids(&["▁", "▁a"]), false), b" a");
        assert_eq!(t.decode(&ids(&["<s>", "▁a", "</s>"]), false), b" a", "as llama.cpp: only the very first");
        assert_eq!(t.encode("a", true, true), ids(&["<s>", "▁a"]), "a start token unless the file says no");
    }

    #[test]
    fn what_is_no_token_is_spelt_in_bytes_and_bytes_without_a_token_are_unknown() {
        let t = tokenizer(&|_| {});
        assert_eq!(t.encode("\né", false, false), ids(&["▁", "<0x0A>", "<0xC3>", "<unk>"]));
        assert_eq!(t.decode(&ids(&["<0x0A>", "<0xC3>"]), false), b"\n\xc3");
        let lost = open(Some(&[0.0; 13]), &|w| {
            w.bool("tokenizer.ggml.add_space_prefix", false).u32("tokenizer.ggml.unknown_token_id", 6);
        });
        assert_eq!(lost.expect("a good vocabulary").encode("é", false, false), ids(&["<0xC3>", "a"]));
    }

    #[test]
    fn scores_are_floats_or_whole_numbers_one_for_each_token() {
        let refused = |scores: Option<&[f32]>| open(scores, &|_| {}).expect_err("refused");
        assert!(refused(None).to_string().contains(KEY));
        assert_eq!(refused(Some(&[0.0; 12])), TokenizerError::MissingScores { scores: 12, tokens: 13 });
        let mut scores = [0.0; 13];
        scores[3] = f32::NAN;
        assert_eq!(refused(Some(&scores)), TokenizerError::Score { token: 3 });
        assert!(refused(Some(&scores)).to_string().contains("token 3"));
        let whole = open(None, &|w| {
            w.i32s(KEY, &TOKENS.map(|(_, score, _)| score as i32));
        });
        assert_eq!(whole.expect("a good vocabulary").encode("aba", false, false), ids(&["▁a", "ba"]));
    }
}
