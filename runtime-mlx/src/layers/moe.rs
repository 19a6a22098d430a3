//! Mixtures of experts (Shazeer et al. 2017): routers choose, experts compute; must not know attention.

use mlx_rs::{
    Array, Dtype, nn, ops,
    ops::indexing::{put_along_axis, take_along_axis, take_axis, topk_axis},
};

use crate::{
    error::MlxError,
    layers::{Gate, SwitchLinear},
    loader::Loader,
    sys::{self, Result},
};

/// Choices from which on tokens are sorted by expert, so that each expert's matrix is read once. Origin: mlx-lm.
const SORT_FROM: i32 = 64;

/// Which experts a token goes to, and with which weights: `[n, k]` each.
pub(crate) struct Routes {
    pub(crate) experts: Array,
    pub(crate) weights: Array,
}

impl Routes {
    /// The `k` likeliest by softmax, weighted by their odds, which sum to 1 if `normalise`. `logits` `[n, experts]`.
    pub(crate) fn softmax(logits: &Array, k: i32, normalise: bool) -> Result<Self> {
        let odds = ops::softmax_axis(logits, -1, true)?;
        let experts = largest(&odds, k)?;
        let weights = take_along_axis(&odds, &experts, -1)?;
        let weights = if normalise { weights.divide(weights.sum_axis(-1, true)?)? } else { weights };
        Ok(Self { experts, weights })
    }

    /// DeepSeek-V3's choice: sigmoid scores, corrected by `bias` `[experts]` for the choice only, within the best groups
    /// of experts.
    pub(crate) fn sigmoid(logits: &Array, bias: &Array, how: &Grouped) -> Result<Self> {
        Self::corrected(&nn::sigmoid(logits.as_dtype(Dtype::Float32)?)?, bias, how)
    }

    /// The same with softmax's odds in place of sigmoid's.
    pub(crate) fn softmax_corrected(logits: &Array, bias: &Array, how: &Grouped) -> Result<Self> {
        Self::corrected(&ops::softmax_axis(logits.as_dtype(Dtype::Float32)?, -1, true)?, bias, how)
    }

    fn corrected(odds: &Array, bias: &Array, how: &Grouped) -> Result<Self> {
        let mut scores = odds.add(bias)?;
        if how.groups > 1 {
            let (n, experts) = (scores.dim(0), scores.dim(1));
            scores = scores.reshape(&[n, how.groups, experts / how.groups])?;
            let of_group = topk_axis(&scores, 2, -1)?.sum_axis(-1, true)?;
            let dropped = how.groups - how.groups_used;
            if dropped > 0 {
                let order = ops::argpartition_axis(&of_group, dropped - 1, -2)?;
                let worst = sys::slice(&order, &[0, 0, 0], &[n, dropped, 1])?;
                let worst = ops::broadcast_to(&worst, &[n, dropped, experts / how.groups])?;
                // Zero, as the reference has it: below every score that matters, unless the bias is negative.
                let zeros = ops::zeros_dtype(&[n, dropped, experts / how.groups], Dtype::Float32)?;
                scores = put_along_axis(&scores, &worst, &zeros, -2)?;
            }
            scores = scores.reshape(&[n, experts])?;
        }
        let experts = largest(&scores, how.k)?;
        let mut weights = take_along_axis(odds, &experts, -1)?;
        if how.k > 1 && how.normalise {
            weights = weights.divide(weights.sum_axis(-1, true)?)?;
        }
        let weights = weights.multiply(Array::from_f32(how.scale))?;
        Ok(Self { experts, weights })
    }

    /// What the experts said `[n, k, hidden]`, added up by weight: `[n, hidden]`.
    pub(crate) fn sum(&self, said: &Array) -> Result<Array> {
        let weights = self.weights.expand_dims(-1)?;
        said.multiply(&weights)?.sum_axis(-2, false)?.as_dtype(said.dtype())
    }
}

/// How [`Routes::sigmoid`] chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grouped {
    /// Experts for each token.
    pub(crate) k: i32,
    pub(crate) groups: i32,
    /// Groups from which they may come.
    pub(crate) groups_used: i32,
    /// Of the weights.
    pub(crate) scale: f32,
    /// Whether the weights sum to `scale`.
    pub(crate) normalise: bool,
}

/// Indices of the `k` largest of each row, in no order: `[n, m]` → `[n, k]`.
pub(crate) fn largest(scores: &Array, k: i32) -> Result<Array> {
    let order = ops::argpartition_axis(scores.negative()?, k - 1, -1)?;
    sys::slice(&order, &[0, 0], &[scores.dim(0), k])
}

/// Sizes of a layer's experts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpertSizes {
    pub(crate) experts: i32,
    pub(crate) hidden: i32,
    pub(crate) inner: i32,
}

/// Gated feed-forward blocks, one for each expert.
pub(crate) struct Experts {
    gate: SwitchLinear,
    up: SwitchLinear,
    down: SwitchLinear,
    act: Gate,
}

impl Experts {
    /// Reads `{prefix}.switch_mlp.{gate,up,down}_proj`, or what mlx-lm makes these of, `{prefix}.experts.N.*`.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        sizes: ExpertSizes,
        act: Gate,
    ) -> std::result::Result<Self, MlxError> {
        let name = |of: &str| (format!("{prefix}.switch_mlp.{of}"), format!("{prefix}.experts.{{}}.{of}"));
        Self::load_named(loader, [name("gate_proj"), name("up_proj"), name("down_proj")], sizes, (act, false))
    }

    /// Reads gate, up and down by their names, stacked and single (`{}` stands for the expert's number); says whether they
    /// have biases.
    pub(crate) fn load_named(
        loader: &mut Loader<'_>,
        names: [(String, String); 3],
        ExpertSizes { experts, hidden, inner }: ExpertSizes,
        (act, bias): (Gate, bool),
    ) -> std::result::Result<Self, MlxError> {
        let mut read = |(stacked, single): &(String, String), inputs, outputs| {
            loader.stack_experts(stacked, single, experts)?;
            loader.switch_linear(stacked, [experts, outputs, inputs], bias)
        };
        let gate = read(&names[0], hidden, inner)?;
        let up = read(&names[1], hidden, inner)?;
        let down = read(&names[2], inner, hidden)?;
        Ok(Self { gate, up, down, act })
    }

    /// `[n, hidden]` through each token's `experts` `[n, k]` → `[n, k, hidden]`.
    pub(crate) fn forward(&self, x: &Array, experts: &Array) -> Result<Array> {
        let (n, k) = (experts.dim(0), experts.dim(1));
        if n * k < SORT_FROM {
            let y = self.through(&x.expand_dims_axes(&[-2, -3])?, experts, false)?;
            return y.reshape(&[n, k, -1]);
        }
        let flat = experts.reshape(&[-1])?;
        let order = ops::argsort_axis(&flat, -1)?;
        let back = ops::argsort_axis(&order, -1)?;
        let tokens = ops::floor_divide(&order, Array::from_slice(&[k as u32], &[]))?;
        let sorted = take_axis(x, &tokens, 0)?.expand_dims(-2)?;
        let y = self.through(&sorted, &take_axis(&flat, &order, 0)?, true)?;
        take_axis(&y, &back, 0)?.reshape(&[n, k, -1])
    }

    fn through(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let (gate, up) = (self.gate.forward(x, experts, sorted)?, self.up.forward(x, experts, sorted)?);
        self.down.forward(&self.act.apply(&gate, &up)?, experts, sorted)
    }
}
