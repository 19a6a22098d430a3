//! Fields of `config.json` that most families share, checked; must not know tensors.

use serde::Deserialize;

use crate::{
    config::Config,
    error::MlxError,
    layers::{Heads, RopeArgs},
};

/// The fields of `config.json` that dense transformers share.
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
    pub(crate) max_position_embeddings: Option<u32>,
    pub(crate) tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    sliding_window: Option<i32>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(default)]
    pub(crate) mlp_bias: bool,
    #[serde(skip)]
    pub(crate) rope: RopeArgs,
}

impl DenseArgs {
    /// Refuses what the shared layers do not compute, by name, and sizes that no model has.
    pub(crate) fn read(config: &Config) -> Result<Self, MlxError> {
        let (args, rope): (Self, RopeArgs) = config.text_args()?;
        let args = Self { rope, ..args };
        only("hidden_act", args.hidden_act.as_deref(), "silu")?;
        positive(&[
            ("hidden_size", args.hidden_size),
            ("intermediate_size", args.intermediate_size),
            ("num_attention_heads", args.num_attention_heads),
            ("num_key_value_heads", args.kv_heads()),
            ("head_dim", args.head_dim()),
            ("vocab_size", args.vocab_size),
        ])?;
        layers(args.num_hidden_layers)?;
        grouped(args.num_attention_heads, args.kv_heads())?;
        Ok(args)
    }

    pub(crate) fn kv_heads(&self) -> i32 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(crate) fn head_dim(&self) -> i32 {
        self.head_dim.unwrap_or_else(|| self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0))
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads {
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.kv_heads(),
            dim: self.head_dim(),
        }
    }

    /// The last tokens that each one sees in a layer; `None`: all.
    pub(crate) fn window(&self, layer: usize) -> Option<i32> {
        let slides = match (&self.layer_types, self.max_window_layers) {
            (Some(types), _) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            // Of the families that say from which layer on, most checkpoints mean none.
            (None, Some(first)) => self.use_sliding_window.unwrap_or(false) && layer >= first,
            (None, None) => self.use_sliding_window.unwrap_or(true),
        };
        // One that no text outgrows is none.
        let limit = self.max_position_embeddings.and_then(|n| i32::try_from(n).ok()).unwrap_or(i32::MAX);
        self.sliding_window.filter(|window| slides && (1..limit).contains(window))
    }
}

/// Refuses sizes that no model has, by name.
pub(crate) fn positive(sizes: &[(&str, i32)]) -> Result<(), MlxError> {
    match sizes.iter().find(|(_, n)| *n <= 0) {
        Some((name, value)) => Err(MlxError::Config(format!("`{name}` is {value}; it must be positive"))),
        None => Ok(()),
    }
}

/// Refuses a `num_hidden_layers` that no model has.
pub(crate) fn layers(n: usize) -> Result<(), MlxError> {
    if n == 0 || n > 1000 {
        return Err(MlxError::Config(format!("`num_hidden_layers` is {n}")));
    }
    Ok(())
}

/// Refuses heads that cannot share keys evenly.
pub(crate) fn grouped(heads: i32, kv_heads: i32) -> Result<(), MlxError> {
    if kv_heads <= 0 || heads % kv_heads != 0 {
        return Err(MlxError::Config("`num_attention_heads` is no multiple of `num_key_value_heads`".into()));
    }
    Ok(())
}

/// Refuses a choice other than the one that a family computes.
pub(crate) fn only(name: &str, said: Option<&str>, known: &str) -> Result<(), MlxError> {
    match said.filter(|said| *said != known) {
        Some(said) => Err(MlxError::Config(format!("`{name}` is `{said}`; this family computes `{known}`"))),
        None => Ok(()),
    }
}

/// Refuses caps of scores or logits that cap nothing sensible.
pub(crate) fn capping(caps: &[(&str, Option<f32>)]) -> Result<(), MlxError> {
    match caps.iter().find(|(_, cap)| cap.is_some_and(|cap| !cap.is_finite() || cap <= 0.0)) {
        Some((name, cap)) => {
            Err(MlxError::Config(format!("`{name}` is {}; it must be positive, or null", cap.unwrap_or(0.0))))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_layer_has_the_window_that_config_json_gives_it() {
        let windows = |fields: Value| {
            let mut all = json!({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 8, "num_attention_heads": 2,
                "rms_norm_eps": 1e-6, "vocab_size": 8, "max_position_embeddings": 100});
            all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let args: DenseArgs = serde_json::from_value(all).unwrap();
            [args.window(0), args.window(1)]
        };
        assert_eq!(windows(json!({})), [None, None]);
        assert_eq!(windows(json!({"sliding_window": 10})), [Some(10), Some(10)]);
        // One that no text outgrows is none.
        assert_eq!(windows(json!({"sliding_window": 100})), [None, None]);
        assert_eq!(windows(json!({"sliding_window": 10, "use_sliding_window": false})), [None, None]);
        let kinds = json!(["full_attention", "sliding_attention"]);
        assert_eq!(windows(json!({"sliding_window": 10, "layer_types": kinds})), [None, Some(10)]);
        let late = json!({"sliding_window": 10, "use_sliding_window": true, "max_window_layers": 1});
        assert_eq!(windows(late), [None, Some(10)]);
    }

    #[test]
    fn what_a_family_does_not_compute_is_named() {
        assert!(only("hidden_act", None, "silu").is_ok() && only("hidden_act", Some("silu"), "silu").is_ok());
        assert!(only("hidden_act", Some("relu"), "silu").unwrap_err().to_string().contains("`hidden_act` is `relu`"));
        assert!(capping(&[("cap", None), ("cap", Some(30.0))]).is_ok());
        assert!(capping(&[("cap", Some(-1.0))]).unwrap_err().to_string().contains("`cap` is -1"));
    }
}
