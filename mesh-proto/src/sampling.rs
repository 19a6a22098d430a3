//! How the next token is chosen; must not know how a device does it.

use serde::{Deserialize, Serialize};

use crate::{TokenId, codec::at_most};

/// Adds to one token's logit before anything else is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitBias {
    /// The token.
    pub token: TokenId,
    /// Added to its logit; −100 bans, +100 all but forces it.
    pub bias: f32,
}

/// Sampling parameters of one request. Truncation (`top_k`, `top_p`, `min_p`, in this order) looks at the
/// distribution before `temperature`, as llama.cpp's and mlx-lm's chains do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probability reaches this, in (0, 1]; 1 is off.
    pub top_p: f32,
    /// Keeps the k likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Drops tokens less likely than this times the likeliest, in [0, 1]; 0 is off.
    pub min_p: f32,
    /// The same seed, prompt and parameters give the same tokens, whatever else is in the batch.
    /// `None`: the engine draws one.
    pub seed: Option<u64>,
    /// Per-token additions.
    #[serde(deserialize_with = "at_most::<{ Sampling::MAX_BIASES }, _, _>")]
    pub logit_bias: Vec<LogitBias>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: None, logit_bias: Vec::new() }
    }
}

impl Sampling {
    /// Most biases.
    pub const MAX_BIASES: usize = 65_536;

    /// Whether the likeliest token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }
}
