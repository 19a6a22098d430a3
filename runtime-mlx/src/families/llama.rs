//! `llama` (Touvron et al. 2023; Llama 3's rotary scaling) and its equals such as `mistral`; must not know caches.

use mlx_rs::Array;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    layers::{Attention, DenseArgs, Linear, Rope, Stack},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// Base of the rotary wavelengths where `config.json` is silent.
const THETA: f32 = 10_000.0;

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let args: DenseArgs = config.args()?;
    Ok(Box::new(Stack::<LlamaAttention>::load(&args, loader, true)?))
}

/// Grouped-query attention (Ainslie et al. 2023) with rotary positions.
pub(super) struct LlamaAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    rope: Rope,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
}

/// Which projections have biases, and the rotary base where `config.json` is silent.
pub(super) struct Variant {
    pub(super) qkv_bias: bool,
    pub(super) o_bias: bool,
    pub(super) theta: f32,
}

impl LlamaAttention {
    pub(super) fn read(
        args: &DenseArgs,
        loader: &mut Loader<'_>,
        prefix: &str,
        variant: &Variant,
    ) -> std::result::Result<Self, MlxError> {
        let (hidden, dim, bias) = (args.hidden_size, args.head_dim(), variant.qkv_bias);
        let (q_size, kv_size) = (args.num_attention_heads * dim, args.kv_heads() * dim);
        Ok(Self {
            q: loader.linear(&format!("{prefix}.q_proj"), hidden, q_size, bias)?,
            k: loader.linear(&format!("{prefix}.k_proj"), hidden, kv_size, bias)?,
            v: loader.linear(&format!("{prefix}.v_proj"), hidden, kv_size, bias)?,
            o: loader.linear(&format!("{prefix}.o_proj"), q_size, hidden, variant.o_bias)?,
            rope: Rope::new(&args.rope, dim, variant.theta)?,
            heads: args.num_attention_heads,
            kv_heads: args.kv_heads(),
            head_dim: dim,
        })
    }
}

impl Attention for LlamaAttention {
    fn load(args: &DenseArgs, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError> {
        let bias = args.attention_bias;
        Self::read(args, loader, prefix, &Variant { qkv_bias: bias, o_bias: bias, theta: THETA })
    }

    fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array> {
        let q = self.q.forward(x)?.reshape(&[-1, self.heads, 1, self.head_dim])?;
        let k = self.k.forward(x)?.reshape(&[-1, self.kv_heads, 1, self.head_dim])?;
        let v = self.v.forward(x)?.reshape(&[-1, self.kv_heads, 1, self.head_dim])?;
        let q = self.rope.forward(&q, step.positions())?;
        let k = self.rope.forward(&k, step.positions())?;
        self.o.forward(&step.attend(layer, &q, &k, &v)?)
    }
}
