//! Models by path; must not know how their files are read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mesh_proto::ModelId;

use crate::{CatalogError, Format, ModelFiles, gguf_files};

/// Whether a name can only be a path (`org/repo` could be either, and is a path if it exists).
pub(crate) fn is_path(name: &str) -> bool {
    name.starts_with(['/', '.', '~']) || name.ends_with('/')
}

pub(crate) fn open(path: &Path) -> Result<ModelFiles, CatalogError> {
    let full = existing(path)?;
    if full.is_dir() {
        return folder(full);
    }
    if full.extension().is_none_or(|e| e != "safetensors") {
        return Err(CatalogError::NotWeights(path.to_owned()));
    }
    let dir = full.parent().map(Path::to_path_buf).unwrap_or_default();
    let files = folder(dir)?;
    if is_used(&full, &files.dir)? { Ok(files) } else { Err(CatalogError::Stray(path.to_owned())) }
}

/// The path without links, or why there is nothing.
pub(crate) fn existing(path: &Path) -> Result<PathBuf, CatalogError> {
    path.canonicalize().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => CatalogError::Missing(path.to_owned()),
        _ => CatalogError::Io { path: path.to_owned(), cause },
    })
}

/// What lies at a path, if it is one thing. A GGUF repository often has a `config.json` too: that alone is no model.
pub(crate) fn format(path: &Path) -> Result<Format, CatalogError> {
    if !existing(path)?.is_dir() {
        return Ok(if has_extension(path, "gguf") { Format::Gguf } else { Format::Mlx });
    }
    let (config, weights) = (path.join("config.json").is_file(), !weights(path)?.is_empty());
    match (config && weights, gguf_files::any(path)?) {
        (true, true) => Err(CatalogError::BothFormats(path.display().to_string())),
        (false, true) => Ok(Format::Gguf),
        (false, false) if !config && !weights => Err(CatalogError::NoModel(path.to_owned())),
        // Half an MLX model is told as such.
        (_, false) => Ok(Format::Mlx),
    }
}

pub(crate) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn folder(dir: PathBuf) -> Result<ModelFiles, CatalogError> {
    if !dir.join("config.json").is_file() {
        return Err(CatalogError::Incomplete { dir, what: "config.json" });
    }
    if weights(&dir)?.is_empty() {
        return Err(CatalogError::Incomplete { dir, what: ".safetensors file" });
    }
    match dir.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(ModelFiles { id: ModelId::new(name), dir, gguf: None }),
        None => Err(CatalogError::Nameless(dir)),
    }
}

/// A folder may hold more than one checkpoint; serving another one than the one that was named would be a lie.
fn is_used(file: &Path, dir: &Path) -> Result<bool, CatalogError> {
    let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        let text = fs::read_to_string(&index).map_err(|cause| CatalogError::Io { path: index, cause })?;
        return Ok(text.contains(&format!("\"{name}\"")));
    }
    Ok(name == "model.safetensors" || weights(dir)?.len() == 1)
}

pub(crate) fn weights(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let failed = |cause| CatalogError::Io { path: dir.to_owned(), cause };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && path.extension().is_some_and(|e| e == "safetensors") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("Some-Model-4bit");
        fs::create_dir(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        (temp, dir)
    }

    fn refusal(path: &Path) -> String {
        let message = open(path).unwrap_err().to_string();
        assert!(!message.contains('\n'), "one line: {message}");
        message
    }

    #[test]
    fn a_folder_is_called_by_its_own_name_and_so_is_its_weight_file() {
        let (_temp, dir) = model(&[("config.json", "{}"), ("model.safetensors", "")]);
        for path in [dir.clone(), dir.join("model.safetensors")] {
            let files = open(&path).unwrap();
            assert_eq!(files.id.as_str(), "Some-Model-4bit");
            assert_eq!(files.dir, dir.canonicalize().unwrap());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_temp, empty) = model(&[]);
        assert!(refusal(&empty).contains("no config.json"));
        let (_temp, bare) = model(&[("config.json", "{}")]);
        assert!(refusal(&bare).contains("no .safetensors file"));
        assert!(refusal(&bare.join("nope")).contains("no such file or folder"));
        assert!(refusal(&bare.join("config.json")).contains("not a .safetensors file"));
        assert!(refusal(&bare.join("config.json/x")).contains("no such file or folder"));
    }

    #[test]
    fn a_weight_file_that_the_model_would_not_use_is_refused() {
        let index = r#"{"weight_map":{"a":"part-1.safetensors"}}"#;
        let files = [
            ("config.json", "{}"),
            ("part-1.safetensors", ""),
            ("other.safetensors", ""),
            ("model.safetensors.index.json", index),
        ];
        let (_temp, dir) = model(&files);
        assert!(open(&dir.join("part-1.safetensors")).is_ok());
        assert!(refusal(&dir.join("other.safetensors")).contains("would not use this one"));
    }
}
