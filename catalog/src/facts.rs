//! What a model's files say of it without being read whole; must not know who computes it.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value};

use crate::{
    CatalogError, GgufFiles, ModelFiles, gguf,
    weights::{self, Stored, damaged},
};

/// Context of a model whose `config.json` does not say. Origin: llama.cpp's default, and the MLX engine's.
const DEFAULT_CONTEXT: u32 = 4096;

/// Bit of `general.file_type` that says that it was guessed. Origin: `LLAMA_FTYPE_GUESSED` in `llama.h`.
const GUESSED: u64 = 1024;

/// What files say. Words are those that the engine will use once the model is loaded; what a file does not say is
/// empty, and for the engine to complain about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// The engine that will compute it: `mlx` or `gguf`.
    pub engine: &'static str,
    /// The family, e.g. `qwen3`.
    pub family: String,
    /// How the weights are stored, e.g. `4-bit affine, group 32` or `Q4_K_M`.
    pub quantization: String,
    /// Most tokens of prompt and answer together, before memory is looked at.
    pub context_tokens: u32,
    /// Bytes of all tensors, as stored; a projector's are not among them.
    pub weight_bytes: u64,
}

/// Reads `config.json` and the weights' headers, or the headers of a GGUF model's parts: milliseconds, whatever the model's size. Blocks.
///
/// # Errors
/// When a file cannot be read, is cut short, or is not what its name says. One line, with its name.
pub fn facts(files: &ModelFiles) -> Result<ModelFacts, CatalogError> {
    if let Some(gguf) = &files.gguf {
        return of_gguf(gguf);
    }
    let config = config(&files.dir)?;
    let mut stored = Stored::default();
    for path in weights::files(&files.dir)? {
        stored.add(&path)?;
    }
    let context = number(&config, "max_position_embeddings").unwrap_or(u64::from(DEFAULT_CONTEXT));
    Ok(ModelFacts {
        engine: "mlx",
        family: config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        quantization: quantization(&config).unwrap_or_else(|| dtype(&stored)),
        context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
        weight_bytes: stored.bytes,
    })
}

fn of_gguf(files: &GgufFiles) -> Result<ModelFacts, CatalogError> {
    let headers = files.parts.iter().map(|path| gguf::read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut kinds = BTreeMap::<u32, u64>::new();
    for tensor in headers.iter().flat_map(gguf::Header::tensors) {
        let bytes = kinds.entry(tensor.kind).or_default();
        *bytes = bytes.saturating_add(tensor.bytes);
    }
    // Parts after the first one repeat only what splitting needs.
    let first = headers.first();
    let context = first.and_then(|header| header.own("context_length")).unwrap_or(u64::from(DEFAULT_CONTEXT));
    let declared = first.and_then(|header| header.number("general.file_type"));
    let declared = declared.and_then(|number| gguf::file_type_name(number & !GUESSED)).map(str::to_owned);
    let most = || {
        let (kind, _) = kinds.iter().max_by_key(|(_, bytes)| **bytes)?;
        Some(gguf::kind_name(*kind).map_or_else(|| format!("ggml kind {kind}"), str::to_owned))
    };
    Ok(ModelFacts {
        engine: "gguf",
        family: first.map(|header| header.architecture().to_owned()).unwrap_or_default(),
        quantization: declared.or_else(most).unwrap_or_default(),
        context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
        weight_bytes: kinds.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
    })
}

pub(crate) fn config(dir: &Path) -> Result<Map<String, Value>, CatalogError> {
    let path = dir.join("config.json");
    let text = fs::read(&path).map_err(|cause| CatalogError::Io { path: path.clone(), cause })?;
    serde_json::from_slice(&text).map_err(|error| damaged(&path, format!("not valid JSON: {error}")))
}

/// Of the model, or of the text half of one that also sees.
pub(crate) fn number(config: &Map<String, Value>, name: &str) -> Option<u64> {
    let nested = || config.get("text_config").and_then(|text| text.get(name));
    config.get(name).or_else(nested).and_then(Value::as_u64)
}

fn quantization(config: &Map<String, Value>) -> Option<String> {
    let block = ["quantization", "quantization_config"].iter().find_map(|name| config.get(*name)?.as_object())?;
    let (bits, group) = (block.get("bits")?.as_u64()?, block.get("group_size")?.as_u64()?);
    let mode = block.get("mode").and_then(Value::as_str).unwrap_or("affine");
    let mixed = block.values().any(|value| value.is_object() || value.is_boolean());
    Some(format!("{bits}-bit {mode}, group {group}{}", if mixed { ", mixed" } else { "" }))
}

/// The type that most bytes have, as the engine picks it.
fn dtype(stored: &Stored) -> String {
    let most = stored.floats.iter().max_by_key(|(_, bytes)| **bytes);
    most.map_or("float32", |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use mesh_proto::ModelId;

    use super::*;
    use crate::{Format, gguf::writer::Writer, weights::tests::safetensors};

    fn facts_of(config: &str) -> Result<ModelFacts, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        fs::write(dir.path().join("model.safetensors"), safetensors(&[0; 8])).unwrap();
        let files = ModelFiles { id: ModelId::new("m"), dir: dir.path().to_owned(), gguf: None };
        facts(&files).map_err(|error| error.to_string())
    }

    #[test]
    fn the_bundled_model_is_told_in_the_engines_words() {
        let cache = tempfile::tempdir().unwrap();
        let tiny = |format| crate::resolve("mesh-tiny", cache.path(), Some(format), None).unwrap();
        let found = facts(&tiny(Format::Mlx)).unwrap();
        assert_eq!((found.engine, found.family.as_str()), ("mlx", "qwen3"));
        assert_eq!((found.quantization.as_str(), found.context_tokens), ("4-bit affine, group 32", 4096));
        assert!((1 << 20..16 << 20).contains(&found.weight_bytes), "{}", found.weight_bytes);
        let same = facts(&tiny(Format::Gguf)).unwrap();
        assert_eq!((same.engine, same.family.as_str(), same.quantization.as_str()), ("gguf", "qwen3", "Q4_1"));
        assert_eq!(same.context_tokens, 4096);
        assert!(found.weight_bytes.abs_diff(same.weight_bytes) < 32 << 10, "norms are f32 in one of them");
    }

    #[test]
    fn a_gguf_model_is_told_by_all_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, part: Writer| fs::write(dir.path().join(name), part.bytes()).unwrap();
        let first =
            |file_type: u32| Writer::new("toy").number("toy.context_length", 77).number("general.file_type", file_type);
        let facts = || facts(&crate::open_gguf(dir.path(), None).unwrap()).unwrap();
        write("m-00002-of-00002.gguf", Writer::default().number("split.count", 2).tensor("b", &[256], 12, 144));
        for (number, said) in [(15, "Q4_K_M"), (1024 + 15, "Q4_K_M"), (999, "Q4_K")] {
            write("m-00001-of-00002.gguf", first(number).number("split.count", 2).tensor("a", &[8], 0, 32));
            let found = facts();
            assert_eq!((found.quantization.as_str(), found.weight_bytes, found.context_tokens), (said, 176, 77));
        }
        write("m-00002-of-00002.gguf", Writer::default().number("split.count", 2).tensor("b", &[256], 77, 160));
        assert_eq!(facts().quantization, "ggml kind 77");
    }

    #[test]
    fn what_config_json_says_is_found_where_models_have_it() {
        let found = facts_of(r#"{"model_type":"x","text_config":{"max_position_embeddings":99}}"#).unwrap();
        assert_eq!((found.context_tokens, found.quantization.as_str(), found.weight_bytes), (99, "float32", 8));
        let mixed = r#"{"quantization":{"bits":8,"group_size":64,"a.b":false}}"#;
        assert_eq!(facts_of(mixed).unwrap().quantization, "8-bit affine, group 64, mixed");
        let mode = r#"{"quantization_config":{"bits":4,"group_size":32,"mode":"mxfp4"}}"#;
        assert_eq!(facts_of(mode).unwrap().quantization, "4-bit mxfp4, group 32");
        assert_eq!(facts_of("{}").unwrap().context_tokens, DEFAULT_CONTEXT);
    }

    #[test]
    fn a_config_that_is_none_is_named() {
        assert!(facts_of("{").unwrap_err().contains("config.json: not valid JSON"));
    }
}
