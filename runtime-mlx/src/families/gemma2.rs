//! `gemma2` (Gemma team 2024): soft caps on scores and logits, a window in every second layer, norms before and behind each
//! half; must not know caches.

use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{Biases, Frame, Gate, GroupedQuery, Heads, Mlp, Rope, RopeArgs, Sandwich, Stack},
    layers::{capping, grouped, layers, only, positive},
    loader::Loader,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

#[derive(Debug, Deserialize)]
struct Args {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    num_key_value_heads: i32,
    head_dim: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    #[serde(default = "score_cap")]
    attn_logit_softcapping: Option<f32>,
    #[serde(default = "logit_cap")]
    final_logit_softcapping: Option<f32>,
    #[serde(default = "query_scalar")]
    query_pre_attn_scalar: f32,
    hidden_activation: Option<String>,
    /// mlx-lm ignores it and lets every layer see all, as these models were not trained; up to its length both are one.
    sliding_window: Option<i32>,
    layer_types: Option<Vec<String>>,
    max_position_embeddings: Option<u32>,
}

fn score_cap() -> Option<f32> {
    Some(50.0)
}

fn logit_cap() -> Option<f32> {
    Some(30.0)
}

fn query_scalar() -> f32 {
    144.0
}

impl Args {
    fn heads(&self) -> Heads {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        Heads { hidden: self.hidden_size, heads, kv_heads, dim: self.head_dim }
    }

    fn check(&self) -> Result<(), MlxError> {
        only("hidden_activation", self.hidden_activation.as_deref(), "gelu_pytorch_tanh")?;
        capping(&[
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ])?;
        positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
        ])?;
        layers(self.num_hidden_layers)?;
        grouped(self.num_attention_heads, self.num_key_value_heads)
    }

    /// The window of a layer; `None`: it sees all.
    fn window(&self, layer: usize) -> Option<i32> {
        let slides = match &self.layer_types {
            Some(kinds) => kinds.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            None => layer.is_multiple_of(2),
        };
        self.sliding_window.filter(|window| slides && *window > 0)
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let (args, rope): (Args, RopeArgs) = (config.args()?, config.args()?);
    args.check()?;
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    let frame = Frame {
        plus_one: true,
        max_positions: args.max_position_embeddings,
        ..Frame::new(hidden, args.vocab_size, eps, true)
    };
    let cache = |i| LayerCache::attention(args.num_key_value_heads, args.head_dim, args.window(i));
    let caches = (0..args.num_hidden_layers).map(cache).collect();
    let mut stack = Stack::load(loader, &frame, caches, |loader, _, prefix| {
        let mut attention =
            GroupedQuery::load(loader, &format!("{prefix}.self_attn"), args.heads(), Biases::default())?;
        attention.rope = Some(Rope::new(&rope, args.head_dim, THETA)?);
        attention.scale = args.query_pre_attn_scalar.powf(-0.5);
        attention.softcap = args.attn_logit_softcapping;
        let mut norm = |name: &str| loader.rms_norm_plus_one(&format!("{prefix}.{name}"), hidden, eps);
        let norms = [
            norm("input_layernorm")?,
            norm("post_attention_layernorm")?,
            norm("pre_feedforward_layernorm")?,
            norm("post_feedforward_layernorm")?,
        ];
        let mlp = Mlp::load(loader, &format!("{prefix}.mlp"), (hidden, args.intermediate_size), Gate::GeluTanh)?;
        Ok(Sandwich { mixer: attention, mlp, norms })
    })?;
    stack.embed_scale = Some((hidden as f32).sqrt());
    stack.softcap = args.final_logit_softcapping;
    Ok(Box::new(stack))
}
