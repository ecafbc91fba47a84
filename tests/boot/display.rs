//! The display: what the firmware draws is read off the emulated screen, glyph by glyph.

use super::*;
use embodi::qemu::monitor;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// A picture of one colour channel.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Reads a PPM file of kind P6: "P6 width height 255", then three bytes a pixel. Grey is expected.
    fn read(path: &Path) -> Self {
        let file = fs::read(path).unwrap();
        let mut words = file.splitn(4, |byte| byte.is_ascii_whitespace());
        let mut word = || std::str::from_utf8(words.next().expect("a header")).expect("a header").to_owned();
        let (magic, width, height) = (word(), word(), word());
        let (width, height): (usize, usize) = (width.parse().unwrap(), height.parse().unwrap());
        let bytes = &file[file.len() - width * height * 3..];
        assert_eq!(magic, "P6");
        let pixels = bytes.as_chunks::<3>().0.iter().map(|&[red, green, blue]| {
            assert!(red.abs_diff(green) <= 8 && red.abs_diff(blue) <= 8, "not grey: {red} {green} {blue}");
            green
        });
        Self { width, height, pixels: pixels.collect() }
    }

    /// The text that is drawn on it, row by row; a cell that is no character of the font is `?`.
    fn text(&self) -> Vec<String> {
        let (width, height) = (get_raster_width(FontWeight::Regular, RasterHeight::Size16), 16);
        let (columns, rows) = (self.width / width, self.height / height);
        let corner = ((self.width - columns * width) / 2, (self.height - rows * height) / 2);
        let glyphs: Vec<(char, &[u8])> = (' '..='~')
            .filter_map(|character| {
                Some((character, get_raster(character, FontWeight::Regular, RasterHeight::Size16)?.pixels()))
            })
            .collect();
        // How far a cell's pixels are from a glyph's: paper is black, ink between dim and bright.
        let cell = |row: usize, column: usize| {
            let pixels: Vec<u8> = (0..width * height)
                .map(|index| {
                    let (x, y) = (column * width + index % width, row * height + index / width);
                    self.pixels[(corner.1 + y) * self.width + corner.0 + x]
                })
                .collect();
            let ink = u32::from(pixels.iter().copied().max().unwrap_or(0)).max(0x80);
            let is = |glyph: &[u8]| {
                let most = u32::from(glyph.iter().copied().max().unwrap_or(0)).max(1);
                pixels.iter().zip(glyph).all(|(&pixel, &covered)| {
                    u32::from(pixel).abs_diff(u32::from(covered) * ink / most) <= 16
                })
            };
            glyphs.iter().find(|(_, glyph)| is(glyph)).map_or('?', |(character, _)| *character)
        };
        let row = |row| (0..columns).map(|column| cell(row, column)).collect::<String>();
        (0..rows).map(|number| row(number).trim_end().to_owned()).collect()
    }
}

/// What the display of this board shows.
fn display(rig: &Rig, socket: &Path) -> Vec<String> {
    let file = rig._scratch.path().join("display.ppm");
    monitor::screen_dump(socket, &file).unwrap_or_else(|error| panic!("{error:#}"));
    Picture::read(&file).text()
}

#[test]
fn the_display_shows_what_the_serial_line_says_in_letters_that_can_be_read() {
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("monitor");
    let mut rig = Rig::boot_with(None, |machine| machine.with_monitor(&socket));
    rig.prompt();
    // What was typed at the serial line is seen, too; the dim line and a model's text are other tests' matter.
    rig.answers("status", "91 x 30 characters on a picture of 640 x 480");
    let shown = display(&rig, &socket);
    let transcript = rig.board.transcript();
    for line in transcript.lines().map(str::trim_end).filter(|line| !line.is_empty() && *line != ">") {
        assert!(shown.iter().any(|row| row == line), "{line:?} is not on the display: {shown:#?}");
    }
    assert!(shown[1].starts_with("EMBODIOS "), "{shown:#?}");
    assert!(transcript.trim_start().starts_with(&shown[1]), "{transcript}");
    assert_eq!(transcript.matches("no operating system").count(), 1, "one banner: {transcript}");
    // More than a screenful: the last lines are there, in order.
    for _ in 0..3 {
        rig.ask("help");
    }
    let shown = display(&rig, &socket);
    let transcript = rig.board.transcript();
    let last: Vec<&str> = transcript.lines().map(str::trim_end).collect();
    let rows = shown.len();
    assert_eq!(shown[..rows - 1], last[last.len() - rows..last.len() - 1]);
    assert!(shown[rows - 1].starts_with('>'), "{shown:#?}");
}

#[test]
fn last_words_are_on_the_display_and_a_board_told_to_have_none_goes_on_with_the_serial_line() {
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("monitor");
    let mut rig =
        Rig::boot_with(None, |machine| machine.with_monitor(&socket).with_arguments("onfault=stop"));
    rig.prompt();
    rig.board.type_line("fault read 2");
    rig.expect("EXCEPTION on core 2");
    rig.expect("switch the board off and on");
    let shown = display(&rig, &socket);
    assert!(shown.iter().any(|row| row.starts_with("EXCEPTION on core 2")), "{shown:#?}");
    assert!(shown.iter().any(|row| row.contains("onfault=stop says")), "{shown:#?}");

    let mut rig = Rig::boot_with(None, |machine| machine.with_arguments("screen=off"));
    rig.prompt();
    rig.answers("status", "none, as the boot argument screen=off says");
}
