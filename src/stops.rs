//! Stop strings: texts at which an answer ends, before them.
//!
//! A stop may begin in one token and end in another, so text that could be the beginning of one is held back until it
//! can't be any more.

use alloc::string::String;
use alloc::vec::Vec;

/// Bytes that a token's text is expected to have at most; a longer one costs an allocation, no more.
const LONGEST_PIECE: usize = 1024;

/// The stop strings of a conversation, and the text that is held back.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    strings: Vec<String>,
    held: String,
    /// Bytes of `held` that have been given out.
    shown: usize,
}

impl Stops {
    /// Ends answers at these texts; empty ones are left out.
    pub fn new(strings: impl Iterator<Item = String>) -> Self {
        let strings: Vec<_> = strings.filter(|string| !string.is_empty()).collect();
        let longest = strings.iter().map(String::len).max();
        let held = longest.map_or(String::new(), |longest| String::with_capacity(longest + LONGEST_PIECE));
        Self { strings, held, shown: 0 }
    }

    /// The texts.
    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// Begins an answer.
    pub fn begin(&mut self) {
        self.held.clear();
        self.shown = 0;
    }

    /// Takes the next piece of text; gives what can be shown, and whether a stop has come.
    pub fn push<'s>(&'s mut self, text: &'s str) -> (&'s str, bool) {
        if self.strings.is_empty() {
            return (text, false);
        }
        self.held.drain(..core::mem::take(&mut self.shown));
        self.held.push_str(text);
        // The one that is complete first, however the text is cut.
        let places =
            self.strings.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len())));
        let found = places.min_by_key(|&(at, length)| (at + length, at)).map(|(at, _)| at);
        if let Some(at) = found {
            self.held.truncate(at);
        }
        self.shown = found.unwrap_or_else(|| self.held.len() - self.beginning());
        (&self.held[..self.shown], found.is_some())
    }

    /// Bytes at the end of what is held that are the beginning of a stop.
    fn beginning(&self) -> usize {
        let ends = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        let mut begins = ends.filter(|end| self.strings.iter().any(|stop| stop.starts_with(end)));
        begins.next().map_or(0, str::len)
    }

    /// Whether text is held back.
    pub fn is_holding(&self) -> bool {
        self.held.len() > self.shown
    }

    /// What is still held back, as the answer has ended in another way.
    pub fn rest(&self) -> &str {
        &self.held[self.shown..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(strings: &[&str]) -> Stops {
        Stops::new(strings.iter().map(|string| String::from(*string)))
    }

    /// What is shown of these pieces, after each, and whether a stop came.
    fn shown(stops: &mut Stops, pieces: &[&str]) -> (Vec<String>, bool) {
        stops.begin();
        let mut all = Vec::new();
        for piece in pieces {
            let (text, stopped) = stops.push(piece);
            all.push(text.into());
            if stopped {
                return (all, true);
            }
        }
        all.push(stops.rest().into());
        (all, false)
    }

    #[test]
    fn a_stop_is_found_across_pieces_and_nothing_of_it_is_shown() {
        let mut stops = stops(&["END", "\n\n", ""]);
        assert_eq!(shown(&mut stops, &["a E", "N", "Dx"]), (["a ", "", ""].map(String::from).into(), true));
        assert_eq!(
            shown(&mut stops, &["aEN", "EN", "!"]),
            (["a", "EN", "EN!", ""].map(String::from).into(), false)
        );
        assert_eq!(shown(&mut stops, &["x\n", "\ny"]), (["x", ""].map(String::from).into(), true));
        assert_eq!(
            shown(&mut stops, &["x\n"]),
            (["x", "\n"].map(String::from).into(), false),
            "given back at the end"
        );
        assert_eq!(shown(&mut stops, &["END"]), ([""].map(String::from).into(), true));
    }

    #[test]
    fn the_first_of_several_counts_and_characters_stay_whole() {
        assert_eq!(shown(&mut stops(&["bcd", "ab"]), &["xabcd"]).0, ["x"]);
        assert_eq!(shown(&mut stops(&["ä🦀"]), &["aä", "ä", "🦀"]).0, ["a", "ä", ""]);
        let none = shown(&mut stops(&[]), &["a", "b"]);
        assert_eq!(none, (["a", "b", ""].map(String::from).into(), false));
    }

    proptest! {
        #[test]
        fn however_a_text_is_cut_the_same_is_shown(
            text in "[abä]{0,30}",
            strings in prop::collection::vec("[abä]{1,4}", 0..3),
            cuts in prop::collection::vec(1..4usize, 30),
        ) {
            let mut pieces: Vec<String> = Vec::new();
            let mut chars = text.chars().peekable();
            for cut in cuts {
                pieces.push(chars.by_ref().take(cut).collect());
            }
            let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (shown, stopped) = shown(&mut stops(&strings), &pieces);
            let places = strings.iter().filter_map(|stop| Some((text.find(stop)?, stop.len())));
            let first = places.min_by_key(|&(at, length)| (at + length, at)).map(|(at, _)| at);
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(shown.concat(), &text[..first.unwrap_or(text.len())]);
        }
    }
}
