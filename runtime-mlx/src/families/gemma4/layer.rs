//! A layer of `gemma4`: attention whose keys may be another layer's, experts beside the dense block, an input of the layer's
//! own; must not know caches.

use mlx_rs::{
    Array, ops,
    ops::indexing::{take_along_axis, take_axis},
};

use super::args::Args;
use crate::{
    error::MlxError,
    layers::{ExpertSizes, Experts, Gate, Heads, Linear, Mlp, RmsNorm, Rope, Routes, largest},
    loader::Loader,
    step::{Attend, Step},
    sys::Result,
};

/// Four norms as in the generations before, and what the sizes of this one add.
pub(super) struct Gemma4Layer {
    attention: Attention,
    mlp: Mlp,
    /// Before and behind attention, before and behind the feed-forward block.
    norms: [RmsNorm; 4],
    sparse: Option<Sparse>,
    input: Option<Input>,
    /// `[1]`, by which all is multiplied in the end.
    scalar: Array,
}

impl Gemma4Layer {
    pub(super) fn load(
        args: &Args,
        index: usize,
        loader: &mut Loader<'_>,
        prefix: &str,
    ) -> std::result::Result<Self, MlxError> {
        let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
        let mut norm = |name: &str| loader.rms_norm(&format!("{prefix}.{name}"), hidden, eps);
        let norms = [
            norm("input_layernorm")?,
            norm("post_attention_layernorm")?,
            norm("pre_feedforward_layernorm")?,
            norm("post_feedforward_layernorm")?,
        ];
        let input = args.own_input().map(|(_, dim)| Input::load(args, dim, loader, prefix));
        Ok(Self {
            attention: Attention::load(args, index, loader, &format!("{prefix}.self_attn"))?,
            mlp: Mlp::load(loader, &format!("{prefix}.mlp"), (hidden, args.inner(index)), Gate::GeluTanh)?,
            norms,
            sparse: args.enable_moe_block.then(|| Sparse::load(args, loader, prefix)).transpose()?,
            input: input.transpose()?,
            scalar: loader.tensor(&format!("{prefix}.layer_scalar"), &[1])?,
        })
    }

    /// `x` `[tokens, hidden]`, and what each token brings for this layer alone, `[tokens, dim]`, if the model has such.
    pub(super) fn forward(&self, x: &Array, own: Option<&Array>, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let [before, behind, before_mlp, behind_mlp] = &self.norms;
        let seen = self.attention.forward(&before.forward(x)?, index, step)?;
        let x = x.add(behind.forward(&seen)?)?;
        let mut said = self.mlp.forward(&before_mlp.forward(&x)?)?;
        if let Some(sparse) = &self.sparse {
            said = sparse.beside(&said, &x)?;
        }
        let mut x = x.add(behind_mlp.forward(&said)?)?;
        if let (Some(input), Some(own)) = (&self.input, own) {
            x = x.add(input.forward(&x, own)?)?;
        }
        x.multiply(&self.scalar)
    }
}

/// Where a layer's keys and values come from.
enum Keys {
    /// Without `v` the keys are the values too, before norm and positions.
    Own {
        k: Linear,
        v: Option<Linear>,
        k_norm: RmsNorm,
        v_norm: RmsNorm,
    },
    Of(usize),
}

struct Attention {
    q: Linear,
    q_norm: RmsNorm,
    keys: Keys,
    o: Linear,
    rope: Rope,
    sizes: Heads,
}

impl Attention {
    fn load(args: &Args, index: usize, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let sizes @ Heads { hidden, heads, kv_heads, dim } = args.heads(index);
        let eps = args.rms_norm_eps;
        let keys = match args.lender(index) {
            Some(lender) => {
                // Made for nothing, and still in the checkpoint.
                let of_keys = ["k_proj", "v_proj", "k_norm"].map(|name| format!("{at}.{name}."));
                loader.discard(|name| of_keys.iter().any(|useless| name.starts_with(useless)));
                Keys::Of(lender)
            }
            None => {
                let values = !args.keys_are_values(index);
                let v = values.then(|| loader.linear(&format!("{at}.v_proj"), hidden, kv_heads * dim, false));
                Keys::Own {
                    v: v.transpose()?,
                    k: loader.linear(&format!("{at}.k_proj"), hidden, kv_heads * dim, false)?,
                    k_norm: loader.rms_norm(&format!("{at}.k_norm"), dim, eps)?,
                    v_norm: RmsNorm::plain(eps),
                }
            }
        };
        Ok(Self {
            q: loader.linear(&format!("{at}.q_proj"), hidden, heads * dim, false)?,
            q_norm: loader.rms_norm(&format!("{at}.q_norm"), dim, eps)?,
            keys,
            o: loader.linear(&format!("{at}.o_proj"), heads * dim, hidden, false)?,
            rope: args.rope(index)?,
            sizes,
        })
    }

    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let Heads { heads, kv_heads, dim, .. } = self.sizes;
        // Norms have taken the place of the usual scale.
        let how = Attend::scaled(1.0);
        let q = self.q_norm.forward(&self.q.forward(x)?.reshape(&[-1, heads, 1, dim])?)?;
        let q = self.rope.forward(&q, step.positions())?;
        let seen = match &self.keys {
            Keys::Of(lender) => step.attend_shared(*lender, &q, &how)?,
            Keys::Own { k, v, k_norm, v_norm } => {
                let k = k.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?;
                let v = match v {
                    Some(v) => v.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?,
                    None => k.clone(),
                };
                let k = self.rope.forward(&k_norm.forward(&k)?, step.positions())?;
                step.attend(index, [&q, &k, &v_norm.forward(&v)?], &how)?
            }
        };
        self.o.forward(&seen)
    }
}

/// Experts beside the dense block, each half with norms of its own.
struct Sparse {
    router_norm: RmsNorm,
    router: Linear,
    /// `[experts]`, of their weights.
    scales: Array,
    experts: Experts,
    k: i32,
    /// Behind the dense block, before and behind the experts.
    norms: [RmsNorm; 3],
}

impl Sparse {
    fn load(args: &Args, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
        let n = args.num_experts.unwrap_or(0);
        let scale = loader.tensor(&format!("{prefix}.router.scale"), &[hidden])?;
        let scale = scale.multiply(Array::from_f32((hidden as f32).powf(-0.5)).as_dtype(scale.dtype())?)?;
        scale.eval()?;
        let sizes = ExpertSizes { experts: n, hidden, inner: args.moe_intermediate_size.unwrap_or(0) };
        let at = format!("{prefix}.experts");
        let stacked = ["gate_proj", "up_proj", "down_proj"].map(|name| format!("{at}.switch_glu.{name}"));
        loader.cut_rows(&format!("{at}.gate_up_proj"), &stacked[..2])?;
        loader.cut_rows(&format!("{at}.down_proj"), &stacked[2..])?;
        let names = stacked.map(|name| (name, format!("{at}.{{}}")));
        let mut norm = |name: &str| loader.rms_norm(&format!("{prefix}.{name}"), hidden, eps);
        let norms = [
            norm("post_feedforward_layernorm_1")?,
            norm("pre_feedforward_layernorm_2")?,
            norm("post_feedforward_layernorm_2")?,
        ];
        Ok(Self {
            router_norm: RmsNorm::new(scale, eps),
            router: loader.linear(&format!("{prefix}.router.proj"), hidden, n, false)?,
            scales: loader.tensor(&format!("{prefix}.router.per_expert_scale"), &[n])?,
            experts: Experts::load_named(loader, names, sizes, (Gate::GeluTanh, false))?,
            k: args.top_k_experts.unwrap_or(1).min(n),
            norms,
        })
    }

    /// What the dense block `said`, and the experts of `x` beside it.
    fn beside(&self, said: &Array, x: &Array) -> Result<Array> {
        let [behind_dense, before, behind] = &self.norms;
        let routes = self.routes(x)?;
        let chosen = routes.sum(&self.experts.forward(&before.forward(x)?, &routes.experts)?)?;
        behind_dense.forward(said)?.add(behind.forward(&chosen)?)
    }

    /// The `k` best, weighted by softmax among them and by each one's own scale.
    fn routes(&self, x: &Array) -> Result<Routes> {
        let scores = self.router.forward(&self.router_norm.forward(x)?)?;
        let experts = largest(&scores, self.k)?;
        let odds = ops::softmax_axis(&take_along_axis(&scores, &experts, -1)?, -1, false)?;
        let weights = odds.multiply(take_axis(&self.scales, &experts, 0)?)?;
        Ok(Routes { experts, weights })
    }
}

/// Mixes into each token what it brings for this layer alone.
struct Input {
    gate: Linear,
    projection: Linear,
    norm: RmsNorm,
}

impl Input {
    fn load(args: &Args, dim: i32, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError> {
        let hidden = args.hidden_size;
        Ok(Self {
            gate: loader.linear(&format!("{prefix}.per_layer_input_gate"), hidden, dim, false)?,
            projection: loader.linear(&format!("{prefix}.per_layer_projection"), dim, hidden, false)?,
            norm: loader.rms_norm(&format!("{prefix}.post_per_layer_input_norm"), hidden, args.rms_norm_eps)?,
        })
    }

    fn forward(&self, x: &Array, own: &Array) -> Result<Array> {
        let gated = Gate::GeluTanh.apply(&self.gate.forward(x)?, own)?;
        self.norm.forward(&self.projection.forward(&gated)?)
    }
}
