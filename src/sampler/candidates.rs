//! Candidates: the tokens that may be drawn, and the filters that make them fewer.
//!
//! The list is always in order, the best first. Filters that compare probabilities work on weights,
//! exp(logit − best), which are normalised nowhere: only shares of their sum count.

use super::random::Random;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub token: u32,
    pub logit: f32,
    /// Not normalised: exp(logit − best).
    pub weight: f32,
}

/// The better candidate first; of equal logits the lower token.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// exp((logit − best) / temperature), 1 for the best whatever it is.
fn weight(logit: f32, best: f32, temperature: f32) -> f32 {
    // ∞ − ∞ is not a number; equal is equal.
    if logit == best { 1.0 } else { libm::expf((logit - best) / temperature) }
}

/// Tokens that may be drawn.
#[derive(Clone, Debug)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    /// Room for a vocabulary: all memory that is ever used.
    pub fn for_vocabulary(vocabulary: usize) -> Self {
        let mut list = Vec::new();
        list.reserve_exact(vocabulary);
        Self(list)
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// The best first.
    pub fn as_slice(&self) -> &[Candidate] {
        &self.0
    }

    /// Collects the candidates: `k` of them, or all when `k` is 0, none below `least`. Impossible ones are left out.
    ///
    /// Whenever enough have gathered all but the best `k` are dropped, and only what is better than the worst of
    /// those is looked at from then on: of a whole vocabulary, few tokens ever are.
    pub fn take_best(&mut self, logits: &[f32], k: usize, least: f32) {
        let room = if k == 0 { usize::MAX } else { k.saturating_mul(4).max(256) };
        let mut floor = f32::NEG_INFINITY;
        self.0.clear();
        for (token, &logit) in logits.iter().enumerate() {
            // Of equals the lower token is better, so a later one that only equals the floor is not.
            if logit > floor && logit >= least {
                let logit = logit + 0.0; // -0 + 0 = 0: one zero, so that it equals itself in every order
                self.0.push(Candidate { token: token as u32, logit, weight: 0.0 });
                if self.0.len() == room {
                    floor = self.keep_best(k).unwrap_or(floor);
                }
            }
        }
        if k != 0 {
            self.keep_best(k);
        }
        self.0.sort_unstable_by(best_first);
    }

    /// Drops all but the best `k` candidates, in no order; gives the worst logit kept if any were dropped.
    fn keep_best(&mut self, k: usize) -> Option<f32> {
        if k >= self.0.len() {
            return None;
        }
        let worst = self.0.select_nth_unstable_by(k - 1, best_first).1.logit;
        self.0.truncate(k);
        Some(worst)
    }

    /// Sets each candidate's weight; their sum is the probabilities' denominator.
    pub fn weigh(&mut self) {
        let Some(best) = self.0.first().map(|best| best.logit) else { return };
        self.0.iter_mut().for_each(|candidate| candidate.weight = weight(candidate.logit, best, 1.0));
    }

    /// Keeps the candidates whose surprise, −ln of the probability, is nearest to the mean surprise, until their
    /// probabilities exceed `p`: Meister et al., Locally Typical Sampling, 2022. The best need not be among them.
    pub fn keep_typical(&mut self, p: f32) {
        if p >= 1.0 || p.is_nan() {
            return;
        }
        let Some(best) = self.0.first().map(|best| best.logit) else { return };
        let sum = self.sum();
        let surprise = |weight: f32| -libm::logf(weight / sum);
        let shares = self.0.iter().filter(|candidate| candidate.weight > 0.0);
        let entropy = shares.fold(0.0, |sum_so_far, c| sum_so_far + c.weight / sum * surprise(c.weight));
        for candidate in &mut self.0 {
            candidate.weight = (surprise(candidate.weight) - entropy).abs(); // a distance, for a moment
        }
        self.0.sort_unstable_by(|a, b| a.weight.total_cmp(&b.weight).then(best_first(a, b)));
        let mut share = 0.0;
        let exceeded = |candidate: &Candidate| {
            share += weight(candidate.logit, best, 1.0) / sum;
            share > p
        };
        if let Some(last) = self.0.iter().position(exceeded) {
            self.0.truncate(last + 1);
        }
        self.0.sort_unstable_by(best_first);
        self.weigh();
    }

    /// Keeps the best candidates until their probabilities reach `p`: Holtzman et al., The Curious Case of
    /// Neural Text Degeneration, 2020.
    pub fn keep_top_p(&mut self, p: f32) {
        if p >= 1.0 || p.is_nan() {
            return;
        }
        let limit = p * self.sum();
        let mut sum = 0.0;
        let reached = |candidate: &Candidate| {
            sum += candidate.weight;
            sum >= limit
        };
        if let Some(last) = self.0.iter().position(reached) {
            self.0.truncate(last + 1);
        }
    }

    /// Keeps candidates with at least `p` of the best one's probability, and the best one in any case.
    pub fn keep_min_p(&mut self, p: f32) {
        if p > 0.0 {
            let kept = self.0.partition_point(|candidate| candidate.weight >= p); // the best's is 1
            self.0.truncate(kept.max(1));
        }
    }

    /// Excludes top choices: with this probability, of all candidates that are at least as probable as `threshold` only
    /// the least probable stays. p-e-w, text-generation-webui pull request 6335, 2024.
    pub fn exclude_top(&mut self, probability: f32, threshold: f32, random: &mut Random) {
        let off = probability.is_nan() || probability <= 0.0 || threshold.is_nan() || threshold > 0.5;
        if off || self.0.len() < 2 || random.unit() > probability {
            return;
        }
        let sum = self.sum();
        let above = self.0.partition_point(|candidate| candidate.weight / sum >= threshold);
        self.0.drain(..above.saturating_sub(1));
    }

    /// Keeps all tokens whose surprise, −log2 of the probability at this temperature, is at most `most`, and the best one in
    /// any case.
    pub fn take_unsurprising(&mut self, logits: &[f32], most: f32, temperature: f32) {
        self.0.clear();
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max); // max passes over what is no number
        let possible = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        // A sum over a whole vocabulary has too many terms for 24 bits.
        let sum: f64 = possible.clone().map(|(_, &logit)| f64::from(weight(logit, best, temperature))).sum();
        let least = (sum * f64::from(libm::exp2f(-most))).min(1.0) as f32;
        for (token, &logit) in possible {
            let weight = weight(logit, best, temperature);
            if weight >= least {
                self.0.push(Candidate { token: token as u32, logit: logit + 0.0, weight });
            }
        }
        self.0.sort_unstable_by(best_first);
    }

    /// Draws one of the candidates by their probabilities at this temperature; gives its share of them, too. Sets the
    /// weights to what was drawn by.
    pub fn draw(&mut self, temperature: f32, random: &mut Random) -> Option<(u32, f32)> {
        let best = self.0.first().copied()?;
        for candidate in &mut self.0 {
            candidate.weight = weight(candidate.logit, best.logit, temperature);
        }
        let sum = self.sum();
        let mut left = random.unit() * sum;
        let drawn = self.0.iter().find(|candidate| {
            left -= candidate.weight;
            left < 0.0
        });
        let drawn = drawn.unwrap_or(&self.0[0]); // rounding may leave a crumb
        Some((drawn.token, drawn.weight / sum))
    }

    fn sum(&self) -> f32 {
        self.0.iter().fold(0.0, |sum, candidate| sum + candidate.weight)
    }
}

/// The smallest logit that is within `n` standard deviations of the largest: Tang et al., Top-nσ: Not All Logits Are You
/// Need, 2024. Impossible tokens do not count; everything passes where `n` is 0 or less.
pub(super) fn sigma_floor(logits: &[f32], n: f32) -> f32 {
    if n.is_nan() || n <= 0.0 {
        return f32::NEG_INFINITY;
    }
    let possible =
        || logits.iter().filter(|logit| **logit > f32::NEG_INFINITY).map(|&logit| f64::from(logit));
    let (count, sum, most) = possible().fold((0usize, 0.0, f64::NEG_INFINITY), |(n, sum, most), logit| {
        (n + 1, sum + logit, most.max(logit))
    });
    let mean = sum / count.max(1) as f64;
    let square = possible().fold(0.0, |sum, logit| sum + (logit - mean) * (logit - mean));
    let floor = (most - f64::from(n) * libm::sqrt(square / count.max(1) as f64)) as f32;
    // An infinite logit has no deviation to speak of.
    if floor.is_nan() { f32::NEG_INFINITY } else { floor }
}

/// The best token, the lowest of equals.
pub(super) fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token as u32, logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_selection_of_the_best_is_the_beginning_of_a_full_sort(
            logits in prop::collection::vec((-20..20i32).prop_map(|l| l as f32), 1..1500),
            k in 1..400usize,
        ) {
            let mut candidates = Candidates::for_vocabulary(logits.len());
            candidates.take_best(&logits, k, f32::NEG_INFINITY);
            let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
            sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            sorted.truncate(k);
            prop_assert_eq!(candidates.as_slice().iter().map(|c| c.token).collect::<Vec<_>>(), sorted);
            prop_assert_eq!(candidates.capacity(), logits.len());
        }
    }
}
