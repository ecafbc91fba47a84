//! Prompts identical to what Jinja renders.
//!
//! Recorded by `tools/oracle/record_chat.py` (the template of SmolLM2, as text) and `record_templates.py` (the 70
//! templates that llama.cpp ships, as hashes); versions and sources are in the files.

mod common;

use embodios::chat::jinja::{Date, Program, Value, What};
use embodios::chat::{Role, Specials, Style, Template, Turn, builtin};
use embodios::gguf::Gguf;
use embodios::tokenizer::Tokenizer;
use serde_json::Value as Json;
use std::fmt::Write;

fn recorded() -> Json {
    serde_json::from_str(include_str!("data/chat_smollm2.json")).expect("the recording is JSON")
}

fn turn(json: &Json) -> Turn<'_> {
    let content = json[1].as_str().expect("text");
    let roles = [Role::System, Role::User, Role::Assistant];
    let role = roles.into_iter().find(|role| json[0] == role.name()).expect("a role");
    Turn { role, content }
}

#[test]
fn every_recorded_chat_becomes_the_prompt_that_jinja_renders() {
    let recorded = recorded();
    let program = recorded["template"].as_str().expect("text");
    let template = Template::new(program, Specials::default()).expect("a template that is understood");
    assert!(template.takes_system());
    let cases = recorded["cases"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for case in cases {
        let turns: Vec<Turn> = case["turns"].as_array().expect("turns").iter().map(turn).collect();
        let generation_prompt = case["generation_prompt"].as_bool().expect("a truth value");
        let style = Style { generation_prompt, ..Style::default() };
        assert_eq!(template.render(&turns, style).as_deref(), Ok(case["text"].as_str().expect("text")));
    }
}

#[test]
fn the_models_file_carries_the_recorded_template() {
    let metadata = Gguf::open(&common::smollm2()).expect("a good header").metadata;
    let recorded = recorded();
    assert_eq!(metadata.string("tokenizer.chat_template").ok(), recorded["template"].as_str());
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("a tokenizer");
    let (template, warning) = Template::of(&metadata, &tokenizer).expect("a template");
    assert_eq!((template.name(), warning), (None, None));
}

/// FNV-1a, as the recording's.
fn hash(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// What a template makes of a recorded conversation, with the variables that the recording had.
fn rendered(program: &Program, record: &Json, chat: &Json, style: &Json) -> Result<String, What> {
    let text = |json: &Json| Value::from(json.as_str().expect("text"));
    let message = |turn: &Json| {
        Value::mapping([("role".into(), text(&turn[0])), ("content".into(), text(&turn[1]))].into()).unwrap()
    };
    let messages = chat.as_array().expect("turns").iter().map(message).collect();
    let mut given = vec![
        ("messages", Value::list(messages).unwrap()),
        ("tools", Value::None),
        ("documents", Value::None),
        ("add_generation_prompt", style[0].as_bool().expect("a truth value").into()),
        ("bos_token", text(&record["bos"])),
        ("eos_token", text(&record["eos"])),
    ];
    if let Some(thinking) = style[1].as_bool() {
        given.extend([("enable_thinking", thinking.into()), ("thinking", thinking.into())]);
    }
    let date = Date::parse(record["date"].as_str().expect("text"));
    program.render(&given, date).map_err(|error| error.what)
}

#[test]
fn all_templates_that_llama_cpp_ships_become_what_jinja_renders_and_fail_where_it_fails() {
    let Some(folder) = common::reference("templates") else { return };
    let record: Json = serde_json::from_str(include_str!("data/templates.json")).expect("JSON");
    let templates = record["templates"].as_object().expect("templates");
    let (mut wrong, mut cases) = (String::new(), 0);
    for (name, entry) in templates {
        let source = std::fs::read_to_string(folder.join("templates").join(name)).expect("a template");
        assert_eq!(entry["source"], hash(&source), "{name} is the one that was recorded");
        let program = match Program::parse(&source) {
            Ok(program) => program,
            Err(error) => {
                writeln!(wrong, "{name}: {error}").unwrap();
                continue;
            }
        };
        for (c, chat) in record["chats"].as_array().expect("chats").iter().enumerate() {
            for (s, style) in record["styles"].as_array().expect("styles").iter().enumerate() {
                cases += 1;
                let expected = entry["rendered"][c][s].as_str().expect("a hash or an error");
                let ours = match rendered(&program, &record, chat, style) {
                    Ok(text) => hash(&text),
                    Err(What::Raised { message }) => format!("Raised {}", hash(&message)),
                    Err(what) => what.to_string(),
                };
                let failed = !ours.starts_with("Raised") && ours.contains(' ');
                if ours != expected && !(failed && expected.ends_with("Error")) {
                    writeln!(wrong, "{name}, chat {c}, style {s}: {ours} for {expected}").unwrap();
                }
            }
        }
    }
    assert_eq!((templates.len(), cases), (70, 70 * 6 * 4));
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn of_the_templates_that_llama_cpp_ships_only_one_needs_a_stand_in() {
    let Some(folder) = common::reference("templates") else { return };
    let specials = Specials { bos: "<s>".into(), eos: "</s>".into() };
    let (mut refused, mut merging) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(folder.join("templates")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "jinja") {
            continue;
        }
        match Template::new(&std::fs::read_to_string(&path).unwrap(), specials.clone()) {
            Ok(template) if !template.takes_system() => merging.push(name),
            Ok(_) => {}
            Err(error) => {
                let program = std::fs::read_to_string(&path).unwrap();
                let row = builtin::recognised(|mark| program.contains(mark)).expect("a stand-in");
                refused.push(format!("{name}: {error}; {}", row.name));
            }
        }
    }
    refused.sort();
    merging.sort();
    // It wants a list of functions and a date as variables of their own, which Jinja is not given either.
    let want =
        "fireworks-ai-llama-3-firefunction-v2: line 21: can't add a string and an undefined value; llama3";
    assert_eq!(refused, [want]);
    assert_eq!(merging, ["google-gemma-2-2b-it"], "those that refuse a system turn");
}
