//! Console: text out, edited lines in, over nothing but bytes.
//!
//! What the editor knows of the terminal is little on purpose, so that `screen`, `minicom`, `picocom`, `tio`
//! and QEMU's stdio all serve: UTF-8, `\r\n`, backspace, and the sequences CSI K (erase to the end of the
//! row), CSI C (cursor right) and CSI m (looks). It never asks the terminal anything, because a dumb one does
//! not answer; it tells it [`MODES`], which one that does not know them passes over.
//!
//! - Text typed or pasted at the end of a line is echoed and never redrawn.
//! - Any other change is drawn once no more bytes are waiting, on one row of [`ROW`] columns, which every
//!   terminal has. A line too long for that has been wrapped by the terminal at a column unknown to us:
//!   it is drawn on a fresh row, as the part around the cursor, with marks where there is more of it.
//! - CR, LF and CRLF each end one line. Inside a bracketed paste they are part of the line, shown as a space.

use alloc::string::String;
use core::fmt::{self, Write};

use heapless::Deque;
use unicode_width::UnicodeWidthChar;

use crate::Terminal;

/// Bytes a line may have: about 4,000 tokens of English, more than most contexts on a board hold.
pub const LIMIT: usize = 16 * 1024;
/// Columns we draw on, prompt included: one less than the narrowest terminal in use, since some wrap when
/// the last column is written.
const ROW: usize = 79;
/// Lines remembered.
const HISTORY: usize = 32;
/// Times [`Terminal::wait`] (10 ms) returns with nothing new before an escape character stands alone.
const ESCAPE_WAITS: u32 = 8;
/// As many until a paste whose end got lost is taken for over: else Enter would end no line any more.
const PASTE_WAITS: u32 = 100;
/// Wrap long rows (`minicom` does not by itself); put brackets around a paste, so that it is one message
/// however many lines it has. Told again whenever somebody may just have opened a terminal.
const MODES: &[u8] = b"\x1b[?7h\x1b[?2004h";
/// Takes the brackets back, for whatever uses the terminal next.
const NO_MODES: &[u8] = b"\x1b[?2004l";

/// What [`Console::read_line`] ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The line, without its end.
    Text(String),
    /// Ctrl-C: whatever was typed is gone from the line.
    Interrupted,
}

/// The user's terminal: [`Write`] prints text (`\n` becomes `\r\n`, control characters are left out).
pub struct Console<'t> {
    terminal: &'t mut dyn Terminal,
    editor: Editor,
    column_zero: bool,
}

impl<'t> Console<'t> {
    /// A console on this terminal.
    pub fn new(terminal: &'t mut dyn Terminal) -> Self {
        Self { terminal, editor: Editor::default(), column_zero: true }
    }

    /// Whether the terminal shows the banner's first line already.
    pub fn greeted(&self) -> bool {
        self.terminal.greeted()
    }

    /// Tells the terminal how it is used.
    pub fn open(&mut self) {
        self.terminal.write(MODES);
    }

    /// Leaves the terminal as it was found.
    pub fn close(&mut self) {
        self.terminal.write(NO_MODES);
    }

    /// Prints and ends the line.
    pub fn line(&mut self, text: impl fmt::Display) {
        let _ = writeln!(self, "{text}"); // our `write_str` never fails
    }

    /// Prints a line in a dim colour: what is about the answer rather than the answer.
    pub fn dim(&mut self, text: impl fmt::Display) {
        self.fresh_line();
        self.terminal.write(b"\x1b[2m");
        let _ = write!(self, "{text}");
        self.terminal.write(b"\x1b[0m\r\n");
        self.column_zero = true;
    }

    /// Goes back to the start of the row and writes over it: progress bars.
    pub fn rewrite(&mut self, text: impl fmt::Display) {
        self.terminal.write(b"\r");
        let _ = write!(self, "{text}");
        self.terminal.write(b"\x1b[K");
        self.column_zero = false;
    }

    /// Goes back to the start of the row and empties it.
    pub fn erase_row(&mut self) {
        self.rewrite("");
        self.column_zero = true;
    }

    /// Ends the line unless nothing has been printed on it.
    pub fn fresh_line(&mut self) {
        if !self.column_zero {
            let _ = self.write_char('\n');
        }
    }

    /// Says that the Ctrl-C which the board noted has done its work, so that the editor skips its byte.
    pub fn interrupt_served(&mut self) {
        self.editor.served += 1;
    }

    /// Prints the prompt and edits a line until it is ended or given up. Waits for the user as long as it
    /// takes; bytes received meanwhile stay in the terminal's ring until they are asked for.
    pub fn read_line(&mut self, prompt: &str) -> Line {
        self.fresh_line();
        let lost = self.terminal.lost();
        if lost > 0 {
            self.line(format_args!(
                "{lost} received bytes were lost: the board was busy and its buffer full."
            ));
        }
        self.editor.begin(prompt, self.terminal);
        let mut waits = 0;
        let line = loop {
            let Some(byte) = self.terminal.read() else {
                self.editor.draw(self.terminal);
                self.terminal.wait();
                waits += 1;
                if waits == ESCAPE_WAITS {
                    self.editor.decoder.forget_escape();
                }
                if waits == PASTE_WAITS {
                    self.editor.pasting = false;
                }
                continue;
            };
            waits = 0;
            if let Some(line) = self.editor.push(byte, self.terminal) {
                break line;
            }
        };
        self.column_zero = true;
        line
    }
}

impl Write for Console<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A model or a file name may hold anything; an escape sequence must not reach the terminal.
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
            self.terminal.write(&rest.as_bytes()[..at]);
            self.column_zero &= at == 0;
            let control = rest[at..].chars().next().unwrap_or('\n');
            if control == '\n' {
                self.terminal.write(b"\r\n");
                self.column_zero = true;
            }
            rest = &rest[at + control.len_utf8()..];
        }
        if !rest.is_empty() {
            self.terminal.write(rest.as_bytes());
            self.column_zero = false;
        }
        Ok(())
    }
}

/// What the terminal shows of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shown {
    /// All of it, on the prompt's row.
    #[default]
    Row,
    /// All of it, wrapped over several rows; the cursor is at its end.
    Wrapped,
    /// A part of it, on a row of its own.
    Window,
}

#[derive(Default)]
struct Editor {
    line: String,
    cursor: usize,  // byte index
    columns: usize, // of the whole line
    margin: usize,  // columns of the prompt
    prompt: String,
    history: Deque<String, HISTORY>, // newest at the back
    recalled: usize,                 // 0: the line being written; n: the n-th newest of the history
    draft: String,                   // the line being written, while another is recalled
    shown: Shown,
    stale: bool, // the terminal shows something else than the line
    decoder: Decoder,
    pasting: bool,
    too_long: bool,
    served: u32, // Ctrl-C bytes still to come that have done their work
}

impl Editor {
    fn begin(&mut self, prompt: &str, terminal: &mut dyn Terminal) {
        self.prompt = prompt.into();
        self.margin = prompt.chars().map(columns).sum();
        self.recalled = 0;
        self.replace("");
        (self.shown, self.stale, self.too_long, self.pasting) = (Shown::Row, false, false, false);
        terminal.write(prompt.as_bytes());
    }

    /// Takes a byte; gives a line when the byte ends one.
    fn push(&mut self, byte: u8, terminal: &mut dyn Terminal) -> Option<Line> {
        let (keys, count) = self.decoder.push(byte);
        let mut ended = None;
        for key in &keys[..count] {
            // Only the last of the keys a byte stands for can end the line: see `Decoder::push`.
            ended = self.press(*key, terminal);
        }
        ended
    }

    fn press(&mut self, key: Key, terminal: &mut dyn Terminal) -> Option<Line> {
        match key {
            Key::Interrupt => return self.interrupt(terminal),
            Key::PasteBegins => self.pasting = true,
            Key::PasteEnds => self.pasting = false,
            Key::Enter if !self.pasting => return self.enter(terminal),
            _ if self.too_long => {}
            Key::Enter => self.insert('\n', terminal),
            Key::Char(c) => self.insert(c, terminal),
            Key::Backspace => self.backspace(terminal),
            Key::Delete => self.remove(self.cursor, self.next()),
            Key::Left => self.go(self.previous()),
            Key::Right => self.go(self.next()),
            Key::Home => self.go(0),
            Key::End => self.go(self.line.len()),
            Key::WordLeft => self.go(self.word_start()),
            Key::WordRight => self.go(self.word_end()),
            Key::EraseToEnd => self.remove(self.cursor, self.line.len()),
            Key::EraseToStart => self.remove(0, self.cursor),
            Key::EraseWord => self.remove(self.word_start(), self.cursor),
            Key::Up => self.recall(self.recalled + 1),
            Key::Down => self.recall(self.recalled.saturating_sub(1)),
            Key::Redraw => {
                terminal.write(MODES);
                terminal.write(b"\x1b[H\x1b[2J");
                terminal.write(self.prompt.as_bytes());
                (self.shown, self.stale) = (Shown::Row, true);
            }
        }
        None
    }

    fn enter(&mut self, terminal: &mut dyn Terminal) -> Option<Line> {
        if self.too_long {
            return Some(Line::Text(String::new())); // the sentence is already there
        }
        self.draw(terminal);
        if self.line.is_empty() {
            terminal.write(MODES); // who opens a terminal on a running board presses Enter first
        }
        terminal.write(b"\r\n");
        let line = core::mem::take(&mut self.line);
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.is_full() {
                self.history.pop_front();
            }
            let _ = self.history.push_back(line.clone()); // not full
        }
        Some(Line::Text(line))
    }

    fn interrupt(&mut self, terminal: &mut dyn Terminal) -> Option<Line> {
        let served = self.served > 0;
        self.served = self.served.saturating_sub(1);
        if served && self.line.is_empty() && !self.too_long {
            return None;
        }
        self.draw(terminal);
        terminal.write(b"^C\r\n");
        Some(Line::Interrupted)
    }

    fn insert(&mut self, c: char, terminal: &mut dyn Terminal) {
        if self.line.len() + c.len_utf8() > LIMIT {
            self.too_long = true;
            self.draw(terminal);
            let mut sentence = heapless::String::<160>::new();
            let _ = write!(
                sentence,
                "\r\nThis line is longer than {LIMIT} bytes: it will not be run, and the rest of it is ignored \
                 up to the next Enter.\r\n"
            );
            terminal.write(sentence.as_bytes());
            return;
        }
        let appended = self.cursor == self.line.len();
        self.line.insert(self.cursor, c);
        self.cursor += c.len_utf8();
        self.columns += columns(c);
        if appended && !self.stale && self.shown != Shown::Window {
            terminal.write(visible(c).encode_utf8(&mut [0; 4]).as_bytes());
            if self.margin + self.columns > ROW {
                self.shown = Shown::Wrapped;
            }
        } else {
            self.stale = true;
        }
    }

    fn backspace(&mut self, terminal: &mut dyn Terminal) {
        let start = self.previous();
        let width: usize = self.line[start..self.cursor].chars().map(columns).sum();
        let quick = self.cursor == self.line.len() && self.shown == Shown::Row && !self.stale;
        self.remove(start, self.cursor);
        if quick {
            for _ in 0..width {
                terminal.write(b"\x08");
            }
            terminal.write(b"\x1b[K");
            self.stale = false;
        }
    }

    fn remove(&mut self, start: usize, end: usize) {
        if start < end {
            self.columns -= self.line.drain(start..end).map(columns).sum::<usize>();
            self.cursor = start;
            self.stale = true;
        }
    }

    fn go(&mut self, cursor: usize) {
        self.stale |= cursor != self.cursor;
        self.cursor = cursor;
    }

    fn replace(&mut self, line: &str) {
        self.line.clear();
        self.line.push_str(line);
        self.cursor = line.len();
        self.columns = line.chars().map(columns).sum();
        self.stale = true;
    }

    fn recall(&mut self, which: usize) {
        if which > self.history.len() || which == self.recalled {
            return;
        }
        if self.recalled == 0 {
            self.draft = self.line.clone();
        }
        self.recalled = which;
        let line = match which {
            0 => core::mem::take(&mut self.draft),
            n => self.history.iter().rev().nth(n - 1).cloned().unwrap_or_default(),
        };
        self.replace(&line);
    }

    /// Start of the character left of the cursor; a mark of no width goes with the one it sits on.
    fn previous(&self) -> usize {
        let before = &self.line[..self.cursor];
        before.char_indices().rev().find(|&(at, c)| columns(c) > 0 || at == 0).map_or(0, |(at, _)| at)
    }

    /// End of the character under the cursor, with the marks that sit on it.
    fn next(&self) -> usize {
        let after = &self.line[self.cursor..];
        let end =
            after.char_indices().skip(1).find(|&(_, c)| columns(c) > 0).map_or(after.len(), |(at, _)| at);
        self.cursor + end
    }

    fn word_start(&self) -> usize {
        let before = self.line[..self.cursor].trim_end();
        before.char_indices().rev().find(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8())
    }

    fn word_end(&self) -> usize {
        let after = &self.line[self.cursor..];
        let word = after.len() - after.trim_start().len();
        after[word..].find(char::is_whitespace).map_or(self.line.len(), |length| self.cursor + word + length)
    }

    /// Makes the terminal show the line, if it does not.
    fn draw(&mut self, terminal: &mut dyn Terminal) {
        if !self.stale || self.too_long {
            return;
        }
        self.stale = false;
        if self.shown == Shown::Wrapped {
            terminal.write(b"\r\n"); // we can't know how many rows up it began
        }
        let width = ROW - self.margin.min(ROW - 2);
        let cursor: usize = self.line[..self.cursor].chars().map(columns).sum();
        // The window moves by half its width, so that there is text on both sides of the cursor.
        let first =
            if self.columns <= width { 0 } else { (cursor / (width / 2)).saturating_sub(1) * (width / 2) };
        self.shown = if self.columns <= width { Shown::Row } else { Shown::Window };

        let (more_before, more_after) = (first > 0, self.columns > first + width);
        let (from, to) = (first + usize::from(more_before), first + width - usize::from(more_after));
        let mut part = String::new();
        let (mut column, mut before_cursor, mut at) = (0, usize::from(more_before), 0);
        for c in self.line.chars() {
            let end = column + columns(c);
            if column >= from && end <= to {
                part.push(visible(c));
                if at < self.cursor {
                    before_cursor += columns(c);
                }
            }
            (column, at) = (end, at + c.len_utf8());
        }
        let mut out = String::new();
        right(&mut out, self.margin);
        let mark = |there: bool, mark| if there { mark } else { "" };
        out.push_str(mark(more_before, "\x1b[7m<\x1b[0m"));
        out.push_str(&part);
        out.push_str(mark(more_after, "\x1b[7m>\x1b[0m"));
        out.push_str("\x1b[K");
        right(&mut out, self.margin + before_cursor);
        terminal.write(out.as_bytes());
    }
}

/// Puts the cursor on this column of its row. The prompt is skipped rather than printed again.
fn right(out: &mut String, column: usize) {
    out.push('\r');
    if column > 0 {
        let _ = write!(out, "\x1b[{column}C");
    }
}

/// Columns a character takes on the screen.
fn columns(c: char) -> usize {
    visible(c).width().unwrap_or(0)
}

/// Line ends and tabs are kept in the line and shown as one space.
fn visible(c: char) -> char {
    if c == '\n' || c == '\t' { ' ' } else { c }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Char(char),
    Enter,
    Interrupt,
    Left,
    Right,
    WordLeft,
    WordRight,
    Up,
    Down,
    Home,
    End,
    Backspace,
    Delete,
    EraseToEnd,
    EraseToStart,
    EraseWord,
    Redraw,
    PasteBegins,
    PasteEnds,
}

/// Bytes to keys. Anything it does not know is left out; bytes that are no UTF-8 become U+FFFD.
#[derive(Default)]
struct Decoder {
    state: State,
    held: heapless::Vec<u8, 4>,     // a character that is not whole yet
    sequence: heapless::Vec<u8, 8>, // parameters of an escape sequence
    after_cr: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,  // ESC
    Control, // ESC [ …
    Single,  // ESC O
}

impl Decoder {
    /// The keys a byte completes: none, one, or U+FFFD for a character cut short and then one.
    fn push(&mut self, byte: u8) -> ([Key; 2], usize) {
        let mut keys = [Key::Char(char::REPLACEMENT_CHARACTER); 2];
        let mut count = 0;
        if !self.held.is_empty() || byte >= 0x80 {
            (self.state, self.after_cr) = (State::Text, false);
            let _ = self.held.push(byte); // at most 4: a fifth is never waited for
            match core::str::from_utf8(&self.held) {
                Ok(text) => {
                    let c = text.chars().next().filter(|c| !c.is_control());
                    self.held.clear();
                    if let Some(c) = c {
                        keys[0] = Key::Char(c);
                        count = 1;
                    }
                    return (keys, count);
                }
                Err(error) if error.error_len().is_none() => return (keys, 0),
                Err(_) => {
                    let alone = self.held.len() == 1;
                    self.held.clear();
                    count = 1;
                    if alone {
                        return (keys, count);
                    }
                    if byte >= 0x80 {
                        // The byte that broke one character may begin the next.
                        let (next, more) = self.push(byte);
                        keys[1] = next[0];
                        return (keys, count + more);
                    }
                }
            }
        }
        if let Some(key) = self.ascii(byte) {
            keys[count] = key;
            count += 1;
        }
        (keys, count)
    }

    /// An escape character that nothing followed was the Escape key, which means nothing here.
    fn forget_escape(&mut self) {
        self.state = State::Text;
    }

    fn ascii(&mut self, byte: u8) -> Option<Key> {
        let after_cr = core::mem::replace(&mut self.after_cr, byte == b'\r');
        match (core::mem::take(&mut self.state), byte) {
            (State::Control, 0x20..=0x3f) => {
                let _ = self.sequence.push(byte); // longer than any we know: what is cut is not needed
                self.state = State::Control;
                None
            }
            (State::Control, 0x40..=0x7e) => self.control(byte),
            (State::Escape, b'[') => {
                self.sequence.clear();
                self.state = State::Control;
                None
            }
            (State::Escape, b'O') => {
                self.state = State::Single;
                None
            }
            (State::Escape, b'b') => Some(Key::WordLeft),
            (State::Escape, b'f') => Some(Key::WordRight),
            (State::Escape, 0x08 | 0x7f) => Some(Key::EraseWord),
            (State::Escape, 0x20..=0x7e) => None,
            (State::Single, 0x40..=0x7e) => {
                self.sequence.clear();
                self.control(byte)
            }
            (_, b'\n') if after_cr => None, // the second half of a CRLF
            (_, 0x1b) => {
                self.state = State::Escape;
                None
            }
            (_, byte) => plain(byte),
        }
    }

    fn control(&self, last: u8) -> Option<Key> {
        let modified = self.sequence.contains(&b';');
        Some(match (self.sequence.as_slice(), last) {
            (_, b'A') => Key::Up,
            (_, b'B') => Key::Down,
            (_, b'C') if modified => Key::WordRight,
            (_, b'D') if modified => Key::WordLeft,
            (_, b'C') => Key::Right,
            (_, b'D') => Key::Left,
            (_, b'H') | (b"1" | b"7", b'~') => Key::Home,
            (_, b'F') | (b"4" | b"8", b'~') => Key::End,
            (b"3", b'~') => Key::Delete,
            (b"200", b'~') => Key::PasteBegins,
            (b"201", b'~') => Key::PasteEnds,
            _ => return None,
        })
    }
}

fn plain(byte: u8) -> Option<Key> {
    Some(match byte {
        b'\r' | b'\n' => Key::Enter,
        0x03 => Key::Interrupt,
        0x08 | 0x7f => Key::Backspace,
        0x01 => Key::Home,         // Ctrl-A
        0x02 => Key::Left,         // Ctrl-B
        0x04 => Key::Delete,       // Ctrl-D: ends nothing here
        0x05 => Key::End,          // Ctrl-E
        0x06 => Key::Right,        // Ctrl-F
        0x0b => Key::EraseToEnd,   // Ctrl-K
        0x0c => Key::Redraw,       // Ctrl-L
        0x0e => Key::Down,         // Ctrl-N
        0x10 => Key::Up,           // Ctrl-P
        0x15 => Key::EraseToStart, // Ctrl-U
        0x17 => Key::EraseWord,    // Ctrl-W
        b'\t' | 0x20..=0x7e => Key::Char(char::from(byte)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ScriptedTerminal;

    /// Edits lines until the script is over.
    fn play(terminal: &ScriptedTerminal) -> Vec<String> {
        let mut handle = terminal.clone();
        let mut console = Console::new(&mut handle);
        let mut lines = Vec::new();
        while !terminal.is_done() {
            lines.push(match console.read_line("> ") {
                Line::Text(line) => line,
                Line::Interrupted => "^C".into(),
            });
        }
        lines
    }

    fn lines(script: impl AsRef<[u8]>) -> Vec<String> {
        play(&ScriptedTerminal::new(script))
    }

    /// The line these keys make, checked against what the screen then shows.
    fn edited(keys: &str) -> String {
        let terminal = ScriptedTerminal::new("");
        for byte in keys.bytes() {
            terminal.types([byte]);
            if byte < 0x80 {
                terminal.pauses(usize::from(byte.is_ascii_alphanumeric())); // let it draw between the keys
            }
        }
        terminal.types("\r");
        let lines = play(&terminal);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(terminal.screen(80)[0], format!("> {}", lines[0]).trim_end(), "shown, typed {keys:?}");
        lines[0].clone()
    }

    #[test]
    fn each_editing_key_does_its_work_in_all_its_spellings() {
        for (keys, line) in [
            ("abc", "abc"),
            ("abc\x08d", "abd"),
            ("abc\x7fd", "abd"),
            ("\x7f\x08abc", "abc"),
            ("bc\x1b[D\x1b[Da", "abc"),
            ("bc\x1bOD\x1bODa\x1bOC\x1b[Cd", "abcd"),
            ("bc\x1b[Ha\x1b[Fd", "abcd"),
            ("bc\x1b[1~a\x1b[4~d", "abcd"),
            ("bc\x1b[7~a\x1b[8~d", "abcd"),
            ("bc\x1bOHa\x1bOFd", "abcd"),
            ("bc\x01a\x05d", "abcd"),
            ("abc\x02\x02x\x06y", "axbyc"),
            ("abc\x1b[D\x1b[D\x1b[3~", "ac"),
            ("abc\x01\x04", "bc"),
            ("abc\x04", "abc"),
            ("abc def\x1b[D\x1b[D\x0b", "abc d"),
            ("abc def\x1b[D\x1b[D\x15", "ef"),
            ("abc def  \x17g", "abc g"),
            ("abc def\x1b\x7fg", "abc g"),
            ("abc def\x1b[1;5D-\x1b[1;5D\x1bb+\x1b[1;5C!\x1bf?", "+abc! -def?"),
            ("a\x1b[5~b\x1b[24~c\x1b[?1;2cd\x1bxe\x00\x1c", "abcde"),
            ("", ""),
        ] {
            assert_eq!(edited(keys), line, "{keys:?}");
        }
    }

    #[test]
    fn a_character_is_edited_as_a_whole_whatever_its_bytes_and_columns() {
        for (keys, line) in [
            ("aé\x7fb", "ab"),
            ("漢字\x7f仮", "漢仮"),
            ("漢字\x1b[D仮", "漢仮字"),
            ("🙂🙃\x1b[D\x7f!", "!🙃"),
            ("漢字\x01\x1b[3~", "字"),
            ("ae\u{301}\x7fb", "ab"), // the accent goes with its letter
            ("e\u{301}a\x01\x1b[3~", "a"),
            ("e\u{301}a\x01\x1b[Cb", "e\u{301}ba"),
        ] {
            let terminal = ScriptedTerminal::new(format!("{keys}\r"));
            assert_eq!(play(&terminal), [line], "{keys:?}");
            let shown = line.replace('\u{301}', "");
            assert_eq!(terminal.screen(80)[0], format!("> {shown}"), "{keys:?}");
        }
    }

    #[test]
    fn the_cursor_stands_where_the_next_character_goes() {
        let terminal = ScriptedTerminal::new("漢字abc\x1b[D\x1b[D\x1b[D\x1b[D");
        let mut handle = terminal.clone();
        let mut console = Console::new(&mut handle);
        console.editor.begin("> ", console.terminal);
        while let Some(byte) = console.terminal.read() {
            console.editor.push(byte, console.terminal);
        }
        console.editor.draw(console.terminal);
        assert_eq!(terminal.cursor(80), (0, 4));
    }

    #[test]
    fn history_goes_back_and_forth_and_keeps_the_line_being_written() {
        let (up, down) = ("\x1b[A", "\x1b[B");
        assert_eq!(lines("one\rtwo\r\x1bOA\x1bOA!\r"), ["one", "two", "one!"]);
        assert_eq!(lines(format!("one\rtwo\r{up}{up}{up}{down}\r")), ["one", "two", "two"]);
        assert_eq!(lines(format!("one\rdraft{up}{down}{down}s\r")), ["one", "drafts"]);
        assert_eq!(lines(format!("one\r\r  \rone\r{up}{up}.\r")), ["one", "", "  ", "one", "one."]);
        let many: String = (0..100).map(|n| format!("{n}\r")).collect();
        let all_up = up.repeat(200);
        assert_eq!(lines(format!("{many}{all_up}\r")).last().unwrap(), "68");
    }

    #[test]
    fn cr_lf_and_crlf_each_end_one_line() {
        assert_eq!(
            lines("a\rb\nc\r\nd\r\n\r\ne\n\nf\r\r\ng\n"),
            ["a", "b", "c", "d", "", "e", "", "f", "", "g"]
        );
        assert_eq!(lines("a\ré\n"), ["a", "é"]);
    }

    #[test]
    fn plain_text_is_echoed_once_and_never_redrawn() {
        let text = "The quick brown fox. ".repeat(40);
        let terminal = ScriptedTerminal::new(&text);
        terminal.pauses(3);
        terminal.types("\r");
        assert_eq!(play(&terminal), [text.as_str()]);
        assert_eq!(terminal.text(), format!("> {text}\r\n"));
    }

    #[test]
    fn a_line_wider_than_the_terminal_is_edited_on_a_row_of_its_own() {
        for width in [80, 81, 100, 132, 211] {
            let words: String = (100..160).map(|n| format!("{n} ")).collect(); // 240 columns
            let terminal = ScriptedTerminal::new(&words);
            terminal.types("\x7f\x7f\x7f\x7fend");
            terminal.pauses(1);
            terminal.types("\x01start ");
            terminal.pauses(1);
            let mut handle = terminal.clone();
            let mut console = Console::new(&mut handle);
            console.editor.begin("> ", console.terminal);
            for _ in 0..terminal.sent().len() + 400 {
                match console.terminal.read() {
                    Some(byte) => assert_eq!(console.editor.push(byte, console.terminal), None),
                    None => console.editor.draw(console.terminal),
                }
            }
            let screen = terminal.screen(width);
            assert!(screen.last().unwrap().starts_with("  start 100 101 "), "{width}: {screen:?}");
            assert!(screen.last().unwrap().len() < 80, "{width}: {screen:?}");
            assert_eq!(terminal.cursor(width), (screen.len() - 1, 8), "{width}");
            terminal.types("\x05!\r");
            let line = loop {
                let byte = console.terminal.read().unwrap();
                if let Some(line) = console.editor.push(byte, console.terminal) {
                    break line;
                }
            };
            assert_eq!(line, Line::Text(format!("start {}end!", &words[..236])));
            let screen = terminal.screen(width);
            assert!(screen[screen.len() - 2].ends_with("157 158 end!"), "{width}: {screen:?}");
        }
    }

    #[test]
    fn pasting_into_the_middle_of_a_line_draws_once() {
        let terminal = ScriptedTerminal::new("()\x1b[D");
        terminal.types("x".repeat(10_000));
        terminal.pauses(1);
        terminal.types("\r");
        assert_eq!(play(&terminal), [format!("({})", "x".repeat(10_000))]);
        assert!(terminal.sent().len() < 400, "{} bytes sent", terminal.sent().len());
    }

    #[test]
    fn a_paste_of_100_kilobytes_is_refused_in_one_sentence_and_the_next_line_is_whole() {
        let terminal = ScriptedTerminal::new("x".repeat(100_000));
        terminal.types("\x1b[D\x7f\x1b[A\r\nnext line\r");
        assert_eq!(play(&terminal), ["", "next line"]);
        let text = terminal.text();
        assert_eq!(text.matches("longer than 16384 bytes").count(), 1);
        assert!(text.ends_with("next Enter.\r\n> next line\r\n"), "{}", &text[text.len() - 200..]);
        assert!(text.len() < LIMIT + 400);
        let exact = "y".repeat(LIMIT);
        assert_eq!(lines(format!("{exact}\r")), [exact]);
        assert_eq!(lines(format!("{}\x03ok\r", "x".repeat(LIMIT + 1))), ["^C", "ok"]);
    }

    #[test]
    fn line_ends_in_a_bracketed_paste_are_part_of_the_line() {
        let terminal = ScriptedTerminal::new("say: \x1b[200~one\r\ntwo\n\tthree\x1b[201~!\r");
        assert_eq!(play(&terminal), ["say: one\ntwo\n\tthree!"]);
        assert_eq!(terminal.text(), "> say: one two  three!\r\n");
        assert_eq!(lines("\x1b[200~stuck\r\x03free\r"), ["^C", "free"]);
    }

    #[test]
    fn ctrl_c_gives_up_the_line_and_its_served_byte_is_skipped() {
        let terminal = ScriptedTerminal::new("some\x03\x03more\r");
        assert_eq!(play(&terminal), ["^C", "^C", "more"]);
        assert_eq!(terminal.screen(80), ["> some^C", "> ^C", "> more", ""]);

        let terminal = ScriptedTerminal::new("\x03ahead\r");
        let mut handle = terminal.clone();
        let mut console = Console::new(&mut handle);
        console.interrupt_served();
        assert_eq!(console.read_line("> "), Line::Text("ahead".into()));
        assert_eq!(terminal.screen(80), ["> ahead", ""]);
    }

    #[test]
    fn bytes_that_are_no_utf8_become_replacement_characters() {
        for (bytes, line) in [
            (&b"a\xffb\r"[..], "a\u{fffd}b"),
            (b"\xe6\xbcx\r", "\u{fffd}x"),
            (b"\xe6\xe6\xbc\xa2\r", "\u{fffd}漢"),
            (b"\xe6\xff\r", "\u{fffd}\u{fffd}"),
            (b"\xf0\x9f\x99\r", "\u{fffd}"),
            (b"\xc2\x9b31m\r", "31m"), // a C1 control is no text
            (b"\xed\xa0\x80\r", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\x1b\xe6\xbc\xa2\r", "漢"),
        ] {
            let terminal = ScriptedTerminal::new(bytes);
            assert_eq!(play(&terminal), [line], "{bytes:x?}");
        }
    }

    #[test]
    fn the_escape_key_alone_swallows_nothing_that_comes_later() {
        let terminal = ScriptedTerminal::new("\x1b");
        terminal.pauses(20);
        terminal.types("[ok]\r");
        assert_eq!(play(&terminal), ["[ok]"]);
    }

    #[test]
    fn ctrl_l_clears_the_screen_and_keeps_the_line() {
        let terminal = ScriptedTerminal::new("old\rnew\x0c");
        terminal.pauses(1);
        terminal.types("er\r");
        assert_eq!(play(&terminal), ["old", "newer"]);
        assert_eq!(terminal.screen(80), ["> newer", ""]);
    }

    #[test]
    fn whatever_is_typed_the_screen_shows_the_line_and_the_cursor() {
        let keys: &[&str] = &[
            "a",
            "b ",
            "é",
            "漢",
            "🙂",
            "e\u{301}",
            "\t",
            "\x7f",
            "\x7f",
            "\x1b[D",
            "\x1b[D",
            "\x1b[C",
            "\x1b[3~",
            "\x01",
            "\x05",
            "\x0b",
            "\x17",
            "\x1b[1;5D",
            "\x1b[1;5C",
            "\x1b[A",
            "\x1b[B",
            "\u{fffd}",
            "\x1b[9~",
            "words of a paste that makes the line long ",
        ];
        let mut random = 1u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let (mut rows, mut windows) = (0, 0);
        for _ in 0..300 {
            let terminal = ScriptedTerminal::new("an older line\r");
            play(&terminal);
            let mut handle = terminal.clone();
            let mut console = Console::new(&mut handle);
            console.editor.begin("> ", console.terminal);
            for _ in 0..next(60) {
                for byte in keys[next(keys.len())].bytes() {
                    assert_eq!(console.editor.push(byte, console.terminal), None);
                }
                if next(2) == 0 {
                    console.editor.draw(console.terminal);
                }
            }
            console.editor.draw(console.terminal);
            let (editor, screen, (row, column)) = (&console.editor, terminal.screen(80), terminal.cursor(80));
            let plain = |text: &str| text.replace('\u{301}', "").replace('\t', " ");
            let before = plain(&editor.line[..editor.cursor]);
            let on_row = |text: &str| text.chars().map(columns).sum::<usize>();
            match editor.shown {
                Shown::Row => {
                    rows += 1;
                    // The prompt is not repeated on the row that a line once too long for its own was given.
                    let shown = screen[row].get(2..).unwrap_or_default();
                    assert_eq!(shown, plain(&editor.line).trim_end());
                    assert_eq!(column, 2 + on_row(&before));
                }
                Shown::Window => {
                    windows += 1;
                    let mut at = 0;
                    let left = screen[row].chars().chain(std::iter::repeat_n(' ', 80)).take_while(|&c| {
                        at += columns(c);
                        at <= column
                    });
                    let left: String = left.skip(2).collect();
                    match left.strip_prefix('<') {
                        Some(left) => {
                            assert!(before.ends_with(left), "{before:?} does not end with {left:?}");
                        }
                        None => assert_eq!(left, before),
                    }
                    assert!(column < 80);
                }
                Shown::Wrapped => {}
            }
        }
        assert!(rows > 50 && windows > 50, "{rows} {windows}");
    }

    #[test]
    fn a_window_has_marks_where_there_is_more_of_the_line() {
        let terminal = ScriptedTerminal::new("");
        let line: String = (100..160).map(|n| n.to_string()).collect();
        for (keys, window) in [
            ("\x01", format!("  {}>", &line[..76])),
            ("\x06".repeat(90).as_str(), format!("  <{}>", &line[39..114])),
            ("\x05", format!("  <{}", &line[115..])),
        ] {
            terminal.types(&line);
            terminal.pauses(1);
            terminal.types("\x01");
            terminal.pauses(1);
            terminal.types(keys);
            terminal.pauses(1);
            terminal.types("\r");
            assert_eq!(play(&terminal), [line.as_str()]);
            let screen = terminal.screen(80);
            assert_eq!(screen[screen.len() - 2], window);
        }
    }

    #[test]
    fn a_paste_whose_end_is_lost_ends_by_itself() {
        let terminal = ScriptedTerminal::new("\x1b[200~one\rtwo");
        terminal.pauses(PASTE_WAITS as usize);
        terminal.types("\r");
        assert_eq!(play(&terminal), ["one\ntwo"]);
    }

    #[test]
    fn a_terminal_opened_late_is_told_its_modes_at_the_first_enter() {
        let terminal = ScriptedTerminal::new("\rhi\r");
        assert_eq!(play(&terminal), ["", "hi"]);
        assert_eq!(terminal.text(), "> \x1b[?7h\x1b[?2004h\r\n> hi\r\n");
    }

    #[test]
    fn any_bytes_at_all_end_in_lines() {
        let mut random = 7u64;
        for _ in 0..50 {
            let noise = (0..2000).map(|_| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 40) as u8
            });
            let mut bytes: Vec<u8> = noise.collect();
            bytes.extend(b"\x1b[201~\x03\rlast\r");
            assert_eq!(lines(bytes).last().unwrap(), "last");
        }
    }

    #[test]
    fn lost_bytes_are_told_before_the_prompt() {
        let terminal = ScriptedTerminal::new("x\r");
        terminal.loses(12);
        play(&terminal);
        assert!(terminal.text().starts_with("12 received bytes were lost"));
    }

    #[test]
    fn printed_text_has_no_escape_sequences_and_whole_line_ends() {
        let terminal = ScriptedTerminal::new("");
        let mut handle = terminal.clone();
        let mut console = Console::new(&mut handle);
        let _ = write!(console, "a\x1b[31mb\r\nc\td\u{9b}e");
        console.fresh_line();
        console.fresh_line();
        console.dim("small");
        assert_eq!(terminal.text(), "a[31mb\r\nc\tde\r\n\x1b[2msmall\x1b[0m\r\n");
    }
}
