//! What people type to name a model, and what it means; must not know the network, the disk, or which models there are.
//!
//! ```
//! use catalog::reference::Reference;
//!
//! let Reference::Hub(hub) = Reference::parse("unsloth/Qwen3-4B-GGUF@main:Q4_K_M", None)? else { panic!() };
//! assert_eq!((hub.repo.org(), hub.repo.name()), ("unsloth", "Qwen3-4B-GGUF"));
//! assert_eq!((hub.revision.as_deref(), hub.quant.as_deref()), (Some("main"), Some("Q4_K_M")));
//! # Ok::<(), catalog::reference::ReferenceError>(())
//! ```

mod check;
mod gguf;
mod mlx;
mod pick;
mod web;

#[cfg(test)]
mod pick_tests;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

pub use check::RepoId;
pub use pick::{Candidate, Candidates, FileInfo, PickError, Selection, pick};

/// Bytes of a name at most. Origin: PATH_MAX of Linux, which is the larger one of ours.
const TEXT_BYTES: usize = 4096;
/// The hub's short hosts, which people also write without `https://`.
const HOSTS: [&str; 3] = ["huggingface.co", "hf.co", "www.huggingface.co"];
/// What `hf://` spells as `%..`: all that means something there, or in the short form.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What was typed after `--model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Something on this machine: begins with `/`, `./`, `../` or `~/`, or ends with `/`. As it was typed: `~` is not
    /// expanded.
    Path(PathBuf),
    /// The id of a catalog entry or of a bundled model: a word without slashes.
    Name(String),
    /// A repository of the hub, or something in it. `org/name` is also a relative path: whoever has a disk looks there
    /// first.
    Hub(HubReference),
}

/// A repository of the hub, or something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubReference {
    /// Which.
    pub repo: RepoId,
    /// A branch, a tag or a commit; `None`: what is newest.
    pub revision: Option<String>,
    /// A file, or a folder, in the repository. Below it, however it was spelled.
    pub file: Option<String>,
    /// A quantisation by its label: `Q4_K_M`, `UD-Q4_K_XL`, `4bit`. Never beside a model file.
    pub quant: Option<String>,
}

/// Why something that was typed names no model. One line: which part is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{typed}: the {part} {found:?} {problem}; {advice}")]
pub struct ReferenceError {
    typed: String,
    part: &'static str,
    found: String,
    problem: &'static str,
    advice: String,
}

impl ReferenceError {
    fn new(part: &'static str, found: &str, problem: &'static str, advice: impl Into<String>) -> Self {
        Self { typed: String::new(), part, found: shown(found), problem, advice: advice.into() }
    }

    /// Which part is wrong: `revision`, `host`, `file`, …
    pub fn part(&self) -> &'static str {
        self.part
    }
}

/// Whatever somebody wrote, fit for a line on a terminal. Quotes and backslashes are left to `{:?}`.
fn shown(text: &str) -> String {
    let keep = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut cut: String = text.chars().take(80).map(keep).collect();
    if text.chars().nth(80).is_some() {
        cut.push('…');
    }
    cut
}

impl Reference {
    /// Reads what was typed. `endpoint` is the value of `HF_ENDPOINT`: addresses on its host are the hub's too.
    ///
    /// # Errors
    /// When it cannot name a model, whatever there is.
    pub fn parse(text: &str, endpoint: Option<&str>) -> Result<Self, ReferenceError> {
        read(text, endpoint).map_err(|error| match error.typed.is_empty() {
            true => ReferenceError { typed: shown(text), ..error },
            false => error,
        })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text, None)
    }
}

fn read(text: &str, endpoint: Option<&str>) -> Result<Reference, ReferenceError> {
    const FORMS: &str = "write ORG/NAME, ORG/NAME:QUANT, a catalog id, or a path that begins with ./";
    if text.is_empty() {
        return Err(ReferenceError::new("name", text, "is empty", FORMS));
    }
    if text.len() > TEXT_BYTES {
        return Err(ReferenceError::new("name", text, "is longer than 4096 bytes", FORMS));
    }
    if text.chars().any(char::is_control) {
        return Err(ReferenceError::new("name", text, "has a control character in it", FORMS));
    }
    if is_path(text) {
        return Ok(Reference::Path(text.into()));
    }
    if let Some(rest) = strip_ignoring_case(text, "hf://") {
        return short(rest, true).map(Reference::Hub);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return web::read(scheme, rest, endpoint).map(Reference::Hub);
    }
    if HOSTS.iter().any(|host| strip_ignoring_case(text, host).is_some_and(|rest| rest.starts_with('/'))) {
        return web::read("https", text, endpoint).map(Reference::Hub);
    }
    if text.split(['@', ':']).next().is_some_and(|head| !head.contains('/')) {
        return check::name(text).map(Reference::Name);
    }
    short(text, false).map(Reference::Hub)
}

fn is_path(text: &str) -> bool {
    let lone = matches!(text, "." | ".." | "~");
    lone || text.ends_with('/') && !text.contains("://") || ["/", "./", "../", "~/"].iter().any(|p| text.starts_with(p))
}

fn strip_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `org/name[/path][@revision][:quant-or-file]`; after `hf://` its parts are percent-encoded.
fn short(text: &str, encoded: bool) -> Result<HubReference, ReferenceError> {
    let text = if encoded { text.strip_suffix('/').unwrap_or(text) } else { text };
    let (head, revision, label) = match text.find(['@', ':']) {
        None => (text, None, None),
        Some(at) if text.as_bytes()[at] == b'@' => {
            let (revision, label) = match text[at + 1..].split_once(':') {
                Some((revision, label)) => (revision, Some(label)),
                None => (&text[at + 1..], None),
            };
            (&text[..at], Some(revision), label)
        }
        Some(at) => (&text[..at], None, Some(&text[at + 1..])),
    };
    let decode = |part: &str, what| if encoded { web::decode(part, what) } else { Ok(part.to_owned()) };
    let mut segments = head.split('/');
    let (org, name) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let repo = RepoId::new(&decode(org, "repository")?, &decode(name, "repository")?)?;
    let path = segments.map(|segment| decode(segment, "file")).collect::<Result<Vec<_>, _>>()?;
    let mut file = if path.is_empty() { None } else { Some(check::file(&path)?) };
    let revision = revision.map(|revision| check::revision(&decode(revision, "revision")?, &repo)).transpose()?;
    let mut quant = None;
    if let Some(label) = label {
        if let Some((before, _)) = label.split_once('@') {
            let advice = format!("write the revision first: {repo}@REVISION:{}", shown(before));
            return Err(ReferenceError::new("quantisation", label, "has a revision behind it", advice));
        }
        let label = decode(label, "quantisation")?;
        if !label.contains('/') && !check::is_model_file(&label) {
            quant = Some(check::quant(&label)?);
        } else if let Some(file) = &file {
            let advice = format!("name one of them: {repo}/FILE");
            return Err(ReferenceError::new("file", file, "has another file behind it", advice));
        } else {
            let segments: Vec<String> = label.split('/').map(str::to_owned).collect();
            file = Some(check::file(&segments)?);
        }
    }
    if let (Some(file), Some(quant)) = (&file, &quant)
        && check::is_model_file(file)
    {
        let advice = format!("leave out :{quant}");
        return Err(ReferenceError::new("file", file, "is one model already", advice));
    }
    Ok(HubReference { repo, revision, file, quant })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Hub(hub) => hub.fmt(f),
        }
    }
}

/// The short form, or `hf://` where that would be read as something else.
impl fmt::Display for HubReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let org = self.repo.org();
        let taken = HOSTS.iter().any(|host| host.eq_ignore_ascii_case(org));
        let plain = |file: &String| !file.contains(['@', ':']);
        let short = !taken && self.file.as_ref().is_none_or(plain);
        let encode = |part: &str| match short {
            true => part.to_owned(),
            false => utf8_percent_encode(part, ENCODED).to_string(),
        };
        write!(f, "{}{}", if short { "" } else { "hf://" }, self.repo)?;
        if let Some(file) = &self.file {
            write!(f, "/{}", encode(file))?;
        }
        if let Some(revision) = &self.revision {
            write!(f, "@{}", encode(revision))?;
        }
        if let Some(quant) = &self.quant {
            write!(f, ":{quant}")?;
        }
        Ok(())
    }
}
