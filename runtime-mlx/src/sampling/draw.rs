//! Randomness, and how it is spent: a uniform number of (seed, position) picks from weights; must not know how those
//! came about.

use mlx_rs::{Array, Dtype, ops};

use super::{Row, column, last_column, min_p_distance};
use crate::sys::Result;

/// Keeps XTC's coins apart from the numbers that tokens are drawn with: any odd constant.
const COINS: u64 = 0x6A09_E667_F3BC_C909;

/// Rows without ranks: temperature and `min_p` over the whole vocabulary in its own order.
pub(super) fn plain(logits: &Array, rows: &[&Row<'_>]) -> Result<Array> {
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

/// What logits are divided by. At temperature 0 the likeliest is taken by [`share`], at any other.
pub(super) fn temperature(rows: &[&Row<'_>]) -> Array {
    column(rows, |row| if row.sampling.temperature == 0.0 { 1.0 } else { row.sampling.temperature })
}

/// The first index whose cumulative weight exceeds the row's share of the whole: `[rows, n]` → `[rows, 1]`.
pub(super) fn invert(weights: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let reached = weights.cumsum(-1, None, None)?;
    let share = column(rows, share);
    let target = last_column(&reached)?.multiply(&share)?;
    reached.le(&target)?.as_dtype(Dtype::Uint32)?.sum_axis(-1, true)
}

/// Which share of the weights lies before the chosen token. None of it at temperature 0, where what comes first is the
/// likeliest.
fn share(row: &Row<'_>) -> f32 {
    if row.sampling.temperature == 0.0 { 0.0 } else { uniform(row.sampling.seed.unwrap_or(0), row.position) }
}

/// Whether XTC acts at this position.
pub(super) fn coin(row: &Row<'_>) -> bool {
    let seed = row.sampling.seed.unwrap_or(0);
    uniform(mix(seed ^ COINS), row.position) < row.sampling.xtc_probability
}

/// A number in [0, 1) that depends on nothing else: SplitMix64 (Steele, Lea & Flood 2014) of both. It has 23 bits, so
/// that its product with a sum of weights in f32 is always less than the sum.
pub(super) fn uniform(seed: u64, position: u64) -> f32 {
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
    use super::*;

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

    #[test]
    fn coins_do_not_follow_the_numbers_that_tokens_are_drawn_with() {
        let (mut both, mut heads) = (0, 0);
        for position in 0..10_000 {
            let coin = uniform(mix(7 ^ COINS), position) < 0.5;
            heads += u32::from(coin);
            both += u32::from(coin && uniform(7, position) < 0.5);
        }
        assert!((4700..5300).contains(&heads), "{heads}");
        assert!((2300..2700).contains(&both), "{both}");
    }
}
