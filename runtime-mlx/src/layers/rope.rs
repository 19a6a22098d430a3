//! Rotary position embedding (Su et al. 2021) with the scalings that checkpoints ask for; must not know caches.

use std::f32::consts::TAU;

use mlx_rs::{Array, fast};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{error::MlxError, sys::Result};

/// The rotary fields of a `config.json`, in its older form (`rope_theta`, `rope_scaling`) and the newer one
/// (`rope_parameters`).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RopeArgs {
    rope_theta: Option<f32>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    #[serde(default)]
    rope_traditional: bool,
}

/// Rotates queries and keys by their positions.
pub(crate) struct Rope {
    dims: i32,
    traditional: bool,
    base: f32,
    scale: f32,
    /// Wavelength divisors that replace `base`, `[dims / 2]`.
    freqs: Option<Array>,
}

impl Rope {
    /// For heads of `dims` numbers; `theta` is the family's default base.
    pub(crate) fn new(args: &RopeArgs, dims: i32, theta: f32) -> std::result::Result<Self, MlxError> {
        let scaling = args.rope_parameters.as_ref().or(args.rope_scaling.as_ref());
        let in_scaling = scaling.and_then(|s| s.get("rope_theta")).and_then(Value::as_f64);
        let base = in_scaling.map(|t| t as f32).or(args.rope_theta).unwrap_or(theta);
        let mut rope = Self { dims, traditional: args.rope_traditional, base, scale: 1.0, freqs: None };
        let Some(scaling) = scaling else { return Ok(rope) };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        match kind {
            None | Some("default") => {}
            Some("linear") => rope.scale = 1.0 / number(scaling, "factor")?,
            Some("llama3") => {
                let freqs = llama3(scaling, dims, base)?;
                rope.freqs = Some(Array::from_slice(&freqs, &[dims / 2]));
            }
            Some(other) => {
                return Err(MlxError::Config(format!(
                    "`rope_scaling.rope_type` is `{other}`; this version knows default, linear and llama3"
                )));
            }
        }
        Ok(rope)
    }

    /// `x` `[tokens, heads, 1, dims]`, each token rotated by its own entry of `positions` `[tokens]`.
    pub(crate) fn forward(&self, x: &Array, positions: &Array) -> Result<Array> {
        let base = self.freqs.is_none().then_some(self.base);
        fast::rope_dynamic(x, self.dims, self.traditional, base, self.scale, positions, self.freqs.as_ref())
    }
}

fn number(scaling: &Map<String, Value>, key: &str) -> std::result::Result<f32, MlxError> {
    let value = scaling.get(key).and_then(Value::as_f64).filter(|n| n.is_finite() && *n > 0.0);
    value
        .map(|n| n as f32)
        .ok_or_else(|| MlxError::Config(format!("`rope_scaling.{key}` is missing or not a positive number")))
}

/// Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones stay, those between are mixed.
fn llama3(scaling: &Map<String, Value>, dims: i32, base: f32) -> std::result::Result<Vec<f32>, MlxError> {
    let factor = number(scaling, "factor")?;
    let low = number(scaling, "low_freq_factor")?;
    let high = number(scaling, "high_freq_factor")?;
    let trained = number(scaling, "original_max_position_embeddings")?;
    let stretch = |i: i32| {
        let divisor = base.powf(2.0 * i as f32 / dims as f32);
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
    Ok((0..dims / 2).map(stretch).collect())
}
