//! Rotary position embedding (Su et al. 2021) with the scalings that checkpoints ask for; must not know caches.

use std::f32::consts::TAU;

use mlx_rs::{Array, fast, ops};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::split;
use crate::{error::MlxError, sys::Result};

/// The rotary fields of a `config.json`, in its older form (`rope_theta`, `rope_scaling`) and the newer one
/// (`rope_parameters`).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RopeArgs {
    pub(crate) rope_theta: Option<f32>,
    pub(crate) rope_scaling: Option<Map<String, Value>>,
    pub(crate) rope_parameters: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) rope_traditional: bool,
    /// Share of each head that is rotated.
    pub(crate) partial_rotary_factor: Option<f32>,
    pub(crate) max_position_embeddings: Option<f32>,
    pub(crate) original_max_position_embeddings: Option<f32>,
}

impl RopeArgs {
    /// The scaling's fields, wherever they are.
    pub(crate) fn scaling(&self) -> Option<&Map<String, Value>> {
        self.rope_parameters.as_ref().or(self.rope_scaling.as_ref())
    }

    /// The base of the wavelengths; `theta` where `config.json` is silent.
    pub(crate) fn theta(&self, theta: f32) -> f32 {
        let within = self.scaling().and_then(|s| s.get("rope_theta")).and_then(Value::as_f64);
        within.map(|t| t as f32).or(self.rope_theta).unwrap_or(theta)
    }

    /// Numbers of a head of `dim` that are rotated; `share` where `config.json` is silent.
    pub(crate) fn rotated(&self, dim: i32, share: f32) -> i32 {
        let within = self.scaling().and_then(|s| s.get("partial_rotary_factor")).and_then(Value::as_f64);
        (dim as f32 * within.map(|s| s as f32).or(self.partial_rotary_factor).unwrap_or(share)) as i32
    }
}

/// Rotates queries and keys by their positions.
pub(crate) struct Rope {
    dims: i32,
    traditional: bool,
    base: f32,
    scale: f32,
    /// Wavelength divisors that replace `base`, `[dims / 2]`.
    freqs: Option<Array>,
    /// By which what is rotated is multiplied before.
    gain: f32,
}

impl Rope {
    /// Of the first `dims` numbers of each head, without any scaling.
    pub(crate) fn plain(dims: i32, base: f32) -> Self {
        Self { dims, traditional: false, base, scale: 1.0, freqs: None, gain: 1.0 }
    }

    /// Of the first `dims` numbers of each head; `theta` is the family's default base.
    pub(crate) fn new(args: &RopeArgs, dims: i32, theta: f32) -> std::result::Result<Self, MlxError> {
        let base = args.theta(theta);
        let mut rope = Self { traditional: args.rope_traditional, ..Self::plain(dims, base) };
        let Some(scaling) = args.scaling() else { return Ok(rope) };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        let freqs = match kind {
            // With several axes of positions (mrope) a text's are all the same.
            None | Some("default" | "mrope") => return Ok(rope),
            Some("linear") => {
                rope.scale = 1.0 / number(scaling, "factor")?;
                return Ok(rope);
            }
            Some("llama3") => llama3(scaling, dims, base)?,
            Some("yarn" | "deepseek_yarn" | "telechat3-yarn") => {
                rope.gain = yarn_gain(scaling)?;
                yarn(scaling, dims, base)?
            }
            Some("longrope" | "su") => {
                rope.gain = long_gain(args, scaling)?;
                long(scaling, dims, base)?
            }
            Some("proportional") => proportional(scaling, dims, base)?,
            Some(other) => {
                return Err(MlxError::Config(format!(
                    "`rope_scaling.rope_type` is `{other}`; this version knows default, linear, llama3, yarn, longrope, \
                     proportional and mrope"
                )));
            }
        };
        rope.freqs = Some(Array::from_slice(&freqs, &[dims / 2]));
        Ok(rope)
    }

    /// Pairs are neighbours, and not halves of the head, whatever `config.json` says.
    pub(crate) fn of_neighbours(self) -> Self {
        Self { traditional: true, ..self }
    }

    /// `x` `[tokens, heads, 1, dim]`, each token rotated by its own entry of `positions` `[tokens]`.
    pub(crate) fn forward(&self, x: &Array, positions: &Array) -> Result<Array> {
        let base = self.freqs.is_none().then_some(self.base);
        let gained;
        let x = match self.gain == 1.0 {
            true => x,
            false => {
                gained = self.gained(x)?;
                &gained
            }
        };
        fast::rope_dynamic(x, self.dims, self.traditional, base, self.scale, positions, self.freqs.as_ref())
    }

    fn gained(&self, x: &Array) -> Result<Array> {
        let gain = Array::from_f32(self.gain).as_dtype(x.dtype())?;
        let rest = x.dim(-1) - self.dims;
        if rest == 0 {
            return x.multiply(gain);
        }
        let [rotated, rest] = split(x, [self.dims, rest])?;
        ops::concatenate(&[&rotated.multiply(gain)?, &rest], -1)
    }
}

fn number(scaling: &Map<String, Value>, key: &str) -> std::result::Result<f32, MlxError> {
    optional(scaling, key)?
        .ok_or_else(|| MlxError::Config(format!("`rope_scaling.{key}` is missing or not a positive number")))
}

fn optional(scaling: &Map<String, Value>, key: &str) -> std::result::Result<Option<f32>, MlxError> {
    match scaling.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|n| n.is_finite() && *n >= 0.0) {
            Some(n) => Ok(Some(n as f32)),
            None => Err(MlxError::Config(format!("`rope_scaling.{key}` is {value}, not a positive number"))),
        },
    }
}

/// `base` to the power of 0, 2/dims, 4/dims, …
fn divisors(dims: i32, base: f32) -> impl Iterator<Item = f32> {
    (0..dims / 2).map(move |i| base.powf(2.0 * i as f32 / dims as f32))
}

/// Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones stay, those between are mixed.
fn llama3(scaling: &Map<String, Value>, dims: i32, base: f32) -> std::result::Result<Vec<f32>, MlxError> {
    let factor = number(scaling, "factor")?;
    // Defaults: those of Llama 3.1, as in mlx-lm.
    let low = optional(scaling, "low_freq_factor")?.unwrap_or(1.0);
    let high = optional(scaling, "high_freq_factor")?.unwrap_or(4.0);
    let trained = optional(scaling, "original_max_position_embeddings")?.unwrap_or(8192.0);
    let stretch = |divisor: f32| {
        let turns = trained / (TAU * divisor);
        if turns < low {
            divisor * factor
        } else if turns > high {
            divisor
        } else {
            let smooth = (turns - low) / (high - low);
            divisor / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok(divisors(dims, base).map(stretch).collect())
}

/// YaRN (Peng et al. 2023): wavelengths that turn often within the trained context stay, those that turn seldom are
/// stretched, with a ramp between.
fn yarn(scaling: &Map<String, Value>, dims: i32, base: f32) -> std::result::Result<Vec<f32>, MlxError> {
    let factor = number(scaling, "factor")?;
    let trained = optional(scaling, "original_max_position_embeddings")?.unwrap_or(4096.0);
    let dim_of = |turns: f32| dims as f32 * (trained / (turns * TAU)).ln() / (2.0 * base.ln());
    let low = dim_of(optional(scaling, "beta_fast")?.unwrap_or(32.0)).floor().max(0.0);
    let high = dim_of(optional(scaling, "beta_slow")?.unwrap_or(1.0)).ceil().min(dims as f32 - 1.0);
    // A ramp of no length would divide by zero. Origin: the paper's code.
    let length = if low == high { 0.001 } else { high - low };
    let blend = |(i, divisor): (usize, f32)| {
        let kept = 1.0 - ((i as f32 - low) / length).clamp(0.0, 1.0);
        let stretched = factor * divisor;
        stretched * divisor / (stretched * kept + divisor * (1.0 - kept))
    };
    Ok(divisors(dims, base).enumerate().map(blend).collect())
}

/// What YaRN adds to the attention's temperature for a context stretched by `factor`.
pub(crate) fn yarn_temperature(factor: f32, mscale: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

fn yarn_gain(scaling: &Map<String, Value>) -> std::result::Result<f32, MlxError> {
    let factor = number(scaling, "factor")?;
    let mscale = optional(scaling, "mscale")?.unwrap_or(1.0);
    let all = optional(scaling, "mscale_all_dim")?.unwrap_or(0.0);
    Ok(yarn_temperature(factor, mscale) / yarn_temperature(factor, all))
}

/// LongRoPE (Ding et al. 2024): a factor for each wavelength. The long ones, whatever the prompt: a conversation may grow,
/// and keys once rotated stay.
fn long(scaling: &Map<String, Value>, dims: i32, base: f32) -> std::result::Result<Vec<f32>, MlxError> {
    let bad = || MlxError::Config(format!("`rope_scaling.long_factor` is not a list of {} numbers", dims / 2));
    let factors = scaling.get("long_factor").and_then(Value::as_array).ok_or_else(bad)?;
    if factors.len() != (dims / 2) as usize {
        return Err(bad());
    }
    let scaled = divisors(dims, base).zip(factors);
    scaled.map(|(divisor, factor)| factor.as_f64().map(|f| f as f32 * divisor).ok_or_else(bad)).collect()
}

fn long_gain(args: &RopeArgs, scaling: &Map<String, Value>) -> std::result::Result<f32, MlxError> {
    let missing = |key: &str| MlxError::Config(format!("`{key}` is missing, and longrope needs it"));
    let trained = optional(scaling, "original_max_position_embeddings")?.or(args.original_max_position_embeddings);
    let trained = trained.ok_or_else(|| missing("original_max_position_embeddings"))?;
    let now = args.max_position_embeddings.ok_or_else(|| missing("max_position_embeddings"))?;
    let factor = now / trained;
    Ok(if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / trained.ln()).sqrt() })
}

/// Gemma 4's global layers: wavelengths as of whole heads, but only the first of them turn.
fn proportional(scaling: &Map<String, Value>, dims: i32, base: f32) -> std::result::Result<Vec<f32>, MlxError> {
    let share = optional(scaling, "partial_rotary_factor")?.unwrap_or(1.0);
    let factor = optional(scaling, "factor")?.unwrap_or(1.0);
    let rotated = (dims as f32 * share) as usize / 2;
    let turns = |(i, divisor)| if i < rotated { factor * divisor } else { f32::INFINITY };
    Ok(divisors(dims, base).enumerate().map(turns).collect())
}
