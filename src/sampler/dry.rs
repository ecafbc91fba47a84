//! DRY, "don't repeat yourself": a token that would go on repeating a sequence costs more with each token of it.
//!
//! p-e-w, text-generation-webui pull request 5677, 2024. Texts like a line break end a sequence, so that what has to be
//! repeated, a list's marks or a chat's frame, costs nothing.

use super::Settings;
use crate::tokenizer::Tokenizer;
use alloc::vec::Vec;

/// Bytes of a breaker that count.
const LONGEST_BREAKER: usize = 40;
/// Tokens that the rest of a breaker is looked for in.
const LONGEST_TAIL: usize = 20;

/// What ends a sequence where nothing else is asked for: llama.cpp's.
pub const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Texts that end a sequence, as tokens: one that has the text within it, or one that ends with its beginning, followed by
/// those of the rest.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    /// First tokens in order, each with the stretch of `tails` that has to follow.
    heads: Vec<(u32, u32, u32)>,
    tails: Vec<u32>,
}

impl Breakers {
    /// Looks through a vocabulary.
    pub fn new<'t>(tokenizer: &Tokenizer, texts: impl Iterator<Item = &'t str> + Clone) -> Self {
        let mut breakers = Self::default();
        for token in 0..tokenizer.len() as u32 {
            for text in texts.clone() {
                breakers.add(tokenizer, token, text);
            }
        }
        breakers
    }

    fn add(&mut self, tokenizer: &Tokenizer, token: u32, text: &str) {
        let text = &text[..text.floor_char_boundary(LONGEST_BREAKER)];
        let (piece, bytes) = (tokenizer.piece(token), text.as_bytes());
        if text.is_empty() {
            return;
        }
        if piece.windows(bytes.len()).any(|window| window == bytes) {
            return self.push(token, &[]);
        }
        // The piece ends with the first bytes of the text: the others have to follow.
        for length in (1..bytes.len().min(piece.len() + 1)).rev() {
            if piece.ends_with(&bytes[..length]) && text.is_char_boundary(length) {
                let mut tail = tokenizer.encode(&text[length..], false, false);
                tail.truncate(LONGEST_TAIL);
                self.push(token, &tail);
            }
        }
    }

    fn push(&mut self, token: u32, tail: &[u32]) {
        if !self.of(token).any(|known| known == tail) {
            let (start, length) = (self.tails.len() as u32, tail.len() as u32);
            self.tails.extend(tail);
            self.heads.push((token, start, length)); // tokens come in order
        }
    }

    /// What has to follow this token.
    fn of(&self, token: u32) -> impl Iterator<Item = &[u32]> {
        let first = self.heads.partition_point(|head| head.0 < token);
        let same = self.heads[first..].iter().take_while(move |head| head.0 == token);
        same.map(|&(_, start, length)| &self.tails[start as usize..][..length as usize])
    }
}

/// Looks for repetitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Dry {
    pub breakers: Breakers,
    /// For each number of tokens back, how many there are the same as at the end.
    same: Vec<u32>,
    /// Tokens that would go on repeating, and how many are repeated already.
    next: Vec<(u32, u32)>,
}

impl Dry {
    /// Takes the memory that these settings need.
    pub fn prepare(&mut self, settings: &Settings) {
        if settings.breaks_repetition() {
            let room = settings.dry_last_n;
            self.same.clear();
            self.next.clear();
            self.same.reserve_exact(room);
            self.next.reserve_exact(room);
        }
    }

    /// Takes multiplier × base^(repeated tokens − allowed) off each logit that would go on repeating.
    pub fn apply(&mut self, settings: &Settings, logits: &mut [f32], recent: &[u32]) {
        if !settings.breaks_repetition() {
            return;
        }
        let allowed = settings.dry_allowed_length;
        let recent = &recent[recent.len().saturating_sub(settings.dry_last_n)..];
        if recent.len() <= allowed {
            return;
        }
        let most = self.since_breaker(recent);
        if most < allowed {
            return;
        }
        self.count_same(recent);
        self.next.clear();
        let back = |index: usize| recent[recent.len() - 1 - index];
        for (index, &same) in self.same.iter().enumerate().skip(1) {
            let same = (same as usize).min(most);
            if same >= allowed {
                self.next.push((back(index - 1), same as u32));
            }
        }
        self.next.sort_unstable();
        // The largest power that a float holds.
        let (base, multiplier) = (f64::from(settings.dry_base), settings.dry_multiplier);
        let highest = if base > 1.000001 { (88.722_839 / libm::log(base)) as usize } else { usize::MAX };
        for (index, &(token, same)) in self.next.iter().enumerate() {
            let longest = self.next.get(index + 1).is_none_or(|next| next.0 != token);
            let Some(logit) = logits.get_mut(token as usize).filter(|_| longest) else { continue };
            if self.breakers.of(token).any(<[u32]>::is_empty) {
                continue;
            }
            let power = (same as usize - allowed).min(highest);
            *logit -= (f64::from(multiplier) * libm::pow(base, power as f64)) as f32;
        }
    }

    /// Tokens since the last breaker.
    fn since_breaker(&self, recent: &[u32]) -> usize {
        let end = recent.len();
        for after in 0..end {
            let (token, follows) = (recent[end - 1 - after], &recent[end - after..]);
            let tails = self.breakers.of(token).filter(|tail| follows.starts_with(tail));
            if let Some(longest) = tails.map(<[u32]>::len).max() {
                return after - longest;
            }
        }
        end
    }

    /// How many tokens, read backwards, are the same as at the end: the Z-array of the text reversed, in linear time.
    fn count_same(&mut self, recent: &[u32]) {
        let back = |index: usize| recent[recent.len() - 1 - index];
        self.same.clear();
        self.same.push(0);
        let (mut left, mut right) = (0, 0); // the stretch that reaches furthest: what is in it is known
        for index in 1..recent.len() {
            let known = if index < right { (self.same[index - left] as usize).min(right - index) } else { 0 };
            let mut same = known;
            while index + same < recent.len() && back(same) == back(index + same) {
                same += 1;
            }
            if index + same > right {
                (left, right) = (index, index + same);
            }
            self.same.push(same as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const ON: Settings = Settings {
        dry_multiplier: 1.0,
        dry_base: 2.0,
        dry_allowed_length: 1,
        dry_last_n: 100,
        ..Settings::OPEN
    };

    fn after(settings: Settings, breakers: &[(u32, &[u32])], recent: &[u32]) -> Vec<f32> {
        let mut dry = Dry::default();
        breakers.iter().for_each(|(token, tail)| dry.breakers.push(*token, tail));
        dry.prepare(&settings);
        let mut logits = vec![0.0; 6];
        dry.apply(&settings, &mut logits, recent);
        logits
    }

    #[test]
    fn what_would_go_on_repeating_costs_twice_as_much_with_each_token() {
        assert_eq!(after(ON, &[], &[0, 1, 2, 3, 0, 1, 2]), [0.0, 0.0, 0.0, -4.0, 0.0, 0.0]);
        assert_eq!(after(ON, &[], &[0, 1, 2, 3, 4, 2]), [0.0, 0.0, 0.0, -1.0, 0.0, 0.0]);
        assert_eq!(after(ON, &[], &[0, 1, 2]), [0.0; 6]);
        assert_eq!(after(ON, &[], &[]), [0.0; 6]);
        let short = Settings { dry_last_n: 3, ..ON };
        assert_eq!(after(short, &[], &[0, 1, 2, 3, 0, 1, 2]), [0.0; 6], "the first time is too long ago");
    }

    #[test]
    fn a_breaker_ends_a_sequence_and_is_free_itself() {
        let text = [0, 1, 2, 3, 0, 1, 2];
        assert_eq!(after(ON, &[(1, &[])], &text)[3], -1.0, "only the 2 after it counts");
        assert_eq!(after(ON, &[(0, &[1])], &text)[3], -1.0, "the same, of two tokens");
        assert_eq!(after(ON, &[(0, &[5])], &text)[3], -4.0, "not followed by the rest");
        assert_eq!(after(ON, &[(3, &[])], &text), [0.0; 6]);
        assert_eq!(after(ON, &[(2, &[])], &text), [0.0; 6], "nothing since the breaker");
    }

    #[test]
    fn a_very_long_repetition_costs_no_infinity() {
        let settings = Settings { dry_last_n: 4000, dry_base: 5.0, ..ON };
        let cost = after(settings, &[], &[1; 4000])[1];
        assert!(cost < -1e30 && cost.is_finite(), "{cost}");
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_definition(text in prop::collection::vec(0..3u32, 1..60)) {
            let mut dry = Dry::default();
            dry.count_same(&text);
            let backwards: Vec<u32> = text.iter().rev().copied().collect();
            for index in 1..text.len() {
                let pairs = backwards.iter().zip(&backwards[index..]);
                let same = pairs.take_while(|(a, b)| a == b).count();
                prop_assert_eq!(dry.same[index] as usize, same);
            }
        }
    }
}
