//! Bytes to characters while they come.

use alloc::string::String;
use alloc::vec::Vec;

/// Bytes in, whole characters out: tokens end in the middle of a character as they please.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// A character's beginning, at most three bytes.
    held: Vec<u8>,
    text: String,
}

impl Utf8Stream {
    /// A stream with nothing held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes and gives the text that is now whole. What can never become a character is U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.held.extend_from_slice(bytes);
        self.text.clear();
        let mut rest = self.held.as_slice();
        let waiting = loop {
            match core::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    break 0;
                }
                Err(error) => {
                    let (whole, from) = rest.split_at(error.valid_up_to());
                    self.text.push_str(core::str::from_utf8(whole).unwrap_or_default());
                    let Some(bad) = error.error_len() else { break from.len() };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &from[bad..];
                }
            }
        };
        self.held.drain(..self.held.len() - waiting);
        &self.text
    }

    /// Whether no part of a character waits for the rest.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The end: a character that never became whole is U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_holds_what_is_not_whole_and_replaces_what_never_will_be() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push("a😀".as_bytes().split_at(3).0), "a");
        assert_eq!(stream.push(&"a😀".as_bytes()[3..]), "😀");
        assert_eq!(stream.push(b"\xff\xe2\x82"), "\u{fffd}");
        assert_eq!(stream.push(b"x"), "\u{fffd}x");
        assert_eq!(stream.push(b""), "");
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(Utf8Stream::new().finish(), "");
    }

    proptest! {
        #[test]
        fn a_stream_cut_anywhere_gives_the_text_decoded_at_once(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80..0xc0u8, 0xe0..0xf8u8], 0..40),
            cut in prop::collection::vec(0..40usize, 0..6),
        ) {
            let mut cut: Vec<usize> = cut.into_iter().map(|at| at.min(bytes.len())).collect();
            cut.sort_unstable();
            cut.push(bytes.len());
            let (mut stream, mut text, mut from) = (Utf8Stream::new(), String::new(), 0);
            for to in cut {
                text += stream.push(&bytes[from..to]);
                from = to;
            }
            text += &stream.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
