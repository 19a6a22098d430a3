//! The frame of a transformer: embed, layers, norm, head; must not know what a layer does.

use mlx_rs::{Array, ops};

use crate::{
    error::MlxError,
    families::{Model, ModelShape},
    kv::LayerCache,
    layers::{Embedding, Linear, Mlp, RmsNorm},
    loader::Loader,
    step::Step,
    sys::Result,
};

/// One layer of a family.
pub(crate) trait Layer {
    /// `[tokens, hidden]` → `[tokens, hidden]`, the residual stream included; `index` says which memory belongs to it.
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array>;
}

/// What a layer does with its neighbours in time: attention of some kind, or a recurrence.
pub(crate) trait Mixer {
    /// `[tokens, hidden]` → `[tokens, hidden]`; `index` says which memory belongs to it.
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array>;
}

impl Mixer for super::GroupedQuery {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        self.forward(x, index, step)
    }
}

/// What a layer does with each token by itself.
pub(crate) trait FeedForward {
    /// `[tokens, hidden]` → `[tokens, hidden]`.
    fn forward(&self, x: &Array) -> Result<Array>;
}

/// For models whose layers are not all of one kind.
impl Mixer for Box<dyn Mixer> {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        (**self).forward(x, index, step)
    }
}

/// The same.
impl FeedForward for Box<dyn FeedForward> {
    fn forward(&self, x: &Array) -> Result<Array> {
        (**self).forward(x)
    }
}

impl FeedForward for Mlp {
    fn forward(&self, x: &Array) -> Result<Array> {
        self.forward(x)
    }
}

/// The layer that most families have: each half normed before, and added.
pub(crate) struct PreNorm<M, F> {
    pub(crate) mixer_norm: RmsNorm,
    pub(crate) mixer: M,
    pub(crate) mlp_norm: RmsNorm,
    pub(crate) mlp: F,
}

impl<M: Mixer, F: FeedForward> Layer for PreNorm<M, F> {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let x = x.add(self.mixer.forward(&self.mixer_norm.forward(x)?, index, step)?)?;
        x.add(self.mlp.forward(&self.mlp_norm.forward(&x)?)?)
    }
}

/// The layer of families that norm each half before and behind, and add.
pub(crate) struct Sandwich<M, F> {
    pub(crate) mixer: M,
    pub(crate) mlp: F,
    /// Before and behind the mixer, before and behind the feed-forward block.
    pub(crate) norms: [RmsNorm; 4],
}

impl<M: Mixer, F: FeedForward> Layer for Sandwich<M, F> {
    fn forward(&self, x: &Array, index: usize, step: &mut Step<'_>) -> Result<Array> {
        let [before, behind, before_mlp, behind_mlp] = &self.norms;
        let mixed = self.mixer.forward(&before.forward(x)?, index, step)?;
        let x = x.add(behind.forward(&mixed)?)?;
        x.add(behind_mlp.forward(&self.mlp.forward(&before_mlp.forward(&x)?)?)?)
    }
}

/// Root and head of a checkpoint's language model, which lies deeper where the model has other senses too: as mlx-lm
/// stores it, as its makers do, or alone.
pub(crate) fn place(loader: &Loader<'_>) -> (&'static str, &'static str) {
    let deeper = [
        ("language_model.model.norm.weight", ("language_model.model", "language_model.lm_head")),
        ("model.language_model.norm.weight", ("model.language_model", "lm_head")),
    ];
    deeper.into_iter().find(|(norm, _)| loader.has(norm)).map_or(("model", "lm_head"), |(_, place)| place)
}

/// What a stack is made of beside its layers.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    /// Where the checkpoint has it: tensors are `{root}.embed_tokens`, `{root}.layers.N`, `{root}.{norm}`.
    pub(crate) root: &'a str,
    /// The last norm's name.
    pub(crate) norm: &'a str,
    /// The head's own name; `None`: the embeddings are the head.
    pub(crate) head: Option<&'a str>,
    pub(crate) hidden: i32,
    pub(crate) vocab_size: i32,
    pub(crate) eps: f32,
    /// Norm weights are stored as their distance from 1.
    pub(crate) plus_one: bool,
    /// Positions that the checkpoint was made for.
    pub(crate) max_positions: Option<u32>,
}

impl<'a> Frame<'a> {
    /// `model.embed_tokens`, `model.layers.N`, `model.norm`, and `lm_head` unless `tied`.
    pub(crate) fn new(hidden: i32, vocab_size: i32, eps: f32, tied: bool) -> Frame<'a> {
        Frame {
            root: "model",
            norm: "norm",
            head: (!tied).then_some("lm_head"),
            hidden,
            vocab_size,
            eps,
            plus_one: false,
            max_positions: None,
        }
    }
}

/// A model of one kind of layer (which may be an enum).
pub(crate) struct Stack<L> {
    embed: Embedding,
    layers: Vec<L>,
    norm: RmsNorm,
    head: Option<Linear>,
    shape: ModelShape,
    /// By which embeddings are multiplied.
    pub(crate) embed_scale: Option<f32>,
    /// Logits become `cap · tanh(logit / cap)`.
    pub(crate) softcap: Option<f32>,
}

impl<L: Layer> Stack<L> {
    /// Reads the whole checkpoint; `layer` reads one layer, whose tensors begin with the prefix it is given.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        frame: &Frame<'_>,
        caches: Vec<LayerCache>,
        mut layer: impl FnMut(&mut Loader<'_>, usize, &str) -> std::result::Result<L, MlxError>,
    ) -> std::result::Result<Self, MlxError> {
        let Frame { root, hidden, vocab_size, eps, .. } = *frame;
        let embed = loader.embedding(&format!("{root}.embed_tokens"), vocab_size, hidden)?;
        let mut layers = Vec::with_capacity(caches.len());
        for i in 0..caches.len() {
            layers.push(layer(loader, i, &format!("{root}.layers.{i}"))?);
        }
        let norm = format!("{root}.{}", frame.norm);
        let norm = match frame.plus_one {
            true => loader.rms_norm_plus_one(&norm, hidden, eps)?,
            false => loader.rms_norm(&norm, hidden, eps)?,
        };
        let head = frame.head.map(|name| loader.linear(name, hidden, vocab_size, false)).transpose()?;
        let shape = ModelShape { caches, vocab_size, max_positions: frame.max_positions };
        Ok(Self { embed, layers, norm, head, shape, embed_scale: None, softcap: None })
    }
}

impl<L: Layer> Model for Stack<L> {
    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn hidden(&self, tokens: &Array, step: &mut Step<'_>) -> Result<Array> {
        let mut x = self.embed.forward(tokens)?;
        if let Some(scale) = self.embed_scale {
            x = x.multiply(Array::from_f32(scale).as_dtype(x.dtype())?)?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, i, step)?;
        }
        Ok(x)
    }

    fn last_norm(&self) -> Option<&RmsNorm> {
        Some(&self.norm)
    }

    fn logits(&self, hidden: &Array) -> Result<Array> {
        let x = self.norm.forward(hidden)?;
        let logits = match &self.head {
            Some(head) => head.forward(&x)?,
            None => self.embed.as_head(&x)?,
        };
        match self.softcap {
            Some(cap) => softcap(&logits, cap),
            None => Ok(logits),
        }
    }
}

/// `cap · tanh(x / cap)`
pub(crate) fn softcap(x: &Array, cap: f32) -> Result<Array> {
    let cap = Array::from_f32(cap).as_dtype(x.dtype())?;
    ops::tanh(x.divide(&cap)?)?.multiply(&cap)
}
