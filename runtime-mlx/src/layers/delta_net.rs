//! Gated delta nets (Yang et al. 2024): convolved queries, keys and values through the gated delta rule; must not know caches.

use mlx_rs::{Array, Dtype, nn, ops};

use crate::{
    error::MlxError,
    kv::{LayerCache, State},
    layers::{CausalConv, DeltaTokens, Linear, RmsNorm, gated_delta, log_decay, split, unit_keys},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// Sizes of a gated delta net.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeltaNetSizes {
    pub(crate) hidden: i32,
    pub(crate) k_heads: i32,
    /// Of values, of states, of what is read; a multiple of `k_heads`.
    pub(crate) heads: i32,
    pub(crate) k_dim: i32,
    pub(crate) v_dim: i32,
    /// Tokens that the convolution sees.
    pub(crate) filter: i32,
}

impl DeltaNetSizes {
    /// Widths of all heads' queries, keys and values.
    fn widths(self) -> [i32; 3] {
        [self.k_heads * self.k_dim, self.k_heads * self.k_dim, self.heads * self.v_dim]
    }

    fn mixed(self) -> i32 {
        self.widths().iter().sum()
    }

    /// The last tokens before the convolution, and each head's state.
    pub(crate) fn cache(self) -> LayerCache {
        LayerCache::State(vec![
            State { dims: vec![self.filter - 1, self.mixed()], dtype: None },
            State { dims: vec![self.heads, self.v_dim, self.k_dim], dtype: Some(Dtype::Float32) },
        ])
    }
}

/// Where a delta net's inputs come from.
enum Inputs {
    /// A head of keys at a time: its queries, keys, values and gates; strengths and fadings.
    Mixed {
        qkvz: Linear,
        ba: Linear,
    },
    Apart {
        qkv: Linear,
        z: Linear,
        b: Linear,
        a: Linear,
    },
}

/// What is read of the states is normed, gated and brought back.
pub(crate) struct GatedDeltaNet {
    inputs: Inputs,
    conv: CausalConv,
    a_log: Array,
    dt_bias: Array,
    norm: RmsNorm,
    out: Linear,
    sizes: DeltaNetSizes,
}

impl GatedDeltaNet {
    /// `apart`: whether projections are four (`in_proj_{qkv,z,b,a}`) or two (`in_proj_{qkvz,ba}`).
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        at: &str,
        sizes: DeltaNetSizes,
        (apart, eps): (bool, f32),
    ) -> std::result::Result<Self, MlxError> {
        let DeltaNetSizes { hidden, heads, v_dim, filter, .. } = sizes;
        let values = heads * v_dim;
        let mut linear = |name: &str, outputs| loader.linear(&format!("{at}.{name}"), hidden, outputs, false);
        let inputs = match apart {
            true => Inputs::Apart {
                qkv: linear("in_proj_qkv", sizes.mixed())?,
                z: linear("in_proj_z", values)?,
                b: linear("in_proj_b", heads)?,
                a: linear("in_proj_a", heads)?,
            },
            false => Inputs::Mixed {
                qkvz: linear("in_proj_qkvz", sizes.mixed() + values)?,
                ba: linear("in_proj_ba", 2 * heads)?,
            },
        };
        Ok(Self {
            inputs,
            conv: loader.causal_conv(&format!("{at}.conv1d"), [sizes.mixed(), filter], false)?,
            a_log: loader.numbers(&format!("{at}.A_log"), heads)?,
            dt_bias: loader.numbers(&format!("{at}.dt_bias"), heads)?,
            norm: loader.rms_norm(&format!("{at}.norm"), v_dim, eps)?,
            out: loader.linear(&format!("{at}.out_proj"), values, hidden, false)?,
            sizes,
        })
    }

    /// Queries, keys and values of all heads, one behind the other, and the gates; strengths and fadings. `[tokens, …]`
    fn inputs(&self, x: &Array) -> Result<[Array; 4]> {
        let DeltaNetSizes { k_heads, heads, k_dim, v_dim, .. } = self.sizes;
        let (qkvz, ba) = match &self.inputs {
            Inputs::Apart { qkv, z, b, a } => {
                return Ok([qkv.forward(x)?, z.forward(x)?, b.forward(x)?, a.forward(x)?]);
            }
            Inputs::Mixed { qkvz, ba } => (qkvz.forward(x)?, ba.forward(x)?),
        };
        let (each, values) = (heads / k_heads, heads / k_heads * v_dim);
        let widths = [k_dim, k_dim, values, values];
        let [q, k, v, z] = split(&qkvz.reshape(&[-1, k_heads, widths.iter().sum()])?, widths)?;
        let [b, a] = split(&ba.reshape(&[-1, k_heads, 2 * each])?, [each, each])?;
        let tokens = x.dim(0);
        let [q, k, v, z, b, a] = [q, k, v, z, b, a].map(|part| part.reshape(&[tokens, -1]));
        Ok([ops::concatenate(&[q?, k?, v?], -1)?, z?, b?, a?])
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`; `layer` says which memory belongs to it.
    pub(crate) fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array> {
        let DeltaNetSizes { k_heads, heads, k_dim, v_dim, .. } = self.sizes;
        let [mixed, z, b, a] = self.inputs(x)?;
        let decay = log_decay(&self.a_log, &a, &self.dt_bias)?.expand_dims(-1)?;
        let read = step.recur(layer, &[&mixed, &decay, &nn::sigmoid(b)?], |parts, states| {
            let (rows, n) = (parts[0].dim(0), parts[0].dim(1));
            let (mixed, tail) = self.conv.forward(&parts[0], &states[0])?;
            let [q, k, v] = split(&nn::silu(mixed)?, self.sizes.widths())?;
            let [q, k] = [q, k].map(|x| x.reshape(&[rows, n, k_heads, k_dim]));
            let [q, k] = unit_keys(&q?, &k?)?;
            let v = v.reshape(&[rows, n, heads, v_dim])?;
            let tokens = DeltaTokens { q: &q, k: &k, v: &v, log_decay: &parts[1], beta: &parts[2] };
            let (read, state) = gated_delta(&tokens, &states[1])?;
            Ok((read, vec![tail, state]))
        })?;
        let gate = nn::silu(z.reshape(&[-1, heads, v_dim])?.as_dtype(Dtype::Float32)?)?;
        let gated = self.norm.forward(&read)?.as_dtype(Dtype::Float32)?.multiply(gate)?.as_dtype(x.dtype())?;
        self.out.forward(&gated.reshape(&[-1, heads * v_dim])?)
    }
}
