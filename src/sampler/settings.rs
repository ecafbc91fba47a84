//! Settings: what can be set about the choice of tokens, as rows; what a model's file says about it.

use crate::gguf::{Metadata, Value};
use alloc::string::String;
use core::fmt;

/// How tokens are chosen. The defaults are llama.cpp's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Divides the logits: 0 always takes the best token, 1 draws by the model's own probabilities.
    pub temperature: f32,
    /// Only this many of the best tokens are drawn from; 0 is all.
    pub top_k: usize,
    /// Only the best tokens whose probabilities reach this sum are drawn from, at least one; 1 is all.
    pub top_p: f32,
    /// Only tokens with at least this share of the best one's probability are drawn from; 0 is all.
    pub min_p: f32,
    /// Only tokens about as surprising as is to be expected are drawn from, up to this sum of probabilities; 1 is all.
    pub typical_p: f32,
    /// Only tokens whose logit is within so many standard deviations of the best one's are drawn from; 0 is all.
    pub top_n_sigma: f32,
    /// How likely it is that the top choices are excluded; 0 is never.
    pub xtc_probability: f32,
    /// From which probability on a token is a top choice; above 0.5 none is.
    pub xtc_threshold: f32,
    /// What logits of recent tokens are divided by (multiplied when negative); 1 changes nothing.
    pub repeat_penalty: f32,
    /// Taken off the logits of recent tokens; 0 changes nothing.
    pub presence_penalty: f32,
    /// Taken off the logits of recent tokens, times how often they occur; 0 changes nothing.
    pub frequency_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last_n: usize,
    /// Taken off the logit of a token that would go on repeating what was there before; 0 is off.
    pub dry_multiplier: f32,
    /// What that grows by with each token of the repetition.
    pub dry_base: f32,
    /// How long a repetition may be.
    pub dry_allowed_length: usize,
    /// How many tokens a repetition is looked for in.
    pub dry_last_n: usize,
    /// 2: a choice that keeps the text at a constant surprise, in place of all of the above but the temperature. 0: off.
    pub mirostat: usize,
    /// That surprise, in bits a token.
    pub mirostat_tau: f32,
    /// How quickly it is steered to.
    pub mirostat_eta: f32,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Settings {
    /// llama.cpp's.
    pub const DEFAULT: Self = Self {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.05,
        typical_p: 1.0,
        top_n_sigma: 0.0,
        xtc_probability: 0.0,
        xtc_threshold: 0.1,
        repeat_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        repeat_last_n: 64,
        dry_multiplier: 0.0,
        dry_base: 1.75,
        dry_allowed_length: 2,
        dry_last_n: 64,
        mirostat: 0,
        mirostat_tau: 5.0,
        mirostat_eta: 0.1,
        seed: 0,
    };

    /// Whether the next token always is the likeliest one, the lowest of equals, whatever came before: then nobody needs
    /// the logits, and tokens may be guessed beforehand.
    pub fn takes_likeliest(&self) -> bool {
        self.is_greedy() && !self.penalises() && !self.breaks_repetition()
    }

    /// Whether the best token is taken. Two filters may drop the best one, unless it is the only one.
    pub(super) fn is_greedy(&self) -> bool {
        let keeps_best = self.typical_p.is_nan() || self.typical_p >= 1.0;
        let keeps_best = keeps_best && (self.xtc_probability.is_nan() || self.xtc_probability <= 0.0);
        match self.has_mirostat() {
            true => self.is_cold(),
            false => self.top_k == 1 || (self.is_cold() && keeps_best),
        }
    }

    /// Whether nothing is left to chance.
    pub(super) fn is_cold(&self) -> bool {
        !self.temperature.is_finite() || self.temperature <= 0.0
    }

    pub(super) fn has_mirostat(&self) -> bool {
        self.mirostat != 0
    }

    pub(super) fn penalises(&self) -> bool {
        let repeat = self.repeat_penalty;
        let repeat = repeat != 1.0 && repeat.is_finite() && repeat > 0.0;
        let other = |penalty: f32| penalty != 0.0 && penalty.is_finite();
        let any = repeat || other(self.presence_penalty) || other(self.frequency_penalty);
        any && self.repeat_last_n > 0 && !self.has_mirostat()
    }

    /// Whether DRY is on.
    pub fn breaks_repetition(&self) -> bool {
        let (multiplier, base) = (self.dry_multiplier, self.dry_base);
        let on = multiplier != 0.0 && multiplier.is_finite() && base.is_finite() && base >= 1.0;
        on && self.dry_last_n > 0 && !self.has_mirostat()
    }

    /// The defaults for a model: what its file asks for (`general.sampling.*`), else llama.cpp's. Tells of each field that
    /// the file sets. What the file says out of bounds is left out.
    pub fn of_file(metadata: &Metadata, tell: &mut dyn FnMut(&'static Field)) -> Self {
        let mut settings = Self::default();
        // Filters that are not named in the sequence of a chain are off. Our order is the default one of llama.cpp.
        if let Some(Value::String(sequence)) = metadata.get("general.sampling.sequence") {
            let named =
                |field: &Field| field.steps.iter().any(|step| sequence.split(';').any(|s| s == *step));
            for field in FIELDS.iter().filter(|field| !field.steps.is_empty() && !named(field)) {
                field.put(&mut settings, field.off);
                tell(field);
            }
        }
        for field in FIELDS.iter().filter(|field| !field.in_file.is_empty()) {
            let key = |key: &str| metadata.get(&alloc::format!("general.sampling.{key}"));
            let number = match key(field.in_file) {
                Some(Value::Float(number)) => Some(*number),
                Some(Value::Unsigned(number)) => Some(*number as f64),
                Some(Value::Signed(number)) => Some(*number as f64),
                Some(Value::String(text)) => text.trim().parse().ok(),
                _ => None,
            };
            if number.is_some_and(|number| field.set(&mut settings, number)) {
                tell(field);
            }
        }
        settings
    }
}

/// Where a value of [`Settings`] is.
#[derive(Clone, Copy)]
enum Place {
    Real(fn(&mut Settings) -> &mut f32),
    Count(fn(&mut Settings) -> &mut usize),
}

/// One of the numbers that can be set.
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Another name people know it by.
    pub alias: &'static str,
    /// The rest of the sentence "NAME takes …".
    pub accepts: &'static str,
    /// The smallest number it takes.
    pub least: f64,
    /// The largest.
    pub most: f64,
    place: Place,
    /// Its key in a file, after `general.sampling.`; empty if there is none.
    in_file: &'static str,
    /// Names of its step in a file's chain; empty if it is none that a chain may leave out.
    steps: &'static [&'static str],
    /// Its value when that step is left out.
    off: f64,
}

impl Field {
    /// The field of this name or alias.
    pub fn named(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name || (field.alias == name && !name.is_empty()))
    }

    /// Its place in [`FIELDS`].
    pub fn index(&self) -> usize {
        FIELDS.iter().position(|field| field.name == self.name).unwrap_or(FIELDS.len())
    }

    /// Its value.
    pub fn get(&self, settings: &Settings) -> Number {
        let mut settings = *settings;
        match self.place {
            Place::Real(at) => Number::Real(*at(&mut settings)),
            Place::Count(at) => Number::Count(*at(&mut settings)),
        }
    }

    /// Sets it; says whether it takes this number.
    #[must_use]
    pub fn set(&self, settings: &mut Settings, number: f64) -> bool {
        let whole = matches!(self.place, Place::Real(_)) || libm::floor(number) == number;
        let fits = (self.least..=self.most).contains(&number) && whole;
        // Version 1 of mirostat is not there.
        let fits = fits && !(self.name == "mirostat" && number == 1.0);
        if fits {
            self.put(settings, number);
        }
        fits
    }

    /// Copies it from other settings.
    pub fn copy(&self, to: &mut Settings, from: &Settings) {
        let mut from = *from;
        match self.place {
            Place::Real(at) => *at(to) = *at(&mut from),
            Place::Count(at) => *at(to) = *at(&mut from),
        }
    }

    fn put(&self, settings: &mut Settings, number: f64) {
        match self.place {
            Place::Real(at) => *at(settings) = number as f32,
            Place::Count(at) => *at(settings) = number as usize,
        }
    }

    /// Reads it from what a person wrote.
    #[must_use]
    pub fn read(&self, settings: &mut Settings, text: &str) -> bool {
        text.parse().is_ok_and(|number| self.set(settings, number))
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A real number.
    Real(f32),
    /// A whole one.
    Count(usize),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(number) => write!(f, "{number}"),
            Self::Count(number) => write!(f, "{number}"),
        }
    }
}

macro_rules! field {
    ($name:ident $(($alias:literal))?, $kind:ident, $least:literal..=$most:literal, $accepts:literal
        $(, file $file:literal)? $(, step $off:literal $($step:literal)+)?) => {
        Field {
            name: stringify!($name),
            alias: concat!($($alias)?),
            accepts: $accepts,
            least: $least as f64,
            most: $most as f64,
            place: Place::$kind(|settings| &mut settings.$name),
            in_file: concat!($($file)?),
            steps: &[$($($step),+)?],
            off: 0.0 $(+ $off)?,
        }
    };
}

/// The numbers that can be set, all but the seed, in the order in which people look for them.
pub static FIELDS: &[Field] = &[
    field!(temperature("temp"), Real, 0..=5, "a number from 0 (always the likeliest token) to 5", file "temp"),
    field!(top_k("k"), Count, 0..=1_048_576, "how many of the likeliest tokens to choose from, 0 for all", file "top_k",
        step 0.0 "top_k" "top-k" "topk"),
    field!(top_p("p"), Real, 0..=1, "a share of probability from 0 to 1, 1 for all", file "top_p",
        step 1.0 "top_p" "top-p" "topp" "nucleus"),
    field!(min_p, Real, 0..=1, "a share of the likeliest token's probability from 0 (off) to 1", file "min_p",
        step 0.0 "min_p" "min-p" "minp"),
    field!(
        typical_p("typical"),
        Real,
        0..=1,
        "a share of probability from 0 to 1 for tokens as surprising as is usual, 1 for all"
    ),
    field!(top_n_sigma, Real, 0..=100, "standard deviations of the logits from 0 (off) to 100"),
    field!(xtc_probability, Real, 0..=1, "how likely the top choices are left out, 0 (off) to 1", file "xtc_probability",
        step 0.0 "xtc"),
    field!(xtc_threshold, Real, 0..=1, "the probability of a top choice, 0 to 1; off above 0.5", file "xtc_threshold"),
    field!(repeat_penalty, Real, 0.1..=10, "a number from 0.1 to 10, 1 for none", file "penalty_repeat",
        step 1.0 "penalties"),
    field!(presence_penalty, Real, -100..=100, "a number from -100 to 100, 0 for none"),
    field!(frequency_penalty, Real, -100..=100, "a number from -100 to 100, 0 for none"),
    field!(repeat_last_n, Count, 0..=65_536, "how many tokens the penalties look back, 0 to 65536", file "penalty_last_n"),
    field!(dry_multiplier, Real, 0..=100, "how much repeating a sequence costs, 0 (off) to 100"),
    field!(dry_base, Real, 1..=10, "what that grows by with each token, 1 to 10"),
    field!(dry_allowed_length, Count, 0..=65_536, "how many tokens may be repeated, 0 to 65536"),
    field!(dry_last_n, Count, 0..=65_536, "how many tokens a repetition is looked for in, 0 to 65536"),
    field!(mirostat, Count, 0..=2, "0 (off) or 2: steers to a surprise, in place of all but the temperature", file "mirostat"),
    field!(mirostat_tau, Real, 0..=100, "that surprise in bits a token, 0 to 100", file "mirostat_tau"),
    field!(mirostat_eta, Real, 0..=1, "how quickly it is steered to, 0 to 1", file "mirostat_eta"),
];

/// Settings of which some were made by a person: the others are a model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chosen {
    settings: Settings,
    /// A bit for each of [`FIELDS`].
    made: u32,
}

impl Chosen {
    /// Makes a setting; says whether the text is one that the field takes.
    #[must_use]
    pub fn read(&mut self, field: &'static Field, text: &str) -> bool {
        let taken = field.read(&mut self.settings, text);
        self.made |= u32::from(taken) << field.index();
        taken
    }

    /// Gives a setting back to the model.
    pub fn forget(&mut self, field: &'static Field) {
        self.made &= !(1 << field.index());
        field.copy(&mut self.settings, &Settings::DEFAULT);
    }

    /// Whether this one was made.
    pub fn has(&self, field: &'static Field) -> bool {
        self.made & (1 << field.index()) != 0
    }

    /// A model's settings with those that were made in place of its own.
    pub fn over(&self, model: Settings) -> Settings {
        let mut settings = model;
        FIELDS
            .iter()
            .filter(|field| self.has(field))
            .for_each(|field| field.copy(&mut settings, &self.settings));
        settings
    }
}

/// What a model's file says about sampling: its settings, and which of them it named.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asked {
    /// The settings, those of llama.cpp where the file names none.
    pub settings: Settings,
    named: u32,
}

impl Asked {
    /// What this file says.
    pub fn by(metadata: &Metadata) -> Self {
        let mut named = 0;
        let settings = Settings::of_file(metadata, &mut |field| named |= 1 << field.index());
        Self { settings, named }
    }

    /// Whether the file named it.
    pub fn names(&self, field: &'static Field) -> bool {
        self.named & (1 << field.index()) != 0
    }
}

/// A line for each origin of the settings in force: who asked for them, and their values.
pub fn origins(asked: &Asked, chosen: &Chosen) -> [(&'static str, String); 3] {
    let settings = chosen.over(asked.settings);
    let list = |is: &dyn Fn(&'static Field) -> bool| {
        let mut list = String::new();
        for field in FIELDS.iter().filter(|field| is(field)) {
            let between = if list.is_empty() { "" } else { ", " };
            let _ = fmt::Write::write_fmt(
                &mut list,
                format_args!("{between}{} {}", field.name, field.get(&settings)),
            );
        }
        list
    };
    let default = Settings::default();
    [
        ("set", list(&|field| chosen.has(field))),
        ("the model's file", list(&|field| !chosen.has(field) && asked.names(field))),
        // Of the defaults, those that do something.
        ("default", list(&|field| !chosen.has(field) && !asked.names(field) && field.shapes(&default))),
    ]
}

impl Field {
    /// Whether it does something where nobody has asked for anything.
    fn shapes(&self, settings: &Settings) -> bool {
        let off = match self.get(settings) {
            Number::Real(number) => f64::from(number) == self.off,
            Number::Count(number) => number as f64 == self.off,
        };
        matches!(self.name, "temperature" | "top_k" | "top_p" | "min_p") && !off
    }
}
