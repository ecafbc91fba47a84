//! A decode step allocates nothing: counted by the allocator of this test.

mod common;

use common::{fetched, leak, load, smollm2};
use embodios::gguf::{Gguf, kinds};
use embodios::grammar::{self, Grammar};
use embodios::model::budget::Budget;
use embodios::sampler::{Sampler, Settings};
use embodios::speculate::Policy;
use embodios::{Alone, Conversation, KvFormat, Level, Runtime, Session, Speculation, quant, synth};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread: the test harness has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has taken and not given back.
    static BYTES: Cell<isize> = const { Cell::new(0) };
    /// Most of those at once.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

#[allow(unsafe_code)] // an allocator can't be written without
// SAFETY: every call goes to the system's allocator; the counter needs no allocation of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(BYTES.get()));
        // SAFETY: the caller's layout, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as isize);
        // SAFETY: allocated above with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_decode_step_and_a_sampled_token_allocate_nothing() {
    let model = load(leak(synth::tiny(1, quant::by_name("Q4_1").unwrap())), Level::detect());
    let mut session = Session::new(model.clone(), 256).unwrap();
    let settings = Settings { repeat_penalty: 1.1, ..Settings::default() };
    let mut sampler = Sampler::new(settings, model.spec().vocabulary);
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
    let prompt = model.tokenizer().encode("the end and the beginning", true, true);
    session.feed(&prompt, &runtime).unwrap();

    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        let (logits, tokens) = session.logits_and_tokens();
        let token = sampler.sample(logits, tokens);
        session.feed(&[token], &runtime).unwrap();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations in 100 tokens");

    // The counter counts.
    drop(std::hint::black_box(vec![0u8; 100]));
    assert!(ALLOCATIONS.get() > before);
}

#[test]
fn a_decode_step_of_every_family_allocates_nothing() {
    let format = kinds::KINDS.iter().find(|kind| kind.name == "Q8_0").unwrap();
    for case in synth::CASES {
        let file = synth::Recipe::tiny(case, format, 1).plan().unwrap().file();
        let mut session = Session::new(load(leak(file), Level::detect()), 64).unwrap();
        let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
        session.feed(&[5, 6, 7], &runtime).unwrap();
        let before = ALLOCATIONS.get();
        for token in 10..30 {
            session.feed(&[token], &runtime).unwrap();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{}", case.name);
    }
}

/// Memory is taken for a prompt, and none for the tokens after it: an answer of 4 takes as much as one of 80.
#[test]
fn tokens_of_an_answer_allocate_nothing_sampled_or_likeliest_guessed_or_not() {
    let model = load(leak(synth::tiny(32, quant::by_name("Q4_1").unwrap())), Level::detect());
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
    for (temperature, speculation) in [
        (0.8, Speculation::Off),
        (0.0, Speculation::Off),
        (0.0, Speculation::By(Policy::A72)),
        (0.0, Speculation::By(Policy::A76)),
    ] {
        let settings = Settings { temperature, ..Settings::default() };
        let mut conversation = Conversation::new(model.clone(), 400, settings).unwrap();
        conversation.set_speculation(speculation);
        let mut taken = |limit| {
            let before = ALLOCATIONS.get();
            let prompt = "x = x + 1; y = y + 1; x =";
            let report = conversation.complete(prompt, limit, &runtime, &mut |_| {}).unwrap();
            assert_eq!(report.generated, limit);
            assert_eq!(report.drafted > 0, limit == 80 && speculation != Speculation::Off);
            ALLOCATIONS.get() - before
        };
        assert_eq!(taken(80), taken(4), "{temperature}, {speculation:?}");
    }
}

#[test]
fn nor_do_all_filters_penalties_stop_strings_and_a_grammar() {
    let model = load(leak(synth::tiny(32, quant::by_name("Q4_1").unwrap())), Level::detect());
    let runtime = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
    let filters = Settings {
        top_k: 0,
        typical_p: 0.9,
        top_n_sigma: 3.0,
        xtc_probability: 0.5,
        repeat_penalty: 1.1,
        presence_penalty: 0.1,
        frequency_penalty: 0.1,
        dry_multiplier: 0.8,
        ..Settings::default()
    };
    let mirostat = Settings { mirostat: 2, ..Settings::default() };
    // As long as it is to be: it may end anywhere, and the tokens that end it are forbidden.
    let list = "root ::= item*\nitem ::= [a-z]+ | [^a-z] | \"[\" item";
    let ends: Vec<_> = model.tokenizer().ends().iter().map(|end| (*end, f32::NEG_INFINITY)).collect();
    for (settings, grammar) in
        [(filters, None), (mirostat, None), (filters, Some(list)), (Settings::default(), Some(grammar::JSON))]
    {
        let mut conversation = Conversation::new(model.clone(), 400, settings).unwrap();
        conversation.set_stops(["never seen".into(), "neither".into()].into_iter());
        let parsed = grammar.map(|text| Grammar::parse(text, Some(model.tokenizer())).unwrap().into());
        conversation.set_grammar(parsed);
        conversation.set_bias(ends.clone());
        let mut taken = |limit| {
            let before = ALLOCATIONS.get();
            let report = conversation.complete("x = x + 1; y =", limit, &runtime, &mut |_| {}).unwrap();
            assert!(grammar == Some(grammar::JSON) || report.generated == limit);
            ALLOCATIONS.get() - before
        };
        assert_eq!(taken(80), taken(4), "{settings:?}, {grammar:?}");
    }
}

/// What is told before loading is what is taken: for every family (windows, experts), format of the cache and context.
#[test]
fn the_budget_is_what_a_session_takes() {
    let format = kinds::KINDS.iter().find(|kind| kind.name == "Q8_0").unwrap();
    // Heads of the tiny models are no whole blocks: these are, in layers with and without a window.
    let gemma = synth::families::case("gemma3").unwrap();
    let blocks =
        synth::Case { shape: synth::Shape { head_size: 32, rope_width: 32, ..gemma.shape }, ..*gemma };
    for case in synth::CASES.iter().chain([&blocks]) {
        let file = leak(synth::Recipe::tiny(case, format, 1).plan().unwrap().file());
        let model = load(file, Level::detect());
        assert!(case.shape.head_size != 32 || KvFormat::Q8_0.fits(model.spec()), "{}", case.name);
        for (name, kv) in KvFormat::ALL {
            for context in [33, 200, 256].map(|context: usize| context.min(model.spec().context)) {
                let budget = Budget::of(&Gguf::open(&file).unwrap(), context, kv).unwrap();
                let before = BYTES.get();
                let session = Session::with_kv(model.clone(), context, kv).unwrap();
                let taken = (BYTES.get() - before) as u64;
                let told = budget.cache + budget.scratch;
                // A few words for each layer and buffer are not told.
                let (least, most) = (told - told / 20, told + told / 50 + 4096);
                assert!(
                    (least..=most).contains(&taken),
                    "{} {name} {context}: {taken}, told {told}",
                    case.name
                );
                drop(session);
                assert_eq!(BYTES.get(), before);
            }
        }
    }
}

/// Header and tokenizer included, and the header while the tokenizer is made from it.
#[test]
fn the_budget_is_what_loading_a_real_model_takes_at_most() {
    let files = [Some(smollm2()), fetched("gemma-3-270m-q4_k_m.gguf")];
    for file in files.into_iter().flatten() {
        let budget = Budget::of(&Gguf::open(&file).unwrap(), 512, KvFormat::F16).unwrap();
        let before = BYTES.get();
        PEAK.set(before);
        let model = load(file, Level::detect());
        let (taken, told) = ((PEAK.get() - before) as u64, budget.weights + budget.tokenizer);
        assert!(taken <= told && taken > told - told / 50, "{}: {taken}, told {told}", model.name());
    }
}
