//! `llama` (Touvron et al. 2023; Llama 3's rotary scaling) and its equals such as `mistral`; must not know caches.

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{Biases, DenseArgs, Frame, Gate, GroupedQuery, Mixer, Mlp, PreNorm, Rope, Stack},
    loader::Loader,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let args = DenseArgs::read(config)?;
    let bias = args.attention_bias;
    let variant = Variant { biases: Biases { qkv: bias, o: bias }, head_norms: false, theta: THETA, tied: true };
    dense(&args, loader, &variant)
}

/// What tells llama's descendants apart.
pub(super) struct Variant {
    pub(super) biases: Biases,
    /// Norms on each head's queries and keys.
    pub(super) head_norms: bool,
    /// Base of the rotary wavelengths where `config.json` is silent.
    pub(super) theta: f32,
    /// Whether the embeddings are the head where `config.json` is silent.
    pub(super) tied: bool,
}

/// A llama-like model.
pub(super) fn dense(args: &DenseArgs, loader: &mut Loader<'_>, variant: &Variant) -> Result<Box<dyn Model>, MlxError> {
    let tied = args.tie_word_embeddings.unwrap_or(variant.tied);
    let frame = Frame {
        max_positions: args.max_position_embeddings,
        ..Frame::new(args.hidden_size, args.vocab_size, args.rms_norm_eps, tied)
    };
    dense_in(args, loader, variant, &frame, |_, attention| attention)
}

/// The same in a frame of the family's own, which makes of each layer's attention what it wants.
pub(super) fn dense_in<M: Mixer + 'static>(
    args: &DenseArgs,
    loader: &mut Loader<'_>,
    variant: &Variant,
    frame: &Frame<'_>,
    mixer: impl Fn(usize, GroupedQuery) -> M,
) -> Result<Box<dyn Model>, MlxError> {
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    if frame.head.is_none() {
        // Some checkpoints hold the embeddings twice.
        loader.discard(|name| matches!(name, "lm_head.weight" | "language_model.lm_head.weight"));
    }
    let cache = |layer| LayerCache::attention(args.kv_heads(), args.head_dim(), args.window(layer));
    let caches = (0..args.num_hidden_layers).map(cache).collect();
    let stack = Stack::load(loader, frame, caches, |loader, i, prefix| {
        let names = ["gate_proj", "up_proj", "down_proj"].map(|name| format!("{prefix}.mlp.{name}"));
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: mixer(i, attention(args, loader, &format!("{prefix}.self_attn"), variant)?),
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: Mlp::load_named(loader, &names, (hidden, args.intermediate_size), (Gate::Silu, args.mlp_bias))?,
        })
    })?;
    Ok(Box::new(stack))
}

/// Grouped-query attention with rotary positions.
pub(super) fn attention(
    args: &DenseArgs,
    loader: &mut Loader<'_>,
    prefix: &str,
    variant: &Variant,
) -> Result<GroupedQuery, MlxError> {
    let (dim, eps) = (args.head_dim(), args.rms_norm_eps);
    let mut attention = GroupedQuery::load(loader, prefix, args.heads(), variant.biases)?;
    if variant.head_norms {
        attention.q_norm = Some(loader.rms_norm(&format!("{prefix}.q_norm"), dim, eps)?);
        attention.k_norm = Some(loader.rms_norm(&format!("{prefix}.k_norm"), dim, eps)?);
    }
    attention.rope = Some(Rope::new(&args.rope, dim, variant.theta)?);
    Ok(attention)
}
