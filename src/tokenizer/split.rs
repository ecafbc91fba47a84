//! Pre-tokenizers by name: which characters stay together before any merging.
//!
//! A word never crosses a boundary drawn here. The rules are written out by hand: their patterns look
//! ahead, which no regular-expression crate for bare metal does. Names and patterns are those of
//! llama.cpp (`tokenizer.ggml.pre`), and each row of [`PRE_TOKENIZERS`] was checked against it.

use super::classes::{LETTERS, NUMBERS};

/// How text is cut into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// GPT-2's pattern: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    Gpt2,
    /// Each number character (`\p{N}`) stands alone; what lies between is cut by GPT-2's pattern.
    DigitsThenGpt2,
}

/// Pre-tokenizers we run, by the name in `tokenizer.ggml.pre`. A new name is a row, a new way to cut a
/// [`Rule`].
pub static PRE_TOKENIZERS: &[(&str, Rule)] = &[
    ("smollm", Rule::DigitsThenGpt2),
    ("starcoder", Rule::DigitsThenGpt2),
    ("refact", Rule::DigitsThenGpt2),
    ("command-r", Rule::DigitsThenGpt2),
    ("codeshell", Rule::DigitsThenGpt2),
    ("gpt-2", Rule::Gpt2),
    ("phi-2", Rule::Gpt2),
    ("mpt", Rule::Gpt2),
    ("olmo", Rule::Gpt2),
];

impl Rule {
    /// The rule of a name, if it is one we run.
    pub fn named(name: &str) -> Option<Self> {
        PRE_TOKENIZERS.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule)
    }

    /// Calls `each` with every word, in order; together they are the text.
    pub fn split<'a>(self, text: &'a str, each: &mut impl FnMut(&'a str)) {
        match self {
            Self::Gpt2 => gpt2(text, each),
            Self::DigitsThenGpt2 => {
                let mut rest = text;
                while let Some((at, digit)) =
                    rest.char_indices().find(|(_, c)| Class::of(*c) == Class::Number)
                {
                    let (before, from) = rest.split_at(at);
                    let (digit, after) = from.split_at(digit.len_utf8());
                    gpt2(before, each);
                    each(digit);
                    rest = after;
                }
                gpt2(rest, each);
            }
        }
    }
}

/// What the patterns tell apart. Code points that Unicode 15.1 left unassigned are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        if c.is_ascii() {
            return match c {
                'a'..='z' | 'A'..='Z' => Self::Letter,
                '0'..='9' => Self::Number,
                ' ' | '\t'..='\r' => Self::Space,
                _ => Self::Other,
            };
        }
        if c.is_whitespace() {
            Self::Space // the White_Space property: it has not changed since Unicode 6.3
        } else if contains(&LETTERS, c) {
            Self::Letter
        } else if contains(&NUMBERS, c) {
            Self::Number
        } else {
            Self::Other
        }
    }
}

fn contains(runs: &[(u32, u32)], c: char) -> bool {
    let point = u32::from(c);
    let after = runs.partition_point(|&(first, _)| first <= point);
    after > 0 && point <= runs[after - 1].1
}

fn gpt2<'a>(text: &'a str, each: &mut impl FnMut(&'a str)) {
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(gpt2_word(rest));
        each(word);
        rest = after;
    }
}

/// English endings that stand alone: `'s|'t|'re|'ve|'m|'ll|'d`.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// Bytes of the first word of a text that is not empty.
fn gpt2_word(text: &str) -> usize {
    if let Some(ending) = CONTRACTIONS.iter().find(|ending| text.starts_with(**ending)) {
        return ending.len();
    }
    // ` ?` before a run of letters, of numbers, or of anything that is not white space.
    let body = text.strip_prefix(' ').unwrap_or(text);
    if let Some(class) = body.chars().next().map(Class::of).filter(|class| *class != Class::Space) {
        return text.len() - body.len() + run(body, class);
    }
    // White space up to the last one before something else (`\s+(?!\S)`): that last one goes with what
    // follows, or stands alone when it is the only one.
    let spaces = run(text, Class::Space);
    let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
    if spaces < text.len() && spaces > last { spaces - last } else { spaces }
}

/// Bytes of the longest beginning of one class.
fn run(text: &str, class: Class) -> usize {
    text.char_indices().find(|(_, c)| Class::of(*c) != class).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn words(rule: Rule, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        rule.split(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn a_space_goes_with_the_word_after_it_and_a_run_of_them_keeps_all_but_one() {
        assert_eq!(words(Rule::Gpt2, "a b  c"), ["a", " b", " ", " c"]);
        assert_eq!(words(Rule::Gpt2, "a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(words(Rule::Gpt2, "a   "), ["a", "   "]);
        assert_eq!(words(Rule::Gpt2, " "), [" "]);
        assert_eq!(words(Rule::Gpt2, "\u{3000}\u{3000}x"), ["\u{3000}", "\u{3000}", "x"]);
    }

    #[test]
    fn english_endings_stand_alone_only_after_a_straight_lower_case_apostrophe() {
        assert_eq!(words(Rule::Gpt2, "I'll it's"), ["I", "'ll", " it", "'s"]);
        assert_eq!(words(Rule::Gpt2, "I'LL"), ["I", "'", "LL"]);
        assert_eq!(words(Rule::Gpt2, "x!'s"), ["x", "!'", "s"]);
    }

    #[test]
    fn digits_stand_alone_where_the_name_says_so_and_end_the_run_of_spaces_before_them() {
        assert_eq!(words(Rule::Gpt2, "a 123"), ["a", " 123"]);
        assert_eq!(words(Rule::DigitsThenGpt2, "a  12½x"), ["a", "  ", "1", "2", "½", "x"]);
    }

    #[test]
    fn a_letter_younger_than_unicode_15_1_is_not_a_letter() {
        assert_eq!(Class::of('\u{1c89}'), Class::Other); // Unicode 16: Cyrillic capital tje
        assert_eq!(Class::of('\u{2ebf0}'), Class::Letter); // Unicode 15.1: CJK extension I
    }

    proptest! {
        #[test]
        fn the_words_together_are_the_text(text in any::<std::string::String>()) {
            for (_, rule) in PRE_TOKENIZERS {
                prop_assert_eq!(words(*rule, &text).concat(), text.clone());
                prop_assert!(words(*rule, &text).iter().all(|word| !word.is_empty()));
            }
        }
    }
}
