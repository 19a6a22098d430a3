//! `config.json` and `generation_config.json` as MLX checkpoints have them; must not know tensors.

use std::path::Path;

use mesh_proto::TokenId;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{error::MlxError, quantization::Quantization};

/// A checkpoint's configuration: the parts every family reads, and the rest for the family itself.
#[derive(Debug)]
pub(crate) struct Config {
    /// Names the family.
    pub(crate) model_type: String,
    /// Tokens that end an answer, from both files, in order, each once.
    pub(crate) eos: Vec<TokenId>,
    /// How the weights are stored.
    pub(crate) quantization: Option<Quantization>,
    raw: Value,
}

impl Config {
    /// Reads both files of a model folder; `generation_config.json` may be absent.
    pub(crate) fn read(dir: &Path) -> Result<Self, MlxError> {
        let raw = read_json(&dir.join("config.json"))?
            .ok_or_else(|| MlxError::file(dir.join("config.json"), "not found; is this a model folder?"))?;
        let model_type = raw
            .get("model_type")
            .and_then(Value::as_str)
            .ok_or_else(|| MlxError::Config("`model_type` is missing, so the family is unknown".into()))?
            .to_owned();
        let generation = read_json(&dir.join("generation_config.json"))?.unwrap_or(Value::Null);
        let mut eos = Vec::new();
        for (file, value) in [("config.json", &raw), ("generation_config.json", &generation)] {
            for id in eos_ids(file, value)? {
                if !eos.contains(&id) {
                    eos.push(id);
                }
            }
        }
        let quantization = Quantization::read(&raw)?;
        Ok(Self { model_type, eos, quantization, raw })
    }

    /// Whether the language model's arguments lie one level deeper.
    pub(crate) fn has_text_config(&self) -> bool {
        self.raw.get("text_config").is_some_and(Value::is_object)
    }

    /// The language model's own arguments and its rotary fields, which checkpoints that see images too have one level
    /// deeper, in `text_config`. What stands beside it (the vocabulary's size, say) holds where it is silent.
    pub(crate) fn text_args<T: DeserializeOwned, U: DeserializeOwned>(&self) -> Result<(T, U), MlxError> {
        self.text_args_over(&Map::new())
    }

    /// The same, with the family's own `defaults` where both are silent.
    pub(crate) fn text_args_over<T: DeserializeOwned, U: DeserializeOwned>(
        &self,
        defaults: &Map<String, Value>,
    ) -> Result<(T, U), MlxError> {
        let mut fields = defaults.clone();
        for said in [Some(&self.raw), self.raw.get("text_config")].into_iter().flatten() {
            fields.extend(said.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        }
        let fields = Value::Object(fields);
        let both = (serde_json::from_value(fields.clone()), serde_json::from_value(fields));
        let bad = |e: serde_json::Error| MlxError::Config(e.to_string());
        Ok((both.0.map_err(bad)?, both.1.map_err(bad)?))
    }

    fn architecture(&self) -> &str {
        self.raw["architectures"][0].as_str().unwrap_or_default()
    }

    /// Whether it was saved without a head: nothing can be generated.
    pub(crate) fn is_headless(&self) -> bool {
        self.architecture().ends_with("Model")
    }

    /// Lets a family read a checkpoint without a head, which nobody asks for logits.
    pub(crate) fn tie_head(&mut self) {
        self.raw["tie_word_embeddings"] = Value::Bool(true);
    }

    /// Whether tokens see those behind them.
    pub(crate) fn is_two_way(&self) -> bool {
        self.raw["is_causal"] == Value::Bool(false) || self.raw["use_bidirectional_attention"] == Value::Bool(true)
    }

    /// Values of a hidden state; 0: not said.
    pub(crate) fn hidden_size(&self) -> u32 {
        self.raw["hidden_size"].as_u64().and_then(|size| u32::try_from(size).ok()).unwrap_or(0)
    }

    /// The family's own arguments.
    pub(crate) fn args<T: DeserializeOwned>(&self) -> Result<T, MlxError> {
        serde_json::from_value(self.raw.clone()).map_err(|e| MlxError::Config(e.to_string()))
    }
}

pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, MlxError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(MlxError::file(path, e)),
    };
    serde_json::from_str(&text).map(Some).map_err(|e| MlxError::file(path, format!("not valid JSON: {e}")))
}

/// `eos_token_id` is a number, a list of numbers, null or absent.
fn eos_ids(file: &str, config: &Value) -> Result<Vec<TokenId>, MlxError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    match config.get("eos_token_id") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => match OneOrMany::deserialize(value) {
            Ok(OneOrMany::One(id)) => Ok(vec![TokenId(id)]),
            Ok(OneOrMany::Many(ids)) => Ok(ids.into_iter().map(TokenId).collect()),
            Err(_) => Err(MlxError::file(file, format!("`eos_token_id` is {value}, not a token id or a list of them"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folder(config: &Value, generation: Option<&Value>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        if let Some(generation) = generation {
            std::fs::write(dir.path().join("generation_config.json"), generation.to_string()).unwrap();
        }
        dir
    }

    #[test]
    fn end_tokens_come_from_both_files_each_once() {
        let dir = folder(&json!({"model_type": "qwen3", "eos_token_id": 7}), Some(&json!({"eos_token_id": [7, 9]})));
        assert_eq!(Config::read(dir.path()).unwrap().eos, [TokenId(7), TokenId(9)]);
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for (block, word) in [
            (json!({"model_type": "x", "eos_token_id": "end"}), "eos_token_id"),
            (json!({"hidden_size": 1}), "model_type"),
        ] {
            let message = Config::read(folder(&block, None).path()).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
