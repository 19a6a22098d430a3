//! Which weight files a folder's model is made of, and what their headers say; must not know what the tensors are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;

use crate::{CatalogError, local};

/// A safetensors header larger than this is refused: 100 MB, the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The files that a loader reads: what `model.safetensors.index.json` lists, else `model.safetensors`, else all there
/// are.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        let text = fs::read(&index).map_err(|cause| CatalogError::Io { path: index.clone(), cause })?;
        let parsed: Index = serde_json::from_slice(&text).map_err(|error| damaged(&index, error))?;
        let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
        return names.into_iter().map(|name| listed(dir, &index, &name)).collect();
    }
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let mut found = local::weights(dir)?;
    found.sort();
    Ok(found)
}

/// An index comes with the model, from anywhere: it must not reach outside its folder.
fn listed(dir: &Path, index: &Path, name: &str) -> Result<PathBuf, CatalogError> {
    if name.is_empty() || name == ".." || name.contains(['/', '\\']) {
        return Err(damaged(index, format!("{name:?} is not a plain file name")));
    }
    let path = dir.join(name);
    if path.is_file() { Ok(path) } else { Err(damaged(&path, "the index names this file, and it is not here")) }
}

/// What headers say of the tensors behind them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Bytes of all tensors.
    pub(crate) bytes: u64,
    /// Bytes of floating-point tensors by type, in MLX's words.
    pub(crate) floats: BTreeMap<&'static str, u64>,
}

impl Stored {
    /// Adds a file's tensors. Compares what its header promises with its length, so that one that was cut short is told
    /// before twenty gigabytes are read.
    pub(crate) fn add(&mut self, path: &Path) -> Result<(), CatalogError> {
        let io = |cause| CatalogError::Io { path: path.to_owned(), cause };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| damaged(path, "not a safetensors file: shorter than its 8-byte prefix"))?;
        let header = u64::from_le_bytes(size);
        if header > MAX_HEADER_BYTES || header.saturating_add(8) > length {
            let message = format!("not a safetensors file, or cut short: its header claims {header} of {length} bytes");
            return Err(damaged(path, message));
        }
        let mut buffer = Vec::new();
        file.take(header).read_to_end(&mut buffer).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&buffer)
            .map_err(|error| damaged(path, format!("bad safetensors header: {error}")))?;
        let data = metadata.data_len() as u64;
        // Headers may promise as many bytes as numbers go.
        let promised = data.saturating_add(8 + header);
        if promised != length {
            let message = format!("{length} bytes long, but its header promises {promised}: download it again");
            return Err(damaged(path, message));
        }
        self.bytes += data;
        for tensor in metadata.tensors().values() {
            let name = match tensor.dtype {
                Dtype::F32 => "float32",
                Dtype::F16 => "float16",
                Dtype::BF16 => "bfloat16",
                _ => continue,
            };
            let (start, end) = tensor.data_offsets;
            *self.floats.entry(name).or_default() += (end - start) as u64;
        }
        Ok(())
    }
}

pub(crate) fn damaged(path: &Path, message: impl ToString) -> CatalogError {
    CatalogError::Damaged { path: path.to_owned(), message: message.to_string() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A safetensors file of one f32 tensor of eight bytes, or of another number of them than promised.
    pub(crate) fn safetensors(data: &[u8]) -> Vec<u8> {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn names(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        super::files(dir.path()).map(|files| files.into_iter().map(name).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_files_are_those_that_a_loader_reads() {
        let index = ("model.safetensors.index.json", r#"{"weight_map":{"x":"b.safetensors","y":"b.safetensors"}}"#);
        let [a, b, model] = ["a.safetensors", "b.safetensors", "model.safetensors"].map(|name| (name, ""));
        assert_eq!(names(&[index, a, b, model]).unwrap(), ["b.safetensors"]);
        assert_eq!(names(&[a, model]).unwrap(), ["model.safetensors"]);
        assert_eq!(names(&[a]).unwrap(), ["a.safetensors"]);
        assert!(names(&[index, a]).unwrap_err().contains("the index names this file"));
    }

    #[test]
    fn an_index_cannot_name_files_outside_its_folder() {
        let index = r#"{"weight_map":{"x":"../b.safetensors"}}"#;
        assert!(names(&[("model.safetensors.index.json", index)]).unwrap_err().contains("not a plain file name"));
        assert!(names(&[("model.safetensors.index.json", "{")]).unwrap_err().contains("index.json"));
    }

    #[test]
    fn a_file_that_was_cut_short_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        for (bytes, said) in [
            (safetensors(&[0; 5]), "its header promises"),
            (safetensors(&[0; 8])[..20].to_vec(), "cut short"),
            (vec![1, 2], "8-byte prefix"),
            (u64::MAX.to_le_bytes().to_vec(), "cut short"),
        ] {
            fs::write(&path, bytes).unwrap();
            let message = Stored::default().add(&path).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("model.safetensors"), "{message}");
        }
        fs::write(&path, safetensors(&[0; 8])).unwrap();
        let mut stored = Stored::default();
        stored.add(&path).unwrap();
        assert_eq!(stored, Stored { bytes: 8, floats: [("float32", 8)].into() });
    }
}
