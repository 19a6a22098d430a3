//! From what was typed to what is said of it: bundled, in the catalog, or at a path; must not know how it is shown.

use std::path::Path;

use catalog::{CatalogError, Format, ModelFiles};

use super::{
    ModelsError,
    describe::{Beside, ModelCard, Source},
    engines, near,
};
use crate::cli::say;

const FORMATS: [Format; 2] = [Format::Mlx, Format::Gguf];

/// Everything that has a name: what is bundled first, then the catalog.
pub(super) fn all(cache: &Path, beside: &Beside<'_>) -> Vec<ModelCard> {
    let mut cards = Vec::new();
    for name in catalog::bundled() {
        for format in FORMATS {
            match bundled(name, format, cache, beside) {
                Ok(card) => cards.push(card),
                // A list of everything else is worth more than none.
                Err(error) => say::note(format!("mesh-llm: {error}")),
            }
        }
    }
    cards.extend(catalog::entries().iter().map(|entry| beside.entry(entry)));
    cards
}

/// What has this name: one model, or one in both forms where nobody said which.
pub(super) fn named(
    name: &str,
    format: Option<Format>,
    cache: &Path,
    beside: &Beside<'_>,
) -> Result<Vec<ModelCard>, ModelsError> {
    let formats: Vec<Format> = FORMATS.into_iter().filter(|one| format.is_none_or(|format| format == *one)).collect();
    if catalog::bundled().contains(&name) {
        let cards = formats.into_iter().map(|format| bundled(name, format, cache, beside));
        return Ok(cards.collect::<Result<_, _>>()?);
    }
    // Before paths: a file of that name in the current folder is reached by `./NAME`.
    let entries: Vec<_> = match catalog::entry(name) {
        Some(entry) => vec![entry],
        None => catalog::entries().iter().filter(|entry| entry.repository.eq_ignore_ascii_case(name)).collect(),
    };
    if let Some(first) = entries.first() {
        let cards: Vec<ModelCard> =
            entries.iter().filter(|entry| formats.contains(&entry.format)).map(|entry| beside.entry(entry)).collect();
        return match (cards.is_empty(), format) {
            (true, Some(format)) => Err(ModelsError::OtherForm {
                id: first.id.clone(),
                is: engines::word(first.format),
                asked: engines::word(format),
            }),
            _ => Ok(cards),
        };
    }
    if !is_path(name) {
        let names = catalog::bundled().into_iter().chain(catalog::entries().iter().map(|entry| entry.id.as_str()));
        return Err(ModelsError::Unknown { name: name.to_owned(), near: near::near(name, names) });
    }
    let open = |format| catalog::resolve(name, cache, format, None);
    let found: Vec<ModelFiles> = match open(format) {
        Err(CatalogError::BothFormats(_)) => {
            formats.into_iter().map(|format| open(Some(format))).collect::<Result<_, _>>()?
        }
        found => vec![found?],
    };
    Ok(found.iter().map(|files| beside.files(files, Source::Local)).collect::<Result<_, _>>()?)
}

fn bundled(name: &str, format: Format, cache: &Path, beside: &Beside<'_>) -> Result<ModelCard, CatalogError> {
    beside.files(&catalog::resolve(name, cache, Some(format), None)?, Source::Bundled)
}

/// Whether somebody who typed this meant a path.
fn is_path(name: &str) -> bool {
    name.starts_with(['/', '.', '~']) || name.ends_with('/') || Path::new(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Memory, engines::Engines};

    const MEMORY: Memory = Memory { total_bytes: Some(16 << 30), free_bytes: Some(4 << 30) };

    fn found(name: &str, format: Option<Format>) -> Result<Vec<ModelCard>, String> {
        let cache = tempfile::tempdir().unwrap();
        let engines = Engines { mlx_families: vec!["qwen3"], llama_server: true };
        let beside = Beside { memory: MEMORY, engines: &engines };
        named(name, format, cache.path(), &beside).map_err(|error| error.to_string())
    }

    fn ids(cards: &[ModelCard]) -> Vec<(&str, &str)> {
        cards.iter().map(|card| (card.id.as_str(), card.engine)).collect()
    }

    #[test]
    fn a_name_is_bundled_or_in_the_catalog_by_id_or_repository() {
        let tiny = found("mesh-tiny", None).unwrap();
        assert_eq!(ids(&tiny), [("mesh-tiny", "mlx"), ("mesh-tiny", "gguf")]);
        assert!(tiny.iter().all(|card| card.runs_here && card.source == Source::Bundled && card.path.is_none()));
        assert_eq!(ids(&found("mesh-tiny", Some(Format::Gguf)).unwrap()), [("mesh-tiny", "gguf")]);
        let small = found("qwen3-4b-mlx", None).unwrap();
        assert_eq!(ids(&small), [("Qwen3-4B-MLX", "mlx")]);
        assert_eq!(found("mlx-community/Qwen3-4B-4bit", None).unwrap(), small);
    }

    #[test]
    fn a_path_is_read() {
        let cache = tempfile::tempdir().unwrap();
        let dir = catalog::resolve("mesh-tiny", cache.path(), Some(Format::Mlx), None).unwrap().dir;
        let both = found(dir.to_str().unwrap(), None).unwrap();
        assert_eq!(both.iter().map(|card| card.engine).collect::<Vec<_>>(), ["mlx", "gguf"]);
        let one = found(dir.to_str().unwrap(), Some(Format::Mlx)).unwrap();
        assert_eq!((one[0].source, one[0].family.as_str()), (Source::Local, "qwen3"));
        assert_eq!(one[0].path.as_deref(), Some(dir.canonicalize().unwrap().as_path()));
    }

    #[test]
    fn what_is_not_there_is_told_in_one_line_with_what_comes_close() {
        for (name, format, said) in [
            ("Qwen3-4B-MLZ", None, "did you mean Qwen3-4B-MLX"),
            ("Qwen3-4B", None, "or Qwen3-4B-"),
            ("zzzz", None, "models list --all"),
            ("org/zzzz", None, "no model is called org/zzzz;"),
            ("bad\nname", None, "bad\\nname"),
            ("./nothing", None, "no such file"),
            ("Qwen3-4B-MLX", Some(Format::Gguf), "is mlx, and was asked for as gguf"),
        ] {
            let error = found(name, format).unwrap_err();
            assert!(error.contains(said) && !error.contains('\n'), "{name}: {error}");
        }
    }

    #[test]
    fn everything_is_listed_once_in_each_form() {
        let cache = tempfile::tempdir().unwrap();
        let engines = Engines { mlx_families: vec!["qwen3"], llama_server: false };
        let cards = all(cache.path(), &Beside { memory: MEMORY, engines: &engines });
        assert_eq!(cards.len(), 2 * catalog::bundled().len() + catalog::entries().len());
        assert!(cards.iter().all(|card| card.engine != "gguf" || !card.runs_here), "no llama-server");
        let tight = Memory { total_bytes: Some(1 << 30), ..MEMORY };
        let few = all(cache.path(), &Beside { memory: tight, engines: &engines });
        let fitting = |cards: &[ModelCard]| cards.iter().filter(|card| card.fits()).count();
        assert!(0 < fitting(&few) && fitting(&few) < fitting(&cards));
    }

    #[test]
    fn without_a_known_memory_nothing_is_said_to_fit() {
        let cache = tempfile::tempdir().unwrap();
        let engines = Engines { mlx_families: vec!["qwen3"], llama_server: true };
        let memory = Memory { total_bytes: None, free_bytes: None };
        let cards = all(cache.path(), &Beside { memory, engines: &engines });
        assert!(cards.iter().all(|card| card.fit.is_none() && !card.fits() && card.weight_bytes.is_some()));
    }
}
