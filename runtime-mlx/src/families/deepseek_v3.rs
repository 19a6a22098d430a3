//! `deepseek_v3` (DeepSeek 2024) and its equals such as `kimi_k2`: latent attention, experts chosen within groups, experts
//! shared by all tokens; must not know caches.

use mlx_rs::{Array, Dtype};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{ExpertSizes, Experts, FeedForward, Frame, Gate, Grouped, Latents, Linear, Matrix, Mixer, Mlp, PreNorm},
    layers::{RmsNorm, Rope, RopeArgs, Routes, Stack, layers, positive, split, yarn_temperature},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

/// Of the norms inside latent attention; no checkpoint of this family says otherwise. Origin: mlx-lm.
const LATENT_EPS: f32 = 1e-6;

#[derive(Debug, Deserialize)]
pub(super) struct Args {
    vocab_size: i32,
    hidden_size: i32,
    intermediate_size: i32,
    moe_intermediate_size: i32,
    num_hidden_layers: usize,
    num_attention_heads: i32,
    n_shared_experts: Option<i32>,
    n_routed_experts: Option<i32>,
    #[serde(default = "one")]
    routed_scaling_factor: f32,
    kv_lora_rank: i32,
    q_lora_rank: Option<i32>,
    qk_rope_head_dim: i32,
    v_head_dim: i32,
    qk_nope_head_dim: i32,
    topk_method: Option<String>,
    scoring_func: Option<String>,
    #[serde(default = "yes")]
    norm_topk_prob: bool,
    n_group: Option<i32>,
    topk_group: Option<i32>,
    num_experts_per_tok: Option<i32>,
    moe_layer_freq: Option<usize>,
    #[serde(default)]
    first_k_dense_replace: usize,
    max_position_embeddings: Option<u32>,
    pub(super) rms_norm_eps: f32,
    #[serde(default)]
    attention_bias: bool,
    #[serde(skip)]
    rope: RopeArgs,
}

fn one() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

impl Args {
    /// From the fields of a `config.json`.
    pub(super) fn read(fields: Map<String, Value>) -> std::result::Result<Self, MlxError> {
        let bad = |e: serde_json::Error| MlxError::Config(e.to_string());
        let fields = Value::Object(fields);
        let rope = serde_json::from_value(fields.clone()).map_err(bad)?;
        let args = Self { rope, ..serde_json::from_value(fields).map_err(bad)? };
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> std::result::Result<(), MlxError> {
        sigmoid_only(self.topk_method.as_deref(), self.scoring_func.as_deref())?;
        layers(self.num_hidden_layers)?;
        positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ])
    }

    /// The experts of a layer; `None`: it is dense.
    fn sparse(&self, layer: usize) -> Option<SparseArgs> {
        let sparse =
            layer >= self.first_k_dense_replace && layer.is_multiple_of(self.moe_layer_freq.unwrap_or(1).max(1));
        let experts = self.n_routed_experts.filter(|_| sparse)?;
        Some(SparseArgs {
            sizes: ExpertSizes { experts, hidden: self.hidden_size, inner: self.moe_intermediate_size },
            shared: self.n_shared_experts.unwrap_or(0),
            how: Grouped {
                k: self.num_experts_per_tok.unwrap_or(1),
                groups: self.n_group.unwrap_or(1),
                groups_used: self.topk_group.unwrap_or(1),
                scale: self.routed_scaling_factor,
                normalise: self.norm_topk_prob,
            },
        })
    }

    /// Of the scores: YaRN's temperature is part of it.
    fn scale(&self) -> f32 {
        let number = |key: &str| self.rope.scaling().and_then(|s| s.get(key)).and_then(Value::as_f64).unwrap_or(0.0);
        let stretch = match number("mscale_all_dim") as f32 {
            0.0 => 1.0,
            all => yarn_temperature(number("factor") as f32, all),
        };
        ((self.qk_nope_head_dim + self.qk_rope_head_dim) as f32).powf(-0.5) * stretch * stretch
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    latent(&Args::read(config.args()?)?, loader, LATENT_EPS)
}

/// A model with latent attention and grouped experts; `latent_eps` is that of the norms inside its attention.
pub(super) fn latent(
    args: &Args,
    loader: &mut Loader<'_>,
    latent_eps: f32,
) -> std::result::Result<Box<dyn Model>, MlxError> {
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    // Layers behind the last one predict further tokens, in a way that this engine does not use.
    loader.discard(|name| layer_of(name).is_some_and(|layer| layer >= args.num_hidden_layers));
    let frame =
        Frame { max_positions: args.max_position_embeddings, ..Frame::new(hidden, args.vocab_size, eps, false) };
    let cache = LayerCache::Latent { dim: args.kv_lora_rank + args.qk_rope_head_dim };
    let stack = Stack::load(loader, &frame, vec![cache; args.num_hidden_layers], |loader, i, prefix| {
        let mlp = format!("{prefix}.mlp");
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: LatentAttention::load(args, loader, &format!("{prefix}.self_attn"), latent_eps)?,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: match args.sparse(i) {
                Some(sparse) => Box::new(Sparse::load(&sparse, loader, &mlp)?) as Box<dyn FeedForward>,
                None => Box::new(Mlp::load(loader, &mlp, (hidden, args.intermediate_size), Gate::Silu)?),
            },
        })
    })?;
    Ok(Box::new(stack))
}

/// The number in `model.layers.N.…`.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// Where queries come from.
enum Queries {
    Direct(Linear),
    /// Through a narrow layer.
    Low {
        a: Linear,
        norm: RmsNorm,
        b: Linear,
    },
}

struct LatentAttention {
    queries: Queries,
    kv_a: Linear,
    kv_norm: RmsNorm,
    latents: Latents,
    o: Linear,
    rope: Rope,
    heads: i32,
    nope: i32,
}

impl LatentAttention {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str, eps: f32) -> std::result::Result<Self, MlxError> {
        let (hidden, heads, bias) = (args.hidden_size, args.num_attention_heads, args.attention_bias);
        let (rank, nope, rotated, v) =
            (args.kv_lora_rank, args.qk_nope_head_dim, args.qk_rope_head_dim, args.v_head_dim);
        let width = heads * (nope + rotated);
        let queries = match args.q_lora_rank {
            None => Queries::Direct(loader.linear(&format!("{at}.q_proj"), hidden, width, false)?),
            Some(low) => Queries::Low {
                a: loader.linear(&format!("{at}.q_a_proj"), hidden, low, bias)?,
                norm: loader.rms_norm(&format!("{at}.q_a_layernorm"), low, eps)?,
                b: loader.linear(&format!("{at}.q_b_proj"), low, width, false)?,
            },
        };
        let rope = Rope::new(&args.rope, rotated, THETA)?.of_neighbours();
        let (embed_q, unembed_out) = latent_matrices(loader, at, [heads, nope, v, rank])?;
        Ok(Self {
            queries,
            kv_a: loader.linear(&format!("{at}.kv_a_proj_with_mqa"), hidden, rank + rotated, bias)?,
            kv_norm: loader.rms_norm(&format!("{at}.kv_a_layernorm"), rank, eps)?,
            latents: Latents { embed_q, unembed_out, rank, rotated, scale: args.scale() },
            o: loader.linear(&format!("{at}.o_proj"), heads * v, hidden, bias)?,
            rope,
            heads,
            nope,
        })
    }
}

/// `embed_q` `[heads, rank, nope]` and `unembed_out` `[heads, v, rank]`, or cut out of their older form `kv_b_proj`
/// `[heads · (nope + v), rank]`.
pub(super) fn latent_matrices(
    loader: &mut Loader<'_>,
    at: &str,
    [heads, nope, v, rank]: [i32; 4],
) -> std::result::Result<(Matrix, Matrix), MlxError> {
    let whole = format!("{at}.kv_b_proj");
    if !loader.has(&format!("{whole}.weight")) {
        let embed_q = loader.matrix(&format!("{at}.embed_q"), &[heads, rank, nope])?;
        return Ok((embed_q, loader.matrix(&format!("{at}.unembed_out"), &[heads, v, rank])?));
    }
    let both = loader.dense(&whole, &[heads * (nope + v), rank])?.reshape(&[heads, nope + v, rank])?;
    let [k, v] = split(&both.swap_axes(-1, -2)?, [nope, v])?;
    Ok((Matrix::dense(k.contiguous()?)?, Matrix::dense(v.swap_axes(-1, -2)?.contiguous()?)?))
}

impl Mixer for LatentAttention {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let Latents { rank, rotated, .. } = self.latents;
        let q = match &self.queries {
            Queries::Direct(q) => q.forward(x)?,
            Queries::Low { a, norm, b } => b.forward(&norm.forward(&a.forward(x)?)?)?,
        };
        let q = q.reshape(&[-1, self.heads, 1, self.nope + rotated])?;
        let [q_nope, q_rope] = split(&q, [self.nope, rotated])?;
        let [latent, k_rope] = split(&self.kv_a.forward(x)?, [rank, rotated])?;
        let latent = self.kv_norm.forward(&latent)?.reshape(&[-1, 1, 1, rank])?;
        let q_rope = self.rope.forward(&q_rope, step.positions())?;
        let k_rope = self.rope.forward(&k_rope.reshape(&[-1, 1, 1, rotated])?, step.positions())?;
        self.o.forward(&self.latents.attend(index, [&q_nope, &q_rope], [&latent, &k_rope], step)?)
    }
}

/// What a family's arguments say of a layer's experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SparseArgs {
    pub(super) sizes: ExpertSizes,
    /// Experts to which all tokens go, computed as one.
    pub(super) shared: i32,
    pub(super) how: Grouped,
}

impl SparseArgs {
    fn check(&self) -> std::result::Result<(), MlxError> {
        let Grouped { k, groups, groups_used, .. } = self.how;
        let experts = self.sizes.experts;
        positive(&[
            ("n_routed_experts", experts),
            ("moe_intermediate_size", self.sizes.inner),
            ("num_experts_per_tok", k),
            ("n_group", groups),
            ("topk_group", groups_used),
        ])?;
        let said = |what: &str| Err(MlxError::Config(what.to_owned()));
        let group = experts / groups;
        match groups {
            _ if experts % groups != 0 => said("`n_routed_experts` is no multiple of `n_group`"),
            2.. if groups_used > groups => said("`topk_group` is more than `n_group`"),
            2.. if group < 2 => said("`n_group` leaves a group fewer than two of `n_routed_experts`"),
            2.. if k > group * groups_used => said("`num_experts_per_tok` is more than `topk_group` groups have"),
            _ if k > experts => said("`num_experts_per_tok` is more than `n_routed_experts`"),
            _ => Ok(()),
        }
    }
}

/// Refuses other ways of choosing experts, by name.
pub(super) fn sigmoid_only(topk_method: Option<&str>, scoring_func: Option<&str>) -> std::result::Result<(), MlxError> {
    for (name, said, known) in [("topk_method", topk_method, "noaux_tc"), ("scoring_func", scoring_func, "sigmoid")] {
        if let Some(said) = said.filter(|said| *said != known) {
            return Err(MlxError::Config(format!("`{name}` is `{said}`; this family computes `{known}`")));
        }
    }
    Ok(())
}

/// Experts chosen within groups, and one that all tokens share.
pub(super) struct Sparse {
    router: Linear,
    /// `[experts]`: corrects the choice, not the weights.
    correction: Array,
    how: Grouped,
    experts: Experts,
    shared: Option<Mlp>,
}

impl Sparse {
    pub(super) fn load(args: &SparseArgs, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        args.check()?;
        let ExpertSizes { experts, hidden, inner } = args.sizes;
        let shared = Some(args.shared).filter(|n| *n > 0);
        let shared =
            shared.map(|n| Mlp::load(loader, &format!("{at}.shared_experts"), (hidden, inner * n), Gate::Silu));
        let correction = loader.tensor(&format!("{at}.gate.e_score_correction_bias"), &[experts])?;
        Ok(Self {
            router: loader.linear(&format!("{at}.gate"), hidden, experts, false)?,
            correction: correction.as_dtype(Dtype::Float32)?,
            how: args.how,
            experts: Experts::load(loader, at, args.sizes, Gate::Silu)?,
            shared: shared.transpose()?,
        })
    }
}

impl FeedForward for Sparse {
    fn forward(&self, x: &Array) -> Result<Array> {
        let routes = Routes::sigmoid(&self.router.forward(x)?, &self.correction, &self.how)?;
        let said = routes.sum(&self.experts.forward(x, &routes.experts)?)?;
        match &self.shared {
            Some(shared) => said.add(shared.forward(x)?),
            None => Ok(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_that_cannot_be_chosen_so_are_refused_by_name() {
        let how = Grouped { k: 3, groups: 4, groups_used: 2, scale: 1.0, normalise: true };
        let check =
            |experts, how| SparseArgs { sizes: ExpertSizes { experts, hidden: 8, inner: 8 }, shared: 0, how }.check();
        check(8, how).unwrap();
        for (experts, how, name) in [
            (0, how, "n_routed_experts"),
            (9, how, "n_group"),
            (4, how, "n_group"),
            (8, Grouped { groups: 0, ..how }, "n_group"),
            (8, Grouped { groups_used: 5, ..how }, "topk_group"),
            (8, Grouped { k: 5, ..how }, "num_experts_per_tok"),
            (8, Grouped { k: 9, groups: 1, groups_used: 1, ..how }, "num_experts_per_tok"),
        ] {
            let message = check(experts, how).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn layers_are_told_by_their_number() {
        assert_eq!(layer_of("model.layers.12.mlp.gate.weight"), Some(12));
        assert_eq!(layer_of("model.norm.weight"), None);
    }
}
