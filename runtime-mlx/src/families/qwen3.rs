//! `qwen3` (Qwen team 2025): norms on each head's queries and keys, no biases; must not know caches.

use mlx_rs::Array;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    layers::{Attention, DenseArgs, Linear, RmsNorm, Rope, Stack},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 1_000_000.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let args: DenseArgs = config.args()?;
    Ok(Box::new(Stack::<Qwen3Attention>::load(&args, loader, false)?))
}

struct Qwen3Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    rope: Rope,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
}

impl Attention for Qwen3Attention {
    fn load(args: &DenseArgs, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, dim, eps, bias) = (args.hidden_size, args.head_dim(), args.rms_norm_eps, args.attention_bias);
        let (q_size, kv_size) = (args.num_attention_heads * dim, args.kv_heads() * dim);
        Ok(Self {
            q: loader.linear(&format!("{prefix}.q_proj"), hidden, q_size, bias)?,
            k: loader.linear(&format!("{prefix}.k_proj"), hidden, kv_size, bias)?,
            v: loader.linear(&format!("{prefix}.v_proj"), hidden, kv_size, bias)?,
            o: loader.linear(&format!("{prefix}.o_proj"), q_size, hidden, bias)?,
            q_norm: loader.rms_norm(&format!("{prefix}.q_norm"), dim, eps)?,
            k_norm: loader.rms_norm(&format!("{prefix}.k_norm"), dim, eps)?,
            rope: Rope::new(&args.rope, dim, THETA)?,
            heads: args.num_attention_heads,
            kv_heads: args.kv_heads(),
            head_dim: dim,
        })
    }

    fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array> {
        let q = self.q.forward(x)?.reshape(&[-1, self.heads, 1, self.head_dim])?;
        let k = self.k.forward(x)?.reshape(&[-1, self.kv_heads, 1, self.head_dim])?;
        let v = self.v.forward(x)?.reshape(&[-1, self.kv_heads, 1, self.head_dim])?;
        let q = self.rope.forward(&self.q_norm.forward(&q)?, step.positions())?;
        let k = self.rope.forward(&self.k_norm.forward(&k)?, step.positions())?;
        self.o.forward(&step.attend(layer, &q, &k, &v)?)
    }
}
