//! `glm4_moe_lite` (Z.ai 2026): deepseek_v3 with other defaults, and one epsilon for all norms; must not know caches.

use serde_json::{Map, Value, json};

use super::deepseek_v3::{Args, latent};
use crate::{config::Config, error::MlxError, families::Model, loader::Loader};

/// Where `config.json` is silent. Origin: mlx-lm.
fn defaults() -> Map<String, Value> {
    let fields = json!({
        "n_shared_experts": 1,
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "routed_scaling_factor": 1.8,
        "first_k_dense_replace": 1,
        "q_lora_rank": 768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": 202_752,
    });
    fields.as_object().cloned().unwrap_or_default()
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let mut fields = defaults();
    fields.extend(config.args::<Map<String, Value>>()?);
    // The rotated part of each head is a part by itself, and rotated as a whole.
    if let Some(share) = fields.get("partial_rotary_factor").and_then(Value::as_f64).filter(|share| *share != 1.0) {
        return Err(MlxError::Config(format!("`partial_rotary_factor` is {share}; this family computes 1")));
    }
    let args = Args::read(fields)?;
    latent(&args, loader, args.rms_norm_eps)
}
