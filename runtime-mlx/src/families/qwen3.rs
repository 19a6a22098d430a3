//! `qwen3` (Qwen team 2025): llama with norms on each head's queries and keys; must not know caches.

use super::llama::{Variant, dense};
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    layers::{Biases, DenseArgs},
    loader::Loader,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 1_000_000.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let args = DenseArgs::read(config)?;
    let biases = Biases { qkv: args.attention_bias, o: args.attention_bias };
    let variant = Variant { biases, head_norms: true, theta: THETA, tied: false };
    dense(&args, loader, &variant)
}
