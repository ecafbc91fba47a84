//! Speculation: tokens guessed from the context, so that one pass over the weights may yield several.
//!
//! Prompt lookup decoding (A. Saxena, 2023): where the last few tokens have occurred before, what followed them then is
//! the guess. It is run behind the current token in one pass of a few columns; as far as the model agrees, the guess is
//! the answer, and what the model says after that is one token more. Answers that repeat their prompt (summaries,
//! edited code) come in fewer passes; the text is that of decoding one by one, since every batch size gives the same
//! bits.

use crate::session::GROUP;
use crate::simd::Level;

/// How many tokens are guessed at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculation {
    /// As many as pay on this CPU.
    #[default]
    Auto,
    /// None.
    Off,
    /// As many as pay on another CPU, say.
    By(Policy),
}

/// Most tokens that can be guessed at once: with the current one they are a group.
pub const MOST: usize = GROUP - 1;

/// Tokens in common that are looked at, at most: a longer past does not make a guess better.
const LONGEST: usize = 8;
/// Tokens guessed at first.
const FIRST: usize = 4;
/// After so many passes in a row whose guesses were all wrong, more than one token has to be the same, until a guess is right.
const PATIENCE: usize = 6;

/// When to guess, and how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Tokens guessed at once, at most.
    pub most: usize,
    /// Tokens guessed even if the last guess was wrong.
    pub least: usize,
    /// Tokens that have to be those of an earlier place, at least.
    pub shortest: usize,
}

/// On a board, four cores wait for memory while they decode: 32 weights in 20 bytes come every 27 cycles of a core at best
/// on a Pi 4 (4.5 GB/s at 1.5 GHz), every 17 on a Pi 5 (11 GB/s at 2.4 GHz). Four columns take 18 and 10 of those cycles, so
/// three guesses are free on either, right or wrong, and are made wherever the current token has occurred before; eight
/// columns take 36 on a Pi 4, 16 take 29 on a Pi 5: passes 1.3 and 1.7 times as long have to have been earned. A PC has to
/// compute for every guess. The bandwidths are others' measurements and the cycles llvm-mca's: not measured on boards yet.
impl Policy {
    /// For a Pi 4.
    pub const A72: Self = Self { most: 7, least: 3, shortest: 1 };
    /// For a Pi 5.
    pub const A76: Self = Self { most: MOST, least: 3, shortest: 1 };
    /// For a PC, where a further column takes a third as long as the first.
    pub const PC: Self = Self { most: 7, least: 1, shortest: 2 };
    /// No guesses.
    const NONE: Self = Self { most: 0, least: 0, shortest: 1 };

    /// For a CPU of this level.
    pub fn of(level: Level) -> Self {
        match level {
            Level::Neon(_) => Self::A72,
            Level::Dotprod(_) => Self::A76,
            Level::Plain | Level::Fma(_) => Self::PC,
        }
    }
}

/// Makes the guesses of one answer.
#[derive(Clone, Debug)]
pub struct Drafter {
    policy: Policy,
    next: usize,
    /// Passes in a row that guessed and had nothing right.
    in_vain: usize,
}

impl Drafter {
    /// One for a CPU of this level.
    pub fn new(speculation: Speculation, level: Level) -> Self {
        let mut policy = match speculation {
            Speculation::Auto => Policy::of(level),
            Speculation::Off => Policy::NONE,
            Speculation::By(policy) => policy,
        };
        policy.most = policy.most.min(MOST);
        policy.least = policy.least.min(policy.most);
        Self { policy, next: policy.most.min(FIRST), in_vain: 0 }
    }

    /// A pass: the current token, which follows `tokens`, and at most `room` tokens that may follow it. Gives how many
    /// there are in all.
    pub fn draft(&self, tokens: &[u32], current: u32, room: usize, pass: &mut [u32; GROUP]) -> usize {
        pass[0] = current;
        let wanted = self.next.min(room);
        if wanted == 0 {
            return 1;
        }
        // Text of which nothing recurs is not guessed by single tokens for ever.
        let shortest =
            if self.in_vain < PATIENCE { self.policy.shortest } else { self.policy.shortest.max(2) };
        let Some((from, same)) = last_like(tokens, current, shortest) else { return 1 };
        let wanted = if same == 1 { wanted.min(self.policy.least) } else { wanted };
        // What followed may run into the current token and, from there, into the guess itself: a loop goes on.
        for index in 0..wanted {
            pass[1 + index] = match tokens.get(from + index) {
                Some(&token) => token,
                None => pass[from + index - tokens.len()],
            };
        }
        1 + wanted
    }

    /// Guesses twice as many next time if all were right, else one more than were.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        let Policy { most, least, .. } = self.policy;
        if drafted > 0 {
            self.next = if accepted == drafted { self.next.max(2 * drafted) } else { accepted + 1 };
            self.next = self.next.clamp(least, most);
            self.in_vain = if accepted == 0 { self.in_vain + 1 } else { 0 };
        }
    }
}

/// The earlier place that has most in common with the end, at least `shortest` tokens, of equals the latest: where it goes
/// on, as an index into `tokens`, and how many tokens are the same. Where it goes on may be their count: the current token.
fn last_like(tokens: &[u32], current: u32, shortest: usize) -> Option<(usize, usize)> {
    let (mut best, mut found) = (shortest.max(1) - 1, None);
    for (at, _) in tokens.iter().enumerate().rev().filter(|&(_, &token)| token == current) {
        let before = tokens[..at].iter().rev().zip(tokens.iter().rev());
        let same = 1 + before.take(LONGEST - 1).take_while(|(a, b)| a == b).count();
        if same > best {
            (best, found) = (same, Some((at + 1, same)));
            if same == LONGEST {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const A76: Policy = Policy::A76;

    fn guess(policy: Policy, next: usize, tokens: &[u32], current: u32, room: usize) -> Vec<u32> {
        let mut pass = [u32::MAX; GROUP];
        let count = Drafter { policy, next, in_vain: 0 }.draft(tokens, current, room, &mut pass);
        assert_eq!(pass[0], current);
        pass[1..count].to_vec()
    }

    #[test]
    fn after_six_guesses_in_vain_a_single_token_in_common_is_not_enough() {
        let tokens = [1, 2, 3, 4, 5, 6, 1, 2, 9];
        let mut drafter = Drafter::new(Speculation::By(A76), Level::Plain);
        let mut pass = [0; GROUP];
        for _ in 0..PATIENCE {
            assert!(drafter.draft(&tokens, 3, 8, &mut pass) > 1, "3 has occurred before");
            drafter.learn(3, 0);
        }
        assert_eq!(drafter.draft(&tokens, 3, 8, &mut pass), 1);
        assert!(drafter.draft(&tokens[..8], 3, 8, &mut pass) > 1, "1 2 3 has occurred before");
        drafter.learn(3, 1);
        assert!(drafter.draft(&tokens, 3, 8, &mut pass) > 1);
    }

    #[test]
    fn the_guess_is_what_followed_the_place_with_the_longest_common_past() {
        let text = [1, 2, 3, 10, 11, 9, 2, 3, 20, 21, 9, 3, 30, 1, 2];
        assert_eq!(guess(A76, 2, &text, 3, 9), [10, 11]);
        assert_eq!(guess(A76, 2, &text[..13], 9, 9), [3, 30], "one token in common: the latest place");
        assert!(guess(A76, 2, &text, 99, 9).is_empty(), "never seen");
        assert!(guess(A76, 2, &[], 1, 9).is_empty());
        let careful = Policy { shortest: 2, ..A76 };
        assert!(guess(careful, 2, &text[..13], 9, 9).is_empty());
        assert_eq!(guess(careful, 2, &text, 3, 9), [10, 11]);
    }

    #[test]
    fn a_loop_is_guessed_on_beyond_its_end() {
        assert_eq!(guess(A76, 15, &[7, 1, 2, 3, 1, 2], 3, 15), [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
        assert_eq!(guess(A76, 15, &[5, 5], 5, 15), [5; 15]);
        assert_eq!(guess(A76, 15, &[5], 5, 15), [5; 3], "one token in common");
    }

    #[test]
    fn no_more_is_guessed_than_there_is_room_for() {
        let text = [1, 2, 3, 4, 5, 6, 1];
        assert_eq!(guess(A76, 15, &text, 2, 2), [3, 4]);
        assert!(guess(A76, 15, &text, 2, 0).is_empty());
        let off = Drafter::new(Speculation::Off, Level::Plain);
        assert_eq!(off.draft(&text, 2, 9, &mut [0; GROUP]), 1);
    }

    #[test]
    fn right_guesses_earn_longer_ones_and_wrong_ones_cost_them() {
        let mut drafter = Drafter { policy: A76, next: 4, in_vain: 0 };
        let mut after = |drafted, accepted| {
            drafter.learn(drafted, accepted);
            drafter.next
        };
        assert_eq!([after(4, 4), after(8, 8), after(15, 15), after(2, 2)], [8, 15, 15, 15]);
        assert_eq!([after(15, 6), after(0, 0), after(7, 0), after(3, 3)], [7, 7, 3, 6]);
        for most in [0, 1, 2, 40] {
            let mut drafter = Drafter::new(Speculation::By(Policy { most, ..A76 }), Level::Plain);
            for (drafted, accepted) in [(1, 1), (2, 2), (15, 15), (15, 0)] {
                assert!(drafter.next <= most.min(MOST));
                drafter.learn(drafted, accepted);
            }
        }
    }
}
