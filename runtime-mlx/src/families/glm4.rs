//! `glm4` (GLM team 2025), the dense models: norms before and behind each half, half of each head rotated, neighbours in
//! pairs; must not know caches.

use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{Biases, DenseArgs, Frame, Gate, GroupedQuery, Mlp, Rope, Sandwich, Stack},
    loader::Loader,
};

/// Base of the rotary wavelengths, and share of each head that is rotated, where `config.json` is silent.
const THETA: f32 = 10_000.0;
const ROTATED: f32 = 0.5;

#[derive(Debug, Deserialize)]
struct Args {
    /// Whether pairs are neighbours, and not halves.
    #[serde(default = "yes")]
    rope_traditional: bool,
}

fn yes() -> bool {
    true
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let (dense, args) = (DenseArgs::read(config)?, config.args::<Args>()?);
    let (hidden, eps) = (dense.hidden_size, dense.rms_norm_eps);
    let frame =
        Frame { max_positions: dense.max_position_embeddings, ..Frame::new(hidden, dense.vocab_size, eps, false) };
    let cache = LayerCache::attention(dense.kv_heads(), dense.head_dim(), None);
    let caches = vec![cache; dense.num_hidden_layers];
    let biases = Biases { qkv: dense.attention_bias, o: false };
    let stack = Stack::load(loader, &frame, caches, |loader, _, prefix| {
        let mut attention = GroupedQuery::load(loader, &format!("{prefix}.self_attn"), dense.heads(), biases)?;
        let rope = Rope::new(&dense.rope, dense.rope.rotated(dense.head_dim(), ROTATED), THETA)?;
        attention.rope = Some(if args.rope_traditional { rope.of_neighbours() } else { rope });
        let mut norm = |name: &str| loader.rms_norm(&format!("{prefix}.{name}"), hidden, eps);
        let norms = [
            norm("input_layernorm")?,
            norm("post_self_attn_layernorm")?,
            norm("post_attention_layernorm")?,
            norm("post_mlp_layernorm")?,
        ];
        let mlp = format!("{prefix}.mlp");
        let mlp = Mlp::load_fused(loader, &mlp, (hidden, dense.intermediate_size), Gate::Silu)?;
        Ok(Sandwich { mixer: attention, mlp, norms })
    })?;
    Ok(Box::new(stack))
}
