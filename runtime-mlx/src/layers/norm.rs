//! Root mean square norm (Zhang & Sennrich 2019); must not know where it stands.

use mlx_rs::{Array, fast};

use crate::sys::Result;

/// `x / sqrt(mean(x²) + eps) · weight` over the last axis.
pub(crate) struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    pub(crate) fn new(weight: Array, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// Any shape whose last axis is the weight's length.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        fast::rms_norm(x, Some(&self.weight), self.eps)
    }
}
