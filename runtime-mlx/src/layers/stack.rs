//! The pre-norm transformer that most families are: embed, then layers of attention and SwiGLU, norm, head;
//! must not know how a family attends.

use mlx_rs::Array;
use serde::Deserialize;

use crate::{
    error::MlxError,
    families::{Model, ModelShape},
    layers::{Embedding, Linear, RmsNorm, RopeArgs, SwiGlu},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// The fields of `config.json` that these families share.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DenseArgs {
    pub(crate) hidden_size: i32,
    pub(crate) num_hidden_layers: usize,
    pub(crate) intermediate_size: i32,
    pub(crate) num_attention_heads: i32,
    num_key_value_heads: Option<i32>,
    head_dim: Option<i32>,
    pub(crate) rms_norm_eps: f32,
    pub(crate) vocab_size: i32,
    max_position_embeddings: Option<u32>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(default)]
    pub(crate) mlp_bias: bool,
    #[serde(flatten)]
    pub(crate) rope: RopeArgs,
}

impl DenseArgs {
    /// Refuses what the shared layers do not compute, by name, and sizes that no model has.
    pub(crate) fn check(&self) -> std::result::Result<(), MlxError> {
        if let Some(act) = &self.hidden_act
            && act != "silu"
        {
            return Err(MlxError::Config(format!("`hidden_act` is `{act}`; this family computes `silu`")));
        }
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("head_dim", self.head_dim()),
            ("vocab_size", self.vocab_size),
        ];
        if let Some((name, value)) = sizes.iter().find(|(_, n)| *n <= 0) {
            return Err(MlxError::Config(format!("`{name}` is {value}; it must be positive")));
        }
        if self.num_hidden_layers == 0 || self.num_hidden_layers > 1000 {
            return Err(MlxError::Config(format!("`num_hidden_layers` is {}", self.num_hidden_layers)));
        }
        if self.num_attention_heads % self.kv_heads() != 0 {
            return Err(MlxError::Config("`num_attention_heads` is no multiple of `num_key_value_heads`".into()));
        }
        Ok(())
    }

    pub(crate) fn kv_heads(&self) -> i32 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(crate) fn head_dim(&self) -> i32 {
        self.head_dim.unwrap_or_else(|| self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0))
    }

    /// Positions that the model computes right. Inside its sliding window full attention is the same thing, and
    /// beyond it this version would be wrong, so the window is the limit.
    fn max_positions(&self) -> Option<u32> {
        let window = self.sliding_window.filter(|_| self.use_sliding_window.unwrap_or(true));
        match (self.max_position_embeddings, window) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// A family's attention block.
pub(crate) trait Attention: Sized {
    /// Reads `{prefix}.*` (e.g. `model.layers.3.self_attn`).
    fn load(args: &DenseArgs, loader: &mut Loader<'_>, prefix: &str) -> std::result::Result<Self, MlxError>;

    /// `[tokens, hidden]` → `[tokens, hidden]`; `layer` says which KV belongs to it.
    fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array>;
}

struct Layer<A> {
    attention_norm: RmsNorm,
    attention: A,
    mlp_norm: RmsNorm,
    mlp: SwiGlu,
}

/// A dense transformer around a family's attention.
pub(crate) struct Stack<A> {
    embed: Embedding,
    layers: Vec<Layer<A>>,
    norm: RmsNorm,
    head: Option<Linear>,
    shape: ModelShape,
}

impl<A: Attention> Stack<A> {
    /// Reads the whole checkpoint; `tied` is the family's default where `config.json` is silent.
    pub(crate) fn load(args: &DenseArgs, loader: &mut Loader<'_>, tied: bool) -> std::result::Result<Self, MlxError> {
        args.check()?;
        let hidden = args.hidden_size;
        let embed = loader.embedding("model.embed_tokens", args.vocab_size, hidden)?;
        let mut layers = Vec::with_capacity(args.num_hidden_layers);
        for i in 0..args.num_hidden_layers {
            let p = format!("model.layers.{i}");
            layers.push(Layer {
                attention_norm: loader.rms_norm(&format!("{p}.input_layernorm"), hidden, args.rms_norm_eps)?,
                attention: A::load(args, loader, &format!("{p}.self_attn"))?,
                mlp_norm: loader.rms_norm(&format!("{p}.post_attention_layernorm"), hidden, args.rms_norm_eps)?,
                mlp: SwiGlu::load(loader, &format!("{p}.mlp"), hidden, args.intermediate_size, args.mlp_bias)?,
            });
        }
        let norm = loader.rms_norm("model.norm", hidden, args.rms_norm_eps)?;
        let head = match args.tie_word_embeddings.unwrap_or(tied) {
            true => None,
            false => Some(loader.linear("lm_head", hidden, args.vocab_size, false)?),
        };
        let shape = ModelShape {
            layers: args.num_hidden_layers,
            kv_heads: args.kv_heads(),
            head_dim: args.head_dim(),
            vocab_size: args.vocab_size,
            max_positions: args.max_positions(),
        };
        Ok(Self { embed, layers, norm, head, shape })
    }
}

impl<A: Attention> Model for Stack<A> {
    fn shape(&self) -> ModelShape {
        self.shape
    }

    fn hidden(&self, tokens: &Array, step: &mut Step<'_>) -> Result<Array> {
        let mut x = self.embed.forward(tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = x.add(layer.attention.forward(&layer.attention_norm.forward(&x)?, i, step)?)?;
            x = x.add(layer.mlp.forward(&layer.mlp_norm.forward(&x)?)?)?;
        }
        Ok(x)
    }

    fn last_norm(&self) -> Option<&RmsNorm> {
        Some(&self.norm)
    }

    fn logits(&self, hidden: &Array) -> Result<Array> {
        let x = self.norm.forward(hidden)?;
        match &self.head {
            Some(head) => head.forward(&x),
            None => self.embed.as_head(&x),
        }
    }
}
