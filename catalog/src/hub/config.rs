//! Which hub, as whom, where to, and how patiently; must not know where its callers have that from.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// The hub that everybody means.
pub const HUB: &str = "https://huggingface.co";

/// Something that must not be shown: a token.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Of what somebody set; blanks around it are no part of it. `None` if it is empty.
    pub fn new(text: impl AsRef<str>) -> Option<Self> {
        let text = text.as_ref().trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which hub, as whom, and where to put things.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The hub's address (`HF_ENDPOINT`), usually [`HUB`].
    pub endpoint: String,
    /// Who asks (`HF_TOKEN`).
    pub token: Option<Secret>,
    /// The cache (`HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`).
    pub cache: PathBuf,
    /// Use only what is in the cache (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// How patiently. The default is for the real hub.
    pub tuning: Tuning,
}

impl HubConfig {
    /// The public hub, nobody, with this cache.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: HUB.to_owned(), token: None, cache: cache.into(), offline: false, tuning: Tuning::default() }
    }
}

/// How patiently the hub is asked.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Longest silence on a connection, and longest wait for one. Default 30 s: the hub's stores take up to ten seconds to
    /// begin; a dead line costs this much each time it is tried.
    pub stall: Duration,
    /// Failures in a row before it is given up. Default 5.
    pub tries: u32,
    /// The first pause between tries; it doubles up to 8 s. Default 0.5 s.
    pub pause: Duration,
    /// Files at once. Default 4: more brings little on one line, and a hub counts requests.
    pub files: usize,
    /// Connections for content at once, over all files. Default 8: a store gives each connection 20 to 60 MB/s (guess), and
    /// beyond some, hubs slow down whoever asks.
    pub connections: usize,
    /// Files of more bytes come over several connections. Default 64 MiB: below, opening them costs more than they bring.
    pub large: u64,
    /// Bytes that such a file's connection asks for at once; whole mebibytes. Default 16 MiB: a second of a good line, so that
    /// the last ones end together, and 20 GB are 1,200 requests.
    pub range: u64,
    /// Bytes free where this path is; tests say what they like.
    pub free: fn(&Path) -> io::Result<u64>,
    /// How bytes get to the disk; tests have a full one.
    pub write: fn(&File, &[u8], u64) -> io::Result<usize>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(500),
            files: 4,
            connections: 8,
            large: 64 << 20,
            range: 16 << 20,
            free,
            write: File::write_at,
        }
    }
}

fn free(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
