//! The regular expressions that cut text into words: as much of the syntax as pre-tokenizers use.
//!
//! A pattern is alternatives (`|`), the first that matches wins; an alternative is a row of
//!
//! * classes: a character, `\r \n \t \s \S \d`, `\p{L}` (and N, P, M, S), `[…]`, `[^…]`, `[…--…]` (all of the one but
//!   not of the other), each with `?`, `*`, `+`, `{n}` or `{m,n}`, greedy, with backtracking;
//! * `(?:…|…)` of rows of classes without repetition, with `?`, `*` or `+`: what it took it keeps;
//! * `(?!…)`: the next character is not of the class;
//! * `$`: the end of the text.
//!
//! `\s` and `\d` are ASCII's; any other white space counts as a vertical tab, and is matched by `\s` for that reason
//! only. Both are llama.cpp's ways (`unicode_regex_split`). No crate for bare metal looks ahead, which every pre-tokenizer
//! does; this matcher recurses by the length of the pattern, never by that of the text.

use super::classes::RUNS;
use alloc::vec;
use alloc::vec::Vec;

/// The first letters of the general categories that patterns ask for; a class is a place in it.
const CATEGORIES: &str = "LNPMS";

/// Punctuation and symbols below U+0080, in Unicode's sense.
const PUNCTUATION: &str = "!\"#%&'()*,-./:;?@[\\]_{}";
const SYMBOLS: &str = "$+<=>^`|~";

/// A bit for the class of a character from U+0080 on.
fn class(c: char) -> u8 {
    let point = u32::from(c);
    let after = RUNS.partition_point(|run| run >> 3 <= point);
    let run = after.checked_sub(1).and_then(|index| RUNS.get(index));
    1 << run.map_or(5, |run| run & 7)
}

/// A set of characters.
#[derive(Clone, Debug, Default)]
struct Set {
    /// A bit for each character below U+0080, negation applied.
    ascii: u128,
    /// Of the others: classes, a bit each, and runs, first and last.
    classes: u8,
    runs: Vec<(char, char)>,
    /// What is taken away again.
    except: Vec<(char, char)>,
    negated: bool,
}

impl Set {
    fn contains(&self, c: char) -> bool {
        let c = if !c.is_ascii() && c.is_whitespace() { '\u{b}' } else { c };
        if c.is_ascii() {
            return self.ascii >> u32::from(c) & 1 == 1;
        }
        let within = |runs: &[(char, char)]| runs.iter().any(|(first, last)| (*first..=*last).contains(&c));
        let named = self.classes != 0 && self.classes & class(c) != 0;
        ((named || within(&self.runs)) && !within(&self.except)) != self.negated
    }

    fn add(&mut self, first: char, last: char) {
        self.ascii |= ascii(|c| (first..=last).contains(&c));
        if !last.is_ascii() {
            self.runs.push((first.max('\u{80}'), last));
        }
    }

    /// Adds what is behind a backslash; `None` for what is not a class.
    fn add_class(&mut self, name: char, category: Option<char>) -> Option<()> {
        match (name, category) {
            ('s', _) => self.ascii |= ascii(|c| matches!(c, ' ' | '\t'..='\r')),
            ('d', _) => self.ascii |= ascii(|c| c.is_ascii_digit()),
            ('p', Some(category)) => {
                self.classes |= 1 << CATEGORIES.find(category)?;
                self.ascii |= ascii(|c| match category {
                    'L' => c.is_ascii_alphabetic(),
                    'N' => c.is_ascii_digit(),
                    'P' => PUNCTUATION.contains(c),
                    'S' => SYMBOLS.contains(c),
                    _ => false, // no mark is that old
                });
            }
            _ => return None,
        }
        Some(())
    }

    fn negate(&mut self) {
        self.negated = true;
        self.ascii = !self.ascii;
    }
}

/// The characters below U+0080 that are wanted, a bit each.
fn ascii(wanted: impl Fn(char) -> bool) -> u128 {
    (0..0x80u8).filter(|byte| wanted(char::from(*byte))).fold(0, |bits, byte| bits | 1 << byte)
}

/// A part of an alternative.
#[derive(Clone, Debug)]
enum Item {
    /// So many characters of a set, as many as there are; fewer if what follows wants it.
    Run { set: Set, least: usize, most: usize },
    /// Rows of sets, the first that matches, again and again.
    Choice { rows: Vec<Vec<Set>>, least: usize, most: usize },
    /// The next character is not of the set.
    NotBefore(Set),
    /// Nothing follows.
    End,
}

/// A pattern ready for use.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    alternatives: Vec<Vec<Item>>,
}

impl Pattern {
    /// Reads a pattern; `None` when it is not of the syntax above.
    pub fn new(pattern: &str) -> Option<Self> {
        let mut reader = Reader { rest: pattern };
        let mut alternatives = vec![Vec::new()];
        while !reader.rest.is_empty() {
            if reader.take("|") {
                alternatives.push(Vec::new());
            } else {
                let item = reader.item()?;
                alternatives.last_mut()?.push(item);
            }
        }
        Some(Self { alternatives })
    }

    /// Calls `each` with every match, and with what lies between them, in order; together they are the text.
    pub fn split<'a>(&self, text: &'a str, each: &mut dyn FnMut(&'a str)) {
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let ends = self.alternatives.iter().filter_map(|items| end_of_match(items, text, at));
            match ends.into_iter().next().filter(|end| *end > at) {
                Some(end) => {
                    if from < at {
                        each(&text[from..at]);
                    }
                    each(&text[at..end]);
                    (from, at) = (end, end);
                }
                None => at += self.step(&text[at..]),
            }
        }
        if from < at {
            each(&text[from..]);
        }
    }

    /// Whether a match begins where the text does.
    pub fn begins(&self, text: &str) -> bool {
        self.alternatives.iter().any(|items| end_of_match(items, text, 0).is_some())
    }

    /// How far to go on in a text at whose beginning nothing matched: a character, or a run of them when it is
    /// the run that failed, for it fails from its middle as well. Without that a run of n would take n² steps.
    fn step(&self, text: &str) -> usize {
        let one = text.chars().next().map_or(1, char::len_utf8);
        match self.alternatives.as_slice() {
            [items] => match items.first() {
                Some(Item::Run { set, least: 0 | 1, most: usize::MAX }) => {
                    run(set, text, usize::MAX).0.max(one)
                }
                _ => one,
            },
            _ => one,
        }
    }
}

/// Bytes and characters at the beginning of a text that are of a set, at most so many.
fn run(set: &Set, text: &str, most: usize) -> (usize, usize) {
    let (mut bytes, mut count) = (0, 0);
    for c in text.chars().take(most).take_while(|c| set.contains(*c)) {
        bytes += c.len_utf8();
        count += 1;
    }
    (bytes, count)
}

/// Where an alternative that begins at `at` ends, if it matches there.
fn end_of_match(items: &[Item], text: &str, at: usize) -> Option<usize> {
    let Some((item, others)) = items.split_first() else { return Some(at) };
    match item {
        Item::Run { set, least, most } => {
            let (bytes, mut count) = run(set, &text[at..], *most);
            let mut end = at + bytes;
            loop {
                if count < *least {
                    return None;
                }
                if let Some(end) = end_of_match(others, text, end) {
                    return Some(end);
                }
                end -= text[at..end].chars().next_back()?.len_utf8();
                count -= 1;
            }
        }
        Item::Choice { rows, least, most } => {
            let (mut end, mut count) = (at, 0);
            while count < *most
                && let Some(next) = rows.iter().find_map(|row| end_of_row(row, text, end))
            {
                end = next;
                count += 1;
            }
            if count < *least { None } else { end_of_match(others, text, end) }
        }
        Item::NotBefore(set) => {
            let free = !text[at..].chars().next().is_some_and(|c| set.contains(c));
            if free { end_of_match(others, text, at) } else { None }
        }
        Item::End => {
            if at == text.len() {
                end_of_match(others, text, at)
            } else {
                None
            }
        }
    }
}

/// Where a row of sets that begins at `at` ends, if each has its character there.
fn end_of_row(row: &[Set], text: &str, at: usize) -> Option<usize> {
    let mut characters = text[at..].chars();
    let bytes = row.iter().map(|set| characters.next().filter(|c| set.contains(*c)).map(char::len_utf8));
    bytes.sum::<Option<usize>>().map(|bytes| at + bytes)
}

/// A pattern being read.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        let after = self.rest.strip_prefix(text);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn item(&mut self) -> Option<Item> {
        if self.take("(?!") {
            let set = self.set()?;
            return self.take(")").then_some(Item::NotBefore(set));
        }
        if self.take("(?:") {
            let mut rows = vec![Vec::new()];
            while !self.take(")") {
                if self.take("|") {
                    rows.push(Vec::new());
                } else {
                    let set = self.set()?;
                    rows.last_mut()?.push(set);
                }
            }
            // A row of nothing would be found again and again.
            rows.iter().all(|row| !row.is_empty()).then_some(())?;
            let (least, most) = self.repetition()?;
            return Some(Item::Choice { rows, least, most });
        }
        if self.take("$") {
            return Some(Item::End);
        }
        let set = self.set()?;
        let (least, most) = self.repetition()?;
        Some(Item::Run { set, least, most })
    }

    /// How often the item before is wanted.
    fn repetition(&mut self) -> Option<(usize, usize)> {
        if !self.take("{") {
            let known = [("?", (0, 1)), ("*", (0, usize::MAX)), ("+", (1, usize::MAX))];
            let found = known.into_iter().find(|(sign, _)| self.take(sign));
            return Some(found.map_or((1, 1), |(_, times)| times));
        }
        let (times, rest) = self.rest.split_once('}')?;
        self.rest = rest;
        let (least, most) = times.split_once(',').unwrap_or((times, times));
        Some((least.parse().ok()?, most.parse().ok()?))
    }

    fn set(&mut self) -> Option<Set> {
        let mut set = Set::default();
        if !self.take("[") {
            match self.next()? {
                '\\' => self.escaped(&mut set)?,
                '(' | ')' | '[' | '|' | '?' | '*' | '+' => return None,
                c => set.add(c, c),
            }
            return Some(set);
        }
        let negated = self.take("^");
        let mut except = Set::default();
        let mut taking_away = false;
        while !self.take("]") {
            if self.take("--") {
                taking_away = true;
            }
            let set = if taking_away { &mut except } else { &mut set };
            let first = match self.next()? {
                '\\' if self.rest.starts_with(['s', 'S', 'd', 'p']) => {
                    self.escaped(set)?;
                    continue;
                }
                '\\' => plain(self.next()?),
                c => c,
            };
            let is_run =
                self.rest.starts_with('-') && !self.rest.starts_with("-]") && !self.rest.starts_with("--");
            let last = if is_run && self.take("-") {
                match self.next()? {
                    '\\' => plain(self.next()?),
                    c => c,
                }
            } else {
                first
            };
            set.add(first, last);
        }
        set.ascii &= !except.ascii;
        set.except = except.runs;
        if negated {
            set.negate();
        }
        Some(set)
    }

    /// What stands behind a backslash.
    fn escaped(&mut self, set: &mut Set) -> Option<()> {
        match self.next()? {
            'S' => {
                set.add_class('s', None)?;
                set.negate();
            }
            'p' => {
                let (name, rest) = self.rest.strip_prefix('{')?.split_once('}')?;
                self.rest = rest;
                set.add_class('p', name.chars().next())?;
            }
            c @ ('s' | 'd') => set.add_class(c, None)?,
            c => set.add(plain(c), plain(c)),
        }
        Some(())
    }
}

/// The character that an escaped one stands for.
fn plain(c: char) -> char {
    match c {
        'r' => '\r',
        'n' => '\n',
        't' => '\t',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn parts<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
        let mut parts = Vec::new();
        Pattern::new(pattern).expect("a pattern").split(text, &mut |part| parts.push(part));
        parts
    }

    #[test]
    fn the_first_alternative_wins_and_what_nothing_matches_stays_together() {
        assert_eq!(parts("ab|a|abc", "xabcax"), ["x", "ab", "c", "a", "x"]);
        assert_eq!(parts("[0-9][0-9][0-9]", "12345678"), ["123", "456", "78"]);
        assert_eq!(parts("a", ""), [""; 0]);
    }

    #[test]
    fn a_run_gives_back_what_the_rest_needs() {
        assert_eq!(parts(r"\s+(?!\S)|\s+", "a  \u{3000}b  "), ["a", "  ", "\u{3000}", "b", "  "]);
        assert_eq!(parts(r"\s*[\r\n]+|\s+", " \n \n x"), [" \n \n", " ", "x"]);
        assert_eq!(parts(r"[\p{L}--a-z]*[\p{L}--A-Z]+", "ABcDEéF"), ["ABc", "DEé", "F"]);
        assert_eq!(parts(r"\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}", "       x"), ["    ", "  ", " ", "x"]);
    }

    #[test]
    fn classes_know_unicode_and_ascii_and_negation_takes_the_rest() {
        assert_eq!(parts(r"[^\s\p{L}\p{N}]+", "é½¡ ¢²\u{301}"), ["é½", "¡", " ", "¢", "²", "\u{301}"]);
        assert_eq!(parts(r"[\p{P}\p{S}]+", "a!?+€。b\u{300}"), ["a", "!?+€。", "b\u{300}"]);
        assert_eq!(parts(r"\p{M}", "a\u{301}"), ["a", "\u{301}"]);
        assert_eq!(parts(r"[\]\-一-三]+", "a-丁]四"), ["a", "-丁]", "四"]);
        assert_eq!(parts(r" ?[^(\s|。]+", "a 二(。b\u{a0}c"), ["a", " 二", "(。", "b", "\u{a0}", "c"]);
        assert_eq!(parts(r"\d+", "1२"), ["1", "२"]); // a digit is ASCII's; a number may be any
        assert_eq!(parts(r"\p{N}+", "1२"), ["1२"]);
    }

    #[test]
    fn a_letter_younger_than_unicode_15_1_is_not_a_letter() {
        assert_eq!(parts(r"\p{L}", "\u{1c89}\u{1c8a}"), ["\u{1c89}\u{1c8a}"]); // Unicode 16: Cyrillic tje
        assert_eq!(parts(r"\p{L}", "\u{2ebf0}\u{2ebf1}"), ["\u{2ebf0}", "\u{2ebf1}"]); // Unicode 15.1
    }

    #[test]
    fn a_choice_keeps_what_it_took_and_an_end_is_the_text_s() {
        assert_eq!(parts("a(?:'[sS]|'ll)?", "a'Sa'll'a"), ["a'S", "a'll", "'", "a"]);
        assert_eq!(parts(r"\p{L}(?:\p{L}| \p{L})*", "ab c  d"), ["ab c", "  ", "d"]);
        assert_eq!(parts(r"\s+$", " a  "), [" a", "  "]);
    }

    #[test]
    fn a_long_run_that_does_not_match_is_passed_at_once() {
        let text = String::from_iter([" ".repeat(1_000_000).as_str(), "x"]);
        assert_eq!(parts(r"\s+$", &text), [text.as_str()]);
    }

    #[test]
    fn what_is_not_of_the_syntax_is_no_pattern() {
        for bad in
            ["(a)", "(?=a)", "(?!a", "(?:a", "(?:)*", "[a", "a{1", "a{x}", r"\p{X}", r"\p", "\\", "*", "a|?"]
        {
            assert!(Pattern::new(bad).is_none(), "{bad}");
        }
    }
}
