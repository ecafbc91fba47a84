//! Sampler: logits to a token.
//!
//! The steps and their order are those of llama.cpp's default chain: logit bias, penalties (repetition, presence,
//! frequency), DRY, top-nσ, top-k, typical, top-p, min-p, XTC, temperature, draw. Mirostat takes the place of all of them
//! but bias and temperature. Every sum runs in one order and every function is this project's or libm's, so that a seed
//! gives the same text on a PC and on a board.

mod bias;
mod candidates;
mod dry;
#[cfg(test)]
mod golden;
mod penalties;
mod random;
mod settings;

pub use bias::read_bias;
pub use dry::{BREAKERS, Breakers};
pub use settings::{Asked, Chosen, FIELDS, Field, Number, Settings, origins};

use alloc::vec::Vec;
use candidates::{Candidates, greedy, sigma_floor};
use dry::Dry;
use penalties::Penalties;
use random::Random;

/// What tokens have to obey besides their probabilities.
pub trait Constraint {
    /// Makes logits of tokens impossible that are quickly seen to be forbidden. Others may be forbidden, too.
    fn rule_out(&mut self, logits: &mut [f32]);
    /// Whether this token may come next.
    fn allows(&mut self, token: u32) -> bool;
}

/// Chooses tokens; one for each conversation, since it remembers where its random numbers are.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Settings,
    random: Random,
    bias: Vec<(u32, f32)>,
    penalties: Penalties,
    dry: Dry,
    candidates: Candidates,
    /// The most surprise that mirostat lets pass now, in bits.
    most_surprise: f32,
}

impl Sampler {
    /// A sampler for a vocabulary of this many tokens. All memory it will ever use is taken here and in the methods that
    /// change how it chooses.
    pub fn new(settings: Settings, vocabulary: usize) -> Self {
        let mut sampler = Self {
            settings,
            random: Random::new(settings.seed),
            bias: Vec::new(),
            penalties: Penalties::default(),
            dry: Dry::default(),
            candidates: Candidates::for_vocabulary(vocabulary),
            most_surprise: 0.0,
        };
        sampler.set(settings);
        sampler
    }

    /// How tokens are chosen.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how tokens are chosen. The random numbers begin anew from the seed.
    pub fn set(&mut self, settings: Settings) {
        self.random = Random::new(settings.seed);
        self.most_surprise = 2.0 * settings.mirostat_tau;
        self.penalties.prepare(&settings, self.candidates.capacity());
        self.dry.prepare(&settings);
        self.settings = settings;
    }

    /// Sets what is added to the logits of some tokens; −∞ forbids one.
    pub fn set_bias(&mut self, bias: Vec<(u32, f32)>) {
        self.bias = bias;
    }

    /// Sets what ends a sequence that DRY looks for.
    pub fn set_breakers(&mut self, breakers: Breakers) {
        self.dry.breakers = breakers;
    }

    /// Whether the next token always is the one with the largest logit, as [`Settings::takes_likeliest`].
    pub fn takes_likeliest(&self) -> bool {
        self.settings.takes_likeliest() && self.bias.is_empty()
    }

    /// The next token: `logits` has one number a token of the vocabulary, `recent` ends with the latest
    /// token. The logits are changed by bias and penalties.
    ///
    /// A logit that is not a number counts as impossible. When all are impossible, or there are none, the
    /// answer is token 0.
    pub fn sample(&mut self, logits: &mut [f32], recent: &[u32]) -> u32 {
        let logits = self.adjusted(logits, recent);
        self.choose(logits)
    }

    /// The next token of those that a constraint allows, `None` if there is none. As llama.cpp does it: the token that
    /// would be taken without the constraint, if allowed; else one is chosen again among those that are.
    pub fn sample_within(
        &mut self,
        logits: &mut [f32],
        recent: &[u32],
        constraint: &mut dyn Constraint,
    ) -> Option<u32> {
        let logits = self.adjusted(logits, recent);
        let most_surprise = self.most_surprise;
        let token = self.choose(logits);
        if constraint.allows(token) {
            return Some(token);
        }
        self.most_surprise = most_surprise;
        constraint.rule_out(logits);
        self.forbid(logits, constraint);
        let possible = logits.iter().any(|logit| *logit > f32::NEG_INFINITY);
        possible.then(|| self.choose(logits))
    }

    /// The logits after everything that depends on the text so far.
    fn adjusted<'l>(&mut self, logits: &'l mut [f32], recent: &[u32]) -> &'l mut [f32] {
        // What lies beyond the vocabulary this sampler was made for has no memory to be drawn from.
        let known = logits.len().min(self.candidates.capacity());
        let logits = &mut logits[..known];
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalties.apply(&self.settings, logits, recent);
        self.dry.apply(&self.settings, logits, recent);
        logits
    }

    /// Filters and draws.
    fn choose(&mut self, logits: &[f32]) -> u32 {
        let settings = self.settings;
        let Self { candidates, random, .. } = self;
        if settings.is_greedy() {
            return greedy(logits);
        }
        if settings.has_mirostat() {
            return self.steer(logits);
        }
        candidates.take_best(logits, settings.top_k, sigma_floor(logits, settings.top_n_sigma));
        candidates.weigh();
        candidates.keep_typical(settings.typical_p);
        candidates.keep_top_p(settings.top_p);
        candidates.keep_min_p(settings.min_p);
        candidates.exclude_top(settings.xtc_probability, settings.xtc_threshold, random);
        if settings.is_cold() {
            return candidates.as_slice().first().map_or(0, |best| best.token);
        }
        candidates.draw(settings.temperature, random).map_or(0, |(token, _)| token)
    }

    /// Mirostat 2: draws among tokens up to a surprise, which goes down after a token that was more surprising than it
    /// should be. Basu et al., Mirostat: A Neural Text Decoding Algorithm That Directly Controls Perplexity, 2021.
    fn steer(&mut self, logits: &[f32]) -> u32 {
        let Settings { temperature, mirostat_tau, mirostat_eta, .. } = self.settings;
        self.candidates.take_unsurprising(logits, self.most_surprise, temperature);
        let Some((token, share)) = self.candidates.draw(temperature, &mut self.random) else { return 0 };
        self.most_surprise -= mirostat_eta * (-libm::log2f(share) - mirostat_tau);
        token
    }

    /// Makes forbidden tokens impossible, as far down as the filters look: where they keep the best `k`, only until so
    /// many allowed ones are found. Of a large vocabulary few tokens are tried.
    fn forbid(&mut self, logits: &mut [f32], constraint: &mut dyn Constraint) {
        let Settings { top_k, top_n_sigma, .. } = self.settings;
        let wanted = match self.settings.is_greedy() {
            true => 1,
            false if self.settings.has_mirostat() || top_n_sigma > 0.0 => 0,
            false => top_k,
        };
        if wanted == 0 {
            for (token, logit) in logits.iter_mut().enumerate() {
                if *logit > f32::NEG_INFINITY && !constraint.allows(token as u32) {
                    *logit = f32::NEG_INFINITY;
                }
            }
            return;
        }
        let mut chunk = wanted.saturating_mul(2).max(64);
        loop {
            self.candidates.take_best(logits, chunk, f32::NEG_INFINITY);
            let mut allowed = 0;
            for candidate in self.candidates.as_slice() {
                if constraint.allows(candidate.token) {
                    allowed += 1;
                    if allowed == wanted {
                        return;
                    }
                } else {
                    logits[candidate.token as usize] = f32::NEG_INFINITY;
                }
            }
            if self.candidates.as_slice().len() < chunk {
                return;
            }
            chunk = chunk.saturating_mul(2);
        }
    }
}

#[cfg(test)]
impl Settings {
    /// Everything off: draws by the model's own probabilities.
    const OPEN: Self = Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7, ..Self::DEFAULT };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN: Settings = Settings::OPEN;

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
    fn sampling_a_smaller_vocabulary_than_the_logits_stays_inside_it() {
        let mut sampler = Sampler::new(Settings { top_k: 0, ..OPEN }, 2);
        assert!(sampler.sample(&mut [0.0, 0.0, 99.0], &[2]) < 2);
        let capacity = sampler.candidates.capacity();
        assert_eq!(capacity, 2, "nothing was allocated");
    }

    proptest! {
        #[test]
        fn whatever_the_logits_and_settings_the_token_is_in_the_vocabulary(
            logits in prop::collection::vec(any::<f32>(), 1..40),
            recent in prop::collection::vec(0..50u32, 0..8),
            (temperature, top_p, min_p, repeat_penalty) in any::<(f32, f32, f32, f32)>(),
            (top_k, repeat_last_n, seed) in (0..50usize, 0..8usize, any::<u64>()),
            odd in any::<(f32, f32, f32, f32)>(),
        ) {
            let more = Settings {
                typical_p: odd.0,
                top_n_sigma: odd.1,
                xtc_probability: odd.2,
                xtc_threshold: odd.3,
                presence_penalty: odd.0,
                frequency_penalty: odd.1,
                dry_multiplier: odd.2,
                dry_base: odd.3,
                mirostat: 2 * usize::from(seed % 4 == 0),
                mirostat_tau: odd.1,
                mirostat_eta: odd.2,
                ..OPEN
            };
            let settings =
                Settings { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed, ..more };
            let mut sampler = Sampler::new(settings, logits.len());
            let token = sampler.sample(&mut logits.clone(), &recent) as usize;
            prop_assert!(token < logits.len());
            prop_assert!(sampler.penalties.is_clear());
        }
    }
}
