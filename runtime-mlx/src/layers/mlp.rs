//! The gated feed-forward block (SwiGLU, Shazeer 2020); must not know attention.

use mlx_rs::{Array, nn};

use crate::{error::MlxError, layers::Linear, loader::Loader, sys::Result};

/// `down(silu(gate(x)) · up(x))`.
pub(crate) struct SwiGlu {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl SwiGlu {
    /// Reads `{prefix}.{gate,up,down}_proj`.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        hidden: i32,
        inner: i32,
        bias: bool,
    ) -> std::result::Result<Self, MlxError> {
        Ok(Self {
            gate: loader.linear(&format!("{prefix}.gate_proj"), hidden, inner, bias)?,
            up: loader.linear(&format!("{prefix}.up_proj"), hidden, inner, bias)?,
            down: loader.linear(&format!("{prefix}.down_proj"), inner, hidden, bias)?,
        })
    }

    /// `[n, hidden]` → `[n, hidden]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let gate = self.gate.forward(x)?;
        let gate = gate.multiply(nn::sigmoid(&gate)?)?;
        self.down.forward(&gate.multiply(self.up.forward(x)?)?)
    }
}
