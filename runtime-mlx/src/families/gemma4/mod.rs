//! `gemma4` text models (Gemma team 2026): two sizes of heads, keys and values that layers share, an embedding for each
//! layer, experts beside the dense block; must not know caches.

mod args;
mod layer;

use mlx_rs::Array;

use self::{args::Args, layer::Gemma4Layer};
use crate::{
    config::Config,
    error::MlxError,
    families::{Model, ModelShape},
    layers::{Embedding, Linear, RmsNorm, place, softcap},
    loader::Loader,
    step::Step,
    sys::{self, Result},
};

/// Begin the names of what makes text of other senses, which is of no use here.
const OTHER_SENSES: [&str; 6] =
    ["vision_tower", "multi_modal_projector", "audio_tower", "embed_audio", "embed_vision", "vision_embedder"];

/// Measured ranges, which some checkpoints hold beside the weights.
const RANGES: [&str; 4] = ["input_max", "input_min", "output_max", "output_min"];

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let args = Args::read(config)?;
    loader.discard(|name| {
        let bare = name.strip_prefix("model.").unwrap_or(name);
        OTHER_SENSES.iter().any(|sense| bare.starts_with(sense)) || RANGES.iter().any(|range| name.contains(range))
    });
    let (root, head) = place(loader);
    let (hidden, vocab_size, eps) = (args.hidden_size, args.vocab_size, args.rms_norm_eps);
    let n = args.num_hidden_layers;
    let extra = args.own_input().map(|sizes| Extra::load(&args, sizes, loader, root)).transpose()?;
    let layers = (0..n).map(|i| Gemma4Layer::load(&args, i, loader, &format!("{root}.layers.{i}")));
    let layers = layers.collect::<std::result::Result<Vec<_>, _>>()?;
    let head = (!args.tie_word_embeddings).then(|| loader.linear(head, hidden, vocab_size, false));
    Ok(Box::new(Gemma4 {
        embed: loader.embedding(&format!("{root}.embed_tokens"), vocab_size, hidden)?,
        extra,
        layers,
        norm: loader.rms_norm(&format!("{root}.norm"), hidden, eps)?,
        head: head.transpose()?,
        softcap: args.final_logit_softcapping,
        shape: ModelShape {
            caches: (0..n).map(|i| args.cache(i)).collect(),
            vocab_size,
            max_positions: Some(args.max_position_embeddings),
        },
        scale: (hidden as f32).sqrt(),
    }))
}

struct Gemma4 {
    embed: Embedding,
    extra: Option<Extra>,
    layers: Vec<Gemma4Layer>,
    norm: RmsNorm,
    head: Option<Linear>,
    softcap: Option<f32>,
    shape: ModelShape,
    /// Of the embeddings.
    scale: f32,
}

impl Model for Gemma4 {
    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn hidden(&self, tokens: &Array, step: &mut Step<'_>) -> Result<Array> {
        let mut x = times(&self.embed.forward(tokens)?, self.scale)?;
        let extra = self.extra.as_ref().map(|extra| extra.forward(tokens, &x)).transpose()?;
        for (i, layer) in self.layers.iter().enumerate() {
            let own = extra.as_ref().map(|all| of_layer(all, i as i32)).transpose()?;
            x = layer.forward(&x, own.as_ref(), i, step)?;
        }
        Ok(x)
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

/// What each token brings for each layer: an embedding, and a projection of the one that all layers see.
struct Extra {
    embed: Embedding,
    projection: Linear,
    norm: RmsNorm,
    layers: i32,
    dim: i32,
    /// Of the projection.
    scale: f32,
}

impl Extra {
    fn load(
        args: &Args,
        (vocabulary, dim): (i32, i32),
        loader: &mut Loader<'_>,
        root: &str,
    ) -> std::result::Result<Self, MlxError> {
        let layers = args.num_hidden_layers as i32;
        let projection = format!("{root}.per_layer_model_projection");
        Ok(Self {
            embed: loader.embedding(&format!("{root}.embed_tokens_per_layer"), vocabulary, layers * dim)?,
            projection: loader.linear(&projection, args.hidden_size, layers * dim, false)?,
            norm: loader.rms_norm(&format!("{root}.per_layer_projection_norm"), dim, args.rms_norm_eps)?,
            layers,
            dim,
            scale: (args.hidden_size as f32).powf(-0.5),
        })
    }

    /// `[tokens]` and their `[tokens, hidden]` → `[tokens, layers, dim]`.
    fn forward(&self, tokens: &Array, x: &Array) -> Result<Array> {
        let shape = [-1, self.layers, self.dim];
        let embedded = times(&self.embed.forward(tokens)?, (self.dim as f32).sqrt())?.reshape(&shape)?;
        let projected = times(&self.projection.forward(x)?, self.scale)?.reshape(&shape)?;
        times(&self.norm.forward(&projected)?.add(embedded)?, 0.5_f32.sqrt())
    }
}

/// `[tokens, layers, dim]` → `[tokens, dim]`
fn of_layer(all: &Array, layer: i32) -> Result<Array> {
    let (n, dim) = (all.dim(0), all.dim(2));
    sys::slice(all, &[0, layer, 0], &[n, layer + 1, dim])?.reshape(&[n, dim])
}

fn times(x: &Array, factor: f32) -> Result<Array> {
    x.multiply(Array::from_f32(factor).as_dtype(x.dtype())?)
}
