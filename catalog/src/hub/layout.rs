//! Where things lie in Hugging Face's cache, and how they get there safely; must not know the network.
//!
//! ```text
//! CACHE/models--org--name/blobs/ETAG                          bytes, named by their SHA-256, or git's SHA-1
//!                        /blobs/ETAG.incomplete               what has arrived of them, in order
//!                        /blobs/ETAG.incomplete.pieces        the same in any order, with a .journal: only we know it
//!                        /blobs/ETAG.incomplete.elsewhere     what has come from others than the hub
//!                        /snapshots/COMMIT/path/of/file       a relative link to the blob
//!                        /refs/main                           the commit that a branch was at
//! CACHE/.locks/models--org--name/ETAG.lock                    held (flock) by whoever downloads that blob
//! ```
//! Locks and names are those of huggingface_hub and of the `hf-hub` crate, so that these tools and we find and spare each
//! other's files. Below CACHE nothing but a snapshot's files may be a link: what is planted there could make us write,
//! read or delete elsewhere.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{FileInfo, HubError, journal, names};

/// How the name of a file ends whose bytes come in any order.
pub(crate) const PIECES: &str = ".incomplete.pieces";

/// The name that a file's blob has.
pub(crate) fn blob_name(file: &FileInfo) -> Option<&str> {
    file.sha256.as_deref().or(file.git_oid.as_deref())
}

/// One repository's place in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    cache: PathBuf,
    folder: String,
}

impl Place {
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        Self { cache: cache.to_owned(), folder: names::folder(repo) }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root().join("blobs")
    }

    pub(crate) fn blob(&self, name: &str) -> PathBuf {
        self.blobs().join(name)
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.blobs().join(format!("{name}.incomplete"))
    }

    /// The same, with bytes in any order.
    pub(crate) fn pieces(&self, name: &str) -> PathBuf {
        self.blobs().join(format!("{name}{PIECES}"))
    }

    pub(crate) fn journal(&self, name: &str) -> PathBuf {
        self.blobs().join(format!("{name}{PIECES}.journal"))
    }

    /// What has come of a blob from others than the hub.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.blobs().join(format!("{name}.incomplete.elsewhere"))
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root().join("snapshots")
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.snapshots().join(commit)
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.root().join("refs")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.cache.join(".locks").join(&self.folder)
    }

    /// Makes what a download needs, and refuses what was planted there.
    pub(crate) fn prepare(&self) -> Result<(), HubError> {
        fs::create_dir_all(&self.cache).map_err(HubError::io(&self.cache))?;
        for below in [format!("{}/blobs", self.folder), format!(".locks/{}", self.folder)] {
            real_folder(&self.cache, Path::new(&below), true)?;
        }
        // These may be missing, but not be somewhere else.
        for below in [format!("{}/snapshots", self.folder), format!("{}/refs", self.folder)] {
            real_folder(&self.cache, Path::new(&below), false)?;
        }
        Ok(())
    }

    /// The commit that a revision stands for, as far as is known here.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if names::is_oid(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.refs().join(revision)).ok()?;
        let commit = text.trim();
        names::is_oid(commit).then(|| commit.to_owned())
    }

    /// Remembers the commit of a revision.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if names::is_oid(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = Path::new(&self.folder).join("refs").join(revision);
        let dir = real_folder(&self.cache, path.parent().unwrap_or(Path::new("")), true)?;
        let full = self.cache.join(&path);
        let fresh = dir.join(unused());
        let written = File::create_new(&fresh).and_then(|mut file| file.write_all(commit.as_bytes()));
        let put = written.and_then(|()| fs::rename(&fresh, &full));
        put.inspect_err(|_| drop(fs::remove_file(&fresh))).map_err(HubError::io(&full))
    }

    /// Shows a finished blob under its file's name.
    pub(crate) fn link(&self, commit: &str, path: &str, blob: &str) -> Result<(), HubError> {
        let below = Path::new(&self.folder).join("snapshots").join(commit).join(path);
        let dir = real_folder(&self.cache, below.parent().unwrap_or(Path::new("")), true)?;
        let full = self.cache.join(&below);
        let target = format!("../../{}blobs/{blob}", "../".repeat(path.matches('/').count()));
        if fs::read_link(&full).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(());
        }
        let fresh = dir.join(unused());
        let put = symlink(&target, &fresh).and_then(|()| fs::rename(&fresh, &full));
        put.inspect_err(|_| drop(fs::remove_file(&fresh))).map_err(HubError::io(&full))
    }

    /// The blob, if it is whole: a finished file has its name only when its bytes were checked, so its length is enough.
    pub(crate) fn has(&self, name: &str, bytes: u64) -> Result<bool, HubError> {
        let path = self.blob(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(meta.len() == bytes),
            Ok(_) => Err(HubError::Planted { path, why: "it should be a file of its own" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(HubError::Io { path, cause }),
        }
    }

    /// Bytes that have arrived of a blob of this size.
    pub(crate) fn arrived(&self, name: &str, size: u64) -> u64 {
        let file = |path: PathBuf| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
        if file(self.pieces(name)).is_some() {
            // Its length says nothing: it has holes.
            let pieces = journal::read(&self.journal(name), size).0;
            return pieces.iter().fold(0, |sum, piece| sum + (piece.range.end - piece.range.start)).min(size);
        }
        file(self.part(name)).map_or(0, |meta| meta.len())
    }

    /// The right to download a blob; `None`: somebody else has it. It ends with the file, also when the process is killed.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<File>, HubError> {
        self.lock(&format!("{name}.lock"), File::try_lock)
    }

    /// The right to add to the repository, which several have at once, or to take away from it, which nobody has beside
    /// them. Other tools do not know it.
    pub(crate) fn claim(&self, alone: bool) -> Result<Option<File>, HubError> {
        self.lock("mesh-llm.lock", if alone { File::try_lock } else { File::try_lock_shared })
    }

    fn lock(&self, name: &str, how: fn(&File) -> Result<(), TryLockError>) -> Result<Option<File>, HubError> {
        let path = self.locks().join(name);
        let file = open(&path, OpenOptions::new().read(true).write(true).create(true)).map_err(HubError::io(&path))?;
        match how(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(HubError::Io { path, cause }),
        }
        // Whoever had it may have removed it meanwhile; then the lock is on nothing that others see.
        let (mine, theirs) = (file.metadata().map_err(HubError::io(&path))?, fs::symlink_metadata(&path));
        let same = theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (mine.dev(), mine.ino()));
        Ok(same.then_some(file))
    }

    /// A commit's files that are here whole, with their blobs' names. Rubbish is passed over.
    pub(crate) fn files(&self, commit: &str) -> Vec<FileInfo> {
        let mut found = Vec::new();
        if real_folder(&self.cache, &Path::new(&self.folder).join("snapshots").join(commit), false).is_ok() {
            self.walk(&self.snapshot(commit), "", 0, &mut found);
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    fn walk(&self, dir: &Path, below: &str, depth: usize, found: &mut Vec<FileInfo>) {
        // Deeper than any repository: somebody plays with us.
        if depth > 16 {
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.walk(&entry.path(), &path, depth + 1, found);
                continue;
            }
            let Some((blob, bytes)) = self.blob_of(&entry.path(), depth) else { continue };
            let (sha256, git_oid) = if names::is_sha256(&blob) { (Some(blob), None) } else { (None, Some(blob)) };
            if names::check_path(&path).is_ok() {
                found.push(FileInfo { path, bytes, sha256, git_oid });
            }
        }
    }

    /// Names of all that a commit's links lead to, however they are written: what any of them may mean is in use.
    pub(crate) fn used(&self, commit: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.snapshot(commit)];
        while let Some(dir) = folders.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Ok(target) = fs::read_link(entry.path()) {
                    found.extend(target.file_name().and_then(|name| name.to_str()).map(str::to_owned));
                }
            }
        }
        found
    }

    /// The blob behind a snapshot's link, and its length; `None` where it leads anywhere else.
    pub(crate) fn blob_of(&self, link: &Path, depth: usize) -> Option<(String, u64)> {
        let target = fs::read_link(link).ok()?;
        let name = target.file_name()?.to_str()?.to_owned();
        let expected = format!("../../{}blobs/{name}", "../".repeat(depth));
        if target != Path::new(&expected) || !(names::is_oid(&name) || names::is_sha256(&name)) {
            return None;
        }
        let meta = fs::symlink_metadata(self.blob(&name)).ok()?;
        meta.is_file().then_some((name, meta.len()))
    }
}

/// Opens a file, but no link.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    options.custom_flags(flags).open(path)
}

/// A folder below `base` of which no part is a link.
fn real_folder(base: &Path, below: &Path, create: bool) -> Result<PathBuf, HubError> {
    let mut path = base.to_owned();
    for part in below.components() {
        let Component::Normal(part) = part else {
            return Err(HubError::Planted { path: base.join(below), why: "it leaves the cache" });
        };
        path.push(part);
        if create {
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(HubError::io(&path)(error)),
                _ => {}
            }
        }
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let why = "it is no folder of its own (a link could lead anywhere); move the whole cache instead";
                return Err(HubError::Planted { path, why });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(base.join(below)),
            Err(cause) => return Err(HubError::Io { path, cause }),
        }
    }
    Ok(path)
}

fn unused() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(".tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
