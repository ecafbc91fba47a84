//! The activity light: what the board shows before anything else works, and what it shows all the time.
//!
//! Lit: it starts, loads or answers. Else it flashes: how often says how things are. A pattern is data; whoever
//! waits for a key asks every 10 ms whether the light should be lit now, so nothing waits for the light.
//! Only the last words before a restart do ([`last_words`]): nothing else is left to be done then.

use core::time::Duration;

/// What the light can tell while the board works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// The image runs, and is on its way to the prompt.
    #[default]
    Starting,
    /// A model is loaded.
    Ready,
    /// No card answers.
    NoCard,
    /// A card answers but can't be read.
    CardUnreadable,
    /// There is no model to load.
    NoModel,
    /// A model was found but can't be used.
    ModelRefused,
}

/// How the light shows a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What it is for.
    pub signal: Signal,
    /// Milliseconds lit, dark, lit, dark, and again from the start.
    pub steps: &'static [u32],
    /// What it looks like: a row of README's table.
    pub looks: &'static str,
    /// What it means, there.
    pub means: &'static str,
}

const FLASH: u32 = 200;
const PAUSE: u32 = 1400;

/// All of them, in the order of [`Signal`].
pub static PATTERNS: &[Pattern] = &[
    Pattern { signal: Signal::Starting, steps: &[1000], looks: "lit", means: "it starts, loads or answers" },
    Pattern {
        signal: Signal::Ready,
        steps: &[50, 2950],
        looks: "a blink every 3 seconds",
        means: "a model is loaded: type at the prompt",
    },
    Pattern {
        signal: Signal::NoCard,
        steps: &[FLASH, FLASH, FLASH, PAUSE],
        looks: "2 flashes, a pause",
        means: "no card answers",
    },
    Pattern {
        signal: Signal::CardUnreadable,
        steps: &[FLASH, FLASH, FLASH, FLASH, FLASH, PAUSE],
        looks: "3 flashes, a pause",
        means: "the card can't be read: no FAT16 or FAT32 volume, or an error",
    },
    Pattern {
        signal: Signal::NoModel,
        steps: &[FLASH, FLASH, FLASH, FLASH, FLASH, FLASH, FLASH, PAUSE],
        looks: "4 flashes, a pause",
        means: "no model is loaded: there is none on the card, or it waits for your choice",
    },
    Pattern {
        signal: Signal::ModelRefused,
        steps: &[FLASH, FLASH, FLASH, FLASH, FLASH, FLASH, FLASH, FLASH, FLASH, PAUSE],
        looks: "5 flashes, a pause",
        means: "the model can't be used: too large for the memory, damaged, or of an unknown kind",
    },
];

impl Signal {
    /// Its pattern.
    pub fn pattern(self) -> &'static Pattern {
        &PATTERNS[self as usize]
    }

    /// The signal of this number, as it was cast to.
    pub fn numbered(number: u8) -> Self {
        PATTERNS.get(usize::from(number)).map_or(Self::Starting, |pattern| pattern.signal)
    }
}

impl Pattern {
    /// Whether the light is lit so many milliseconds after the signal began.
    pub fn lit(&self, milliseconds: u64) -> bool {
        let whole: u32 = self.steps.iter().sum();
        let mut left = (milliseconds % u64::from(whole.max(1))) as u32;
        for (index, &step) in self.steps.iter().enumerate() {
            if left < step {
                return index.is_multiple_of(2);
            }
            left -= step;
        }
        false
    }
}

/// Stages of the boot before the prompt, as `main.rs` counts them: hand-over, memory, console, cores.
pub const STAGES: u8 = 4;

/// What the light shows of a fault, before the board restarts: a long flash, then as many short ones as the stage of
/// the boot that was on when it fell; none if it was over. Each is a time and whether it is lit.
pub fn last_words(stage: u8) -> impl Iterator<Item = (bool, Duration)> {
    let stage = if stage > STAGES { 0 } else { stage };
    let flash = [(true, Duration::from_millis(150)), (false, Duration::from_millis(250))];
    let long = [(true, Duration::from_millis(700)), (false, Duration::from_millis(400))];
    long.into_iter()
        .chain(core::iter::repeat_n(flash, stage.into()).flatten())
        .chain([(false, Duration::from_millis(400))])
}

/// What the light shows before a stage of the boot where the boot arguments ask for it: as many flashes. Each is a time
/// and whether it is lit; it ends lit, as a board that starts is.
pub fn announced(stage: u8) -> impl Iterator<Item = (bool, Duration)> {
    let flash = [(true, Duration::from_millis(150)), (false, Duration::from_millis(250))];
    [(false, Duration::from_millis(1000))]
        .into_iter()
        .chain(core::iter::repeat_n(flash, stage.into()).flatten())
        .chain([(false, Duration::from_millis(1000)), (true, Duration::ZERO)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Flashes in one round of a pattern, seen every 10 ms.
    fn flashes(pattern: &Pattern) -> usize {
        let whole: u64 = pattern.steps.iter().map(|&step| u64::from(step)).sum();
        let seen: Vec<bool> = (0..whole / 10).map(|look| pattern.lit(look * 10)).collect();
        usize::from(seen[0]) + seen.windows(2).filter(|pair| !pair[0] && pair[1]).count()
    }

    #[test]
    fn patterns_stand_in_the_order_of_their_signals_and_are_told_apart_by_counting() {
        for (index, pattern) in PATTERNS.iter().enumerate() {
            assert_eq!(pattern.signal as usize, index);
            assert_eq!(Signal::numbered(index as u8), pattern.signal);
        }
        assert_eq!(PATTERNS.iter().map(flashes).collect::<Vec<_>>(), [1, 1, 2, 3, 4, 5]);
        assert_eq!(Signal::numbered(200), Signal::Starting);
    }

    #[test]
    fn a_starting_board_is_lit_without_a_gap_and_every_other_pattern_ends_in_a_pause_longer_than_its_gaps() {
        let starting = Signal::Starting.pattern();
        assert!((0..5000).all(|milliseconds| starting.lit(milliseconds)));
        for pattern in &PATTERNS[1..] {
            let (last, others) = pattern.steps.split_last().unwrap();
            assert!(pattern.steps.len().is_multiple_of(2), "{pattern:?}");
            assert!(others.iter().all(|step| last >= &(3 * step)), "{pattern:?}");
            // The shortest flash is seen by somebody who looks every 10 ms, and every frame of a film.
            assert!(pattern.steps.iter().all(|&step| step >= 40), "{pattern:?}");
        }
    }

    #[test]
    fn a_pattern_begins_again_for_ever() {
        let pattern = Signal::NoCard.pattern();
        for round in [0, 1, 1_000_000_007_u64] {
            let at = |milliseconds| pattern.lit(round * 2000 + milliseconds);
            assert_eq!(
                [0, 199, 200, 399, 400, 599, 600, 1999].map(at),
                [true, true, false, false, true, true, false, false]
            );
        }
    }

    #[test]
    fn last_words_are_a_long_flash_and_one_for_each_stage_and_take_less_than_four_seconds() {
        assert_eq!(last_words(STAGES + 1).count(), last_words(0).count(), "the prompt was there");
        for stage in 0..=STAGES {
            let steps: Vec<_> = last_words(stage).collect();
            let lit: Vec<_> = steps.iter().filter(|step| step.0).map(|step| step.1.as_millis()).collect();
            assert_eq!(lit.len(), 1 + usize::from(stage));
            assert!(lit[1..].iter().all(|flash| lit[0] > 3 * flash));
            assert!(steps.iter().map(|step| step.1).sum::<Duration>() < Duration::from_secs(4));
            assert!(!steps.last().unwrap().0);
        }
    }

    #[test]
    fn a_stage_is_announced_by_its_number_between_two_pauses() {
        for stage in 1..=STAGES + 1 {
            let steps: Vec<_> = announced(stage).collect();
            let lit = steps.iter().filter(|(lit, time)| *lit && !time.is_zero()).count();
            assert_eq!(lit, usize::from(stage));
            assert_eq!(steps.last(), Some(&(true, Duration::ZERO)), "left lit, as it was found");
            let gap = steps[1..steps.len() - 2].iter().map(|step| step.1).max().unwrap();
            assert!(steps[0].1 > 3 * gap);
        }
    }

    #[test]
    fn the_readme_has_every_pattern() {
        let readme = include_str!("../../README.md");
        for pattern in PATTERNS {
            let row = format!("| {} | {} |", pattern.looks, pattern.means);
            assert!(readme.contains(&row), "README lacks the row {row}");
        }
    }
}
