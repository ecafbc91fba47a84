//! The screen against a model of a terminal, and what it draws against the font.

use core::sync::atomic::AtomicU16;
use std::string::String;
use std::vec::Vec;

use embodios_bsp::drivers::framebuffer::{Depth, Framebuffer, Pixels, Surface};

use super::*;
use crate::testing::ScriptedTerminal;
use crate::{Terminal, screen::font::Font};

/// A picture in plain memory.
struct Picture {
    memory: &'static [AtomicU16],
    width: usize,
}

fn screen_of(width: usize, height: usize) -> (Screen, Picture) {
    // A row is longer than the picture is wide, as firmware likes it.
    let stride = width + 5;
    let memory: &'static [AtomicU16] =
        (0..stride * height).map(|_| AtomicU16::new(0x1234)).collect::<Vec<_>>().leak();
    let picture = Framebuffer { width, height, pitch: stride * 2, depth: Depth::Sixteen, memory: 0..0 };
    let surface = Surface::new(&picture, Pixels::Sixteen(memory)).unwrap();
    (Screen::new(surface).unwrap(), Picture { memory, width: stride })
}

impl Picture {
    /// The upper five bits of each pixel's green.
    fn at(&self, x: usize, y: usize) -> u8 {
        (self.memory[y * self.width + x].load(Ordering::Relaxed) >> 6 & 0x1f) as u8
    }

    /// Which character the pixels of a cell are, of those the font has, with full ink on black.
    fn recognise(&self, screen: &Screen, row: usize, column: usize) -> Option<char> {
        let font = screen.font;
        let (x, y) = (screen.corner.0 + column * font.width(), screen.corner.1 + row * font.height());
        (' '..='\u{17f}').find(|&character| {
            let mut rows = font.rows(character).enumerate();
            rows.all(|(down, greys)| {
                greys.iter().enumerate().all(|(right, &grey)| {
                    let wanted = (u32::from(grey) * 0xe0 / 255) >> 3;
                    u32::from(self.at(x + right, y + down)).abs_diff(wanted) <= 1
                })
            })
        })
    }
}

fn shown(screen: &Screen) -> Vec<String> {
    let mut rows: Vec<String> = (0..screen.size().1).map(|row| screen.row(row)).collect();
    while rows.last().is_some_and(String::is_empty) {
        rows.pop();
    }
    rows
}

#[test]
fn what_is_drawn_can_be_read_back_off_the_pixels_in_every_size() {
    for (width, height, font) in [(1280, 720, 0), (960, 540, 1), (640, 480, 2), (320, 200, 2)] {
        let (screen, picture) = screen_of(width, height);
        assert_eq!(screen.font, Font::SIZES[font], "{width} x {height}");
        let text = "EMBODIOS 0.1: a~é ŝ/{}";
        screen.write(text.as_bytes());
        screen.write(b"\r\n"); // the cursor is elsewhere
        let read: Option<String> =
            (0..text.chars().count()).map(|column| picture.recognise(&screen, 0, column)).collect();
        assert_eq!(read.as_deref(), Some(text), "{width} x {height}");
    }
}

#[test]
fn a_terminal_shows_the_same_whatever_is_written_to_both() {
    let (screen, _) = screen_of(640, 480);
    let (columns, rows) = screen.size();
    assert!(columns >= 80 && rows >= 24, "{columns} x {rows}");
    let terminal = ScriptedTerminal::new("");
    for piece in [
        "\x1b[?7h\x1b[?2004hEMBODIOS\r\n",
        "> typed\x08\x08\x08XY\x1b[K\r\n",
        "abcdef\r\x1b[3CD\x1b[2D!\r\n",
        "\x1b[2mdim\x1b[0m and \x1b[7mnot\x1b[0m\r\n",
        &"long ".repeat(50),
        "\r\nwide 漢字 and half\r\n",
        "e\u{301}\r\n",
        "\rprogress 10 %\x1b[K\rdone\x1b[K\r\n",
    ] {
        screen.write(piece.as_bytes());
        terminal.clone().write(piece.as_bytes());
        let expected: Vec<String> =
            terminal.screen(columns).into_iter().map(|row| row.replace('\u{301}', "")).collect();
        let mut expected = expected;
        while expected.last().is_some_and(String::is_empty) {
            expected.pop();
        }
        assert_eq!(shown(&screen), expected, "after {piece:?}");
    }
}

#[test]
fn bytes_may_be_cut_anywhere_and_nonsense_is_passed_over() {
    let text = "aé漢🙂\x1b[2mb\x1b[0m\x1b[31;4mc\x1b]x\x1bcd\x1b[?25l\x1b[99999999999C.";
    let (whole, _) = screen_of(640, 480);
    whole.write(text.as_bytes());
    let (cut, _) = screen_of(640, 480);
    text.bytes().for_each(|byte| cut.write(&[byte]));
    assert_eq!(shown(&whole), shown(&cut));
    assert_eq!(whole.row(0).chars().filter(|c| !c.is_whitespace()).collect::<String>(), "aé漢🙂bcxd.");
    let (broken, _) = screen_of(640, 480);
    broken.write(b"a\xffb\xe6\xbcc\xf0\x9f\x99");
    broken.write(b"d\x1b[1\x18e\x1b[5:3mf");
    assert_eq!(broken.row(0), "a\u{fffd}b\u{fffd}c\u{fffd}def");
}

#[test]
fn the_last_row_scrolls_and_pixels_follow() {
    let (screen, picture) = screen_of(640, 480);
    let rows = screen.size().1;
    for line in 0..rows + 3 {
        screen.write(format!("line {line}\r\n").as_bytes());
    }
    assert_eq!(screen.row(0), "line 4");
    assert_eq!(screen.row(rows - 2), format!("line {}", rows + 2));
    assert_eq!(screen.row(rows - 1), "");
    for row in [0, 7, rows - 2] {
        let read: Option<String> =
            (0..screen.row(row).len()).map(|column| picture.recognise(&screen, row, column)).collect();
        assert_eq!(read, Some(screen.row(row)));
        assert_eq!(picture.recognise(&screen, row, 20), Some(' '));
    }
}

#[test]
fn a_row_that_is_exactly_full_wraps_with_the_next_character_only() {
    let (screen, _) = screen_of(640, 480);
    let columns = screen.size().0;
    screen.write("x".repeat(columns).as_bytes());
    screen.write(b"\r\nnext");
    assert_eq!((screen.row(0).len(), screen.row(1).as_str()), (columns, "next"));
    screen.write(format!("\r{}漢", "y".repeat(columns - 1)).as_bytes());
    assert_eq!((screen.row(1).len(), screen.row(2).as_str()), (columns - 1, "漢"));
}

#[test]
fn typographers_signs_have_stand_ins_and_dim_and_inverse_text_differ() {
    let (screen, picture) = screen_of(640, 480);
    screen.write("“don’t” – x\r\n".as_bytes());
    let read: Option<String> = (0..11).map(|column| picture.recognise(&screen, 0, column)).collect();
    assert_eq!(read.as_deref(), Some("\"don't\" - x"));
    screen.write(b"M\x1b[2mM\x1b[22;7mM\x1b[0m\r\n");
    let (font, y) = (screen.font, screen.corner.1 + screen.font.height());
    let brightest = |column: usize| {
        let x = screen.corner.0 + column * font.width();
        (0..font.height())
            .flat_map(|down| (0..font.width()).map(move |right| (right, down)))
            .map(|(right, down)| picture.at(x + right, y + down))
            .max()
    };
    assert!(brightest(1) < brightest(0));
    let corner = |column: usize| picture.at(screen.corner.0 + column * font.width(), y);
    assert_eq!((corner(0), corner(2) > 0x18), (0, true));
}

#[test]
fn whoever_finds_the_pen_taken_writes_on_a_new_row_all_the_same() {
    let (screen, _) = screen_of(640, 480);
    screen.write(b"halfway thr");
    let rows = screen.size().1;
    let held = screen.pens[0].lock();
    screen.write(b"PANIC on");
    screen.write(b" core 2");
    assert_eq!(screen.row(rows - 1), "PANIC on core 2");
    drop(held);
}

#[test]
fn the_cursor_is_where_the_next_character_comes() {
    let (screen, picture) = screen_of(640, 480);
    screen.write(b"> ");
    let at = |column: usize| picture.at(screen.corner.0 + column * screen.font.width(), screen.corner.1);
    assert_eq!((at(1), at(2) > 0x18, at(3)), (0, true, 0));
    screen.write(b"x");
    assert_eq!((at(2), at(3) > 0x18), (0, true));
}
