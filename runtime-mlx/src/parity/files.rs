//! Checkpoints as mlx-lm saves them, shards and mixed widths included; must not know how a decoder is driven.

use std::{collections::BTreeMap, path::PathBuf};

use engine::{
    Decoder,
    decoder::{PrefillChunk, SeqId, SequenceSpec, StepPlan},
    pool::Pooling,
};
use mesh_proto::Sampling;
use mlx_rs::{Array, Dtype};
use serde::Deserialize;

use super::driver::{Driver, Job, ids, relative_error};
use crate::{
    decoder::MlxDecoder,
    load::{LoadOptions, load},
    loader::Residency,
};

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    bits: Option<u32>,
    tolerance: BTreeMap<String, f32>,
}

#[derive(Deserialize)]
struct Golden {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    ragged: Vec<Ragged>,
}

#[derive(Deserialize)]
struct Ragged {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("cases.json")).unwrap();
    serde_json::from_str::<Cases>(&text).unwrap().cases
}

fn golden(name: &str) -> Golden {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name).join("golden.json")).unwrap()).unwrap()
}

fn decoder(name: &str, residency: Residency) -> MlxDecoder {
    let options = LoadOptions { residency: Some(residency), ..LoadOptions::default() };
    load(&folder().join(name), options, &mut |_| {}).unwrap_or_else(|e| panic!("{name}: {e}")).decoder
}

fn reference(name: &str, tensor: &str) -> Option<Array> {
    Array::load_safetensors(folder().join(name).join("golden.safetensors")).unwrap().remove(tensor)
}

#[test]
fn logits_agree_with_mlx_lm_within_1e_4_in_f32() {
    for case in cases() {
        for residency in [Residency::DenseF32, Residency::PackedF32] {
            let mut decoder = decoder(&case.name, residency);
            let ours = decoder.logits_of(&golden(&case.name).prompt).unwrap();
            let error = relative_error(&ours, &reference(&case.name, "logits").unwrap());
            println!("{} {residency:?}: {error:.1e}", case.name);
            assert!(error < 1e-4, "{} {residency:?}: {error}", case.name);
        }
    }
}

#[test]
fn logits_as_stored_agree_with_mlx_lm_in_the_stored_dtype() {
    let mut seen = 0;
    for case in cases() {
        let Some(native) = reference(&case.name, "logits_native") else { continue };
        let ours = decoder(&case.name, Residency::Stored).logits_of(&golden(&case.name).prompt).unwrap();
        let reference = native.as_dtype(Dtype::Float32).unwrap();
        let worst = ours.subtract(&reference).unwrap().abs().unwrap().max(None).unwrap().item_exact::<f32>();
        println!("{}: {worst}", case.name);
        assert!(worst < case.tolerance["native"], "{}: {worst}", case.name);
        seen += 1;
    }
    assert!(seen >= 3, "bf16 cases of each family");
}

#[test]
fn greedy_tokens_equal_those_of_mlx_lm_over_64_steps() {
    for case in cases() {
        let golden = golden(&case.name);
        for chunk in [512, 5] {
            let mut driver = Driver::new(decoder(&case.name, Residency::DenseF32), chunk);
            let outcome = driver.one(Job::greedy(&golden.prompt, 64));
            assert_eq!(outcome.tokens, golden.greedy, "{} in chunks of {chunk}", case.name);
        }
        if case.bits.is_some() {
            let mut driver = Driver::new(decoder(&case.name, Residency::PackedF32), 512);
            assert_eq!(driver.one(Job::greedy(&golden.prompt, 64)).tokens, golden.greedy, "{} packed", case.name);
        }
    }
}

#[test]
fn a_batch_of_eight_ragged_prompts_equals_eight_single_runs_of_mlx_lm() {
    for case in cases() {
        let golden = golden(&case.name);
        for chunk in [512, 7] {
            let mut driver = Driver::new(decoder(&case.name, Residency::DenseF32), chunk);
            let jobs = golden.ragged.iter().map(|r| Job::greedy(&r.prompt, r.greedy.len())).collect();
            for (outcome, expected) in driver.run(jobs).iter().zip(&golden.ragged) {
                assert_eq!(outcome.tokens, expected.greedy, "{} in chunks of {chunk}", case.name);
            }
            assert_eq!(driver.decoder.memory().kv_bytes, 0, "all places are free");
        }
    }
}

#[test]
fn a_reused_prefix_changes_nothing() {
    for name in ["llama-f32", "qwen2-q4", "qwen3-q8"] {
        let golden = golden(name);
        let mut driver = Driver::new(decoder(name, Residency::DenseF32), 512);
        let cold = driver.one(Job::greedy(&golden.prompt, 64));
        assert_eq!(cold.cached, 0);
        let warm = driver.one(Job::greedy(&golden.prompt, 64));
        assert_eq!(warm.tokens, golden.greedy);
        assert_eq!(warm.cached as usize, golden.prompt.len() - 1, "all but the token that must be computed");
        // A conversation that goes on: prompt, answer, and more.
        let longer = [&golden.prompt[..], &golden.greedy[..], &[3, 5, 8]].concat();
        let reused = driver.one(Job::greedy(&longer, 32));
        assert_eq!(reused.cached as usize, golden.prompt.len() + golden.greedy.len() - 1);
        let fresh = Driver::new(decoder(name, Residency::DenseF32), 512).one(Job::greedy(&longer, 32));
        assert_eq!(reused.tokens, fresh.tokens);
    }
}

#[test]
fn sequences_that_run_share_their_prompts_beginning() {
    let golden = golden("qwen3-f32");
    let mut driver = Driver::new(decoder("qwen3-f32", Residency::DenseF32), 512);
    let open = |driver: &mut Driver, id| {
        let spec = SequenceSpec::new(SeqId(id), ids(&golden.prompt), Sampling::default());
        driver.decoder.open(spec).unwrap()
    };
    assert_eq!(open(&mut driver, 900), 0);
    let len = golden.prompt.len() as u32;
    let chunk = PrefillChunk { seq: SeqId(900), start: 0, len, last: true };
    driver.decoder.submit(&StepPlan { decode: vec![], prefill: vec![chunk], ..StepPlan::default() }).unwrap();
    assert_eq!(open(&mut driver, 901), len - 1);
    let rest = PrefillChunk { seq: SeqId(901), start: len - 1, len: 1, last: true };
    driver.decoder.submit(&StepPlan { decode: vec![SeqId(900)], prefill: vec![rest], ..StepPlan::default() }).unwrap();
    let first = driver.decoder.collect().unwrap();
    let second = driver.decoder.collect().unwrap();
    assert_eq!(first[0].token.0, golden.greedy[0]);
    let of = |id| second.iter().find(|s| s.seq == SeqId(id)).unwrap().token.0;
    assert_eq!((of(900), of(901)), (golden.greedy[1], golden.greedy[0]));
}

#[test]
fn sequences_that_outgrow_their_place_or_end_in_the_middle_disturb_nobody() {
    let golden = golden("llama-q8");
    let lengths = [300, 3, 40, 290, 1, 260, 100];
    let jobs = |select: &dyn Fn(usize) -> bool| -> Vec<Job> {
        let all = golden.ragged.iter().zip(lengths).enumerate().filter(|(i, _)| select(*i));
        all.map(|(_, (ragged, n))| Job::greedy(&ragged.prompt, n)).collect()
    };
    let together = Driver::new(decoder("llama-q8", Residency::DenseF32), 16).run(jobs(&|_| true));
    for (i, outcome) in together.iter().enumerate() {
        let alone = Driver::new(decoder("llama-q8", Residency::DenseF32), 512).run(jobs(&|j| j == i)).remove(0);
        assert_eq!(outcome.tokens.len(), lengths[i]);
        assert_eq!(outcome.tokens, alone.tokens, "row {i}");
    }
}

#[test]
fn a_seeded_row_says_the_same_alone_and_in_any_company() {
    let golden = golden("qwen3-f32");
    let sampled = |seed: u64, top_p: f32| Job {
        prompt: golden.prompt.clone(),
        sampling: Sampling { temperature: 1.0, top_p, seed: Some(seed), ..Sampling::default() },
        tokens: 24,
    };
    let mut jobs = vec![sampled(1, 1.0), sampled(2, 0.9), sampled(1, 1.0)];
    jobs.extend(golden.ragged.iter().map(|r| Job::greedy(&r.prompt, 24)));
    let together = Driver::new(decoder("qwen3-f32", Residency::DenseF32), 9).run(jobs);
    for (i, job) in [sampled(1, 1.0), sampled(2, 0.9), sampled(1, 1.0)].into_iter().enumerate() {
        let alone = Driver::new(decoder("qwen3-f32", Residency::DenseF32), 512).one(job);
        assert_eq!(together[i].tokens, alone.tokens, "row {i}");
    }
    assert_eq!(together[0].tokens, together[2].tokens);
    assert_ne!(together[0].tokens, together[1].tokens);
}

#[test]
fn a_row_that_waits_goes_on_where_it_was() {
    let golden = golden("qwen2-f32");
    let mut decoder = decoder("qwen2-f32", Residency::DenseF32);
    for id in [0, 1] {
        let spec = SequenceSpec::new(SeqId(id), ids(&golden.prompt), Sampling::default());
        let start = decoder.open(spec).unwrap();
        let len = golden.prompt.len() as u32 - start;
        let prefill = vec![PrefillChunk { seq: SeqId(id), start, len, last: true }];
        decoder.submit(&StepPlan { decode: vec![], prefill, ..StepPlan::default() }).unwrap();
        decoder.collect().unwrap();
    }
    let mut second = vec![golden.greedy[0]];
    for step in 0..40 {
        // The first row pauses for twenty steps in the middle.
        let mut decode = vec![SeqId(1)];
        if !(10..30).contains(&step) {
            decode.insert(0, SeqId(0));
        }
        decoder.submit(&StepPlan { decode, prefill: vec![], ..StepPlan::default() }).unwrap();
        let sampled = decoder.collect().unwrap();
        second.extend(sampled.iter().filter(|s| s.seq == SeqId(1)).map(|s| s.token.0));
        if let Some(first) = sampled.iter().find(|s| s.seq == SeqId(0)) {
            let at = if step < 10 { step + 1 } else { step - 19 };
            assert_eq!(first.token.0, golden.greedy[at]);
        }
    }
    assert_eq!(second, golden.greedy[..41]);
}

#[derive(Deserialize)]
struct PooledGolden {
    tokens: Vec<u32>,
    rows: Vec<PooledRow>,
}

#[derive(Deserialize)]
struct PooledRow {
    prompt: Vec<u32>,
    first: Vec<f32>,
    last: Vec<f32>,
    mean: Vec<f32>,
    logits: Vec<f32>,
}

/// Largest difference of a pooled value from mlx-lm's. Hidden states behind the norm are about 1; as for the logits, orders of
/// summation differ.
const POOLED_TOLERANCE: f32 = 5e-4;

/// Pools prompts together in chunks of this many tokens, beside a row that decodes.
fn pool(decoder: &mut MlxDecoder, prompts: &[Vec<u32>], pooling: &Pooling, chunk: u32) -> Vec<Vec<f32>> {
    let beside = SeqId(1000);
    decoder.open(SequenceSpec::new(beside, ids(&[3, 4, 5]), Sampling::default())).unwrap();
    let first = PrefillChunk { seq: beside, start: 0, len: 3, last: true };
    decoder.submit(&StepPlan { prefill: vec![first], ..StepPlan::default() }).unwrap();
    decoder.collect().unwrap();
    let mut at = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let spec = SequenceSpec::new(SeqId(i as u64), ids(prompt), Sampling::default());
        at.push(decoder.open(SequenceSpec { pool: Some(pooling.clone()), ..spec }).unwrap());
    }
    let mut made = vec![None; prompts.len()];
    while at.iter().zip(prompts).any(|(at, prompt)| (*at as usize) < prompt.len()) {
        let mut plan = StepPlan { decode: vec![beside], ..StepPlan::default() };
        for (i, prompt) in prompts.iter().enumerate().filter(|(i, prompt)| (at[*i] as usize) < prompt.len()) {
            let len = chunk.min(prompt.len() as u32 - at[i]);
            let last = (at[i] + len) as usize == prompt.len();
            plan.prefill.push(PrefillChunk { seq: SeqId(i as u64), start: at[i], len, last });
        }
        decoder.submit(&plan).unwrap();
        let sampled = decoder.collect().unwrap();
        assert!(sampled.iter().any(|sampled| sampled.seq == beside), "who decodes has a token in every step");
        for piece in &plan.prefill {
            let i = piece.seq.0 as usize;
            at[i] += piece.len;
            if piece.last {
                assert!(sampled.iter().any(|sampled| sampled.seq == piece.seq));
                made[i] = decoder.pooled(piece.seq);
                decoder.close(piece.seq, None);
            }
        }
    }
    decoder.close(beside, None);
    assert_eq!(decoder.memory().kv_bytes, 0);
    made.into_iter().map(Option::unwrap).collect()
}

#[test]
fn pooled_hidden_states_are_mlx_lms_in_any_chunks_and_beside_any_rows() {
    let residencies = [Residency::Stored, Residency::DenseF32];
    let mut compared = 0;
    for name in ["llama-f32", "qwen2-q4", "qwen3-f32", "qwen3-q8"] {
        let text = std::fs::read_to_string(folder().join(name).join("pooled.json")).unwrap();
        let golden: PooledGolden = serde_json::from_str(&text).unwrap();
        let prompts: Vec<Vec<u32>> = golden.rows.iter().map(|row| row.prompt.clone()).collect();
        for (residency, chunk) in residencies.into_iter().flat_map(|r| [(r, 512), (r, 7)]) {
            let mut decoder = decoder(name, residency);
            for (pooling, wanted) in [
                (Pooling::First, golden.rows.iter().map(|row| &row.first).collect::<Vec<_>>()),
                (Pooling::Last, golden.rows.iter().map(|row| &row.last).collect()),
                (Pooling::Mean, golden.rows.iter().map(|row| &row.mean).collect()),
                (Pooling::Logits(ids(&golden.tokens)), golden.rows.iter().map(|row| &row.logits).collect()),
            ] {
                let together = pool(&mut decoder, &prompts, &pooling, chunk);
                let alone = pool(&mut decoder, &prompts[5..6], &pooling, chunk);
                for (made, wanted) in together.iter().chain(&alone).zip(wanted.iter().chain([&wanted[5]])) {
                    assert_eq!(made.len(), wanted.len());
                    let far = made.iter().zip(wanted.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(far <= POOLED_TOLERANCE, "{name} {residency:?} {chunk} {pooling:?}: {far}");
                    compared += made.len();
                }
            }
        }
    }
    assert!(compared > 10_000, "{compared}");
}
