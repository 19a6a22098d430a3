//! What every family must show, driven by one table: [`FAMILIES`] on one side, the goldens on the other; must not name a
//! family.

use engine::{
    Decoder,
    decoder::{PrefillChunk, SeqId, SequenceSpec, StepPlan},
};
use mesh_proto::Sampling;
use mlx_rs::{Array, ops::indexing::take_axis};

use super::{
    driver::{Driver, Job, ids, relative_error},
    golden::{Golden, folder, goldens},
};
use crate::{families::FAMILIES, kv::LayerCache, loader::Residency};

#[test]
fn every_family_has_its_goldens_and_every_golden_its_family() {
    let goldens = goldens();
    let names: Vec<&str> = FAMILIES.iter().map(|family| family.names[0]).collect();
    for name in &names {
        let cases: Vec<&Golden> = goldens.iter().filter(|golden| golden.family == *name).collect();
        assert!(cases.iter().any(|golden| !golden.quantised()), "{name}: no case that is not quantised");
        assert!(cases.iter().any(|golden| golden.quantised()), "{name}: no quantised case");
        for golden in cases {
            let caches = golden.decoder(Residency::DenseF32).caches().to_vec();
            let slides = caches.iter().any(|cache| matches!(cache, LayerCache::Sliding { .. }));
            // An answer of 64 behind a prompt of 24 lies beyond it, and the prompt itself beyond most.
            assert!(!slides || golden.window().is_some_and(|window| window < 40), "{}: its window", golden.name());
        }
    }
    for dir in std::fs::read_dir(folder()).unwrap() {
        let dir = dir.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&dir.as_str()), "no family for the goldens in {dir}");
    }
}

/// Logits where the golden has them.
fn logits(golden: &Golden, decoder: &mut crate::decoder::MlxDecoder) -> Array {
    let n = golden.prompt.len() as i32;
    let odd: Vec<i32> = (1..n).step_by(2).collect();
    let all = decoder.logits_of(&golden.prompt).unwrap();
    take_axis(&all, Array::from_slice(&odd, &[odd.len() as i32]), 0).unwrap()
}

#[test]
fn logits_of_every_family_agree_with_mlx_lm_within_1e_4_in_f32() {
    for golden in goldens() {
        let reference = golden.logits();
        let mut forms = vec![golden.decoder(Residency::DenseF32), golden.decoder(Residency::PackedF32)];
        if !golden.unstack.is_empty() {
            forms.push(golden.decoder_unstacked(Residency::DenseF32));
            forms.push(golden.decoder_unstacked(Residency::PackedF32));
        }
        for (i, decoder) in forms.iter_mut().enumerate() {
            let error = relative_error(&logits(&golden, decoder), &reference);
            println!("{} form {i}: {error:.1e}", golden.name());
            assert!(error < 1e-4, "{} form {i}: {error}", golden.name());
        }
    }
}

#[test]
fn logits_of_every_family_as_stored_lie_as_near_as_mlx_lms_own() {
    let mut seen = 0;
    for golden in goldens().iter().filter(|golden| golden.measured.contains_key("native_max")) {
        let ours = logits(golden, &mut golden.decoder(Residency::Stored));
        let off = ours.subtract(golden.logits()).unwrap().abs().unwrap().max(None).unwrap().item_exact::<f32>();
        println!("{}: {off} beside {}", golden.name(), golden.measured["native_max"]);
        // Twice the reference's own distance: other orders of summation round otherwise.
        assert!(off < 2.0 * golden.measured["native_max"], "{}: {off}", golden.name());
        seen += 1;
    }
    assert!(seen >= 3, "bf16 cases");
}

#[test]
fn greedy_tokens_of_every_family_equal_those_of_mlx_lm_over_64_steps() {
    for golden in goldens() {
        for chunk in [512, 5] {
            let mut driver = Driver::new(golden.decoder(Residency::DenseF32), chunk);
            let outcome = driver.one(Job::greedy(&golden.prompt, 64));
            assert_eq!(outcome.tokens, golden.greedy, "{} in chunks of {chunk}", golden.name());
        }
        if golden.quantised() {
            let mut driver = Driver::new(golden.decoder(Residency::PackedF32), 512);
            let outcome = driver.one(Job::greedy(&golden.prompt, 64));
            assert_eq!(outcome.tokens, golden.greedy, "{} packed", golden.name());
        }
    }
}

#[test]
fn a_batch_of_eight_ragged_prompts_of_every_family_equals_eight_single_runs_of_mlx_lm() {
    for golden in goldens() {
        for chunk in [512, 7] {
            let mut driver = Driver::new(golden.decoder(Residency::DenseF32), chunk);
            let jobs = golden.ragged.iter().map(|r| Job::greedy(&r.prompt, r.greedy.len())).collect();
            for (outcome, expected) in driver.run(jobs).iter().zip(&golden.ragged) {
                assert_eq!(outcome.tokens, expected.greedy, "{} in chunks of {chunk}", golden.name());
            }
            assert_eq!(driver.decoder.memory().kv_bytes, 0, "{}: all places are free", golden.name());
        }
    }
}

#[test]
fn a_prompt_of_every_family_may_be_cut_anywhere() {
    for golden in goldens().iter().filter(|golden| !golden.quantised()) {
        let mut decoder = golden.decoder(Residency::DenseF32);
        let whole = decoder.logits_of(&golden.prompt).unwrap();
        for at in 1..golden.prompt.len() {
            let (first, second) = golden.prompt.split_at(at);
            let error = relative_error(&decoder.logits_of_pieces(&[first, second]).unwrap(), &whole);
            assert!(error < 1e-4, "{} cut at {at}: {error}", golden.name());
        }
    }
}

/// Whether a model's memory of a text can be cut to any beginning.
fn cuts(golden: &Golden) -> bool {
    let forgets = |cache: &LayerCache| matches!(cache, LayerCache::State(_) | LayerCache::Sliding { .. });
    !golden.decoder(Residency::DenseF32).caches().iter().any(forgets)
}

#[test]
fn a_reused_prefix_of_every_family_changes_nothing_and_is_told_in_full() {
    for golden in goldens() {
        let (prompt, name) = (golden.prompt.len(), golden.name());
        // In pieces of five the last piece but one ends at token 20.
        let mut driver = Driver::new(golden.decoder(Residency::DenseF32), 5);
        let cold = driver.one(Job::greedy(&golden.prompt, 64));
        assert_eq!(cold.cached, 0, "{name}");
        let warm = driver.one(Job::greedy(&golden.prompt, 64));
        assert_eq!(warm.tokens, golden.greedy, "{name}");
        assert_eq!(warm.cached as usize, if cuts(&golden) { prompt - 1 } else { 20 }, "{name}");
        let longer = [&golden.prompt[..], &golden.greedy[..], &[3, 5, 8]].concat();
        let reused = driver.one(Job::greedy(&longer, 32));
        assert_eq!(reused.cached as usize, prompt + 63, "{name}");
        let fresh = Driver::new(golden.decoder(Residency::DenseF32), 512).one(Job::greedy(&longer, 32));
        assert_eq!(reused.tokens, fresh.tokens, "{name}");
    }
}

/// Opens a sequence and computes its prompt in pieces of `piece`; returns what was reused, and its first token.
fn prefill(decoder: &mut impl Decoder, seq: u64, prompt: &[u32], piece: u32) -> (u32, u32) {
    let seq = SeqId(seq);
    let cached = decoder.open(SequenceSpec::new(seq, ids(prompt), Sampling::default())).unwrap();
    let (mut start, end) = (cached, prompt.len() as u32);
    let mut first = None;
    while start < end {
        let len = piece.min(end - start);
        let prefill = vec![PrefillChunk { seq, start, len, last: start + len == end }];
        decoder.submit(&StepPlan { prefill, ..StepPlan::default() }).unwrap();
        first = decoder.collect().unwrap().first().map(|sampled| sampled.token.0);
        start += len;
    }
    (cached, first.unwrap())
}

#[test]
fn rows_of_every_family_that_wait_or_share_a_beginning_go_on_as_if_alone() {
    for golden in goldens().iter().filter(|golden| !golden.quantised()) {
        let name = golden.name();
        let mut decoder = golden.decoder(Residency::DenseF32);
        let first = prefill(&mut decoder, 0, &golden.prompt, 5);
        assert_eq!(first, (0, golden.greedy[0]), "{name}");
        let (cached, token) = prefill(&mut decoder, 1, &golden.prompt, 512);
        assert_eq!((cached >= 16, token), (true, golden.greedy[0]), "{name}");
        let mut said = [vec![golden.greedy[0]], vec![golden.greedy[0]]];
        for step in 0..50 {
            // The first row waits for twenty steps in the middle, the second one for ten.
            let mut decode = Vec::new();
            if !(10..30).contains(&step) {
                decode.push(SeqId(0));
            }
            if !(25..35).contains(&step) {
                decode.push(SeqId(1));
            }
            if decode.is_empty() {
                continue;
            }
            decoder.submit(&StepPlan { decode, ..StepPlan::default() }).unwrap();
            for sampled in decoder.collect().unwrap() {
                said[sampled.seq.0 as usize].push(sampled.token.0);
            }
        }
        for tokens in said {
            assert_eq!(tokens, golden.greedy[..tokens.len()], "{name}");
            assert!(tokens.len() > 30, "{name}");
        }
    }
}

#[test]
fn every_family_says_the_same_beyond_its_first_place_whether_it_wrote_or_read_what_came_before() {
    let mut seen = Vec::new();
    for golden in goldens() {
        if golden.quantised() || golden.dtype != "float32" || seen.contains(&golden.family) {
            continue;
        }
        seen.push(golden.family.clone());
        // A window larger than the first place: its ring grows once.
        let widen = |config: &mut serde_json::Value| {
            if config.get("sliding_window").is_some() {
                config["sliding_window"] = 280.into();
            }
        };
        let decoder = || golden.decoder_with(widen, Residency::DenseF32);
        let written = Driver::new(decoder(), 512).one(Job::greedy(&golden.prompt, 340)).tokens;
        for beyond in [230, 260, 300, 339] {
            let text = [&golden.prompt[..], &written[..beyond]].concat();
            let read = Driver::new(decoder(), 64).one(Job::greedy(&text, 1)).tokens;
            assert_eq!(read, written[beyond..=beyond], "{} behind {beyond}", golden.name());
        }
    }
}
