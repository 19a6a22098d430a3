//! Which parts of a reference are well formed; must not know in which form they were written.

use std::fmt;

use super::ReferenceError;

/// Bytes of each half of a repository's name at most. Origin: the hub's own rule.
const HALF_BYTES: usize = 96;
/// Bytes of a revision at most. Origin: git keeps a branch as a file, so NAME_MAX.
const REVISION_BYTES: usize = 255;
/// Bytes of one path segment at most. Origin: NAME_MAX of every file system in use.
const SEGMENT_BYTES: usize = 255;
/// Bytes of a file's path at most. PATH_MAX is 1,024 on macOS, and the cache's own path comes before.
const PATH_BYTES: usize = 700;
/// Bytes of a quantisation's label at most; the longest known one has 11.
const QUANT_BYTES: usize = 64;
/// What a file ends with that is a model, or says which files are one.
const MODEL_FILES: [&str; 3] = [".gguf", ".safetensors", ".safetensors.index.json"];

/// A repository's name, as the hub allows it: `org/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId {
    id: String,
    slash: usize,
}

impl RepoId {
    /// A repository's name from its halves.
    ///
    /// # Errors
    /// When the hub could have no such repository.
    pub fn new(org: &str, name: &str) -> Result<Self, ReferenceError> {
        for (part, half) in [("organisation", org), ("repository", name)] {
            if let Some(problem) = half_problem(half) {
                let advice = "write ORG/NAME as on the hub's page (a path begins with ./)";
                return Err(ReferenceError::new(part, half, problem, advice));
            }
        }
        if name.ends_with(".git") {
            return Err(ReferenceError::new("repository", name, "ends with .git", "leave out .git"));
        }
        Ok(Self { id: format!("{org}/{name}"), slash: org.len() })
    }

    /// `org/name`.
    pub fn as_str(&self) -> &str {
        &self.id
    }

    /// Whose it is.
    pub fn org(&self) -> &str {
        &self.id[..self.slash]
    }

    /// What it is called there.
    pub fn name(&self) -> &str {
        &self.id[self.slash + 1..]
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

fn half_problem(half: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match half {
        "" => Some("is empty"),
        long if long.len() > HALF_BYTES => Some("is longer than 96 characters"),
        other if !other.bytes().all(allowed) => Some("has other characters than letters, digits, '-', '_' and '.'"),
        other if other.starts_with(['-', '.']) || other.ends_with(['-', '.']) => Some("begins or ends with '-' or '.'"),
        other if other.contains("--") || other.contains("..") => Some("has '--' or '..' in it"),
        _ => None,
    }
}

/// A catalog id.
pub(super) fn name(text: &str) -> Result<String, ReferenceError> {
    if let Some(at) = text.find(['@', ':']) {
        let (problem, advice) = match text.as_bytes()[at] {
            b'@' => ("takes no @revision", "write ORG/NAME@REVISION for a repository, or the id alone"),
            _ => ("takes no :quantisation", "write ORG/NAME:QUANT for a repository, or the id alone"),
        };
        return Err(ReferenceError::new("catalog id", &text[..at], problem, advice));
    }
    match half_problem(text) {
        None => Ok(text.to_owned()),
        Some(problem) => {
            let advice = "write an id of `models list`, ORG/NAME, or a path that begins with ./";
            Err(ReferenceError::new("catalog id", text, problem, advice))
        }
    }
}

/// A branch, a tag or a commit, by the rules of `git check-ref-format`.
pub(super) fn revision(text: &str, repo: &RepoId) -> Result<String, ReferenceError> {
    const ADVICE: &str = "write a branch, a tag or a commit: ORG/NAME@REVISION";
    let refuse = |problem| Err(ReferenceError::new("revision", text, problem, ADVICE));
    if text.is_empty() {
        return refuse("is empty");
    }
    if text.len() > REVISION_BYTES {
        return refuse("is longer than 255 bytes");
    }
    if is_model_file(text) || text.ends_with(".json") {
        let advice = format!("write the revision last: {repo}/FILE@REVISION");
        return Err(ReferenceError::new("revision", text, "ends with a file", advice));
    }
    if text.contains("..") || text.contains("@{") || text == "@" {
        return refuse("has '..' or '@{' in it");
    }
    let forbidden =
        |c: char| c.is_control() || c.is_whitespace() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    if text.contains(forbidden) {
        return refuse("has a character that git allows in no name");
    }
    let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if text.starts_with('-') || text.ends_with('.') || text.split('/').any(bad) {
        return refuse("has a part that git allows in no name");
    }
    Ok(text.to_owned())
}

/// A quantisation's label.
pub(super) fn quant(text: &str) -> Result<String, ReferenceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let problem = match text {
        "" => "is empty",
        long if long.len() > QUANT_BYTES => "is longer than 64 characters",
        other if !other.bytes().all(allowed) => "has other characters than letters, digits, '-', '_' and '.'",
        other if !other.bytes().any(|byte| byte.is_ascii_alphanumeric()) => "has no letter or digit",
        _ => return Ok(text.to_owned()),
    };
    Err(ReferenceError::new("quantisation", text, problem, "write it as in the file's name: ORG/NAME:Q4_K_M"))
}

/// A file in the repository, from its decoded segments.
pub(super) fn file(segments: &[String]) -> Result<String, ReferenceError> {
    let path = segments.join("/");
    let hidden = segments.iter().any(|segment| segment.contains('/')).then_some("has an encoded slash in it");
    match hidden.or_else(|| path_problem(&path)) {
        None => Ok(path),
        Some(problem) => Err(ReferenceError::new("file", &path, problem, "write it as the repository lists it")),
    }
}

/// Why a path may not be a file below a folder of ours.
pub(super) fn path_problem(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("is empty");
    }
    if path.len() > PATH_BYTES {
        return Some("is longer than 700 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Some("has a backslash or a control character in it");
    }
    path.split('/').find_map(|segment| match segment {
        "" => Some("has an empty part"),
        "." | ".." => Some("leaves its folder"),
        long if long.len() > SEGMENT_BYTES => Some("has a part of more than 255 bytes"),
        _ => None,
    })
}

/// Whether it ends as a model does. Nothing else is needed: a folder that is called so is told by whoever has the list.
pub(super) fn is_model_file(path: &str) -> bool {
    MODEL_FILES.iter().any(|ending| ends_ignoring_case(path, ending))
}

pub(super) fn ends_ignoring_case(text: &str, ending: &str) -> bool {
    let start = text.len().checked_sub(ending.len());
    start.and_then(|start| text.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
}
