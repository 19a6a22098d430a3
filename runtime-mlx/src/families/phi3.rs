//! `phi3` (Microsoft 2024): one matrix for queries, keys and values, one for gate and up, LongRoPE on a part of each head;
//! must not know caches.

use mlx_rs::Array;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{DenseArgs, Frame, Gate, Heads, Linear, Mixer, Mlp, PreNorm, Rope, Stack, split},
    loader::Loader,
    step::{Attend, Step},
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

/// Tokens that a checkpoint was first trained with, and that it was made for in the end, where `config.json` is silent.
const TRAINED: f32 = 4096.0;
const MADE_FOR: f32 = 131_072.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let mut args = DenseArgs::read(config)?;
    args.rope.original_max_position_embeddings.get_or_insert(TRAINED);
    args.rope.max_position_embeddings.get_or_insert(MADE_FOR);
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    let tied = args.tie_word_embeddings.unwrap_or(false);
    let frame = Frame { max_positions: args.max_position_embeddings, ..Frame::new(hidden, args.vocab_size, eps, tied) };
    let cache = |layer| LayerCache::attention(args.kv_heads(), args.head_dim(), args.window(layer));
    let caches = (0..args.num_hidden_layers).map(cache).collect();
    let stack = Stack::load(loader, &frame, caches, |loader, _, prefix| {
        let mlp = format!("{prefix}.mlp");
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: Fused::load(&args, loader, &format!("{prefix}.self_attn"))?,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: Mlp::load_fused(loader, &mlp, (hidden, args.intermediate_size), Gate::Silu)?,
        })
    })?;
    Ok(Box::new(stack))
}

/// Attention whose queries, keys and values come out of one matrix.
struct Fused {
    qkv: Linear,
    o: Linear,
    rope: Rope,
    sizes: Heads,
}

impl Fused {
    fn load(args: &DenseArgs, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let sizes @ Heads { hidden, heads, kv_heads, dim } = args.heads();
        Ok(Self {
            qkv: loader.linear(&format!("{at}.qkv_proj"), hidden, (heads + 2 * kv_heads) * dim, false)?,
            o: loader.linear(&format!("{at}.o_proj"), heads * dim, hidden, false)?,
            rope: Rope::new(&args.rope, args.rope.rotated(dim, 1.0), THETA)?,
            sizes,
        })
    }
}

impl Mixer for Fused {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let Heads { heads, kv_heads, dim, .. } = self.sizes;
        let [q, k, v] = split(&self.qkv.forward(x)?, [heads * dim, kv_heads * dim, kv_heads * dim])?;
        let q = self.rope.forward(&q.reshape(&[-1, heads, 1, dim])?, step.positions())?;
        let k = self.rope.forward(&k.reshape(&[-1, kv_heads, 1, dim])?, step.positions())?;
        let v = v.reshape(&[-1, kv_heads, 1, dim])?;
        self.o.forward(&step.attend(index, [&q, &k, &v], &Attend::heads(dim))?)
    }
}
