//! Prompts identical to what Jinja renders from the model's own chat template.
//!
//! Recorded by `tools/oracle/record_chat.py`; versions and the model's SHA-256 are in the file.

mod common;

use embodios::chat::{Role, Template, Turn};
use embodios::gguf::Gguf;
use serde_json::Value as Json;

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
    let template =
        Template::recognise(recorded["template"].as_str().expect("text")).expect("a known template");
    let cases = recorded["cases"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for case in cases {
        let turns: Vec<Turn> = case["turns"].as_array().expect("turns").iter().map(turn).collect();
        let generation_prompt = case["generation_prompt"].as_bool().expect("a truth value");
        assert_eq!(template.render(&turns, generation_prompt), case["text"].as_str().expect("text"));
    }
}

#[test]
fn the_models_file_carries_the_recorded_template() {
    let metadata = Gguf::open(&common::smollm2()).expect("a good header").metadata;
    let recorded = recorded();
    assert_eq!(metadata.string("tokenizer.chat_template").ok(), recorded["template"].as_str());
    assert_eq!(Template::from_metadata(&metadata).map(|template| template.name), Ok("smollm2"));
}
