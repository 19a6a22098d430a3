//! Which GGUF files in a folder make one model; must not know what is in them, beside what tells a projector.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use mesh_proto::ModelId;

use crate::{CatalogError, GgufFiles, ModelFiles, gguf, local, split::part, weights::damaged};

const ENDING: &str = ".gguf";

/// Architecture of a projector, which is no model. Origin: llama.cpp's `clip.cpp`.
const PROJECTOR: &str = "clip";

pub(crate) fn open(path: &Path, mmproj: Option<&Path>) -> Result<ModelFiles, CatalogError> {
    let full = local::existing(path)?;
    let (dir, chosen) = if full.is_dir() {
        let chosen = only_model(&full)?;
        (full, chosen)
    } else {
        // Not the file's own path without links: a download cache links names to files called by their hash.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or_else(|| CatalogError::Missing(path.to_owned()))?;
        (local::existing(parent)?, PathBuf::from(name))
    };
    let file = dir.join(&chosen);
    if is_projector(&file) {
        return Err(damaged(&file, "a projector and not a model; name the model's file, and this one with --mmproj"));
    }
    let name = chosen.to_str().ok_or_else(|| damaged(&file, "this name is not UTF-8"))?;
    let (id, parts) = parts(&dir, name)?;
    let mmproj = match mmproj {
        Some(path) => Some(named_projector(path)?),
        None => only_projector(&dir)?,
    };
    Ok(ModelFiles { id: ModelId::new(id), dir, gguf: Some(GgufFiles { parts, mmproj }) })
}

/// Whether the folder has a `.gguf` file that is no projector.
pub(crate) fn any(dir: &Path) -> Result<bool, CatalogError> {
    Ok(listing(dir)?.iter().any(|path| !is_projector(path)))
}

/// The one model of a folder: its first part's name.
fn only_model(dir: &Path) -> Result<PathBuf, CatalogError> {
    // Parts of one model share everything but their number; of whatever is there, the lowest one stands for it.
    let mut models = BTreeMap::new();
    for path in listing(dir)?.into_iter().filter(|path| !is_projector(path)) {
        let name = file_name(&path);
        let key = part(&name, ENDING).map_or_else(|| (name.clone(), 0), |part| (part.stem.to_owned(), part.count));
        models.entry(key).or_insert(name);
    }
    let mut names: Vec<String> = models.into_values().collect();
    match names.len() {
        0 => Err(CatalogError::NoGguf(dir.to_owned())),
        1 => Ok(PathBuf::from(names.remove(0))),
        _ => Err(CatalogError::SeveralModels { dir: dir.to_owned(), names }),
    }
}

fn only_projector(dir: &Path) -> Result<Option<PathBuf>, CatalogError> {
    let mut found: Vec<PathBuf> = listing(dir)?.into_iter().filter(|path| is_projector(path)).collect();
    if found.len() > 1 {
        let names = found.iter().map(|path| file_name(path)).collect();
        return Err(CatalogError::SeveralProjectors { dir: dir.to_owned(), names });
    }
    Ok(found.pop())
}

fn named_projector(path: &Path) -> Result<PathBuf, CatalogError> {
    let full = local::existing(path)?;
    match gguf::architecture(&full) {
        Some(name) if name == PROJECTOR => Ok(full),
        Some(name) => Err(damaged(path, format!("a {} model and no projector", name.escape_debug()))),
        // Not a GGUF file, or a damaged one: the reader says which.
        None => gguf::read(&full).and(Err(damaged(path, "not a projector: it does not say what it is"))),
    }
}

fn is_projector(path: &Path) -> bool {
    let named = file_name(path).to_ascii_lowercase().starts_with("mmproj");
    named || gguf::architecture(path).is_some_and(|name| name == PROJECTOR)
}

/// The model's name and all its files, for the name of any of them.
fn parts(dir: &Path, name: &str) -> Result<(String, Vec<PathBuf>), CatalogError> {
    let file = dir.join(name);
    let whole = || {
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
        (stem.to_owned(), vec![file.clone()])
    };
    let Some(part) = part(name, ENDING) else { return Ok(whole()) };
    let mut found = Vec::new();
    for number in 1..=part.count {
        let path = dir.join(format!("{}-{number:05}-of-{:05}{}", part.stem, part.count, part.ending));
        if !path.is_file() {
            return Err(damaged(&path, format!("part {number} of {} of this model is not here", part.count)));
        }
        found.push(path);
    }
    Ok((part.stem.to_owned(), found))
}

/// The `.gguf` files of a folder, sorted. Hidden ones are systems' own.
fn listing(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let failed = |cause| CatalogError::Io { path: dir.to_owned(), cause };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if local::has_extension(&path, "gguf") && !file_name(&path).starts_with('.') && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, gguf::writer::Writer, resolve};

    /// A folder of files, each of the architecture that follows its name.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, architecture) in files {
            fs::write(dir.path().join(name), Writer::new(architecture).bytes()).unwrap();
        }
        dir
    }

    fn names(files: &ModelFiles) -> (String, Vec<String>, Option<String>) {
        let gguf = files.gguf.as_ref().unwrap();
        let parts = gguf.parts.iter().map(|path| file_name(path)).collect();
        (files.id.to_string(), parts, gguf.mmproj.as_deref().map(file_name))
    }

    fn refusal(found: Result<ModelFiles, CatalogError>) -> String {
        let message = found.unwrap_err().to_string();
        assert!(!message.contains('\n'), "one line: {message}");
        message
    }

    #[test]
    fn a_model_is_found_by_its_file_and_by_its_folder() {
        let dir = folder(&[("Some-1B.Q4_K_M.gguf", "llama")]);
        for path in [dir.path().to_owned(), dir.path().join("Some-1B.Q4_K_M.gguf")] {
            let files = open(&path, None).unwrap();
            assert_eq!(names(&files), ("Some-1B.Q4_K_M".to_owned(), vec!["Some-1B.Q4_K_M.gguf".to_owned()], None));
            assert_eq!((files.format(), files.dir), (Format::Gguf, dir.path().canonicalize().unwrap()));
        }
        assert!(refusal(open(&dir.path().join("x.gguf"), None)).contains("no such file"));
        assert!(refusal(open(folder(&[]).path(), None)).contains("no GGUF model"));
    }

    #[test]
    fn any_part_leads_to_all_of_them_and_a_missing_one_is_named() {
        let all = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];
        let dir = folder(&all.map(|name| (name, "llama")));
        for path in [dir.path().to_owned(), dir.path().join(all[0]), dir.path().join(all[2])] {
            assert_eq!(names(&open(&path, None).unwrap()), ("m".to_owned(), all.map(str::to_owned).to_vec(), None));
        }
        for missing in [1, 0] {
            fs::remove_file(dir.path().join(all[missing])).unwrap();
            let message = refusal(open(dir.path(), None));
            let said = format!("part {} of 3", missing + 1);
            assert!(message.contains(all[missing]) && message.contains(&said), "{message}");
        }
    }

    #[test]
    fn names_that_look_like_parts_and_are_none_are_names() {
        let dir = folder(&[("m-00004-of-00003.gguf", "llama")]);
        assert_eq!(names(&open(dir.path(), None).unwrap()).0, "m-00004-of-00003");
        let dir = folder(&[("a-00001-of-00001.GGUF", "llama")]);
        assert_eq!(names(&open(dir.path(), None).unwrap()).0, "a");
    }

    #[test]
    fn several_models_are_listed_and_none_is_guessed() {
        let dir = folder(&[("a.gguf", "llama"), ("b-00001-of-00002.gguf", "x"), ("b-00002-of-00002.gguf", "x")]);
        let message = refusal(open(dir.path(), None));
        assert!(message.contains("a.gguf, b-00001-of-00002.gguf") && message.contains("--gguf-file"), "{message}");
        assert_eq!(names(&open(&dir.path().join("a.gguf"), None).unwrap()).0, "a");
    }

    #[test]
    fn the_only_projector_beside_a_model_is_its() {
        let dir = folder(&[("m.gguf", "llama"), ("mmproj-F16.gguf", "clip")]);
        assert_eq!(names(&open(dir.path(), None).unwrap()).2.unwrap(), "mmproj-F16.gguf");
        let dir = folder(&[("m.gguf", "llama"), ("eyes.gguf", "clip")]);
        assert_eq!(names(&open(dir.path(), None).unwrap()).2.unwrap(), "eyes.gguf");
        assert!(refusal(open(&dir.path().join("eyes.gguf"), None)).contains("a projector and not a model"));

        let dir = folder(&[("m.gguf", "llama"), ("mmproj-F16.gguf", "clip"), ("mmproj-F32.gguf", "clip")]);
        let message = refusal(open(dir.path(), None));
        assert!(message.contains("--mmproj") && message.contains("mmproj-F16.gguf, mmproj-F32.gguf"), "{message}");
        let named = open(dir.path(), Some(&dir.path().join("mmproj-F32.gguf"))).unwrap();
        assert_eq!(names(&named).2.unwrap(), "mmproj-F32.gguf");
        assert!(refusal(open(dir.path(), Some(&dir.path().join("m.gguf")))).contains("a llama model and no projector"));
        assert!(refusal(open(dir.path(), Some(&dir.path().join("x")))).contains("no such file"));
    }

    #[test]
    fn what_is_there_decides_unless_it_is_both() {
        let cache = tempfile::tempdir().unwrap();
        let find = |path: &Path, format| resolve(path.to_str().unwrap(), cache.path(), format, None);
        let dir = folder(&[("m.gguf", "llama")]);
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        assert_eq!(find(dir.path(), None).unwrap().format(), Format::Gguf);
        assert!(refusal(find(dir.path(), Some(Format::Mlx))).contains("no .safetensors file"));
        fs::write(dir.path().join("model.safetensors"), "").unwrap();
        let message = refusal(find(dir.path(), None));
        assert!(message.contains("--mlx") && message.contains("--gguf"), "{message}");
        assert_eq!(find(dir.path(), Some(Format::Mlx)).unwrap().format(), Format::Mlx);
        assert_eq!(find(dir.path(), Some(Format::Gguf)).unwrap().format(), Format::Gguf);
        assert_eq!(find(&dir.path().join("m.gguf"), None).unwrap().format(), Format::Gguf);
        assert_eq!(find(&dir.path().join("model.safetensors"), None).unwrap().format(), Format::Mlx);
        assert!(refusal(find(folder(&[]).path(), None)).contains("neither"));
        let bare = folder(&[]);
        fs::write(bare.path().join("config.json"), "{}").unwrap();
        assert!(refusal(find(bare.path(), None)).contains("no .safetensors file"));
    }

    #[test]
    fn the_bundled_model_is_there_in_both_formats() {
        let cache = tempfile::tempdir().unwrap();
        let tiny = |format, mmproj| resolve("mesh-tiny", cache.path(), format, mmproj);
        let message = refusal(tiny(None, None));
        assert!(message.contains("mesh-tiny is there as MLX and as GGUF"), "{message}");
        let files = tiny(Some(Format::Gguf), None).unwrap();
        assert_eq!(names(&files), ("mesh-tiny".to_owned(), vec!["mesh-tiny.Q4_1.gguf".to_owned()], None));
        assert!(tiny(Some(Format::Mlx), None).unwrap().gguf.is_none());
        let eyes = folder(&[("eyes.gguf", "clip")]);
        let eyes = eyes.path().join("eyes.gguf");
        assert_eq!(names(&tiny(None, Some(&eyes)).unwrap()).2.unwrap(), "eyes.gguf");
        assert!(refusal(tiny(Some(Format::Mlx), Some(&eyes))).contains("asked for as MLX"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_called_what_the_link_is_called() {
        let dir = folder(&[("0123abcd", "llama")]);
        std::os::unix::fs::symlink(dir.path().join("0123abcd"), dir.path().join("m.gguf")).unwrap();
        assert_eq!(names(&open(&dir.path().join("m.gguf"), None).unwrap()).0, "m");
    }
}
