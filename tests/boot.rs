//! The image as a user meets it: booted in QEMU's raspi4b (and virt), driven over its serial line.
//!
//! Where the content does not matter, the model is a tiny random one, and the card small. Nothing here asserts
//! how long something took on this PC: waits only have generous ends.

#[path = "boot/deaf.rs"]
mod deaf;
#[path = "boot/display.rs"]
mod display;
#[path = "boot/large.rs"]
mod large;
#[path = "boot/light.rs"]
mod light;
#[path = "boot/loading.rs"]
mod loading;
#[path = "boot/raspberry_pi_5.rs"]
mod raspberry_pi_5;
#[path = "boot/selftest.rs"]
mod selftest;
#[path = "../bsp/tests/trees/mod.rs"]
mod trees;

use embodi::host::Threads;
use embodi::image::{self, Card};
use embodi::project::Scratch;
use embodi::qemu::{Board, Emulator, Failure, Machine};
use embodi::setup::program;
use embodi::{build, models};
use embodios::generate::{Conversation, Event};
use embodios::gguf::kinds::KINDS;
use embodios::sampler::Settings;
use embodios::source::Memory;
use embodios::{ByteSource, LoadOptions, Model, Session, quant, synth};
use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long anything may take but what is below: minutes, for a PC with everything else to do.
const SOON: Duration = Duration::from_secs(180);
/// How long the real model may take to load or to answer: the emulated card gives 3 MB/s.
const LATER: Duration = Duration::from_secs(900);

/// Greedy, and short.
const GREEDY: &str = "temperature = 0\nlimit = 16\n";

/// The kernel, built once.
fn built() -> &'static build::Kernel {
    static KERNEL: OnceLock<build::Kernel> = OnceLock::new();
    KERNEL.get_or_init(|| build::kernel().unwrap_or_else(|error| panic!("{error:#}")))
}

/// The flat image.
fn kernel() -> &'static Path {
    &built().image
}

/// A tiny model, the same each time.
fn tiny(format: &str) -> Vec<u8> {
    synth::tiny(1, quant::FORMATS.iter().find(|row| row.name == format).expect("a format of ours"))
}

/// A board under test: what it waits for in vain fails the test, and shows the whole console.
struct Rig {
    board: Board,
    /// Where the card lies while the board runs.
    _scratch: Scratch,
}

impl Rig {
    /// Boots with this card, and these boot arguments.
    fn boot(card: &Card, arguments: &str) -> Self {
        Self::boot_with(Some(card), |machine| machine.with_arguments(arguments))
    }

    fn boot_with(card: Option<&Card>, change: impl FnOnce(Emulator) -> Emulator) -> Self {
        let scratch = Scratch::new().expect("a folder for the card");
        let mut emulator = Emulator::new(Machine::Raspi4b, kernel());
        if let Some(card) = card {
            let path = scratch.path().join("card.img");
            card.write(&path).unwrap_or_else(|error| panic!("{error:#}"));
            emulator = emulator.with_card(&path);
        }
        let board = change(emulator).start().unwrap_or_else(|error| panic!("{error:#}"));
        Self { board, _scratch: scratch }
    }

    /// This machine without a card, with this model in memory.
    fn with_model(machine: Machine, model: &[u8], change: impl FnOnce(Emulator) -> Emulator) -> Self {
        let scratch = Scratch::new().expect("a folder for the model");
        let path = scratch.path().join("model.gguf");
        fs::write(&path, model).unwrap();
        let emulator = Emulator::new(machine, kernel()).with_initrd(&path);
        let board = change(emulator).start().unwrap_or_else(|error| panic!("{error:#}"));
        Self { board, _scratch: scratch }
    }

    #[track_caller]
    fn check<T>(&self, result: Result<T, Failure>) -> T {
        result.unwrap_or_else(|failure| panic!("{failure}. The console:\n{}", self.board.transcript()))
    }

    #[track_caller]
    fn prompt(&mut self) -> String {
        let result = self.board.prompt(SOON);
        self.check(result)
    }

    #[track_caller]
    fn ask(&mut self, line: &str) -> String {
        self.ask_within(line, SOON)
    }

    #[track_caller]
    fn ask_within(&mut self, line: &str, time: Duration) -> String {
        let result = self.board.ask(line, time);
        self.check(result)
    }

    #[track_caller]
    fn expect(&mut self, words: &str) -> String {
        let result = self.board.expect(words, SOON);
        self.check(result)
    }

    #[track_caller]
    fn exit(&mut self) -> ExitStatus {
        let result = self.board.exit(SOON);
        self.check(result)
    }

    /// Fails unless the text holds these words.
    #[track_caller]
    fn holds(&self, text: &str, words: &str) {
        assert!(text.contains(words), "\"{words}\" is missing. The console:\n{}", self.board.transcript());
    }

    /// Types a line and wants these words in the answer.
    #[track_caller]
    fn answers(&mut self, line: &str, words: &str) -> String {
        let text = self.ask(line);
        self.holds(&text, words);
        text
    }
}

/// A card with a tiny model and a greedy configuration.
fn tiny_card() -> Card {
    Card::default().with_bytes("tiny.gguf", tiny("Q4_0")).with_bytes("EMBODIOS.CFG", GREEDY)
}

/// The same model on this PC.
struct Here {
    model: Arc<Model>,
    threads: Threads,
}

impl Here {
    fn new(bytes: Vec<u8>) -> Self {
        Self::load(&Memory(Box::leak(bytes.into_boxed_slice()))) // for the rest of the test
    }

    fn load(source: &dyn ByteSource) -> Self {
        let model = Model::load(source, &LoadOptions::default(), &mut |_| ControlFlow::Continue(()));
        let threads = Threads::new(embodi::host::cores()).expect("threads");
        Self { model: model.unwrap_or_else(|error| panic!("{error}")), threads }
    }

    /// What the board's `digest TEXT` prints.
    fn digest(&self, text: &str) -> String {
        let tokens = self.model.tokenizer().encode(text, true, true);
        let mut session = Session::new(Arc::clone(&self.model), tokens.len()).unwrap();
        let digest = self.threads.with(|runtime| embodios::digest(session.feed(&tokens, runtime).unwrap()));
        format!("digest {digest:016x} of the logits after {} tokens", tokens.len())
    }

    /// The greedy continuation of a text.
    fn completion(&self, text: &str, limit: usize) -> String {
        let greedy = Settings { temperature: 0.0, ..Settings::default() };
        let mut conversation = Conversation::new(Arc::clone(&self.model), 512, greedy).unwrap();
        let mut whole = String::new();
        let mut keep = |event: Event<'_>| {
            if let Event::Text(piece) = event {
                whole.push_str(piece);
            }
        };
        self.threads.with(|runtime| conversation.complete(text, limit, runtime, &mut keep)).unwrap();
        whole
    }

    /// The greedy answers to turns of a conversation.
    fn answers(&self, turns: &[&str], limit: usize) -> Vec<String> {
        let greedy = Settings { temperature: 0.0, ..Settings::default() };
        let mut conversation = Conversation::new(Arc::clone(&self.model), 512, greedy).unwrap();
        let mut say = |turn: &&str| {
            let mut text = String::new();
            let mut keep = |event: Event<'_>| {
                if let Event::Text(piece) = event {
                    text.push_str(piece);
                }
            };
            self.threads.with(|runtime| conversation.say(turn, limit, runtime, &mut keep)).unwrap();
            text
        };
        turns.iter().map(&mut say).collect()
    }
}

/// The answer without the line of numbers under it.
fn without_summary(answer: &str) -> String {
    let lines: Vec<&str> = answer.lines().collect();
    let end = lines.iter().rposition(|line| line.starts_with('[')).unwrap_or(lines.len());
    lines[..end].join("\n").trim_end().to_owned()
}

/// Puts other words of the same length into a file, the first time they stand there after a key.
fn patched(mut file: Vec<u8>, key: &str, words: &[u8], others: &[u8]) -> Vec<u8> {
    assert_eq!(words.len(), others.len());
    let find = |from: usize, what: &[u8]| {
        file[from..].windows(what.len()).position(|window| window == what).expect("the words") + from
    };
    let at = find(find(0, key.as_bytes()) + key.len(), words);
    file[at..at + words.len()].copy_from_slice(others);
    file
}

/// Says past the harness, which shows nothing of a test that passes, what was not done and why.
fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED {what}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

fn path_of_smollm2() -> PathBuf {
    models::resolve(models::DEFAULT).unwrap_or_else(|error| panic!("{error:#}"))
}

// ── Starting ──────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_prompt_comes_within_a_second_of_emulated_time() {
    // One emulated nanosecond an instruction: slower than the board, and the same on every PC.
    let card = tiny_card();
    let mut rig =
        Rig::boot_with(Some(&card), |machine| machine.with_extra(&["-icount", "shift=0,sleep=off"]));
    let text = rig.prompt();
    for words in [
        "EMBODIOS ",
        "Raspberry Pi 4",
        "4 x Cortex-A72",
        "EMBODIOS Ready.",
        "Type 'help' for available commands.",
    ] {
        rig.holds(&text, words);
    }
    let (_, rest) = text.split_once("boot to prompt ").expect("the time in the banner");
    let time: u64 = rest.split_once(" ms").expect("milliseconds").0.parse().expect("a number");
    assert!(time < 1000, "boot to prompt took {time} ms");
}

#[test]
fn a_board_without_a_card_says_so_and_gives_the_prompt() {
    let mut rig = Rig::boot_with(None, |machine| machine);
    let text = rig.prompt();
    rig.holds(&text, "No SD card answers");
    rig.answers("hello", "No model is loaded");
    rig.answers("models", "No SD card answers");
    rig.answers("status", "Raspberry Pi 4");
    rig.answers("help", "bench [NUMBERS]");
}

#[test]
fn a_card_without_a_model_says_so_and_gives_the_prompt() {
    let mut rig = Rig::boot(&Card::default().with_bytes("README.TXT", "nothing here"), "");
    let text = rig.prompt();
    rig.holds(&text, "There is no model on the card");
    rig.answers("models", "no .gguf file");
    rig.answers("load x", "There is no model `x` on the card");
}

#[test]
fn a_card_that_is_not_formatted_says_so_and_gives_the_prompt() {
    let scratch = Scratch::new().unwrap();
    let blank = scratch.path().join("blank.img");
    fs::File::create(&blank).and_then(|file| file.set_len(image::SMALLEST)).unwrap();
    let mut rig = Rig::boot_with(None, |machine| machine.with_card(&blank));
    let text = rig.prompt();
    rig.holds(&text, "has no FAT16 or FAT32 volume");
}

#[test]
fn the_digest_is_the_hosts_for_every_format_of_the_engine() {
    let formats = ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"];
    let mut card = Card::default().with_bytes("EMBODIOS.CFG", "model = F32.gguf\n");
    for format in formats {
        card = card.with_bytes(&format!("{format}.gguf"), tiny(format));
    }
    let mut rig = Rig::boot(&card, "");
    rig.prompt();
    let text = "The same bits on the board and on a PC, after a prompt of more than one batch of tokens.";
    for format in formats {
        rig.answers(&format!("load {format}.gguf"), "is loaded");
        rig.answers(&format!("digest {text}"), &Here::new(tiny(format)).digest(text));
    }
}

#[test]
fn every_kind_of_card_is_read_small_and_large_with_and_without_a_partition_table() {
    let digest = Here::new(tiny("Q4_0")).digest("hello");
    for size in [image::SMALLEST, 4 << 30] {
        for partition_table in [true, false] {
            // A long name, and a file before the model so that it does not begin at the first cluster.
            let card = Card { size: Some(size), partition_table, ..Card::default() }
                .with_bytes("something else.bin", vec![7; 3_000_000])
                .with_bytes("A tiny model with a long name.Q4_0.gguf", tiny("Q4_0"));
            let mut rig = Rig::boot(&card, "");
            let text = rig.prompt();
            rig.holds(&text, "Loading A tiny model with a long name");
            rig.holds(&text, "tiny is loaded");
            rig.answers("digest hello", &digest);
        }
    }
}

#[test]
fn a_model_in_three_files_on_the_card_gives_the_logits_of_the_whole_one() {
    let mut card =
        Card::default().with_bytes("EMBODIOS.CFG", "model = tiny\n").with_bytes("other.gguf", tiny("Q8_0"));
    for (index, shard) in synth::shards(&tiny("Q4_0"), 3).into_iter().enumerate() {
        card = card.with_bytes(&format!("tiny-{:05}-of-00003.gguf", index + 1), shard);
    }
    let mut rig = Rig::boot(&card, "");
    let text = rig.prompt();
    rig.holds(&text, "Loading tiny-00001-of-00003.gguf");
    rig.holds(&text, "tiny is loaded");
    rig.answers("digest hello", &Here::new(tiny("Q4_0")).digest("hello"));
}

#[test]
fn two_models_on_the_card_give_a_menu() {
    let card = Card::default().with_bytes("a.gguf", tiny("Q4_0")).with_bytes("b.gguf", tiny("Q8_0"));
    let mut rig = Rig::boot(&card, "");
    let text = rig.prompt();
    rig.holds(&text, "1  a.gguf");
    rig.holds(&text, "2  b.gguf");
    rig.answers("3", "Type a number from 1 to 2");
    rig.answers("2", "tiny is loaded");
    rig.answers("digest hello", &Here::new(tiny("Q8_0")).digest("hello"));
}

#[test]
fn a_bad_line_of_the_configuration_is_a_warning_that_names_it_and_the_others_count() {
    // The fifth is Latin-1, as old editors write it.
    let config =
        b"model = tiny.gguf\ntemprature = 1\nlimit = 7\ntop_p = nine\nsystem = h\xf6flich\njson = {bad\n";
    let mut rig = Rig::boot(&tiny_card().with_bytes("EMBODIOS.CFG", config), "");
    let text = rig.prompt();
    rig.holds(&text, "EMBODIOS.CFG line 2: there is no setting `temprature`: did you mean `temperature`?");
    rig.holds(&text, "EMBODIOS.CFG line 4: `top_p` can't be `nine`");
    rig.holds(&text, "EMBODIOS.CFG line 5 is not UTF-8 text");
    rig.holds(&text, "EMBODIOS.CFG line 6: `json` can't be used: line 1, column 2 of the JSON");
    rig.holds(&text, "tiny is loaded");
    rig.answers("set limit", "limit is 7");
}

#[test]
fn a_preloaded_model_needs_no_card() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("tiny.gguf");
    fs::write(&file, tiny("Q4_1")).unwrap();
    let mut rig = Rig::boot_with(None, |machine| machine.with_initrd(&file));
    let text = rig.prompt();
    rig.holds(&text, "tiny is loaded");
    rig.answers("digest hello", &Here::new(tiny("Q4_1")).digest("hello"));
}

#[test]
fn the_same_bits_boot_elsewhere_and_with_a_tree_with_tags_and_with_neither() {
    let scratch = Scratch::new().unwrap();
    // QEMU takes the header's word for the offset from a 2 MiB border; 0 leads to 0x200000. All else stays.
    let mut bytes = fs::read(kernel()).unwrap();
    bytes[8..16].fill(0);
    let moved = scratch.path().join("moved.img");
    fs::write(&moved, &bytes).unwrap();
    let tree = scratch.path().join("board.dtb");
    fs::write(&tree, trees::pi4(&trees::Wanted { gib: 2, ..Default::default() }).blob()).unwrap();
    let with_tree = ["-dtb", tree.to_str().expect("a path of ours")];
    let with_tags: [&str; 0] = [];
    // From the ELF file QEMU starts all four cores, at EL3, and leaves neither tags nor a tree.
    for (file, options, place, board) in [
        (moved.as_path(), &with_tags[..], "0x0000200000", "Raspberry Pi 4 Model B,"),
        (&moved, &with_tree, "0x0000200000", "Raspberry Pi 4 Model B Rev 1.4,"),
        (kernel(), &with_tree, "0x0000080000", "Raspberry Pi 4 Model B Rev 1.4,"),
        (&built().elf, &with_tags, "0x0000080000", "Raspberry Pi 4 Model B,"),
    ] {
        let mut rig = Rig::boot_with(None, |machine| {
            Emulator { kernel: file.to_path_buf(), ..machine }.with_extra(options)
        });
        let text = rig.prompt();
        rig.holds(&text, &format!("{board} 4 x Cortex-A72, 960 MiB"));
        rig.answers("mem", &format!("kernel       {place}"));
    }
}

#[test]
fn a_card_for_both_boards_boots_from_its_own_files_as_a_boot_loader_would_take_them() {
    let scratch = Scratch::new().unwrap();
    let mut card = tiny_card().with_kernel(kernel()).with_bytes("EMBODIOS.CFG", GREEDY);
    let boards = [image::Board::Pi4, image::Board::Pi5];
    image::boot_files::add(&mut card, &boards, None).unwrap_or_else(|error| panic!("{error:#}"));
    let missing = image::boot_files::missing(&card, &boards);
    let (Some(mcopy), true) = (program("mcopy"), card.has("bcm2711-rpi-4-b.dtb")) else {
        skipped("a card's own files", &format!("no mcopy, or {missing:?}; `cargo embodi setup` brings them"));
        return;
    };
    let path = scratch.path().join("card.img");
    card.write(&path).unwrap_or_else(|error| panic!("{error:#}"));
    let take = |name: &str| {
        let (volume, to) = (format!("{}@@1M", path.display()), scratch.path().join(name));
        let status = Command::new(&mcopy).args(["-i", &volume, &format!("::{name}")]).arg(&to).status();
        assert!(status.is_ok_and(|status| status.success()), "mcopy {name}");
        to
    };
    let (kernel, tree) = (take("kernel8.img"), take("bcm2711-rpi-4-b.dtb"));
    let emulator = Emulator::new(Machine::Raspi4b, &kernel).with_card(&path);
    let board = emulator.with_extra(&["-dtb", tree.to_str().expect("a path of ours")]).start();
    let mut rig = Rig { board: board.unwrap_or_else(|error| panic!("{error:#}")), _scratch: scratch };
    let text = rig.prompt();
    rig.holds(&text, "Raspberry Pi 4 Model B, 4 x Cortex-A72, 960 MiB");
    rig.holds(&text, "Loading tiny.gguf");
    rig.answers("digest hello", &Here::new(tiny("Q4_0")).digest("hello"));
}

#[test]
fn a_model_in_the_image_itself_needs_neither_a_card_nor_a_boot_loader_that_brings_it() {
    let digest = Here::new(tiny("Q4_0")).digest("hello");
    let scratch = Scratch::new().unwrap();
    let both = scratch.path().join("kernel8.img");
    build::embed::append(kernel(), &Memory(tiny("Q4_0").leak()), &both).unwrap();
    for machine in [Machine::Raspi4b, Machine::Virt] {
        let board = Emulator::new(machine, &both).start().unwrap_or_else(|error| panic!("{error:#}"));
        let mut rig = Rig { board, _scratch: Scratch::new().unwrap() };
        let text = rig.prompt();
        rig.holds(&text, "tiny is loaded");
        rig.answers("digest hello", &digest);
        rig.answers("load preloaded", "tiny is loaded");
        rig.answers("digest hello", &digest);
    }
}

#[test]
fn the_mini_uart_is_the_console_where_the_boot_arguments_say_so() {
    let mut rig = Rig::boot(&tiny_card(), "console=mini");
    let text = rig.prompt();
    rig.holds(&text, "tiny is loaded");
    rig.answers("tokens a paste that is longer than the eight bytes of its receiver", "tokens");
}

// ── Talking ───────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn smollm2_from_the_card_answers_as_on_the_pc_remembers_and_stops_at_ctrl_c() {
    let model = path_of_smollm2();
    let here = Here::new(fs::read(&model).unwrap());
    let turns = ["My name is Ada. What is two plus two?", "What is my name?"];
    let expected = here.answers(&turns, 12);

    let config = "temperature = 0\nlimit = 12\nctx = 512\n";
    let card = Card::default().with_bytes("EMBODIOS.CFG", config).with_file(&model).unwrap();
    let mut rig = Rig::boot(&card, "");
    let banner = rig.board.prompt(LATER);
    let banner = rig.check(banner);
    rig.holds(&banner, "is loaded, with a context of 512 tokens");

    rig.ask_within("digest Once upon a time", LATER);
    let digest = rig.ask_within("digest Once upon a time", LATER);
    rig.holds(&digest, &here.digest("Once upon a time"));

    let first = rig.ask_within(turns[0], LATER);
    assert_eq!(without_summary(&first), expected[0].trim_end(), "{}", rig.board.transcript());
    let second = rig.ask_within(turns[1], LATER);
    assert_eq!(without_summary(&second), expected[1].trim_end(), "{}", rig.board.transcript());
    rig.holds(&second, " kept"); // the first turn was not run again
    rig.answers("perf", "GB/s");

    // Ctrl-C in an answer.
    rig.ask("set limit 400");
    rig.ask("reset");
    rig.board.type_line("Write a long story about a lighthouse.");
    let is_answer =
        |text: &str| text.lines().nth(1).is_some_and(|line| line.len() > 8 && !line.starts_with("reading"));
    let begun = rig.board.until("an answer", LATER, is_answer);
    rig.check(begun);
    rig.board.send(b"\x03");
    let stopped = rig.board.prompt(LATER);
    let stopped = rig.check(stopped);
    rig.holds(&stopped, "stopped]");

    // Ctrl-C in a long prompt; what was before is still there.
    rig.board.type_line(&"Tell me about the sea and the ships that sail on it. ".repeat(8));
    let begun = rig.board.expect("reading:", LATER);
    rig.check(begun);
    rig.board.send(b"\x03");
    let stopped = rig.board.prompt(LATER);
    let stopped = rig.check(stopped);
    rig.holds(&stopped, "as it was");
    rig.answers("tokens still here", "tokens");
}

#[test]
fn smollm2_handed_over_in_memory_has_the_hosts_logits() {
    let model = path_of_smollm2();
    let digest = Here::new(fs::read(&model).unwrap()).digest("Good morning");
    let mut rig = Rig::boot_with(None, |machine| machine.with_initrd(&model));
    let banner = rig.board.prompt(LATER);
    let banner = rig.check(banner);
    rig.holds(&banner, "is loaded");
    let answer = rig.ask_within("digest Good morning", LATER);
    rig.holds(&answer, &digest);
}

#[test]
fn gemma_3_continues_a_text_as_on_the_pc() {
    let model = models::named(models::GEMMA).expect("it is in the catalog");
    if !model.is_here() {
        skipped(&model.name, &format!("it is not here; `cargo embodi models fetch {}`", model.name));
        return;
    }
    let here = Here::new(fs::read(model.path()).unwrap());
    let (text, limit) = ("The first ten prime numbers are 2, 3, 5,", 8);
    let expected = here.completion(text, limit);
    let mut rig = Rig::boot_with(None, |machine| machine.with_initrd(&model.path()));
    let banner = rig.board.prompt(LATER);
    let banner = rig.check(banner);
    rig.holds(&banner, "is loaded");
    rig.holds(&banner, "keys and values");
    rig.holds(&banner, "The model has no chat template");
    rig.ask("set temperature 0");
    rig.ask(&format!("set limit {limit}"));
    let answer = rig.ask_within(&format!("infer {text}"), LATER);
    assert_eq!(without_summary(&answer).trim(), expected.trim(), "{}", rig.board.transcript());
}

#[test]
fn answers_on_the_board_obey_a_grammar_from_the_card_and_a_schema_and_end_at_a_stop_string() {
    let grammar = "root ::= \"the \" [a-f]+ \".\"\n";
    let mut rig = Rig::boot(&tiny_card().with_bytes("short.gbnf", grammar), "");
    rig.prompt();
    rig.answers("set grammar short", "grammar is short");
    let answer = rig.ask("hello");
    let answer = without_summary(&answer);
    let inner = answer.strip_prefix("the ").unwrap_or_else(|| panic!("{answer}"));
    assert!(inner.trim_end_matches('.').bytes().all(|byte| (b'a'..=b'f').contains(&byte)), "{answer}");
    rig.answers("set json {\"enum\": [3]}", "json is");
    assert_eq!(without_summary(&rig.ask("hello")), "3", "{}", rig.board.transcript());
    rig.answers("set json off", "json is off");
    rig.answers("set grammar root ::= [a", "of the grammar");
    rig.answers("set template alpaca", "afresh");
    rig.answers("status", "alpaca, as set");
    // A full context forgets the oldest, in a line of its own.
    rig.answers("set ctx 96", "96 tokens");
    rig.ask("set limit 60");
    let answers = [rig.ask("hello"), rig.ask("and more"), rig.ask("and then")].concat();
    rig.holds(&answers, "[context full: the oldest ");
}

#[test]
fn a_tiny_model_answers_as_on_the_pc_turn_by_turn() {
    let turns = ["hello", "the and in", "🦀 ünïcödé"];
    let expected = Here::new(tiny("Q4_0")).answers(&turns, 16);
    let mut rig = Rig::boot(&tiny_card(), "");
    rig.prompt();
    for (turn, expected) in turns.iter().zip(&expected) {
        let answer = rig.ask(turn);
        assert_eq!(without_summary(&answer), expected.trim_end(), "{}", rig.board.transcript());
    }
    // Forgotten, the same words get the same answer.
    rig.ask("reset");
    let again = rig.ask(turns[0]);
    assert_eq!(without_summary(&again), expected[0].trim_end(), "{}", rig.board.transcript());
}

// ── A machine that is no Raspberry Pi 4 ───────────────────────────────────────────────────────────────

#[test]
fn on_virt_the_same_image_runs_the_dot_product_level_on_four_cores_with_the_same_bits() {
    let model = tiny("Q4_0");
    let digest = Here::new(model.clone()).digest("hello");
    // Entered at EL1 with a firmware called by `hvc`, and at EL2 with one called by `smc`.
    for options in [&[][..], &["-M", "virtualization=on"]] {
        let mut rig = Rig::with_model(Machine::Virt, &model, |emulator| emulator.with_extra(options));
        let banner = rig.prompt();
        rig.holds(&banner, "QEMU virt, 4 x Cortex-A76, 2048 MiB, level dotprod");
        rig.holds(&banner, "tiny is loaded");
        rig.answers("digest hello", &digest);
        rig.answers("models", "This board has no card slot");
        let status = rig.answers("status", "QEMU virt");
        assert!(!status.contains("MHz"), "nobody tells clocks there: {status}");
        rig.answers("set console mini-uart", "no mini-UART");
        // Registers that a core need not have may be tried here, too.
        for core in 0..4 {
            rig.answers(&format!("fault guarded {core}"), &format!("Core {core} has survived"));
        }
        rig.answers("set prefetch 3", "Only a Cortex-A72 has this setting");
        fall(&mut rig, "read 3", "EXCEPTION on core 3");
        rig.answers("digest hello", &digest);
        rig.board.type_line("off");
        assert_eq!(rig.exit().code(), Some(0));
    }
}

#[test]
fn on_virt_a_model_beyond_4_gib_answers_and_a_piece_that_no_stretch_of_ram_holds_lies_in_several() {
    const MIB: u64 = 1 << 20;
    // One that takes a million tokens, 256 bytes each: pieces of up to 128 MiB.
    let length = |tokens: u32| [4u32.to_le_bytes(), tokens.to_le_bytes()].concat();
    let model = patched(tiny("Q4_0"), "llama.context_length", &length(512), &length(1 << 20));
    let digest = Here::new(model.clone()).digest("hello");
    let scratch = Scratch::new().unwrap();
    let (file, tree) = (scratch.path().join("tiny.gguf"), scratch.path().join("board.dtb"));
    fs::write(&file, &model).unwrap();
    // Free are image and heap, and three stretches of 128 MiB beyond 4 GiB; the model is beyond them.
    let stretch =
        |number: u64| 0x1_2000_0000 + number * 256 * MIB..0x1_2000_0000 + (number * 256 + 128) * MIB;
    let disk = 0x1_6000_0000..0x1_6000_0000 + model.len() as u64;
    let others = [
        0x4250_0000..stretch(0).start,
        stretch(0).end..stretch(1).start,
        stretch(1).end..stretch(2).start,
        stretch(2).end..disk.start,
        disk.end..0x1_c000_0000,
    ];
    let wanted = trees::Wanted { gib: 6, initrd: Some(disk.clone()), ..Default::default() };
    fs::write(&tree, trees::virt(&wanted, &others).blob()).unwrap();
    let loader = format!("loader,file={},addr={:#x},force-raw=on", file.display(), disk.start);
    let options = ["-dtb", tree.to_str().expect("a path of ours"), "-device", &loader];
    let mut rig = Rig::boot_with(None, |machine| {
        Emulator { machine: Machine::Virt, ..machine }.with_memory("6G").with_extra(&options)
    });
    let banner = rig.prompt();
    rig.holds(&banner, "4 x Cortex-A76, 6144 MiB");
    rig.holds(&banner, "tiny is loaded");
    rig.answers("mem", "initrd       0x0160000000");
    rig.answers("set ctx 1048576", "context of 1048576 tokens");
    let memory = rig.answers("mem", "models       0x0130000000-0x0138000000  128 MiB of 128 MiB used");
    assert!(memory.contains("keys and values: 256 MiB for 1048576 tokens"), "{memory}");
    rig.answers("digest hello", &digest);
}

#[test]
fn virt_has_any_ram_and_what_lies_too_high_is_told() {
    let digest = Here::new(tiny("Q4_0")).digest("hello");
    // Nothing of it is there before it is used.
    for (gib, free, told) in
        [(40, 40_900, None), (300, 261_000, Some("Of 307200 MiB RAM 46080 MiB are not used"))]
    {
        let backend = format!("memory-backend-ram,id=mem,size={gib}G,reserve=off");
        let mut rig = Rig::with_model(Machine::Virt, &tiny("Q4_0"), |machine| {
            machine.with_memory(&format!("{gib}G")).with_extra(&[
                "-object",
                &backend,
                "-M",
                "memory-backend=mem",
            ])
        });
        let banner = rig.prompt();
        rig.holds(&banner, &format!("4 x Cortex-A76, {} MiB", gib * 1024));
        assert_eq!(told, told.filter(|words| banner.contains(words)), "{banner}");
        assert_eq!(banner.contains("not used"), told.is_some(), "{banner}");
        rig.answers("digest hello", &digest);
        let memory = rig.ask("mem");
        let (_, most) = memory.split_once("free for a model: ").expect("what is free");
        let most: u64 = most.split_once(" MiB").expect("in MiB").0.parse().expect("a number");
        assert!((free - 500..free + 500).contains(&most), "{memory}");
    }
}

#[test]
fn a_card_on_pci_is_read_by_dma_or_by_the_core_and_gives_the_same_answers_as_on_the_pi_4() {
    let digest = Here::new(tiny("Q4_0")).digest("hello");
    let card = tiny_card();
    let mut texts = Vec::new();
    // But for the line that says how fast it was.
    let text = |rig: &mut Rig| {
        let answer = rig.ask("infer hello");
        answer.lines().filter(|line| !line.contains("tokens at")).collect::<Vec<_>>().join("\n")
    };
    let both = |mut emulator: Emulator, options: &[&str]| {
        emulator.machine = Machine::Virt;
        emulator.with_extra(options)
    };
    // As it comes, and without bit 19 of what it can do: ADMA2.
    for (options, by) in [
        (&[][..], "by DMA, 0 KiB by the core"),
        (&["-global", "sdhci-pci.capareg=0x157034b4"], "read 0 KiB by DMA"),
    ] {
        let mut rig = Rig::boot_with(Some(&card), |emulator| both(emulator, options));
        let banner = rig.prompt();
        rig.holds(&banner, "tiny is loaded");
        rig.answers("digest hello", &digest);
        texts.push(text(&mut rig));
        rig.answers("status", by);
        rig.answers("status", ", 0 repeated");
    }
    let mut rig = Rig::boot(&card, "");
    rig.prompt();
    rig.answers("digest hello", &digest);
    // The same image file, the same card, the same text.
    texts.push(text(&mut rig));
    assert!(texts[0].len() > 10 && texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
    rig.answers("status", "read 0 KiB by DMA");
}

#[test]
fn a_card_is_read_by_dma_into_a_model_that_lies_in_several_stretches_of_ram() {
    const MIB: u64 = 1 << 20;
    let model = path_of_smollm2();
    let digest = Here::new(fs::read(&model).unwrap()).digest("Good morning");
    // Its 92 MiB of weights fit into no stretch of 72.
    let stretch = |number: u64| 0x1_2000_0000 + number * 256 * MIB..0x1_2000_0000 + (number * 256 + 72) * MIB;
    let others = [
        0x4250_0000..stretch(0).start,
        stretch(0).end..stretch(1).start,
        stretch(1).end..stretch(2).start,
        stretch(2).end..0x1_c000_0000,
    ];
    let scratch = Scratch::new().unwrap();
    let tree = scratch.path().join("board.dtb");
    let wanted = trees::Wanted { gib: 6, ..Default::default() };
    fs::write(&tree, trees::virt(&wanted, &others).blob()).unwrap();
    let card = Card::default().with_bytes("EMBODIOS.CFG", "ctx = 512\n").with_file(&model).unwrap();
    let mut rig = Rig::boot_with(Some(&card), |machine| {
        let options = ["-dtb", tree.to_str().expect("a path of ours")];
        Emulator { machine: Machine::Virt, ..machine }.with_memory("6G").with_extra(&options)
    });
    let banner = rig.board.prompt(LATER);
    let banner = rig.check(banner);
    rig.holds(&banner, "is loaded, with a context of 512 tokens");
    let status = rig.answers("status", "card         SD");
    assert!(!status.contains(" 0 KiB by DMA"), "{status}");
    let memory = rig.answers("mem", "models       0x0120000000-0x0124800000  71 MiB of 72 MiB used");
    rig.holds(&memory, "models       0x0130000000-0x0134800000  21 MiB of 72 MiB used");
    let answer = rig.ask_within("digest Good morning", LATER);
    rig.holds(&answer, &digest);
}

// ── What is counted ───────────────────────────────────────────────────────────────────────────────────

/// The instructions of one core in both phases of `bench 8 4 1`; none where they are not counted.
#[track_caller]
fn instructions(rig: &mut Rig) -> Option<[u64; 2]> {
    let answer = rig.ask("bench 8 4 1");
    let mut rows = answer.lines().skip_while(|line| !line.starts_with("phase,")).map(|line| line.split(','));
    let column = rows.next().and_then(|mut names| names.position(|name| name == "instructions"));
    let column = column.unwrap_or_else(|| panic!("no heading. The console:\n{}", rig.board.transcript()));
    let mut cell = || rows.next()?.nth(column)?.parse().ok();
    Some([cell()?, cell()?])
}

#[test]
fn instructions_are_counted_exactly_where_time_is_counted_in_them_and_are_not_listed_elsewhere() {
    let model = tiny("Q4_0");
    for machine in [Machine::Raspi4b, Machine::Virt] {
        let mut rig = Rig::with_model(machine, &model, Emulator::counting_instructions);
        rig.prompt();
        let first = instructions(&mut rig).unwrap_or_else(|| panic!("{}", rig.board.transcript()));
        let again = instructions(&mut rig).unwrap_or_else(|| panic!("{}", rig.board.transcript()));
        for (first, again) in first.into_iter().zip(again) {
            assert!(first > 100_000 && first.abs_diff(again) < first / 1000, "{machine:?}: {first}, {again}");
        }
        let mut rig = Rig::with_model(machine, &model, |emulator| emulator);
        rig.prompt();
        assert_eq!(instructions(&mut rig), None, "{machine:?}");
        assert!(rig.board.transcript().contains("Not counted here: instructions"));
    }
}

#[test]
fn while_an_answer_is_made_no_interrupt_comes_but_those_by_which_cores_wake_each_other() {
    for machine in [Machine::Raspi4b, Machine::Virt] {
        let mut rig = Rig::with_model(machine, &tiny("Q4_0"), |emulator| emulator);
        rig.prompt();
        rig.ask("set limit 16");
        rig.ask("hello");
        let perf = rig.answers("perf", "interrupts (console 0, wake-ups ");
        rig.holds(&perf, ", other 0) on all cores");
    }
}

// ── Bad input ─────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_file_that_is_no_usable_model_is_refused_with_a_sentence_and_the_next_one_loads() {
    let good = tiny("Q4_0");
    let string =
        |key: &str, is: &str, other: &str| patched(good.clone(), key, is.as_bytes(), other.as_bytes());
    // The type number follows the name, the count of dimensions and two of them.
    let odd_type = |id: u8| {
        let mut file = good.clone();
        let name = b"blk.0.attn_q.weight";
        let at = file.windows(name.len()).position(|window| window == name).expect("the tensor")
            + name.len()
            + 4
            + 16;
        assert_eq!(file[at], 2, "Q4_0");
        file[at] = id;
        file
    };
    let bad: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "text.gguf",
            b"This is a text, and long enough to be taken for a header.".to_vec(),
            "not a GGUF file",
        ),
        ("empty.gguf", Vec::new(), "can't be used"),
        ("header.gguf", good[..100].to_vec(), "cut short"),
        ("short.gguf", good[..good.len() - 1000].to_vec(), "the file is cut short"),
        (
            "mamba.gguf",
            string("general.architecture", "llama", "mamba"),
            "models of the architecture mamba are not supported yet",
        ),
        ("types.gguf", odd_type(24), "has the type I8, which is not supported"),
        ("newer.gguf", odd_type(99), "unknown type 99"),
        (
            "words.gguf",
            string("tokenizer.ggml.model", "gpt2", "bert"),
            "of kind 'bert', which is not supported",
        ),
        (
            "cuts.gguf",
            string("tokenizer.ggml.pre", "smollm", "sm9llm"),
            "the rules 'sm9llm', which are not supported",
        ),
    ];
    let mut card = tiny_card().with_bytes("EMBODIOS.CFG", "model = tiny.gguf\n");
    for (name, bytes, _) in &bad {
        card = card.with_bytes(name, bytes.clone());
    }
    let mut rig = Rig::boot(&card, "");
    rig.prompt();
    for (name, _, words) in &bad {
        rig.answers(&format!("load {name}"), words);
    }
    rig.answers("load tiny", "tiny is loaded");
    rig.answers("models", "mamba");
    rig.answers("digest hello", &Here::new(good.clone()).digest("hello"));
}

#[test]
fn a_bad_model_alone_on_the_card_leads_to_the_prompt_all_the_same() {
    let mut rig = Rig::boot(&Card::default().with_bytes("broken.gguf", tiny("Q4_0")[..5000].to_vec()), "");
    let text = rig.prompt();
    rig.holds(&text, "cut short");
    rig.answers("hello", "No model is loaded");
}

#[test]
fn a_model_larger_than_memory_is_refused_with_what_it_needs_and_what_is_free() {
    // Nobody gets as far as its weights, so they are a hole in the file.
    let case = synth::shapes::published("tinyllama-1.1b")
        .and_then(synth::shapes::Published::case)
        .expect("a known shape");
    let format = KINDS.iter().find(|kind| kind.name == "Q8_0").expect("a format of GGUF");
    let plan = synth::Recipe { case, format, seed: 1 }.plan().expect("a model");
    let scratch = Scratch::new().unwrap();
    let path = scratch.path().join("large.gguf");
    let mut file = fs::File::create(&path).unwrap();
    let mut written = 0;
    let mut beginning = |bytes: &[u8]| {
        written += bytes.len();
        if written < 4 << 20 { file.write_all(bytes) } else { Ok(()) }
    };
    plan.write(&mut beginning).unwrap();
    file.set_len(plan.bytes()).unwrap();
    let card = tiny_card().with_bytes("EMBODIOS.CFG", "model = tiny.gguf\n").with_file(&path).unwrap();
    let mut rig = Rig::boot(&card, "");
    rig.prompt();
    let answer = rig.answers("load large", "needs");
    // 1,114 MiB of weights, and what goes with the least context.
    rig.holds(&answer, "large.gguf needs 11");
    rig.holds(&answer, "is free");
    let models = rig.answers("models", "large.gguf");
    rig.holds(&models, "too big: needs 11");
    rig.answers("tokens hello", "tokens"); // the model before it is still there
}

#[test]
fn a_context_larger_than_memory_or_than_the_model_is_cut_to_what_there_is_with_a_sentence() {
    // A model made for 16 million tokens: 256 bytes a token, 4 GB.
    let length = [4u32.to_le_bytes(), 512u32.to_le_bytes()].concat();
    let longer = [4u32.to_le_bytes(), 0x00ff_ffffu32.to_le_bytes()].concat();
    let vast = patched(tiny("Q4_0"), "llama.context_length", &length, &longer);
    let config = "model = tiny.gguf\nctx = 1048576\n";
    let card = tiny_card().with_bytes("EMBODIOS.CFG", config).with_bytes("vast.gguf", vast);
    let mut rig = Rig::boot(&card, "");
    let text = rig.prompt();
    rig.holds(&text, "The context is 512 tokens");
    rig.answers("load vast", "is loaded");
    rig.answers("set ctx 16000000", "takes tokens of context");
    rig.answers("tokens hello", "tokens");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_and_the_conversation_goes_on() {
    let mut rig = Rig::boot(&tiny_card(), "");
    rig.prompt();
    rig.answers(&"qwertyuiop".repeat(80), "the context holds 512");
    rig.answers("hello", "prefill");
}

#[test]
fn bytes_that_are_no_utf8_are_typed_and_nothing_breaks() {
    let mut rig = Rig::boot(&tiny_card(), "");
    rig.prompt();
    rig.board.send(b"tokens a\xff\xfe\xc3(\xf0\x9f\x80");
    rig.answers("b", "tokens");
    rig.answers("hello", "prefill");
}

#[test]
fn a_paste_of_100_kilobytes_loses_nothing() {
    const LINES: usize = 2400;
    let mut rig = Rig::boot(&tiny_card(), "");
    rig.prompt();
    let filler = "x".repeat(30);
    let paste: String = (0..LINES).map(|number| format!("/line-{number:05} {filler}\r")).collect();
    assert!(paste.len() > 100_000);
    rig.board.send(paste.as_bytes());
    for number in 0..LINES {
        rig.expect(&format!("no command `line-{number:05}`"));
    }
    // As one line it is too long to be one, and says so once; the next line counts again.
    rig.board.send("y".repeat(100_000).as_bytes());
    rig.expect("will not be run");
    rig.board.send(b"\r");
    rig.prompt();
    rig.answers("tokens hello", "tokens");
}

#[test]
fn lines_are_edited_as_on_any_terminal() {
    let mut rig = Rig::boot(&Card::default(), "");
    rig.prompt();
    // "/xmem": home, one to the right, delete.
    rig.board.send(b"/xmem\x1b[H\x1b[C\x1b[3~");
    rig.answers("", "VideoCore");
    // Ctrl-U leaves nothing of what was typed; backspace takes a whole character.
    rig.board.send("nonsense\x15/mem ü\x7f".as_bytes());
    rig.answers("", "VideoCore");
    rig.board.type_line("\x1b[A"); // arrow up: the same line
    let text = rig.prompt();
    rig.holds(&text, "VideoCore");
}

// ── Leaving, and falling ──────────────────────────────────────────────────────────────────────────────

#[test]
fn every_fault_on_every_core_is_told_in_words_and_the_board_starts_again() {
    let mut rig = Rig::boot(&Card::default(), "");
    rig.prompt();
    for (kind, words) in [
        ("read", "EXCEPTION on core 0"),
        ("stack 1", "EXCEPTION on core 1"),
        ("undefined 2", "EXCEPTION on core 2"),
    ] {
        fall(&mut rig, kind, words);
    }
    fall(&mut rig, "write 3", "EXCEPTION on core 3");
    fall(&mut rig, "exec", "EXCEPTION on core 0");
    fall(&mut rig, "panic", "PANIC on core 0");
    rig.answers("fault nonsense", "The kinds are");
    // Registers that a core need not have may be tried; QEMU has this one, and it keeps its value.
    for core in 0..4 {
        rig.answers(&format!("fault guarded {core}"), &format!("Core {core} has survived"));
    }
    rig.answers("set prefetch 3", "The processor did not take this setting");
    rig.answers("set prefetch", "prefetch is off");
}

/// Commits a fault and waits for the words, the banner of the next start, and its prompt.
#[track_caller]
fn fall(rig: &mut Rig, kind: &str, words: &str) {
    rig.board.type_line(&format!("fault {kind}"));
    rig.expect(words);
    rig.expect("Restarting.");
    rig.expect("EMBODIOS Ready.");
    rig.prompt();
}

#[test]
fn reboot_starts_again_and_off_ends() {
    let mut rig = Rig::boot(&Card::default(), "");
    rig.prompt();
    rig.board.type_line("reboot");
    rig.expect("Restarting.");
    rig.expect("EMBODIOS Ready.");
    rig.prompt();
    // No semihosting here: an attempt at it would be an exception.
    rig.board.type_line("off");
    assert!(rig.exit().success());
    assert!(!rig.board.transcript().contains("EXCEPTION"), "{}", rig.board.transcript());
}

#[test]
fn the_boot_argument_semihosting_ends_the_emulator_with_0_after_off_and_1_after_a_fault() {
    for (line, code) in [("off", 0), ("fault read", 1)] {
        let mut rig = Rig::boot(&Card::default(), "semihosting");
        rig.prompt();
        rig.board.type_line(line);
        // Without semihosting a fault restarts the board and the emulator goes on: only SYS_EXIT gives a 1.
        assert_eq!(rig.exit().code(), Some(code), "{line}");
    }
}
