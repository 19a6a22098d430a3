//! Choices against what they should be; must not know how the device makes them.

use engine::decoder::{SeqId, Steering, TokenSet};
use mesh_proto::{LogitBias, Sampling, TokenId};
use mlx_rs::Array;
use proptest::{prelude::*, strategy::ValueTree};

use super::{Row, choose, reference::expected};

fn row(sampling: &Sampling, position: u64) -> Row<'_> {
    Row { sampling, position, before: &[], unread: None, banned: &[], steering: None, odds: false }
}

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
    // Many positions in one batch: what a row chooses does not depend on the others.
    let rows: Vec<Row<'_>> = (0..draws).map(|position| row(sampling, position)).collect();
    let all: Vec<f32> = rows.iter().flat_map(|_| logits.iter().copied()).collect();
    let all = Array::from_slice(&all, &[draws as i32, logits.len() as i32]);
    let mut counts = vec![0.0; logits.len()];
    for token in choose(&all, &rows, None).unwrap().tokens.as_slice::<u32>() {
        counts[*token as usize] += 1.0;
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
    let support =
        |sampling: &Sampling| -> Vec<bool> { frequencies(&logits, sampling, 400).iter().map(|f| *f > 0.0).collect() };
    assert_eq!(support(&Sampling { top_k: 2, ..at(3.0, 1) }), [false, true, false, true]);
    // Probabilities are 0.644, 0.237, 0.087, 0.032 in rank order: two of them reach 0.8.
    assert_eq!(support(&Sampling { top_p: 0.8, ..at(3.0, 1) }), [false, true, false, true]);
    // exp(−1) = 0.37 and exp(−2) = 0.14 of the likeliest.
    assert_eq!(support(&Sampling { min_p: 0.2, ..at(3.0, 1) }), [false, true, false, true]);
    assert_eq!(support(&Sampling { top_p: 0.01, ..at(1.0, 1) }), [false, true, false, false]);
    // The entropy is 0.95, and the information 0.44, 1.44, 2.44, 3.44: the second is closest, and then the first.
    assert_eq!(support(&Sampling { typical_p: 0.2, ..at(3.0, 1) }), [false, false, false, true]);
    assert_eq!(support(&Sampling { typical_p: 0.5, ..at(3.0, 1) }), [false, true, false, true]);
    assert_eq!(support(&at(5.0, 1)), [true; 4]);
}

#[test]
fn xtc_drops_all_likely_tokens_but_the_last_as_often_as_it_is_asked_to() {
    let logits = [0.0f32, 3.0, 1.0, 2.0];
    let xtc = |probability, threshold, temperature| Sampling {
        xtc_probability: probability,
        xtc_threshold: threshold,
        ..at(temperature, 1)
    };
    let always = frequencies(&logits, &xtc(1.0, 0.05, 3.0), 400);
    assert!(always[1] == 0.0 && always[3] == 0.0 && always[2] > 0.0 && always[0] > 0.0, "{always:?}");
    // Only one token reaches this threshold: nothing is dropped.
    assert_eq!(frequencies(&logits, &xtc(1.0, 0.3, 0.1), 50), frequencies(&logits, &at(0.1, 1), 50));
    assert_eq!(
        frequencies(&logits, &xtc(1.0, 0.6, 3.0), 50),
        frequencies(&logits, &Sampling { top_k: 4, ..at(3.0, 1) }, 50)
    );
    // At temperature 0 the likeliest of what is left comes, as often as the coin says so.
    let sometimes = frequencies(&logits, &xtc(0.3, 0.05, 0.0), 3000);
    assert!((sometimes[2] - 0.3).abs() < 0.042 && (sometimes[1] - 0.7).abs() < 0.042, "{sometimes:?}");
}

#[test]
fn what_is_told_of_a_token_is_the_models_own_opinion() {
    let logits: Vec<f32> = (0..90).map(|i| ((i * 37) % 89) as f32 * 0.11).collect();
    let banned = [TokenId(12)];
    let bias = vec![LogitBias { token: TokenId(5), bias: 50.0 }];
    let samplings = [Sampling::default(), Sampling { logit_bias: bias, top_k: 3, ..at(0.7, 3) }, Sampling::default()];
    let mut rows: Vec<Row<'_>> = samplings.iter().map(|sampling| row(sampling, 4)).collect();
    (rows[0].odds, rows[1].odds, rows[0].banned) = (true, true, &banned);
    let all: Vec<f32> = [&logits[..], &logits, &logits].concat();
    let chosen = choose(&Array::from_slice(&all, &[3, 90]), &rows, None).unwrap();
    let tokens = chosen.tokens.as_slice::<u32>();
    let told = chosen.odds.unwrap().read().unwrap();
    assert_eq!(told.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 1]);
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    let right = |token: u32| f64::from(logits[token as usize]) - total.ln();
    let mut likeliest: Vec<u32> = (0..90).collect();
    likeliest.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    assert_eq!((tokens[1], likeliest[0] != 5), (5, true), "the bias forces what is not likely");
    for (row, odds) in told {
        assert!((f64::from(odds.chosen) - right(tokens[row])).abs() < 1e-4);
        assert_eq!(odds.top.iter().map(|(token, _)| token.0).collect::<Vec<_>>(), likeliest[..20]);
        assert!(odds.top.iter().all(|(token, logprob)| (f64::from(*logprob) - right(token.0)).abs() < 1e-4));
    }
    // A vocabulary smaller than what may be asked for is told whole.
    let mut small = [row(&samplings[0], 0)];
    small[0].odds = true;
    let chosen = choose(&Array::from_slice(&[0.0f32, 1.0], &[1, 2]), &small, None).unwrap();
    let top = &chosen.odds.unwrap().read().unwrap()[0].1.top;
    assert_eq!(top.iter().map(|(token, _)| token.0).collect::<Vec<_>>(), [1, 0]);
}

/// All that decides one row's choice.
#[derive(Clone, Debug)]
struct Case {
    logits: Vec<f32>,
    sampling: Sampling,
    position: u64,
    before: Vec<TokenId>,
    banned: Vec<TokenId>,
    steering: Steering,
}

const VOCABULARY: u32 = 40;

fn token() -> impl Strategy<Value = TokenId> {
    (0..VOCABULARY).prop_map(TokenId)
}

/// Off as often as on.
fn or<T: Clone + std::fmt::Debug + 'static>(off: T, on: impl Strategy<Value = T> + 'static) -> BoxedStrategy<T> {
    prop_oneof![Just(off), on].boxed()
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let cuts = (or(0, 1..30u32), or(1.0, 0.05..0.99f32), or(0.0, 0.001..0.5f32), or(1.0, 0.05..0.99f32));
    let penalties = (or(1.0, 0.5..2.0f32), or(0.0, -1.0..1.0f32), or(0.0, -1.0..1.0f32));
    let window = prop_oneof![Just(None), (0..12u32).prop_map(Some)];
    let xtc = (or(0.0, 0.2..1.0f32), 0.01..0.5f32);
    let bias = prop::collection::vec((token(), -5.0..5.0f32), 0..3);
    (or(0.0, 0.1..3.0f32), cuts, penalties, window, xtc, any::<u64>(), bias).prop_map(
        |(temperature, cuts, penalties, repeat_last_n, xtc, seed, bias)| Sampling {
            temperature,
            top_k: cuts.0,
            top_p: cuts.1,
            min_p: cuts.2,
            typical_p: cuts.3,
            repetition_penalty: penalties.0,
            presence_penalty: penalties.1,
            frequency_penalty: penalties.2,
            repeat_last_n,
            dry: None,
            xtc_probability: xtc.0,
            xtc_threshold: xtc.1,
            seed: Some(seed),
            logit_bias: bias.into_iter().map(|(token, bias)| LogitBias { token, bias }).collect(),
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let logits = prop::collection::vec(-6.0..6.0f32, VOCABULARY as usize);
    let before = prop::collection::vec(token(), 1..20);
    let addends = prop::collection::btree_map(token(), -4.0..1.0f32, 0..4);
    // Ten tokens at least are left when three are banned.
    let allowed = prop_oneof![Just(None), prop::collection::btree_set(token(), 13..30).prop_map(Some)];
    let banned = prop::collection::vec(token(), 0..3);
    (logits, sampling(), 0..1000u64, before, banned, addends, allowed).prop_map(
        |(logits, sampling, position, before, banned, addends, allowed)| {
            let set = |tokens: std::collections::BTreeSet<TokenId>| {
                let mut words = vec![0; 2];
                tokens.iter().for_each(|token| words[token.0 as usize / 32] |= 1 << (token.0 % 32));
                TokenSet::from_words(words)
            };
            let addends = addends.into_iter().collect();
            let steering = Steering { seq: SeqId(0), addends, allowed: allowed.map(set) };
            Case { logits, sampling, position, before, banned, steering }
        },
    )
}

impl Case {
    fn row(&self) -> Row<'_> {
        Row {
            sampling: &self.sampling,
            position: self.position,
            before: &self.before,
            unread: None,
            banned: &self.banned,
            steering: Some(&self.steering),
            odds: false,
        }
    }
}

fn chosen(cases: &[Case], rows: &[Row<'_>], unread: Option<&Array>) -> Vec<u32> {
    let logits: Vec<f32> = cases.iter().flat_map(|case| case.logits.iter().copied()).collect();
    let logits = Array::from_slice(&logits, &[cases.len() as i32, VOCABULARY as i32]);
    choose(&logits, rows, unread).unwrap().tokens.as_slice::<u32>().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_chooses_what_the_reference_chooses_alone_and_among_others(
        cases in prop::collection::vec(case(), 1..8),
    ) {
        let rows: Vec<Row<'_>> = cases.iter().map(Case::row).collect();
        let together = chosen(&cases, &rows, None);
        // The newest token of every second row is on the device only.
        let newest: Vec<u32> = cases.iter().map(|case| case.before[case.before.len() - 1].0).rev().collect();
        let on_device = Array::from_slice(&newest, &[cases.len() as i32]);
        let mut half = rows.clone();
        for (i, row) in half.iter_mut().enumerate().step_by(2) {
            row.before = &row.before[..row.before.len() - 1];
            row.unread = Some((cases.len() - 1 - i) as i32);
        }
        prop_assert_eq!(&chosen(&cases, &half, Some(&on_device)), &together);
        for (i, (case, token)) in cases.iter().zip(&together).enumerate() {
            let alone = chosen(std::slice::from_ref(case), &[case.row()], None);
            prop_assert_eq!(alone[0], *token, "row {} alone", i);
            let expected = expected(&case.logits, &case.row());
            prop_assert!(expected.near || expected.token == *token, "row {i}: {token} instead of {}", expected.token);
        }
    }
}

#[test]
fn the_reference_calls_few_choices_too_near() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let near = (0..400).filter(|_| {
        let case = case().new_tree(&mut runner).unwrap().current();
        expected(&case.logits, &case.row()).near
    });
    let near = near.count();
    assert!(near < 40, "{near} of 400 say nothing");
}
