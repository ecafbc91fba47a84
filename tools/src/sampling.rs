//! The options about how tokens are chosen, when an answer ends and what it may be: an option for each of the engine's
//! [`FIELDS`], and those that are no numbers.

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, Error, FromArgMatches};
use embodios::generate::Conversation;
use embodios::grammar::Form;
use embodios::model::Model;
use embodios::sampler::{Asked, Chosen, FIELDS, Field, Settings, read_bias};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How tokens are chosen, when an answer ends and what it may be.
#[derive(clap::Args)]
pub struct Sampling {
    #[command(flatten)]
    numbers: Numbers,
    /// Seed of the random choice: same seed, same text [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Added to the logits of tokens, `TOKEN+BIAS` or `TOKEN-BIAS`, several with commas; `-inf` forbids one
    #[arg(long, value_name = "LIST", value_parser = |text: &str| read_bias(text).map(Bias).ok_or("it takes a list like 15043+1,29905-inf"))]
    logit_bias: Option<Bias>,
    /// A text that ends a sequence for --dry-multiplier; may be given more than once [default: a line break, `:`, `"`, `*`]
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// End the answer before this text; may be given more than once
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Let the answer be a text of this grammar (GBNF)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "json_schema"])]
    grammar: Option<PathBuf>,
    /// Let the answer be a JSON value of this schema
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    json_schema: Option<PathBuf>,
    /// Let the answer be a JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct Bias(Vec<(u32, f32)>);

impl Sampling {
    /// The numbers: those that were asked for, else those of the model's file, else the defaults.
    pub fn settings(&self, model: &Model) -> Settings {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let seed = self.seed.unwrap_or_else(now);
        Settings { seed, ..self.numbers.0.over(Asked::by(model.metadata()).settings) }
    }

    /// All that is no number.
    pub fn apply(&self, conversation: &mut Conversation) -> Result<()> {
        if let Some(Bias(bias)) = &self.logit_bias {
            let vocabulary = conversation.model().spec().vocabulary;
            if let Some((token, _)) = bias.iter().find(|(token, _)| *token as usize >= vocabulary) {
                bail!("--logit-bias: the model has no token {token}, its last is {}", vocabulary - 1);
            }
            conversation.set_bias(bias.clone());
        }
        if !self.dry_sequence_breaker.is_empty() {
            conversation.set_breakers(self.dry_sequence_breaker.clone());
        }
        conversation.set_stops(self.stop.iter().cloned());
        if let Some(form) = self.form()? {
            let model = Arc::clone(conversation.model());
            let (grammar, ignored) = form.grammar(Some(model.tokenizer()))?;
            if !ignored.is_empty() {
                eprintln!("The schema asks for what is not enforced: {}.", ignored.join(", "));
            }
            conversation.set_grammar(Some(Arc::new(grammar)));
        }
        Ok(())
    }

    fn form(&self) -> Result<Option<Form>> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
        };
        Ok(match (&self.grammar, &self.json_schema) {
            (Some(path), _) => Some(Form::Gbnf(read(path)?)),
            (None, Some(path)) => Some(Form::Schema(read(path)?)),
            (None, None) => self.json.then_some(Form::Json),
        })
    }
}

/// The numbers that were asked for.
struct Numbers(Chosen);

/// An option's name: a field's, as options are written, or the short name that people know.
fn option(field: &Field) -> String {
    if field.name == "temperature" { "temp".into() } else { field.name.replace('_', "-") }
}

impl clap::Args for Numbers {
    fn augment_args(mut command: Command) -> Command {
        let defaults = Settings::default();
        for field in FIELDS {
            let check = |text: &str| {
                let fits = field.read(&mut Settings::default(), text);
                if fits { Ok(text.to_string()) } else { Err(format!("it takes {}", field.accepts)) }
            };
            let help = format!("{} [default: the file's, or {}]", field.accepts, field.get(&defaults));
            let argument = Arg::new(field.name)
                .long(&*option(field).leak())
                .value_name("N")
                .allow_negative_numbers(true)
                .help(help[..1].to_uppercase() + &help[1..])
                .value_parser(check);
            command =
                command.arg(if field.name == "temperature" { argument.alias(field.name) } else { argument });
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Numbers {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut chosen = Self(Chosen::default());
        chosen.update_from_arg_matches(matches)?;
        Ok(chosen)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for field in FIELDS {
            if let Some(text) = matches.get_one::<String>(field.name) {
                let _ = self.0.read(field, text); // the parser has tried it
            }
        }
        Ok(())
    }
}
