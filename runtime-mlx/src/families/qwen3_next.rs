//! `qwen3_next` (Qwen team 2025): gated delta nets, and in some layers attention whose output is gated; experts beside a
//! feed-forward block that all tokens share. What [`qwen3_5`](super::qwen3_5) has of it too; must not know caches.

use mlx_rs::{Array, nn};
use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{DeltaNetSizes, ExpertSizes, Experts, FeedForward, Frame, Gate, GatedDeltaNet, Heads, Linear, Mixer, Mlp},
    layers::{PreNorm, RmsNorm, Rope, RopeArgs, Routes, Stack},
    layers::{grouped, layers, positive, split},
    loader::Loader,
    step::{Attend, Step},
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent. Origin: the makers' own default.
const THETA: f32 = 10_000.0;

/// Share of a head that is rotated where `config.json` is silent. Origin: the same.
const ROTATED: f32 = 0.25;

#[derive(Debug, Deserialize)]
pub(super) struct Args {
    hidden_size: i32,
    pub(super) num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    num_key_value_heads: i32,
    head_dim: Option<i32>,
    rms_norm_eps: f32,
    vocab_size: i32,
    max_position_embeddings: u32,
    linear_num_value_heads: i32,
    linear_num_key_heads: i32,
    linear_key_head_dim: i32,
    linear_value_head_dim: i32,
    linear_conv_kernel_dim: i32,
    num_experts: i32,
    num_experts_per_tok: i32,
    decoder_sparse_step: usize,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    shared_expert_intermediate_size: i32,
    moe_intermediate_size: i32,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default = "four")]
    full_attention_interval: usize,
    // What this engine computes in one way only.
    hidden_act: Option<String>,
    attn_output_gate: Option<bool>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    #[serde(skip)]
    pub(super) rope: RopeArgs,
}

fn four() -> usize {
    4
}

impl Args {
    fn check(&self) -> std::result::Result<(), MlxError> {
        let refuse = |message: String| Err(MlxError::Config(message));
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return refuse(format!("`hidden_act` is `{act}`; this family computes `silu`"));
        }
        if self.attn_output_gate == Some(false) {
            return refuse("`attn_output_gate` is false; this family's attention has a gate".into());
        }
        if self.use_sliding_window == Some(true) {
            return refuse("`use_sliding_window` is true; this family's attention sees all tokens".into());
        }
        layers(self.num_hidden_layers)?;
        positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("head_dim", self.head_dim()),
            ("vocab_size", self.vocab_size),
            ("linear_num_value_heads", self.linear_num_value_heads),
            ("linear_num_key_heads", self.linear_num_key_heads),
            ("linear_key_head_dim", self.linear_key_head_dim),
            ("linear_value_head_dim", self.linear_value_head_dim),
            ("linear_conv_kernel_dim", self.linear_conv_kernel_dim),
            ("full_attention_interval", i32::try_from(self.full_attention_interval).unwrap_or(0)),
        ])?;
        if self.num_experts > 0 {
            positive(&[
                ("num_experts_per_tok", self.num_experts_per_tok),
                ("moe_intermediate_size", self.moe_intermediate_size),
                ("shared_expert_intermediate_size", self.shared_expert_intermediate_size),
                ("decoder_sparse_step", i32::try_from(self.decoder_sparse_step).unwrap_or(0)),
            ])?;
        }
        if self.linear_num_value_heads % self.linear_num_key_heads != 0 {
            return refuse("`linear_num_value_heads` is no multiple of `linear_num_key_heads`".into());
        }
        if let Some(types) = &self.layer_types {
            let said = |i: usize| types.get(i).is_some_and(|kind| kind == "full_attention");
            if let Some(i) = (0..self.num_hidden_layers).find(|i| said(*i) != self.attends(*i)) {
                return refuse(format!("`layer_types` says of layer {i} other than `full_attention_interval`"));
            }
        }
        grouped(self.num_attention_heads, self.num_key_value_heads)
    }

    /// Refuses layers of which some have experts.
    pub(super) fn all_or_none_sparse(&self) -> std::result::Result<(), MlxError> {
        if self.num_experts > 0 && (self.decoder_sparse_step != 1 || !self.mlp_only_layers.is_empty()) {
            let fields = "`decoder_sparse_step` and `mlp_only_layers`";
            return Err(MlxError::Config(format!(
                "{fields} name layers without experts; in this family all have them"
            )));
        }
        Ok(())
    }

    fn head_dim(&self) -> i32 {
        self.head_dim.unwrap_or_else(|| self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0))
    }

    fn heads(&self) -> Heads {
        Heads {
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            dim: self.head_dim(),
        }
    }

    fn delta(&self) -> DeltaNetSizes {
        DeltaNetSizes {
            hidden: self.hidden_size,
            k_heads: self.linear_num_key_heads,
            heads: self.linear_num_value_heads,
            k_dim: self.linear_key_head_dim,
            v_dim: self.linear_value_head_dim,
            filter: self.linear_conv_kernel_dim,
        }
    }

    fn attends(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.full_attention_interval)
    }

    fn sparse(&self, layer: usize) -> bool {
        let chosen = !self.mlp_only_layers.contains(&layer) && (layer + 1).is_multiple_of(self.decoder_sparse_step);
        self.num_experts > 0 && chosen
    }

    fn cache(&self, layer: usize) -> LayerCache {
        match self.attends(layer) {
            true => LayerCache::attention(self.num_key_value_heads, self.head_dim(), None),
            false => self.delta().cache(),
        }
    }
}

/// What tells the generations apart.
pub(super) struct Variant<'a> {
    pub(super) root: &'a str,
    pub(super) head: &'a str,
    /// Base of the rotary wavelengths where `config.json` is silent.
    pub(super) theta: f32,
    /// Whether a delta net's projections lie apart, and not mixed head by head.
    pub(super) apart: bool,
    /// As their makers store them, norm weights are the distance from 1; but not those of delta nets.
    pub(super) from_one: bool,
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let (args, rope) = config.text_args::<Args, RopeArgs>()?;
    set_predictor_aside(loader);
    let single = |name: &str| name.starts_with("model.layers.") && name.ends_with(".mlp.experts.0.up_proj.weight");
    let from_one = loader.any(|name, shape| single(name) || conv_of_makers(name, shape));
    let variant = Variant { root: "model", head: "lm_head", theta: THETA, apart: false, from_one };
    hybrid(&Args { rope, ..args }, loader, &variant)
}

/// The layers that predict a further token: for a later version.
pub(super) fn set_predictor_aside(loader: &mut Loader<'_>) {
    loader.set_aside("multi-token prediction", |name| name.contains("mtp."));
}

/// Whether a tensor is a convolution's filter as the models' makers store it. mlx-lm exchanges its last two axes.
pub(super) fn conv_of_makers(name: &str, shape: &[i32]) -> bool {
    name.contains("conv1d.weight") && shape.last() != Some(&1)
}

/// A model of either generation.
pub(super) fn hybrid(
    args: &Args,
    loader: &mut Loader<'_>,
    variant: &Variant<'_>,
) -> std::result::Result<Box<dyn Model>, MlxError> {
    args.check()?;
    let (hidden, eps, tied) = (args.hidden_size, args.rms_norm_eps, args.tie_word_embeddings);
    if tied {
        let useless = format!("{}.weight", variant.head);
        loader.discard(|name| name == useless);
    }
    let frame = Frame {
        root: variant.root,
        head: (!tied).then_some(variant.head),
        plus_one: variant.from_one,
        max_positions: Some(args.max_position_embeddings),
        ..Frame::new(hidden, args.vocab_size, eps, tied)
    };
    let caches = (0..args.num_hidden_layers).map(|i| args.cache(i)).collect();
    let stack = Stack::load(loader, &frame, caches, |loader, i, prefix| {
        let mlp = format!("{prefix}.mlp");
        Ok(PreNorm {
            mixer_norm: norm(loader, &format!("{prefix}.input_layernorm"), hidden, (eps, variant.from_one))?,
            mixer: match args.attends(i) {
                true => {
                    let at = format!("{prefix}.self_attn");
                    Half::Attention(GatedAttention::load(args, loader, &at, variant)?)
                }
                false => {
                    let at = format!("{prefix}.linear_attn");
                    Half::Delta(GatedDeltaNet::load(loader, &at, args.delta(), (variant.apart, eps))?)
                }
            },
            mlp_norm: norm(loader, &format!("{prefix}.post_attention_layernorm"), hidden, (eps, variant.from_one))?,
            mlp: match args.sparse(i) {
                true => Block::Sparse(Box::new(Sparse::load(args, loader, &mlp)?)),
                false => Block::Dense(Mlp::load(loader, &mlp, (hidden, args.intermediate_size), Gate::Silu)?),
            },
        })
    })?;
    Ok(Box::new(stack))
}

fn norm(
    loader: &mut Loader<'_>,
    name: &str,
    size: i32,
    (eps, from_one): (f32, bool),
) -> std::result::Result<RmsNorm, MlxError> {
    if from_one { loader.rms_norm_plus_one(name, size, eps) } else { loader.rms_norm(name, size, eps) }
}

enum Half {
    Attention(GatedAttention),
    Delta(GatedDeltaNet),
}

impl Mixer for Half {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        match self {
            Self::Attention(attention) => attention.forward(x, index, step),
            Self::Delta(delta) => delta.forward(x, index, step),
        }
    }
}

/// Grouped-query attention whose output each head's gate lets through.
struct GatedAttention {
    /// A head's queries, and behind them its gate.
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    rope: Rope,
    sizes: Heads,
}

impl GatedAttention {
    fn load(
        args: &Args,
        loader: &mut Loader<'_>,
        at: &str,
        variant: &Variant<'_>,
    ) -> std::result::Result<Self, MlxError> {
        let Heads { hidden, heads, kv_heads, dim } = args.heads();
        let (bias, how) = (args.attention_bias, (args.rms_norm_eps, variant.from_one));
        Ok(Self {
            q: loader.linear(&format!("{at}.q_proj"), hidden, 2 * heads * dim, bias)?,
            k: loader.linear(&format!("{at}.k_proj"), hidden, kv_heads * dim, bias)?,
            v: loader.linear(&format!("{at}.v_proj"), hidden, kv_heads * dim, bias)?,
            o: loader.linear(&format!("{at}.o_proj"), heads * dim, hidden, bias)?,
            q_norm: norm(loader, &format!("{at}.q_norm"), dim, how)?,
            k_norm: norm(loader, &format!("{at}.k_norm"), dim, how)?,
            rope: Rope::new(&args.rope, args.rope.rotated(dim, ROTATED), variant.theta)?,
            sizes: args.heads(),
        })
    }

    fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array> {
        let Heads { heads, kv_heads, dim, .. } = self.sizes;
        let [q, gate] = split(&self.q.forward(x)?.reshape(&[-1, heads, 1, 2 * dim])?, [dim, dim])?;
        let gate = nn::sigmoid(gate.reshape(&[-1, heads * dim])?)?;
        let k = self.k.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?;
        let v = self.v.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?;
        let q = self.rope.forward(&self.q_norm.forward(&q)?, step.positions())?;
        let k = self.rope.forward(&self.k_norm.forward(&k)?, step.positions())?;
        let seen = step.attend(layer, [&q, &k, &v], &Attend::heads(dim))?;
        self.o.forward(&seen.multiply(gate)?)
    }
}

enum Block {
    Dense(Mlp),
    Sparse(Box<Sparse>),
}

impl FeedForward for Block {
    fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Sparse(experts) => experts.forward(x),
        }
    }
}

/// Experts, and a block that all tokens go through as far as a gate lets them.
struct Sparse {
    router: Linear,
    experts: Experts,
    k: i32,
    normalise: bool,
    shared: Mlp,
    shared_gate: Linear,
}

impl Sparse {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, experts) = (args.hidden_size, args.num_experts);
        let sizes = ExpertSizes { experts, hidden, inner: args.moe_intermediate_size };
        let shared = (hidden, args.shared_expert_intermediate_size);
        Ok(Self {
            router: loader.linear(&format!("{at}.gate"), hidden, experts, false)?,
            experts: Experts::load(loader, at, sizes, Gate::Silu)?,
            k: args.num_experts_per_tok,
            normalise: args.norm_topk_prob,
            shared: Mlp::load(loader, &format!("{at}.shared_expert"), shared, Gate::Silu)?,
            shared_gate: loader.linear(&format!("{at}.shared_expert_gate"), hidden, 1, false)?,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let routes = Routes::softmax(&self.router.forward(x)?, self.k, self.normalise)?;
        let said = routes.sum(&self.experts.forward(x, &routes.experts)?)?;
        let gate = nn::sigmoid(self.shared_gate.forward(x)?)?;
        said.add(gate.multiply(self.shared.forward(x)?)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(change: Value) -> String {
        let mut config = json!({
            "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "num_attention_heads": 4,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": 128, "max_position_embeddings": 512,
            "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
            "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "num_experts": 8, "num_experts_per_tok": 2,
            "decoder_sparse_step": 1, "shared_expert_intermediate_size": 64, "moe_intermediate_size": 32,
        });
        let fields = config.as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        let args: Args = serde_json::from_value(config).unwrap();
        args.check().and_then(|()| args.all_or_none_sparse()).err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let types = ["linear_attention", "full_attention", "linear_attention", "full_attention"];
        assert_eq!(refusal(json!({"full_attention_interval": 2, "layer_types": types})), "");
        for (change, word) in [
            (json!({"hidden_act": "gelu"}), "hidden_act"),
            (json!({"attn_output_gate": false}), "attn_output_gate"),
            (json!({"use_sliding_window": true}), "use_sliding_window"),
            (json!({"layer_types": types}), "layer_types"),
            (json!({"full_attention_interval": 0}), "full_attention_interval"),
            (json!({"linear_num_value_heads": 3}), "linear_num_value_heads"),
            (json!({"num_experts_per_tok": 0}), "num_experts_per_tok"),
            (json!({"mlp_only_layers": [1]}), "mlp_only_layers"),
        ] {
            let message = refusal(change);
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
