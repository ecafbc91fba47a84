//! What a terminal would show of the bytes that came: enough of one to follow our shell's line editor.

use super::Mark;

/// Lines that are finished, and the one the cursor is on.
#[derive(Debug)]
pub struct Screen {
    lines: Vec<String>,
    current: Vec<char>,
    column: usize,
    /// Bytes of a character that is not whole yet.
    partial: Vec<u8>,
    /// An escape sequence that is not whole yet, without the escape character.
    escape: Option<String>,
}

impl Default for Screen {
    fn default() -> Self {
        Self { lines: vec![String::new()], current: Vec::new(), column: 0, partial: Vec::new(), escape: None }
    }
}

impl Screen {
    /// Takes bytes as they come from the line.
    pub fn push(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let waiting = std::mem::take(&mut self.partial);
        let mut rest = waiting.as_slice();
        for chunk in waiting.utf8_chunks() {
            chunk.valid().chars().for_each(|c| self.put(c));
            rest = &rest[chunk.valid().len()..];
            if rest.len() == chunk.invalid().len() && !rest.is_empty() && rest.len() < 4 {
                break; // the end of what came: perhaps the beginning of a character
            }
            if !chunk.invalid().is_empty() {
                self.put(char::REPLACEMENT_CHARACTER);
            }
            rest = &rest[chunk.invalid().len()..];
        }
        self.partial = rest.to_vec();
        if let Some(last) = self.lines.last_mut() {
            *last = self.current.iter().collect();
        }
    }

    fn put(&mut self, c: char) {
        if let Some(mut sequence) = self.escape.take() {
            sequence.push(c);
            // "[", parameters, and a letter that ends it; or a single character.
            if sequence.len() > 1 && ('@'..='~').contains(&c) || !sequence.starts_with('[') {
                self.control(&sequence);
            } else {
                self.escape = Some(sequence);
            }
            return;
        }
        match c {
            '\x1b' => self.escape = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => self.end_line(),
            '\x08' => self.column = self.column.saturating_sub(1),
            c if c.is_control() && c != '\t' => {}
            c => {
                while self.current.len() < self.column {
                    self.current.push(' ');
                }
                match self.current.get_mut(self.column) {
                    Some(place) => *place = c,
                    None => self.current.push(c),
                }
                self.column += 1;
            }
        }
    }

    fn control(&mut self, sequence: &str) {
        let number = || sequence.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(1);
        match sequence.chars().last() {
            Some('K') => self.current.truncate(self.column),
            Some('C') => self.column += number(),
            Some('D') => self.column = self.column.saturating_sub(number()),
            Some('H') if !self.current.is_empty() => self.end_line(), // what was there stays in the transcript
            _ => {}                                                   // colours
        }
    }

    fn end_line(&mut self) {
        if let Some(last) = self.lines.last_mut() {
            *last = self.current.drain(..).collect();
        }
        self.column = 0;
        self.lines.push(String::new());
    }

    /// How many lines are finished; also the number of the line that the cursor is on.
    pub fn finished(&self) -> usize {
        self.lines.len() - 1
    }

    /// A line by its number.
    pub fn line(&self, number: usize) -> &str {
        self.lines.get(number).map_or("", String::as_str)
    }

    /// The line that the cursor is on.
    pub fn current(&self) -> &str {
        self.line(self.finished())
    }

    /// The end of the first place with these words, which lie on one line, from a mark on.
    pub fn find(&self, words: &str, line: usize, byte: usize) -> Option<Mark> {
        (line..self.lines.len()).find_map(|number| {
            let skipped = if number == line { byte } else { 0 };
            let at = self.lines[number].get(skipped..)?.find(words)?;
            Some(Mark { line: number, byte: skipped + at + words.len() })
        })
    }

    /// Everything from this line on.
    pub fn text_from(&self, line: usize) -> String {
        self.lines.get(line..).unwrap_or_default().join("\n")
    }

    /// What lies between two marks. A line that changed since, so that a mark is no more on it, counts whole.
    pub fn text_between(&self, from: Mark, to: Mark) -> String {
        let part = |number: usize| {
            let line = self.line(number);
            let start = if number == from.line { from.byte } else { 0 };
            let end = if number == to.line { to.byte } else { line.len() };
            line.get(start..end).unwrap_or(line)
        };
        (from.line..=to.line).map(part).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let mut screen = Screen::default();
        bytes.iter().for_each(|&byte| screen.push(&[byte])); // the hardest way to cut it
        let mut whole = Screen::default();
        whole.push(bytes);
        assert_eq!(screen.text_from(0), whole.text_from(0));
        whole.text_from(0)
    }

    #[test]
    fn redrawn_lines_are_seen_as_they_are_in_the_end() {
        assert_eq!(shown(b"> helo\r\x1b[2Chello\x1b[K\r\x1b[7C\r\nhi"), "> hello\nhi");
        assert_eq!(shown(b"> ab\x08\x1b[Kc"), "> ac");
        assert_eq!(shown(b"50 %\x1b[K\r100 %\x1b[K\r\n"), "100 %\n");
        assert_eq!(shown(b"\x1b[2mdim\x1b[0m\r\n> "), "dim\n> ");
    }

    #[test]
    fn characters_cut_in_two_are_whole_and_broken_ones_are_marked() {
        assert_eq!(shown("naïve 🦀 ok".as_bytes()), "naïve 🦀 ok");
        assert_eq!(shown(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn words_are_found_from_a_mark_on_and_the_text_between_is_kept() {
        let mut screen = Screen::default();
        screen.push(b"one two\r\ntwo three\r\n> ");
        let first = screen.find("two", 0, 0).unwrap();
        assert_eq!(first, Mark { line: 0, byte: 7 });
        let second = screen.find("two", first.line, first.byte).unwrap();
        assert_eq!(second, Mark { line: 1, byte: 3 });
        assert_eq!(screen.text_between(first, second), "\ntwo");
        assert_eq!(screen.find("four", 0, 0), None);
    }
}
