//! `qwen2` (Qwen team 2024): llama's attention with biases on queries, keys and values; must not know caches.

use mlx_rs::Array;

use super::llama::{LlamaAttention, Variant};
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    layers::{Attention, DenseArgs, Stack},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 1_000_000.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let args: DenseArgs = config.args()?;
    Ok(Box::new(Stack::<Qwen2Attention>::load(&args, loader, true)?))
}

struct Qwen2Attention(LlamaAttention);

impl Attention for Qwen2Attention {
    fn load(args: &DenseArgs, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError> {
        let variant = Variant { qkv_bias: true, o_bias: false, theta: THETA };
        Ok(Self(LlamaAttention::read(args, loader, prefix, &variant)?))
    }

    fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array> {
        self.0.forward(x, layer, step)
    }
}
