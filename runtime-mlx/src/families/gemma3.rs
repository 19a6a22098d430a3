//! `gemma3` text models (Gemma team 2025): five layers that see a window to one that sees all, norms before and behind
//! each half; must not know caches.

use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{Biases, Frame, Gate, GroupedQuery, Heads, Mlp, Rope, RopeArgs, Sandwich, Stack},
    layers::{grouped, layers, positive},
    loader::Loader,
};

/// Defaults are those of the smallest model, as in mlx-lm.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Args {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: Option<i32>,
    num_key_value_heads: Option<i32>,
    head_dim: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    rope_local_base_freq: f32,
    query_pre_attn_scalar: f32,
    sliding_window: i32,
    sliding_window_pattern: usize,
    max_position_embeddings: u32,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            hidden_size: 1152,
            num_hidden_layers: 26,
            intermediate_size: 6912,
            num_attention_heads: None,
            num_key_value_heads: None,
            head_dim: 256,
            rms_norm_eps: 1e-6,
            vocab_size: 262_144,
            rope_local_base_freq: 10_000.0,
            query_pre_attn_scalar: 256.0,
            sliding_window: 512,
            sliding_window_pattern: 6,
            max_position_embeddings: 32_768,
        }
    }
}

/// Base of the global layers' rotary wavelengths where `config.json` is silent.
const THETA: f32 = 1_000_000.0;

impl Args {
    /// With the heads of the models that see images where those do not say.
    fn read(config: &Config) -> Result<(Self, RopeArgs), MlxError> {
        let (mut args, rope): (Self, RopeArgs) = config.text_args()?;
        let (heads, kv_heads) = if config.has_text_config() { (8, 4) } else { (4, 1) };
        args.num_attention_heads.get_or_insert(heads);
        args.num_key_value_heads.get_or_insert(kv_heads);
        args.check()?;
        Ok((args, rope))
    }

    fn heads(&self) -> Heads {
        let (heads, kv_heads) = (self.num_attention_heads.unwrap_or(0), self.num_key_value_heads.unwrap_or(0));
        Heads { hidden: self.hidden_size, heads, kv_heads, dim: self.head_dim }
    }

    fn check(&self) -> Result<(), MlxError> {
        positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.heads().heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("sliding_window", self.sliding_window),
            ("sliding_window_pattern", i32::try_from(self.sliding_window_pattern).unwrap_or(0)),
        ])?;
        layers(self.num_hidden_layers)?;
        grouped(self.heads().heads, self.heads().kv_heads)
    }

    /// The window of a layer; `None`: it sees all.
    fn window(&self, layer: usize) -> Option<i32> {
        (!(layer + 1).is_multiple_of(self.sliding_window_pattern)).then_some(self.sliding_window)
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Box<dyn Model>, MlxError> {
    let (args, rope) = Args::read(config)?;
    // With images the text model lies one level deeper; the towers' tensors are of no use here.
    let deeper = loader.has("language_model.model.norm.weight");
    loader.discard(|name| name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector."));
    let (root, head) = match deeper {
        true => ("language_model.model", "language_model.lm_head"),
        false => ("model", "lm_head"),
    };
    let tied = !loader.has(&format!("{head}.weight"));
    let frame = Frame {
        root,
        head: (!tied).then_some(head),
        plus_one: true,
        max_positions: Some(args.max_position_embeddings),
        ..Frame::new(args.hidden_size, args.vocab_size, args.rms_norm_eps, tied)
    };
    let cache = |i| LayerCache::attention(args.heads().kv_heads, args.head_dim, args.window(i));
    let caches = (0..args.num_hidden_layers).map(cache).collect();
    let mut stack = Stack::load(loader, &frame, caches, |loader, i, prefix| {
        let rope = match args.window(i) {
            Some(_) => Rope::plain(args.head_dim, args.rope_local_base_freq),
            None => Rope::new(&rope, args.head_dim, THETA)?,
        };
        layer(&args, loader, prefix, rope)
    })?;
    // Whatever the activations are.
    stack.embed_scale = Some(rounded((args.hidden_size as f32).sqrt()));
    Ok(Box::new(stack))
}

fn layer(
    args: &Args,
    loader: &mut Loader<'_>,
    prefix: &str,
    rope: Rope,
) -> Result<Sandwich<GroupedQuery, Mlp>, MlxError> {
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    let at = format!("{prefix}.self_attn");
    let mut attention = GroupedQuery::load(loader, &at, args.heads(), Biases::default())?;
    attention.q_norm = Some(loader.rms_norm_plus_one(&format!("{at}.q_norm"), args.head_dim, eps)?);
    attention.k_norm = Some(loader.rms_norm_plus_one(&format!("{at}.k_norm"), args.head_dim, eps)?);
    attention.rope = Some(rope);
    attention.scale = args.query_pre_attn_scalar.powf(-0.5);
    let mut norm = |name: &str| loader.rms_norm_plus_one(&format!("{prefix}.{name}"), hidden, eps);
    let norms = [
        norm("input_layernorm")?,
        norm("post_attention_layernorm")?,
        norm("pre_feedforward_layernorm")?,
        norm("post_feedforward_layernorm")?,
    ];
    let mlp = Mlp::load(loader, &format!("{prefix}.mlp"), (hidden, args.intermediate_size), Gate::GeluTanh)?;
    Ok(Sandwich { mixer: attention, mlp, norms })
}

/// `x` as bf16 holds it.
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn numbers_are_rounded_as_bf16_rounds_them() {
        for (x, expected) in
            [(8.0, 8.0), (33.941_124, 34.0), (9.797_959, 9.8125), (1.003_906_3, 1.0), (1.011_718_8, 1.015_625)]
        {
            assert_eq!(rounded(x), expected);
        }
    }
}
