//! A checkpoint's tensors, each to be used exactly once; must not know architectures.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use mlx_rs::{Array, Dtype};
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::{error::MlxError, quantization::Quantization};

/// A safetensors header larger than this is refused: 100 MB, the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Tensors by name. Taking one removes it; what is left at the end is an error.
#[derive(Debug)]
pub(crate) struct Weights {
    tensors: BTreeMap<String, Array>,
    /// Bytes of all files' tensors, as stored.
    pub(crate) stored_bytes: u64,
}

impl Weights {
    /// Opens `model.safetensors.index.json`'s shards, or `model.safetensors`, or the folder's only
    /// `*.safetensors`. Headers are checked against file lengths here, so that a file cut short is an error
    /// with its name, and not a fault in the middle of serving. Tensor data is read when first used.
    pub(crate) fn open(dir: &Path) -> Result<Self, MlxError> {
        let (files, listed) = files(dir)?;
        let mut tensors = BTreeMap::new();
        let mut stored_bytes = 0;
        for path in &files {
            stored_bytes += check_header(path)?;
            let loaded = Array::load_safetensors(path).map_err(|e| MlxError::file(path, e))?;
            for (name, tensor) in loaded {
                if tensors.insert(name.clone(), tensor).is_some() {
                    return Err(MlxError::file(path, format!("the tensor `{name}` is in two files")));
                }
            }
        }
        if let Some(missing) = listed.iter().find(|name| !tensors.contains_key(*name)) {
            return Err(MlxError::MissingTensor(missing.clone()));
        }
        Ok(Self { tensors, stored_bytes })
    }

    /// Gives tensors that were saved without the head, and so without `model.` before their names, the names that families
    /// know.
    pub(crate) fn under_model(&mut self) {
        if !self.has("embed_tokens.weight") || self.tensors.keys().any(|name| name.starts_with("model.")) {
            return;
        }
        let all = std::mem::take(&mut self.tensors).into_iter();
        let renamed = |name: String| if name.starts_with("lm_head.") { name } else { format!("model.{name}") };
        self.tensors = all.map(|(name, tensor)| (renamed(name), tensor)).collect();
    }

    /// Whether the tensor is there and not yet taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor that is there and not yet taken.
    pub(crate) fn shape(&self, name: &str) -> Option<&[i32]> {
        self.tensors.get(name).map(|tensor| tensor.shape())
    }

    /// Takes a tensor.
    pub(crate) fn take(&mut self, name: &str) -> Result<Array, MlxError> {
        self.tensors.remove(name).ok_or_else(|| MlxError::MissingTensor(name.to_owned()))
    }

    /// Adds a tensor that was made of others.
    pub(crate) fn put(&mut self, name: String, tensor: Array) {
        self.tensors.insert(name, tensor);
    }

    /// Takes a tensor whose shape is known.
    pub(crate) fn take_shaped(&mut self, name: &str, expected: &[i32]) -> Result<Array, MlxError> {
        let tensor = self.take(name)?;
        if tensor.shape() != expected {
            return Err(MlxError::TensorShape {
                name: name.to_owned(),
                found: tensor.shape().to_vec(),
                expected: expected.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// Drops tensors that the family's reference drops too (e.g. saved rotary frequencies).
    pub(crate) fn discard(&mut self, useless: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !useless(name));
    }

    /// The names of all tensors that nobody took yet, with their shapes.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &[i32])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// Gives each tensor the name that `new` has for it.
    pub(crate) fn rename(&mut self, new: impl Fn(&str) -> String) -> Result<(), MlxError> {
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            if self.tensors.insert(new(&name), tensor).is_some() {
                // Twice there, under two names: one of them would not be used.
                return Err(MlxError::LeftoverTensors(vec![name]));
            }
        }
        Ok(())
    }

    /// The dtype that most bytes of floating-point tensors have.
    pub(crate) fn float_dtype(&self) -> Dtype {
        let mut bytes = BTreeMap::new();
        for tensor in self.tensors.values() {
            if matches!(tensor.dtype(), Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16) {
                *bytes.entry(format!("{:?}", tensor.dtype())).or_insert(0) += tensor.nbytes();
            }
        }
        match bytes.into_iter().max_by_key(|(_, bytes)| *bytes) {
            Some((name, _)) if name == "Float16" => Dtype::Float16,
            Some((name, _)) if name == "Bfloat16" => Dtype::Bfloat16,
            _ => Dtype::Float32,
        }
    }

    /// Bytes of all tensors once quantised matrices are dense and floats are f32.
    pub(crate) fn dense_f32_bytes(&self, quantization: Option<&Quantization>) -> Result<u64, MlxError> {
        let mut bytes = 0;
        for (name, tensor) in &self.tensors {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let packing = match quantization {
                Some(quantization) if tensor.dtype() == Dtype::Uint32 => quantization.of(module)?,
                _ => None,
            };
            let values = match packing {
                Some(packing) => tensor.size() as u64 * 32 / packing.bits as u64,
                // Two numbers in each byte, as the makers of gpt-oss pack them.
                None if name.ends_with("_blocks") && tensor.dtype() == Dtype::Uint8 => 2 * tensor.size() as u64,
                None if name.ends_with("_scales") && tensor.dtype() == Dtype::Uint8 => 0,
                None if name.ends_with(".scales") || name.ends_with(".biases") => 0,
                None => tensor.size() as u64,
            };
            bytes += values * 4;
        }
        Ok(bytes)
    }

    /// Bytes of all tensors once floats are f32; packed matrices stay packed.
    pub(crate) fn packed_f32_bytes(&self) -> u64 {
        let bytes = |tensor: &Array| match tensor.dtype() {
            Dtype::Float16 | Dtype::Bfloat16 => 2 * tensor.nbytes(),
            _ => tensor.nbytes(),
        };
        self.tensors.values().map(|tensor| bytes(tensor) as u64).sum()
    }

    /// Says whether every tensor was used.
    pub(crate) fn finish(self) -> Result<(), MlxError> {
        if self.tensors.is_empty() {
            return Ok(());
        }
        Err(MlxError::LeftoverTensors(self.tensors.into_keys().collect()))
    }
}

/// The files to read, and the tensors that an index promises.
fn files(dir: &Path) -> Result<(Vec<PathBuf>, Vec<String>), MlxError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        let text = std::fs::read_to_string(&index).map_err(|e| MlxError::file(&index, e))?;
        let parsed: Index = serde_json::from_str(&text).map_err(|e| MlxError::file(&index, e))?;
        let names: BTreeSet<&String> = parsed.weight_map.values().collect();
        let mut files = Vec::new();
        for name in names {
            // An index comes with the model, from anywhere: it must not reach outside its folder.
            if Path::new(name).components().count() != 1 || name.contains(['/', '\\']) || name == ".." {
                return Err(MlxError::file(&index, format!("`{name}` is not a plain file name")));
            }
            let path = dir.join(name);
            if !path.is_file() {
                return Err(MlxError::file(path, "the index names this file, and it is not here"));
            }
            files.push(path);
        }
        return Ok((files, parsed.weight_map.into_keys().collect()));
    }
    let entries = std::fs::read_dir(dir).map_err(|e| MlxError::file(dir, e))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    found.sort();
    let single = dir.join("model.safetensors");
    match found.len() {
        0 => Err(MlxError::file(dir, "no *.safetensors in this folder")),
        _ if found.contains(&single) => Ok((vec![single], Vec::new())),
        1 => Ok((found, Vec::new())),
        n => {
            Err(MlxError::file(dir, format!("{n} *.safetensors, but no model.safetensors.index.json that lists them")))
        }
    }
}

/// Reads a file's header and compares the data it promises with the file's length; returns the data's bytes.
fn check_header(path: &Path) -> Result<u64, MlxError> {
    let fail = |message: String| MlxError::file(path, message);
    let mut file = File::open(path).map_err(|e| fail(e.to_string()))?;
    let length = file.metadata().map_err(|e| fail(e.to_string()))?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| fail("not a safetensors file: shorter than its 8-byte prefix".into()))?;
    let header = u64::from_le_bytes(size);
    if header > MAX_HEADER_BYTES || header.saturating_add(8) > length {
        return Err(fail(format!(
            "not a safetensors file, or cut short: its header claims {header} of {length} bytes"
        )));
    }
    let mut buffer = Vec::new();
    file.take(header).read_to_end(&mut buffer).map_err(|e| fail(e.to_string()))?;
    let metadata: Metadata =
        serde_json::from_slice(&buffer).map_err(|e| fail(format!("bad safetensors header: {e}")))?;
    let expected = 8 + header + metadata.data_len() as u64;
    if expected != length {
        return Err(fail(format!("{length} bytes long, but its header promises {expected}: download it again")));
    }
    Ok(metadata.data_len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors(data_bytes: usize) -> Vec<u8> {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    #[test]
    fn a_file_cut_short_is_named_with_both_lengths() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), safetensors(5)).unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors") && message.contains("promises"), "{message}");
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_before_anything_is_allocated() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
        assert!(Weights::open(dir.path()).unwrap_err().to_string().contains("cut short"));
    }

    #[test]
    fn every_tensor_is_taken_once_or_named_as_left_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), safetensors(8)).unwrap();
        let mut weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.stored_bytes, 8);
        assert!(weights.take_shaped("a", &[3]).unwrap_err().to_string().contains("[3]"));
        let weights = Weights::open(dir.path()).unwrap();
        assert!(weights.finish().unwrap_err().to_string().contains("`a`"));
    }

    #[test]
    fn an_index_cannot_name_files_outside_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let index = r#"{"weight_map":{"a":"../secret.safetensors"}}"#;
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert!(Weights::open(dir.path()).unwrap_err().to_string().contains("not a plain file name"));
    }

    #[test]
    fn an_empty_folder_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Weights::open(dir.path()).unwrap_err().to_string().contains("no *.safetensors"));
    }
}
