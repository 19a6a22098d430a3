//! Norms over the last axis; must not know where they stand.

use mlx_rs::{Array, fast};

use crate::sys::Result;

/// Root mean square norm (Zhang & Sennrich 2019): `x / sqrt(mean(x²) + eps) · weight`.
pub(crate) struct RmsNorm {
    weight: Option<Array>,
    eps: f32,
}

impl RmsNorm {
    pub(crate) fn new(weight: Array, eps: f32) -> Self {
        Self { weight: Some(weight), eps }
    }

    /// Without weights.
    pub(crate) fn plain(eps: f32) -> Self {
        Self { weight: None, eps }
    }

    /// Any shape whose last axis is the weight's length.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        fast::rms_norm(x, self.weight.as_ref(), self.eps)
    }
}
