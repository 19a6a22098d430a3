//! What is done to logits before anything is cut off: biases, what must not come, penalties, what the driver adds; must
//! not know probabilities.
//!
//! Penalties need no word from the host: it has read all tokens but perhaps the last, and that one is on the device.

use mesh_proto::{Sampling, TokenId};
use mlx_rs::{
    Array, Dtype, ops,
    ops::indexing::{scatter_add_single, take_axis},
};

use super::Row;
use crate::sys::{self, Result};

/// `logits` `[rows, vocabulary]`, f32, each row by its own parameters.
pub(super) fn adjust(logits: Array, rows: &[Row<'_>], unread: Option<&Array>) -> Result<Array> {
    let biases = |row: &Row<'_>, add: &mut dyn FnMut(TokenId, f32)| {
        row.sampling.logit_bias.iter().for_each(|bias| add(bias.token, bias.bias));
        row.banned.iter().for_each(|token| add(*token, f32::NEG_INFINITY));
    };
    let logits = add_sparse(logits, rows, biases)?;
    let logits = mask(logits, rows)?;
    let logits = penalise(logits, rows, unread)?;
    add_sparse(logits, rows, |row, add| {
        row.steering.into_iter().flat_map(|said| &said.addends).for_each(|(token, addend)| add(*token, *addend));
    })
}

/// Adds numbers to some tokens' logits.
fn add_sparse(
    logits: Array,
    rows: &[Row<'_>],
    addends: impl Fn(&Row<'_>, &mut dyn FnMut(TokenId, f32)),
) -> Result<Array> {
    let (n, vocabulary) = (logits.dim(0), logits.dim(1));
    let mut places = Vec::new();
    let mut values = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        addends(row, &mut |token, addend| {
            if token.0 < vocabulary as u32 {
                places.push(i as i32 * vocabulary + token.0 as i32);
                values.push(addend);
            }
        });
    }
    if places.is_empty() {
        return Ok(logits);
    }
    let count = places.len() as i32;
    let places = Array::from_slice(&places, &[count]);
    let values = Array::from_slice(&values, &[count, 1]);
    scatter_add_single(logits.reshape(&[n * vocabulary])?, &places, &values, 0)?.reshape(&[n, vocabulary])
}

/// Takes out what a row's driver does not allow. The sets go to the device as bits.
fn mask(logits: Array, rows: &[Row<'_>]) -> Result<Array> {
    if rows.iter().all(|row| row.allowed().is_none()) {
        return Ok(logits);
    }
    let (n, vocabulary) = (logits.dim(0), logits.dim(1));
    let width = (vocabulary as usize).div_ceil(32);
    let mut words: Vec<u32> = Vec::with_capacity(rows.len() * width);
    for row in rows {
        let end = words.len() + width;
        match row.allowed() {
            None => words.resize(end, u32::MAX),
            Some(set) => {
                words.extend(set.words().iter().take(width));
                words.resize(end, 0);
            }
        }
    }
    let words = Array::from_slice(&words, &[n, width as i32, 1]);
    let bits: Vec<u32> = (0..32).collect();
    let bits = sys::right_shift(&words, &Array::from_slice(&bits, &[1, 1, 32]))?;
    let bits = sys::bitwise_and(&bits, &Array::from_slice(&[1u32], &[1]))?.reshape(&[n, width as i32 * 32])?;
    let allowed = sys::slice(&bits, &[0, 0], &[n, vocabulary])?.as_dtype(Dtype::Bool)?;
    ops::select(&allowed, &logits, Array::from_f32(f32::NEG_INFINITY))
}

/// Whether the three penalties change anything.
fn is_penalised(sampling: &Sampling) -> bool {
    let any =
        sampling.repetition_penalty != 1.0 || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
    any && sampling.repeat_last_n != Some(0)
}

/// What a penalty can make of a logit. Far above any model's, and far enough from f32's end for sums of several.
const LARGEST: f32 = 1e30;

/// The repetition, presence and frequency penalties.
fn penalise(logits: Array, rows: &[Row<'_>], unread: Option<&Array>) -> Result<Array> {
    if !rows.iter().any(|row| is_penalised(row.sampling)) {
        return Ok(logits);
    }
    let all: Vec<&Row<'_>> = rows.iter().collect();
    let column = |value: fn(&Sampling) -> f32, off: f32| {
        super::column(&all, |row| if is_penalised(row.sampling) { value(row.sampling) } else { off })
    };
    let zero = Array::from_f32(0.0);
    let counts = count(rows, unread, logits.dim(1))?;
    let seen = counts.gt(&zero)?;
    let repetition = column(|sampling| sampling.repetition_penalty, 1.0);
    // Divided by next to nothing it would be infinite, and its odds no number.
    let divided = ops::minimum(&logits.divide(&repetition)?, Array::from_f32(LARGEST))?;
    let scaled = ops::select(&logits.gt(&zero)?, &divided, &logits.multiply(&repetition)?)?;
    let scaled = ops::select(&seen, &scaled, &logits)?;
    let frequency = counts.multiply(column(|sampling| sampling.frequency_penalty, 0.0))?;
    let presence = seen.as_dtype(Dtype::Float32)?.multiply(column(|sampling| sampling.presence_penalty, 0.0))?;
    scaled.subtract(&frequency.add(&presence)?)
}

/// How often each token came in each row's window, `[rows, vocabulary]`; exact, whatever the order of additions.
fn count(rows: &[Row<'_>], unread: Option<&Array>, vocabulary: i32) -> Result<Array> {
    let n = rows.len() as i32;
    let mut places: Vec<i32> = Vec::new();
    let (mut starts, mut sources) = (Vec::new(), Vec::new());
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| is_penalised(row.sampling)) {
        let start = i as i32 * vocabulary;
        let window = row.sampling.repeat_last_n.map_or(usize::MAX, |n| n as usize);
        let known = window - usize::from(row.unread.is_some());
        let from = row.before.len().saturating_sub(known);
        let tokens = row.before[from..].iter().filter(|token| token.0 < vocabulary as u32);
        places.extend(tokens.map(|token| start + token.0 as i32));
        if let Some(source) = row.unread {
            starts.push(start);
            sources.push(source);
        }
    }
    let mut all = Vec::new();
    if !places.is_empty() {
        all.push(Array::from_slice(&places, &[places.len() as i32]));
    }
    if let Some(tokens) = unread.filter(|_| !sources.is_empty()) {
        let k = sources.len() as i32;
        let tokens = take_axis(tokens, Array::from_slice(&sources, &[k]), 0)?.as_dtype(Dtype::Int32)?;
        all.push(tokens.add(Array::from_slice(&starts, &[k]))?);
    }
    let counts = ops::zeros::<f32>(&[n * vocabulary])?;
    let counts = match all.len() {
        0 => counts,
        _ => {
            let places = if all.len() == 1 { all.remove(0) } else { ops::concatenate(&all, 0)? };
            let ones = ops::ones::<f32>(&[places.dim(0), 1])?;
            scatter_add_single(&counts, &places, &ones, 0)?
        }
    };
    counts.reshape(&[n, vocabulary])
}
