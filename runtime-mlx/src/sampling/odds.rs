//! How likely the chosen token was by the model alone, and which ones were likeliest; must not know how it was chosen.

use engine::decoder::Odds;
use mesh_proto::{GenerateRequest, TokenId};
use mlx_rs::{
    Array, ops,
    ops::indexing::{take_along_axis, take_axis},
};

use super::Row;
use crate::sys::{self, Result};

/// Of the rows that ask for it, in their order, on the device.
pub(crate) struct OddsArrays {
    /// Which rows of the step.
    rows: Vec<usize>,
    /// `[asking]`, natural logarithms.
    chosen: Array,
    /// `[asking, n]`, `uint32`, the likeliest first. Always as many as a request may ask for, so that the choice among
    /// equals does not depend on who else asks.
    top: Array,
    /// `[asking, n]`.
    top_logprobs: Array,
}

/// `logits` `[rows, vocabulary]` of the model alone, `tokens` `[rows]`.
pub(super) fn odds(logits: &Array, tokens: &Array, rows: &[Row<'_>]) -> Result<Option<OddsArrays>> {
    let asking: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].odds).collect();
    if asking.is_empty() {
        return Ok(None);
    }
    let n = asking.len() as i32;
    let indices: Vec<i32> = asking.iter().map(|i| *i as i32).collect();
    let indices = Array::from_slice(&indices, &[n]);
    let logits = take_axis(logits, &indices, 0)?;
    let tokens = take_axis(tokens, &indices, 0)?.reshape(&[n, 1])?;
    let logprobs = logits.subtract(&logits.logsumexp_axis(-1, true)?)?;
    let chosen = take_along_axis(&logprobs, &tokens, -1)?.reshape(&[n])?;
    let most = i32::from(GenerateRequest::MAX_LOGPROBS).min(logits.dim(1));
    let negative = logprobs.negative()?;
    let top = match logits.dim(1) > most {
        true => sys::slice(&ops::argpartition_axis(&negative, most - 1, -1)?, &[0, 0], &[n, most])?,
        false => ops::broadcast_to(ops::arange::<_, u32>(0, most, None)?, &[n, most])?,
    };
    let order = ops::argsort_axis(take_along_axis(&negative, &top, -1)?, -1)?;
    let top = take_along_axis(&top, &order, -1)?;
    let top_logprobs = take_along_axis(&logprobs, &top, -1)?;
    Ok(Some(OddsArrays { rows: asking, chosen, top, top_logprobs }))
}

impl OddsArrays {
    /// What must be computed.
    pub(crate) fn arrays(&self) -> [Array; 3] {
        [self.chosen.clone(), self.top.clone(), self.top_logprobs.clone()]
    }

    /// What was computed: rows of the step, and their odds with all the likeliest.
    pub(crate) fn read(&self) -> std::result::Result<Vec<(usize, Odds)>, mlx_rs::error::AsSliceError> {
        let (chosen, top) = (self.chosen.try_as_slice::<f32>()?, self.top.try_as_slice::<u32>()?);
        let logprobs = self.top_logprobs.try_as_slice::<f32>()?;
        let width = top.len() / self.rows.len().max(1);
        let row = |(i, row): (usize, &usize)| {
            let part = i * width..(i + 1) * width;
            let tokens = top[part.clone()].iter().map(|token| TokenId(*token));
            (*row, Odds { chosen: chosen[i], top: tokens.zip(logprobs[part].iter().copied()).collect() })
        };
        Ok(self.rows.iter().enumerate().map(row).collect())
    }
}
