//! The screen's font: pictures of characters, and what stands in for those that it has no picture of.

use embodios_bsp::drivers::framebuffer::Surface;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Columns and rows that a size must leave to be chosen, as text is written for terminals of so many.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// What stands for a character that the font lacks.
const UNKNOWN: char = '\u{fffd}';

/// The font in one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Font(RasterHeight);

impl Font {
    /// Its sizes, largest first.
    pub const SIZES: [Self; 3] =
        [Self(RasterHeight::Size24), Self(RasterHeight::Size20), Self(RasterHeight::Size16)];

    /// The largest in which a picture of this many pixels has room for a terminal's text; else the smallest.
    pub fn for_picture(width: usize, height: usize) -> Self {
        let roomy = |font: &Self| width / font.width() >= COLUMNS && height / font.height() >= ROWS;
        Self::SIZES.into_iter().find(roomy).unwrap_or(Self(RasterHeight::Size16))
    }

    /// Pixels of a character.
    pub fn width(self) -> usize {
        get_raster_width(FontWeight::Regular, self.0)
    }

    /// Rows of pixels of a character.
    pub fn height(self) -> usize {
        self.0.val()
    }

    /// Rows of greys of this character, or of what stands for it: black to white.
    pub fn rows(self, character: char) -> impl Iterator<Item = &'static [u8]> {
        let raster = |character| get_raster(character, FontWeight::Regular, self.0);
        let raster = raster(character).or_else(|| raster(stand_in(character))).or_else(|| raster(UNKNOWN));
        raster.into_iter().flat_map(|raster| raster.rows())
    }

    /// Draws a character with its upper left corner at a pixel, in these greys.
    pub fn draw(self, surface: &Surface, (x, y): (usize, usize), character: char, looks: Looks) {
        let (paper, ink) = looks.greys();
        // The coverage of a pixel, 0 to 255, between paper and ink; 257 / 65536 is 1 / 255, rounded up a little.
        let (low, span) = (i32::from(paper), i32::from(ink) - i32::from(paper));
        let mix = |&covered: &u8| (low + ((span * i32::from(covered) * 257 + 0x8000) >> 16)) as u8;
        for (down, row) in self.rows(character).enumerate() {
            surface.write(x, y + down, row.iter().map(mix));
        }
    }
}

/// What a character looks like beyond its shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Dimmer than the rest.
    pub dim: bool,
    /// Ink and paper changed.
    pub inverse: bool,
}

impl Looks {
    /// Greys of paper and ink.
    fn greys(self) -> (u8, u8) {
        let ink = if self.dim { 0x80 } else { 0xe0 };
        if self.inverse { (ink, 0) } else { (0, ink) }
    }
}

/// A character of the font for one that it lacks, as far as there is one that says the same: models write
/// typographers' quotes, dashes and bullets.
fn stand_in(character: char) -> char {
    match character {
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{2032}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{2033}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2500}'..='\u{2501}' => '-',
        '\u{2022}' | '\u{2219}' | '\u{22c5}' | '\u{25cf}' => '·',
        '\u{2026}' => '.',
        '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => ' ',
        '\u{2190}' => '<',
        '\u{2192}' | '\u{21d2}' => '>',
        '\u{2502}' | '\u{2503}' => '|',
        '\u{2248}' => '~',
        '\u{2713}' | '\u{2714}' => 'v',
        '\u{20ac}' => 'E',
        '\u{2588}' => '#',
        _ => UNKNOWN,
    }
}
