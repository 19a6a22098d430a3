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

/// "Don't repeat yourself": lowers what would go on with a repetition longer than `allowed_length`, by
/// `multiplier · base^(length − allowed_length)`. Origin: p-e-w, text-generation-webui #5677; llama.cpp's `dry`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dry {
    /// Strength, above 0.
    pub multiplier: f32,
    /// Growth a token, at least 1; llama.cpp's default is 1.75.
    pub base: f32,
    /// Repetitions up to so many tokens cost nothing; llama.cpp's default is 2.
    pub allowed_length: u32,
    /// How many of the last tokens are looked at; `None`: all.
    pub last_n: Option<u32>,
    /// Texts that end a repetition; llama.cpp's defaults are a line break, `:`, `"` and `*`.
    #[serde(deserialize_with = "at_most::<{ Dry::MAX_BREAKERS }, _, _>")]
    pub breakers: Vec<String>,
}

impl Dry {
    /// Most breakers.
    pub const MAX_BREAKERS: usize = 32;
}

/// Sampling parameters of one request, in the order in which they act, which is llama.cpp's: biases, the penalties, DRY,
/// `top_k`, `typical_p`, `top_p`, `min_p`, XTC; then the temperature. What truncates looks at the distribution before the
/// temperature.
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
    /// Keeps the tokens whose information is closest to the expected one until their probability reaches this, in (0, 1];
    /// 1 is off. (locally typical sampling, Meister et al. 2022)
    pub typical_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens that came among the last `repeat_last_n`; 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens that came among the last `repeat_last_n`; 0 is off.
    pub presence_penalty: f32,
    /// The same, for each time that they came.
    pub frequency_penalty: f32,
    /// How many of the last tokens, prompt and answer, the three penalties look at; `None`: all.
    pub repeat_last_n: Option<u32>,
    /// Against repeated phrases; `None` is off.
    pub dry: Option<Dry>,
    /// How likely a step drops all tokens likelier than `xtc_threshold` but the least likely of them; 0 is off.
    /// ("exclude top choices", text-generation-webui #6335)
    pub xtc_probability: f32,
    /// In (0, 0.5]; above it no two tokens can be.
    pub xtc_threshold: f32,
    /// The same seed, prompt and parameters give the same tokens, whatever else is in the batch.
    /// `None`: the engine draws one.
    pub seed: Option<u64>,
    /// Per-token additions.
    #[serde(deserialize_with = "at_most::<{ Sampling::MAX_BIASES }, _, _>")]
    pub logit_bias: Vec<LogitBias>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: Some(Self::REPEAT_LAST_N),
            dry: None,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Most biases.
    pub const MAX_BIASES: usize = 65_536;
    /// What the penalties look at if nothing else is said. Unit: tokens; default 64; origin: llama.cpp.
    pub const REPEAT_LAST_N: u32 = 64;

    /// Whether a seed changes what is chosen. XTC tosses a coin at temperature 0 too.
    pub fn draws(&self) -> bool {
        self.top_k != 1 && (self.temperature != 0.0 || self.xtc_probability > 0.0)
    }

    /// Whether a token's choice depends on which ones came before, beyond what the model makes of them.
    pub fn looks_back(&self) -> bool {
        let penalties = self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0;
        (penalties && self.repeat_last_n != Some(0)) || self.dry.is_some()
    }
}
