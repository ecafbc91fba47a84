use super::*;
use crate::model::LoadOptions;
use crate::source::Memory;
use crate::{Alone, Level, digest, quant, synth};
use core::cell::Cell;
use core::ops::ControlFlow;

const RUNTIME: Runtime<'static> = Runtime { pool: &Alone, nanos: &|| 0, stop: &|| false };
const WINDOW: usize = 20;

/// The tiny model; its first layer looks back `window` positions, if that is not 0.
fn model(window: usize, level: Level) -> Arc<Model> {
    let file = synth::tiny(3, quant::by_name("Q8_0").unwrap()).leak();
    let options = LoadOptions { level, ..LoadOptions::default() };
    let mut model = Model::load(&Memory(file), &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let spec = Arc::get_mut(&mut model).unwrap().spec_mut();
    // Heads of whole blocks, which the tiny model's are not: two of 16 become one of 32, with the same tensors.
    (spec.heads, spec.kv_heads, spec.head_size) = (2, 1, 32);
    spec.sliding_window = window;
    spec.sliding_layers = alloc::vec![true, false];
    model
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| i * i % 97 + 3).collect()
}

#[test]
fn a_ring_and_all_rows_and_any_batch_give_the_same_logits() {
    let tokens = tokens(800);
    for level in crate::simd::levels() {
        let model = model(WINDOW, level);
        for kv in [KvFormat::F16, KvFormat::Q8_0] {
            let mut digests = Vec::new();
            for (batch, ring) in [(512, true), (500, true), (33, true), (1, true), (512, false)] {
                let mut session = Session::with_kv(model.clone(), 2000, kv).unwrap();
                let (spec, rows) = (model.spec(), session.bytes().0);
                if !ring {
                    session.cache = Cache::new(spec, kv, 2000, 2000).unwrap();
                    assert!(cache::bytes(spec, kv, 2000, 2000) > rows, "a window's layer takes less");
                }
                session.set_batch(batch);
                digests.push(digest(session.feed(&tokens, &RUNTIME).unwrap()));
            }
            assert!(digests.iter().all(|digest| *digest == digests[0]), "{level}, {kv}: {digests:x?}");
        }
    }
}

#[test]
fn a_window_and_the_format_of_the_cache_matter() {
    let run = |window, kv| {
        let mut session = Session::with_kv(model(window, Level::detect()), 100, kv).unwrap();
        digest(session.feed(&tokens(WINDOW + 1), &RUNTIME).unwrap())
    };
    let all = run(0, KvFormat::F16);
    assert_ne!(run(WINDOW, KvFormat::F16), all, "the first token is out of sight");
    assert_eq!(run(WINDOW + 1, KvFormat::F16), all, "the first token is just in sight");
    assert_ne!(run(0, KvFormat::Q8_0), all);
}

#[test]
fn a_session_can_be_rewound_as_far_as_its_windows_are_kept_and_else_begins_anew() {
    let tokens = tokens(1000);
    let model = model(WINDOW, Level::detect());
    let mut session = Session::new(model.clone(), 2000).unwrap();
    let rows = (WINDOW + session.batch()).next_multiple_of(32);
    session.set_batch(64);
    session.feed(&tokens, &RUNTIME).unwrap();
    // The earliest token that can be run again sees `WINDOW` positions, itself included, and 1000 were written.
    let earliest = 1000 - rows + WINDOW - 1;
    for position in [990, earliest + 1, earliest] {
        assert_eq!(session.rewind(position), position);
        let again = digest(session.feed(&tokens[position..position + 1], &RUNTIME).unwrap());
        let mut fresh = Session::new(model.clone(), 2000).unwrap();
        assert_eq!(again, digest(fresh.feed(&tokens[..=position], &RUNTIME).unwrap()), "{position}");
    }
    assert_eq!(session.rewind(earliest - 1), 0);
    assert_eq!((session.position(), session.tokens().len()), (0, 0));
    session.feed(&tokens[..100], &RUNTIME).unwrap();
    assert_eq!(session.rewind(3), 3, "what was written before it began anew does not count");
    assert_eq!(session.rewind(50), 3, "there are no more tokens than these");
}

#[test]
fn where_no_layer_has_a_window_every_position_can_be_rewound_to() {
    let mut session = Session::new(model(0, Level::detect()), 600).unwrap();
    session.feed(&tokens(600), &RUNTIME).unwrap();
    for position in [599, 300, 1, 0] {
        assert_eq!(session.rewind(position), position);
    }
}

#[test]
fn when_stopped_a_session_is_as_it_was_or_empty_if_windows_have_moved_on() {
    let model = model(WINDOW, Level::detect());
    let layers = model.spec().layers;
    for (batches, left) in [(0, 600), (1, 0)] {
        let mut session = Session::new(model.clone(), 4000).unwrap();
        session.feed(&tokens(600), &RUNTIME).unwrap();
        let asked = Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) > batches * layers;
        let stopped = session.feed(&tokens(2000), &Runtime { stop: &stop, ..RUNTIME }).map(|_| ());
        assert_eq!((stopped, session.position()), (Err(SessionError::Stopped), left), "in batch {batches}");
    }
}

#[test]
fn heads_that_are_no_whole_blocks_are_kept_as_f16() {
    let kept = |head_size| {
        let mut model = model(0, Level::detect());
        Arc::get_mut(&mut model).unwrap().spec_mut().head_size = head_size;
        Session::with_kv(model, 64, KvFormat::Q8_0).unwrap().kv()
    };
    assert_eq!([16, 32, 80, 96, 256, 288].map(kept), {
        let (f16, q8_0) = (KvFormat::F16, KvFormat::Q8_0);
        [f16, q8_0, f16, q8_0, q8_0, f16]
    });
}
