//! Guessing tokens changes how often the weights are read, and nothing else: texts, caches and next turns are those of
//! decoding one by one. How often it pays, for SmolLM2, is recorded.

mod common;

use common::{InTurn, leak, load, smollm2};
use embodios::sampler::{Sampler, Settings};
use embodios::session::GROUP;
use embodios::speculate::{Drafter, MOST, Policy};
use embodios::{
    Alone, Conversation, Event, Level, Model, Report, Runtime, Session, Speculation, Stop, quant, synth,
};
use std::cell::Cell;
use std::sync::Arc;

const GREEDY: Settings = Settings { temperature: 0.0, ..Settings::DEFAULT };
const PROMPTS: [&str; 4] =
    ["hello", "the cat and the dog and the cat and", "aaaa aaaa aaaa", "x = x + 1; y = y + 1; x ="];
const POLICIES: [Policy; 6] = [
    Policy::A72,
    Policy::A76,
    Policy::PC,
    Policy { most: 1, least: 1, shortest: 1 },
    Policy { most: MOST, least: MOST, shortest: 1 },
    Policy { most: 5, least: 0, shortest: 3 },
];

fn tiny(seed: u64) -> Arc<Model> {
    load(leak(synth::tiny(seed, quant::by_name("Q4_1").unwrap())), Level::detect())
}

/// A model with a long answer to the last prompt, of which a third can be guessed.
fn talkative() -> Arc<Model> {
    tiny(32)
}
const ASKED: &str = PROMPTS[3];

fn new(model: &Arc<Model>, context: usize, speculation: Speculation) -> Conversation {
    let mut conversation = Conversation::new(model.clone(), context, GREEDY).unwrap();
    conversation.set_speculation(speculation);
    conversation
}

/// What must not depend on guesses.
#[derive(Debug, PartialEq)]
struct Said {
    text: String,
    generated: usize,
    decoded: usize,
    reason: Stop,
    cached: Vec<u32>,
}

fn say_until(
    conversation: &mut Conversation,
    text: &str,
    limit: usize,
    stop: &dyn Fn() -> bool,
) -> (Said, Report) {
    let mut answer = String::new();
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop };
    let mut sink = |event: Event<'_>| {
        if let Event::Text(piece) = event {
            answer.push_str(piece);
        }
    };
    let report = conversation.say(text, limit, &runtime, &mut sink).unwrap();
    let Report { generated, decoded, reason, .. } = report;
    (
        Said { text: answer, generated, decoded, reason, cached: conversation.session().tokens().to_vec() },
        report,
    )
}

fn say(conversation: &mut Conversation, text: &str, limit: usize) -> (Said, Report) {
    say_until(conversation, text, limit, &|| false)
}

#[test]
fn two_turns_are_the_same_with_every_policy_on_models_of_many_seeds() {
    let (mut right, mut wrong, mut ends) = (0, 0, 0);
    for seed in (0..4).chain(26..40) {
        let model = tiny(seed);
        for (prompt, limit) in PROMPTS.iter().zip([100, 60, 33, 7]) {
            let turns = |speculation| {
                let mut conversation = new(&model, 512, speculation);
                [say(&mut conversation, prompt, limit), say(&mut conversation, "and now?", 40)]
            };
            let plain = turns(Speculation::Off);
            for policy in POLICIES {
                let turns = turns(Speculation::By(policy));
                for ((said, report), (expected, one_by_one)) in turns.iter().zip(&plain) {
                    assert_eq!(said, expected, "seed {seed}, {prompt:?}, {policy:?}");
                    assert_eq!(one_by_one.passes, one_by_one.decoded);
                    assert_eq!(report.passes + report.accepted(), report.decoded);
                    assert!(report.accepted() <= report.drafted);
                    assert!(report.decoded <= report.passes * (1 + policy.most), "{report:?}");
                    right += report.accepted();
                    wrong += report.drafted - report.accepted();
                    ends += usize::from(said.reason == Stop::End && report.drafted > 0);
                }
            }
        }
    }
    println!("{right} guesses right, {wrong} wrong, {ends} answers with guesses ended by themselves");
    assert!(right > 1000 && wrong > 1000 && ends > 10, "{right} right, {wrong} wrong, {ends} ends");
}

#[test]
fn every_limit_and_every_context_cuts_at_the_same_token() {
    let model = talkative();
    let prompt = ASKED;
    for most in [3, MOST] {
        let by = Speculation::By(Policy { most, least: most, shortest: 1 });
        for limit in 0..40 {
            let turns = |speculation| {
                let mut conversation = new(&model, 400, speculation);
                [say(&mut conversation, prompt, limit).0, say(&mut conversation, "more", 5).0]
            };
            assert_eq!(turns(by), turns(Speculation::Off), "limit {limit}");
        }
        let (_, report) = say(&mut new(&model, 400, by), prompt, 1);
        for context in report.prompt_tokens..report.prompt_tokens + 40 {
            let said = |speculation| say(&mut new(&model, context, speculation), prompt, usize::MAX).0;
            assert_eq!(said(by), said(Speculation::Off), "context {context}");
        }
    }
}

#[test]
fn wherever_an_answer_is_stopped_the_conversation_goes_on_as_if_it_had_been_that_long() {
    let model = talkative();
    let by = Speculation::By(Policy { most: 6, least: 6, shortest: 1 });
    let mut lengths = Vec::new();
    for patience in 0..120 {
        let mut stopped = new(&model, 400, by);
        let asked = Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > patience
        };
        let (said, report) = say_until(&mut stopped, ASKED, 60, &stop);
        if said.reason != Stop::Interrupted {
            break;
        }
        let mut plain = new(&model, 400, Speculation::Off);
        if said.generated > 0 {
            let (expected, _) = say(&mut plain, ASKED, said.generated);
            assert_eq!((&said.text, said.generated), (&expected.text, expected.generated), "{patience}");
            assert_eq!(said.cached.len(), report.prompt_tokens + said.decoded);
        }
        let ((next, _), (expected, _)) = (say(&mut stopped, "go on", 20), say(&mut plain, "go on", 20));
        assert_eq!(next, expected, "stopped after {patience}");
        lengths.push(said.generated);
    }
    lengths.dedup();
    assert!(lengths.len() > 20, "{lengths:?}");
}

#[test]
fn the_likeliest_tokens_are_those_that_a_greedy_sampler_takes_from_the_logits() {
    for seed in [1, 26, 32, 38] {
        let model = tiny(seed);
        let mut conversation = new(&model, 300, Speculation::Auto);
        let (said, report) = say(&mut conversation, PROMPTS[1], 80);
        let mut session = Session::new(model.clone(), 300).unwrap();
        let mut sampler = Sampler::new(GREEDY, model.spec().vocabulary);
        let runtime = Runtime { pool: &InTurn(3), nanos: &|| 0, stop: &|| false };
        session.feed(&said.cached[..report.prompt_tokens], &runtime).unwrap();
        for &token in &said.cached[report.prompt_tokens..] {
            let (logits, recent) = session.logits_and_tokens();
            assert_eq!(sampler.sample(logits, recent), token, "seed {seed}");
            session.feed(&[token], &runtime).unwrap();
        }
    }
}

#[test]
fn nothing_is_guessed_where_chance_or_a_penalty_has_a_say() {
    let model = talkative();
    let chance = Settings { temperature: 0.8, ..GREEDY };
    let penalty = Settings { repeat_penalty: 1.1, ..GREEDY };
    for (settings, guesses) in [
        (GREEDY, true),
        (Settings { top_k: 1, ..chance }, true),
        (Settings { repeat_last_n: 0, ..penalty }, true),
        (chance, false),
        (penalty, false),
    ] {
        let mut conversation = new(&model, 400, Speculation::By(Policy::A76));
        conversation.set_sampling(settings);
        let (_, report) = say(&mut conversation, ASKED, 40);
        assert_eq!(report.drafted > 0, guesses, "{settings:?}");
    }
    assert_eq!(say(&mut new(&model, 400, Speculation::Off), ASKED, 40).1.drafted, 0);
}

/// Passes and right guesses of a policy for an answer known beforehand.
fn replay(model: &Model, policy: Policy, tokens: &[u32], prompt: usize) -> (usize, usize, usize) {
    let mut drafter = Drafter::new(Speculation::By(policy), Level::Plain);
    let (mut passes, mut drafted, mut at) = (0, 0, prompt);
    while at < tokens.len() {
        let mut pass = [0; GROUP];
        let count = drafter.draft(&tokens[..at], tokens[at], usize::MAX, &mut pass);
        let guess = pass[1..count].split(|&token| model.tokenizer().is_end(token)).next().unwrap();
        let right = guess.iter().zip(&tokens[at + 1..]).take_while(|(guess, model)| guess == model).count();
        drafter.learn(guess.len(), right);
        (passes, drafted, at) = (passes + 1, drafted + guess.len(), at + 1 + right);
    }
    (passes, drafted, tokens.len() - prompt - passes)
}

/// The README's figures: tokens a pass of SmolLM2 on a text to summarise and on code to edit.
#[test]
fn smollm2_gives_so_many_tokens_a_pass_when_it_summarises_and_when_it_edits_code() {
    let model = load(smollm2(), Level::detect());
    for (name, prompt, figures) in [
        ("summarise", include_str!("data/summarise.txt"), [(160, 59), (160, 57), (160, 67)]),
        ("edit code", include_str!("data/edit_code.txt"), [(152, 62), (152, 58), (152, 72)]),
    ] {
        let prompt = prompt.trim_end();
        let (plain, report) = say(&mut new(&model, 1024, Speculation::Off), prompt, 400);
        assert_eq!(plain.reason, Stop::End);
        let policies = [("Pi 4", Policy::A72), ("Pi 5", Policy::A76), ("PC", Policy::PC)];
        for (index, (machine, policy)) in policies.into_iter().enumerate() {
            let (passes, drafted, right) = replay(&model, policy, &plain.cached, report.prompt_tokens);
            println!(
                "{name}, {machine}: {} tokens in {passes} passes, {:.2} a pass; {right} of {drafted} guesses right",
                plain.decoded,
                plain.decoded as f64 / passes as f64
            );
            assert_eq!((plain.decoded, passes), figures[index], "{name}, {machine}");
        }
        let (said, report) = say(&mut new(&model, 1024, Speculation::By(Policy::A76)), prompt, 400);
        assert_eq!(said, plain, "{name}");
        assert_eq!((said.decoded, report.passes), figures[1], "{name}");
    }
}
