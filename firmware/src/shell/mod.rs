//! Shell: the prompt, and the commands behind it.
//!
//! Which lines are commands, in full: a line that begins with `/` always is one. A line that is just the name
//! of a command is that command. A line that begins with the name of a command that takes something (`chat`,
//! `set`, `load` …) is that command, too. Everything else goes to the model; so does `help me`, as `help`
//! takes nothing.

mod bench;
mod chat;
mod health;
mod memory;
mod models;
mod power;
mod selftest;
mod settings;
#[cfg(test)]
mod tests;

use alloc::string::String;
use core::{fmt, iter};

use embodios::{Conversation, Level, Report, Runtime};

use crate::config::{self, Config, Lines};
use crate::console::{Console, Line};
use crate::light::Signal;
use crate::{Interrupts, Platform, Terminal, loader};

/// Version and, where it is known, the commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("EMBODIOS_COMMIT")).trim_ascii_end();
/// Every prompt; scripts wait for it at the start of a row.
const PROMPT: &str = "> ";

/// A command.
struct Command {
    name: &'static str,
    /// What it takes, as `help` shows it; empty if it takes nothing.
    takes: &'static str,
    help: &'static str,
    group: Group,
    run: fn(&mut Shell, &str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Talking,
    Models,
    Board,
    Diagnostics,
}

/// All commands, in the order of `help`. A new one is a file beside this one and a row here.
static COMMANDS: &[Command] = &[
    command("chat", "TEXT", "say this to the model, whatever it begins with", Group::Talking, chat::chat),
    command("talk", "", "say every line to the model, until an empty one", Group::Talking, chat::talk),
    command("infer", "TEXT", "let the model continue a text (starts afresh)", Group::Talking, chat::infer),
    command("reset", "", "forget the conversation", Group::Talking, settings::reset),
    command("set", "[KEY VALUE]", "change a setting, or show them all", Group::Talking, settings::set),
    command("models", "", "list the models on the card", Group::Models, models::models),
    command("load", "NAME", "load another model, by name or number", Group::Models, models::load),
    command("tokens", "TEXT", "show how the model splits a text", Group::Models, models::tokens),
    command("status", "", "the board and the model now", Group::Board, memory::status),
    command("mem", "", "what the memory is used for", Group::Board, memory::mem),
    command("perf", "", "how fast the last answer was", Group::Board, bench::perf),
    command("bench", "[NUMBERS]", "measure prefill and decode (`bench help`)", Group::Board, bench::bench),
    command(
        "selftest",
        "[MIB]",
        "examine the board; a report for bug reports",
        Group::Board,
        selftest::selftest,
    ),
    command("reboot", "", "start again", Group::Board, power::reboot),
    command("off", "", "switch off", Group::Board, power::off),
    command("help", "", "this list", Group::Board, help),
    command("digest", "TEXT", "a hash of the logits after a text", Group::Diagnostics, bench::digest),
    command("fault", "[KIND]", "commit an error, to see it caught", Group::Diagnostics, power::fault),
];

/// Other names that commands once had.
const ALIASES: [(&str, &str); 1] = [("benchmark", "bench")];

const fn command(
    name: &'static str,
    takes: &'static str,
    help: &'static str,
    group: Group,
    run: fn(&mut Shell, &str),
) -> Command {
    Command { name, takes, help, group, run }
}

/// What a line means.
enum Meaning<'l> {
    Nothing,
    Command(&'static Command, &'l str),
    NoSuchCommand(&'l str),
    Talk(&'l str),
}

fn meaning(line: &str) -> Meaning<'_> {
    let line = line.trim();
    let (slash, bare) = line.strip_prefix('/').map_or((false, line), |rest| (true, rest));
    let (word, rest) = bare.split_once(char::is_whitespace).unwrap_or((bare, ""));
    let rest = rest.trim_start();
    let name = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name);
    match COMMANDS.iter().find(|command| command.name == name) {
        _ if line.is_empty() => Meaning::Nothing,
        Some(command) if slash || rest.is_empty() || !command.takes.is_empty() => {
            Meaning::Command(command, rest)
        }
        None if slash => Meaning::NoSuchCommand(word),
        _ => Meaning::Talk(line),
    }
}

/// What the commands work on.
struct Shell<'a> {
    console: Console<'a>,
    platform: &'a mut dyn Platform,
    config: Config,
    /// Which settings come from the card.
    lines: Lines,
    level: Level,
    talker: Option<Talker>,
    last: Option<Answer>,
    /// VideoCore's throttle bits when they were last told.
    throttled: u32,
    leaving: bool,
}

/// The model that is loaded.
struct Talker {
    file: String,
    /// Bytes of memory that it, its cache and its scratch took.
    bytes: u64,
    conversation: Conversation,
}

/// What `perf` tells about the last answer.
struct Answer {
    report: Report,
    interrupts: Option<Interrupts>,
}

/// The banner's first line. A board sends it to a console as soon as it has one, and says so by
/// [`Terminal::greeted`]: what may go wrong before the prompt then comes after it.
pub struct Greeting;

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EMBODIOS {VERSION}: a language model and no operating system")
    }
}

/// From the banner to `off`. Returns only where [`Platform::power_off`] and [`Platform::reboot`] do.
pub fn run(terminal: &mut dyn Terminal, platform: &mut dyn Platform) {
    let level = level(platform.arguments());
    let mut shell = Shell {
        console: Console::new(terminal),
        platform,
        config: Config::default(),
        lines: Lines::default(),
        level: level.unwrap_or_default(),
        talker: None,
        last: None,
        throttled: 0,
        leaving: false,
    };
    shell.console.open();
    shell.banner();
    if level.is_none() {
        shell.console.line("The boot arguments ask for a level that this CPU does not have.");
    }
    shell.configure();
    shell.start();
    while !shell.leaving {
        match shell.console.read_line(PROMPT) {
            Line::Interrupted => shell.platform.clear_interrupt(),
            Line::Text(line) => shell.obey(&line),
        }
    }
}

/// The level that the boot arguments ask for, `level=neon` for example, else the best this CPU has.
fn level(arguments: &str) -> Option<Level> {
    let named = arguments.split_whitespace().filter_map(|word| word.strip_prefix("level=")).next_back();
    named.map_or(Some(Level::detect()), Level::named)
}

impl Shell<'_> {
    fn say(&mut self, text: impl fmt::Display) {
        self.console.line(text);
    }

    /// Says something about a setting, with its line where it was made by the file on the card.
    fn say_of(&mut self, key: &str, text: impl fmt::Display) {
        match self.lines.of(key) {
            Some(place) => self.say(format_args!("{place}: {text}")),
            None => self.say(text),
        }
    }

    fn banner(&mut self) {
        let status = self.platform.status();
        let level = self.level;
        let boot_ms = self.platform.boot_to_prompt_nanos() / 1_000_000;
        if !self.console.greeted() {
            self.say("");
            self.say(Greeting);
        }
        self.say(format_args!(
            "{}, {} x {}, {}, level {}",
            status.board,
            status.cores,
            status.cpu,
            loader::Mib(status.ram),
            level
        ));
        self.say(format_args!("boot to prompt {boot_ms} ms"));
        self.say("EMBODIOS Ready.");
        self.say("Type 'help' for available commands.");
        self.say("");
    }

    /// Reads the configuration from the card. Without a card there is none: the loader says so.
    fn configure(&mut self) {
        let Ok(files) = self.platform.files() else { return };
        let Some(file) = files.iter().find(|file| file.name.eq_ignore_ascii_case(config::FILE)) else {
            return;
        };
        if file.bytes > config::FILE_LIMIT {
            let (name, bytes) = (config::FILE, file.bytes);
            self.say(format_args!("{name} has {bytes} bytes, which no configuration needs. It is ignored."));
            return;
        }
        let mut bytes = alloc::vec![0; file.bytes as usize];
        let read = match self.platform.open(&file.name) {
            Ok(source) => source.read_at(0, &mut bytes).map_err(|error| alloc::format!("{error}")),
            Err(why) => Err(why),
        };
        if let Err(why) = read {
            self.say(sentence(format_args!("{} can't be read: {why}", config::FILE)));
            return;
        }
        let platform = &mut *self.platform;
        let (config, lines, warnings) =
            config::parse(&bytes, |form| settings::grammar(platform, form, None).map(drop));
        (self.config, self.lines) = (config, lines);
        for warning in warnings {
            self.say(warning);
        }
        self.choose_console();
        self.choose_prefetch();
    }

    /// Loads the model to start with.
    fn start(&mut self) {
        self.platform.signal(Signal::NoModel); // unless it is the card: the board says so itself
        let wanted = self.config.model.clone().zip(self.lines.of("model"));
        if let Some(source) = loader::choose(&mut self.console, self.platform, wanted) {
            self.take(&source);
        }
    }

    fn obey(&mut self, line: &str) {
        match meaning(line) {
            Meaning::Nothing => {}
            Meaning::Command(command, rest)
                if rest.is_empty() && !command.takes.is_empty() && !command.takes.starts_with('[') =>
            {
                self.say(format_args!("{} {}: {}.", command.name, command.takes, command.help));
            }
            Meaning::Command(command, rest) => (command.run)(self, rest),
            Meaning::NoSuchCommand("") => {
                self.say("A line that begins with `/` is a command: `/help` lists them.");
            }
            Meaning::NoSuchCommand(word) => {
                match config::nearest(word, COMMANDS.iter().map(|command| command.name)) {
                    Some(near) => {
                        self.say(format_args!("There is no command `{word}`: did you mean `{near}`?"))
                    }
                    None => self.say(format_args!("There is no command `{word}`: `help` lists them.")),
                }
            }
            Meaning::Talk(text) => chat::chat(self, text),
        }
    }

    /// The loaded model; says so if there is none.
    fn talker(&mut self) -> Option<&mut Talker> {
        if self.talker.is_none() {
            self.console.line("No model is loaded: `models` lists those on the card, `load NAME` loads one.");
        }
        self.talker.as_mut()
    }

    /// A Ctrl-C has stopped something: it has done its work.
    fn interrupt_served(&mut self) {
        self.platform.clear_interrupt();
        self.console.interrupt_served();
    }
}

/// The engine's or the board's reason as a sentence of its own.
pub fn sentence(error: impl fmt::Display) -> String {
    let reason = alloc::format!("{error}");
    let end = if reason.ends_with(['.', '?']) { "" } else { "." };
    capital(reason + end)
}

fn capital(mut sentence: String) -> String {
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    sentence
}

/// Runs a job of the engine on the board's cores, with its clock, stopped by Ctrl-C.
fn on_board<R>(platform: &dyn Platform, job: impl FnOnce(&Runtime) -> R) -> R {
    let (nanos, stop) = (|| platform.nanos(), || platform.interrupted());
    job(&Runtime { pool: platform.pool(), nanos: &nanos, stop: &stop })
}

fn help(shell: &mut Shell, _: &str) {
    shell.say("Type a message and the model answers. Ctrl-C stops an answer. Commands:");
    for (group, title) in [
        (Group::Talking, "talking"),
        (Group::Models, "models"),
        (Group::Board, "the board"),
        (Group::Diagnostics, "diagnostics"),
    ] {
        // The title beside the first of its commands: the list fits a terminal of 24 rows.
        let commands = COMMANDS.iter().filter(|command| command.group == group);
        for (title, command) in iter::once(title).chain(iter::repeat("")).zip(commands) {
            let usage = alloc::format!("{} {}", command.name, command.takes);
            shell.say(format_args!("{title:12}{usage:17}{}", command.help));
        }
    }
    shell.say("A line beginning with / is always a command. A command that takes nothing must");
    shell.say("stand alone: `help me` is a message. `chat load the boat` says `load the boat`.");
}
