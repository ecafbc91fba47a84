//! For tests: a terminal that plays a script and shows a screen.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use unicode_width::UnicodeWidthChar;

use crate::Terminal;

/// A terminal that types its script and remembers what it was sent. Clones are the same terminal.
#[derive(Clone, Default)]
pub struct ScriptedTerminal(Rc<RefCell<Script>>);

#[derive(Default)]
struct Script {
    /// `None` is a pause: one read that finds nothing.
    input: VecDeque<Option<u8>>,
    output: Vec<u8>,
    lost: u64,
    waits: u32,
}

impl ScriptedTerminal {
    pub fn new(script: impl AsRef<[u8]>) -> Self {
        let terminal = Self::default();
        terminal.types(script);
        terminal
    }
    pub fn types(&self, script: impl AsRef<[u8]>) {
        self.0.borrow_mut().input.extend(script.as_ref().iter().copied().map(Some));
    }
    /// The user stops for a moment: the board finds nothing to read this many times.
    pub fn pauses(&self, times: usize) {
        self.0.borrow_mut().input.extend((0..times).map(|_| None));
    }
    pub fn loses(&self, bytes: u64) {
        self.0.borrow_mut().lost = bytes;
    }
    pub fn is_done(&self) -> bool {
        self.0.borrow().input.is_empty()
    }
    /// Everything sent so far, as bytes.
    pub fn sent(&self) -> Vec<u8> {
        self.0.borrow().output.clone()
    }
    /// Everything sent so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.sent()).expect("only UTF-8 is sent")
    }
    /// What a terminal this wide shows, row by row.
    pub fn screen(&self, width: usize) -> Vec<String> {
        screen(&self.text(), width).0
    }
    /// Row and column of its cursor.
    pub fn cursor(&self, width: usize) -> (usize, usize) {
        screen(&self.text(), width).1
    }
}

impl Terminal for ScriptedTerminal {
    fn read(&mut self) -> Option<u8> {
        self.0.borrow_mut().input.pop_front().flatten()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.borrow_mut().output.extend_from_slice(bytes);
    }
    fn wait(&mut self) {
        let mut script = self.0.borrow_mut();
        if script.input.is_empty() {
            script.waits += 1;
            assert!(
                script.waits < 1000,
                "waits for input that never comes, after: {}",
                String::from_utf8_lossy(&script.output)
            );
        }
    }
    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().lost)
    }
}

/// The least a terminal can do; anything beyond that fails the test.
fn screen(text: &str, width: usize) -> (Vec<String>, (usize, usize)) {
    const WIDE: char = '\0'; // second half of a wide character
    let mut rows: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x08' => column = column.min(width - 1).saturating_sub(1),
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "only CSI sequences");
                let mut number = String::new();
                let last = loop {
                    match chars.next().expect("a whole sequence") {
                        digit @ ('0'..='9' | ';') => number.push(digit),
                        last => break last,
                    }
                };
                let count = number.parse().unwrap_or(1);
                match last {
                    'C' => column = (column + count).min(width - 1),
                    'D' => column = column.min(width - 1).saturating_sub(count),
                    'K' if number.is_empty() => rows[row].truncate(column),
                    'H' if number.is_empty() => (row, column) = (0, 0),
                    'J' if number == "2" => rows = vec![Vec::new()],
                    'm' => {}
                    other => panic!("CSI {number}{other} is beyond a simple terminal"),
                }
            }
            c => {
                let wide = c.width().expect("no control characters");
                if column + wide > width {
                    (row, column) = (row + 1, 0);
                }
                rows.resize_with(rows.len().max(row + 1), Vec::new);
                let line = &mut rows[row];
                if line.len() < column + wide {
                    line.resize(column + wide, ' ');
                }
                match wide {
                    0 => continue,
                    _ => line[column] = c,
                }
                if wide == 2 {
                    line[column + 1] = WIDE;
                }
                column += wide;
            }
        }
        rows.resize_with(rows.len().max(row + 1), Vec::new);
    }
    let shown =
        |row: &Vec<char>| row.iter().filter(|&&c| c != WIDE).collect::<String>().trim_end().to_string();
    (rows.iter().map(shown).collect(), (row, column))
}
