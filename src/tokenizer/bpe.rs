//! Byte-pair encoding: merge by rank (GPT-2 family, Gemma 4).
//!
//! Sennrich, Haddow, Birch: Neural Machine Translation of Rare Words with Subword Units, 2016. Of all
//! adjacent pairs the one with the lowest rank is merged, the leftmost first, until none is left. Pairs
//! wait in a heap and symbols form a linked list, so a word of n bytes takes n log n steps however
//! long it is.

use super::TokenizerError;
use super::vocab::{Spelling, Vocabulary, byte_tokens, char_of_byte, slots_for};
use crate::gguf::StringArray;
use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// One merge; its rank is its place in the list.
#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    merged: u32,
}

/// The merges by rank, and a table to find one by its pair.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    list: Vec<Merge>,
    /// Open addressing with linear probing: rank + 1; 0 is free.
    slots: Vec<u32>,
    alphabet: Alphabet,
}

/// What merging begins with, and what is left when it ends with no token.
#[derive(Clone, Debug)]
enum Alphabet {
    /// Bytes: the token or fragment of each. A fragment that is left is spelt with the tokens of its text's bytes.
    Bytes(Box<[u32; 256]>),
    /// Characters. What is left is spelt with these tokens of its bytes.
    Characters(Box<[Option<u32>; 256]>),
}

impl Merges {
    /// Reads `tokenizer.ggml.merges`: two texts with a space between, the first merge first.
    pub fn new(
        merges: &StringArray,
        vocabulary: &mut Vocabulary,
        spelling: Spelling,
    ) -> Result<Self, TokenizerError> {
        let count = merges.len();
        if u32::try_from(count).is_err() {
            return Err(TokenizerError::Count { tokens: count as u64 });
        }
        let alphabet = match spelling {
            Spelling::Bytes => {
                let mut bytes = Box::new([0; 256]);
                for byte in 0..=u8::MAX {
                    let text = char_of_byte(byte);
                    bytes[usize::from(byte)] =
                        vocabulary.token_or_fragment(text.encode_utf8(&mut [0; 4]).as_bytes(), &[])?;
                }
                Alphabet::Bytes(bytes)
            }
            Spelling::Spaces => Alphabet::Characters(byte_tokens(vocabulary)),
        };
        let mut new = Self { list: Vec::with_capacity(count), slots: vec![0; slots_for(count)], alphabet };
        for (index, text) in merges.iter().enumerate() {
            let bad = || TokenizerError::Merge { index };
            // A text may begin with a space, as in llama.cpp.
            let space = text.iter().skip(1).position(|byte| *byte == b' ').ok_or_else(bad)?;
            let (left, right) = (&text[..=space], &text[space + 2..]);
            if right.is_empty() {
                return Err(bad());
            }
            let merge = Merge {
                left: vocabulary.token_or_fragment(left, &[])?,
                right: vocabulary.token_or_fragment(right, &[])?,
                merged: vocabulary.token_or_fragment(left, right)?,
            };
            if let Err(free) = new.probe(merge.left, merge.right) {
                new.slots[free] = index as u32 + 1; // the first of equal pairs counts
            }
            new.list.push(merge);
        }
        Ok(new)
    }

    /// The rank of a pair, or the free slot where it would go.
    fn probe(&self, left: u32, right: u32) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let pair = u64::from(left) << 32 | u64::from(right);
        // Fibonacci hashing: Knuth, The Art of Computer Programming, vol. 3, 6.4.
        let mut slot = (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        loop {
            let Some(rank) = self.slots[slot].checked_sub(1) else { return Err(slot) };
            let merge = &self.list[rank as usize];
            if (merge.left, merge.right) == (left, right) {
                return Ok(rank);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Merge>() + 4 * self.slots.len()
    }
}

/// One symbol of a word: a token or fragment, and its living neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    number: u32,
    previous: u32,
    next: u32,
}

/// No neighbour on this side.
const NONE: u32 = u32::MAX;
/// A symbol that was merged into the one before it.
const GONE: u32 = u32::MAX;

/// The working memory of encoding, kept from word to word.
#[derive(Default)]
pub(super) struct Scratch {
    symbols: Vec<Symbol>,
    /// Rank in the high half, place of the left symbol in the low half: the lowest rank comes out first,
    /// and of equal ranks the leftmost.
    pairs: BinaryHeap<Reverse<u64>>,
}

/// Appends the tokens of one word.
pub(super) fn encode_word(
    word: &str,
    vocabulary: &Vocabulary,
    merges: &Merges,
    scratch: &mut Scratch,
    out: &mut Vec<u32>,
) {
    match &merges.alphabet {
        Alphabet::Bytes(numbers) => {
            let mut left_over = |text: &[u8], out: &mut Vec<u32>| {
                // Bytes that have no token are lost, as in llama.cpp.
                out.extend(text.iter().filter_map(|byte| vocabulary.token(&[*byte])));
            };
            let numbers = word.bytes().map(|byte| numbers[usize::from(byte)]);
            merge(numbers, vocabulary, merges, scratch, &mut left_over, out);
        }
        Alphabet::Characters(bytes) => {
            let mut left_over = |text: &[u8], out: &mut Vec<u32>| {
                out.extend(text.iter().filter_map(|byte| bytes[usize::from(*byte)]));
            };
            // A character that has no number is in no merge: what is beside it is merged by itself.
            let mut rest = word;
            while !rest.is_empty() {
                let number = |c: char| vocabulary.number(c.encode_utf8(&mut [0; 4]).as_bytes());
                let end = rest.find(|c| number(c).is_none()).unwrap_or(rest.len());
                let (known, others) = rest.split_at(end);
                merge(known.chars().filter_map(number), vocabulary, merges, scratch, &mut left_over, out);
                let unknown = others.chars().next().map_or(0, char::len_utf8);
                left_over(&others.as_bytes()[..unknown], out);
                rest = &others[unknown..];
            }
        }
    }
}

/// Merges neighbours among these tokens and fragments, and appends the tokens; `left_over` does so for a fragment's text.
fn merge(
    numbers: impl Iterator<Item = u32>,
    vocabulary: &Vocabulary,
    merges: &Merges,
    scratch: &mut Scratch,
    left_over: &mut dyn FnMut(&[u8], &mut Vec<u32>),
    out: &mut Vec<u32>,
) {
    let Scratch { symbols, pairs } = scratch;
    symbols.clear();
    pairs.clear();
    let symbol = |(place, number): (usize, u32)| Symbol {
        number,
        previous: (place as u32).wrapping_sub(1), // NONE for the first
        next: place as u32 + 1,
    };
    symbols.extend(numbers.enumerate().map(symbol));
    let Some(last) = symbols.last_mut() else { return };
    last.next = NONE;

    let pair = |symbols: &[Symbol], left: u32| {
        let symbol = symbols[left as usize];
        let right = symbols.get(symbol.next as usize)?;
        let rank = merges.probe(symbol.number, right.number).ok()?;
        Some(Reverse(u64::from(rank) << 32 | u64::from(left)))
    };
    pairs.extend((0..symbols.len() as u32 - 1).filter_map(|left| pair(symbols, left)));

    while let Some(Reverse(next)) = pairs.pop() {
        let (rank, left) = ((next >> 32) as usize, next as u32 as usize);
        let merge = merges.list[rank];
        let symbol = symbols[left];
        // A pair is out of date when either side was merged meanwhile: a symbol only ever grows, so it
        // is never again what it was.
        let Some(&right) = symbols.get(symbol.next as usize) else { continue };
        if (symbol.number, right.number) != (merge.left, merge.right) {
            continue;
        }
        symbols[symbol.next as usize].number = GONE;
        symbols[left] = Symbol { number: merge.merged, next: right.next, ..symbol };
        if let Some(after) = symbols.get_mut(right.next as usize) {
            after.previous = left as u32;
        }
        if symbol.previous != NONE {
            pairs.extend(pair(symbols, symbol.previous));
        }
        pairs.extend(pair(symbols, left as u32));
    }

    for symbol in symbols.iter().filter(|symbol| symbol.number != GONE) {
        if vocabulary.is_token(symbol.number) {
            out.push(symbol.number);
        } else {
            left_over(vocabulary.text(symbol.number), out);
        }
    }
}
