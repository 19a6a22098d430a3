//! GGUF models in a list of files: quantisations, parts, projectors; must not know what is in the files.

use std::collections::BTreeMap;

use super::{
    HubReference, check,
    pick::{Candidate, Candidates, FileInfo, PickError, Selection, is_quant, labelled, missing, split_path, within},
    shown,
};
use crate::{Format, split::part};

const ENDING: &str = ".gguf";

/// One model: a file, or the parts of one that was split.
struct Model<'a> {
    /// Its path without the part's number and the ending.
    stem: &'a str,
    /// How many parts it has; 0: it was not split.
    count: u32,
    parts: BTreeMap<u32, &'a FileInfo>,
}

impl Model<'_> {
    fn first(&self) -> &str {
        self.parts.values().next().map_or(self.stem, |file| &file.path)
    }

    fn has(&self, path: &str) -> bool {
        self.parts.values().any(|file| file.path == path)
    }

    fn bytes(&self) -> u64 {
        self.parts.values().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

/// Whether there is a model below what was named.
pub(super) fn any(files: &[FileInfo], reference: &HubReference) -> bool {
    let dir = reference.file.as_deref().unwrap_or_default();
    models(files).iter().any(|model| within(model.stem, dir) || model.has(dir))
}

/// Everything that could be meant.
pub(super) fn candidates(files: &[FileInfo]) -> Vec<Candidate> {
    let all = models(files);
    all.iter().map(|model| candidate(model, &all)).collect()
}

pub(super) fn pick(files: &[FileInfo], reference: &HubReference) -> Result<Selection, PickError> {
    let all = models(files);
    let chosen = match &reference.file {
        Some(file) if check::ends_ignoring_case(file, ENDING) => named(files, &all, reference, file)?,
        _ => only(&all, reference)?,
    };
    let weights = whole(chosen, reference)?;
    let dir = split_path(chosen.stem).0.to_owned();
    let projectors = projectors(files, &dir);
    Ok(Selection { format: Format::Gguf, dir, weights, index: None, sidecars: Vec::new(), projectors, named: None })
}

fn named<'a, 'b>(
    files: &[FileInfo],
    all: &'b [Model<'a>],
    reference: &HubReference,
    file: &str,
) -> Result<&'b Model<'a>, PickError> {
    if let Some(model) = all.iter().find(|model| model.has(file)) {
        return Ok(model);
    }
    if files.iter().any(|known| known.path == file) {
        let problem = if is_projector(file) {
            "is a projector and no model; name the model's file"
        } else {
            "is a quantiser's notes and no model; name the model's file"
        };
        return Err(PickError::NotModel { repo: reference.repo.to_string(), file: shown(file), problem });
    }
    Err(missing(reference, "file", file, listed(all.iter(), all)))
}

/// The one model that the label, the folder, or neither leaves.
fn only<'a, 'b>(all: &'b [Model<'a>], reference: &HubReference) -> Result<&'b Model<'a>, PickError> {
    let dir = reference.file.as_deref().unwrap_or_default();
    let mut left: Vec<&Model<'a>> = all.iter().filter(|model| within(model.stem, dir)).collect();
    if left.is_empty() && !dir.is_empty() {
        return Err(missing(reference, "file", dir, listed(all.iter(), all)));
    }
    if let Some(label) = &reference.quant {
        left = with_label(&left, label);
        if left.is_empty() {
            return Err(missing(reference, "quantisation", label, listed(all.iter(), all)));
        }
    }
    match left.as_slice() {
        [one] => Ok(one),
        [] => Err(PickError::NoModel {
            repo: reference.to_string(),
            what: "no GGUF model in it",
            advice: "look for a conversion of it, with GGUF in its name, or try --mlx",
        }),
        _ => Err(PickError::Several { repo: reference.to_string(), candidates: listed(left.iter().copied(), all) }),
    }
}

/// Those whose file has the label; or, if none has, those whose folder has.
fn with_label<'a, 'b>(models: &[&'b Model<'a>], label: &str) -> Vec<&'b Model<'a>> {
    let by = |text: fn(&'a str) -> &'a str| {
        let found: Vec<_> =
            models.iter().filter_map(|model| Some((*model, labelled(text(model.stem), label)?))).collect();
        // UD-Q4_K_XL may be meant by Q4_K_XL, unless there is a plain one.
        let plain = found.iter().any(|(_, dynamic)| !dynamic);
        found.into_iter().filter(|(_, dynamic)| !plain || !dynamic).map(|(model, _)| model).collect::<Vec<_>>()
    };
    let by_name = by(|stem| split_path(stem).1);
    if by_name.is_empty() { by(|stem| split_path(stem).0) } else { by_name }
}

fn whole(model: &Model<'_>, reference: &HubReference) -> Result<Vec<FileInfo>, PickError> {
    for number in 1..=model.count {
        // Stops at the first gap: a hostile list may claim 99,999 parts.
        if !model.parts.contains_key(&number) {
            let file = format!("{}-{number:05}-of-{:05}{ENDING}", model.stem, model.count);
            return Err(PickError::Incomplete { repo: reference.repo.to_string(), file: shown(&file) });
        }
    }
    Ok(model.parts.values().map(|file| (*file).clone()).collect())
}

/// All models of a list: no projectors, no notes of quantisers.
fn models(files: &[FileInfo]) -> Vec<Model<'_>> {
    let mut found: BTreeMap<(&str, u32), Model<'_>> = BTreeMap::new();
    for file in files.iter().filter(|file| check::ends_ignoring_case(&file.path, ENDING)) {
        if is_projector(&file.path) || is_notes(&file.path) {
            continue;
        }
        let whole = (&file.path[..file.path.len() - ENDING.len()], 0, 0);
        let (stem, number, count) = part(&file.path, ENDING).map_or(whole, |part| (part.stem, part.number, part.count));
        let model = found.entry((stem, count)).or_insert_with(|| Model { stem, count, parts: BTreeMap::new() });
        model.parts.entry(number).or_insert(file);
    }
    found.into_values().collect()
}

/// Words between borders, as `-`, `.` and `_` make them.
fn has_word(path: &str, word: &str) -> bool {
    split_path(path).1.split(['-', '.', '_']).any(|found| found.eq_ignore_ascii_case(word))
}

fn is_projector(path: &str) -> bool {
    has_word(path, "mmproj")
}

/// What importance matrices are kept as, since llama.cpp writes them as GGUF too.
fn is_notes(path: &str) -> bool {
    has_word(path, "imatrix")
}

/// The projectors of the repository, the likeliest one first: near the model, in 16 bits, as llama.cpp prefers.
fn projectors(files: &[FileInfo], dir: &str) -> Vec<FileInfo> {
    let all = files.iter().filter(|file| check::ends_ignoring_case(&file.path, ENDING) && is_projector(&file.path));
    let mut found: Vec<FileInfo> = all.cloned().collect();
    found.sort_by_cached_key(|file| {
        let (own, name) = split_path(&file.path);
        let place = if own == dir { 0 } else { usize::from(!own.is_empty()) + 1 };
        let form = ["f16", "bf16", "f32", "q8_0"].iter().position(|form| labelled(name, form).is_some());
        (place, form.unwrap_or(usize::MAX), file.path.clone())
    });
    found.dedup_by(|a, b| a.path == b.path);
    found
}

fn listed<'a: 'b, 'b>(models: impl Iterator<Item = &'b Model<'a>>, all: &[Model<'_>]) -> Candidates {
    Candidates::new(models.map(|model| candidate(model, all)).collect())
}

fn candidate(model: &Model<'_>, all: &[Model<'_>]) -> Candidate {
    let all: Vec<&Model<'_>> = all.iter().collect();
    // A label is told only where it means this model alone.
    let label = quant_of(split_path(model.stem).1)
        .filter(|label| matches!(with_label(&all, label).as_slice(), [one] if one.stem == model.stem));
    let file = model.first().to_owned();
    Candidate { label: label.unwrap_or_else(|| file.clone()), file, bytes: model.bytes() }
}

/// The quantisation's label in a file's name: the last word that looks like one.
fn quant_of(stem: &str) -> Option<String> {
    let words: Vec<&str> = stem.split(['-', '.']).collect();
    for (number, word) in words.iter().enumerate().rev() {
        // `model_q4_k_m` is one word of which the end is the label.
        let starts = std::iter::once(0).chain(word.match_indices('_').map(|(at, _)| at + 1));
        if let Some(label) = starts.map(|start| &word[start..]).find(|label| is_quant(label)) {
            let dynamic = number > 0 && label.len() == word.len() && words[number - 1].eq_ignore_ascii_case("UD");
            return Some(if dynamic { format!("UD-{label}") } else { label.to_owned() });
        }
    }
    None
}
