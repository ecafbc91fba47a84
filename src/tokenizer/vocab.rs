//! The vocabulary: pieces, kinds of token, and look-up by text.

use super::TokenizerError;
use super::spm::SPACE;
use crate::gguf::{Metadata, StringArray};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// What a token is for: `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// A byte that no other token stands for, written `<0x41>`.
    Byte,
    /// Unused or undefined: never shown.
    Hidden,
}

impl Kind {
    fn of(number: u32) -> Self {
        match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Hidden,
        }
    }
}

/// How the text of a token in the file spells the bytes that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A character for each byte: GPT-2's table.
    Bytes,
    /// As it is, with U+2581 for a space: SentencePiece.
    Spaces,
}

/// Byte strings one after the other, in one allocation.
#[derive(Clone, Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Arena {
    fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }
    fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { Some(&0) } else { self.ends.get(index - 1) };
        match (start, self.ends.get(index)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }
    /// Ends the string whose bytes were appended; `None` past 4 GiB.
    fn close(&mut self) -> Option<()> {
        self.ends.push(u32::try_from(self.bytes.len()).ok()?);
        Some(())
    }
    fn push(&mut self, parts: [&[u8]; 2]) -> Option<()> {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.close()
    }
}

/// All tokens: their text in the file (the key), their bytes in a text (the piece), and their kind.
///
/// Beside the tokens there may be *fragments*: texts that merges pass through without being tokens.
/// They are numbered from [`len`](Self::len) up and never leave this module's neighbours.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    texts: Arena,
    pieces: Arena,
    kinds: Vec<Kind>,
    /// Open addressing with linear probing: number of token or fragment + 1; 0 is free.
    slots: Vec<u32>,
}

/// Tokens llama.cpp can number.
const MOST_TOKENS: usize = i32::MAX as usize;

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens` and `tokenizer.ggml.token_type`. Pieces are empty until
    /// [`spell`](Self::spell): kinds are corrected before.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        let types = metadata.opt_u32s("tokenizer.ggml.token_type")?;
        Self::new(tokens, types)
    }

    fn new(tokens: &StringArray, types: Option<&[u32]>) -> Result<Self, TokenizerError> {
        let len = tokens.len();
        if len == 0 || len > MOST_TOKENS {
            return Err(TokenizerError::Count { tokens: len as u64 });
        }
        if let Some(types) = types
            && types.len() < len
        {
            return Err(TokenizerError::MissingTypes { types: types.len(), tokens: len });
        }
        let mut vocabulary = Self {
            // Room for the fragments of single bytes too, two bytes of text each at most.
            texts: Arena::with_capacity(len + 256, tokens.byte_len() + 512),
            pieces: Arena::default(),
            kinds: Vec::with_capacity(len),
            slots: vec![0; slots_for(len)],
        };
        for (index, text) in tokens.iter().enumerate() {
            let kind = types.map_or(Kind::Normal, |types| Kind::of(types[index]));
            match text {
                [] => vocabulary.push(format!("[EMPTY_{index}]").as_bytes(), kind)?, // llama.cpp's name for it
                _ => vocabulary.push(text, kind)?,
            }
        }
        Ok(vocabulary)
    }

    fn push(&mut self, text: &[u8], kind: Kind) -> Result<(), TokenizerError> {
        let index = self.kinds.len();
        let slot = match self.probe(text, &[]) {
            Ok(first) => return Err(TokenizerError::SameText { first, second: index as u64 }),
            Err(free) => free,
        };
        self.slots[slot] = index as u32 + 1; // at most 2³¹ tokens
        self.kinds.push(kind);
        self.texts.push([text, &[]]).ok_or(TokenizerError::Count { tokens: index as u64 })
    }

    /// Works out the pieces, once all kinds are known.
    pub fn spell(&mut self, spelling: Spelling) {
        let Self { texts, pieces, kinds, .. } = self;
        *pieces = Arena::with_capacity(kinds.len(), texts.bytes.len());
        for (index, kind) in kinds.iter().enumerate() {
            let text = texts.get(index);
            match (kind, spelling) {
                (Kind::Normal, Spelling::Bytes) => plain_bytes(text, &mut pieces.bytes),
                (Kind::Normal, Spelling::Spaces) => plain_spaces(text, &mut pieces.bytes),
                (Kind::Unknown | Kind::Control | Kind::UserDefined, _) => {
                    pieces.bytes.extend_from_slice(text)
                }
                (Kind::Byte, _) => pieces.bytes.extend(byte_of(text)),
                (Kind::Hidden, _) => {}
            }
            // No piece is longer than its text, and all texts together have fewer than 2³² bytes.
            pieces.ends.push(pieces.bytes.len() as u32);
        }
    }

    /// The number of a text given in two parts, or the free slot where it would go.
    fn probe(&self, left: &[u8], right: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash(left, right) as usize & mask;
        loop {
            let Some(number) = self.slots[slot].checked_sub(1) else { return Err(slot) };
            let text = self.texts.get(number as usize);
            if text.len() == left.len() + right.len() && text.starts_with(left) && text.ends_with(right) {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The number of a text given in two parts: a token, or a fragment, made now if there is none yet.
    pub fn token_or_fragment(&mut self, left: &[u8], right: &[u8]) -> Result<u32, TokenizerError> {
        let slot = match self.probe(left, right) {
            Ok(number) => return Ok(number),
            Err(free) => free,
        };
        let tokens = self.texts.ends.len() as u64;
        let too_many = || TokenizerError::Count { tokens };
        let number = u32::try_from(tokens).ok().filter(|number| *number < u32::MAX - 1);
        let number = number.ok_or_else(too_many)?;
        self.texts.push([left, right]).ok_or_else(too_many)?;
        self.slots[slot] = number + 1;
        let entries = self.texts.ends.len();
        if slots_for(entries) > self.slots.len() {
            self.slots = vec![0; slots_for(entries)];
            for number in 0..entries {
                if let Err(free) = self.probe(self.texts.get(number), &[]) {
                    self.slots[free] = number as u32 + 1; // numbers are u32, as above
                }
            }
        }
        Ok(number)
    }

    /// The token or fragment of a text.
    pub fn number(&self, text: &[u8]) -> Option<u32> {
        self.probe(text, &[]).ok()
    }
    /// Tokens, fragments not counted.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }
    /// The token whose text in the file is this.
    pub fn token(&self, text: &[u8]) -> Option<u32> {
        self.probe(text, &[]).ok().filter(|number| self.is_token(*number))
    }
    /// Whether a number is a token's, not a fragment's.
    pub fn is_token(&self, number: u32) -> bool {
        (number as usize) < self.kinds.len()
    }
    /// A token's or a fragment's text in the file.
    pub fn text(&self, number: u32) -> &[u8] {
        self.texts.get(number as usize)
    }
    /// The bytes that a token stands for; none when out of range.
    pub fn piece(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize)
    }
    pub fn kind(&self, token: u32) -> Option<Kind> {
        self.kinds.get(token as usize).copied()
    }
    /// Makes a token one of another kind, whatever the file said. Before [`spell`](Self::spell).
    pub fn set_kind(&mut self, token: u32, kind: Kind) {
        if let Some(known) = self.kinds.get_mut(token as usize) {
            *known = kind;
        }
    }
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let arenas = [&self.texts, &self.pieces];
        let arenas: usize = arenas.iter().map(|a| a.bytes.capacity() + 4 * a.ends.capacity()).sum();
        arenas + self.kinds.capacity() + 4 * self.slots.len()
    }
}

/// Slots for this many entries: a power of two, at most two thirds of it taken.
pub(super) fn slots_for(entries: usize) -> usize {
    (entries + entries / 2 + 1).next_power_of_two()
}

/// FNV-1a over two parts as if they were one, its high bits folded into the low ones that index a table.
fn hash(left: &[u8], right: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = right.iter().fold(left.iter().fold(0xcbf2_9ce4_8422_2325, step), step);
    hash ^ (hash >> 32)
}

/// The character that stands for a byte in the texts of a byte-level vocabulary (GPT-2's table): bytes
/// that print stand for themselves, the others, in order, for U+0100 and up.
pub(super) const fn char_of_byte(byte: u8) -> char {
    let above = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => return byte as char,
        0..=b' ' => byte,
        0x7f..=0xa0 => 33 + (byte - 0x7f),
        0xad => 67,
    };
    match char::from_u32(0x100 + above as u32) {
        Some(c) => c,
        None => unreachable!(), // U+0100..=U+0143 are characters
    }
}

fn byte_of_char(c: char) -> Option<u8> {
    let point = u8::try_from(u32::from(c)).ok();
    let above = u8::try_from(u32::from(c).wrapping_sub(0x100)).ok();
    match (point, above) {
        (Some(byte), _) => (char_of_byte(byte) == c).then_some(byte),
        (_, Some(above @ 0..=32)) => Some(above),
        (_, Some(above @ 33..=66)) => Some(0x7f + (above - 33)),
        (_, Some(67)) => Some(0xad),
        _ => None,
    }
}

/// Undoes GPT-2's table. A character outside it stands for itself.
fn plain_bytes(text: &[u8], out: &mut Vec<u8>) {
    let Ok(text) = core::str::from_utf8(text) else { return out.extend_from_slice(text) };
    for c in text.chars() {
        match byte_of_char(c) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Undoes SentencePiece's spaces.
fn plain_spaces(text: &[u8], out: &mut Vec<u8>) {
    let (first, mut rest) = (SPACE.as_bytes()[0], text);
    // Most have one space, at the beginning.
    while let Some(place) = rest.iter().position(|byte| *byte == first) {
        let (before, after) = rest.split_at(place);
        out.extend_from_slice(before);
        rest = match after.strip_prefix(SPACE.as_bytes()) {
            Some(after) => {
                out.push(b' ');
                after
            }
            None => {
                out.push(first);
                &after[1..]
            }
        };
    }
    out.extend_from_slice(rest);
}

/// Puts GPT-2's spelling of a word into `out`.
pub(super) fn spelt(word: &str, out: &mut Vec<u8>) {
    out.clear();
    for byte in word.bytes() {
        out.extend_from_slice(char_of_byte(byte).encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// The token of each byte, written `<0x41>`.
pub(super) fn byte_tokens(vocabulary: &Vocabulary) -> Box<[Option<u32>; 256]> {
    let mut tokens = Box::new([None; 256]);
    for (byte, token) in (0..=u8::MAX).zip(tokens.iter_mut()) {
        *token = vocabulary.token(format!("<0x{byte:02X}>").as_bytes());
    }
    tokens
}

/// The byte of a token written `<0x41>`.
fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own_and_comes_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of_char(char_of_byte(byte)), Some(byte));
        }
        assert_eq!([b' ', b'\n', b'A', 0x7f, 0xad, 0xff].map(char_of_byte), ['Ġ', 'Ċ', 'A', 'ġ', 'Ń', 'ÿ']);
        assert_eq!(['\u{ad}', '\u{144}', ' ', '。'].map(byte_of_char), [None; 4]);
    }

    #[test]
    fn a_byte_token_without_two_digits_stands_for_nothing() {
        assert_eq!(byte_of(b"<0x0A>"), Some(b'\n'));
        assert_eq!([&b"<0x>"[..], b"<0x100>", b"0x41", b"<0xzz>", b""].map(byte_of), [None; 5]);
    }
}
