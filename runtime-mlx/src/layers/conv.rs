//! Causal convolution of each channel by itself, over a few tokens; must not know where its tail is kept.

use mlx_rs::{Array, ops};

use crate::sys::{self, Result};

/// A filter for each channel over a token and those just before it.
pub(crate) struct CausalConv {
    /// `[channels]` for each token of the filter, the oldest first.
    taps: Vec<Array>,
    bias: Option<Array>,
}

impl CausalConv {
    /// `weight` `[channels, size]`, `bias` `[channels]`.
    pub(crate) fn new(weight: &Array, bias: Option<Array>) -> Result<Self> {
        let (channels, size) = (weight.dim(0), weight.dim(1));
        let tap = |i| sys::slice(weight, &[0, i], &[channels, i + 1])?.reshape(&[channels])?.contiguous();
        let taps: Vec<Array> = (0..size).map(tap).collect::<Result<_>>()?;
        mlx_rs::transforms::eval(&taps)?;
        Ok(Self { taps, bias })
    }

    /// `x` `[rows, tokens, channels]` behind `tail` `[rows, size - 1, channels]`, the tokens just before → the filtered
    /// tokens, and the new tail.
    pub(crate) fn forward(&self, x: &Array, tail: &Array) -> Result<(Array, Array)> {
        let (rows, n, channels) = (x.dim(0), x.dim(1), x.dim(2));
        let all = ops::concatenate(&[&tail.as_dtype(x.dtype())?, x], 1)?;
        let from = |start: i32, n: i32| sys::slice(&all, &[0, start, 0], &[rows, start + n, channels]);
        let mut sum: Option<Array> = self.bias.clone();
        for (i, tap) in self.taps.iter().enumerate() {
            let term = from(i as i32, n)?.multiply(tap)?;
            sum = Some(match sum {
                Some(sum) => sum.add(term)?,
                None => term,
            });
        }
        let filtered = sum.ok_or_else(|| mlx_rs::error::Exception::custom("a convolution without a filter"))?;
        Ok((filtered, from(n, tail.dim(1))?))
    }
}
