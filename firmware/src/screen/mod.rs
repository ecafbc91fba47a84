//! The screen: what the serial line says, as text on a picture.
//!
//! A terminal of the simplest kind: UTF-8, `\r`, `\n`, backspace, tab, and of the escape sequences those that
//! move the cursor, erase, or change looks (dim, inverse); any other is passed over. It shows and never
//! answers: input comes from the serial line alone.
//!
//! What is shown is also kept, as characters in ordinary memory, since pictures are slow to read: a scroll
//! draws just the cells whose character changes. Drawing is what happens while the serial line sends, and
//! takes no memory.
//!
//! All calls take `&self`, and last words get through whoever else is writing: the picture and the characters
//! are atomics, and who finds the pen in another's hand writes with a second one, from a new row on.

pub mod font;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use embodios_bsp::drivers::framebuffer::Surface;
use spin::Mutex;
use unicode_width::UnicodeWidthChar;

use font::{Font, Looks};

/// Cells between two tabulator stops.
const TAB: usize = 8;
/// Numbers of an escape sequence that count.
const NUMBERS: usize = 4;

/// Text on a picture.
pub struct Screen {
    surface: Surface,
    font: Font,
    columns: usize,
    rows: usize,
    /// Pixel of the first cell: what is left over is a margin on all sides.
    corner: (usize, usize),
    /// What each cell shows.
    cells: Vec<AtomicU32>,
    pens: [Mutex<(Pen, Decoder)>; 2],
}

/// A cell: its character, and in the bits above what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    character: char,
    looks: Looks,
}

const BLANK: Cell = Cell { character: ' ', looks: Looks { dim: false, inverse: false } };
/// What the second half of a wide character holds.
const SECOND_HALF: char = '\0';

impl Cell {
    fn pack(self) -> u32 {
        self.character as u32 | u32::from(self.looks.dim) << 30 | u32::from(self.looks.inverse) << 31
    }
    fn unpack(word: u32) -> Self {
        let character = char::from_u32(word & 0x1f_ffff).unwrap_or(char::REPLACEMENT_CHARACTER);
        Self { character, looks: Looks { dim: word >> 30 & 1 == 1, inverse: word >> 31 == 1 } }
    }
}

/// Where and how the next character is written.
#[derive(Clone, Copy, Debug, Default)]
struct Pen {
    row: usize,
    /// May be one past the last: the next character begins a row then.
    column: usize,
    looks: Looks,
}

impl Screen {
    /// A screen on this picture, which becomes black; none if there is no memory for its characters.
    pub fn new(surface: Surface) -> Option<Self> {
        let font = Font::for_picture(surface.width(), surface.height());
        let (columns, rows) = (surface.width() / font.width(), surface.height() / font.height());
        let left_over = |pixels: usize, cells: usize, size: usize| (pixels - cells * size) / 2;
        let corner = (
            left_over(surface.width(), columns, font.width()),
            left_over(surface.height(), rows, font.height()),
        );
        let mut cells = Vec::new();
        cells.try_reserve_exact(columns * rows).ok()?;
        cells.resize_with(columns * rows, || AtomicU32::new(BLANK.pack()));
        surface.clear();
        let below = Pen { row: rows, ..Pen::default() };
        let pens = [Pen::default(), below].map(|pen| Mutex::new((pen, Decoder::default())));
        (columns > 0 && rows > 0).then_some(Self { surface, font, columns, rows, corner, cells, pens })
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// Pixels of a row, and rows of pixels.
    pub fn pixels(&self) -> (usize, usize) {
        (self.surface.width(), self.surface.height())
    }

    /// Shows what these bytes say. A character or an escape sequence may be cut at their end.
    pub fn write(&self, bytes: &[u8]) {
        let Some(mut held) = self.pens.iter().find_map(Mutex::try_lock) else { return };
        let (pen, decoder) = &mut *held;
        if pen.row >= self.rows {
            // The second pen's first words.
            (pen.row, pen.column) = (self.rows - 1, 0);
            self.scroll();
        }
        self.draw_cursor(pen, false);
        for &byte in bytes {
            decoder.push(byte, |what| match what {
                What::Character(character) => self.print(pen, character),
                What::Control(byte) => self.control(pen, byte),
                What::Sequence(last, numbers) => self.obey(pen, last, numbers),
            });
        }
        self.draw_cursor(pen, true);
    }

    /// What a row shows, without blanks at its end.
    pub fn row(&self, row: usize) -> alloc::string::String {
        let cells = self.cells.get(row * self.columns..(row + 1) * self.columns).unwrap_or_default();
        let shown = cells.iter().map(|cell| Cell::unpack(cell.load(Ordering::Relaxed)).character);
        let text: alloc::string::String = shown.filter(|&character| character != SECOND_HALF).collect();
        text.trim_end().into()
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        Cell::unpack(self.cells[row * self.columns + column].load(Ordering::Relaxed))
    }

    /// Puts a character into a cell, and draws it if it was another.
    fn set(&self, row: usize, column: usize, cell: Cell) {
        let word = cell.pack();
        if self.cells[row * self.columns + column].swap(word, Ordering::Relaxed) != word {
            self.draw(row, column, cell);
        }
    }

    fn draw(&self, row: usize, column: usize, cell: Cell) {
        let place = (self.corner.0 + column * self.font.width(), self.corner.1 + row * self.font.height());
        let character = if cell.character == SECOND_HALF { ' ' } else { cell.character };
        self.font.draw(&self.surface, place, character, cell.looks);
    }

    /// The cursor is the cell under it with ink and paper changed.
    fn draw_cursor(&self, pen: &Pen, on: bool) {
        let (row, column) = (pen.row, pen.column.min(self.columns - 1));
        let mut cell = self.cell(row, column);
        cell.looks.inverse ^= on;
        self.draw(row, column, cell);
    }

    fn erase(&self, row: usize, columns: core::ops::Range<usize>) {
        columns.for_each(|column| self.set(row, column, BLANK));
    }

    /// Moves everything up by a row.
    fn scroll(&self) {
        for row in 1..self.rows {
            for column in 0..self.columns {
                self.set(row - 1, column, self.cell(row, column));
            }
        }
        self.erase(self.rows - 1, 0..self.columns);
    }

    fn next_row(&self, pen: &mut Pen) {
        if pen.row + 1 < self.rows {
            pen.row += 1;
        } else {
            self.scroll();
        }
    }

    fn print(&self, pen: &mut Pen, character: char) {
        let width = character.width().unwrap_or(0).min(self.columns);
        if width == 0 {
            return; // combining marks: the font has none
        }
        if pen.column + width > self.columns {
            pen.column = 0;
            self.next_row(pen);
        }
        for (half, character) in [character, SECOND_HALF].into_iter().take(width).enumerate() {
            self.set(pen.row, pen.column + half, Cell { character, looks: pen.looks });
        }
        pen.column += width;
    }

    fn control(&self, pen: &mut Pen, byte: u8) {
        match byte {
            b'\r' => pen.column = 0,
            b'\n' => self.next_row(pen),
            b'\t' => pen.column = ((pen.column / TAB + 1) * TAB).min(self.columns - 1),
            0x08 => pen.column = pen.column.min(self.columns - 1).saturating_sub(1),
            _ => {}
        }
    }

    /// Escape sequences that end with this letter: ECMA-48, 8.3.
    fn obey(&self, pen: &mut Pen, last: u8, numbers: &Numbers) {
        let here = pen.column.min(self.columns - 1);
        let count = numbers.get(0).max(1);
        match (last, numbers.get(0)) {
            (b'A', _) => pen.row = pen.row.saturating_sub(count),
            (b'B', _) => pen.row = (pen.row + count).min(self.rows - 1),
            (b'C', _) => pen.column = (here + count).min(self.columns - 1),
            (b'D', _) => pen.column = here.saturating_sub(count),
            (b'H', _) => {
                pen.row = (count - 1).min(self.rows - 1);
                pen.column = (numbers.get(1).max(1) - 1).min(self.columns - 1);
            }
            // `K` and `J`: to the end, from the start, all.
            (b'K', 0) => self.erase(pen.row, pen.column.min(self.columns)..self.columns),
            (b'K', 1) => self.erase(pen.row, 0..here + 1),
            (b'K', 2) => self.erase(pen.row, 0..self.columns),
            (b'J', 0) => {
                self.erase(pen.row, pen.column.min(self.columns)..self.columns);
                (pen.row + 1..self.rows).for_each(|row| self.erase(row, 0..self.columns));
            }
            (b'J', 2) => (0..self.rows).for_each(|row| self.erase(row, 0..self.columns)),
            (b'm', _) => {
                for &number in numbers.all() {
                    match number {
                        0 => pen.looks = Looks::default(),
                        2 => pen.looks.dim = true,
                        7 => pen.looks.inverse = true,
                        1 | 22 => pen.looks.dim = false,
                        27 => pen.looks.inverse = false,
                        _ => {} // colours: this screen is grey
                    }
                }
            }
            _ => {}
        }
    }
}

/// What bytes turned out to be.
enum What<'d> {
    Character(char),
    Control(u8),
    /// A control sequence: its last byte, its numbers.
    Sequence(u8, &'d Numbers),
}

/// The numbers of a control sequence.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    numbers: [u16; NUMBERS],
    count: usize,
}

impl Numbers {
    fn get(&self, index: usize) -> usize {
        self.numbers.get(index).copied().unwrap_or(0).into()
    }
    /// Those that were there; one that was left out is a zero.
    fn all(&self) -> &[u16] {
        &self.numbers[..(self.count + 1).min(NUMBERS)]
    }
    fn digit(&mut self, digit: u8) {
        if let Some(number) = self.numbers.get_mut(self.count) {
            *number = number.saturating_mul(10).saturating_add((digit - b'0').into());
        }
    }
}

/// Bytes to characters and sequences, however they are cut.
#[derive(Clone, Copy, Debug, Default)]
struct Decoder {
    state: State,
    numbers: Numbers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Within a character of several bytes: those so far, and how many are to come.
    Character { bytes: [u8; 4], have: usize, need: usize },
    /// After an escape character.
    Escape,
    /// In a control sequence; `private` ones are for other terminals.
    Sequence { private: bool },
}

impl Decoder {
    fn push(&mut self, byte: u8, mut say: impl FnMut(What)) {
        match self.state {
            State::Character { mut bytes, have, need } if byte & 0xc0 == 0x80 => {
                bytes[have] = byte;
                let have = have + 1;
                if have < need {
                    self.state = State::Character { bytes, have, need };
                    return;
                }
                self.state = State::Text;
                let text = core::str::from_utf8(&bytes[..need]).ok();
                let character = text.and_then(|text| text.chars().next());
                say(What::Character(character.unwrap_or(char::REPLACEMENT_CHARACTER)));
            }
            State::Character { .. } => {
                // Cut short: the byte begins something new.
                self.state = State::Text;
                say(What::Character(char::REPLACEMENT_CHARACTER));
                self.push(byte, say);
            }
            State::Escape => {
                self.state = match byte {
                    b'[' => {
                        self.numbers = Numbers::default();
                        State::Sequence { private: false }
                    }
                    _ => State::Text, // two bytes, and nothing that we know
                };
            }
            State::Sequence { private } => match byte {
                b'0'..=b'9' => self.numbers.digit(byte),
                b';' => self.numbers.count += 1,
                b'<'..=b'?' => self.state = State::Sequence { private: true },
                0x40..=0x7e => {
                    self.state = State::Text;
                    if !private {
                        say(What::Sequence(byte, &self.numbers));
                    }
                }
                0x20..=0x2f | b':' => self.state = State::Sequence { private: true },
                _ => self.state = State::Text,
            },
            State::Text => {
                let need = match byte {
                    0x1b => return self.state = State::Escape,
                    ..0x20 | 0x7f => return say(What::Control(byte)),
                    0x20..0x80 => return say(What::Character(byte.into())),
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xf4 => 4,
                    _ => return say(What::Character(char::REPLACEMENT_CHARACTER)),
                };
                self.state = State::Character { bytes: [byte, 0, 0, 0], have: 1, need };
            }
        }
    }
}

#[cfg(test)]
mod tests;
