//! MLX models in a list of files: config, weights by their index, sidecars; must not know what the config says.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    HubReference, check,
    pick::{Candidate, Candidates, FileInfo, PickError, Selection, labelled, missing, split_path, within},
    shown,
};
use crate::{Format, split::part};

const CONFIG: &str = "config.json";
const ENDING: &str = ".safetensors";
const INDEX: &str = "model.safetensors.index.json";
const INDEX_ENDING: &str = ".safetensors.index.json";
/// The weights that are meant where there are several and no index. Origin: transformers, and `local.rs`.
const DEFAULT_WEIGHTS: &str = "model.safetensors";

/// Whether there is a model below what was named.
pub(super) fn any(files: &[FileInfo], reference: &HubReference) -> bool {
    let dir = reference.file.as_deref().unwrap_or_default();
    folders(files).iter().any(|folder| *folder == dir || within(folder, dir))
}

/// Everything that could be meant.
pub(super) fn candidates(files: &[FileInfo]) -> Vec<Candidate> {
    folders(files).iter().map(|folder| candidate(files, folder)).collect()
}

fn candidate(files: &[FileInfo], folder: &str) -> Candidate {
    let own = || files.iter().filter(move |file| split_path(&file.path).0 == folder);
    let bytes = own().filter(|file| is_weights(file)).fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
    let called = |name: &str| own().find(|file| split_path(&file.path).1 == name);
    let first = called(INDEX).or_else(|| called(DEFAULT_WEIGHTS)).or_else(|| own().find(|file| is_weights(file)));
    let first = first.map(|file| file.path.clone()).unwrap_or_default();
    Candidate { label: first.clone(), file: first, bytes }
}

pub(super) fn pick(files: &[FileInfo], reference: &HubReference) -> Result<Selection, PickError> {
    let known = |path: &str| files.iter().find(|file| file.path == path);
    let named = reference.file.as_deref().and_then(known);
    let folder = match named {
        Some(file) => split_path(&file.path).0,
        None => folder(files, reference)?,
    };
    let repo = || reference.repo.to_string();
    let at = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let Some(config) = known(&at(CONFIG)) else {
        let advice = "look for another conversion of it, with MLX in its name, or try --gguf";
        return Err(PickError::NoModel { repo: reference.to_string(), what: "no config.json in it", advice });
    };
    let weights: Vec<&FileInfo> =
        files.iter().filter(|file| is_weights(file) && split_path(&file.path).0 == folder).collect();
    let file = named.map(|file| file.path.as_str()).filter(|path| *path != config.path);
    let not_model = |file: &str, problem| Err(PickError::NotModel { repo: repo(), file: shown(file), problem });
    let mut selection = Selection {
        format: Format::Mlx,
        dir: folder.to_owned(),
        weights: Vec::new(),
        index: known(&at(INDEX)).cloned(),
        sidecars: vec![config.clone()],
        projectors: Vec::new(),
        named: file.filter(|file| check::ends_ignoring_case(file, ENDING)).map(str::to_owned),
    };
    match file {
        Some(file) if check::ends_ignoring_case(file, INDEX_ENDING) && *file != at(INDEX) => {
            return not_model(file, "is not the index of a whole model; name model.safetensors.index.json");
        }
        Some(file) if !check::is_model_file(file) => {
            return not_model(file, "is no model; name its repository, or a .gguf or .safetensors file");
        }
        _ => {}
    }
    selection.weights = if selection.index.is_some() {
        let expected = |file: &&&FileInfo| part(&file.path, ENDING).is_some_and(|part| part.stem == at("model"));
        weights.iter().filter(expected).map(|file| (*file).clone()).collect()
    } else {
        match weights.as_slice() {
            [] => {
                let advice = "look for a conversion of it, with MLX in its name, or try --gguf";
                return Err(PickError::NoModel {
                    repo: reference.to_string(),
                    what: "no .safetensors file in it",
                    advice,
                });
            }
            [only] => vec![(*only).clone()],
            several => match several.iter().find(|file| file.path == at(DEFAULT_WEIGHTS)) {
                Some(file) => vec![(*file).clone()],
                None => {
                    let what = "several .safetensors files and no model.safetensors.index.json that says which belong \
                                together";
                    let advice = "look for another conversion of it";
                    return Err(PickError::NoModel { repo: reference.to_string(), what, advice });
                }
            },
        }
    };
    if let (None, Some(named)) = (&selection.index, &selection.named)
        && !selection.weights.iter().any(|file| file.path == *named)
    {
        return not_model(named, "is not what the model beside it is made of; name the repository alone");
    }
    let beside = files.iter().filter(|file| is_sidecar(&file.path, folder));
    let unique: BTreeMap<&str, &FileInfo> = beside.map(|file| (file.path.as_str(), file)).collect();
    selection.sidecars.extend(unique.into_values().cloned());
    Ok(selection)
}

/// The one folder with a model that the label, the folder that was named, or neither leaves.
fn folder<'a>(files: &'a [FileInfo], reference: &HubReference) -> Result<&'a str, PickError> {
    let all = folders(files);
    let listed = |folders: &[&str]| Candidates::new(folders.iter().map(|folder| candidate(files, folder)).collect());
    let dir = reference.file.as_deref().unwrap_or_default();
    let mut left: Vec<&str> = all.iter().copied().filter(|folder| *folder == dir || within(folder, dir)).collect();
    if left.is_empty() && !dir.is_empty() {
        return Err(missing(reference, "file", dir, listed(&all)));
    }
    if let Some(label) = &reference.quant {
        // One quantisation a repository is the rule: then its name has the label.
        let whole = labelled(reference.repo.name(), label).is_some();
        left.retain(|folder| labelled(folder, label).is_some() || whole && *folder == dir);
        if left.is_empty() {
            return Err(missing(reference, "quantisation", label, listed(&all)));
        }
    }
    if let Some(topmost) = left.iter().find(|folder| **folder == dir) {
        return Ok(topmost);
    }
    match left.as_slice() {
        [one] => Ok(one),
        [] => {
            let any_weights = files.iter().any(is_weights);
            Err(PickError::NoModel {
                repo: reference.to_string(),
                what: if any_weights { "no config.json beside its weights" } else { "no .safetensors file in it" },
                advice: "look for a conversion of it, with MLX in its name, or try --gguf",
            })
        }
        several => Err(PickError::Several { repo: reference.to_string(), candidates: listed(several) }),
    }
}

/// Folders that have both a config and weights, sorted.
fn folders(files: &[FileInfo]) -> Vec<&str> {
    let of = |file: &'_ FileInfo| split_path(&file.path).0.len();
    let weights: BTreeSet<&str> =
        files.iter().filter(|file| is_weights(file)).map(|file| &file.path[..of(file)]).collect();
    let configs = files.iter().filter(|file| split_path(&file.path).1 == CONFIG);
    let found: BTreeSet<&str> =
        configs.map(|file| &file.path[..of(file)]).filter(|dir| weights.contains(dir)).collect();
    found.into_iter().collect()
}

fn is_weights(file: &FileInfo) -> bool {
    check::ends_ignoring_case(&file.path, ENDING)
}

/// What belongs to a model beside its config and weights.
fn is_sidecar(path: &str, folder: &str) -> bool {
    let below = if folder.is_empty() {
        path
    } else {
        match path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) {
            Some(below) => below,
            None => return false,
        }
    };
    if below.starts_with("additional_chat_templates/") || is_pooling(below) {
        return true;
    }
    let heavy = check::is_model_file(below) || check::ends_ignoring_case(below, ".bin");
    let whole = ["generation_config.json", "special_tokens_map.json", "merges.txt", "modules.json"].contains(&below);
    let begins = ["tokenizer", "chat_template", "vocab."].iter().any(|start| below.starts_with(start));
    !heavy && !below.contains('/') && (whole || begins)
}

/// `1_Pooling/config.json`, where sentence-transformers says how hidden states become a vector.
fn is_pooling(below: &str) -> bool {
    let folder = below.strip_suffix("/config.json");
    folder.is_some_and(|folder| folder.ends_with("_Pooling") && !folder.contains('/'))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn with_index(mut selection: Selection, files: &[FileInfo], index: &[u8]) -> Result<Selection, PickError> {
    let Some(own) = &selection.index else { return Ok(selection) };
    let refuse = |problem: String| Err(PickError::Index { file: own.path.clone(), problem });
    let names: BTreeSet<String> = match serde_json::from_slice::<Index>(index) {
        Ok(index) => index.weight_map.into_values().collect(),
        Err(cause) => return refuse(format!("not an index of weights: {cause}")),
    };
    let mut weights = Vec::with_capacity(names.len());
    for name in &names {
        if let Some(problem) = check::path_problem(name) {
            return refuse(format!("refused: it names a file {:?} that {problem}", shown(name)));
        }
        let path = if selection.dir.is_empty() { name.clone() } else { format!("{}/{name}", selection.dir) };
        match files.iter().find(|file| file.path == path) {
            Some(file) if is_weights(file) => weights.push(file.clone()),
            Some(_) => return refuse(format!("it names {:?}, which is no .safetensors file", shown(name))),
            None => return refuse(format!("it names {:?}, which the repository does not have", shown(name))),
        }
    }
    if weights.is_empty() {
        return refuse("it names no file".to_owned());
    }
    if let Some(named) = &selection.named
        && !weights.iter().any(|file| file.path == *named)
    {
        return refuse(format!("the model does not use {:?}; name the repository alone", shown(named)));
    }
    selection.weights = weights;
    Ok(selection)
}
