//! Matcher: follows a grammar token by token, and says which tokens may come next.
//!
//! Tokens are bytes, grammars are characters: a character whose bytes are not all there yet is kept between tokens, and
//! may come if some way to complete it may.

use super::stacks::{DONE, MOST_NODES, Stacks, TooManyStacks};
use super::{Element, Grammar};
use crate::sampler::Constraint;
use crate::tokenizer::Tokenizer;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Stacks there may be at once.
const MOST_STACKS: usize = 2048;

/// A character of which some bytes are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Partial {
    value: u32,
    /// Bytes to come.
    rest: u32,
    /// The least character that needs so many bytes.
    least: u32,
}

/// Bytes that can't be text.
struct NotUtf8;

impl Partial {
    /// With one byte more; gives the character if that was the last one.
    fn push(&mut self, byte: u8) -> Result<Option<u32>, NotUtf8> {
        if self.rest == 0 {
            *self = match byte {
                0x01..=0x7f => return Ok(Some(byte.into())),
                0xc2..=0xdf => Self { value: u32::from(byte & 0x1f), rest: 1, least: 0x80 },
                0xe0..=0xef => Self { value: u32::from(byte & 0xf), rest: 2, least: 0x800 },
                0xf0..=0xf4 => Self { value: u32::from(byte & 7), rest: 3, least: 0x1_0000 },
                _ => return Err(NotUtf8), // 0, too, which no console shows
            };
            return Ok(None);
        }
        if !matches!(byte, 0x80..=0xbf) {
            return Err(NotUtf8);
        }
        self.value = self.value << 6 | u32::from(byte & 0x3f);
        self.rest -= 1;
        if self.rest > 0 {
            return Ok(None);
        }
        let whole = self.value >= self.least && char::from_u32(self.value).is_some();
        if whole { Ok(Some(self.value)) } else { Err(NotUtf8) }
    }

    /// The characters it may become.
    fn range(self) -> (u32, u32) {
        let bits = 6 * self.rest;
        let (low, high) = (self.value << bits, (self.value << bits) + ((1 << bits) - 1));
        (low.max(self.least), high.min(0x10_ffff))
    }
}

/// Where a text is in a grammar.
#[derive(Clone, Debug)]
pub struct Matcher {
    grammar: Arc<Grammar>,
    stacks: Stacks,
    /// The stacks after the text so far, none twice.
    now: Vec<u32>,
    partial: Partial,
    /// For trials.
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Matcher {
    /// At the beginning of a grammar.
    pub fn new(grammar: Arc<Grammar>) -> Self {
        let list = || Vec::with_capacity(MOST_STACKS);
        let mut matcher = Self {
            grammar,
            stacks: Stacks::new(),
            now: list(),
            partial: Partial::default(),
            before: list(),
            after: list(),
        };
        matcher.reset();
        matcher
    }

    /// Back to the beginning.
    pub fn reset(&mut self) {
        self.stacks.clear();
        self.now.clear();
        self.partial = Partial::default();
        if self.stacks.enter(&self.grammar, self.grammar.root, &mut self.now).is_err() {
            self.now.clear(); // nothing may come: a grammar of more alternatives than there is room for
        }
    }

    /// Bytes of memory that it takes, its grammar included.
    pub fn memory(&self) -> usize {
        MOST_NODES * (8 + 4 + 4 + 8) + 3 * 4 * MOST_STACKS + self.grammar.memory()
    }

    /// Whether the text may end here.
    pub fn may_end(&self) -> bool {
        self.partial.rest == 0 && self.now.contains(&DONE)
    }

    /// Whether the text has to end here: nothing may follow.
    pub fn must_end(&self) -> bool {
        self.now.iter().all(|stack| *stack == DONE)
    }

    /// Whether this token may come next.
    pub fn allows(&mut self, token: u32, tokenizer: &Tokenizer) -> bool {
        if tokenizer.is_end(token) {
            return self.may_end();
        }
        let count = self.stacks.count();
        let allowed = self.try_token(token, tokenizer).is_ok_and(|partial| partial.is_some());
        self.stacks.release(count);
        allowed
    }

    /// Goes on by a token; `false`, and nothing is changed, if the grammar does not allow it.
    pub fn accept(&mut self, token: u32, tokenizer: &Tokenizer) -> bool {
        if tokenizer.is_end(token) {
            return self.may_end();
        }
        let count = self.stacks.count();
        match self.try_token(token, tokenizer) {
            Ok(Some(partial)) => self.partial = partial,
            _ => {
                self.stacks.release(count);
                return false;
            }
        }
        core::mem::swap(&mut self.now, &mut self.after);
        if self.stacks.count() > MOST_NODES / 2 {
            self.stacks.compact(&mut self.now);
        }
        true
    }

    /// The stacks after a token, in `after`; `None` if there are none.
    fn try_token(&mut self, token: u32, tokenizer: &Tokenizer) -> Result<Option<Partial>, TooManyStacks> {
        let bytes = if tokenizer.is_special(token) { &[] } else { tokenizer.piece(token) };
        let partial = if bytes.is_empty() { self.nothing() } else { self.try_bytes(bytes)? };
        // Tokens as such, whatever their text. `after` and the stacks seen go on from where the text has led.
        let mut by_token = false;
        if self.partial.rest == 0 {
            for index in 0..self.now.len() {
                let stack = self.now[index];
                let is_it = stack != DONE
                    && match self.grammar.element(self.stacks.position(stack)) {
                        Element::Token(wanted) => wanted == token,
                        Element::NotToken(other) => other != token,
                        _ => false,
                    };
                if is_it && partial.is_none_or(|partial| partial.rest == 0) {
                    by_token = true;
                    self.stacks.pass(&self.grammar, stack, &mut self.after)?;
                }
            }
        }
        Ok(partial.or(by_token.then(Partial::default)))
    }

    fn nothing(&mut self) -> Option<Partial> {
        self.after.clear();
        self.stacks.begin();
        None
    }

    /// The same for bytes, which belong to characters.
    fn try_bytes(&mut self, bytes: &[u8]) -> Result<Option<Partial>, TooManyStacks> {
        let mut partial = self.partial;
        self.after.clear();
        self.after.extend_from_slice(&self.now);
        for &byte in bytes {
            let Ok(character) = partial.push(byte) else { return Ok(self.nothing()) };
            let Some(character) = character else { continue };
            core::mem::swap(&mut self.before, &mut self.after);
            self.after.clear();
            self.stacks.begin();
            for &stack in &self.before {
                if stack != DONE && self.takes(stack, character, character) {
                    self.stacks.pass(&self.grammar, stack, &mut self.after)?;
                }
            }
            if self.after.is_empty() {
                return Ok(None);
            }
        }
        if partial.rest > 0 {
            // Only what can complete the character stays.
            let (low, high) = partial.range();
            let mut after = core::mem::take(&mut self.after);
            after.retain(|&stack| stack != DONE && self.takes(stack, low, high));
            self.after = after;
            if self.after.is_empty() {
                return Ok(self.nothing());
            }
        }
        Ok(Some(partial))
    }

    /// Whether a stack takes any of these characters.
    fn takes(&self, stack: u32, low: u32, high: u32) -> bool {
        let element = self.grammar.element(self.stacks.position(stack));
        low <= high && self.grammar.ranges(element).meet(low, high)
    }

    /// First bytes that may come next, a bit each; `None` where a token as such may come, so that bytes do not tell.
    fn first_bytes(&self) -> Option<[u64; 4]> {
        let mut bytes = [0u64; 4];
        let mut add =
            |low: u8, high: u8| (low..=high).for_each(|byte| bytes[byte as usize / 64] |= 1 << (byte % 64));
        for &stack in self.now.iter().filter(|stack| **stack != DONE) {
            let element = self.grammar.element(self.stacks.position(stack));
            if matches!(element, Element::Token(_) | Element::NotToken(_)) {
                return None;
            }
            if self.partial.rest > 0 {
                for byte in 0x80..=0xbf {
                    let mut with = self.partial;
                    let fits = match with.push(byte) {
                        Ok(Some(c)) => self.takes(stack, c, c),
                        Ok(None) => self.takes(stack, with.range().0, with.range().1),
                        Err(NotUtf8) => false,
                    };
                    if fits {
                        add(byte, byte);
                    }
                }
            } else {
                self.grammar.ranges(element).each(&mut |low, high| add(first_byte(low), first_byte(high)));
            }
        }
        Some(bytes)
    }
}

/// The first byte of a character.
fn first_byte(character: u32) -> u8 {
    match character {
        0..0x80 => character as u8,
        0x80..0x800 => 0xc0 | (character >> 6) as u8,
        0x800..0x1_0000 => 0xe0 | (character >> 12) as u8,
        _ => 0xf0 | (character >> 18).min(4) as u8,
    }
}

/// A matcher with the tokens that it is asked about.
pub struct Within<'a> {
    /// The matcher.
    pub matcher: &'a mut Matcher,
    /// The tokens.
    pub tokenizer: &'a Tokenizer,
}

impl Constraint for Within<'_> {
    fn rule_out(&mut self, logits: &mut [f32]) {
        let Some(bytes) = self.matcher.first_bytes() else { return };
        for (token, logit) in logits.iter_mut().enumerate() {
            let first = self.tokenizer.piece(token as u32).first();
            let fits = first.is_some_and(|byte| bytes[*byte as usize / 64] & 1 << (byte % 64) != 0);
            if !fits && !self.tokenizer.is_end(token as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn allows(&mut self, token: u32) -> bool {
        self.matcher.allows(token, self.tokenizer)
    }
}
