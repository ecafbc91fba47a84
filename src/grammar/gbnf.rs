//! GBNF: the notation of llama.cpp's grammars, read into a [`Grammar`].
//!
//! Rules `name ::= …`, alternatives `|`, texts `"…"`, classes `[a-z]` and `[^…]`, any character `.`, groups `(…)`,
//! repetitions `* + ? {m} {m,} {m,n}`, comments `#`, tokens `<[id]>`, `<text>` and any other token `!<…>`. Where two rules
//! have one name, the last counts. Source: llama.cpp, grammars/README.md, and what its reader takes.

use super::error::{GrammarError, Place, Wrong};
use super::{Element, Grammar, MOST_ELEMENTS, MOST_TIMES, check};
use crate::tokenizer::Tokenizer;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// The largest code point.
const LAST: u32 = 0x10_FFFF;

impl Grammar {
    /// Reads a grammar. Tokens by text are those of this tokenizer; without one, to see whether a grammar is sound, any
    /// text will do.
    pub fn parse(text: &str, tokenizer: Option<&Tokenizer>) -> Result<Self, GrammarError> {
        let reader = Reader {
            text,
            at: 0,
            tokenizer,
            names: BTreeMap::new(),
            rules: Vec::new(),
            classes: Vec::new(),
            spans: Vec::new(),
            elements: 0,
        };
        reader.rules().map_err(|(at, wrong)| GrammarError { place: place(text, at), wrong })
    }
}

/// Line and column of a byte.
fn place(text: &str, at: usize) -> Place {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
    Place { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

/// A rule while it is read.
struct Rule {
    /// Where its name stands first.
    at: usize,
    alternatives: Option<Vec<Vec<Element>>>,
}

/// A rule or a group that is not closed yet.
struct Open {
    rule: u32,
    alternatives: Vec<Vec<Element>>,
    sequence: Vec<Element>,
    /// Where in `sequence` the thing begins that a repetition repeats.
    last: Option<usize>,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    tokenizer: Option<&'t Tokenizer>,
    names: BTreeMap<&'t str, u32>,
    rules: Vec<Rule>,
    classes: Vec<(u32, u32)>,
    spans: Vec<(u32, u32)>,
    /// Elements so far.
    elements: usize,
}

type Read<T> = Result<T, (usize, Wrong)>;

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn peek_second(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at + 1).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn wrong<T>(&self, wrong: Wrong) -> Read<T> {
        Err((self.at, wrong))
    }

    /// Spaces and comments, and ends of lines where they have no meaning.
    fn space(&mut self, lines: bool) {
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => {
                    self.at += self.text[self.at..].find(['\r', '\n']).unwrap_or(self.text.len() - self.at)
                }
                b' ' | b'\t' => self.at += 1,
                b'\r' | b'\n' if lines => self.at += 1,
                _ => break,
            }
        }
    }

    fn name(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn number(&mut self) -> Read<usize> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if end == 0 {
            return self.wrong(Wrong::Expected("a number"));
        }
        self.at += end;
        Ok(rest[..end].parse().unwrap_or(usize::MAX)) // more digits than that are many
    }

    fn rule_named(&mut self, name: &'t str, at: usize) -> u32 {
        let next = self.rules.len() as u32;
        let rule = *self.names.entry(name).or_insert(next);
        if rule == next {
            self.rules.push(Rule { at, alternatives: None });
        }
        rule
    }

    fn rule_unnamed(&mut self) -> u32 {
        self.rules.push(Rule { at: self.at, alternatives: None });
        self.rules.len() as u32 - 1
    }

    fn define(&mut self, rule: u32, alternatives: Vec<Vec<Element>>) -> Read<()> {
        self.elements += alternatives.iter().map(|alternative| alternative.len() + 1).sum::<usize>();
        if self.elements > MOST_ELEMENTS {
            return self.wrong(Wrong::TooLarge);
        }
        self.rules[rule as usize].alternatives = Some(alternatives);
        Ok(())
    }

    fn rules(mut self) -> Read<Grammar> {
        self.space(true);
        while self.at < self.text.len() {
            self.rule()?;
            self.space(true);
        }
        self.finish()
    }

    fn rule(&mut self) -> Read<()> {
        let at = self.at;
        let name = self.name();
        if name.is_empty() {
            return self.wrong(Wrong::Expected("the name of a rule: letters, digits and `-`"));
        }
        let rule = self.rule_named(name, at);
        self.space(false);
        if !self.text[self.at..].starts_with("::=") {
            return self.wrong(Wrong::Expected("`::=` after the name of a rule"));
        }
        self.at += 3;
        self.space(true);
        let open = |rule| Open { rule, alternatives: Vec::new(), sequence: Vec::new(), last: None };
        let mut groups = vec![];
        let mut now = open(rule);
        loop {
            let nested = !groups.is_empty();
            let start = self.at;
            match self.peek() {
                Some(b'"') => {
                    now.last = Some(now.sequence.len());
                    self.at += 1;
                    while !self.take(b'"') {
                        if self.peek().is_none() {
                            return Err((start, Wrong::Unclosed("the text")));
                        }
                        now.sequence.push(Element::Char(self.character()?));
                    }
                }
                Some(b'[') => {
                    let class = self.class()?;
                    now.last = Some(now.sequence.len());
                    now.sequence.push(Element::Class(class));
                }
                Some(b'.') => {
                    self.at += 1;
                    now.last = Some(now.sequence.len());
                    let any = self.add_class(vec![(0, LAST)]);
                    now.sequence.push(Element::Class(any));
                }
                Some(b'<' | b'!') => {
                    let token = self.token()?;
                    now.last = Some(now.sequence.len());
                    now.sequence.push(token);
                }
                Some(b'(') => {
                    self.at += 1;
                    let group = self.rule_unnamed();
                    groups.push((core::mem::replace(&mut now, open(group)), start));
                    self.space(true);
                    continue;
                }
                Some(b'*' | b'+' | b'?' | b'{') => self.repetition(&mut now, nested)?,
                Some(b'|') => {
                    self.at += 1;
                    now.alternatives.push(core::mem::take(&mut now.sequence));
                    now.last = None;
                    self.space(true);
                    continue;
                }
                Some(byte) if byte.is_ascii_alphanumeric() || byte == b'-' => {
                    let name = self.name();
                    let rule = self.rule_named(name, start);
                    now.last = Some(now.sequence.len());
                    now.sequence.push(Element::Rule(rule));
                }
                Some(b')') if nested => {
                    self.at += 1;
                    let Some((outer, _)) = groups.pop() else { unreachable!("nested") };
                    let Open { rule, mut alternatives, sequence, .. } = core::mem::replace(&mut now, outer);
                    alternatives.push(sequence);
                    self.define(rule, alternatives)?;
                    now.last = Some(now.sequence.len());
                    now.sequence.push(Element::Rule(rule));
                }
                Some(b'\r' | b'\n') | None if !nested => break,
                None => {
                    let at = groups.last().map_or(start, |group| group.1);
                    return Err((at, Wrong::Unclosed("the group")));
                }
                Some(_) => {
                    return self.wrong(Wrong::Expected(match nested {
                        true => "a text, a class, a rule or `)`",
                        false => "a text, a class, a rule or the end of the line",
                    }));
                }
            }
            if now.sequence.len() + self.elements > MOST_ELEMENTS {
                return self.wrong(Wrong::TooLarge);
            }
            self.space(!groups.is_empty());
        }
        let Open { rule, mut alternatives, sequence, .. } = now;
        alternatives.push(sequence);
        self.define(rule, alternatives)
    }

    /// A character, written down or as an escape.
    fn character(&mut self) -> Read<u32> {
        let Some(c) = self.text[self.at..].chars().next() else {
            return self.wrong(Wrong::Expected("a character"));
        };
        if c != '\\' {
            self.at += c.len_utf8();
            return Ok(c.into());
        }
        let Some(escaped) = self.text[self.at + 1..].chars().next() else {
            return self.wrong(Wrong::Expected("a character after `\\`"));
        };
        let digits = match escaped {
            'n' | 'r' | 't' | '\\' | '"' | '[' | ']' | '-' => {
                self.at += 2;
                return Ok(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                }
                .into());
            }
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return self.wrong(Wrong::Escape(other)),
        };
        let from = self.at + 2;
        let hex = self.text.get(from..from + digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(code) = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
            return self.wrong(Wrong::Expected(match digits {
                2 => "two hexadecimal digits after `\\x`",
                4 => "four hexadecimal digits after `\\u`",
                _ => "eight hexadecimal digits after `\\U`",
            }));
        };
        self.at = from + digits;
        Ok(code)
    }

    /// `[…]`
    fn class(&mut self) -> Read<u32> {
        let start = self.at;
        self.at += 1;
        let negated = self.take(b'^');
        let mut ranges = Vec::new();
        while !self.take(b']') {
            if self.peek().is_none() {
                return Err((start, Wrong::Unclosed("the class")));
            }
            let low = self.character()?;
            let mut high = low;
            if self.peek() == Some(b'-') && self.peek_second() != Some(b']') {
                self.at += 1;
                if self.peek().is_none() {
                    return Err((start, Wrong::Unclosed("the class")));
                }
                high = self.character()?;
            }
            if high < low {
                return Err((start, Wrong::Backwards));
            }
            ranges.push((low, high));
        }
        if ranges.is_empty() {
            return Err((start, Wrong::EmptyClass));
        }
        if self.elements + self.classes.len() + ranges.len() > MOST_ELEMENTS {
            return self.wrong(Wrong::TooLarge);
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Ok(self.add_class(if negated { all_but(&merged) } else { merged }))
    }

    fn add_class(&mut self, ranges: Vec<(u32, u32)>) -> u32 {
        let (first, end) = (self.classes.len() as u32, (self.classes.len() + ranges.len()) as u32);
        let of = |span: &(u32, u32)| &self.classes[span.0 as usize..span.1 as usize];
        // The same classes occur again and again, in repetitions and in what a schema becomes.
        if let Some(known) = self.spans.iter().rev().take(64).position(|span| of(span) == ranges) {
            return (self.spans.len() - 1 - known) as u32;
        }
        self.classes.extend(ranges);
        self.spans.push((first, end));
        self.spans.len() as u32 - 1
    }

    /// `<[id]>`, `<text>`, and `!` before either.
    fn token(&mut self) -> Read<Element> {
        let start = self.at;
        let not = self.take(b'!');
        let from = self.at;
        if !self.take(b'<') {
            return self.wrong(Wrong::Expected("`<` after `!`"));
        }
        let token = if self.take(b'[') {
            let number = self.number()?;
            if !(self.take(b']') && self.take(b'>')) {
                return self.wrong(Wrong::Expected("`]>` after the number of a token"));
            }
            let known = self.tokenizer.is_none_or(|tokenizer| number < tokenizer.len());
            u32::try_from(number).ok().filter(|_| known)
        } else {
            let Some(length) = self.text[from..].find('>') else {
                return Err((start, Wrong::Unclosed("the token")));
            };
            self.at = from + length + 1;
            let text = &self.text[from..self.at];
            match self.tokenizer {
                None => Some(u32::MAX),
                Some(tokenizer) => match tokenizer.encode(text, false, true)[..] {
                    [token] => Some(token),
                    _ => None,
                },
            }
        };
        match token {
            Some(token) if not => Ok(Element::NotToken(token)),
            Some(token) => Ok(Element::Token(token)),
            None => Err((start, Wrong::NoToken(self.text[from..self.at].into()))),
        }
    }

    /// `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`: the thing before becomes m copies and a rule for those that may follow.
    fn repetition(&mut self, now: &mut Open, nested: bool) -> Read<()> {
        let start = self.at;
        let (least, most) = self.times(nested)?;
        let Some(last) = now.last.filter(|last| *last < now.sequence.len()) else {
            return Err((start, Wrong::NothingToRepeat));
        };
        if least > MOST_TIMES {
            return Err((start, Wrong::TooOften));
        }
        let most = most.filter(|most| *most <= MOST_TIMES);
        let mut item = now.sequence.split_off(last);
        if item.len() > 1 {
            let rule = self.rule_unnamed();
            self.define(rule, vec![item])?;
            item = vec![Element::Rule(rule)];
        }
        let item = item[0];
        now.sequence.extend((0..least).map(|_| item));
        let mut rest = None;
        match most {
            None => {
                let rule = self.rule_unnamed();
                self.define(rule, vec![vec![item, Element::Rule(rule)], vec![]])?;
                rest = Some(rule);
            }
            Some(most) => {
                for _ in least..most {
                    let rule = self.rule_unnamed();
                    let more = rest.map(Element::Rule);
                    self.define(rule, vec![[item].into_iter().chain(more).collect(), vec![]])?;
                    rest = Some(rule);
                }
            }
        }
        now.sequence.extend(rest.map(Element::Rule));
        now.last = Some(last);
        Ok(())
    }

    /// How often at least, and at most if there is a bound.
    fn times(&mut self, nested: bool) -> Read<(usize, Option<usize>)> {
        let operator = self.peek();
        self.at += 1;
        let braces = match operator {
            Some(b'*') => return Ok((0, None)),
            Some(b'+') => return Ok((1, None)),
            Some(b'?') => return Ok((0, Some(1))),
            _ => self.at - 1,
        };
        self.space(nested);
        let least = self.number()?;
        self.space(nested);
        let mut most = Some(least);
        if self.take(b',') {
            self.space(nested);
            let bounded = self.peek().is_some_and(|byte| byte.is_ascii_digit());
            most = bounded.then(|| self.number()).transpose()?;
            self.space(nested);
        }
        if !self.take(b'}') {
            return self.wrong(Wrong::Expected("`}` or `,` in a repetition"));
        }
        if most.is_some_and(|most| most < least) {
            return Err((braces, Wrong::Backwards));
        }
        Ok((least, most))
    }

    /// All rules in one piece, if they are sound.
    fn finish(self) -> Read<Grammar> {
        let name_of = |rule: u32| self.names.iter().find(|(_, known)| **known == rule).map(|(name, _)| *name);
        let mut grammar = Grammar {
            elements: Vec::new(),
            alternatives: Vec::new(),
            rules: Vec::new(),
            classes: self.classes,
            spans: self.spans,
            root: *self.names.get("root").ok_or((0, Wrong::NoRoot))?,
        };
        for (number, rule) in self.rules.iter().enumerate() {
            let Some(alternatives) = &rule.alternatives else {
                let name = name_of(number as u32).unwrap_or_default();
                return Err((
                    rule.at,
                    if name == "root" { Wrong::NoRoot } else { Wrong::Undefined(name.into()) },
                ));
            };
            let first = grammar.alternatives.len() as u32;
            for alternative in alternatives {
                grammar.alternatives.push(grammar.elements.len() as u32);
                grammar.elements.extend(alternative);
                grammar.elements.push(Element::End);
            }
            grammar.rules.push((first, grammar.alternatives.len() as u32));
        }
        if let Some(rule) = check::left_recursive(&grammar) {
            // A group or a repetition has no name: the first rule that has one and leads there is its.
            let at = self.rules[rule as usize].at;
            let named = self.names.iter().map(|(name, rule)| (self.rules[*rule as usize].at, *name));
            let name = named.filter(|(from, _)| *from <= at).max().map_or("root", |(_, name)| name);
            return Err((at, Wrong::LeftRecursion(name.into())));
        }
        Ok(grammar)
    }
}

/// Every character that these ranges leave out.
fn all_but(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut others = Vec::new();
    let mut next = 0;
    for &(low, high) in ranges {
        if low > next {
            others.push((next, (low - 1).min(LAST)));
        }
        next = high.saturating_add(1);
    }
    if next <= LAST {
        others.push((next, LAST));
    }
    others.retain(|(low, high)| low <= high);
    others
}
