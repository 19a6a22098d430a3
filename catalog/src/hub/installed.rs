//! What the cache holds, and whether it is still right; must not know the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{FileInfo, Hub, HubError, layout, layout::Place, names, part};

/// A repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub repo: String,
    /// Its commits that are here.
    pub snapshots: Vec<Snapshots>,
    /// Bytes on disk, each blob once.
    pub bytes: u64,
    /// Bytes of downloads that did not end.
    pub unfinished: u64,
}

/// A commit in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// The commit.
    pub commit: String,
    /// Branches and tags that were at this commit when they were last asked for.
    pub refs: Vec<String>,
    /// Its folder.
    pub dir: PathBuf,
    /// Its files that are here whole.
    pub files: Vec<FileInfo>,
}

/// How a file's bytes turned out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The file.
    pub file: FileInfo,
    /// They are those that its checksum promises.
    pub right: bool,
}

impl Hub {
    /// The models in the cache, by name. What is no repository, or damaged beyond use, is passed over. Blocks for the time
    /// that listing folders takes.
    pub fn installed(&self) -> Vec<Installed> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.config().cache).into_iter().flatten().flatten() {
            let repo = entry.file_name().to_str().and_then(names::repo_of);
            let (Some(repo), true) = (repo, entry.file_type().is_ok_and(|kind| kind.is_dir())) else { continue };
            let one = one(&self.place(&repo), repo);
            if one.bytes > 0 || one.unfinished > 0 || !one.snapshots.is_empty() {
                found.push(one);
            }
        }
        found.sort_by(|a, b| a.repo.cmp(&b.repo));
        found
    }

    /// Reads all files of a repository, and says which are no longer what they were. Blocks as long as that takes; `seen`
    /// hears each file before it is read.
    ///
    /// # Errors
    /// When nothing of it is here, or a file cannot be read.
    pub fn verify(&self, repo: &str, mut seen: impl FnMut(&FileInfo)) -> Result<Vec<Checked>, HubError> {
        names::check_repo(repo)?;
        let place = self.place(repo);
        let mut blobs = BTreeMap::new();
        for file in one(&place, repo.to_owned()).snapshots.into_iter().flat_map(|snapshot| snapshot.files) {
            let Some(name) = layout::blob_name(&file) else { continue };
            blobs.insert(name.to_owned(), file);
        }
        if blobs.is_empty() {
            return Err(self.missing(repo.to_owned()));
        }
        let mut checked = Vec::new();
        for file in blobs.into_values() {
            seen(&file);
            checked.push(Checked { right: part::is_right(&place, &file)?, file });
        }
        Ok(checked)
    }
}

pub(crate) fn one(place: &Place, repo: String) -> Installed {
    let refs = refs(&place.refs());
    let mut snapshots = Vec::new();
    for commit in commits(place) {
        let named = refs.iter().filter(|(_, at)| **at == commit).map(|(name, _)| name.clone()).collect();
        let (dir, files) = (place.snapshot(&commit), place.files(&commit));
        snapshots.push(Snapshots { commit, refs: named, dir, files });
    }
    let (mut bytes, mut unfinished) = (0, 0);
    for (name, length) in blobs(place) {
        if name.contains(".incomplete") { unfinished += length } else { bytes += length }
    }
    Installed { repo, snapshots, bytes, unfinished }
}

/// The commits that have a folder.
pub(crate) fn commits(place: &Place) -> BTreeSet<String> {
    let entries = fs::read_dir(place.snapshots()).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| names::is_oid(name)).collect()
}

/// The files among the blobs, whatever they are called, with their lengths.
pub(crate) fn blobs(place: &Place) -> BTreeMap<String, u64> {
    // A link here is not ours, and neither is what lies behind it.
    if !fs::symlink_metadata(place.blobs()).is_ok_and(|meta| meta.is_dir()) {
        return BTreeMap::new();
    }
    let entries = fs::read_dir(place.blobs()).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| {
        // Of the entry itself, also where it is a link.
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let name = entry.file_name().into_string().ok()?;
        // Its length says nothing: it has holes. A block has 512 bytes, whatever the disk's own have.
        let bytes = if name.ends_with(layout::PIECES) { meta.len().min(meta.blocks() * 512) } else { meta.len() };
        Some((name, bytes))
    });
    files.collect()
}

/// Refs by name (`main`, `refs/pr/1`), with their commits.
pub(crate) fn refs(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

fn walk(dir: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && path.matches('/').count() < 8 => walk(&entry.path(), &path, found),
            Ok(kind) if kind.is_file() && entry.metadata().is_ok_and(|meta| meta.len() < 100) => {
                let Ok(text) = fs::read_to_string(entry.path()) else { continue };
                found.insert(path, text.trim().to_owned());
            }
            _ => {}
        }
    }
}
