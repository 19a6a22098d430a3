//! Choosing tokens on the device, each row by its own parameters; must not know sequences.
//!
//! A row's choice depends on its logits, its parameters, its seed and its position, and on nothing else in the
//! batch. Randomness is one uniform number a token, made on the host from (seed, position), and used by inverting
//! the cumulative distribution: no state, so a generation goes on elsewhere with the same tokens.

use mesh_proto::Sampling;
use mlx_rs::{Array, Dtype, ops, ops::indexing};

use crate::sys::{self, Result};

/// One row that chooses a token.
pub(crate) struct Row<'a> {
    pub(crate) sampling: &'a Sampling,
    /// Index of the chosen token in its sequence, from 0 at the prompt's first token.
    pub(crate) position: u64,
}

/// How a row is computed. It follows from the row's own parameters, never from its neighbours': two ways may
/// spend a uniform number on different tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Greedy,
    /// The whole vocabulary in its own order.
    Plain,
    /// Needs ranks.
    Sorted,
}

fn way(sampling: &Sampling) -> Way {
    if sampling.is_greedy() {
        Way::Greedy
    } else if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        Way::Plain
    } else {
        Way::Sorted
    }
}

/// `logits` `[rows, vocabulary]` → chosen tokens `[rows]`, `uint32`.
pub(crate) fn choose(logits: &Array, rows: &[Row<'_>]) -> Result<Array> {
    let logits = biased(logits.as_dtype(Dtype::Float32)?, rows)?;
    let mut order = Vec::with_capacity(rows.len());
    let mut chosen = Vec::new();
    for wanted in [Way::Greedy, Way::Plain, Way::Sorted] {
        let indices: Vec<i32> =
            (0..rows.len()).filter(|i| way(rows[*i].sampling) == wanted).map(|i| i as i32).collect();
        if indices.is_empty() {
            continue;
        }
        let part: Vec<&Row<'_>> = indices.iter().map(|i| &rows[*i as usize]).collect();
        let logits = if indices.len() == rows.len() { logits.clone() } else { take_rows(&logits, &indices)? };
        chosen.push(match wanted {
            Way::Greedy => indexing::argmax_axis(&logits, -1, false)?,
            Way::Plain => plain(&logits, &part)?,
            Way::Sorted => sorted(&logits, &part)?,
        });
        order.extend(indices);
    }
    if chosen.len() == 1 {
        return Ok(chosen.remove(0));
    }
    // `order[j]` is the row that the j-th choice belongs to; this is its inverse.
    let mut back = vec![0; order.len()];
    for (j, row) in order.iter().enumerate() {
        back[*row as usize] = j as i32;
    }
    take_rows(&ops::concatenate(&chosen, 0)?, &back)
}

fn take_rows(a: &Array, indices: &[i32]) -> Result<Array> {
    indexing::take_axis(a, Array::from_slice(indices, &[indices.len() as i32]), 0)
}

/// Adds each row's `logit_bias`.
fn biased(logits: Array, rows: &[Row<'_>]) -> Result<Array> {
    let (n, vocabulary) = (logits.dim(0), logits.dim(1));
    let mut places = Vec::new();
    let mut values = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        for bias in row.sampling.logit_bias.iter().filter(|bias| (bias.token.0 as i32) < vocabulary) {
            places.push(i as i32 * vocabulary + bias.token.0 as i32);
            values.push(bias.bias);
        }
    }
    if places.is_empty() {
        return Ok(logits);
    }
    let count = places.len() as i32;
    let places = Array::from_slice(&places, &[count]);
    let values = Array::from_slice(&values, &[count, 1]);
    indexing::scatter_add_single(logits.reshape(&[n * vocabulary])?, &places, &values, 0)?.reshape(&[n, vocabulary])
}

/// A column of one number a row.
fn column(rows: &[&Row<'_>], value: impl Fn(&Row<'_>) -> f32) -> Array {
    let values: Vec<f32> = rows.iter().map(|row| value(row)).collect();
    Array::from_slice(&values, &[rows.len() as i32, 1])
}

fn temperature(rows: &[&Row<'_>]) -> Array {
    column(rows, |row| row.sampling.temperature)
}

/// The least logit that `min_p` keeps, as a distance from the largest.
fn min_p_distance(rows: &[&Row<'_>]) -> Array {
    column(rows, |row| match row.sampling.min_p {
        p if p > 0.0 => p.ln(),
        _ => f32::NEG_INFINITY,
    })
}

fn plain(logits: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let largest = logits.max_axis(-1, true)?;
    let distance = logits.subtract(&largest)?;
    let weights = ops::exp(&distance.divide(temperature(rows))?)?;
    let kept = if rows.iter().any(|row| row.sampling.min_p > 0.0) {
        ops::select(&distance.ge(min_p_distance(rows))?, &weights, Array::from_f32(0.0))?
    } else {
        weights
    };
    invert(&kept, rows)?.reshape(&[-1])
}

fn sorted(logits: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let vocabulary = logits.dim(1);
    let zero = Array::from_f32(0.0);
    let order = ops::argsort_axis(&logits.negative()?, -1)?;
    let ranked = indexing::take_along_axis(logits, &order, -1)?;
    let distance = ranked.subtract(&first_column(&ranked)?)?;
    // top_k first, then top_p on what it left, then min_p; the temperature comes last.
    let top_k = column(rows, |row| match row.sampling.top_k {
        0 => vocabulary as f32,
        k => k as f32,
    });
    let ranks = ops::arange::<_, f32>(0, vocabulary, None)?.reshape(&[1, vocabulary])?;
    let in_top_k = ranks.lt(&top_k)?;
    let probabilities = ops::select(&in_top_k, &ops::exp(&distance)?, &zero)?;
    let reached = probabilities.cumsum(-1, None, None)?;
    let before = reached.subtract(&probabilities)?;
    let top_p = column(rows, |row| row.sampling.top_p);
    let in_top_p = before.lt(&last_column(&reached)?.multiply(&top_p)?)?;
    let in_min_p = distance.ge(min_p_distance(rows))?;
    let kept = in_top_k.logical_and(&in_top_p)?.logical_and(&in_min_p)?;
    let weights = ops::select(&kept, &ops::exp(&distance.divide(temperature(rows))?)?, &zero)?;
    indexing::take_along_axis(&order, &invert(&weights, rows)?, -1)?.reshape(&[-1])
}

/// The first index whose cumulative weight exceeds the row's share of the whole: `[rows, n]` → `[rows, 1]`.
fn invert(weights: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let reached = weights.cumsum(-1, None, None)?;
    let share = column(rows, |row| uniform(row.sampling.seed.unwrap_or(0), row.position));
    let target = last_column(&reached)?.multiply(&share)?;
    reached.le(&target)?.as_dtype(Dtype::Uint32)?.sum_axis(-1, true)
}

fn first_column(a: &Array) -> Result<Array> {
    sys::slice(a, &[0, 0], &[a.dim(0), 1])
}

fn last_column(a: &Array) -> Result<Array> {
    sys::slice(a, &[0, a.dim(1) - 1], &[a.dim(0), a.dim(1)])
}

/// A number in [0, 1) that depends on nothing else: SplitMix64 (Steele, Lea & Flood 2014) of both. It has 23 bits, so
/// that its product with a sum of weights in f32 is always less than the sum.
fn uniform(seed: u64, position: u64) -> f32 {
    let mut z = mix(seed).wrapping_add(position.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = mix(z);
    (z >> 41) as f32 / (1u64 << 23) as f32
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use mesh_proto::{LogitBias, TokenId};

    use super::*;

    fn run(logits: &[f32], vocabulary: i32, samplings: &[Sampling], position: u64) -> Vec<u32> {
        let rows: Vec<Row<'_>> = samplings.iter().map(|sampling| Row { sampling, position }).collect();
        let logits = Array::from_slice(logits, &[samplings.len() as i32, vocabulary]);
        choose(&logits, &rows).unwrap().as_slice::<u32>().to_vec()
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

    #[test]
    fn uniform_numbers_fill_their_interval_evenly() {
        let mut bins = [0u32; 10];
        for position in 0..10_000 {
            let u = uniform(42, position);
            assert!((0.0..1.0).contains(&u));
            bins[(u * 10.0) as usize] += 1;
        }
        assert!(bins.iter().all(|n| (850..1150).contains(n)), "{bins:?}");
    }
}
