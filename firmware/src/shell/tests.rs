//! The shell as a user meets it: typed at a scripted terminal, on a board without hardware, with a tiny model.

use std::cell::RefCell;

use super::*;
use crate::testing::{ScriptedTerminal, TestPlatform};

/// A model of random weights with a real tokenizer; small enough to answer at once.
fn tiny() -> Vec<u8> {
    embodios::synth::tiny(1, embodios::quant::by_name("Q8_0").unwrap())
}

/// Types the script, then `off`; gives everything the terminal was sent.
fn play_on(platform: &mut TestPlatform, script: &str) -> String {
    let terminal = ScriptedTerminal::new(format!("{script}off\r"));
    run(&mut terminal.clone(), platform);
    assert!(terminal.is_done(), "the shell left before its script was over");
    terminal.text()
}

fn play(files: &[(&'static str, &[u8])], script: &str) -> String {
    play_on(&mut TestPlatform::with_files(files), script)
}

/// Same, with the tiny model loaded, and without what comes before the first prompt.
fn chat(script: &str) -> String {
    let text = play(&[("tiny.gguf", &tiny())], &format!("set temperature 0\rset limit 12\r{script}"));
    let start = text.find("limit is 12\r\n").expect("the settings were made");
    text[start + "limit is 12\r\n".len()..].to_string()
}

/// Between the echo of this line and the next prompt.
fn after<'t>(text: &'t str, line: &str) -> &'t str {
    let echo = format!("> {line}\r\n");
    let start = text.find(&echo).unwrap_or_else(|| panic!("{line:?} was not typed in {text:?}")) + echo.len();
    text[start..].split("\r\n> ").next().unwrap()
}

#[test]
fn the_banner_says_what_runs_where_and_how_soon() {
    let text = play(&[], "");
    let banner = text.split("Type 'help' for available commands.\r\n").next().unwrap();
    for part in ["EMBODIOS ", env!("CARGO_PKG_VERSION"), "Test Board, 1 x Test CPU", "boot to prompt 234 ms"]
    {
        assert!(banner.contains(part), "{part}: {banner}");
    }
    assert!(banner.ends_with("\r\nEMBODIOS Ready.\r\n"), "{banner}");
}

#[test]
fn a_line_is_a_command_by_one_rule() {
    let command = |line: &'static str| match meaning(line) {
        Meaning::Command(command, rest) => format!("{}|{rest}", command.name),
        Meaning::Talk(text) => format!("talk: {text}"),
        Meaning::NoSuchCommand(word) => format!("none: {word}"),
        Meaning::Nothing => "nothing".into(),
    };
    for (line, meant) in [
        ("", "nothing"),
        ("   ", "nothing"),
        ("help", "help|"),
        ("  help  ", "help|"),
        ("/help me", "help|me"),
        ("help me write a poem", "talk: help me write a poem"),
        ("status of the union", "talk: status of the union"),
        ("chat help", "chat|help"),
        ("chat  two  spaces ", "chat|two  spaces"),
        ("set", "set|"),
        ("set seed 4", "set|seed 4"),
        ("load", "load|"),
        ("Load the boat", "talk: Load the boat"),
        ("loading", "talk: loading"),
        ("benchmark 8", "bench|8"),
        ("hello", "talk: hello"),
        ("/hlep", "none: hlep"),
        ("/", "none: "),
    ] {
        assert_eq!(command(line), meant, "{line:?}");
    }
}

#[test]
fn help_lists_every_command_on_a_terminal_of_80_columns_and_24_rows() {
    let text = play(&[], "help\r");
    let help = after(&text, "help");
    for command in COMMANDS {
        let listed = |row: &str| row.get(12..).is_some_and(|row| row.starts_with(command.name));
        assert!(help.split("\r\n").any(listed), "{}", command.name);
    }
    assert!(help.split("\r\n").count() < 23, "{help}"); // with the line `help` and the prompt
    for row in help.split("\r\n") {
        assert!(row.len() < 80 && row.is_ascii(), "{row}");
    }
}

#[test]
fn without_a_card_or_a_model_there_is_a_sentence_and_the_prompt() {
    let mut platform = TestPlatform::with_files(&[]);
    platform.files = Err("There is no card in the slot: put one in.".into());
    let text = play_on(
        &mut platform,
        "hello\rmodels\rload x\rtokens x\rinfer x\rdigest x\rreset\rtalk\rbench\rbenchmark\rperf\r",
    );
    assert_eq!(text.matches("There is no card in the slot: put one in.").count(), 3);
    for line in ["hello", "tokens x", "infer x", "digest x", "reset", "talk", "bench", "benchmark"] {
        let none = "No model is loaded: `models` lists those on the card, `load NAME` loads one.";
        assert_eq!(after(&text, line), none, "{line}");
    }
    assert!(after(&text, "perf").starts_with("No answer has been given yet"));

    let text = play(&[("kernel8.img", b"x"), ("._a.gguf", b"x")], "models\rload x\r");
    assert!(text.contains("There is no model on the card: copy a .gguf file"), "{text}");
    assert_eq!(
        after(&text, "models"),
        "There is no .gguf file in the card's root directory: copy one there."
    );
    assert_eq!(after(&text, "load x"), "There is no model `x` on the card: it has none.");
}

#[test]
fn the_only_model_is_loaded_with_a_progress_bar() {
    let text = play(&[("tiny.gguf", &tiny())], "");
    assert!(text.contains("Loading tiny.gguf, "), "{text}");
    assert!(text.contains("\r[####################] 100 %, "), "{text}");
    assert!(text.contains("is loaded, with a context of"), "{text}");
}

#[test]
fn a_preloaded_model_comes_before_the_card() {
    let mut platform = TestPlatform::with_files(&[("bad.gguf", b"not a model")]);
    platform.preloaded = Some(tiny());
    let text = play_on(&mut platform, "");
    assert!(text.contains("the preloaded model"), "{text}");
    assert!(text.contains("is loaded, with a context of"), "{text}");

    platform.files = Ok(vec![("other.gguf", tiny())]);
    let text = play_on(&mut platform, "models\rload other\rmodels\rload preloaded\rload \"OTHER\"\r");
    assert!(after(&text, "models").contains("the preloaded model, 106 KiB: loaded\r\n  1  other.gguf"));
    assert!(text.contains("106 KiB: `load preloaded` loads it again\r\n  1  other.gguf, 106 KiB: loaded"));
    assert!(after(&text, "load preloaded").contains("tiny is loaded"), "{text}");
    assert!(after(&text, "load \"OTHER\"").contains("tiny is loaded"), "{text}");
}

#[test]
fn of_several_models_the_user_chooses() {
    let model = tiny();
    let files: [(&str, &[u8]); 3] = [("b.gguf", &model), ("a.gguf", &model), ("readme.txt", b"x")];
    let text = play(&files, "7\r2\rstatus\r");
    assert!(text.contains("\r\n  1  a.gguf, "), "{text}");
    assert_eq!(after(&text, "7"), "Type a number from 1 to 2, or nothing.");
    assert!(after(&text, "status").contains(", b.gguf\r\n"), "{text}");
    for none in ["\r", "\x03"] {
        let text = play(&files, &format!("{none}hello\r"));
        assert!(after(&text, "hello").starts_with("No model is loaded"), "{text}");
    }
}

#[test]
fn a_model_in_several_files_is_one_model_under_the_name_of_each_and_what_is_missing_is_named() {
    let model = tiny();
    let shards = embodios::synth::shards(&model, 3);
    let names = ["TINY-00001-of-00003.GGUF", "tiny-00002-of-00003.gguf", "tiny-00003-of-00003.gguf"];
    let mut files: Vec<(&str, &[u8])> = names.into_iter().zip(shards.iter().map(Vec::as_slice)).collect();
    let whole = after(&play(&[("tiny.gguf", &model)], "digest Hello\r"), "digest Hello").to_string();
    files.push(("other.gguf", &model));
    let text = play(
        &files,
        "tiny\rmodels\rdigest Hello\rload other\rload tiny-00003-of-00003\rdigest Hello again\r",
    );
    assert!(
        text.contains("\r\n  2  TINY-00001-of-00003.GGUF, ") && text.contains("\r\n  1  other.gguf, "),
        "{text}"
    );
    assert_eq!(after(&text, "models").matches("GGUF").count(), 1, "{text}");
    assert_eq!(after(&text, "digest Hello"), whole);
    assert!(after(&text, "load tiny-00003-of-00003").contains("tiny is loaded"), "{text}");

    let files = [("m-00001-of-00003.gguf", &*shards[0]), ("m-00003-of-00003.gguf", &*shards[2])];
    let text = play(&files, "models\r");
    let missing =
        "he file m-00002-of-00003.gguf is missing: the model is in 3 files, which must lie side by side";
    assert!(text.contains(&format!("\r\nT{missing}.\r\n")), "{text}");
    assert!(after(&text, "models").contains(missing), "{text}");
    let text = play(&[("alone.gguf", &*shards[1])], "");
    assert!(text.contains("alone.gguf can't be used: this is one of 3 files of a split model"), "{text}");
}

#[test]
fn the_configuration_is_used_and_its_faults_are_named() {
    let model = tiny();
    let config: &[u8] = b"model = B\r\nctx = 64\r\ntemprature = 3\r\nseed = 5\r\nconsole = pl011";
    let files: [(&str, &[u8]); 3] = [("b.gguf", &model), ("a.gguf", &model), ("embodios.cfg", config)];
    let mut platform = TestPlatform::with_files(&files);
    let text = play_on(&mut platform, "status\r");
    assert!(
        text.contains("EMBODIOS.CFG line 3: there is no setting `temprature`: did you mean `temperature`?")
    );
    assert!(text.contains("is loaded, with a context of 64 tokens, in "), "{text}");
    assert!(after(&text, "status").contains(", b.gguf\r\n"), "{text}");
    assert!(after(&text, "status").contains("of 64 tokens, seed 5"), "{text}");
    assert_eq!(platform.log, ["console pl011", "exit 0", "off"]);

    let text = play(&[("a.gguf", &model), ("EMBODIOS.CFG", b"model = c")], "");
    assert!(
        text.contains(
            "EMBODIOS.CFG line 1: there is no model `c` on the card; there is a.gguf.\r\nCorrect it, or"
        ),
        "{text}"
    );
    let large = vec![b'#'; 100_000];
    assert!(play(&[("EMBODIOS.CFG", &large)], "").contains("EMBODIOS.CFG has 100000 bytes"));
}

#[test]
fn a_file_that_is_no_whole_model_is_refused_in_one_sentence() {
    let model = tiny();
    for (bytes, word) in [
        (&b""[..], "GGUF"),
        (b"PK\x03\x04 something else", "not a GGUF file"),
        (&model[..4], "cut short"),
        (&model[..model.len() / 2], "cut short"),
        (&model[..model.len() - 1], "cut short"),
    ] {
        let text = play(&[("bad.gguf", bytes)], "models\r");
        let sentence =
            text.split("\r\n").find(|row| row.starts_with("bad.gguf can't be used: ")).expect(&text);
        assert!(sentence.contains(word), "{word}: {sentence}");
        assert!(after(&text, "models").contains(word), "{word}: {text}");
    }
}

#[test]
fn a_model_that_does_not_fit_leaves_the_present_one() {
    let model = tiny();
    let mut platform = TestPlatform::with_files(&[("tiny.gguf", &model)]);
    platform.memory_free = 10_000;
    let text = play_on(&mut platform, "models\r");
    assert!(text.contains("of memory and 9 KiB is free: choose a smaller file."), "{text}");
    assert!(after(&text, "models").contains("too big: needs "), "{text}");

    let text = chat("load nothing\rload 2\rhello\r");
    assert_eq!(after(&text, "load nothing"), "There is no model `nothing` on the card; there is tiny.gguf.");
    assert!(after(&text, "hello").contains("[prefill "), "{text}");
}

#[test]
fn a_model_that_cannot_run_leaves_the_present_one_and_its_conversation() {
    let good = tiny();
    let mut bad = good.clone();
    // The type of a tensor follows its name, the number of its sizes and two sizes: Q8_1, which no file has.
    let name = b"blk.0.attn_q.weight";
    let at = bad.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    bad[at] = 9;
    let files: &[(&'static str, &[u8])] = &[("bad.gguf", &bad), ("good.gguf", &good)];
    let text =
        play(files, "good.gguf\rset temperature 0\rset limit 8\rhello\rload bad.gguf\rstatus\rand now\r");
    assert!(after(&text, "load bad.gguf").contains("has the type Q8_1, which is not supported"), "{text}");
    assert!(after(&text, "status").contains("good.gguf"), "{text}");
    assert!(after(&text, "and now").contains(" kept)"), "the conversation goes on: {text}");
}

#[test]
fn ctrl_c_stops_loading() {
    let mut platform = TestPlatform::with_files(&[("tiny.gguf", &tiny())]);
    platform.interrupt_after.set(Some(0));
    let text = play_on(&mut platform, "\x03hello\rload 1\rhi there\r");
    assert!(text.contains("Stopped: no model is loaded.\r\n> hello\r\nNo model is loaded"), "{text}");
    assert!(after(&text, "hi there").contains("[prefill "), "{text}");
}

#[test]
fn plain_text_is_answered_and_the_conversation_goes_on() {
    let text = chat("hello\rchat status\rperf\rstatus\rreset\rhello\r");
    let first = after(&text, "hello");
    assert!(first.contains("\x1b[2m[") && first.ends_with("]\x1b[0m"), "{first}");
    assert!(!first.contains(" kept"), "{first}");
    assert!(after(&text, "chat status").contains(" kept"), "{text}");
    assert!(after(&text, "perf").contains("tokens/s"), "{text}");
    // After a reset the same words get the same answer.
    let again = &text[text.find("The conversation is forgotten.").unwrap()..];
    let answer = |text: &str| text.split("\x1b[2m").next().unwrap().to_string();
    assert_eq!(answer(after(again, "hello")), answer(first));
}

#[test]
fn guessing_ahead_can_be_switched_off_changes_no_word_and_is_seen_in_perf() {
    let model = embodios::synth::tiny(32, embodios::quant::by_name("Q4_1").unwrap()); // has much to say
    let ask = "x = x + 1; y = y + 1; x =";
    let script = format!("set temp 0\r{ask}\rperf\rset speculate off\rreset\r{ask}\rperf\r");
    let text = play(&[("tiny.gguf", &model)], &script);
    let (guessed, plain) = text.split_once("set speculate off").unwrap();
    assert!(after(guessed, "perf").contains("guesses  "), "{text}");
    assert!(!after(plain, "perf").contains("guesses  "), "{text}");
    let answer = |text: &str| after(text, ask).split("\x1b[2m").next().unwrap().to_string();
    assert_eq!(answer(guessed), answer(plain));
}

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_stays_whole() {
    for asked in [0, 1, 2, 3, 5, 8, 20] {
        let script = format!("set limit 100\rhello\rfault ctrl-c {asked}\rtell me\r\x03and on\rperf\r");
        let text = chat(&script);
        assert!(after(&text, "tell me").contains("topped"), "{asked}: {text}");
        // The byte of the Ctrl-C does nothing more, and the next line is whole.
        assert!(!text.contains("^C"), "{asked}: {text}");
        assert!(after(&text, "and on").contains(" kept"), "{asked}: {text}");
    }
}

#[test]
fn lines_typed_during_an_answer_are_read_after_it() {
    let text = chat("fault ctrl-c 4\rtell me\rsecond line\r\x03");
    assert!(after(&text, "tell me").contains("topped"), "{text}");
    assert!(after(&text, "second line").contains("[prefill "), "{text}");
}

#[test]
fn ctrl_c_at_the_prompt_does_not_stop_the_next_answer() {
    let text = chat("half a li\x03hello\r");
    assert!(text.contains("> half a li^C\r\n> hello\r\n"), "{text}");
    assert!(!after(&text, "hello").contains("topped"), "{text}");
}

#[test]
fn a_text_longer_than_the_context_is_refused_with_numbers() {
    let long = "word ".repeat(200);
    let text = chat(&format!("set ctx 256\rhi\r{long}\rhi again\rinfer {long}\rdigest x\r"));
    for line in [long.clone(), format!("infer {long}")] {
        let refused = after(&text, &line);
        assert!(
            refused.contains("256") && refused.ends_with('.') && !refused.contains("[prefill "),
            "{refused}"
        );
    }
    assert!(after(&text, "hi again").contains(" kept"), "{text}");
}

#[test]
fn answers_obey_a_grammar_a_schema_or_json_until_it_is_switched_off() {
    let abc = b"root ::= \"ab\" \"c\"+ \"!\"\n";
    let text = play(
        &[("tiny.gguf", &tiny()), ("abc.gbnf", abc)],
        "set temperature 0\rset limit 40\rset grammar abc\rhello\rset json {\"enum\": [\"yes\", \"no\"]}\rhello you\r\
         set json off\rset grammar root ::= (\rset grammar nothing.gbnf\rset json {\"type\": 3}\rset json\rset\r",
    );
    assert_eq!(after(&text, "set grammar abc"), "grammar is abc");
    assert!(after(&text, "hello").starts_with("abc"), "{text}");
    let answer = after(&text, "hello you");
    assert!(answer.starts_with("\"yes\"") || answer.starts_with("\"no\""), "{text}");
    assert!(after(&text, "set grammar root ::= (").contains("Line 1, column"), "{text}");
    assert!(after(&text, "set grammar nothing.gbnf").contains("no file `nothing.gbnf`"), "{text}");
    assert!(!after(&text, "set json {\"type\": 3}").contains("json is"), "{text}");
    assert!(after(&text, "set json").starts_with("json is off."), "what is wrong changes nothing: {text}");
}

#[test]
fn what_the_file_on_the_card_asks_for_and_can_not_have_is_told_with_its_line() {
    let model = tiny();
    let config = b"# mine\nlimit = 9\nconsole = rp1\nprefetch = 3\ngrammar = none.gbnf\njson = {bad\n\
                   system = h\xf6flich\njson = {\"type\": \"string\", \"format\": \"uri\", \"not\": {}}\nmodel = tiny\n";
    let text = play(&[("tiny.gguf", &model), ("EMBODIOS.CFG", config)], "set json\rset limit\rset json on\r");
    for told in [
        "EMBODIOS.CFG line 3: This board has no such header.\r\n",
        "EMBODIOS.CFG line 4: `prefetch` stays off: This board goes no further.\r\n",
        "EMBODIOS.CFG line 5: `grammar` can't be used: there is no file `none.gbnf` on the card",
        "EMBODIOS.CFG line 6: `json` can't be used: line 1, column 2 of the JSON: expected",
        "EMBODIOS.CFG line 7 is not UTF-8 text",
        "EMBODIOS.CFG line 8: The schema asks for what is not enforced: ",
        "tiny is loaded",
    ] {
        assert_eq!(text.matches(told).count(), 1, "{told}: {text}");
    }
    assert!(after(&text, "set json").starts_with("json is {\"type\": \"string\""), "{text}");
    assert!(after(&text, "set limit").starts_with("limit is 9."), "{text}");
    // Made at the prompt, a setting has no line any more.
    let text = play(&[("tiny.gguf", &model), ("EMBODIOS.CFG", b"prefetch = 2\n")], "set prefetch 3\r");
    assert_eq!(
        after(&text, "set prefetch 3"),
        "prefetch is 3\r\n`prefetch` stays off: This board goes no further."
    );
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let text = chat("hello\rreset\rset stop \"e\"\rhello\rset stop off\r");
    let (first, second) = text.rsplit_once("> hello\r\n").unwrap();
    let answer = after(first, "hello").split("\r\n").next().unwrap().to_string();
    assert!(answer.contains('e'), "the test needs an answer with an e: {answer}");
    assert!(second.starts_with(answer.split('e').next().unwrap()), "{second}");
    assert!(second.contains("stop string]"), "{second}");
    assert!(after(&text, "set stop off").starts_with("stop is off"));
}

#[test]
fn a_full_context_forgets_the_oldest_and_says_so_or_ends_the_answer() {
    let script = "set ctx 96\rset limit 80\rhello\rand you\rand then\r";
    let text = chat(script);
    assert!(text.contains("[context full: the oldest "), "{text}");
    assert!(!text.contains("context full]"), "{text}");
    let text = chat(&format!("set context_shift off\r{script}"));
    assert!(text.contains("; context full]") && text.contains("`set context_shift on`"), "{text}");
    assert!(!text.contains("[context full:"), "{text}");
}

#[test]
fn keys_and_values_in_8_bits_take_about_half_and_heads_that_do_not_fit_keep_16() {
    // The tiny model's heads have 16 values: no block of 32.
    let text = chat("set kv q8_0\rstatus\rhello\r");
    assert!(after(&text, "set kv q8_0").contains("are kept in f16"), "{text}");
    assert!(after(&text, "status").contains("keys and values in f16"), "{text}");
    let sizes = embodios::synth::Sizes { embedding: 128, feed_forward: 96, layers: 1 };
    let model = embodios::synth::sized(1, embodios::quant::by_name("Q8_0").unwrap(), sizes);
    let text = play(&[("m.gguf", &model)], "mem\rset kv q8_0\rmem\rset temperature 0\rset limit 5\rhello\r");
    let kib = |text: &str| -> f64 {
        let line = text.split("keys and values: ").nth(1).unwrap();
        line.split(" KiB").next().unwrap().parse().unwrap()
    };
    let (before, now) = text.split_once("set kv q8_0\r\n").unwrap();
    let part = kib(now) / kib(before);
    assert!((0.5..0.56).contains(&part), "{part}: {text}");
    assert!(after(&text, "hello").contains("[prefill "), "{text}");
}

#[test]
fn a_bias_for_a_token_that_the_model_does_not_have_is_told() {
    let text = chat("set logit_bias 3+1\rset logit_bias 3+1,999999+1\r");
    assert!(!after(&text, "set logit_bias 3+1").contains("no token"), "{text}");
    assert!(
        after(&text, "set logit_bias 3+1,999999+1").contains("has no token 999999: its last is "),
        "{text}"
    );
}

#[test]
fn the_template_and_thinking_are_set_and_shown() {
    let text = chat(
        "status\rset template alpaca\rstatus\rhello\rset template klingon\rset think off\rset template auto\r",
    );
    assert!(after(&text, "status").contains("template     the model's own"), "{text}");
    assert!(after(&text, "set template alpaca").contains("starts afresh"), "{text}");
    let now = text.split("set template alpaca").nth(1).unwrap();
    assert!(after(now, "status").contains("template     alpaca, as set"), "{text}");
    assert!(after(&text, "hello").contains("[prefill "), "{text}");
    assert!(after(&text, "set template klingon").contains("it takes `auto`"), "{text}");
    assert!(after(&text, "set think off").contains("knows no such switch"), "{text}");
}

#[test]
fn before_loading_a_line_says_what_a_model_needs_and_how_much_context_fits() {
    let text = play(&[("tiny.gguf", &tiny())], "");
    assert!(text.contains("[weights ") && text.contains(" f16 keys and values "), "{text}");
    assert!(text.contains("free: at most 512 tokens]"), "{text}");
}

#[test]
fn settings_are_shown_changed_and_corrected() {
    let text = chat(
        "set\rset temprature 1\rset top_k lots\rset colour red\rset top-p\rset seed=9\rset ctx 64\rset system \"Be brief.\"\rstatus\r",
    );
    let all = after(&text, "set");
    for setting in config::settings() {
        assert!(all.contains(&format!("{:18} ", setting.name())), "{}: {all}", setting.name());
    }
    assert_eq!(
        after(&text, "set temprature 1"),
        "There is no setting `temprature`: did you mean `temperature`?"
    );
    assert!(
        after(&text, "set top_k lots").starts_with("`top_k` can't be `lots`: it takes how many"),
        "{text}"
    );
    assert!(after(&text, "set colour red").contains("there are model, ctx,"), "{text}");
    assert!(after(&text, "set top-p").starts_with("top_p is 0.95. It takes a share"), "{text}");
    assert_eq!(after(&text, "set seed=9"), "seed is 9");
    assert!(
        after(&text, "set ctx 64").contains("The conversation starts afresh, with a context of 64 tokens.")
    );
    assert!(after(&text, "set system \"Be brief.\"").contains("starts afresh"), "{text}");
    assert!(after(&text, "status").contains("0 of 64 tokens, seed 9"), "{text}");
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let answer = |script: &str| {
        let text = chat(&format!("set temperature 1\r{script}hello\r"));
        after(&text, "hello").split("\x1b[2m").next().unwrap().to_string()
    };
    assert_eq!(answer("set seed 11\r"), answer("set seed 11\r"));
    assert_eq!(answer("set seed 11\r"), answer("set seed 4\rhi\rset seed 11\rreset\r"));
    assert_ne!(answer("set seed 11\r"), answer("set seed 12\r"));
}

#[test]
fn in_talk_every_line_is_said_until_an_empty_one() {
    for end in ["\r", "/end\r", "\x03"] {
        let text = chat(&format!("talk\rhelp\rstatus\r{end}status\r"));
        assert!(after(&text, "help").contains("[prefill "), "{text}");
        assert!(after(&text, "status").contains("[prefill "), "{text}");
        let left = &text[text.find("Commands work again.").unwrap()..];
        assert!(after(left, "status").starts_with("board "), "{text}");
    }
}

#[test]
fn tokens_and_digest_and_infer_show_the_engine_at_work() {
    let text =
        chat("tokens Hello, world\rdigest Hello\rdigest Hello\rdigest \"Hel\\nlo\"\rinfer Once upon\r");
    assert!(after(&text, "tokens Hello, world").ends_with(" tokens"), "{text}");
    let digest = after(&text, "digest Hello");
    assert!(digest.starts_with("digest ") && digest.contains(" of the logits after "), "{digest}");
    assert_eq!(text.matches(digest).count(), 2, "{text}");
    assert!(after(&text, "infer Once upon").contains("[prefill "), "{text}");
}

#[test]
fn the_board_is_described() {
    let text = chat("status\rmem\rfault me\r/xyzzy\r/hlep\rchat\r");
    let status = after(&text, "status");
    for part in [
        "Test Board, revision c03115",
        "1 x Test CPU",
        "Arm clock 1500 MHz of 1800",
        "48.2 C",
        "supply voltage",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let mem = after(&text, "mem");
    assert!(mem.contains("kernel") && mem.contains("1.4 MiB of 1.9 MiB used"), "{mem}");
    assert!(mem.contains("stacks, the most ever used of 64 KiB each: core 0 5 KiB, core 1 6 KiB"), "{mem}");
    assert!(mem.contains("heap: 2.8 MiB now, 3.8 MiB at most"), "{mem}");
    assert!(mem.contains("tiny: 100 KiB of weights; "), "{mem}");
    assert!(mem.contains(" for 512 tokens; scratch: "), "{mem}");
    assert!(mem.contains("scratch and heap beyond weights, keys and values: "), "{mem}");
    assert_eq!(after(&text, "fault me"), "There is no fault `me`.");
    assert_eq!(after(&text, "/xyzzy"), "There is no command `xyzzy`: `help` lists them.");
    assert_eq!(after(&text, "/hlep"), "There is no command `hlep`: did you mean `help`?");
    assert!(after(&text, "chat").starts_with("chat TEXT: "), "{text}");
}

#[test]
fn reboot_and_off_leave() {
    let mut platform = TestPlatform::with_files(&[]);
    let terminal = ScriptedTerminal::new("reboot\r");
    run(&mut terminal.clone(), &mut platform);
    assert_eq!(platform.log, ["reboot"]);
    assert!(terminal.text().ends_with("> reboot\r\nRestarting.\r\n"));
}

#[test]
fn the_boot_arguments_choose_the_level() {
    let mut platform = TestPlatform::with_files(&[]);
    platform.arguments = "quiet level=plain semihosting";
    assert!(play_on(&mut platform, "").contains(", level plain\r\n"));
    platform.arguments = "level=quantum";
    assert!(play_on(&mut platform, "").contains("ask for a level that this CPU does not have"));
}

#[test]
fn bench_measures_what_it_is_asked_for() {
    let text = chat("bench\rbench 8,16 3 1\rbench help\rbenchmark 5 0\r");
    let all = after(&text, "bench");
    for part in
        ["Test Board, 1 x Test CPU", "1 core: ", "| prompt | decode |  cores | prefill/s |", "of reads"]
    {
        assert!(all.contains(part), "{part}: {all}");
    }
    // Each look at this board's clock is a millisecond: a decoded token takes a few of them.
    assert!(all.contains("A decoded token:") && all.contains(" min ms | median |"), "{all}");
    assert!(all.contains("Not counted here: cycles, instructions, "), "{all}");

    let rows = |line: &str| {
        let text = after(&text, line);
        let (_, csv) = text.split_once("--- bench csv begin ---\r\n").expect(text);
        let (csv, _) = csv.split_once("\r\n--- bench csv end ---").expect(text);
        csv.split("\r\n").map(String::from).collect::<Vec<_>>()
    };
    let some = rows("bench 8,16 3 1");
    assert_eq!(some.len(), 1 + 2 * 2, "headings, then prefill and decode of both: {some:?}");
    assert!(some[1].starts_with("prefill,8,3,1,8,") && some[4].starts_with("decode,16,3,1,3,"), "{some:?}");
    let column = |name: &str| some[0].split(',').position(|heading| heading == name).expect(name);
    let cell = |name: &str| some[4].split(',').nth(column(name)).unwrap();
    assert_eq!((cell("allocations"), cell("interrupts"), cell("cycles")), ("0", "0", "n/a"));
    assert_eq!(rows("benchmark 5 0").len(), 2, "no decoding was asked for");
    assert!(after(&text, "bench help").contains("bench PROMPT DECODE CORES"), "{text}");
}

#[test]
fn bench_refuses_in_a_sentence_and_ends_with_ctrl_c() {
    let text = chat("bench the world\rbench 8 8 2\rbench 600\rfault ctrl-c 3\rbench 16\r\x03bench 4 1\r");
    assert!(after(&text, "bench the world").starts_with("Bench takes numbers, and `the` is none"), "{text}");
    assert_eq!(after(&text, "bench 8 8 2"), "There is one core, and 2 can't work.");
    assert!(after(&text, "bench 600").contains("632 together and this model takes 512"), "{text}");
    assert!(after(&text, "bench 16").ends_with("\r\nStopped."), "{text}");
    assert!(after(&text, "bench 4 1").ends_with("--- bench csv end ---"), "{text}");
}

#[test]
fn a_board_that_gets_slower_says_so_once_under_the_answer() {
    let mut platform = TestPlatform::with_files(&[("tiny.gguf", &tiny())]);
    platform.throttled = RefCell::new([0, 0x4_0004, 0x4_0004, 0x4_0000].into());
    let text = play_on(&mut platform, "set limit 4\rfirst\rsecond\rthird\rfourth\rfifth\r");
    for (line, told) in [
        ("first", None),
        ("second", Some("[slower: throttled, 48.2 C, Arm clock 1500 MHz]")),
        ("third", None), // it still is
        ("fourth", Some("[no longer: throttled, 48.2 C, Arm clock 1500 MHz]")),
        ("fifth", None),
    ] {
        let answer = after(&text, line);
        assert!(told.is_none_or(|told| answer.contains(told)), "{line}: {text}");
        assert_eq!(answer.contains("throttled"), told.is_some(), "{line}: {text}");
    }
}

#[test]
fn a_board_that_gets_slower_during_a_long_answer_says_so_within_it() {
    let mut platform = TestPlatform::with_files(&[("tiny.gguf", &tiny())]);
    platform.throttled = RefCell::new([0x4_0004, 0x4_0004, 0x4_0000].into());
    platform.tick = 30_000_000_000;
    let text = play_on(&mut platform, "set limit 8\rset temperature 0\rhello\r");
    let answer = after(&text, "hello");
    let (told, summary) = (answer.find("[slower: throttled"), answer.find("[prefill"));
    assert!(told.is_some() && told < summary, "before the answer's end: {text}");
    assert!(answer.contains("[no longer: throttled"), "{text}");
    assert_eq!(answer.matches("throttled").count(), 2, "once a change: {text}");
}

#[test]
fn prefetching_is_changed_only_where_it_is_asked_for_and_a_refusal_is_told() {
    let mut platform = TestPlatform::with_files(&[("EMBODIOS.CFG", b"prefetch = 2\n")]);
    let text = play_on(&mut platform, "set prefetch\rset prefetch 3\rset prefetch\rset prefetch 4\r");
    assert_eq!(platform.log, ["prefetch 2", "prefetch 3", "exit 0", "off"]);
    assert!(text.contains("prefetch is 2. It takes"), "{text}");
    assert!(text.contains("`prefetch` stays off: This board goes no further."), "{text}");
    assert!(text.contains("prefetch is off. It takes"), "{text}");
    assert!(text.contains("`prefetch` can't be `4`"), "{text}");
    let mut platform = TestPlatform::with_files(&[("EMBODIOS.CFG", b"limit = 2\n")]);
    play_on(&mut platform, "");
    assert_eq!(platform.log, ["exit 0", "off"]);
}

#[test]
fn selftest_reports_what_was_done_between_two_lines_and_counts() {
    let text = play(&[], "selftest 8\r");
    let report = after(&text, "selftest 8");
    let rows: Vec<&str> = report.split("\r\n").collect();
    assert_eq!((rows[0], rows[rows.len() - 1]), (selftest::BEGIN, selftest::END), "{report}");
    for row in [
        "board        Test Board, revision c03115, firmware 0x548e1",
        "arguments    none",
        "cores        ok: 1 answered, MIDR 0x1234, one clock of 1000000 Hz",
        "interrupts   ok: wake-ups reach 1 cores, the timer's core 0",
        "memory       ok: 8.0 MiB in 1 pieces, 4 patterns by 1 cores, ",
        "card         ok: first MiB read twice, the same, ",
        "summary      nothing failed; 6 ok, 0 not done, of 6",
    ] {
        assert!(rows.iter().any(|line| line.starts_with(row)), "{row}: {report}");
    }
    let kernels = format!("kernels      ok: {} formats at ", embodios::quant::FORMATS.len());
    assert!(rows.iter().any(|line| line.starts_with(&kernels)), "{report}");
    assert!(rows.iter().all(|row| row.len() < 160), "{report}");
    for wrong in ["selftest x", "selftest 0", "selftest -1"] {
        let text = play(&[], &format!("{wrong}\r"));
        assert!(after(&text, wrong).starts_with("selftest [MIB]: how much memory"), "{text}");
    }
}

#[test]
fn selftest_says_what_failed_and_what_could_not_be_done() {
    let mut platform = TestPlatform::with_files(&[]);
    platform.card_flaw.set(Some(0xab));
    platform.memory_free = 1 << 20;
    let text = play_on(&mut platform, "selftest\r");
    let report = after(&text, "selftest");
    assert!(
        report.contains("card         failed: two reads differ at byte 777: 0xab and 0x54 (sector 1)"),
        "{report}"
    );
    assert!(report.contains("memory       not done: no memory is free"), "{report}");
    assert!(report.contains("summary      FAILED: card; 4 ok, 1 not done, of 6"), "{report}");

    let mut platform = TestPlatform::with_files(&[]);
    platform.deaf = true;
    let text = play_on(&mut platform, "selftest 8\rstatus\r");
    let words = "No interrupt reaches 1 of 1 cores: ";
    assert!(after(&text, "selftest 8").contains(&format!("interrupts   failed: {words}")), "{text}");
    assert!(after(&text, "status").contains(&format!("interrupts   {words}")), "{text}");
    assert!(!play(&[], "status\r").contains("interrupts"), "where they come they are not spoken of");

    let mut platform = TestPlatform::with_files(&[]);
    platform.files = Err("no SD card answers".into());
    let text = play_on(&mut platform, "selftest 8\r");
    assert!(after(&text, "selftest 8").contains("card         failed: no SD card answers"), "{text}");
}
