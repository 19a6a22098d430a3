//! `kimi_linear` (Moonshot 2025): Kimi delta attention, and in some layers latent attention that knows no positions; experts
//! beside some that all tokens share; must not know caches.

use mlx_rs::{Array, Dtype, nn};
use serde::Deserialize;

use super::deepseek_v3::latent_matrices;
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::{LayerCache, State},
    layers::{
        CausalConv, DeltaTokens, ExpertSizes, Experts, FeedForward, Frame, Gate, Grouped, Latents, Linear, Mixer,
    },
    layers::{Mlp, PreNorm, RmsNorm, Routes, Stack},
    layers::{gated_delta, layers, log_decay, positive, split, unit_keys},
    loader::Loader,
    step::Step,
    sys::Result,
};

#[derive(Debug, Deserialize)]
struct Args {
    vocab_size: i32,
    hidden_size: i32,
    num_hidden_layers: usize,
    num_attention_heads: i32,
    intermediate_size: i32,
    head_dim: i32,
    rms_norm_eps: f32,
    linear_attn_config: DeltaArgs,
    model_max_length: u32,
    num_experts: i32,
    moe_intermediate_size: i32,
    kv_lora_rank: i32,
    #[serde(default)]
    tie_word_embeddings: bool,
    qk_nope_head_dim: Option<i32>,
    qk_rope_head_dim: Option<i32>,
    v_head_dim: Option<i32>,
    #[serde(default = "one")]
    num_experts_per_token: i32,
    #[serde(default)]
    num_shared_experts: i32,
    #[serde(default)]
    moe_router_activation_func: Router,
    #[serde(default = "yes")]
    moe_renormalize: bool,
    #[serde(default = "whole")]
    routed_scaling_factor: f32,
    #[serde(default)]
    first_k_dense_replace: usize,
    moe_layer_freq: Option<usize>,
    #[serde(default = "one")]
    num_expert_group: i32,
    #[serde(default = "one")]
    topk_group: i32,
    // What this engine computes in one way only.
    hidden_act: Option<String>,
    mla_use_nope: Option<bool>,
    q_lora_rank: Option<i32>,
    use_grouped_topk: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct DeltaArgs {
    /// Counted from 1.
    kda_layers: Vec<usize>,
    full_attn_layers: Option<Vec<usize>>,
    num_heads: i32,
    head_dim: i32,
    #[serde(default = "four")]
    short_conv_kernel_size: i32,
}

/// What makes scores of a router's logits.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Router {
    #[default]
    Sigmoid,
    Softmax,
}

fn one() -> i32 {
    1
}

fn four() -> i32 {
    4
}

fn whole() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

impl Args {
    fn check(&self) -> std::result::Result<(), MlxError> {
        let refuse = |message: String| Err(MlxError::Config(message));
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return refuse(format!("`hidden_act` is `{act}`; this family computes `silu`"));
        }
        if self.mla_use_nope == Some(false) {
            return refuse("`mla_use_nope` is false; this family's latent attention knows no positions".into());
        }
        if let Some(rank) = self.q_lora_rank {
            return refuse(format!("`q_lora_rank` is {rank}; this family's queries come straight from the input"));
        }
        if self.use_grouped_topk == Some(false) && self.num_expert_group > 1 {
            return refuse("`use_grouped_topk` is false, and `num_expert_group` says how experts are grouped".into());
        }
        layers(self.num_hidden_layers)?;
        let delta = &self.linear_attn_config;
        if let Some(full) = &delta.full_attn_layers
            && let Some(i) = (0..self.num_hidden_layers).find(|i| full.contains(&(i + 1)) == self.forgets(*i))
        {
            return refuse(format!("`linear_attn_config` lists layer {} twice, or not at all", i + 1));
        }
        positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.nope()),
            ("v_head_dim", self.v_dim()),
            ("linear_attn_config.num_heads", delta.num_heads),
            ("linear_attn_config.head_dim", delta.head_dim),
            ("linear_attn_config.short_conv_kernel_size", delta.short_conv_kernel_size),
            ("num_expert_group", self.num_expert_group),
            ("num_experts_per_token", self.num_experts_per_token),
            ("moe_layer_freq", i32::try_from(self.moe_layer_freq.unwrap_or(1)).unwrap_or(0)),
        ])
    }

    /// Whether a layer's memory is a state.
    fn forgets(&self, layer: usize) -> bool {
        self.linear_attn_config.kda_layers.contains(&(layer + 1))
    }

    fn sparse(&self, layer: usize) -> bool {
        let chosen = layer >= self.first_k_dense_replace && layer.is_multiple_of(self.moe_layer_freq.unwrap_or(1));
        self.num_experts > 0 && chosen
    }

    fn nope(&self) -> i32 {
        self.qk_nope_head_dim.unwrap_or(self.head_dim)
    }

    /// What other families rotate of a head. This one does not.
    fn beside(&self) -> i32 {
        self.qk_rope_head_dim.unwrap_or(0)
    }

    fn v_dim(&self) -> i32 {
        self.v_head_dim.unwrap_or(self.head_dim)
    }

    fn cache(&self, layer: usize) -> LayerCache {
        if !self.forgets(layer) {
            return LayerCache::Latent { dim: self.kv_lora_rank + self.beside() };
        }
        let DeltaArgs { num_heads, head_dim, short_conv_kernel_size, .. } = self.linear_attn_config;
        let tail = State { dims: vec![short_conv_kernel_size - 1, num_heads * head_dim], dtype: None };
        let state = State { dims: vec![num_heads, head_dim, head_dim], dtype: Some(Dtype::Float32) };
        LayerCache::State(vec![tail.clone(), tail.clone(), tail, state])
    }
}

/// mlx-lm's name of a tensor that the model's makers call `name`.
fn renamed(name: &str) -> String {
    let mut name = name
        .replace(".block_sparse_moe.gate.e_score_correction_bias", ".mlp.e_score_correction_bias")
        .replace(".block_sparse_moe.", ".mlp.");
    if name.contains(".mlp.experts.") {
        for (theirs, ours) in [(".w1.", ".gate_proj."), (".w2.", ".down_proj."), (".w3.", ".up_proj.")] {
            name = name.replace(theirs, ours);
        }
    }
    for (theirs, ours) in
        [(".q_conv1d.", ".q_conv.conv."), (".k_conv1d.", ".k_conv.conv."), (".v_conv1d.", ".v_conv.conv.")]
    {
        name = name.replace(theirs, ours);
    }
    name
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let args: Args = config.args()?;
    args.check()?;
    loader.set_aside("multi-token prediction", |name| name.starts_with("model.mtp"));
    loader.rename(renamed)?;
    let (hidden, eps, tied) = (args.hidden_size, args.rms_norm_eps, args.tie_word_embeddings);
    if tied {
        loader.discard(|name| name == "lm_head.weight");
    }
    let frame = Frame { max_positions: Some(args.model_max_length), ..Frame::new(hidden, args.vocab_size, eps, tied) };
    let caches = (0..args.num_hidden_layers).map(|i| args.cache(i)).collect();
    let stack = Stack::load(loader, &frame, caches, |loader, i, prefix| {
        let (at, mlp) = (format!("{prefix}.self_attn"), format!("{prefix}.mlp"));
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: match args.forgets(i) {
                true => Half::Delta(Box::new(DeltaAttention::load(&args, loader, &at)?)),
                false => Half::Latent(Box::new(LatentAttention::load(&args, loader, &at)?)),
            },
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: match args.sparse(i) {
                true => Block::Sparse(Box::new(Sparse::load(&args, loader, &mlp)?)),
                false => Block::Dense(Mlp::load(loader, &mlp, (hidden, args.intermediate_size), Gate::Silu)?),
            },
        })
    })?;
    Ok(Box::new(stack))
}

enum Half {
    Delta(Box<DeltaAttention>),
    Latent(Box<LatentAttention>),
}

impl Mixer for Half {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        match self {
            Self::Delta(delta) => delta.forward(x, index, step),
            Self::Latent(latent) => latent.forward(x, index, step),
        }
    }
}

/// Convolved queries, keys and values through the gated delta rule, where each number of a key fades by itself; what is
/// read is normed and gated.
struct DeltaAttention {
    /// Of queries, keys and values.
    inputs: [(Linear, CausalConv); 3],
    /// Through a narrow layer: how fast each number fades.
    fading: [Linear; 2],
    /// The same: what is let through.
    gate: [Linear; 2],
    strength: Linear,
    /// `[heads, 1]`
    a_log: Array,
    /// `[heads, dim]`
    dt_bias: Array,
    norm: RmsNorm,
    out: Linear,
    heads: i32,
    dim: i32,
}

impl DeltaAttention {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let DeltaArgs { num_heads: heads, head_dim: dim, short_conv_kernel_size: size, .. } = args.linear_attn_config;
        let (hidden, width) = (args.hidden_size, heads * dim);
        let mut input = |name: &str| -> std::result::Result<_, MlxError> {
            let linear = loader.linear(&format!("{at}.{name}_proj"), hidden, width, false)?;
            Ok((linear, loader.causal_conv(&format!("{at}.{name}_conv.conv"), [width, size], false)?))
        };
        let inputs = [input("q")?, input("k")?, input("v")?];
        let mut narrow = |name: &str| -> std::result::Result<_, MlxError> {
            let a = loader.linear(&format!("{at}.{name}_a_proj"), hidden, dim, false)?;
            Ok([a, loader.linear(&format!("{at}.{name}_b_proj"), dim, width, false)?])
        };
        let (fading, gate) = (narrow("f")?, narrow("g")?);
        Ok(Self {
            inputs,
            fading,
            gate,
            strength: loader.linear(&format!("{at}.b_proj"), hidden, heads, false)?,
            a_log: loader.numbers(&format!("{at}.A_log"), heads)?.reshape(&[heads, 1])?,
            dt_bias: loader.numbers(&format!("{at}.dt_bias"), width)?.reshape(&[heads, dim])?,
            norm: loader.rms_norm(&format!("{at}.o_norm"), dim, args.rms_norm_eps)?,
            out: loader.linear(&format!("{at}.o_proj"), width, hidden, false)?,
            heads,
            dim,
        })
    }

    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let (heads, dim) = (self.heads, self.dim);
        let narrow = |[a, b]: &[Linear; 2]| b.forward(&a.forward(x)?)?.reshape(&[-1, heads, dim]);
        let decay = log_decay(&self.a_log, &narrow(&self.fading)?, &self.dt_bias)?;
        let beta = nn::sigmoid(self.strength.forward(x)?)?;
        let [q, k, v] = [0, 1, 2].map(|i| self.inputs[i].0.forward(x));
        let read = step.recur(index, &[&q?, &k?, &v?, &decay, &beta], |parts, states| {
            let (rows, n) = (parts[0].dim(0), parts[0].dim(1));
            let mut tails = Vec::with_capacity(4);
            let mut convolved = |i: usize| {
                let (filtered, tail) = self.inputs[i].1.forward(&parts[i], &states[i])?;
                tails.push(tail);
                nn::silu(filtered)?.reshape(&[rows, n, heads, dim])
            };
            let (q, k, v) = (convolved(0)?, convolved(1)?, convolved(2)?);
            let [q, k] = unit_keys(&q, &k)?;
            let tokens = DeltaTokens { q: &q, k: &k, v: &v, log_decay: &parts[3], beta: &parts[4] };
            let (read, state) = gated_delta(&tokens, &states[3])?;
            tails.push(state);
            Ok((read, tails))
        })?;
        let gated = self.norm.forward(&read)?.multiply(nn::sigmoid(narrow(&self.gate)?)?)?;
        self.out.forward(&gated.reshape(&[-1, heads * dim])?)
    }
}

struct LatentAttention {
    q: Linear,
    kv_a: Linear,
    kv_norm: RmsNorm,
    latents: Latents,
    o: Linear,
    heads: i32,
    nope: i32,
}

impl LatentAttention {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, heads, rank) = (args.hidden_size, args.num_attention_heads, args.kv_lora_rank);
        let (nope, rotated, v) = (args.nope(), args.beside(), args.v_dim());
        let (embed_q, unembed_out) = latent_matrices(loader, at, [heads, nope, v, rank])?;
        let scale = ((nope + rotated) as f32).powf(-0.5);
        Ok(Self {
            q: loader.linear(&format!("{at}.q_proj"), hidden, heads * (nope + rotated), false)?,
            kv_a: loader.linear(&format!("{at}.kv_a_proj_with_mqa"), hidden, rank + rotated, false)?,
            kv_norm: loader.rms_norm(&format!("{at}.kv_a_layernorm"), rank, args.rms_norm_eps)?,
            latents: Latents { embed_q, unembed_out, rank, rotated, scale },
            o: loader.linear(&format!("{at}.o_proj"), heads * v, hidden, false)?,
            heads,
            nope,
        })
    }

    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let Latents { rank, rotated, .. } = self.latents;
        let q = self.q.forward(x)?.reshape(&[-1, self.heads, 1, self.nope + rotated])?;
        let [q_nope, q_beside] = split(&q, [self.nope, rotated])?;
        let [latent, k_beside] = split(&self.kv_a.forward(x)?, [rank, rotated])?;
        let latent = self.kv_norm.forward(&latent)?.reshape(&[-1, 1, 1, rank])?;
        let k_beside = k_beside.reshape(&[x.dim(0), 1, 1, rotated])?;
        self.o.forward(&self.latents.attend(index, [&q_nope, &q_beside], [&latent, &k_beside], step)?)
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

struct Sparse {
    router: Linear,
    kind: Router,
    /// `[experts]`: corrects the choice, not the weights.
    correction: Array,
    how: Grouped,
    experts: Experts,
    shared: Option<Mlp>,
}

impl Sparse {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, inner, experts) = (args.hidden_size, args.moe_intermediate_size, args.num_experts);
        let shared = Some(inner * args.num_shared_experts).filter(|width| *width > 0);
        let shared =
            shared.map(|width| Mlp::load(loader, &format!("{at}.shared_experts"), (hidden, width), Gate::Silu));
        let correction = loader.tensor(&format!("{at}.e_score_correction_bias"), &[experts])?;
        Ok(Self {
            router: loader.linear(&format!("{at}.gate"), hidden, experts, false)?,
            kind: args.moe_router_activation_func,
            correction: correction.as_dtype(Dtype::Float32)?,
            how: Grouped {
                k: args.num_experts_per_token,
                groups: args.num_expert_group,
                groups_used: args.topk_group,
                scale: args.routed_scaling_factor,
                normalise: args.moe_renormalize,
            },
            experts: Experts::load(loader, at, ExpertSizes { experts, hidden, inner }, Gate::Silu)?,
            shared: shared.transpose()?,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let logits = self.router.forward(x)?;
        let routes = match self.kind {
            Router::Sigmoid => Routes::sigmoid(&logits, &self.correction, &self.how)?,
            Router::Softmax => Routes::softmax_corrected(&logits, &self.correction, &self.how)?,
        };
        let said = routes.sum(&self.experts.forward(x, &routes.experts)?)?;
        match &self.shared {
            Some(shared) => said.add(shared.forward(x)?),
            None => Ok(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(change: Value) -> String {
        let mut config = json!({
            "vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 128, "head_dim": 32, "rms_norm_eps": 1e-6, "model_max_length": 512, "num_experts": 8,
            "moe_intermediate_size": 32, "kv_lora_rank": 32,
            "linear_attn_config": {"kda_layers": [1], "full_attn_layers": [2], "num_heads": 2, "head_dim": 32},
        });
        let fields = config.as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        let args = serde_json::from_value::<Args>(config).map_err(|error| MlxError::Config(error.to_string()));
        args.and_then(|args| args.check()).err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        assert_eq!(refusal(json!({"mla_use_nope": true, "use_grouped_topk": false})), "");
        let twice = json!({"kda_layers": [1, 2], "full_attn_layers": [2], "num_heads": 2, "head_dim": 32});
        for (change, word) in [
            (json!({"hidden_act": "gelu"}), "hidden_act"),
            (json!({"mla_use_nope": false}), "mla_use_nope"),
            (json!({"q_lora_rank": 16}), "q_lora_rank"),
            (json!({"use_grouped_topk": false, "num_expert_group": 2}), "use_grouped_topk"),
            (json!({"moe_router_activation_func": "tanh"}), "tanh"),
            (json!({"linear_attn_config": twice}), "layer 2"),
            (json!({"moe_layer_freq": 0}), "moe_layer_freq"),
        ] {
            let message = refusal(change);
            assert!(message.contains(word), "{word}: {message}");
        }
    }

    #[test]
    fn the_makers_names_become_mlx_lms() {
        for (theirs, ours) in [
            ("model.layers.1.block_sparse_moe.experts.7.w2.weight", "model.layers.1.mlp.experts.7.down_proj.weight"),
            ("model.layers.1.block_sparse_moe.gate.weight", "model.layers.1.mlp.gate.weight"),
            ("model.layers.0.self_attn.v_conv1d.weight", "model.layers.0.self_attn.v_conv.conv.weight"),
            ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight"),
        ] {
            assert_eq!(renamed(theirs), ours);
        }
    }
}
