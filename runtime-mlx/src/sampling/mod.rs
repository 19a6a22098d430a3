//! Choosing tokens on the device, each row by its own parameters; must not know sequences.
//!
//! A row's choice depends on its logits, its parameters, the tokens before it, its seed and its position, and on nothing
//! else in the batch. Randomness is one uniform number a token (and one for XTC's coin), made on the host from (seed,
//! position), and used by inverting the cumulative distribution: no state, so a generation goes on elsewhere with the same
//! tokens.
//!
//! In order: `adjust` (biases, what must not come, penalties, what the driver adds), `cut` (`top_k`, `typical_p`, `top_p`,
//! `min_p`, XTC), the temperature, `draw`. What is told of a token's probability (`odds`) is the model's own, before all.

mod adjust;
mod cut;
mod draw;
mod odds;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use engine::decoder::{Steering, TokenSet};
use mesh_proto::{Sampling, TokenId};
use mlx_rs::{
    Array, Dtype, ops,
    ops::indexing::{argmax_axis, take_axis},
};

pub(crate) use odds::OddsArrays;

use crate::sys::{self, Result};

/// One row that chooses a token.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) sampling: &'a Sampling,
    /// Index of the chosen token in its sequence, from 0 at the prompt's first token.
    pub(crate) position: u64,
    /// The tokens before it, as far as the host has read them.
    pub(crate) before: &'a [TokenId],
    /// Where the one between these and the chosen one is among the tokens that the host has not read.
    pub(crate) unread: Option<i32>,
    /// Tokens that must not come.
    pub(crate) banned: &'a [TokenId],
    /// What the driver says of it.
    pub(crate) steering: Option<&'a Steering>,
    /// Whether to tell how likely the token is, by the model alone.
    pub(crate) odds: bool,
}

impl<'a> Row<'a> {
    fn allowed(&self) -> Option<&'a TokenSet> {
        self.steering.and_then(|steering| steering.allowed.as_ref())
    }
}

/// What a step chose, on the device.
pub(crate) struct Chosen {
    /// `[rows]`, `uint32`.
    pub(crate) tokens: Array,
    /// Of the rows that ask for it.
    pub(crate) odds: Option<OddsArrays>,
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
    // These two can drop the likeliest token, which even a temperature of 0 then does not take.
    let drops_likeliest = sampling.typical_p < 1.0 || sampling.xtc_probability > 0.0;
    if sampling.top_k == 1 || sampling.temperature == 0.0 && !drops_likeliest {
        Way::Greedy
    } else if sampling.top_k == 0 && sampling.top_p >= 1.0 && !drops_likeliest {
        Way::Plain
    } else {
        Way::Sorted
    }
}

/// `logits` `[rows, vocabulary]` → chosen tokens `[rows]`. `unread`: tokens that the host has not read, which rows' own
/// `unread` index.
pub(crate) fn choose(logits: &Array, rows: &[Row<'_>], unread: Option<&Array>) -> Result<Chosen> {
    let raw = logits.as_dtype(Dtype::Float32)?;
    let logits = adjust::adjust(raw.clone(), rows, unread)?;
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
            Way::Greedy => argmax_axis(&logits, -1, false)?,
            Way::Plain => draw::plain(&logits, &part)?,
            Way::Sorted => cut::sorted(&logits, &part)?,
        });
        order.extend(indices);
    }
    let tokens = if chosen.len() == 1 {
        chosen.remove(0)
    } else {
        // `order[j]` is the row that the j-th choice belongs to; this is its inverse.
        let mut back = vec![0; order.len()];
        for (j, row) in order.iter().enumerate() {
            back[*row as usize] = j as i32;
        }
        take_rows(&ops::concatenate(&chosen, 0)?, &back)?
    };
    let odds = odds::odds(&raw, &tokens, rows)?;
    Ok(Chosen { tokens, odds })
}

fn take_rows(a: &Array, indices: &[i32]) -> Result<Array> {
    take_axis(a, Array::from_slice(indices, &[indices.len() as i32]), 0)
}

/// A column of one number a row.
fn column(rows: &[&Row<'_>], value: impl Fn(&Row<'_>) -> f32) -> Array {
    let values: Vec<f32> = rows.iter().map(|row| value(row)).collect();
    Array::from_slice(&values, &[rows.len() as i32, 1])
}

/// The least logit that `min_p` keeps, as a distance from the largest.
fn min_p_distance(rows: &[&Row<'_>]) -> Array {
    column(rows, |row| match row.sampling.min_p {
        p if p > 0.0 => p.ln(),
        _ => f32::NEG_INFINITY,
    })
}

fn first_column(a: &Array) -> Result<Array> {
    sys::slice(a, &[0, 0], &[a.dim(0), 1])
}

fn last_column(a: &Array) -> Result<Array> {
    sys::slice(a, &[0, a.dim(1) - 1], &[a.dim(0), a.dim(1)])
}
