//! A cache, a hub, and short patience.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use catalog::hub::{Hub, HubConfig, HubError, Listing, Progress, Secret, Selection, Snapshot, Tuning};
use test_hub::{Content, Repo, RunningHub};

pub(crate) const REPO: &str = "org/model";

pub(crate) struct Bench {
    pub(crate) server: RunningHub,
    cache: tempfile::TempDir,
    pub(crate) progress: Mutex<Vec<Progress>>,
    tuning: Tuning,
}

/// Patience for tests: short pauses, and silence that only a broken hub keeps, however busy this machine is.
pub(crate) fn tuning() -> Tuning {
    Tuning { stall: Duration::from_secs(10), pause: Duration::from_millis(5), ..Tuning::default() }
}

/// A small model: what git holds, and what LFS does.
pub(crate) fn small() -> Repo {
    Repo::new(REPO)
        .file("config.json", r#"{"model_type":"qwen3"}"#)
        .file("sub/folder/notes.txt", "nested")
        .file("empty", "")
        .lfs("model.safetensors", Content::generated(1, 3_000_000))
}

impl Bench {
    pub(crate) fn new(hub: test_hub::Hub) -> Self {
        let (server, cache) = (hub.start().unwrap(), tempfile::tempdir().unwrap());
        Self { server, cache, progress: Mutex::default(), tuning: tuning() }
    }

    pub(crate) fn of(repo: Repo) -> Self {
        Self::new(test_hub::Hub::new().repo(repo))
    }

    /// Another hub that has the same, without rules: what was asked of the old one and not answered yet counts there.
    pub(crate) fn renew(&mut self, repo: Repo) {
        self.server = test_hub::Hub::new().repo(repo).start().unwrap();
    }

    /// For hubs that fall silent.
    pub(crate) fn impatient(self) -> Self {
        self.with(|tuning| tuning.stall = Duration::from_millis(600))
    }

    /// Files of a megabyte come over several connections already.
    pub(crate) fn spread(self) -> Self {
        self.with(|tuning| (tuning.large, tuning.range) = (999_999, 1 << 20))
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Tuning)) -> Self {
        change(&mut self.tuning);
        self
    }

    /// In another cache, which must outlive it.
    pub(crate) fn config_at(&self, cache: &Path) -> HubConfig {
        HubConfig { cache: cache.to_owned(), ..self.config() }
    }

    pub(crate) fn cache(&self) -> &Path {
        self.cache.path()
    }

    pub(crate) fn config(&self) -> HubConfig {
        let tuning = self.tuning.clone();
        HubConfig { endpoint: self.server.url().to_owned(), tuning, ..HubConfig::new(self.cache()) }
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.config()).unwrap()
    }

    pub(crate) fn hub_of(&self, token: &str) -> Hub {
        Hub::new(HubConfig { token: Secret::new(token), ..self.config() }).unwrap()
    }

    pub(crate) fn offline(&self) -> Hub {
        Hub::new(HubConfig { offline: true, endpoint: "http://127.0.0.1:9".into(), ..self.config() }).unwrap()
    }

    /// Lists and fetches everything.
    pub(crate) async fn get(&self) -> Result<Snapshot, HubError> {
        self.get_by(&self.hub()).await
    }

    pub(crate) async fn get_by(&self, hub: &Hub) -> Result<Snapshot, HubError> {
        let listing = hub.files(REPO, "main").await?;
        hub.download(&selection(listing), |progress| self.progress.lock().unwrap().push(progress)).await
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.cache().join("models--org--model/blobs")
    }

    /// Names in the blobs' folder, sorted.
    pub(crate) fn blob_names(&self) -> Vec<String> {
        names(&self.blobs())
    }

    /// Bytes that count as arrived: files in order by their lengths, others by their journals.
    pub(crate) fn arrived(&self) -> u64 {
        let of = |name: &String| {
            let path = self.blobs().join(name);
            if name.ends_with(".journal") {
                return journaled(&path).into_iter().map(|piece| piece.end - piece.start).sum();
            }
            let counts = !name.ends_with(".etag") && !name.contains(".pieces");
            if counts { fs::metadata(path).map_or(0, |meta| meta.len()) } else { 0 }
        };
        self.blob_names().iter().map(of).sum()
    }

    /// What a failed download may leave: parts, and nothing that looks finished (but a file without bytes, which needs none).
    pub(crate) fn is_clean(&self) -> bool {
        let finished =
            |name: &String| !name.contains(".incomplete") && fs::metadata(self.blobs().join(name)).unwrap().len() > 0;
        !self.blob_names().iter().any(finished) && !self.cache().join("models--org--model/snapshots").exists()
    }
}

/// The pieces that a journal tells of, in the order in which they came.
pub(crate) fn journaled(path: &Path) -> Vec<Range<u64>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let piece = |line: &str| {
        let mut words = line.split(' ');
        let (start, length): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(start..start + length)
    };
    // The last one may be torn.
    text.split_inclusive('\n').skip(1).filter(|line| line.ends_with('\n')).filter_map(piece).collect()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn selection(listing: Listing) -> Selection {
    Selection { repo: REPO.into(), revision: "main".into(), commit: listing.commit, files: listing.files }
}

/// The one line that a user sees.
pub(crate) fn line(error: HubError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

/// The bytes of generated content.
pub(crate) fn generated(seed: u64, bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut Content::generated(seed, bytes).reader(), &mut out).unwrap();
    out
}
