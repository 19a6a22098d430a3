//! Why a download fails, in one line each, with what to do; must not know how it is shown.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why something of the hub is not here. No message ever holds the token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The configuration.
    #[error("{0}")]
    Config(String),
    /// A name that may not touch the disk.
    #[error("refused: the {what} {name:?}: {why}")]
    BadName {
        /// What has it.
        what: &'static str,
        /// The name, escaped and cut.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// 401.
    #[error(
        "{repo}: the hub wants to know who asks (401), or there is no such repository: check the name, and for a \
         private or gated one {}",
        if *token { "check HF_TOKEN: the one that is set was not accepted" }
        else { "set HF_TOKEN to a token of yours (https://huggingface.co/settings/tokens)" }
    )]
    Unauthorized {
        /// The repository.
        repo: String,
        /// A token was sent.
        token: bool,
    },
    /// 403 of a gated repository.
    #[error(
        "{repo} is gated: accept its terms at {page}, {}",
        if *token { "with the account whose token HF_TOKEN is, and try again" }
        else { "then set HF_TOKEN to a token of that account" }
    )]
    Gated {
        /// The repository.
        repo: String,
        /// Where to accept the terms.
        page: String,
        /// A token was sent.
        token: bool,
    },
    /// 403 otherwise.
    #[error(
        "{repo}: the hub refuses it to this token (403): a fine-grained token needs read access to this repository"
    )]
    Forbidden {
        /// The repository.
        repo: String,
    },
    /// 404 of a repository.
    #[error("{repo}: no such repository on {endpoint} (or a private one, and HF_TOKEN may not see it)")]
    NoRepository {
        /// The repository.
        repo: String,
        /// The hub.
        endpoint: String,
    },
    /// 404 of a revision.
    #[error("{repo} has no revision {revision}")]
    NoRevision {
        /// The repository.
        repo: String,
        /// What was asked for.
        revision: String,
    },
    /// 404 of a file that the listing has, or that somebody named.
    #[error("{repo} has no file {file}")]
    NoFile {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
    },
    /// 429.
    #[error(
        "{repo}: the hub is limiting requests (429){}: wait, or set HF_TOKEN, since accounts have a higher limit",
        wait.map(|seconds| format!(" and asks for {seconds} s of patience")).unwrap_or_default()
    )]
    RateLimited {
        /// The repository.
        repo: String,
        /// What the hub asked for at last, in seconds.
        wait: Option<u64>,
    },
    /// Any other answer that does not get better.
    #[error("{what}: the hub answered {status}")]
    Status {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
    },
    /// The connection, after all tries.
    #[error("{what}: {cause} (tried {tries} times; run it again to go on from here)")]
    Connection {
        /// What was asked for.
        what: String,
        /// The last failure.
        cause: String,
        /// How often.
        tries: u32,
    },
    /// Redirects that lead nowhere, or to where nothing may go.
    #[error("{what}: {why}")]
    Redirect {
        /// What was asked for.
        what: String,
        /// What is wrong.
        why: &'static str,
    },
    /// An answer that is not what the hub's API says.
    #[error("{what}: the hub's answer makes no sense: {why}")]
    Nonsense {
        /// What was asked for.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The bytes are not those that the listing promised, twice.
    #[error("{file}: what arrives is not what {repo} lists ({why}), twice: the hub, or something between, is broken")]
    Corrupt {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// What differs.
        why: String,
    },
    /// Too little space.
    #[error(
        "not enough space in {}: {repo} needs {} more, {} are free: make room, or put the cache elsewhere (HF_HUB_CACHE)",
        path.display(), bytes(*needed), bytes(*free)
    )]
    NoSpace {
        /// The repository.
        repo: String,
        /// The cache.
        path: PathBuf,
        /// Bytes that are missing of the download, and a reserve.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The disk is full, though it had enough space at first.
    #[error(
        "{}: the disk is full ({cause}), and {} are still to come: what has come is kept; make room, or put the cache \
         elsewhere (HF_HUB_CACHE), and run it again",
        path.display(), bytes(*missing)
    )]
    Full {
        /// The cache, or the folder in it.
        path: PathBuf,
        /// Bytes that have not come yet.
        missing: u64,
        /// What the system says.
        cause: String,
    },
    /// Not here, and not to be fetched.
    #[error("offline: {what} is not in the cache at {} (leave out --offline to fetch it)", cache.display())]
    Offline {
        /// What is missing.
        what: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// Something in the cache that we do not follow.
    #[error("{}: refused: {why}", path.display())]
    Planted {
        /// Where.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// In use by another process.
    #[error("{repo}: being downloaded right now, so it stays")]
    Busy {
        /// The repository.
        repo: String,
    },
    /// The disk.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A bug of ours.
    #[error("a bug ended the download: {0}")]
    Panicked(String),
}

impl HubError {
    pub(crate) fn io(path: &std::path::Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { path: path.clone(), cause }
    }
}

/// Bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}
