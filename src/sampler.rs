//! Sampler: logits to a token.
//!
//! The steps and their order are those of llama.cpp's default chain, as far as they exist here: repetition
//! penalty, top-k, top-p, min-p, temperature, draw. Every sum runs in one order and every function is this
//! project's or libm's, so that a seed gives the same text on a PC and on a board.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Divides the logits: 0 always takes the best token, 1 draws by the model's own probabilities.
    pub temperature: f32,
    /// Only this many of the best tokens are drawn from; 0 is all.
    pub top_k: usize,
    /// Only the best tokens whose probabilities reach this sum are drawn from, at least one; 1 is all.
    pub top_p: f32,
    /// Only tokens with at least this share of the best one's probability are drawn from; 0 is all.
    pub min_p: f32,
    /// What logits of recent tokens are divided by (multiplied when negative); 1 changes nothing.
    pub repeat_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last_n: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Settings {
    /// Whether the next token always is the likeliest one, the lowest of equals, whatever came before: then nobody needs
    /// the logits, and tokens may be guessed beforehand.
    pub fn takes_likeliest(&self) -> bool {
        self.is_greedy() && !self.penalises()
    }

    fn is_greedy(&self) -> bool {
        !self.temperature.is_finite() || self.temperature <= 0.0 || self.top_k == 1
    }

    fn penalises(&self) -> bool {
        let penalty = self.repeat_penalty;
        penalty != 1.0 && penalty.is_finite() && penalty > 0.0 && self.repeat_last_n > 0
    }
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
    /// Not normalised: exp(logit − best).
    weight: f32,
}

/// The better candidate first; of equal logits the lower token.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Chooses tokens; one for each conversation, since it remembers where its random numbers are.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Settings,
    random: Random,
    candidates: Vec<Candidate>,
    /// Which tokens were penalised already, a bit each; all zero between calls.
    seen: Vec<u64>,
}

impl Sampler {
    /// A sampler for a vocabulary of this many tokens. All memory it will ever use is taken here.
    pub fn new(settings: Settings, vocabulary: usize) -> Self {
        let mut candidates = Vec::new();
        candidates.reserve_exact(vocabulary);
        let seen = vec![0; vocabulary.div_ceil(64)];
        Self { settings, random: Random::new(settings.seed), candidates, seen }
    }

    /// How tokens are chosen.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how tokens are chosen. The random numbers begin anew from the seed.
    pub fn set(&mut self, settings: Settings) {
        self.random = Random::new(settings.seed);
        self.settings = settings;
    }

    /// The next token: `logits` has one number a token of the vocabulary, `recent` ends with the latest
    /// token. The logits of recent tokens are changed by the penalty.
    ///
    /// A logit that is not a number counts as impossible. When all are impossible, or there are none, the
    /// answer is token 0.
    pub fn sample(&mut self, logits: &mut [f32], recent: &[u32]) -> u32 {
        // What lies beyond the vocabulary this sampler was made for has no memory to be drawn from.
        let known = logits.len().min(self.candidates.capacity());
        let logits = &mut logits[..known];
        self.penalise(logits, recent);
        let Settings { temperature, top_k, top_p, min_p, .. } = self.settings;
        if self.settings.is_greedy() {
            return greedy(logits);
        }
        self.take_top_k(logits, top_k);
        self.weigh();
        self.keep_top_p(top_p);
        self.keep_min_p(min_p);
        self.draw(temperature)
    }

    /// Makes recent tokens less likely, each once however often it occurs: Keskar et al., CTRL, 2019,
    /// section 4.1, with llama.cpp's care for negative logits.
    fn penalise(&mut self, logits: &mut [f32], recent: &[u32]) {
        let Settings { repeat_penalty: penalty, repeat_last_n, .. } = self.settings;
        if !self.settings.penalises() {
            return;
        }
        let recent = &recent[recent.len().saturating_sub(repeat_last_n)..];
        for &token in recent {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let (word, bit) = (token as usize / 64, 1 << (token % 64));
            if self.seen[word] & bit == 0 {
                self.seen[word] |= bit;
                *logit = if *logit <= 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
        for &token in recent {
            if let Some(word) = self.seen.get_mut(token as usize / 64) {
                *word = 0;
            }
        }
    }

    /// Collects the candidates, the best first: `k` of them, or all when `k` is 0. Impossible ones are left out.
    ///
    /// Whenever enough have gathered all but the best `k` are dropped, and only what is better than the worst of
    /// those is looked at from then on: of a whole vocabulary, few tokens ever are.
    fn take_top_k(&mut self, logits: &[f32], k: usize) {
        let room = if k == 0 { usize::MAX } else { k.saturating_mul(4).max(256) };
        let mut floor = f32::NEG_INFINITY;
        self.candidates.clear();
        for (token, &logit) in logits.iter().enumerate() {
            // Of equals the lower token is better, so a later one that only equals the floor is not.
            if logit > floor {
                let logit = logit + 0.0; // -0 + 0 = 0: one zero, so that it equals itself in every order
                self.candidates.push(Candidate { token: token as u32, logit, weight: 0.0 });
                if self.candidates.len() == room {
                    floor = self.keep_best(k).unwrap_or(floor);
                }
            }
        }
        if k != 0 {
            self.keep_best(k);
        }
        self.candidates.sort_unstable_by(best_first);
    }

    /// Drops all but the best `k` candidates, in no order; gives the worst logit kept if any were dropped.
    fn keep_best(&mut self, k: usize) -> Option<f32> {
        if k >= self.candidates.len() {
            return None;
        }
        let worst = self.candidates.select_nth_unstable_by(k - 1, best_first).1.logit;
        self.candidates.truncate(k);
        Some(worst)
    }

    /// Sets each candidate's weight; their sum is the probabilities' denominator.
    fn weigh(&mut self) {
        let Some(best) = self.candidates.first().map(|best| best.logit) else { return };
        self.candidates
            .iter_mut()
            .for_each(|candidate| candidate.weight = weight(candidate.logit, best, 1.0));
    }

    /// Keeps the best candidates until their probabilities reach `p`: Holtzman et al., The Curious Case of
    /// Neural Text Degeneration, 2020.
    fn keep_top_p(&mut self, p: f32) {
        if p >= 1.0 || p.is_nan() {
            return;
        }
        let limit = p * self.sum();
        let mut sum = 0.0;
        let reached = |candidate: &Candidate| {
            sum += candidate.weight;
            sum >= limit
        };
        if let Some(last) = self.candidates.iter().position(reached) {
            self.candidates.truncate(last + 1);
        }
    }

    /// Keeps candidates with at least `p` of the best one's probability, and the best one in any case.
    fn keep_min_p(&mut self, p: f32) {
        if p > 0.0 {
            let kept = self.candidates.partition_point(|candidate| candidate.weight >= p); // the best's is 1
            self.candidates.truncate(kept.max(1));
        }
    }

    /// Draws one of the candidates by their probabilities at this temperature.
    fn draw(&mut self, temperature: f32) -> u32 {
        let Some(best) = self.candidates.first().copied() else { return 0 };
        for candidate in &mut self.candidates {
            candidate.weight = weight(candidate.logit, best.logit, temperature);
        }
        let mut left = self.random.unit() * self.sum();
        let drawn = self.candidates.iter().find(|candidate| {
            left -= candidate.weight;
            left < 0.0
        });
        drawn.map_or(best.token, |candidate| candidate.token) // rounding may leave a crumb
    }

    fn sum(&self) -> f32 {
        self.candidates.iter().fold(0.0, |sum, candidate| sum + candidate.weight)
    }
}

/// exp((logit − best) / temperature), 1 for the best whatever it is.
fn weight(logit: f32, best: f32, temperature: f32) -> f32 {
    // ∞ − ∞ is not a number; equal is equal.
    if logit == best { 1.0 } else { libm::expf((logit - best) / temperature) }
}

/// The best token, the lowest of equals.
fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token as u32, logit);
        }
    }
    best.0
}

/// PCG-XSH-RR 64/32: O'Neill, PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
/// Random Number Generation, 2014, section 6.3.1.
#[derive(Clone, Debug)]
struct Random {
    state: u64,
}

impl Random {
    /// Any odd number picks a sequence; this is the paper's.
    const INCREMENT: u64 = 1_442_695_040_888_963_407;
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;

    fn new(seed: u64) -> Self {
        let mut random = Self { state: Self::INCREMENT.wrapping_add(seed) };
        random.next();
        random
    }

    fn next(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(Self::MULTIPLIER).wrapping_add(Self::INCREMENT);
        let folded = (((old >> 18) ^ old) >> 27) as u32; // the low half of what is left, as in the paper
        folded.rotate_right((old >> 59) as u32)
    }

    /// At least 0, less than 1: all 24 bits that an f32 can tell apart.
    fn unit(&mut self) -> f32 {
        (self.next() >> 8) as f32 / 16_777_216.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything off: draws by the model's own probabilities.
    const OPEN: Settings = Settings {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
        seed: 7,
    };

    fn drawn(settings: Settings, logits: &[f32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(settings, logits.len());
        (0..times).map(|_| sampler.sample(&mut logits.to_vec(), &[])).collect()
    }

    fn never_beyond(settings: Settings, logits: &[f32], tokens: &[u32]) {
        let drawn = drawn(settings, logits, 2000);
        for token in 0..logits.len() as u32 {
            assert_eq!(drawn.contains(&token), tokens.contains(&token), "{settings:?}: token {token}");
        }
    }

    #[test]
    fn temperature_zero_takes_the_best_and_of_equals_the_lowest() {
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let settings = Settings { temperature, ..OPEN };
            assert_eq!(drawn(settings, &[1.0, 3.0, 3.0, 2.0], 3), [1, 1, 1]);
            assert_eq!(drawn(settings, &[-0.0, 0.0], 1), [0]);
        }
    }

    #[test]
    fn logits_that_are_no_numbers_neither_panic_nor_win() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for temperature in [0.0, 0.8] {
            for (logits, answer) in [
                (&[nan, -inf, 1.0, nan][..], 2),
                (&[nan, nan], 0),
                (&[-inf, -inf], 0),
                (&[-nan, 0.0, -inf], 1),
                (&[], 0),
                (&[nan], 0),
                (&[1.0, inf, 2.0], 1),
            ] {
                let settings = Settings { temperature, min_p: 0.05, ..OPEN };
                assert_eq!(drawn(settings, logits, 1), [answer], "{logits:?} at {temperature}");
            }
        }
    }

    #[test]
    fn top_k_one_is_greedy_and_a_k_beyond_the_vocabulary_is_all_of_it() {
        let logits = [0.1, 0.3, 0.3, 0.2];
        never_beyond(Settings { top_k: 1, ..OPEN }, &logits, &[1]);
        never_beyond(Settings { top_k: 2, ..OPEN }, &logits, &[1, 2]);
        never_beyond(Settings { top_k: 3, ..OPEN }, &logits, &[1, 2, 3]);
        for k in [0, 4, 5, usize::MAX] {
            never_beyond(Settings { top_k: k, ..OPEN }, &logits, &[0, 1, 2, 3]);
        }
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it_and_always_one() {
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(libm::logf);
        for (top_p, kept) in
            [(0.0, &[0][..]), (0.4, &[0]), (0.6, &[0, 1]), (0.9, &[0, 1, 2]), (1.0, &[0, 1, 2, 3])]
        {
            never_beyond(Settings { top_p, ..OPEN }, &logits, kept);
        }
        never_beyond(Settings { top_p: -1.0, ..OPEN }, &logits, &[0]);
        never_beyond(Settings { top_p: f32::NAN, ..OPEN }, &logits, &[0, 1, 2, 3]);
    }

    #[test]
    fn min_p_is_a_share_of_the_best() {
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(libm::logf);
        for (min_p, kept) in
            [(0.05, &[0, 1, 2, 3][..]), (0.2, &[0, 1, 2]), (0.5, &[0, 1]), (1.0, &[0]), (2.0, &[0])]
        {
            never_beyond(Settings { min_p, ..OPEN }, &logits, kept);
        }
    }

    #[test]
    fn a_penalty_counts_each_recent_token_once_and_pushes_negative_logits_down() {
        let settings = Settings { repeat_penalty: 2.0, repeat_last_n: 3, temperature: 0.0, ..OPEN };
        let mut sampler = Sampler::new(settings, 4);
        let mut logits = [4.0, 3.0, -1.0, 0.5];
        assert_eq!(sampler.sample(&mut logits, &[3, 0, 0, 2, 99]), 1, "token 3 is too long ago, 99 unknown");
        assert_eq!(logits, [2.0, 3.0, -2.0, 0.5]);
        let mut logits = [4.0, 3.0, -1.0, 0.5];
        assert_eq!(sampler.sample(&mut logits, &[]), 0, "nothing recent, nothing remembered");
        assert_eq!(sampler.sample(&mut logits, &[0]), 1);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens_and_setting_it_again_begins_anew() {
        let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 100) as f32 / 20.0).collect();
        let settings = Settings { seed: 42, ..Settings::default() };
        let first = drawn(settings, &logits, 50);
        assert_eq!(drawn(settings, &logits, 50), first);
        assert_ne!(drawn(Settings { seed: 43, ..settings }, &logits, 50), first);
        let mut sampler = Sampler::new(Settings::default(), 100);
        sampler.sample(&mut logits.clone(), &[]);
        sampler.set(settings);
        assert_eq!((0..50).map(|_| sampler.sample(&mut logits.clone(), &[])).collect::<Vec<_>>(), first);
    }

    #[test]
    fn the_draws_follow_the_probabilities() {
        let shares = [0.5f32, 0.3, 0.15, 0.05];
        let drawn = drawn(OPEN, &shares.map(libm::logf), 20_000);
        for (token, share) in shares.iter().enumerate() {
            let found = drawn.iter().filter(|t| **t as usize == token).count() as f32 / 20_000.0;
            assert!((found - share).abs() < 0.015, "token {token}: {found} for {share}");
        }
    }

    #[test]
    fn the_random_numbers_are_the_papers() {
        // pcg32 with the sequence 721347520444481703 (half the increment) and seed 42, from its definition
        // computed apart from this code.
        let mut random = Random::new(42);
        assert_eq!([(); 4].map(|()| random.next()), [0xc2f57bd6, 0x6b07c4a9, 0x72b7b29b, 0x44215383]);
    }

    #[test]
    fn sampling_a_smaller_vocabulary_than_the_logits_stays_inside_it() {
        let mut sampler = Sampler::new(Settings { top_k: 0, ..OPEN }, 2);
        assert!(sampler.sample(&mut [0.0, 0.0, 99.0], &[2]) < 2);
        let capacity = sampler.candidates.capacity();
        assert_eq!(capacity, 2, "nothing was allocated");
    }

    proptest! {
        #[test]
        fn the_selection_of_the_best_is_the_beginning_of_a_full_sort(
            logits in prop::collection::vec((-20..20i32).prop_map(|l| l as f32), 1..1500),
            k in 1..400usize,
        ) {
            let mut sampler = Sampler::new(OPEN, logits.len());
            sampler.take_top_k(&logits, k);
            let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
            sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            sorted.truncate(k);
            prop_assert_eq!(sampler.candidates.iter().map(|c| c.token).collect::<Vec<_>>(), sorted);
            prop_assert_eq!(sampler.candidates.capacity(), logits.len());
        }

        #[test]
        fn whatever_the_logits_and_settings_the_token_is_in_the_vocabulary(
            logits in prop::collection::vec(any::<f32>(), 1..40),
            recent in prop::collection::vec(0..50u32, 0..8),
            (temperature, top_p, min_p, repeat_penalty) in any::<(f32, f32, f32, f32)>(),
            (top_k, repeat_last_n, seed) in (0..50usize, 0..8usize, any::<u64>()),
        ) {
            let settings =
                Settings { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed };
            let mut sampler = Sampler::new(settings, logits.len());
            let token = sampler.sample(&mut logits.clone(), &recent) as usize;
            prop_assert!(token < logits.len());
            prop_assert!(sampler.seen.iter().all(|word| *word == 0));
        }
    }
}
