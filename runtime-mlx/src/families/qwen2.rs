//! `qwen2` (Qwen team 2024): llama with biases on queries, keys and values; must not know caches.

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
    let biases = Biases { qkv: true, o: false };
    let variant = Variant { biases, head_norms: false, theta: THETA, tied: true };
    dense(&DenseArgs::read(config)?, loader, &variant)
}
