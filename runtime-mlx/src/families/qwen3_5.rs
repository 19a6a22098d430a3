//! `qwen3_5` and `qwen3_5_moe` (Qwen team 2026), their language models: `qwen3_next` with other projections, and either all
//! layers with experts or none; must not know caches.

use serde_json::{Map, Value, json};

use super::qwen3_next::{Args, Variant, conv_of_makers, hybrid, set_predictor_aside};
use crate::{config::Config, error::MlxError, families::Model, layers::RopeArgs, loader::Loader};

/// Base of the rotary wavelengths where `config.json` is silent. Origin: mlx-lm.
const THETA: f32 = 100_000.0;

/// What holds where `config.json` is silent. Origin: mlx-lm.
fn defaults() -> Map<String, Value> {
    let fields = json!({
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
        "vocab_size": 151_936,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "linear_num_value_heads": 64,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 192,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "num_experts": 0,
        "num_experts_per_tok": 0,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 0,
        "moe_intermediate_size": 0,
        "norm_topk_prob": true,
    });
    fields.as_object().cloned().unwrap_or_default()
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let (mut args, rope) = config.text_args_over::<Args, RopeArgs>(&defaults())?;
    args.rope = rope;
    args.all_or_none_sparse()?;
    set_predictor_aside(loader);
    // The tower that sees images.
    loader.discard(|name| name.starts_with("vision_tower") || name.starts_with("model.visual"));
    loader.rename(|name| {
        let name = match name.strip_prefix("model.language_model") {
            Some(rest) => format!("language_model.model{rest}"),
            None if name.starts_with("language_model.") => name.to_owned(),
            None => format!("language_model.{name}"),
        };
        // Experts as their makers store them, all in one tensor that is called by no module's name.
        match name.strip_suffix(".experts.down_proj") {
            Some(at) => format!("{at}.switch_mlp.down_proj.weight"),
            None => name,
        }
    })?;
    let from_one = loader.any(conv_of_makers);
    let root = "language_model.model";
    for i in 0..args.num_hidden_layers {
        let at = format!("{root}.layers.{i}.mlp");
        let parts = ["gate_proj", "up_proj"].map(|name| format!("{at}.switch_mlp.{name}"));
        loader.cut_rows(&format!("{at}.experts.gate_up_proj"), &parts)?;
    }
    let variant = Variant { root, head: "language_model.lm_head", theta: THETA, apart: true, from_one };
    hybrid(&args, loader, &variant)
}
