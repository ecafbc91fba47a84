//! The same bits: levels, threads and batch sizes, on the PC and under emulation of two Arm CPUs. The recorded
//! digests make separate runs, and the firmware's (`tests/boot.rs`), comparable.

mod common;

use common::{InTurn, Threads, digest_of, leak, load, smollm2};
use embodios::quant::FORMATS;
use embodios::{Pool, simd, synth};

/// A chat prompt of more than 32 tokens, so that batches of 1, 7 and 32 cut it in three ways.
const PROMPT: &str = include_str!("data/digest_prompt.txt");
/// Digest of SmolLM2's logits after it, its last line end included, which `$(cat …)` would drop:
/// `IFS= read -r -d '' text < tests/data/digest_prompt.txt; cargo embodi digest smollm2-135m-instruct "$text"`
const SMOLLM2: u64 = 0x2c78_2802_3b2a_c504;
/// Digest of the logits of the tiny models of seed 1 after the same prompt.
const TINY: &[(&str, u64)] = &[
    ("F32", 0xaeba_8883_93c9_193d),
    ("F16", 0x1c22_271d_f719_6ab9),
    ("BF16", 0x8d71_7055_606f_0ad7),
    ("Q4_0", 0xbb40_09f7_44d1_d523),
    ("Q4_1", 0x8543_692a_1aca_a126),
    ("Q5_0", 0x5fd5_3557_b992_13a0),
    ("Q5_1", 0x3296_ce4d_5c71_05bf),
    ("Q8_0", 0x3bf1_178a_538c_014d),
    ("Q2_K", 0x7250_87aa_9073_36c6),
    ("Q3_K", 0x3f44_73ee_6d68_b915),
    ("Q4_K", 0x3a62_3970_800d_f45b),
    ("Q5_K", 0x8695_9655_8761_e712),
    ("Q6_K", 0x1a38_0000_9edc_1d3f),
    ("IQ4_NL", 0x0fba_fc71_d289_d9b5),
    ("MXFP4", 0xe56c_3aa7_8406_a00c),
    ("IQ4_XS", 0xa89b_36d5_21d2_a964),
    ("TQ1_0", 0x7dae_a738_7d10_3156),
    ("TQ2_0", 0x7dae_a738_7d10_3156),
    ("IQ3_S", 0xce64_f2d1_8a02_967a),
    ("IQ3_XXS", 0x5718_f6d8_4369_a82d),
    ("IQ2_S", 0xb342_d45c_446c_c2c9),
    ("IQ2_XS", 0x7f54_2ef4_74f5_4528),
    ("IQ2_XXS", 0xd74c_909f_834f_9568),
    ("IQ1_M", 0xfa0d_c1a7_a999_0a79),
    ("IQ1_S", 0xfe75_a4be_460a_f89a),
];

/// Threads and batch sizes to try at a level. A real model takes half a second a token on an emulated CPU, so there
/// the best level gets two runs, and plain code one; the PC tries everything.
fn runs(level: simd::Level) -> &'static [(usize, usize)] {
    if cfg!(not(target_arch = "aarch64")) {
        return &[(1, 32), (2, 7), (3, 32), (4, 1)];
    }
    match level {
        level if level == simd::Level::detect() => &[(4, 7), (1, 32)],
        simd::Level::Plain if simd::levels().count() == 2 => &[(2, 1)],
        _ => &[],
    }
}

#[test]
fn smollm2_has_the_recorded_logits_at_every_level_thread_count_and_batch_size() {
    let source = smollm2();
    for level in simd::levels() {
        let model = load(source, level);
        let tokens = model.tokenizer().encode(PROMPT, true, true);
        assert!(tokens.len() > 32, "{} tokens", tokens.len());
        for &(threads, batch) in runs(level) {
            let digest = digest_of(&model, &tokens, &Threads(threads), batch);
            assert_eq!(digest, SMOLLM2, "{level}, {threads} threads, batches of {batch}: {digest:#018x}");
        }
    }
}

#[test]
fn tiny_models_of_every_format_have_the_recorded_logits_however_they_are_run() {
    let mut missing = String::new();
    for format in FORMATS {
        let source = leak(synth::tiny(1, format));
        let mut recorded = TINY.iter().find(|(name, _)| *name == format.name).map(|(_, digest)| *digest);
        for level in simd::levels() {
            let model = load(source, level);
            let tokens = model.tokenizer().encode(PROMPT, true, true);
            // To start threads is slow on an emulated CPU, where the real model above does; there each share is
            // computed in turn.
            let emulated = cfg!(target_arch = "aarch64");
            // Formats of 256 have a larger model: a few ways to run it do.
            let few = match (format.len > 32, emulated) {
                (true, true) => &[(2, 7)][..],
                (true, false) => &[(1, 32), (2, 7), (3, 1)],
                _ => &[],
            };
            for (width, batch) in (1..=4).flat_map(|width| [1, 7, 32].map(|batch| (width, batch))) {
                if format.len > 32 && !few.contains(&(width, batch)) {
                    continue;
                }
                let pool: &dyn Pool = if emulated { &InTurn(width) } else { &Threads(width) };
                let digest = digest_of(&model, &tokens, pool, batch);
                let recorded = *recorded.get_or_insert_with(|| {
                    missing += &format!("    (\"{}\", {digest:#018x}),\n", format.name);
                    digest
                });
                assert_eq!(
                    digest, recorded,
                    "{}, {level}, {width} workers, batches of {batch}: {digest:#018x}",
                    format.name
                );
            }
        }
    }
    assert!(missing.is_empty(), "digests that are not recorded:\n{missing}");
}
