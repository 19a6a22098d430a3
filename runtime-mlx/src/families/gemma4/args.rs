//! What a `gemma4` checkpoint's `config.json` says, checked; must not know tensors.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::Config,
    error::MlxError,
    kv::LayerCache,
    layers::{Heads, Rope, RopeArgs},
    layers::{capping, grouped, layers, only, positive},
};

/// Base of the rotary wavelengths where a kind of layer is not spoken of.
const THETA: f32 = 10_000.0;

/// Defaults are those of the smallest model, as in mlx-lm.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Args {
    pub(super) hidden_size: i32,
    pub(super) num_hidden_layers: usize,
    pub(super) intermediate_size: i32,
    num_attention_heads: i32,
    head_dim: i32,
    global_head_dim: Option<i32>,
    pub(super) rms_norm_eps: f32,
    pub(super) vocab_size: i32,
    vocab_size_per_layer_input: Option<i32>,
    num_key_value_heads: i32,
    num_global_key_value_heads: Option<i32>,
    num_kv_shared_layers: usize,
    hidden_size_per_layer_input: Option<i32>,
    sliding_window: i32,
    sliding_window_pattern: usize,
    pub(super) max_position_embeddings: u32,
    attention_k_eq_v: bool,
    pub(super) final_logit_softcapping: Option<f32>,
    use_double_wide_mlp: bool,
    pub(super) enable_moe_block: bool,
    pub(super) num_experts: Option<i32>,
    pub(super) top_k_experts: Option<i32>,
    pub(super) moe_intermediate_size: Option<i32>,
    layer_types: Option<Vec<String>>,
    pub(super) tie_word_embeddings: bool,
    hidden_activation: Option<String>,
    use_bidirectional_attention: Option<Value>,
    #[serde(skip)]
    rope: RopeArgs,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            hidden_size: 1536,
            num_hidden_layers: 35,
            intermediate_size: 6144,
            num_attention_heads: 8,
            head_dim: 256,
            global_head_dim: Some(512),
            rms_norm_eps: 1e-6,
            vocab_size: 262_144,
            vocab_size_per_layer_input: Some(262_144),
            num_key_value_heads: 1,
            num_global_key_value_heads: None,
            num_kv_shared_layers: 20,
            hidden_size_per_layer_input: Some(256),
            sliding_window: 512,
            sliding_window_pattern: 5,
            max_position_embeddings: 131_072,
            attention_k_eq_v: false,
            final_logit_softcapping: Some(30.0),
            use_double_wide_mlp: true,
            enable_moe_block: false,
            num_experts: None,
            top_k_experts: None,
            moe_intermediate_size: None,
            layer_types: None,
            tie_word_embeddings: true,
            hidden_activation: None,
            use_bidirectional_attention: None,
            rope: RopeArgs::default(),
        }
    }
}

impl Args {
    pub(super) fn read(config: &Config) -> Result<Self, MlxError> {
        let (args, rope): (Self, RopeArgs) = config.text_args()?;
        let args = Self { rope, ..args };
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<(), MlxError> {
        only("hidden_activation", self.hidden_activation.as_deref(), "gelu_pytorch_tanh")?;
        match &self.use_bidirectional_attention {
            // Among the tokens of an image; a text has none.
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::String(of)) if of == "vision" => {}
            Some(other) => {
                let message =
                    format!("`use_bidirectional_attention` is {other}; tokens of a text see those before them");
                return Err(MlxError::Config(message));
            }
        }
        capping(&[("final_logit_softcapping", self.final_logit_softcapping)])?;
        let experts = |n: Option<i32>| if self.enable_moe_block { n.unwrap_or(0) } else { 1 };
        positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("head_dim", self.head_dim),
            ("global_head_dim", self.global_head_dim.filter(|dim| *dim != 0).unwrap_or(self.head_dim)),
            ("vocab_size", self.vocab_size),
            ("sliding_window", self.sliding_window),
            ("sliding_window_pattern", i32::try_from(self.sliding_window_pattern).unwrap_or(0)),
            ("num_experts", experts(self.num_experts)),
            ("top_k_experts", experts(self.top_k_experts)),
            ("moe_intermediate_size", experts(self.moe_intermediate_size)),
        ])?;
        layers(self.num_hidden_layers)?;
        if self.own_input().is_some_and(|(vocabulary, _)| vocabulary < self.vocab_size) {
            return Err(MlxError::Config("`vocab_size_per_layer_input` is less than `vocab_size`".into()));
        }
        for layer in 0..self.num_hidden_layers {
            let kind = self.kind(layer);
            if !matches!(kind, "full_attention" | "sliding_attention") {
                return Err(MlxError::Config(format!(
                    "`layer_types` says `{kind}` of layer {layer}; this family computes full_attention and sliding_attention"
                )));
            }
            grouped(self.num_attention_heads, self.heads(layer).kv_heads)?;
            if layer >= self.own() && self.lender(layer).is_none() {
                return Err(MlxError::Config(format!(
                    "`num_kv_shared_layers` is {}, and no layer before these is of layer {layer}'s kind",
                    self.num_kv_shared_layers
                )));
            }
        }
        Ok(())
    }

    /// Vocabulary and size of what each token brings for each layer; `None`: nothing.
    pub(super) fn own_input(&self) -> Option<(i32, i32)> {
        let dim = self.hidden_size_per_layer_input.filter(|dim| *dim > 0)?;
        Some((self.vocab_size_per_layer_input.unwrap_or(0), dim))
    }

    /// Layers with keys and values of their own, which are the first.
    fn own(&self) -> usize {
        self.num_hidden_layers.saturating_sub(self.num_kv_shared_layers)
    }

    fn kind(&self, layer: usize) -> &str {
        match &self.layer_types {
            Some(kinds) => kinds.get(layer).map_or("", String::as_str),
            None if (layer + 1).is_multiple_of(self.sliding_window_pattern) => "full_attention",
            None => "sliding_attention",
        }
    }

    fn sees_all(&self, layer: usize) -> bool {
        self.kind(layer) == "full_attention"
    }

    /// The layer to whose keys and values this one attends; `None`: to its own.
    pub(super) fn lender(&self, layer: usize) -> Option<usize> {
        let own = self.own();
        (layer >= own).then(|| (0..own).rev().find(|lender| self.kind(*lender) == self.kind(layer))).flatten()
    }

    /// Whether a layer's keys are its values too.
    pub(super) fn keys_are_values(&self, layer: usize) -> bool {
        self.attention_k_eq_v && self.sees_all(layer)
    }

    pub(super) fn heads(&self, layer: usize) -> Heads {
        let global = self.global_head_dim.filter(|dim| *dim != 0 && self.sees_all(layer));
        let kv_heads = self.num_global_key_value_heads.filter(|_| self.keys_are_values(layer));
        Heads {
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: kv_heads.unwrap_or(self.num_key_value_heads),
            dim: global.unwrap_or(self.head_dim),
        }
    }

    pub(super) fn cache(&self, layer: usize) -> LayerCache {
        let Heads { kv_heads, dim, .. } = self.heads(layer);
        let window = (!self.sees_all(layer)).then_some(self.sliding_window);
        self.lender(layer).map_or_else(|| LayerCache::attention(kv_heads, dim, window), LayerCache::Shared)
    }

    /// Of the dense feed-forward block.
    pub(super) fn inner(&self, layer: usize) -> i32 {
        let wide = self.use_double_wide_mlp && self.own() > 0 && layer >= self.own();
        self.intermediate_size * if wide { 2 } else { 1 }
    }

    /// Each kind of layer has its own rotary fields.
    pub(super) fn rope(&self, layer: usize) -> Result<Rope, MlxError> {
        let (kind, dim) = (self.kind(layer), self.heads(layer).dim);
        let Some(kinds) = &self.rope.rope_parameters else {
            return if self.sees_all(layer) {
                Rope::new(&default_of_all(), dim, THETA)
            } else {
                Ok(Rope::plain(dim, THETA))
            };
        };
        let fields = match kinds.get(kind) {
            None => None,
            Some(Value::Object(fields)) => Some(fields.clone()),
            Some(other) => return Err(MlxError::Config(format!("`rope_parameters.{kind}` is {other}"))),
        };
        Rope::new(
            &RopeArgs { rope_parameters: fields, rope_scaling: None, rope_theta: None, ..self.rope.clone() },
            dim,
            THETA,
        )
    }
}

/// Of the layers that see all, where `config.json` is silent.
fn default_of_all() -> RopeArgs {
    let fields = [
        ("rope_type", Value::from("proportional")),
        ("rope_theta", Value::from(1_000_000.0)),
        ("partial_rotary_factor", Value::from(0.25)),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    RopeArgs { rope_parameters: Some(fields), ..RopeArgs::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(fields: Value) -> Args {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn layers_attend_to_the_last_of_their_kind_that_has_keys() {
        let args = args(json!({"num_hidden_layers": 7, "num_kv_shared_layers": 3, "sliding_window_pattern": 2}));
        args.check().unwrap();
        assert_eq!(
            (0..7).map(|layer| args.lender(layer)).collect::<Vec<_>>(),
            [None, None, None, None, Some(2), Some(3), Some(2)]
        );
        assert_eq!((args.inner(3), args.inner(4)), (6144, 12_288));
        assert_eq!((args.heads(3).dim, args.heads(4).dim), (512, 256));
        assert_eq!(args.cache(4), LayerCache::Shared(2));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (fields, word) in [
            (json!({"hidden_activation": "silu"}), "hidden_activation"),
            (json!({"use_bidirectional_attention": "all"}), "use_bidirectional_attention"),
            (json!({"layer_types": ["linear_attention"], "num_hidden_layers": 1}), "linear_attention"),
            (json!({"num_hidden_layers": 4, "num_kv_shared_layers": 4}), "num_kv_shared_layers"),
            (json!({"enable_moe_block": true}), "num_experts"),
            (json!({"final_logit_softcapping": 0.0}), "final_logit_softcapping"),
            (json!({"vocab_size_per_layer_input": 5}), "vocab_size_per_layer_input"),
            (json!({"attention_k_eq_v": true, "num_global_key_value_heads": 3}), "num_key_value_heads"),
        ] {
            let message = args(fields).check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
