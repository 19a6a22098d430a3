//! Gated feed-forward blocks (Shazeer 2020); must not know attention.

use std::f32::consts::PI;

use mlx_rs::{Array, nn, ops};

use crate::{
    error::MlxError,
    layers::{Linear, split},
    loader::Loader,
    sys::Result,
};

/// What a gated block does with its gate and its linear part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gate {
    /// `silu(gate) · up`
    Silu,
    /// `gelu(gate) · up`, the tanh approximation.
    GeluTanh,
    /// `gate · sigmoid(alpha · gate) · (up + 1)`, gate at most `limit`, up within ±`limit`. (gpt-oss)
    Clamped { alpha: f32, limit: f32 },
}

impl Gate {
    /// Any two arrays of one shape.
    pub(crate) fn apply(self, gate: &Array, up: &Array) -> Result<Array> {
        let number = |x: f32| Array::from_f32(x).as_dtype(gate.dtype());
        match self {
            Self::Silu => gate.multiply(nn::sigmoid(gate)?)?.multiply(up),
            Self::GeluTanh => {
                let cubic = gate.square()?.multiply(number(0.044_715)?)?.add(number(1.0)?)?.multiply(gate)?;
                let half = ops::tanh(cubic.multiply(number((2.0 / PI).sqrt())?)?)?.add(number(1.0)?)?;
                half.multiply(number(0.5)?)?.multiply(gate)?.multiply(up)
            }
            Self::Clamped { alpha, limit } => {
                let gate = ops::minimum(gate, number(limit)?)?;
                let up = ops::maximum(ops::minimum(up, number(limit)?)?, number(-limit)?)?;
                let gate = gate.multiply(nn::sigmoid(gate.multiply(number(alpha)?)?)?)?;
                up.add(number(1.0)?)?.multiply(gate)
            }
        }
    }
}

/// The two linear layers that a gated block begins with.
enum Inner {
    Apart {
        gate: Linear,
        up: Linear,
    },
    /// One matrix, the gate's rows first.
    Fused {
        both: Linear,
        width: i32,
    },
}

/// `down(act(gate(x), up(x)))`.
pub(crate) struct Mlp {
    inner: Inner,
    down: Linear,
    gate: Gate,
}

impl Mlp {
    /// Reads `{prefix}.{gate,up,down}_proj`, without biases.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        (hidden, inner): (i32, i32),
        gate: Gate,
    ) -> std::result::Result<Self, MlxError> {
        let names = ["gate_proj", "up_proj", "down_proj"].map(|name| format!("{prefix}.{name}"));
        Self::load_named(loader, &names, (hidden, inner), (gate, false))
    }

    /// Reads gate, up and down by their names; says whether they have biases.
    pub(crate) fn load_named(
        loader: &mut Loader<'_>,
        [gate, up, down]: &[String; 3],
        (hidden, inner): (i32, i32),
        (act, bias): (Gate, bool),
    ) -> std::result::Result<Self, MlxError> {
        let (gate, up) = (loader.linear(gate, hidden, inner, bias)?, loader.linear(up, hidden, inner, bias)?);
        let down = loader.linear(down, inner, hidden, bias)?;
        Ok(Self { inner: Inner::Apart { gate, up }, down, gate: act })
    }

    /// Reads `{prefix}.gate_up_proj` and `{prefix}.down_proj`.
    pub(crate) fn load_fused(
        loader: &mut Loader<'_>,
        prefix: &str,
        (hidden, inner): (i32, i32),
        gate: Gate,
    ) -> std::result::Result<Self, MlxError> {
        let both = loader.linear(&format!("{prefix}.gate_up_proj"), hidden, 2 * inner, false)?;
        let down = loader.linear(&format!("{prefix}.down_proj"), inner, hidden, false)?;
        Ok(Self { inner: Inner::Fused { both, width: inner }, down, gate })
    }

    /// `[n, hidden]` → `[n, hidden]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let [gate, up] = match &self.inner {
            Inner::Apart { gate, up } => [gate.forward(x)?, up.forward(x)?],
            Inner::Fused { both, width } => split(&both.forward(x)?, [*width, *width])?,
        };
        self.down.forward(&self.gate.apply(&gate, &up)?)
    }
}
