//! Which files of a repository are the model that was meant; must not know how they are fetched.

use std::fmt;

use thiserror::Error;

use super::{HubReference, check, gguf, mlx, shown};
use crate::Format;

/// Candidates that a message lists at most; the largest ones, since those are the models and not their helpers.
const LISTED: usize = 20;

/// A file of a repository, as its list tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Where it lies in the repository.
    pub path: String,
    /// How long it is.
    pub bytes: u64,
}

/// The files of one model in a repository. Every path is one of the list that they were picked from, and leads nowhere
/// outside of the repository's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// In which form it is.
    pub format: Format,
    /// The folder of the repository that it lies in; empty: the topmost.
    pub dir: String,
    /// The GGUF file, or its parts in order; or MLX weights. With an [`index`](Selection::index), what the names let
    /// expect: [`with_index`](Selection::with_index) makes it certain.
    pub weights: Vec<FileInfo>,
    /// MLX: the file that says which weights belong to the model. To be fetched first.
    pub index: Option<FileInfo>,
    /// MLX: `config.json`, which is the first one, the tokenizer and its like.
    pub sidecars: Vec<FileInfo>,
    /// GGUF: the projectors in the same repository, the likeliest one first. Which one is taken, if any, is not
    /// decided here.
    pub projectors: Vec<FileInfo>,
    /// MLX: the weight file that was named, which the index must have.
    pub(super) named: Option<String>,
}

impl Selection {
    /// Everything that serving needs: the index, the sidecars, the weights. No projector.
    pub fn files(&self) -> impl Iterator<Item = &FileInfo> {
        self.index.iter().chain(&self.sidecars).chain(&self.weights)
    }

    /// The length of all [`files`](Selection::files).
    pub fn bytes(&self) -> u64 {
        self.files().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The same with exactly the weights that the index names. Without an index there is nothing to do.
    ///
    /// # Errors
    /// When the index is none, or names files that are not in the list or should not be.
    pub fn with_index(self, files: &[FileInfo], index: &[u8]) -> Result<Self, PickError> {
        mlx::with_index(self, files, index)
    }
}

/// Something that could have been meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What to write behind `ORG/NAME:` to mean it: a quantisation's label, or a file.
    pub label: String,
    /// Its first file, or its folder.
    pub file: String,
    /// The length of all its files.
    pub bytes: u64,
}

/// Candidates, as a message lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The largest ones first; twenty at most.
    pub shown: Vec<Candidate>,
    /// How many there are.
    pub total: usize,
}

impl Candidates {
    pub(super) fn new(mut all: Vec<Candidate>) -> Self {
        let total = all.len();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.file.cmp(&b.file)));
        all.truncate(LISTED);
        Self { shown: all, total }
    }
}

impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, candidate) in self.shown.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}:{} ({})", shown(&candidate.label), size(candidate.bytes))?;
        }
        match self.total - self.shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} smaller ones"),
        }
    }
}

/// Bytes as the hub writes them: powers of ten.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Why a repository has no one model that was meant. One line, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PickError {
    /// The list has a name that could leave the repository's folder.
    #[error("{repo}: refused: it lists a file {path:?} whose name {problem}")]
    UnsafePath {
        /// The repository.
        repo: String,
        /// The name, cut.
        path: String,
        /// Why.
        problem: &'static str,
    },
    /// A model in both formats, where nobody said which.
    #[error("{0} has MLX and GGUF files: say which with --mlx or --gguf")]
    BothFormats(String),
    /// No model of the format that was asked for, or of any.
    #[error("{repo}: {what}; {advice}")]
    NoModel {
        /// The repository, and what was named in it.
        repo: String,
        /// What is missing.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// What was named is not there.
    #[error("{repo} has no {what} {found:?}; it has {candidates}")]
    Missing {
        /// The repository.
        repo: String,
        /// `file` or `quantisation`.
        what: &'static str,
        /// What was named.
        found: String,
        /// What there is.
        candidates: Candidates,
    },
    /// Several models, and none was named.
    #[error("{repo} has {} models: write one of these behind its name: {candidates}", candidates.total)]
    Several {
        /// The repository.
        repo: String,
        /// They.
        candidates: Candidates,
    },
    /// A file that is no model.
    #[error("{repo}: {file:?} {problem}")]
    NotModel {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// What it is.
        problem: &'static str,
    },
    /// A part of a model that was split is not in the repository.
    #[error("{repo}: {file:?} is not there, and without it the model is not whole")]
    Incomplete {
        /// The repository.
        repo: String,
        /// The part.
        file: String,
    },
    /// The index of the weights makes no sense.
    #[error("{file}: {problem}")]
    Index {
        /// The index.
        file: String,
        /// What is wrong.
        problem: String,
    },
}

/// Picks the files of the model that a reference means from the list of its repository's files. `format` is what
/// `--mlx` or `--gguf` said.
///
/// # Errors
/// When it is not one model, or not a whole one; when the list has a name that leaves the repository's folder.
pub fn pick(files: &[FileInfo], reference: &HubReference, format: Option<Format>) -> Result<Selection, PickError> {
    let repo = reference.repo.as_str();
    // Whole, and not only what would be fetched: who lists such a name means harm, or is broken.
    for file in files {
        if let Some(problem) = check::path_problem(&file.path) {
            return Err(PickError::UnsafePath { repo: repo.to_owned(), path: shown(&file.path), problem });
        }
    }
    let told = reference.file.as_deref().filter(|file| check::is_model_file(file));
    let told = told.map(|file| if check::ends_ignoring_case(file, ".gguf") { Format::Gguf } else { Format::Mlx });
    match (format, told) {
        (Some(format), Some(told)) if format != told => Err(PickError::NotModel {
            repo: repo.to_owned(),
            file: shown(reference.file.as_deref().unwrap_or_default()),
            problem: match told {
                Format::Gguf => "is a GGUF file, and --mlx was given: leave --mlx out",
                Format::Mlx => "is for MLX, and --gguf was given: leave --gguf out, and write --mlx",
            },
        }),
        (Some(Format::Gguf), _) | (None, Some(Format::Gguf)) => gguf::pick(files, reference),
        (Some(Format::Mlx), _) | (None, Some(Format::Mlx)) => mlx::pick(files, reference),
        (None, None) => either(files, reference),
    }
}

/// What is there decides, if it is one thing.
fn either(files: &[FileInfo], reference: &HubReference) -> Result<Selection, PickError> {
    match (mlx::any(files, reference), gguf::any(files, reference)) {
        (true, true) => match (mlx::pick(files, reference), gguf::pick(files, reference)) {
            // A label that one of them has and the other one lacks has told them apart.
            (Err(_), Ok(selection)) | (Ok(selection), Err(_)) if reference.quant.is_some() => Ok(selection),
            _ => Err(PickError::BothFormats(reference.repo.to_string())),
        },
        (true, false) => mlx::pick(files, reference),
        (false, true) => gguf::pick(files, reference),
        (false, false) => {
            if let Some(file) = &reference.file
                && !files.iter().any(|known| known.path == *file || within(&known.path, file))
            {
                let candidates =
                    Candidates::new(gguf::candidates(files).into_iter().chain(mlx::candidates(files)).collect());
                return Err(missing(reference, "file", file, candidates));
            }
            Err(PickError::NoModel {
                repo: reference.to_string(),
                what: "neither a GGUF file nor config.json with .safetensors weights in it",
                advice: "look for a conversion of it, with MLX or GGUF in its name",
            })
        }
    }
}

pub(super) fn missing(reference: &HubReference, what: &'static str, found: &str, candidates: Candidates) -> PickError {
    let repo = reference.repo.to_string();
    if candidates.total == 0 {
        let advice = "look for a conversion of it, with MLX or GGUF in its name";
        return PickError::NoModel { repo, what: "no model of this kind in it", advice };
    }
    PickError::Missing { repo, what, found: shown(found), candidates }
}

/// Whether a file lies in a folder, at any depth. Everything lies in the topmost, which is empty.
pub(super) fn within(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// The folder and the name of a path.
pub(super) fn split_path(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Whether `label` stands in `text` between borders, and whether only as `UD-label`, which is another quantisation.
pub(super) fn labelled(text: &str, label: &str) -> Option<bool> {
    let (text, label) = (text.to_ascii_lowercase(), label.to_ascii_lowercase());
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let mut only_dynamic = None;
    for (at, _) in text.match_indices(&label) {
        let before = text[..at].bytes().next_back();
        // `model_q4_k_m` has the label q4_k_m; but Q4_K_M has no label K_M, and no label Q4_K.
        let starts = before.is_none_or(|byte| !word(byte) || byte == b'_' && is_quant(&label));
        let ends = text[at + label.len()..].bytes().next().is_none_or(|byte| !word(byte));
        if starts && ends {
            let dynamic = text[..at].ends_with("ud-");
            only_dynamic = Some(dynamic && only_dynamic.unwrap_or(true));
        }
    }
    only_dynamic
}

/// Whether a word is how quantisations are called: `Q4_K_M`, `IQ2_XXS`, `TQ1_0`, `BF16`, `MXFP4_MOE`.
pub(super) fn is_quant(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let lower = lower.strip_prefix("ud-").unwrap_or(&lower);
    ["iq", "tq", "q", "bf", "mxfp", "nvfp", "fp", "f"].iter().any(|kind| {
        lower.strip_prefix(kind).is_some_and(|rest| {
            let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let tail = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.len() < rest.len() && (after.is_empty() || after.starts_with('_') && after.chars().all(tail))
        })
    })
}
