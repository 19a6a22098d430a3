//! `smollm3` (Hugging Face 2025): llama, some of whose layers know no positions; must not know caches.

use serde::Deserialize;

use super::llama::{Variant, dense_in};
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    layers::{Biases, DenseArgs, Frame, positive},
    loader::Loader,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

#[derive(Debug, Deserialize)]
struct Args {
    #[serde(default = "four")]
    no_rope_layer_interval: usize,
    /// For each layer, whether it has positions (the name says the opposite).
    no_rope_layers: Option<Vec<i32>>,
}

fn four() -> usize {
    4
}

impl Args {
    fn check(&self, layers: usize) -> Result<(), MlxError> {
        if let Some(listed) = self.no_rope_layers.as_ref().map(Vec::len).filter(|listed| *listed != layers) {
            let message = format!("`no_rope_layers` has {listed} entries, and there are {layers} layers");
            return Err(MlxError::Config(message));
        }
        positive(&[("no_rope_layer_interval", i32::try_from(self.no_rope_layer_interval).unwrap_or(0))])
    }

    fn has_positions(&self, layer: usize) -> bool {
        match &self.no_rope_layers {
            Some(listed) => listed.get(layer).is_some_and(|has| *has != 0),
            None => !(layer + 1).is_multiple_of(self.no_rope_layer_interval),
        }
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let (dense, args) = (DenseArgs::read(config)?, config.args::<Args>()?);
    args.check(dense.num_hidden_layers)?;
    let biases = Biases { qkv: dense.attention_bias, o: dense.attention_bias };
    let variant = Variant { biases, head_norms: false, theta: THETA, tied: true };
    let frame = Frame {
        max_positions: dense.max_position_embeddings,
        ..Frame::new(
            dense.hidden_size,
            dense.vocab_size,
            dense.rms_norm_eps,
            dense.tie_word_embeddings.unwrap_or(variant.tied),
        )
    };
    dense_in(&dense, loader, &variant, &frame, |i, mut attention| {
        attention.rope = attention.rope.filter(|_| args.has_positions(i));
        attention
    })
}
