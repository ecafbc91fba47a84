//! Conversations over a tiny model: what is kept, what is run again, how they stop.

mod common;

use common::{leak, load, on_threads};
use embodios::grammar::Grammar;
use embodios::sampler::Settings;
use embodios::{Alone, Conversation, Event, Level, Model, Report, Runtime, SessionError, Stop, quant, synth};
use std::cell::Cell;
use std::sync::Arc;

fn model() -> Arc<Model> {
    load(leak(synth::tiny(7, quant::by_name("Q4_1").unwrap())), Level::detect())
}

fn greedy() -> Settings {
    Settings { temperature: 0.0, ..Settings::default() }
}

fn say(conversation: &mut Conversation, text: &str, limit: usize) -> (String, Report) {
    let mut answer = String::new();
    let report = on_threads(1, |runtime| {
        conversation
            .say(text, limit, runtime, &mut |event| {
                if let Event::Text(piece) = event {
                    answer.push_str(piece);
                }
            })
            .unwrap()
    });
    (answer, report)
}

#[test]
fn a_second_turn_prefills_only_what_is_new_and_answers_as_if_all_had_been_run_at_once() {
    let model = model();
    let mut kept = Conversation::new(model.clone(), 400, greedy()).unwrap();
    let (first, _) = say(&mut kept, "hello there", 8);
    let used = kept.session().position();
    let (second, report) = say(&mut kept, "and now?", 8);
    assert_eq!(report.cached_tokens, used, "nothing is run twice");

    let all = format!(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\n{first}<|im_end|>\n\
         <|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\n"
    );
    let mut fresh = Conversation::new(model, 400, greedy()).unwrap();
    let mut answer = String::new();
    on_threads(1, |runtime| {
        fresh.complete(&all, 8, runtime, &mut |event| {
            if let Event::Text(piece) = event {
                answer.push_str(piece);
            }
        })
    })
    .unwrap();
    assert_eq!(answer, second);
}

#[test]
fn reset_forgets_everything_so_the_same_words_get_the_same_answer() {
    for settings in [greedy(), Settings { seed: 3, ..Settings::default() }] {
        let mut conversation = Conversation::new(model(), 400, settings).unwrap();
        let (first, _) = say(&mut conversation, "tell me", 12);
        say(&mut conversation, "more", 12);
        conversation.reset();
        let (again, report) = say(&mut conversation, "tell me", 12);
        assert_eq!((again, report.cached_tokens), (first, 0));
    }
}

#[test]
fn another_seed_gives_another_answer() {
    let answer = |seed| {
        let settings = Settings { seed, temperature: 1.5, ..Settings::default() };
        say(&mut Conversation::new(model(), 400, settings).unwrap(), "tell me", 24).0
    };
    assert_ne!(answer(1), answer(2));
    assert_eq!(answer(5), answer(5));
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_numbers_and_the_conversation_goes_on() {
    let mut conversation = Conversation::new(model(), 160, greedy()).unwrap();
    let (_, before) = say(&mut conversation, "hi", 4);
    let position = conversation.session().position();
    let long = "x ".repeat(200);
    let error = on_threads(1, |runtime| conversation.say(&long, 4, runtime, &mut |_| {})).unwrap_err();
    assert!(matches!(error, SessionError::Full { context: 160, .. }), "{error:?}");
    assert_eq!(conversation.session().position(), position);
    let (_, after) = say(&mut conversation, "hi", 4);
    assert_eq!(after.cached_tokens, before.prompt_tokens + before.decoded);
}

#[test]
fn a_full_context_ends_the_answer_and_says_so() {
    let mut conversation = Conversation::new(model(), 180, greedy()).unwrap();
    let (_, report) = say(&mut conversation, "hi", usize::MAX);
    assert!(matches!(report.reason, Stop::Context | Stop::End), "{report:?}");
    assert!(conversation.session().position() <= 180);
}

#[test]
fn stopping_in_the_prompt_leaves_the_conversation_as_it_was_and_stopping_in_the_answer_keeps_what_was_said() {
    let mut conversation = Conversation::new(model(), 400, greedy()).unwrap();
    say(&mut conversation, "one", 4);
    let position = conversation.session().position();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &stop };
    let report = conversation.say("two", 4, &runtime, &mut |_| {}).unwrap();
    assert_eq!((report.reason, report.generated), (Stop::Interrupted, 0));
    assert_eq!(conversation.session().position(), position);
    // The same just after the prompt, before the first token of the answer.
    let done = Cell::new(false);
    let stop = || done.get();
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &stop };
    let mut watch =
        |event: Event<'_>| done.set(matches!(event, Event::Prefill { done, total } if done == total));
    let report = conversation.say("two", 4, &runtime, &mut watch).unwrap();
    assert_eq!((report.reason, report.generated), (Stop::Interrupted, 0));
    assert_eq!(conversation.session().position(), position);

    let seen = Cell::new(0);
    let stop = || seen.get() >= 3;
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &stop };
    let mut answer = String::new();
    let report = conversation
        .say("two", 50, &runtime, &mut |event| {
            if let Event::Text(piece) = event {
                answer.push_str(piece);
                seen.set(seen.get() + 1);
            }
        })
        .unwrap();
    assert_eq!(report.reason, Stop::Interrupted);
    assert!(!answer.is_empty());
    let (_, report) = say(&mut conversation, "three", 4);
    assert!(report.cached_tokens > position, "what was said is still there");
}

#[test]
fn an_empty_completion_is_an_error_in_words() {
    let mut conversation = Conversation::new(model(), 64, greedy()).unwrap();
    let error = on_threads(1, |runtime| conversation.complete("", 4, runtime, &mut |_| {})).unwrap_err();
    assert_eq!(error.to_string(), "there is nothing to run: the text is empty");
}

#[test]
fn a_limit_of_nothing_generates_nothing() {
    let mut conversation = Conversation::new(model(), 200, greedy()).unwrap();
    let (answer, report) = say(&mut conversation, "hi", 0);
    assert_eq!((answer.as_str(), report.generated, report.reason), ("", 0, Stop::Limit));
}

#[test]
fn an_answer_ends_before_a_stop_string_and_the_next_turn_goes_on_from_what_was_shown() {
    for settings in [greedy(), Settings { seed: 3, temperature: 1.0, ..Settings::default() }] {
        let (whole, _) = say(&mut Conversation::new(model(), 600, settings).unwrap(), "tell me", 60);
        let stops: Vec<String> = {
            let chars: Vec<char> = whole.chars().collect();
            // From somewhere in the middle, of several lengths, so that they begin and end within tokens.
            [(9, 1), (11, 2), (14, 5), (20, 9)]
                .map(|(at, length)| chars[at.min(chars.len() - length)..][..length].iter().collect())
                .into()
        };
        for stop in stops {
            let mut conversation = Conversation::new(model(), 600, settings).unwrap();
            conversation.set_stops([stop.clone(), "never to be seen".into()].into_iter());
            let (answer, report) = say(&mut conversation, "tell me", 60);
            assert_eq!(
                (report.reason, answer.as_str()),
                (Stop::String, whole.split(&stop).next().unwrap()),
                "{stop:?}"
            );
            // As if the answer had been that from the beginning: what is kept is part of the same text.
            conversation.set_stops([].into_iter());
            let (next, report) = say(&mut conversation, "and now?", 8);
            assert!(report.cached_tokens > 0, "{stop:?}");
            let tokens = conversation.session().tokens().to_vec();
            let text = model().tokenizer().decode(&tokens, true);
            let text = String::from_utf8_lossy(&text);
            let expected = format!("<|im_start|>assistant\n{answer}<|im_end|>\n<|im_start|>user\nand now?");
            assert!(text.contains(&expected), "{stop:?}, {next}: {text}");
        }
    }
}

#[test]
fn text_that_was_held_back_for_a_stop_that_did_not_come_is_shown_at_the_end() {
    let (whole, _) = say(&mut Conversation::new(model(), 400, greedy()).unwrap(), "tell me", 12);
    let last = whole.chars().last().unwrap();
    let mut conversation = Conversation::new(model(), 400, greedy()).unwrap();
    conversation.set_stops([format!("{last}\u{1}")].into_iter());
    assert_eq!(say(&mut conversation, "tell me", 12).0, whole);
}

fn with_grammar(text: &str, settings: Settings) -> Conversation {
    let model = model();
    let grammar = Grammar::parse(text, Some(model.tokenizer())).unwrap();
    let mut conversation = Conversation::new(model, 600, settings).unwrap();
    conversation.set_grammar(Some(Arc::new(grammar)));
    conversation
}

#[test]
fn a_grammar_is_obeyed_whatever_the_settings_and_the_answer_ends_where_nothing_may_follow() {
    let grammar = r#"root ::= "I say: " [a-z]{3} (" and " [0-9]{2}){2} "!""#;
    let is_text = |text: &str| {
        let shape: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_digit() {
                    '0'
                } else if c.is_ascii_lowercase() {
                    'a'
                } else {
                    c
                }
            })
            .collect();
        shape == "I aaa: aaa aaa 00 aaa 00!"
    };
    let default = Settings::default();
    for settings in [
        greedy(),
        Settings { temperature: 5.0, ..default },
        Settings { top_k: 0, ..default },
        Settings { top_k: 1, ..default },
        Settings { top_n_sigma: 1.0, ..default },
        Settings { mirostat: 2, ..default },
        Settings { mirostat: 2, temperature: 0.0, ..default },
        Settings { typical_p: 0.5, ..default },
        Settings { repeat_penalty: 1.5, dry_multiplier: 1.0, ..default },
        Settings { xtc_probability: 1.0, ..default },
    ] {
        let mut conversation = with_grammar(grammar, settings);
        for turn in ["first", "second"] {
            let (text, report) = say(&mut conversation, turn, 100);
            assert!(is_text(&text), "{text:?} at {settings:?}");
            assert_eq!(report.reason, Stop::End);
        }
    }
}

#[test]
fn where_no_token_fits_the_grammar_the_answer_ends_and_says_so() {
    let model = model();
    // A token as such that is its own end: never to be sampled, as only the grammar's end allows it.
    let end = model.tokenizer().ends()[0];
    let (text, report) =
        say(&mut with_grammar(&format!("root ::= \"a\" <[{end}]> \"b\""), greedy()), "hi", 10);
    assert_eq!((text.as_str(), report.reason), ("a", Stop::Grammar));
}

#[test]
fn a_bias_forbids_a_token_and_turns_guessing_off() {
    let mut conversation = Conversation::new(model(), 400, greedy()).unwrap();
    let (whole, _) = say(&mut conversation, "tell me", 12);
    let first = model().tokenizer().encode(&whole, false, false)[0];
    let mut conversation = Conversation::new(model(), 400, greedy()).unwrap();
    conversation.set_bias(vec![(first, f32::NEG_INFINITY), (u32::MAX, 1.0)]);
    let (other, report) = say(&mut conversation, "tell me", 12);
    assert_ne!(other, whole);
    assert_eq!(report.drafted, 0);
}
