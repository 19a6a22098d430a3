//! What a model folder was made for, vectors, scores or answers, from the files that sentence-transformers writes and from
//! its name; must not know tensors.

use std::path::Path;

use engine::pool::Pooling;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::{Config, read_json},
    error::MlxError,
};

/// What a model was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MadeFor {
    /// Answers. What else is made of its hidden states is their mean, of unit length.
    Answers,
    /// Vectors, made like this.
    Vectors { pooling: Pooling, normalise: bool },
    /// Scores, by saying yes or no.
    Scores,
}

/// How much of a path is a model's name: its folder, or `models--org--name/snapshots/revision` of the hub's cache.
const NAME_PARTS: usize = 3;

/// Reads it. `id`: the name by which it is served, which may be its repository's.
///
/// # Errors
/// For what this version does not compute, by name.
pub(crate) fn made_for(dir: &Path, id: &str, config: &Config) -> Result<MadeFor, MlxError> {
    if config.is_two_way() {
        let message = "`is_causal` is false: this model reads texts both ways, which this version does not compute";
        return Err(MlxError::Config(message.into()));
    }
    let called = |name: &str| {
        let parts = dir.components().rev().take(NAME_PARTS).map(|part| part.as_os_str().to_string_lossy());
        parts.chain([id.into()]).any(|part| part.to_ascii_lowercase().contains(name))
    };
    // Conversions keep neither files nor fields that tell these from the chat models that they were made of.
    if config.model_type == "qwen3" && called("qwen3-reranker") {
        return Ok(MadeFor::Scores);
    }
    if let Some(modules) = read_json(&dir.join("modules.json"))? {
        return of_modules(dir, &modules);
    }
    if config.model_type == "qwen3" && called("qwen3-embedding") {
        return Ok(MadeFor::Vectors { pooling: Pooling::Last, normalise: true });
    }
    if config.is_headless() {
        return Ok(MadeFor::Vectors { pooling: Pooling::Mean, normalise: true });
    }
    Ok(MadeFor::Answers)
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// sentence-transformers' chain of modules: what it does behind the transformer.
fn of_modules(dir: &Path, modules: &Value) -> Result<MadeFor, MlxError> {
    let file = dir.join("modules.json");
    let modules: Vec<Module> = Vec::deserialize(modules).map_err(|error| MlxError::file(&file, error))?;
    let (mut found, mut unit) = (None, false);
    for module in modules {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => found = Some(pooling(&dir.join(inside(&file, &module.path)?).join("config.json"))?),
            "Normalize" => unit = true,
            other => {
                let message = format!("the module `{other}` is none that this version computes");
                return Err(MlxError::file(file, message));
            }
        }
    }
    let pooling = found.ok_or_else(|| MlxError::file(&file, "it names no module `Pooling`"))?;
    Ok(MadeFor::Vectors { pooling, normalise: unit })
}

/// A module's folder, which lies in the model's.
fn inside<'a>(file: &Path, path: &'a str) -> Result<&'a str, MlxError> {
    let plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain {
        Ok(path)
    } else {
        Err(MlxError::file(file, format!("the path {path:?} leads out of the model's folder")))
    }
}

/// `1_Pooling/config.json`: a flag for each way, or its name.
fn pooling(file: &Path) -> Result<Pooling, MlxError> {
    let config = read_json(file)?.ok_or_else(|| MlxError::file(file, "not found, and modules.json names it"))?;
    let flags = config.as_object().into_iter().flatten();
    let set = flags.filter(|(name, value)| name.starts_with("pooling_mode_") && **value == Value::Bool(true));
    let mut ways: Vec<&str> = set.map(|(name, _)| name.trim_start_matches("pooling_mode_")).collect();
    ways.extend(config.get("pooling_mode").and_then(Value::as_str));
    match ways.as_slice() {
        ["lasttoken"] => Ok(Pooling::Last),
        ["cls_token" | "cls"] => Ok(Pooling::First),
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        [] => Err(MlxError::file(file, "no pooling mode is set")),
        others => {
            let message = format!("pools by {}; this version does by cls, mean or lasttoken", others.join(" and "));
            Err(MlxError::file(file, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(name: &str, config: &Value) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(folder.0.path().join(name)).unwrap();
            folder.write(&format!("{name}/config.json"), config)
        }

        fn write(self, file: &str, json: &Value) -> Self {
            let file = self.0.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, json.to_string()).unwrap();
            self
        }

        fn made_for(&self, name: &str) -> Result<MadeFor, String> {
            let dir = self.0.path().join(name);
            made_for(&dir, "served", &Config::read(&dir).unwrap()).map_err(|error| error.to_string())
        }
    }

    fn modules(kinds: &[&str]) -> Value {
        let paths = ["", "1_Pooling", "2_Normalize", "3_Dense"];
        kinds.iter().zip(paths).map(|(kind, path)| json!({"path": path, "type": kind})).collect()
    }

    #[test]
    fn what_a_folder_was_made_for_stands_in_its_files_or_in_its_name() {
        let qwen3 = json!({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]});
        let (last, mean) = (Pooling::Last, Pooling::Mean);
        let vectors = |pooling: &Pooling| MadeFor::Vectors { pooling: pooling.clone(), normalise: true };
        let plain = |name: &str, config: &Value| Folder::new(name, config).made_for(name).unwrap();
        assert_eq!(plain("chat", &qwen3), MadeFor::Answers);
        assert_eq!(plain("Qwen3-Embedding-0.6B-4bit", &qwen3), vectors(&last));
        assert_eq!(plain("models--org--Qwen3-Reranker-4B/snapshots/1234", &qwen3), MadeFor::Scores);
        let llama = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"]});
        assert_eq!(plain("my-Qwen3-Reranker", &llama), MadeFor::Answers);
        let bare = json!({"model_type": "mistral", "architectures": ["MistralModel"]});
        assert_eq!(plain("e5", &bare), vectors(&mean));
        let st = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", "a.Normalize"];
        let flags = |way: &str| {
            json!({"word_embedding_dimension": 8, "pooling_mode_cls_token": way == "cls",
            "pooling_mode_mean_tokens": way == "mean", "pooling_mode_lasttoken": way == "last", "include_prompt": true})
        };
        for (way, pooling) in [("cls", Pooling::First), ("mean", mean), ("last", last)] {
            let folder = Folder::new("e", &llama).write("e/1_Pooling/config.json", &flags(way));
            let folder = folder.write("e/modules.json", &modules(&st));
            assert_eq!(folder.made_for("e").unwrap(), vectors(&pooling));
            let folder = folder.write("e/modules.json", &modules(&st[..2]));
            assert_eq!(folder.made_for("e").unwrap(), MadeFor::Vectors { pooling, normalise: false });
        }
        let named = Folder::new("e", &llama).write("e/1_Pooling/config.json", &json!({"pooling_mode": "mean"}));
        assert_eq!(named.write("e/modules.json", &modules(&st)).made_for("e").unwrap(), vectors(&Pooling::Mean));
    }

    #[test]
    fn what_is_not_computed_is_named() {
        let llama = json!({"model_type": "llama"});
        let folder = || Folder::new("e", &llama);
        let pooling = |config: &Value| folder().write("e/1_Pooling/config.json", config);
        let both = json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true});
        let all = ["Transformer", "Pooling", "Normalize", "Dense"];
        for (folder, word) in [
            (Folder::new("e", &json!({"model_type": "qwen2", "is_causal": false})), "is_causal"),
            (folder().write("e/modules.json", &modules(&all[..2])), "1_Pooling"),
            (folder().write("e/modules.json", &modules(&all[..1])), "Pooling"),
            (pooling(&both).write("e/modules.json", &modules(&all[..2])), "max_tokens"),
            (pooling(&json!({})).write("e/modules.json", &modules(&all[..2])), "no pooling mode"),
            (pooling(&json!({"pooling_mode": "cls"})).write("e/modules.json", &modules(&all)), "Dense"),
            (folder().write("e/modules.json", &json!([{"path": "../x", "type": "Pooling"}])), "leads out"),
            (folder().write("e/modules.json", &json!({"path": 1})), "modules.json"),
        ] {
            let message = folder.made_for("e").unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
