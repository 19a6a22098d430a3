//! What is cut off a distribution, with the vocabulary sorted by likelihood; must not know what made it.

use mlx_rs::{
    Array, Dtype, ops,
    ops::indexing::{put_along_axis, take_along_axis},
};

use super::{
    Row, column,
    draw::{coin, invert, temperature},
    first_column, last_column, min_p_distance,
};
use crate::sys::Result;

/// A share that no probability reaches: switches XTC off for a step.
const NEVER: f32 = 2.0;

/// `top_k`, then `typical_p` on what it left, then `top_p`, `min_p` and XTC; the temperature comes last. `[rows,
/// vocabulary]` → `[rows]`.
pub(super) fn sorted(logits: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let vocabulary = logits.dim(1);
    let zero = Array::from_f32(0.0);
    let order = ops::argsort_axis(&logits.negative()?, -1)?;
    let ranked = take_along_axis(logits, &order, -1)?;
    let distance = ranked.subtract(&first_column(&ranked)?)?;
    let likelihood = ops::exp(&distance)?;
    let top_k = column(rows, |row| match row.sampling.top_k {
        0 => vocabulary as f32,
        k => k as f32,
    });
    let ranks = ops::arange::<_, f32>(0, vocabulary, None)?.reshape(&[1, vocabulary])?;
    let mut kept = ranks.lt(&top_k)?;
    let any_typical = rows.iter().any(|row| row.sampling.typical_p < 1.0);
    let any_xtc = rows.iter().any(|row| row.sampling.xtc_probability > 0.0);
    if any_typical {
        kept = kept.logical_and(&typical(&distance, &ops::select(&kept, &likelihood, &zero)?, rows)?)?;
    }
    let probabilities = ops::select(&kept, &likelihood, &zero)?;
    let reached = probabilities.cumsum(-1, None, None)?;
    let before = reached.subtract(&probabilities)?;
    let top_p = column(rows, |row| row.sampling.top_p);
    kept = kept.logical_and(&before.lt(&last_column(&reached)?.multiply(&top_p)?)?)?;
    // Where the likeliest token is gone, the likeliest one left takes its part. Elsewhere its distance is exactly 0, so
    // that a row without these parameters is computed alike whoever is beside it.
    let mut distance = distance;
    if any_typical {
        distance = from_likeliest(&distance, &kept)?;
    }
    kept = kept.logical_and(&distance.ge(min_p_distance(rows))?)?;
    if any_xtc {
        kept = exclude_top(&ops::select(&kept, &likelihood, &zero)?, &kept, rows)?;
        distance = from_likeliest(&distance, &kept)?;
    }
    let weights = ops::select(&kept, &ops::exp(&distance.divide(temperature(rows))?)?, &zero)?;
    take_along_axis(&order, &invert(&weights, rows)?, -1)?.reshape(&[-1])
}

/// Distances from the likeliest token that is kept.
fn from_likeliest(distance: &Array, kept: &Array) -> Result<Array> {
    let largest = ops::select(kept, distance, Array::from_f32(f32::NEG_INFINITY))?.max_axis(-1, true)?;
    distance.subtract(&largest)
}

/// Which tokens locally typical sampling keeps: those whose information is closest to the entropy of what there is, until
/// their probability reaches the row's.
fn typical(distance: &Array, likelihood: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let zero = Array::from_f32(0.0);
    let total = likelihood.sum_axis(-1, true)?;
    let there = likelihood.gt(&zero)?;
    let information = ops::log(&total)?.subtract(distance)?;
    let expected =
        ops::select(&there, &likelihood.multiply(&information)?, &zero)?.sum_axis(-1, true)?.divide(&total)?;
    let surprise = ops::abs(information.subtract(&expected)?)?;
    let surprise = ops::select(&there, &surprise, Array::from_f32(f32::INFINITY))?;
    let order = ops::argsort_axis(&surprise, -1)?;
    let ordered = take_along_axis(likelihood, &order, -1)?;
    let before = ordered.cumsum(-1, None, None)?.subtract(&ordered)?;
    let wanted = column(rows, |row| row.sampling.typical_p);
    let closest = before.lt(&total.multiply(&wanted)?)?.as_dtype(Dtype::Float32)?;
    let closest = put_along_axis(ops::zeros_like(likelihood)?, &order, &closest, -1)?.gt(&zero)?;
    closest.logical_or(&wanted.ge(Array::from_f32(1.0))?)
}

/// XTC: of the tokens that reach the threshold, all but the least likely one go; where the row's coin says so.
fn exclude_top(likelihood: &Array, kept: &Array, rows: &[&Row<'_>]) -> Result<Array> {
    let one = Array::from_f32(1.0);
    let threshold = column(rows, |row| match coin(row) {
        true => row.sampling.xtc_threshold,
        false => NEVER,
    });
    let total = likelihood.sum_axis(-1, true)?;
    let likely = likelihood.ge(&total.multiply(&threshold)?)?.logical_and(kept)?;
    let flags = likely.as_dtype(Dtype::Float32)?;
    // Likelier ones come first: all of them but the last have fewer before them than there are, less one.
    let upto = flags.cumsum(-1, None, None)?;
    let top = likely.logical_and(&upto.lt(&last_column(&upto)?)?)?;
    let rest = kept.as_dtype(Dtype::Float32)?.subtract(&top.as_dtype(Dtype::Float32)?)?;
    rest.ge(&one)
}
