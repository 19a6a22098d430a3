//! `mixtral` (Jiang et al. 2024): llama with experts in place of the feed-forward block; must not know caches.

use mlx_rs::{Array, ops, ops::indexing::take_along_axis};
use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{
        Biases, DenseArgs, ExpertSizes, Experts, FeedForward, Frame, Gate, GroupedQuery, Linear, PreNorm, Rope, Routes,
        Stack,
    },
    layers::{largest, positive},
    loader::Loader,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent. Origin: mlx-lm.
const THETA: f32 = 1_000_000.0;

/// Defaults are mlx-lm's.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Args {
    num_local_experts: i32,
    num_experts_per_tok: i32,
}

impl Default for Args {
    fn default() -> Self {
        Self { num_local_experts: 8, num_experts_per_tok: 2 }
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let (dense, args) = (DenseArgs::read(config)?, config.args::<Args>()?);
    positive(&[("num_local_experts", args.num_local_experts), ("num_experts_per_tok", args.num_experts_per_tok)])?;
    if args.num_experts_per_tok > args.num_local_experts {
        return Err(MlxError::Config("`num_experts_per_tok` is more than `num_local_experts`".into()));
    }
    let (hidden, eps) = (dense.hidden_size, dense.rms_norm_eps);
    let tied = dense.tie_word_embeddings.unwrap_or(false);
    if tied {
        loader.discard(|name| name == "lm_head.weight");
    }
    let frame =
        Frame { max_positions: dense.max_position_embeddings, ..Frame::new(hidden, dense.vocab_size, eps, tied) };
    // Old checkpoints name a window that their reference does not have.
    let cache = LayerCache::attention(dense.kv_heads(), dense.head_dim(), None);
    let stack = Stack::load(loader, &frame, vec![cache; dense.num_hidden_layers], |loader, _, prefix| {
        let at = format!("{prefix}.self_attn");
        let mut attention = GroupedQuery::load(loader, &at, dense.heads(), Biases::default())?;
        attention.rope = Some(Rope::new(&dense.rope, dense.head_dim(), THETA)?);
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: attention,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: Sparse::load(&args, &dense, loader, &format!("{prefix}.block_sparse_moe"))?,
        })
    })?;
    Ok(Box::new(stack))
}

struct Sparse {
    router: Linear,
    experts: Experts,
    k: i32,
}

impl Sparse {
    fn load(args: &Args, dense: &DenseArgs, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, experts) = (dense.hidden_size, args.num_local_experts);
        // The makers' names, and mlx-lm's.
        let name = |of: &str, single: &str| (format!("{at}.switch_mlp.{of}"), format!("{at}.experts.{{}}.{single}"));
        let names = [name("gate_proj", "w1"), name("up_proj", "w3"), name("down_proj", "w2")];
        let sizes = ExpertSizes { experts, hidden, inner: dense.intermediate_size };
        Ok(Self {
            router: loader.linear(&format!("{at}.gate"), hidden, experts, false)?,
            experts: Experts::load_named(loader, names, sizes, (Gate::Silu, false))?,
            k: args.num_experts_per_tok,
        })
    }
}

impl FeedForward for Sparse {
    fn forward(&self, x: &Array) -> Result<Array> {
        let logits = self.router.forward(x)?;
        let experts = largest(&logits, self.k)?;
        // Odds among the chosen ones only.
        let weights = ops::softmax_axis(take_along_axis(&logits, &experts, -1)?, -1, true)?;
        let routes = Routes { experts, weights };
        routes.sum(&self.experts.forward(x, &routes.experts)?)
    }
}
