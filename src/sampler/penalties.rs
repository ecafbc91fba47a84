//! Penalties: recent tokens become less likely.

use super::Settings;
use alloc::vec;
use alloc::vec::Vec;

/// Counts recent tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Penalties {
    /// How often each token of the vocabulary occurs; all zero between calls. Empty until penalties are asked for.
    counts: Vec<u32>,
}

impl Penalties {
    /// Takes the memory that these settings need.
    pub fn prepare(&mut self, settings: &Settings, vocabulary: usize) {
        if settings.penalises() && self.counts.is_empty() {
            self.counts = vec![0; vocabulary];
        }
    }

    /// Makes recent tokens less likely. Repetition, once for each token: Keskar et al., CTRL, 2019, section 4.1, with
    /// llama.cpp's care for negative logits. Presence and frequency: OpenAI's, taken off after that.
    pub fn apply(&mut self, settings: &Settings, logits: &mut [f32], recent: &[u32]) {
        if !settings.penalises() {
            return;
        }
        let finite = |penalty: f32| if penalty.is_finite() { penalty } else { 0.0 };
        let repeat = settings.repeat_penalty;
        let repeat = if repeat.is_finite() && repeat > 0.0 { repeat } else { 1.0 };
        let (presence, frequency) = (finite(settings.presence_penalty), finite(settings.frequency_penalty));
        let recent = &recent[recent.len().saturating_sub(settings.repeat_last_n)..];
        for &token in recent {
            if let Some(count) = self.counts.get_mut(token as usize) {
                *count += 1;
            }
        }
        for &token in recent {
            let token = token as usize;
            let (Some(logit), Some(count)) = (logits.get_mut(token), self.counts.get_mut(token)) else {
                continue;
            };
            let times = core::mem::take(count);
            if times > 0 {
                *logit = if *logit <= 0.0 { *logit * repeat } else { *logit / repeat };
                *logit -= times as f32 * frequency + presence;
            }
        }
    }
}

#[cfg(test)]
impl Penalties {
    pub fn is_clear(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}
