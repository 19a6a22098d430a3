//! `mistral3` (Mistral AI 2025), what lies in it beside its eyes: a llama, or `ministral3`, whose queries grow with their
//! position; must not know caches.

use mlx_rs::{Array, Dtype, ops};
use serde::Deserialize;
use serde_json::Value;

use super::llama::{Variant, dense_in};
use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    layers::{Biases, DenseArgs, Frame, GroupedQuery, Heads, Mixer, place},
    loader::Loader,
    step::{Attend, Step},
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

#[derive(Debug, Default, Deserialize)]
struct Args {
    text_config: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
struct Text {
    model_type: Option<String>,
    tie_word_embeddings: Option<bool>,
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let dense = DenseArgs::read(config)?;
    // The embeddings of a model inside another are its head only if that is said there.
    let (kind, tied) = match config.args::<Args>()?.text_config {
        Some(text) => (text.model_type, text.tie_word_embeddings.unwrap_or(false)),
        None => (Some(config.model_type.clone()), dense.tie_word_embeddings.unwrap_or(true)),
    };
    loader.discard(|name| name.contains("vision_tower") || name.contains("multi_modal_projector"));
    let (root, head) = place(loader);
    let frame = Frame {
        root,
        head: (!tied).then_some(head),
        max_positions: dense.max_position_embeddings,
        ..Frame::new(dense.hidden_size, dense.vocab_size, dense.rms_norm_eps, tied)
    };
    let variant = |bias| Variant { biases: Biases { qkv: bias, o: bias }, head_norms: false, theta: THETA, tied };
    match kind.as_deref() {
        Some("ministral3") => {
            let growth = Growth::read(&dense)?;
            dense_in(&dense, loader, &variant(false), &frame, |_, attention| Growing { attention, growth })
        }
        None | Some("mistral" | "llama") => {
            dense_in(&dense, loader, &variant(dense.attention_bias), &frame, |_, attention| attention)
        }
        Some(other) => Err(MlxError::Config(format!(
            "the language model's `model_type` is `{other}`; this family computes llama, mistral and ministral3"
        ))),
    }
}

/// Queries at position p are multiplied by `1 + beta · ln(1 + ⌊p / trained⌋)`.
#[derive(Clone, Copy, Debug)]
struct Growth {
    beta: f32,
    trained: i32,
}

impl Growth {
    fn read(args: &DenseArgs) -> std::result::Result<Self, MlxError> {
        let number = |key: &str| {
            let said = args.rope.scaling().and_then(|fields| fields.get(key)).and_then(Value::as_f64);
            said.filter(|n| n.is_finite() && *n >= 0.0)
                .ok_or_else(|| MlxError::Config(format!("`rope_parameters.{key}` is missing or not a positive number")))
        };
        let (beta, trained) = ("llama_4_scaling_beta", "original_max_position_embeddings");
        Ok(Self { beta: number(beta)? as f32, trained: (number(trained)? as i32).max(1) })
    }

    /// For each position, `[tokens]`.
    fn at(self, positions: &Array, dtype: Dtype) -> Result<Array> {
        let spans = ops::floor_divide(positions, Array::from_int(self.trained))?.as_dtype(Dtype::Float32)?;
        let grown = ops::log1p(spans)?.multiply(Array::from_f32(self.beta))?.add(Array::from_f32(1.0))?;
        grown.as_dtype(dtype)
    }
}

struct Growing {
    attention: GroupedQuery,
    growth: Growth,
}

impl Mixer for Growing {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let GroupedQuery { q, k, v, o, rope, scale, sizes: Heads { heads, kv_heads, dim, .. }, .. } = &self.attention;
        let turn = |x: Array, step: &Step<'_>| {
            rope.as_ref().map_or_else(|| Ok(x.clone()), |rope| rope.forward(&x, step.positions()))
        };
        let q = turn(q.forward(x)?.reshape(&[-1, *heads, 1, *dim])?, step)?;
        let k = turn(k.forward(x)?.reshape(&[-1, *kv_heads, 1, *dim])?, step)?;
        let v = v.forward(x)?.reshape(&[-1, *kv_heads, 1, *dim])?;
        let q = q.multiply(self.growth.at(step.positions(), q.dtype())?.reshape(&[-1, 1, 1, 1])?)?;
        o.forward(&step.attend(index, [&q, &k, &v], &Attend::scaled(*scale))?)
    }
}
