//! `qwen3_moe` (Qwen team 2025): qwen3 with experts in place of the feed-forward block; must not know caches.

use mlx_rs::Array;
use serde::Deserialize;

use super::llama::{Variant, attention};
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::positive,
    layers::{Biases, DenseArgs, ExpertSizes, Experts, FeedForward, Frame, Gate, Linear, Mlp, PreNorm, Routes, Stack},
    loader::Loader,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 1_000_000.0;

#[derive(Debug, Deserialize)]
struct Args {
    num_experts: i32,
    num_experts_per_tok: i32,
    moe_intermediate_size: i32,
    decoder_sparse_step: usize,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    norm_topk_prob: bool,
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let (dense, args) = (DenseArgs::read(config)?, config.args::<Args>()?);
    positive(&[
        ("num_experts", args.num_experts),
        ("num_experts_per_tok", args.num_experts_per_tok),
        ("moe_intermediate_size", args.moe_intermediate_size),
        ("decoder_sparse_step", i32::try_from(args.decoder_sparse_step).unwrap_or(0)),
    ])?;
    let biases = Biases { qkv: dense.attention_bias, o: dense.attention_bias };
    let variant = Variant { biases, head_norms: true, theta: THETA, tied: false };
    let (hidden, eps) = (dense.hidden_size, dense.rms_norm_eps);
    let tied = dense.tie_word_embeddings.unwrap_or(false);
    let frame =
        Frame { max_positions: dense.max_position_embeddings, ..Frame::new(hidden, dense.vocab_size, eps, tied) };
    let cache = |layer| LayerCache::attention(dense.kv_heads(), dense.head_dim(), dense.window(layer));
    let caches = (0..dense.num_hidden_layers).map(cache).collect();
    let stack = Stack::load(loader, &frame, caches, |loader, i, prefix| {
        let sparse = !args.mlp_only_layers.contains(&i) && (i + 1).is_multiple_of(args.decoder_sparse_step);
        let mlp = format!("{prefix}.mlp");
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: attention(&dense, loader, &format!("{prefix}.self_attn"), &variant)?,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: match sparse {
                true => Box::new(Sparse::load(&args, hidden, loader, &mlp)?) as Box<dyn FeedForward>,
                false => Box::new(Mlp::load(loader, &mlp, (hidden, dense.intermediate_size), Gate::Silu)?),
            },
        })
    })?;
    Ok(Box::new(stack))
}

struct Sparse {
    router: Linear,
    experts: Experts,
    k: i32,
    normalise: bool,
}

impl Sparse {
    fn load(args: &Args, hidden: i32, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError> {
        let sizes = ExpertSizes { experts: args.num_experts, hidden, inner: args.moe_intermediate_size };
        Ok(Self {
            router: loader.linear(&format!("{prefix}.gate"), hidden, args.num_experts, false)?,
            experts: Experts::load(loader, prefix, sizes, Gate::Silu)?,
            k: args.num_experts_per_tok,
            normalise: args.norm_topk_prob,
        })
    }
}

impl FeedForward for Sparse {
    fn forward(&self, x: &Array) -> Result<Array> {
        let routes = Routes::softmax(&self.router.forward(x)?, self.k, self.normalise)?;
        routes.sum(&self.experts.forward(x, &routes.experts)?)
    }
}
