//! Which cases: as a user asked for them, or those that tell most in a minute.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What may follow `bench`, in words.
pub const HELP: &str = "\
bench                      what tells most, in about a minute
bench PROMPT               read a prompt of so many tokens, then write 32
bench PROMPT DECODE        ... then write so many
bench PROMPT DECODE CORES  ... on so many cores instead of all
Each may be several numbers with commas, and every combination is measured:
`bench 32,256 16 1,4` runs four. Ctrl-C ends it.";

/// Tokens that are decoded if nothing is said.
const DECODE: usize = 32;
/// Prompts and the rest of a plan that nobody chose. The first is short, so that a slow machine shows what it is.
const STANDARD: [(usize, usize); 3] = [(32, 16), (128, 32), (512, 32)];
/// What a plan that nobody chose may take.
const MINUTE: u64 = 60_000_000_000;

/// One run: a prompt, then tokens one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Tokens of the prompt: at least 1.
    pub prompt: usize,
    /// Tokens decoded after it.
    pub decode: usize,
    /// Cores at work.
    pub cores: usize,
}

/// The cases of one `bench`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are run.
    pub cases: Vec<Case>,
    /// A case that would not end by then is left out.
    pub limit_nanos: Option<u64>,
}

/// Why what was asked for can't be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadPlan {
    /// Neither a number nor numbers with commas.
    NoNumber(String),
    /// More than three words.
    TooMany,
    /// A prompt of no tokens.
    NoPrompt,
    /// A core count that the machine does not have.
    Cores {
        /// What was asked for.
        wanted: usize,
        /// What there is.
        width: usize,
    },
    /// More tokens than the model was made for.
    Context {
        /// Tokens asked for.
        wanted: usize,
        /// Tokens that the model takes.
        context: usize,
    },
}

impl fmt::Display for BadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber(word) => {
                write!(f, "bench takes numbers, and `{word}` is none (`bench help` says which)")
            }
            Self::TooMany => f.write_str(
                "bench takes up to three numbers: tokens of the prompt, tokens to decode, cores (`bench help`)",
            ),
            Self::NoPrompt => f.write_str("a prompt has at least 1 token"),
            Self::Cores { wanted, width: 1 } => {
                write!(f, "there is one core, and {wanted} can't work")
            }
            Self::Cores { wanted, width } => {
                write!(f, "there are {width} cores: choose 1 to {width} instead of {wanted}")
            }
            Self::Context { wanted, context } => write!(
                f,
                "prompt and decoded tokens are {wanted} together and this model takes {context}: choose fewer"
            ),
        }
    }
}

impl core::error::Error for BadPlan {}

/// A plan is for a machine of `width` cores and a model that takes `context` tokens.
impl Plan {
    /// The plan that words ask for; [`Self::standard`] for none.
    pub fn parse(text: &str, width: usize, context: usize) -> Result<Self, BadPlan> {
        let mut words = text.split_whitespace();
        let Some(prompts) = words.next() else { return Ok(Self::standard(width, context)) };
        let list = |word: &str| {
            let number = |part: &str| part.parse().map_err(|_| BadPlan::NoNumber(part.into()));
            word.split(',').map(number).collect::<Result<Vec<usize>, _>>()
        };
        let prompts = list(prompts)?;
        let decodes = words.next().map_or(Ok(alloc::vec![DECODE]), list)?;
        let cores = words.next().map_or(Ok(alloc::vec![width]), list)?;
        if words.next().is_some() {
            return Err(BadPlan::TooMany);
        }
        Self::of(&prompts, &decodes, &cores, width, context)
    }

    /// Every combination of these.
    pub fn of(
        prompts: &[usize],
        decodes: &[usize],
        cores: &[usize],
        width: usize,
        context: usize,
    ) -> Result<Self, BadPlan> {
        let mut cases = Vec::new();
        for &cores in cores {
            if !(1..=width).contains(&cores) {
                return Err(BadPlan::Cores { wanted: cores, width });
            }
            for &prompt in prompts {
                for &decode in decodes {
                    let wanted = prompt.saturating_add(decode);
                    if prompt == 0 {
                        return Err(BadPlan::NoPrompt);
                    }
                    if wanted > context {
                        return Err(BadPlan::Context { wanted, context });
                    }
                    cases.push(Case { prompt, decode, cores });
                }
            }
        }
        Ok(Self { cases, limit_nanos: None })
    }

    /// Several lengths on all cores, the shorter ones on fewer, too; each only if the minute allows it.
    pub fn standard(width: usize, context: usize) -> Self {
        let mut cases = Vec::new();
        let fewer = [width / 2, 1].map(|cores| cores.max(1));
        for (prompt, decode) in STANDARD.into_iter().filter(|(prompt, decode)| prompt + decode <= context) {
            let with = |cores| Case { prompt, decode, cores };
            cases.push(with(width));
            if prompt < 512 {
                cases.extend(fewer.into_iter().filter(|&cores| cores < width).map(with));
            }
        }
        cases.dedup();
        Self { cases, limit_nanos: Some(MINUTE) }
    }

    /// How long a case may take, from one that was measured: as long a token, if it has as many cores, more with fewer.
    pub(super) fn estimate(case: Case, known: &[super::Measured]) -> u64 {
        let Some(like) = known.iter().rev().min_by_key(|measured| measured.case.cores.abs_diff(case.cores))
        else {
            return 0;
        };
        let slower = |nanos: u64| nanos as f64 * (like.case.cores as f64 / case.cores as f64).max(1.0);
        let each = |phase: &super::Phase| slower(phase.nanos) / phase.tokens.max(1) as f64;
        (each(&like.prefill) * case.prompt as f64 + each(&like.decode) * case.decode as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn cases(text: &str) -> Vec<(usize, usize, usize)> {
        let plan = Plan::parse(text, 4, 1000).unwrap();
        assert_eq!(plan.limit_nanos, None);
        plan.cases.iter().map(|case| (case.prompt, case.decode, case.cores)).collect()
    }

    #[test]
    fn numbers_and_lists_of_numbers_are_every_combination() {
        assert_eq!(cases("64"), [(64, 32, 4)]);
        assert_eq!(cases(" 64  0 "), [(64, 0, 4)]);
        assert_eq!(cases("8,16 4 1,4"), [(8, 4, 1), (16, 4, 1), (8, 4, 4), (16, 4, 4)]);
        assert_eq!(cases("999 1"), [(999, 1, 4)]);
    }

    #[test]
    fn what_can_not_be_measured_is_refused_with_a_reason() {
        for (text, words) in [
            ("me a song", "`me` is none"),
            ("8,", "`` is none"),
            ("-1", "`-1` is none"),
            ("8 8 8 8", "up to three numbers"),
            ("0", "at least 1 token"),
            ("8 8 5", "choose 1 to 4 instead of 5"),
            ("8 8 0", "choose 1 to 4 instead of 0"),
            ("999 2", "1001 together and this model takes 1000"),
            ("18446744073709551615 1", "this model takes 1000"),
        ] {
            let error = Plan::parse(text, 4, 1000).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_standard_plan_fits_machine_and_model() {
        for (width, context, count) in [(4, 8192, 7), (1, 8192, 3), (2, 8192, 5), (4, 256, 6), (4, 10, 0)] {
            let plan = Plan::parse("", width, context).unwrap();
            assert_eq!(plan.cases.len(), count, "{width} {context}");
            assert!(plan.limit_nanos.is_some());
            assert!(plan.cases.iter().all(|case| (1..=width).contains(&case.cores)));
        }
    }
}
