//! `lfm2` (Liquid AI 2025): short gated convolutions, and attention in some layers; must not know caches.

use mlx_rs::Array;
use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::{LayerCache, State},
    layers::{
        Biases, CausalConv, Frame, Gate, GroupedQuery, Heads, Linear, Mixer, Mlp, PreNorm, Rope, RopeArgs, Stack,
    },
    layers::{grouped, layers, positive, split},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 1_000_000.0;

#[derive(Debug, Deserialize)]
#[allow(non_snake_case, reason = "the field's name in config.json")]
struct Args {
    vocab_size: i32,
    hidden_size: i32,
    num_hidden_layers: usize,
    num_attention_heads: i32,
    num_key_value_heads: Option<i32>,
    max_position_embeddings: u32,
    norm_eps: f32,
    #[serde(default)]
    conv_bias: bool,
    conv_L_cache: i32,
    block_multiple_of: i32,
    block_ffn_dim_multiplier: Option<f64>,
    block_auto_adjust_ff_dim: bool,
    block_ff_dim: Option<i32>,
    intermediate_size: Option<i32>,
    full_attn_idxs: Option<Vec<usize>>,
    layer_types: Option<Vec<String>>,
}

impl Args {
    fn check(&self) -> std::result::Result<(), MlxError> {
        positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("conv_L_cache", self.conv_L_cache),
            ("block_multiple_of", self.block_multiple_of),
        ])?;
        layers(self.num_hidden_layers)?;
        grouped(self.num_attention_heads, self.kv_heads())?;
        if self.full_attn_idxs.is_none() && self.layer_types.is_none() {
            return Err(MlxError::Config("neither `full_attn_idxs` nor `layer_types` is there".into()));
        }
        Ok(())
    }

    fn kv_heads(&self) -> i32 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_dim(&self) -> i32 {
        self.hidden_size / self.num_attention_heads
    }

    fn attends(&self, layer: usize) -> bool {
        match (&self.full_attn_idxs, &self.layer_types) {
            (Some(indices), _) => indices.contains(&layer),
            (None, types) => types.iter().flatten().nth(layer).is_some_and(|kind| kind == "full_attention"),
        }
    }

    /// Inner numbers of the feed-forward block.
    fn inner(&self) -> std::result::Result<i32, MlxError> {
        let inner = self.block_ff_dim.or(self.intermediate_size);
        let inner =
            inner.ok_or_else(|| MlxError::Config("neither `block_ff_dim` nor `intermediate_size` is there".into()))?;
        if !self.block_auto_adjust_ff_dim {
            return Ok(inner);
        }
        let inner = 2 * inner / 3;
        let inner = self.block_ffn_dim_multiplier.map_or(inner, |by| (by * f64::from(inner)) as i32);
        Ok((inner + self.block_multiple_of - 1) / self.block_multiple_of * self.block_multiple_of)
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let (args, rope): (Args, RopeArgs) = config.text_args()?;
    args.check()?;
    let (hidden, eps, inner) = (args.hidden_size, args.norm_eps, args.inner()?);
    let frame = Frame {
        norm: "embedding_norm",
        max_positions: Some(args.max_position_embeddings),
        ..Frame::new(hidden, args.vocab_size, eps, true)
    };
    let cache = |i| match args.attends(i) {
        true => LayerCache::attention(args.kv_heads(), args.head_dim(), None),
        false => LayerCache::State(vec![State { dims: vec![args.conv_L_cache - 1, hidden], dtype: None }]),
    };
    let caches = (0..args.num_hidden_layers).map(cache).collect();
    let stack = Stack::load(loader, &frame, caches, |loader, i, prefix| {
        let names = ["w1", "w3", "w2"].map(|name| format!("{prefix}.feed_forward.{name}"));
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.operator_norm"), hidden, eps)?,
            mixer: match args.attends(i) {
                true => {
                    let attention = attention(&args, &rope, loader, &format!("{prefix}.self_attn"))?;
                    Box::new(attention) as Box<dyn Mixer>
                }
                false => Box::new(ShortConv::load(&args, loader, &format!("{prefix}.conv"))?),
            },
            mlp_norm: loader.rms_norm(&format!("{prefix}.ffn_norm"), hidden, eps)?,
            mlp: Mlp::load_named(loader, &names, (hidden, inner), (Gate::Silu, false))?,
        })
    })?;
    Ok(Box::new(stack))
}

fn attention(
    args: &Args,
    rope: &RopeArgs,
    loader: &mut Loader<'_>,
    at: &str,
) -> std::result::Result<GroupedQuery, MlxError> {
    let dim = args.head_dim();
    let sizes = Heads { hidden: args.hidden_size, heads: args.num_attention_heads, kv_heads: args.kv_heads(), dim };
    let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
    let mut attention = GroupedQuery::load_named(loader, at, names, (sizes, Biases::default()))?;
    attention.q_norm = Some(loader.rms_norm(&format!("{at}.q_layernorm"), dim, args.norm_eps)?);
    attention.k_norm = Some(loader.rms_norm(&format!("{at}.k_layernorm"), dim, args.norm_eps)?);
    attention.rope = Some(Rope::plain(dim, rope.theta(THETA)));
    Ok(attention)
}

/// `out(c · conv(b · x))`, with `b`, `c` and `x` from the input.
struct ShortConv {
    input: Linear,
    conv: CausalConv,
    out: Linear,
    hidden: i32,
}

impl ShortConv {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, size, bias) = (args.hidden_size, args.conv_L_cache, args.conv_bias);
        Ok(Self {
            input: loader.linear(&format!("{at}.in_proj"), hidden, 3 * hidden, bias)?,
            conv: loader.causal_conv(&format!("{at}.conv"), [hidden, size], bias)?,
            out: loader.linear(&format!("{at}.out_proj"), hidden, hidden, bias)?,
            hidden,
        })
    }
}

impl Mixer for ShortConv {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let [b, c, x] = split(&self.input.forward(x)?, [self.hidden; 3])?;
        let filtered = step.recur(index, &[&b.multiply(x)?], |x, tail| {
            let (y, tail) = self.conv.forward(&x[0], &tail[0])?;
            Ok((y, vec![tail]))
        })?;
        self.out.forward(&c.multiply(filtered)?)
    }
}
