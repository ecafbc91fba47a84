//! Noise: what a receiver hears where no cable holds its line.
//!
//! The UARTs of a Raspberry Pi 5 hear characters that nobody sent when nothing is plugged in: they have kept boot loaders that any
//! key stops from starting a system (`raspberrypi/rpi-eeprom`, issue 672; openSUSE, bug 1251192). To us a Ctrl-C is
//! what would stop loading the model, and a return what would have it answer to rubbish. So until somebody is asked for a
//! line, what came is looked at as a whole: a Ctrl-C counts if nothing else came, and all is thrown away unless it is
//! text. Lines that a script, or a person in a hurry, types ahead are text, and stay.
//! Later on noise and keys can't be told apart: with a display and no cable, rubbish may appear at the prompt.

/// As much of what came as is looked at, bytes.
pub const LOOKED_AT: usize = 256;

/// Ctrl-C, as terminals send it.
const CTRL_C: u8 = 3;

/// Whether someone can have typed this: whole characters, the last perhaps unfinished, and no NUL, which a line that
/// is held low for a moment looks like.
pub fn is_typed(bytes: &[u8]) -> bool {
    let text = core::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
    text && !bytes.contains(&0)
}

/// Whether somebody asks to stop with this: by Ctrl-C, once or again, and nothing else.
pub fn asks_to_stop(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| byte == CTRL_C)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_typed_ahead_are_text_in_any_language_and_cut_anywhere() {
        let line = "set temperature 0\rWie spät ist es?\t\x1b[A\x7f\r\u{1f600}".as_bytes();
        for end in 0..=line.len() {
            assert!(is_typed(&line[..end]), "{:?}", &line[..end]);
        }
    }

    #[test]
    fn what_an_open_line_gives_is_no_text() {
        for noise in [&b"\xff"[..], b"\xfe\xfc\r", b"hello\xf8\r", b"\0", b"ok\0\r", b"\x80", b"\xc3\r"] {
            assert!(!is_typed(noise), "{noise:?}");
        }
    }

    #[test]
    fn a_ctrl_c_among_other_bytes_is_no_wish_to_stop() {
        for (bytes, stops) in
            [(&b""[..], false), (b"\x03", true), (b"\x03\x03", true), (b"\xff\x03", false), (b"a\x03", false)]
        {
            assert_eq!(asks_to_stop(bytes), stops, "{bytes:?}");
        }
    }
}
