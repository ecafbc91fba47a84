//! Pre-tokenizers by name: which characters stay together before any merging.
//!
//! A word never crosses a boundary drawn here. Names and patterns are those of llama.cpp (`tokenizer.ggml.pre`,
//! version as in `tests/data`), which differ from the models' own where its regular expressions could not express them:
//! a model in a GGUF file is used with the former. Each row was checked against it.

use super::pattern::Pattern;
use alloc::vec::Vec;

/// A way to cut text, applied to each piece that the way before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Around each match of a pattern: see [`super::pattern`].
    Match(&'static str),
    /// Before every third ASCII digit, counted from the end of their run.
    BeforeThirdDigit,
    /// After a run of numbers, and before every third of them, counted from the end; not before the run.
    AfterThirdNumber,
}

/// A pre-tokenizer, and what llama.cpp sets along with it.
#[derive(Clone, Copy, Debug)]
pub struct PreTokenizer {
    /// What `tokenizer.ggml.pre` calls it.
    pub names: &'static [&'static str],
    /// How text is cut.
    pub steps: &'static [Step],
    /// Whether a word that is a token is that token, whatever merges would make of it.
    pub words_first: bool,
    /// Whether a text begins with the start token when the file says nothing about it.
    pub adds_bos: bool,
    /// Whether it does even when the file says no.
    pub always_bos: bool,
    /// Whether there is a start token when the file names none.
    pub has_bos: bool,
    /// Whether merging begins at characters, with U+2581 for a space, and what is no token is spelt `<0x41>`, as
    /// SentencePiece has it; else it begins at bytes. Only new lines are words that may be tokens at once then.
    pub characters: bool,
}

/// What most rows have in common.
#[rustfmt::skip]
const PLAIN: PreTokenizer =
    PreTokenizer {
        names: &[], steps: &[], words_first: false, adds_bos: false, always_bos: false, has_bos: true, characters: false,
    };

/// English endings, in any case.
macro_rules! endings {
    () => {
        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    };
}
/// White space up to the last one before something else: that one goes with what follows, or stands alone.
macro_rules! spaces {
    () => {
        r"|\s+(?!\S)|\s+"
    };
}
/// The same after white space that ends in new lines.
macro_rules! lines {
    () => {
        concat!(r"|\s*[\r\n]+", spaces!())
    };
}
/// Signs, with a space before and new lines after them, and white space.
macro_rules! signs {
    () => {
        concat!(r"| ?[^\s\p{L}\p{N}]+[\r\n]*", lines!())
    };
}
/// Words whose lower-case letters follow their capitals, given the two classes, and what may end them.
macro_rules! cased {
    ($upper:literal, $lower:literal, $ending:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?",
            $upper,
            "*",
            $lower,
            "+",
            $ending,
            r"|[^\r\n\p{L}\p{N}]?",
            $upper,
            "+",
            $lower,
            "*",
            $ending,
        )
    };
}
/// A sign before ASCII letters; words with marks; signs.
macro_rules! deepseek {
    () => {
        concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
            r"| ?[\p{P}\p{S}]+",
        )
    };
}

/// Chinese characters, as llama.cpp's `unicode_cpt_is_han` has them.
macro_rules! han {
    () => {
        concat!(
            "\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}",
            "\u{2b820}-\u{2ceaf}\u{2ceb0}-\u{2ebef}\u{f900}-\u{faff}\u{2f800}-\u{2fa1f}",
        )
    };
}

const GPT2: Step =
    Step::Match(concat!(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+", spaces!()));
const LINES: Step = Step::Match(r"[^\n]+|[\n]+");
const NUMBER: Step = Step::Match(r"\p{N}");
const UP_TO_THREE: Step = Step::Match(r"\p{N}{1,3}");
const CHINESE: Step = Step::Match("[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+");
const CHINESE_JAPANESE: Step = Step::Match("[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+");
const BETWEEN_SIGNS: Step =
    Step::Match(" ?[^(\\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+");
const QWEN2: Step = Step::Match(concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}", signs!()));
const LLAMA3: Step = Step::Match(concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}", signs!()));
const GPT4O: Step = Step::Match(concat!(
    cased!(r"[\p{L}--a-z]", r"[\p{L}--A-Z]", concat!(endings!(), "?")),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
    lines!()
));
const DEEPSEEK3: &[Step] =
    &[UP_TO_THREE, CHINESE_JAPANESE, Step::Match(concat!(deepseek!(), r"[\r\n]*", lines!()))];

/// Pre-tokenizers we run. A new name goes into a row, a new way to cut is a row.
#[rustfmt::skip]
pub static PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        steps: &[Step::Match(r"[\p{P}\$\+<=>\^~\|]+"), GPT2, Step::Match(r"\p{N}+"), Step::Match("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
            "jina-v5-nano",
        ],
        steps: &[LLAMA3], words_first: true, adds_bos: true, ..PLAIN
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], steps: &[LLAMA3], ..PLAIN },
    PreTokenizer { names: &["chatglm-bpe"], steps: &[LLAMA3], has_bos: false, ..PLAIN },
    PreTokenizer { names: &["glm4", "glm5"], steps: &[LLAMA3], words_first: true, has_bos: false, ..PLAIN },
    PreTokenizer {
        names: &["minicpm5"],
        steps: &[UP_TO_THREE, Step::Match(concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+", signs!()))],
        words_first: true, ..PLAIN
    },
    PreTokenizer {
        names: &["jais-2"],
        steps: &[Step::Match(concat!(
            endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
            r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)",
            r"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
            "modern-bert", "jina-v1-en", "jina-v2-code", "roberta-bpe", "mpt", "olmo", "jais", "exaone4", "trillion",
            "granite-docling"],
        steps: &[GPT2], ..PLAIN
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        steps: &[NUMBER, GPT2], ..PLAIN
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2"],
        steps: &[QWEN2], ..PLAIN
    },
    PreTokenizer { names: &["laguna"], steps: &[LINES, QWEN2], ..PLAIN },
    PreTokenizer {
        names: &["gemma4", "granite-embed-multi-311m"],
        steps: &[LINES], words_first: true, adds_bos: true, always_bos: true, characters: true, ..PLAIN
    },
    PreTokenizer { names: &["sarvam-moe"], steps: &[LINES], characters: true, ..PLAIN },
    PreTokenizer {
        names: &["qwen35"],
        steps: &[Step::Match(concat!(
            endings!(), r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", lines!()
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["ufakzeka"],
        steps: &[Step::Match(concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}", signs!()))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["seed-coder"],
        steps: &[Step::Match(concat!(
            endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+", lines!()
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        steps: &[Step::Match(concat!(
            endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]", spaces!()
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["exaone-moe"],
        steps: &[Step::Match(concat!(
            endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}(?:[\p{L}\p{M}]| \p{L})*|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]", spaces!()
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Match(concat!(
            cased!(r"[\p{L}--a-z]", r"[\p{L}--A-Z]", ""), r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*", lines!()
        ))],
        words_first: true, adds_bos: true, ..PLAIN
    },
    PreTokenizer { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], steps: &[GPT4O], ..PLAIN },
    PreTokenizer {
        names: &["granite-embed-multi-97m"],
        steps: &[Step::Match(concat!(
            cased!(r"[\p{L}\p{M}--a-z]", r"[\p{L}\p{M}--A-Z]", concat!(endings!(), "?")),
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*", lines!()
        ))],
        words_first: true, ..PLAIN
    },
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        // llama.cpp knows letters but not their case here, so any may follow any.
        steps: &[Step::AfterThirdNumber, Step::Match(concat!(
            cased!(r"[\p{L}\p{M}]", r"[\p{L}\p{M}]", concat!(endings!(), "?")),
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*", lines!()
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["youtu"],
        steps: &[
            Step::Match(concat!(
                "[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}",
                "\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+|[\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}",
                "\u{30a0}-\u{30ff}]+",
            )),
            Step::Match(concat!(
                cased!(r"[\p{L}\p{M}]", r"[\p{L}\p{M}]", concat!(endings!(), "?")),
                r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*", lines!()
            )),
        ],
        words_first: true, ..PLAIN
    },
    PreTokenizer {
        names: &["kimi-k2"],
        steps: &[Step::Match(concat!(
            "[", han!(), "]+", r"|[^\r\n\p{L}\p{N}]?[\p{L}--", han!(), "]+",
            endings!(), r"?|\p{N}{1,3}", signs!()
        ))],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        steps: &[
            Step::Match(r"[\r\n]"),
            Step::Match(concat!(
                "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}",
                "\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}",
                "\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}",
                "\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}",
                "\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}",
                "\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}",
                "\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}",
                "\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}",
                "\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}",
                "\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}",
                "\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}",
                "\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
            )),
            Step::Match("\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+"),
            Step::Match(r"\s+$"),
            CHINESE,
            Step::Match(r"\p{N}+"),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[Step::Match(r"[\r\n]"), Step::Match(r"\s?\p{L}+"), Step::Match(r"\s?\p{P}+"), CHINESE, NUMBER],
        ..PLAIN
    },
    PreTokenizer { names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], steps: DEEPSEEK3, ..PLAIN },
    PreTokenizer {
        names: &["spark2_5"],
        steps: &[
            UP_TO_THREE, CHINESE_JAPANESE, Step::Match(concat!(deepseek!(), r"|[\r\n]", spaces!())), NUMBER,
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["afmoe"],
        steps: &[
            Step::AfterThirdNumber,
            Step::Match(concat!(
                "[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{8c48}-\u{faff}\u{3040}-\u{309f}\u{30a0}-\u{30ff}\u{ff65}-\u{ff9f}",
                "\u{2f00}-\u{2fdf}\u{e40}-\u{e7f}\u{e80}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\u{aa60}-\u{aa7f}",
                "\u{a9e0}-\u{a9ff}\u{ac00}-\u{d7af}\u{1100}-\u{11ff}]+",
            )),
            Step::Match(concat!(deepseek!(), r"[\r\n]*", lines!())),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["falcon"],
        steps: &[Step::Match(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, Step::Match("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    PreTokenizer { names: &["poro-chat", "bloom", "gpt3-finnish"], steps: &[BETWEEN_SIGNS], ..PLAIN },
    PreTokenizer { names: &["viking"], steps: &[BETWEEN_SIGNS, NUMBER], ..PLAIN },
    PreTokenizer { names: &["superbpe"], steps: &[Step::Match(r"\p{N}+"), Step::BeforeThirdDigit], ..PLAIN },
    PreTokenizer {
        names: &["chameleon"],
        steps: &[
            Step::Match("<sentinel:[0-9]+>"), Step::Match("IMGIMG[A-I]{1,4}Z"), Step::Match(r"[\t\n]|    |  "), NUMBER,
            Step::Match(r"[\p{P}!-/:-@\[-`{-~]"), GPT2,
        ],
        adds_bos: true, ..PLAIN
    },
];

impl PreTokenizer {
    /// The pre-tokenizer of a name, if it is one we run.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name))
    }

    /// All names we run.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied()
    }
}

/// A pre-tokenizer ready for use.
#[derive(Clone, Debug)]
pub(super) struct Splitter {
    steps: Vec<Ready>,
}

/// A [`Step`] whose pattern was read.
#[derive(Clone, Debug)]
enum Ready {
    Match(Pattern),
    BeforeThirdDigit,
    AfterThirdNumber(Pattern),
}

impl Splitter {
    /// Reads the patterns of some steps; `None` when one is not of the syntax, which no row of the table is.
    pub fn new(steps: &[Step]) -> Option<Self> {
        let ready = |step: &Step| {
            Some(match step {
                Step::Match(pattern) => Ready::Match(Pattern::new(pattern)?),
                Step::BeforeThirdDigit => Ready::BeforeThirdDigit,
                Step::AfterThirdNumber => Ready::AfterThirdNumber(Pattern::new(r"\p{N}+")?),
            })
        };
        Some(Self { steps: steps.iter().map(ready).collect::<Option<_>>()? })
    }

    /// Calls `each` with every word, in order; together they are the text.
    pub fn split<'a>(&self, text: &'a str, each: &mut dyn FnMut(&'a str)) {
        split(&self.steps, text, each);
    }
}

fn split<'a>(steps: &[Ready], text: &'a str, each: &mut dyn FnMut(&'a str)) {
    let Some((step, others)) = steps.split_first() else { return each(text) };
    let mut next = |piece| split(others, piece, each);
    match step {
        Ready::Match(pattern) => pattern.split(text, &mut next),
        Ready::BeforeThirdDigit => {
            let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
            let mut from = 0;
            let mut digits = 0; // of the run from the current one on
            for at in 0..text.len() {
                if !is_digit(at) {
                    continue;
                }
                if at == 0 || !is_digit(at - 1) {
                    digits = (at..).take_while(|at| is_digit(*at)).count();
                }
                if digits % 3 == 0 && at > from {
                    next(&text[from..at]);
                    from = at;
                }
                digits -= 1;
            }
            next(&text[from..]);
        }
        Ready::AfterThirdNumber(numbers) => {
            let (mut from, mut at) = (0, 0);
            numbers.split(text, &mut |piece| {
                if numbers.begins(piece) {
                    let count = piece.chars().count();
                    for (index, c) in piece.chars().enumerate() {
                        at += c.len_utf8();
                        if (count - 1 - index) % 3 == 0 {
                            next(&text[from..at]);
                            from = at;
                        }
                    }
                } else {
                    at += piece.len();
                }
            });
            if from < text.len() {
                next(&text[from..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        let row = PreTokenizer::named(name).expect("a known name");
        let mut words = Vec::new();
        Splitter::new(row.steps).expect("good patterns").split(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn a_space_goes_with_the_word_after_it_and_a_run_of_them_keeps_all_but_one() {
        assert_eq!(words("gpt-2", "a b  c"), ["a", " b", " ", " c"]);
        assert_eq!(words("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(words("gpt-2", "a   "), ["a", "   "]);
        assert_eq!(words("gpt-2", " "), [" "]);
        assert_eq!(words("gpt-2", "\u{3000}\u{3000}x"), ["\u{3000}", "\u{3000}", "x"]);
    }

    #[test]
    fn english_endings_stand_alone_only_after_a_straight_apostrophe() {
        assert_eq!(words("gpt-2", "I'll it's"), ["I", "'ll", " it", "'s"]);
        assert_eq!(words("gpt-2", "I'LL"), ["I", "'", "LL"]);
        assert_eq!(words("llama3", "I'LL"), ["I", "'LL"]);
        assert_eq!(words("gpt-2", "x!'s"), ["x", "!'", "s"]);
        assert_eq!(words("gpt-4o", "I'll"), ["I'll"]);
    }

    #[test]
    fn digits_stand_alone_or_in_threes_from_either_side() {
        assert_eq!(words("gpt-2", "a 123"), ["a", " 123"]);
        assert_eq!(words("smollm", "a  12½x"), ["a", "  ", "1", "2", "½", "x"]);
        assert_eq!(words("llama3", "12345"), ["123", "45"]);
        assert_eq!(words("superbpe", "a12345678 ½123b"), ["a", "12", "345", "678", " ", "½", "123", "b"]);
        assert_eq!(words("tiny_aya", "a1234567b"), ["a", "1", "234", "567", "b"]);
        assert_eq!(words("falcon", "12345"), ["123", "45"]);
    }

    #[test]
    fn every_name_stands_once_and_its_patterns_are_read() {
        let mut names: Vec<_> = PreTokenizer::names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(PRE_TOKENIZERS.iter().all(|row| Splitter::new(row.steps).is_some()));
        assert!(PreTokenizer::named("klingon").is_none());
    }

    proptest! {
        #[test]
        fn the_words_together_are_the_text(text in any::<std::string::String>()) {
            for row in PRE_TOKENIZERS {
                let words = words(row.names[0], &text);
                prop_assert_eq!(words.concat(), text.clone());
                prop_assert!(words.iter().all(|word| !word.is_empty()));
            }
        }
    }
}
