//! A full context that forgets the oldest: what stays is as if it had always been all.

mod common;

use common::{leak, load};
use embodios::gguf::kinds::KINDS;
use embodios::sampler::Settings;
use embodios::synth::{Case, Shape};
use embodios::{
    Alone, Conversation, Event, KvFormat, Level, Model, Overflow, Report, Runtime, Session, SessionError,
    Stop, synth,
};
use std::sync::Arc;

const RUNTIME: Runtime<'_> = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
const CONTEXT: usize = 192;

fn tiny() -> Arc<Model> {
    load(leak(synth::tiny(7, embodios::quant::by_name("Q4_1").unwrap())), Level::detect())
}

fn family(case: &Case) -> Arc<Model> {
    let format = KINDS.iter().find(|kind| kind.name == "Q8_0").unwrap();
    let recipe = synth::Recipe::tiny(case, format, 3);
    load(leak(recipe.plan().unwrap().file()), Level::detect())
}

/// A conversation that forgets, in which no token ends an answer.
fn endless(model: &Arc<Model>, kv: KvFormat, context: usize) -> Conversation {
    let settings = Settings { temperature: 0.0, ..Settings::default() };
    let mut conversation = Conversation::with_kv(model.clone(), context, kv, settings).unwrap();
    conversation.set_bias(model.tokenizer().ends().iter().map(|end| (*end, f32::NEG_INFINITY)).collect());
    conversation.set_overflow(Overflow::Shift);
    conversation.set_system(Some("Be brief.".into()));
    conversation
}

/// The report, the answer and what was forgotten: messages and tokens, each time.
fn say(conversation: &mut Conversation, text: &str, limit: usize) -> (Report, String, Vec<(usize, usize)>) {
    let (mut answer, mut forgotten) = (String::new(), Vec::new());
    let report = conversation.say(text, limit, &RUNTIME, &mut |event| match event {
        Event::Text(piece) => answer.push_str(piece),
        Event::Forgotten { messages, tokens } => forgotten.push((messages, tokens)),
        Event::Prefill { .. } => {}
    });
    (report.unwrap(), answer, forgotten)
}

/// The tokens that a question becomes, in front of its answer.
fn prompt(model: &Arc<Model>, text: &str) -> Vec<u32> {
    let mut conversation = endless(model, KvFormat::F16, CONTEXT);
    say(&mut conversation, text, 0);
    conversation.session().tokens().to_vec()
}

/// The likeliest next token that does not end the answer, by a session that knows no other past.
fn next(model: &Arc<Model>, kv: KvFormat, tokens: &[u32]) -> u32 {
    let mut session = Session::with_kv(model.clone(), CONTEXT, kv).unwrap();
    let logits = session.feed(tokens, &RUNTIME).unwrap();
    let all = logits.iter().enumerate().filter(|(token, _)| !model.tokenizer().is_end(*token as u32));
    let best = all.reduce(|best, this| if this.1 > best.1 { this } else { best });
    best.unwrap().0 as u32
}

#[test]
fn an_answer_goes_on_behind_the_system_message_and_the_later_half_as_if_nothing_else_had_been_said() {
    let [gemma, gpt] = ["gemma3", "gpt2"].map(|name| synth::families::case(name).unwrap());
    // Blocks of 8-bit keys and values take heads of 32.
    let blocks = Case { shape: Shape { head_size: 32, rope_width: 32, ..gemma.shape }, ..*gemma };
    let cases = [
        ("tiny", tiny(), KvFormat::F16),
        ("gemma3", family(gemma), KvFormat::F16),
        ("gemma3", family(&blocks), KvFormat::Q8_0),
        ("gpt2", family(gpt), KvFormat::F16),
    ];
    for (name, model, kv) in cases {
        assert!(kv.fits(model.spec()), "{name}: heads of {}", model.spec().head_size);
        let name = format!("{name} {kv}");
        let (mut tokens, other) = (prompt(&model, "hello"), prompt(&model, "was it?"));
        let anchor = tokens.iter().zip(&other).take_while(|(a, b)| a == b).count();
        assert!(anchor > 0 && tokens.len() < CONTEXT * 3 / 4, "{name}: {} {anchor}", tokens.len());
        let limit = CONTEXT * 3 / 2;
        let mut conversation = endless(&model, kv, CONTEXT);
        let (report, _, forgotten) = say(&mut conversation, "hello", limit);
        assert_eq!((report.generated, report.reason), (limit, Stop::Limit), "{name}");

        let mut times = Vec::new();
        for _ in 0..limit - 1 {
            let token = next(&model, kv, &tokens);
            if tokens.len() == CONTEXT {
                let older = (CONTEXT - anchor).div_ceil(2);
                tokens.drain(anchor..anchor + older);
                times.push((0, older));
            }
            tokens.push(token);
        }
        assert!(times.len() > 1, "{name}: the test needs more than one");
        assert_eq!((conversation.session().tokens(), forgotten), (tokens.as_slice(), times), "{name}");
        assert_eq!(report.decoded, limit - 1, "{name}");
    }
}

#[test]
fn between_answers_the_oldest_messages_go_whole_and_the_system_message_stays() {
    let model = tiny();
    let mut conversation = endless(&model, KvFormat::F16, 320);
    let (mut kept, mut times) = (0, 0);
    for question in 'a'..='x' {
        let (_, answer, forgotten) = say(&mut conversation, &format!("{question}{question}"), 8);
        kept += 1;
        if forgotten.is_empty() {
            continue;
        }
        times += 1;
        let [(messages, tokens)] = forgotten[..] else { panic!("{forgotten:?}") };
        assert!(messages > 0 && messages % 2 == 0 && tokens > 0, "{forgotten:?}");
        kept -= messages / 2;
        let text = String::from_utf8_lossy(&model.tokenizer().decode(conversation.session().tokens(), true))
            .into_owned();
        assert!(text.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"), "{text}");
        assert_eq!(text.matches("<|im_start|>user").count(), kept, "{text}");
        assert!(!text.contains("\naa<"), "{text}");
        // What is left is a prompt like any other.
        let start = text.rfind("<|im_start|>assistant\n").unwrap() + "<|im_start|>assistant\n".len();
        let mut again = String::new();
        endless(&model, KvFormat::F16, 320)
            .complete(&text[..start], 8, &RUNTIME, &mut |event| {
                if let Event::Text(piece) = event {
                    again.push_str(piece);
                }
            })
            .unwrap();
        assert_eq!(again, answer);
    }
    assert!(times > 1, "the test needs more than one");
}

#[test]
fn a_message_longer_than_the_context_is_an_error_that_forgets_nothing() {
    let mut conversation = endless(&tiny(), KvFormat::F16, CONTEXT);
    say(&mut conversation, "hello", 8);
    let before = conversation.session().tokens().to_vec();
    let error = conversation.say(&"xyz ".repeat(CONTEXT), 8, &RUNTIME, &mut |_| {}).unwrap_err();
    assert!(matches!(error, SessionError::Full { context: CONTEXT, .. }), "{error:?}");
    assert_eq!(conversation.session().tokens(), before);
    let (report, ..) = say(&mut conversation, "x", 1);
    assert_eq!(report.cached_tokens, before.len(), "the conversation goes on");
}

#[test]
fn stopped_while_it_reads_again_it_keeps_the_turns_and_the_next_message_is_answered() {
    let model = tiny();
    let mut conversation = endless(&model, KvFormat::F16, CONTEXT);
    let stop = std::cell::Cell::new(false);
    let stopping = || stop.get();
    let runtime = Runtime { stop: &stopping, ..RUNTIME };
    let report = conversation.say("hello", usize::MAX, &runtime, &mut |event| {
        stop.set(stop.get() || matches!(event, Event::Forgotten { .. }));
    });
    assert_eq!(report.unwrap().reason, Stop::Interrupted);
    assert_eq!(conversation.session().position(), 0, "half a past is none");
    let (report, _, forgotten) = say(&mut conversation, "and now?", 8);
    assert_eq!((report.generated, forgotten[0].0), (8, 2), "the first answer was longer than the context");
}

/// Contexts too small to forget anything in end answers, as does `Overflow::Stop`.
#[test]
fn no_context_is_too_small_to_come_to_an_end() {
    for context in 1..40 {
        let mut conversation = endless(&tiny(), KvFormat::F16, context);
        let report = conversation.complete("a", 100, &RUNTIME, &mut |_| {}).unwrap();
        assert!(report.generated == 100 || report.reason == Stop::Context, "{context}: {report:?}");
        conversation.set_overflow(Overflow::Stop);
        let report = conversation.complete("a", 100, &RUNTIME, &mut |_| {}).unwrap();
        assert_eq!(report.reason, Stop::Context, "{context}");
    }
}
