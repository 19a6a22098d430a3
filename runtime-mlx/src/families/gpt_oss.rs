//! `gpt_oss` (OpenAI 2025): every other layer sees a window, each head has a sink, and experts have biases and a clamped
//! gate; must not know caches.

use mlx_rs::{Array, Dtype, error::Exception, ops, ops::indexing::take_along_axis};
use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    families::Model,
    kv::LayerCache,
    layers::{
        Biases, ExpertSizes, Experts, FeedForward, Frame, Gate, GroupedQuery, Heads, Linear, PreNorm, Rope, RopeArgs,
        Routes, Stack,
    },
    layers::{grouped, largest, layers, positive},
    loader::Loader,
    sys::{self, Result},
};

/// Base of the rotary wavelengths where `config.json` is silent. Origin: mlx-lm.
const THETA: f32 = 150_000.0;

/// Steepness of the gate's sigmoid. Origin: mlx-lm; no checkpoint says otherwise.
const ALPHA: f32 = 1.702;

/// Beyond which gates and linear parts are cut. Origin: the same.
const LIMIT: f32 = 7.0;

/// Defaults are those of the largest model, as in mlx-lm.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Args {
    num_hidden_layers: usize,
    num_local_experts: i32,
    num_experts_per_tok: i32,
    vocab_size: i32,
    rms_norm_eps: f32,
    hidden_size: i32,
    intermediate_size: i32,
    head_dim: i32,
    num_attention_heads: i32,
    num_key_value_heads: i32,
    sliding_window: i32,
    layer_types: Option<Vec<String>>,
    max_position_embeddings: Option<u32>,
    hidden_act: Option<String>,
    swiglu_limit: f32,
    attention_bias: bool,
    tie_word_embeddings: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            num_hidden_layers: 36,
            num_local_experts: 128,
            num_experts_per_tok: 4,
            vocab_size: 201_088,
            rms_norm_eps: 1e-5,
            hidden_size: 2880,
            intermediate_size: 2880,
            head_dim: 64,
            num_attention_heads: 64,
            num_key_value_heads: 8,
            sliding_window: 128,
            layer_types: None,
            max_position_embeddings: None,
            hidden_act: None,
            swiglu_limit: LIMIT,
            attention_bias: true,
            tie_word_embeddings: false,
        }
    }
}

impl Args {
    fn check(&self) -> std::result::Result<(), MlxError> {
        let refuse = |what: String| Err(MlxError::Config(what));
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return refuse(format!("`hidden_act` is `{act}`; this family computes `silu`"));
        }
        if self.swiglu_limit != LIMIT {
            return refuse(format!("`swiglu_limit` is {}; this family computes {LIMIT}", self.swiglu_limit));
        }
        if !self.attention_bias || self.tie_word_embeddings {
            return refuse("this family computes `attention_bias` true and `tie_word_embeddings` false only".into());
        }
        positive(&[
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("head_dim", self.head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("sliding_window", self.sliding_window),
        ])?;
        if self.num_experts_per_tok > self.num_local_experts {
            return refuse("`num_experts_per_tok` is more than `num_local_experts`".into());
        }
        layers(self.num_hidden_layers)?;
        grouped(self.num_attention_heads, self.num_key_value_heads)?;
        let Some(types) = &self.layer_types else { return Ok(()) };
        if types.len() != self.num_hidden_layers {
            return refuse(format!("`layer_types` names {} layers of {}", types.len(), self.num_hidden_layers));
        }
        match types.iter().find(|kind| !["full_attention", "sliding_attention"].contains(&kind.as_str())) {
            Some(kind) => refuse(format!("`layer_types` has `{kind}`; known are full_attention and sliding_attention")),
            None => Ok(()),
        }
    }

    fn heads(&self) -> Heads {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        Heads { hidden: self.hidden_size, heads, kv_heads, dim: self.head_dim }
    }

    /// The window of a layer; `None`: it sees all.
    fn window(&self, layer: usize) -> Option<i32> {
        let slides = match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            None => layer.is_multiple_of(2),
        };
        slides.then_some(self.sliding_window)
    }
}

pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError> {
    let (args, rope): (Args, RopeArgs) = (config.args()?, config.args()?);
    args.check()?;
    let (hidden, eps) = (args.hidden_size, args.rms_norm_eps);
    let frame =
        Frame { max_positions: args.max_position_embeddings, ..Frame::new(hidden, args.vocab_size, eps, false) };
    let cache = |i| LayerCache::attention(args.num_key_value_heads, args.head_dim, args.window(i));
    let caches = (0..args.num_hidden_layers).map(cache).collect();
    let stack = Stack::load(loader, &frame, caches, |loader, _, prefix| {
        Ok(PreNorm {
            mixer_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
            mixer: attention(&args, &rope, loader, &format!("{prefix}.self_attn"))?,
            mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
            mlp: Sparse::load(&args, loader, &format!("{prefix}.mlp"))?,
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
    let mut attention = GroupedQuery::load(loader, at, args.heads(), Biases { qkv: true, o: true })?;
    attention.sinks = Some(loader.tensor(&format!("{at}.sinks"), &[args.num_attention_heads])?);
    attention.rope = Some(Rope::new(rope, args.head_dim, THETA)?);
    Ok(attention)
}

struct Sparse {
    router: Linear,
    experts: Experts,
    k: i32,
}

impl Sparse {
    fn load(args: &Args, loader: &mut Loader<'_>, at: &str) -> std::result::Result<Self, MlxError> {
        let (hidden, inner, experts) = (args.hidden_size, args.intermediate_size, args.num_local_experts);
        unfold(loader, &format!("{at}.experts"))?;
        let name = |of: &str| (format!("{at}.experts.{of}"), format!("{at}.experts.{{}}.{of}"));
        let names = [name("gate_proj"), name("up_proj"), name("down_proj")];
        let act = Gate::Clamped { alpha: ALPHA, limit: LIMIT };
        Ok(Self {
            router: loader.linear(&format!("{at}.router"), hidden, experts, true)?,
            experts: Experts::load_named(loader, names, ExpertSizes { experts, hidden, inner }, (act, true))?,
            k: args.num_experts_per_tok,
        })
    }
}

impl FeedForward for Sparse {
    fn forward(&self, x: &Array) -> Result<Array> {
        let logits = self.router.forward(x)?;
        let experts = largest(&logits, self.k)?;
        // Odds among the chosen ones only.
        let weights = ops::softmax_axis(take_along_axis(&logits, &experts, -1)?, -1, true)?;
        let routes = Routes { experts, weights };
        routes.sum(&self.experts.forward(x, &routes.experts)?)
    }
}

/// Brings experts as their makers store them into mlx-lm's form: `gate_up_proj_blocks` `[experts, 2 · inner, groups, 16]` in
/// bytes, `gate_up_proj_scales` `[experts, 2 · inner, groups]` and `gate_up_proj_bias` `[experts, 2 · inner]`, in whose rows
/// gate and linear part take turns, and `down_proj_*`.
fn unfold(loader: &mut Loader<'_>, at: &str) -> std::result::Result<(), MlxError> {
    for (stored, part) in
        [("_blocks", "weight"), ("_scales", "scales"), ("_bias", "bias"), (".weight", "weight"), (".scales", "scales")]
    {
        let both = ["gate_proj", "up_proj"].map(|of| format!("{at}.{of}.{part}"));
        loader.recut(&format!("{at}.gate_up_proj{stored}"), both, |whole| {
            let whole = words(whole)?;
            Ok([in_turn(&whole, 0)?, in_turn(&whole, 1)?])
        })?;
        if stored.starts_with('_') {
            let down = [format!("{at}.down_proj.{part}")];
            loader.recut(&format!("{at}.down_proj{stored}"), down, |whole| Ok([words(whole)?]))?;
        }
    }
    Ok(())
}

/// Groups of sixteen bytes as MLX packs them: `[experts, rows, groups, 16]` → `[experts, rows, 4 · groups]`. What is not
/// packed so stays.
fn words(a: Array) -> Result<Array> {
    match *a.shape() {
        [experts, rows, groups, 16] if a.dtype() == Dtype::Uint8 => {
            a.view_dtype(Dtype::Uint32)?.reshape(&[experts, rows, 4 * groups])
        }
        _ => Ok(a),
    }
}

/// Every second of the rows `[experts, rows, …]`, from the first or the second one on.
fn in_turn(a: &Array, first: i32) -> Result<Array> {
    let &[experts, rows, ref rest @ ..] = a.shape() else {
        return Err(Exception::custom(format!("no rows for each expert in a tensor of shape {:?}", a.shape())));
    };
    if rows % 2 != 0 {
        return Err(Exception::custom(format!("{rows} rows do not make two halves")));
    }
    let pairs = a.reshape(&[&[experts, rows / 2, 2], rest].concat())?;
    let (mut from, mut to) = (vec![0; pairs.ndim()], pairs.shape().to_vec());
    (from[2], to[2]) = (first, first + 1);
    sys::slice(&pairs, &from, &to)?.reshape(&[&[experts, rows / 2], rest].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(fields: Value) -> std::result::Result<(), MlxError> {
        serde_json::from_value::<Args>(fields).unwrap().check()
    }

    #[test]
    fn what_this_family_does_not_compute_is_refused_by_name() {
        check(json!({"swiglu_limit": 7.0, "attention_bias": true, "hidden_act": "silu"})).unwrap();
        for (fields, name) in [
            (json!({"hidden_act": "gelu"}), "hidden_act"),
            (json!({"swiglu_limit": 5.0}), "swiglu_limit"),
            (json!({"attention_bias": false}), "attention_bias"),
            (json!({"tie_word_embeddings": true}), "tie_word_embeddings"),
            (json!({"sliding_window": 0}), "sliding_window"),
            (json!({"num_experts_per_tok": 129}), "num_experts_per_tok"),
            (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
            (json!({"num_hidden_layers": 2, "layer_types": ["full_attention"]}), "layer_types"),
            (json!({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]}), "chunked_attention"),
        ] {
            let message = check(fields).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn rows_that_take_turns_come_apart_and_bytes_become_words() {
        let rows = Array::from_slice(&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 4, 2]);
        for (first, expected) in [(0, [1, 2, 5, 6]), (1, [3, 4, 7, 8])] {
            let half = in_turn(&rows, first).unwrap().contiguous().unwrap();
            assert_eq!((half.shape(), half.as_slice::<i32>()), (&[1, 2, 2][..], &expected[..]));
        }
        assert!(in_turn(&rows.reshape(&[1, 1, 8]).unwrap(), 0).is_err());
        assert!(in_turn(&rows.reshape(&[8]).unwrap(), 0).is_err());
        let bytes: Vec<u8> = (0..16).collect();
        let packed = words(Array::from_slice(&bytes, &[1, 1, 1, 16])).unwrap();
        assert_eq!(packed.shape(), [1, 1, 4]);
        assert_eq!(packed.as_slice::<u32>(), [0x0302_0100, 0x0706_0504, 0x0b0a_0908, 0x0f0e_0d0c]);
    }
}
