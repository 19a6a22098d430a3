//! Choices against what they should be; must not know the device.
use mesh_proto::{LogitBias, TokenId};

use super::*;

fn run(logits: &[f32], vocabulary: i32, samplings: &[Sampling], position: u64) -> Vec<u32> {
    let rows: Vec<Row<'_>> = samplings.iter().map(|sampling| row(sampling, position)).collect();
    let logits = Array::from_slice(logits, &[samplings.len() as i32, vocabulary]);
    choose(&logits, &rows, None).unwrap().tokens.as_slice::<u32>().to_vec()
}

fn at(temperature: f32, seed: u64) -> Sampling {
    Sampling { temperature, seed: Some(seed), ..Sampling::default() }
}

/// Frequencies of each token over many positions of one row.
fn frequencies(logits: &[f32], sampling: &Sampling, draws: u64) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for position in 0..draws {
        counts[run(logits, logits.len() as i32, std::slice::from_ref(sampling), position)[0] as usize] += 1.0;
    }
    counts.iter().map(|n| n / draws as f64).collect()
}

#[test]
fn greedy_takes_the_largest_and_a_bias_can_change_which() {
    let bias = vec![LogitBias { token: TokenId(0), bias: 100.0 }];
    let forced = Sampling { logit_bias: bias, ..Sampling::default() };
    assert_eq!(run(&[1.0, 3.0, 2.0, 1.0, 3.0, 2.0], 3, &[Sampling::default(), forced], 0), [1, 0]);
}

#[test]
fn a_row_chooses_the_same_alone_and_among_others() {
    let logits: Vec<f32> = (0..50).map(|i| ((i * 37) % 11) as f32 * 0.3).collect();
    let mut samplings: Vec<Sampling> = (0..6).map(|seed| at(1.0, seed)).collect();
    samplings.push(Sampling::default());
    samplings.push(Sampling { top_p: 0.7, ..at(0.8, 3) });
    samplings.push(Sampling { top_k: 5, min_p: 0.1, ..at(1.3, 4) });
    for position in 0..40 {
        let all: Vec<f32> = samplings.iter().flat_map(|_| logits.clone()).collect();
        let together = run(&all, 50, &samplings, position);
        let alone: Vec<u32> =
            samplings.iter().map(|s| run(&logits, 50, std::slice::from_ref(s), position)[0]).collect();
        assert_eq!(together, alone);
    }
}

#[test]
fn frequencies_follow_the_softmax_at_the_temperature() {
    let logits = [0.0, 1.0, 2.0];
    for temperature in [0.7, 1.0, 2.0] {
        let seen = frequencies(&logits, &at(temperature, 1), 3000);
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (seen, weight) in seen.iter().zip(&weights) {
            // Five standard deviations of 3,000 draws are below 0.046.
            assert!((seen - weight / total).abs() < 0.046, "{seen} against {}", weight / total);
        }
    }
}

#[test]
fn truncations_keep_what_they_promise_and_nothing_else() {
    let logits = [0.0f32, 3.0, 1.0, 2.0];
    let support = |sampling: &Sampling| -> Vec<bool> {
        frequencies(&logits, sampling, 400).iter().map(|f| *f > 0.0).collect()
    };
    assert_eq!(support(&Sampling { top_k: 2, ..at(3.0, 1) }), [false, true, false, true]);
    // Probabilities are 0.644, 0.237, 0.087, 0.032 in rank order: two of them reach 0.8.
    assert_eq!(support(&Sampling { top_p: 0.8, ..at(3.0, 1) }), [false, true, false, true]);
    // exp(−1) = 0.37 and exp(−2) = 0.14 of the likeliest.
    assert_eq!(support(&Sampling { min_p: 0.2, ..at(3.0, 1) }), [false, true, false, true]);
    assert_eq!(support(&Sampling { top_p: 0.01, ..at(1.0, 1) }), [false, true, false, false]);
    assert_eq!(support(&at(5.0, 1)), [true; 4]);
}

fn row(sampling: &Sampling, position: u64) -> Row<'_> {
    Row { sampling, position, before: &[], unread: None, banned: &[], steering: None, odds: false }
}
