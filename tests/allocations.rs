//! A decode step allocates nothing: counted by the allocator of this test.

mod common;

use common::{leak, load};
use embodios::sampler::{Sampler, Settings};
use embodios::{Alone, Level, Runtime, Session, quant, synth};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)] // an allocator can't be written without
// SAFETY: every call goes to the system's allocator; the counter touches no memory of its callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's layout, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        let (logits, tokens) = session.logits_and_tokens();
        let token = sampler.sample(logits, tokens);
        session.feed(&[token], &runtime).unwrap();
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations in 100 tokens");

    // The counter counts.
    drop(std::hint::black_box(vec![0u8; 100]));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before);
}
