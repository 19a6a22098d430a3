//! Models from the Hugging Face hub into the cache that its other tools use; must not know the environment, the catalog's
//! entries, or who serves what is fetched.
//!
//! The crate `hf-hub` 1.0.0 is not used: its downloads begin anew after a kill (`File::create` on the part), check neither
//! checksum, length nor the names in a listing, and it cannot be had without `hf-xet`, which brings 60 crates and a
//! second TLS provider (aws-lc). What is used is its layout, its locks and its API calls, so the two share one cache.
//!
//! Files come four at a time. A small one comes over one connection and in order, as other tools have it, so that its length
//! says all about it. A large one comes over several connections, in ranges, beside a journal of what has arrived.

mod config;
mod delete;
mod elsewhere;
mod error;
mod fetch;
mod flow;
mod http;
mod installed;
mod journal;
mod layout;
mod listing;
pub(crate) mod names;
mod part;
mod progress;
mod ranges;
mod search;
mod transfer;

use std::{cmp::Reverse, collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};

pub use config::{HUB, HubConfig, Secret, Tuning};
pub use delete::Removal;
pub use elsewhere::{Answer, Elsewhere, Hears, Turn, WantedFile};
pub use error::HubError;
pub use fetch::{Fetched, Wanted, fetch};
pub use installed::{Checked, Installed, Snapshots};
pub use progress::{Progress, Stage};
pub use search::Found;

use http::{About, Client};
use layout::Place;
use progress::{Listener, Meter};

/// Bytes left free on a disk beyond what a download needs: a full disk harms more than this download. (ours)
const RESERVE: u64 = 64 << 20;

/// What a repository holds at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Its files, by path. Offline: those of them that are here.
    pub files: Vec<FileInfo>,
    /// Whether terms have to be accepted first.
    pub gated: bool,
    /// Whether only some may see it, or nobody says.
    pub private: bool,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Where in the repository. Checked: it stays below its folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The checksum of a large file.
    pub sha256: Option<String>,
    /// What git calls it; of a large file, its pointer.
    pub git_oid: Option<String>,
}

/// What to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The repository.
    pub repo: String,
    /// What was asked for: a branch, a tag, a commit.
    pub revision: String,
    /// What that is, from the [`Listing`].
    pub commit: String,
    /// Which of its files.
    pub files: Vec<FileInfo>,
}

/// What was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that has the files, by their paths in the repository.
    pub dir: PathBuf,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// A hub and a cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    config: HubConfig,
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

impl Hub {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the address or the token cannot be used.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        let client = Client::new(&config)?;
        Ok(Self(Arc::new(Inner { client, config, elsewhere: None })))
    }

    /// The same, and others are asked for each file before the hub is.
    ///
    /// # Errors
    /// As [`Hub::new`].
    pub fn with_elsewhere(config: HubConfig, elsewhere: Arc<dyn Elsewhere>) -> Result<Self, HubError> {
        let client = Client::new(&config)?;
        Ok(Self(Arc::new(Inner { client, config, elsewhere: Some(elsewhere) })))
    }

    /// What it was made with.
    pub fn config(&self) -> &HubConfig {
        &self.0.config
    }

    /// The commit of a revision and its files; offline, those that are here.
    ///
    /// # Errors
    /// When the hub refuses or cannot be reached, or lists what may not touch the disk.
    pub async fn files(&self, repo: &str, revision: &str) -> Result<Listing, HubError> {
        if self.0.config.offline {
            return self.cached(repo, revision);
        }
        let listing = listing::listing(&self.0.client, repo, revision).await?;
        if let Some(elsewhere) = &self.0.elsewhere {
            elsewhere.listed(repo, !listing.gated && !listing.private);
        }
        Ok(listing)
    }

    /// What of a revision is here, without asking anybody.
    ///
    /// # Errors
    /// When nothing of it is.
    pub fn cached(&self, repo: &str, revision: &str) -> Result<Listing, HubError> {
        names::check_repo(repo)?;
        names::check_revision(revision)?;
        let place = self.place(repo);
        let commit = place.commit(revision);
        let files = commit.as_ref().map(|commit| place.files(commit)).unwrap_or_default();
        match commit {
            Some(commit) if !files.is_empty() => Ok(Listing { commit, files, gated: false, private: false }),
            _ => Err(self.missing(format!("{repo} at {revision}"))),
        }
    }

    /// Where the bytes are that the hub calls so, if they are here whole.
    ///
    /// # Errors
    /// When these are no names that the hub gives, or something else lies in their place.
    pub fn blob(&self, repo: &str, name: &str, bytes: u64) -> Result<Option<PathBuf>, HubError> {
        names::check_repo(repo)?;
        if !names::is_oid(name) && !names::is_sha256(name) {
            return Err(HubError::Nonsense { what: repo.to_owned(), why: "no checksum".into() });
        }
        let place = self.place(repo);
        Ok(if place.has(name, bytes)? { Some(place.blob(name)) } else { None })
    }

    /// Brings files into the cache, those that are not there. Goes on where an earlier download stopped, and waits for
    /// other processes that download the same. When it is dropped it stops, and what has arrived stays for the next time.
    ///
    /// # Errors
    /// When a file cannot be had, there is too little space, or the cache is not as it should be. Whatever happens, no file
    /// of a snapshot is half there.
    pub async fn download(
        &self,
        selection: &Selection,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Snapshot, HubError> {
        checked(selection)?;
        let place = self.place(&selection.repo);
        let claim = if self.0.config.offline { None } else { Some(claim(&place).await?) };
        self.blobs(selection, &progress).await?;
        if claim.is_none() {
            // What is here is shown here; a cache that cannot be written is good enough for that.
            return shown(&place, selection).ok_or_else(|| self.missing(format!("all of {}", selection.repo)));
        }
        let selection = selection.clone();
        let linking = tokio::task::spawn_blocking(move || {
            for file in &selection.files {
                let blob = layout::blob_name(file).unwrap_or_default();
                place.link(&selection.commit, &file.path, blob)?;
            }
            place.remember(&selection.revision, &selection.commit)?;
            drop(claim);
            let dir = place.snapshot(&selection.commit);
            let files = selection.files.iter().map(|file| dir.join(&file.path)).collect();
            Ok(Snapshot { dir, files })
        });
        linking.await.map_err(|panic| HubError::Panicked(panic.to_string()))?
    }

    /// Brings the bytes, and shows them nowhere.
    pub(crate) async fn blobs(&self, selection: &Selection, progress: Listener<'_>) -> Result<(), HubError> {
        let wanted = checked(selection)?;
        let place = self.place(&selection.repo);
        if self.0.config.offline {
            return match wanted.iter().find(|(name, file)| !place.has(name, file.bytes).unwrap_or(false)) {
                Some((_, file)) => Err(self.missing(format!("{} of {}", file.path, selection.repo))),
                None => Ok(()),
            };
        }
        place.prepare()?;
        self.check_space(selection, &place, &wanted)?;
        let total = wanted.values().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        let meter = Meter::new(progress, total);
        let client = &self.0.client;
        let mut jobs = Vec::new();
        // The largest first: begun last, it would run alone at the end.
        let mut files: Vec<&FileInfo> = wanted.into_values().collect();
        files.sort_by_key(|file| Reverse(file.bytes));
        for file in files {
            let path = names::encoded(&file.path, true);
            let url = client.url(&format!("{}/resolve/{}/{path}", selection.repo, selection.commit))?;
            let about = About { repo: &selection.repo, revision: &selection.revision, file: Some(&file.path) };
            let elsewhere = self.0.elsewhere.as_deref();
            jobs.push(transfer::Job { client, place: &place, file, url, about, elsewhere });
        }
        // In boxes, or the compiler cannot see that they may move between threads.
        let mut running: Vec<BoxFuture<'_, Result<(), HubError>>> = Vec::new();
        for job in &jobs {
            let mut meter = meter.file(&job.file.path, job.file.bytes);
            running.push(Box::pin(async move { job.run(&mut meter).await }));
        }
        // The first failure drops the others; their parts stay.
        let done = stream::iter(running).buffer_unordered(client.tuning.files.max(1)).try_collect::<Vec<()>>().await;
        match done {
            Ok(_) => Ok(()),
            Err(HubError::Full { path, cause, .. }) => {
                // What all of it still needs, and not the one file that noticed.
                let wanted = checked(selection)?;
                Err(HubError::Full { path, missing: missing(&place, &wanted)?, cause })
            }
            Err(error) => Err(error),
        }
    }

    /// The space that is missing is told before the first byte is asked for.
    fn check_space(
        &self,
        selection: &Selection,
        place: &Place,
        wanted: &BTreeMap<&str, &FileInfo>,
    ) -> Result<(), HubError> {
        let needed = missing(place, wanted)?;
        let path = &self.0.config.cache;
        let free = (self.0.config.tuning.free)(path).map_err(HubError::io(path))?;
        let needed = if needed == 0 { 0 } else { needed.saturating_add(RESERVE) };
        if needed <= free {
            return Ok(());
        }
        Err(HubError::NoSpace { repo: selection.repo.clone(), path: path.clone(), needed, free })
    }

    fn place(&self, repo: &str) -> Place {
        Place::new(&self.0.config.cache, repo)
    }

    fn missing(&self, what: String) -> HubError {
        HubError::Offline { what, cache: self.0.config.cache.clone() }
    }
}

/// Bytes that have to come.
fn missing(place: &Place, wanted: &BTreeMap<&str, &FileInfo>) -> Result<u64, HubError> {
    let mut needed: u64 = 0;
    for (name, file) in wanted {
        if !place.has(name, file.bytes)? {
            needed = needed.saturating_add(file.bytes.saturating_sub(place.arrived(name, file.bytes)));
        }
    }
    Ok(needed)
}

/// The selection's files by their blobs. A selection may come from anywhere, so its names are looked at again.
fn checked(selection: &Selection) -> Result<BTreeMap<&str, &FileInfo>, HubError> {
    names::check_repo(&selection.repo)?;
    names::check_revision(&selection.revision)?;
    let nonsense = |why: &str| HubError::Nonsense { what: selection.repo.clone(), why: why.to_owned() };
    if !names::is_oid(&selection.commit) {
        return Err(nonsense("the commit is none"));
    }
    let mut wanted = BTreeMap::new();
    for file in &selection.files {
        names::check_path(&file.path)?;
        let name = layout::blob_name(file).filter(|name| names::is_oid(name) || names::is_sha256(name));
        wanted.insert(name.ok_or_else(|| nonsense("a file without a checksum"))?, file);
    }
    Ok(wanted)
}

/// The snapshot, if it shows all files of a selection.
fn shown(place: &Place, selection: &Selection) -> Option<Snapshot> {
    let dir = place.snapshot(&selection.commit);
    let files: Vec<PathBuf> = selection.files.iter().map(|file| dir.join(&file.path)).collect();
    files.iter().all(|path| path.is_file()).then_some(Snapshot { dir, files })
}

/// Keeps others from taking away what comes. Those who do are done within milliseconds.
async fn claim(place: &Place) -> Result<std::fs::File, HubError> {
    loop {
        place.prepare()?;
        if let Some(claim) = place.claim(false)? {
            return Ok(claim);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
