//! `glm4_moe` (GLM-4.5 team 2025): grouped-query attention that rotates a part of each head, with deepseek_v3's experts behind
//! a few dense layers; must not know caches.

use serde::Deserialize;

use super::deepseek_v3::{Sparse, SparseArgs, layer_of, sigmoid_only};
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{
        Biases, DenseArgs, ExpertSizes, FeedForward, Frame, Gate, Grouped, GroupedQuery, Mlp, PreNorm, Rope, Stack,
    },
    loader::Loader,
};

/// Base of the rotary wavelengths where `config.json` is silent. Origin: transformers.
const THETA: f32 = 10_000.0;

/// Share of each head that is rotated where `config.json` is silent. Origin: transformers.
const ROTATED: f32 = 0.5;

#[derive(Debug, Deserialize)]
struct Args {
    moe_intermediate_size: i32,
    norm_topk_prob: bool,
    n_group: i32,
    topk_group: i32,
    n_shared_experts: Option<i32>,
    n_routed_experts: Option<i32>,
    routed_scaling_factor: f32,
    num_experts_per_tok: i32,
    first_k_dense_replace: usize,
    use_qk_norm: bool,
    scoring_func: Option<String>,
    topk_method: Option<String>,
}

impl Args {
    /// The experts of a layer; `None`: it is dense.
    fn sparse(&self, layer: usize, hidden: i32) -> Option<SparseArgs> {
        let experts = self.n_routed_experts.filter(|_| layer >= self.first_k_dense_replace)?;
        Some(SparseArgs {
            sizes: ExpertSizes { experts, hidden, inner: self.moe_intermediate_size },
            shared: self.n_shared_experts.unwrap_or(0),
            how: Grouped {
                k: self.num_experts_per_tok,
                groups: self.n_group,
                groups_used: self.topk_group,
                scale: self.routed_scaling_factor,
                normalise: self.norm_topk_prob,
            },
        })
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let (dense, args) = (DenseArgs::read(config)?, config.args::<Args>()?);
    sigmoid_only(args.topk_method.as_deref(), args.scoring_func.as_deref())?;
    let (hidden, eps) = (dense.hidden_size, dense.rms_norm_eps);
    // Layers behind the last one predict further tokens, in a way that this engine does not use.
    loader.discard(|name| layer_of(name).is_some_and(|layer| layer >= dense.num_hidden_layers));
    // The reference has a head of its own whatever the flag says.
    let tied = dense.tie_word_embeddings.unwrap_or(false) && !loader.has("lm_head.weight");
    let frame =
        Frame { max_positions: dense.max_position_embeddings, ..Frame::new(hidden, dense.vocab_size, eps, tied) };
    let cache = LayerCache::attention(dense.kv_heads(), dense.head_dim(), None);
    let stack = Stack::load(loader, &frame, vec![cache; dense.num_hidden_layers], |loader, i, prefix| {
        let mlp = format!("{prefix}.mlp");
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: attention(&dense, args.use_qk_norm, loader, &format!("{prefix}.self_attn"))?,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: match args.sparse(i, hidden) {
                Some(sparse) => Box::new(Sparse::load(&sparse, loader, &mlp)?) as Box<dyn FeedForward>,
                None => Box::new(Mlp::load(loader, &mlp, (hidden, dense.intermediate_size), Gate::Silu)?),
            },
        })
    })?;
    Ok(Box::new(stack))
}

fn attention(args: &DenseArgs, norms: bool, loader: &mut Loader<'_>, at: &str) -> Result<GroupedQuery, MlxError> {
    let (dim, eps) = (args.head_dim(), args.rms_norm_eps);
    let biases = Biases { qkv: args.attention_bias, o: false };
    let mut attention = GroupedQuery::load(loader, at, args.heads(), biases)?;
    if norms {
        attention.q_norm = Some(loader.rms_norm(&format!("{at}.q_norm"), dim, eps)?);
        attention.k_norm = Some(loader.rms_norm(&format!("{at}.k_norm"), dim, eps)?);
    }
    attention.rope = Some(Rope::new(&args.rope, args.rope.rotated(dim, ROTATED), THETA)?);
    Ok(attention)
}
