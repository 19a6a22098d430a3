//! `olmo2` (OLMo team 2024): norms behind each half and none before, norms on all heads' queries and keys together; must
//! not know caches.

use mlx_rs::Array;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{DenseArgs, Frame, Gate, Heads, Layer, Linear, Mlp, RmsNorm, Rope, Stack},
    loader::Loader,
    step::{Attend, Step},
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let args = DenseArgs::read(config)?;
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    let tied = args.tie_word_embeddings.unwrap_or(true);
    let frame = Frame { max_positions: args.max_position_embeddings, ..Frame::new(hidden, args.vocab_size, eps, tied) };
    let cache = LayerCache::attention(args.kv_heads(), args.head_dim(), None);
    let caches = vec![cache; args.num_hidden_layers];
    let stack = Stack::load(loader, &frame, caches, |loader, _, prefix| {
        let names = ["gate_proj", "up_proj", "down_proj"].map(|name| format!("{prefix}.mlp.{name}"));
        Ok(PostNorm {
            attention: Attention::load(&args, loader, &format!("{prefix}.self_attn"))?,
            norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: Mlp::load_named(loader, &names, (hidden, args.intermediate_size), (Gate::Silu, args.mlp_bias))?,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_feedforward_layernorm"), hidden, eps)?,
        })
    })?;
    Ok(Box::new(stack))
}

/// Each half normed behind, and added.
struct PostNorm {
    attention: Attention,
    norm: RmsNorm,
    mlp: Mlp,
    mlp_norm: RmsNorm,
}

impl Layer for PostNorm {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let x = x.add(self.norm.forward(&self.attention.forward(x, index, step)?)?)?;
        x.add(self.mlp_norm.forward(&self.mlp.forward(&x)?)?)
    }
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Over all heads at once.
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    rope: Rope,
    sizes: Heads,
}

impl Attention {
    fn load(args: &DenseArgs, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let sizes @ Heads { hidden, heads, kv_heads, dim } = args.heads();
        let (queries, keys, bias, eps) = (heads * dim, kv_heads * dim, args.attention_bias, args.rms_norm_eps);
        Ok(Self {
            q: loader.linear(&format!("{at}.q_proj"), hidden, queries, bias)?,
            k: loader.linear(&format!("{at}.k_proj"), hidden, keys, bias)?,
            v: loader.linear(&format!("{at}.v_proj"), hidden, keys, bias)?,
            o: loader.linear(&format!("{at}.o_proj"), queries, hidden, bias)?,
            q_norm: loader.rms_norm(&format!("{at}.q_norm"), queries, eps)?,
            k_norm: loader.rms_norm(&format!("{at}.k_norm"), keys, eps)?,
            rope: Rope::new(&args.rope, dim, THETA)?,
            sizes,
        })
    }

    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let Heads { heads, kv_heads, dim, .. } = self.sizes;
        let q = self.q_norm.forward(&self.q.forward(x)?)?.reshape(&[-1, heads, 1, dim])?;
        let k = self.k_norm.forward(&self.k.forward(x)?)?.reshape(&[-1, kv_heads, 1, dim])?;
        let v = self.v.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?;
        let q = self.rope.forward(&q, step.positions())?;
        let k = self.rope.forward(&k, step.positions())?;
        self.o.forward(&step.attend(index, [&q, &k, &v], &Attend::heads(dim))?)
    }
}
