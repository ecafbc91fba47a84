//! Framebuffer: asks VideoCore for a picture on HDMI, and writes grey pixels into it.
//!
//! VideoCore scales our picture to the display, so it need not have the display's size: [`picture_for`] makes
//! it a small one of 16 bits a pixel. What the display shows is read from the same RAM as the weights, sixty
//! times a second: 0.5 GB/s for 1080p of 32 bits, of which a Pi 4's copy bandwidth loses a fifteenth; 0.06 GB/s
//! for 960 x 540 of 16.
//!
//! Size, depth and buffer belong together: they are set by one message, in this order, and read back, because
//! firmware answers what it made of them. Where no display is plugged in it answers with no buffer, and the
//! board goes on without.
//!
//! The memory lies in VideoCore's share, below 1 GiB; its address comes as VideoCore counts, with the cache
//! alias in the two highest bits. It is mapped uncached ([`Access::Uncached`](crate::cpu::mmu::Access)): the
//! display's scanner does not see our caches.
//!
//! Greys have as much red as blue, so it never matters in which order a firmware has them.
//!
//! Sources: Raspberry Pi firmware wiki, "Mailbox property interface", frame buffer tags; Linux `raspberrypi-firmware.h` for
//! the number of displays; Raspberry Pi documentation for `hdmi_force_hotplug`; STREAM on a Pi 4 with and without a display
//! (sci-pi.org.uk/bench/stream.html).

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::mailbox::{Mailbox, MailboxError, Port, Tag};

const COUNT_DISPLAYS: u32 = 0x0004_0013;
const DISPLAY_SIZE: u32 = 0x0004_0003;
const SET_PHYSICAL_SIZE: u32 = 0x0004_8003;
const SET_VIRTUAL_SIZE: u32 = 0x0004_8004;
const SET_DEPTH: u32 = 0x0004_8005;
const SET_OFFSET: u32 = 0x0004_8009;
const ALLOCATE: u32 = 0x0004_0001;
const PITCH: u32 = 0x0004_0008;

/// Alignment asked of the buffer: a page. And what it must have, whatever the firmware makes of that.
const ALIGNMENT: u32 = 4096;
const LEAST_ALIGNMENT: u32 = 16;
/// What of an address is RAM's; above it is VideoCore's cache alias.
const ADDRESS: u32 = 0x3fff_ffff;
/// Wider pictures cost bandwidth and show no more text than anybody reads.
const WIDEST: u32 = 1280;
/// Displays that make sense, and the size for one that says nothing sensible of itself.
const WIDTHS: Range<u32> = 320..8193;
const HEIGHTS: Range<u32> = 200..8193;
const PLAIN: (u32, u32) = (640, 480);

/// Bits a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// 5 red, 6 green, 5 blue.
    Sixteen,
    /// 8 each, and 8 that say how solid it is.
    ThirtyTwo,
}

impl Depth {
    fn bytes(self) -> usize {
        match self {
            Self::Sixteen => 2,
            Self::ThirtyTwo => 4,
        }
    }
}

/// A picture that VideoCore shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from a row to the next.
    pub pitch: usize,
    /// Bits a pixel.
    pub depth: Depth,
    /// Its memory, by physical address.
    pub memory: Range<u64>,
}

/// Why there is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramebufferError {
    /// VideoCore does not answer, or not to these tags.
    Mailbox(MailboxError),
    /// It counts no display.
    NoDisplay,
    /// It gave no memory: on a Pi 4 that means that no display is plugged in.
    NoBuffer,
    /// It answered something that can't be.
    Odd {
        /// What it said of what: "depth", 24.
        what: &'static str,
        /// The value.
        value: u32,
    },
}

impl From<MailboxError> for FramebufferError {
    fn from(error: MailboxError) -> Self {
        Self::Mailbox(error)
    }
}

impl fmt::Display for FramebufferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(error) => error.fmt(f),
            Self::NoDisplay => f.write_str("no display is plugged in"),
            Self::NoBuffer => f.write_str("VideoCore gave no picture: is a display plugged in?"),
            Self::Odd { what, value } => write!(f, "VideoCore gave a picture whose {what} is {value:#x}"),
        }
    }
}

/// The size of our picture on a display of this size: halved until it is no wider than [`WIDEST`].
pub fn picture_for((width, height): (u32, u32)) -> (u32, u32) {
    if !WIDTHS.contains(&width) || !HEIGHTS.contains(&height) {
        return PLAIN;
    }
    let halvings = (0..8).find(|&times| width >> times <= WIDEST).unwrap_or(0);
    (width >> halvings, height >> halvings)
}

/// Asks for a picture. Once, before the memory map is made: it has to be in there.
pub fn request<P: Port>(mailbox: &Mailbox<P>) -> Result<Framebuffer, FramebufferError> {
    match mailbox.ask(COUNT_DISPLAYS, &[]) {
        Ok([0]) => return Err(FramebufferError::NoDisplay),
        // Firmware that does not count displays may have one all the same.
        Ok([_]) | Err(MailboxError::Unanswered { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let display = mailbox.ask(DISPLAY_SIZE, &[]).map(|[width, height]| (width, height));
    let (width, height) = picture_for(display.unwrap_or(PLAIN));
    let mut tags = [
        Tag::two(SET_PHYSICAL_SIZE, [width, height]),
        Tag::two(SET_VIRTUAL_SIZE, [width, height]),
        Tag::one(SET_DEPTH, 16),
        Tag::two(SET_OFFSET, [0, 0]),
        Tag::two(ALLOCATE, [ALIGNMENT, 0]),
        Tag::one(PITCH, 0),
    ];
    mailbox.ask_all(&mut tags)?;
    let [_, size, depth, _, buffer, pitch] = tags;

    let ([base, bytes], [pitch], [width, height]) = (buffer.answer()?, pitch.answer()?, size.answer()?);
    if base & ADDRESS == 0 || bytes == 0 {
        return Err(FramebufferError::NoBuffer);
    }
    let odd = |what, value| Err(FramebufferError::Odd { what, value });
    let depth = match depth.answer()? {
        [16] => Depth::Sixteen,
        [32] => Depth::ThirtyTwo,
        [other] => return odd("depth", other),
    };
    if !WIDTHS.contains(&width) {
        return odd("width", width);
    }
    if !HEIGHTS.contains(&height) {
        return odd("height", height);
    }
    let row = width * depth.bytes() as u32;
    if pitch < row || !pitch.is_multiple_of(4) || pitch > 4 * row {
        return odd("pitch", pitch);
    }
    if bytes < pitch * height {
        return odd("size", bytes);
    }
    let start = base & ADDRESS;
    if !start.is_multiple_of(LEAST_ALIGNMENT) || bytes > ADDRESS - start {
        return odd("address", base);
    }
    Ok(Framebuffer {
        width: width as usize,
        height: height as usize,
        pitch: pitch as usize,
        depth,
        memory: start.into()..u64::from(start) + u64::from(pitch * height),
    })
}

/// The picture's memory, in units of a pixel.
#[derive(Clone, Copy)]
pub enum Pixels {
    /// Of 16 bits.
    Sixteen(&'static [AtomicU16]),
    /// Of 32 bits.
    ThirtyTwo(&'static [AtomicU32]),
}

/// The picture, to be written. All calls take `&self`: a fault on any core may write while another does.
#[derive(Clone, Copy)]
pub struct Surface {
    pixels: Pixels,
    width: usize,
    height: usize,
    /// Pixels from a row to the next.
    stride: usize,
}

impl Surface {
    /// The picture with its memory; none if that is too short or of another depth.
    pub fn new(picture: &Framebuffer, pixels: Pixels) -> Option<Self> {
        let (depth, length) = match pixels {
            Pixels::Sixteen(pixels) => (Depth::Sixteen, pixels.len()),
            Pixels::ThirtyTwo(pixels) => (Depth::ThirtyTwo, pixels.len()),
        };
        let stride = picture.pitch / picture.depth.bytes();
        let fits = depth == picture.depth && picture.width <= stride && stride * picture.height <= length;
        fits.then_some(Self { pixels, width: picture.width, height: picture.height, stride })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Writes greys from black (0) to white (255) into row `y` from column `x` on; what leads out of the
    /// picture is left out.
    pub fn write(&self, x: usize, y: usize, greys: impl Iterator<Item = u8>) {
        if x >= self.width || y >= self.height {
            return;
        }
        let (first, end) = (y * self.stride + x, y * self.stride + self.width);
        match self.pixels {
            Pixels::Sixteen(pixels) => {
                for (pixel, grey) in pixels[first..end].iter().zip(greys) {
                    let (five, six) = (u16::from(grey >> 3), u16::from(grey >> 2));
                    pixel.store(five << 11 | six << 5 | five, Ordering::Relaxed);
                }
            }
            Pixels::ThirtyTwo(pixels) => {
                for (pixel, grey) in pixels[first..end].iter().zip(greys) {
                    pixel.store(0xff00_0000 | (u32::from(grey) * 0x01_0101), Ordering::Relaxed);
                }
            }
        }
    }

    /// Makes all of it black.
    pub fn clear(&self) {
        (0..self.height).for_each(|y| self.write(0, y, core::iter::repeat(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::mailbox::tests::videocore;
    use std::vec::Vec;

    /// A firmware as it should be, with a 1080p display. It refuses a size or depth set after the buffer is
    /// there, and a buffer before they are set: the order of real ones matters, QEMU's does not.
    fn good(tag: u32, values: &mut [u32]) -> Option<usize> {
        use std::cell::Cell;
        std::thread_local!(static STEP: Cell<u32> = const { Cell::new(0) });
        let step = |wanted: u32| {
            assert_eq!(STEP.replace(wanted + 1), wanted, "tag {tag:#x} comes in its place");
        };
        match tag {
            COUNT_DISPLAYS => {
                STEP.set(0);
                values[0] = 1;
            }
            DISPLAY_SIZE => values.copy_from_slice(&[1920, 1080]),
            SET_PHYSICAL_SIZE => {
                step(0);
                assert_eq!(values, [960, 540]);
            }
            SET_VIRTUAL_SIZE => {
                step(1);
                assert_eq!(values, [960, 540]);
            }
            SET_DEPTH => {
                step(2);
                assert_eq!(values, [16]);
            }
            SET_OFFSET => step(3),
            ALLOCATE => {
                step(4);
                assert_eq!(values[0] % 16, 0, "an alignment");
                values.copy_from_slice(&[0xfe40_0000, 1920 * 540]);
            }
            PITCH => {
                step(5);
                values[0] = 1920;
            }
            _ => return None,
        }
        Some(values.len() * 4)
    }

    /// The same with one answer changed.
    macro_rules! but {
        ($tag:pat => $answer:expr) => {
            |tag, values: &mut [u32]| {
                let length = good(tag, values);
                match tag {
                    $tag => {
                        let answer: Option<&[u32]> = $answer;
                        values[..answer?.len()].copy_from_slice(answer?);
                        length
                    }
                    _ => length,
                }
            }
        };
    }

    fn asked(reply: fn(u32, &mut [u32]) -> Option<usize>) -> Result<Framebuffer, FramebufferError> {
        request(&Mailbox::new(&videocore(reply)))
    }

    #[test]
    fn a_picture_of_half_the_displays_size_lies_below_1_gib_without_its_alias() {
        let picture = asked(good).unwrap();
        assert_eq!((picture.width, picture.height, picture.pitch), (960, 540, 1920));
        assert_eq!(picture.memory, 0x3e40_0000..0x3e40_0000 + 1920 * 540);
    }

    #[test]
    fn firmware_may_give_another_depth_size_and_pitch_than_it_was_asked_for() {
        let answer: fn(u32, &mut [u32]) -> Option<usize> = |tag, values| {
            let length = good(tag, values);
            match tag {
                SET_DEPTH => values[0] = 32,
                SET_VIRTUAL_SIZE => values.copy_from_slice(&[800, 480]),
                PITCH => values[0] = 3328,
                ALLOCATE => values[1] = 3328 * 480,
                _ => {}
            }
            length
        };
        let picture = asked(answer).unwrap();
        assert_eq!((picture.width, picture.height, picture.pitch), (800, 480, 3328));
        assert_eq!(picture.depth, Depth::ThirtyTwo);
        // Some align as little as messages are aligned.
        let picture = asked(but!(ALLOCATE => Some(&[0xfe40_0010, 1920 * 540]))).unwrap();
        assert_eq!(picture.memory.start, 0x3e40_0010);
    }

    #[test]
    fn a_firmware_that_does_not_count_displays_is_asked_all_the_same() {
        assert!(asked(but!(COUNT_DISPLAYS => None)).is_ok());
    }

    #[test]
    fn no_display_no_buffer_and_a_silent_videocore_are_told_apart() {
        assert_eq!(asked(but!(COUNT_DISPLAYS => Some(&[0]))), Err(FramebufferError::NoDisplay));
        assert_eq!(asked(but!(ALLOCATE => Some(&[0, 0]))), Err(FramebufferError::NoBuffer));
        assert_eq!(asked(but!(ALLOCATE => Some(&[0xc000_0000, 4]))), Err(FramebufferError::NoBuffer));
        let mut deaf = videocore(good);
        deaf.deaf = true;
        assert_eq!(request(&Mailbox::new(&deaf)), Err(MailboxError::Silent.into()));
        let unknown = Err(MailboxError::Unanswered { tag: ALLOCATE }.into());
        assert_eq!(asked(but!(ALLOCATE => None)), unknown);
    }

    #[test]
    fn a_picture_that_would_be_written_past_its_memory_is_refused() {
        let odd = |result: Result<Framebuffer, FramebufferError>| match result {
            Err(FramebufferError::Odd { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(odd(asked(but!(SET_DEPTH => Some(&[24])))), "depth");
        assert_eq!(odd(asked(but!(PITCH => Some(&[1918])))), "pitch");
        assert_eq!(odd(asked(but!(PITCH => Some(&[0xffff_fff0])))), "pitch");
        assert_eq!(odd(asked(but!(ALLOCATE => Some(&[0x3e40_0000, 1920 * 540 - 1])))), "size");
        assert_eq!(odd(asked(but!(ALLOCATE => Some(&[0x3fff_0000, 1920 * 540])))), "address");
        assert_eq!(odd(asked(but!(ALLOCATE => Some(&[0x3e40_0008, 1920 * 540])))), "address");
        assert_eq!(odd(asked(but!(SET_VIRTUAL_SIZE => Some(&[0, 540])))), "width");
        assert_eq!(odd(asked(but!(SET_VIRTUAL_SIZE => Some(&[960, 0xffff])))), "height");
    }

    #[test]
    fn pictures_are_small_and_have_the_displays_shape() {
        let sizes = [(1920, 1080), (3840, 2160), (1280, 720), (1366, 768), (640, 480), (0, 0), (99_999, 4)];
        let pictures = [(960, 540), (960, 540), (1280, 720), (683, 384), (640, 480), (640, 480), (640, 480)];
        assert_eq!(sizes.map(picture_for), pictures);
    }

    fn picture(depth: Depth) -> Framebuffer {
        Framebuffer { width: 3, height: 2, pitch: 4 * depth.bytes(), depth, memory: 0..0 }
    }

    #[test]
    fn greys_are_written_in_their_place_and_never_past_a_row() {
        let memory: &'static [AtomicU16] = (0..8).map(|_| AtomicU16::new(7)).collect::<Vec<_>>().leak();
        let surface = Surface::new(&picture(Depth::Sixteen), Pixels::Sixteen(memory)).unwrap();
        surface.write(1, 0, [0xff, 0x80, 0xff, 0xff].into_iter());
        surface.write(3, 0, [0xff].into_iter());
        surface.write(0, 2, [0xff].into_iter());
        surface.write(2, 1, [0].into_iter());
        let now: Vec<u16> = memory.iter().map(|pixel| pixel.load(Ordering::Relaxed)).collect();
        assert_eq!(now, [7, 0xffff, 0x8410, 7, 7, 7, 0, 7]);
    }

    #[test]
    fn pixels_of_32_bits_are_solid_and_a_memory_that_is_too_short_is_none() {
        let memory: &'static [AtomicU32] = (0..8).map(|_| AtomicU32::new(7)).collect::<Vec<_>>().leak();
        let surface = Surface::new(&picture(Depth::ThirtyTwo), Pixels::ThirtyTwo(memory)).unwrap();
        surface.clear();
        surface.write(0, 0, [0x12].into_iter());
        let now: Vec<u32> = memory.iter().map(|pixel| pixel.load(Ordering::Relaxed)).collect();
        let black = 0xff00_0000;
        assert_eq!(now, [0xff12_1212, black, black, 7, black, black, black, 7]);
        assert!(Surface::new(&picture(Depth::Sixteen), Pixels::ThirtyTwo(memory)).is_none());
        assert!(Surface::new(&picture(Depth::ThirtyTwo), Pixels::ThirtyTwo(&memory[..7])).is_none());
    }
}
