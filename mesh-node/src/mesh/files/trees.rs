//! BLAKE3 trees of files that others may have, made once and kept beside the cache; must not know who wants them.
//!
//! ```text
//! CACHE/outboards/KEY   hash pairs in pre-order, chunk groups of 16 KiB (64 bytes each) ‖ what file it is of (JSON)
//! ```
//! The file itself stays where it is: it is read there for every peer, and compared with the tree on the way. A tree has
//! 0.4 % of its file's bytes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bao_tree::{
    BaoTree,
    io::{outboard::PreOrderOutboard, sync},
};
use data_encoding::HEXLOWER;
use iroh_blobs::store::IROH_BLOCK_SIZE;
use mesh_proto::files::FileState;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// A file up to this is read while its asker waits. Unit: bytes; default 4 MiB, some milliseconds.
const AT_ONCE: u64 = 4 << 20;
/// What stands behind a tree is shorter.
const NOTE_BYTES: u64 = 8 << 10;

/// What a file's bytes are known by, without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("no file of its own"));
        }
        let (seconds, nanoseconds) = (meta.mtime(), meta.mtime_nsec());
        Ok(Self { bytes: meta.len(), seconds, nanoseconds, inode: meta.ino() })
    }
}

/// What stands behind a tree.
#[derive(Serialize, Deserialize)]
struct Note {
    path: PathBuf,
    stamp: Stamp,
    root: [u8; 32],
}

#[derive(Clone, Debug)]
enum Known {
    /// Being read; bytes so far.
    Reading(Arc<AtomicU64>),
    /// Its tree is on disk.
    Ready { root: [u8; 32] },
    /// It cannot be read, or is not what its tree says.
    Bad,
}

/// All trees. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Trees(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    known: Mutex<BTreeMap<PathBuf, (Stamp, Known)>>,
    /// By root: which file, of which repository.
    roots: Mutex<BTreeMap<[u8; 32], (PathBuf, String)>>,
    /// One large file is read at a time: the disk is the models', too.
    reading: Semaphore,
}

/// A file with its tree, as it is sent.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) path: PathBuf,
    pub(super) repo: String,
    pub(super) bytes: u64,
    pub(super) file: File,
    pub(super) outboard: PreOrderOutboard<File>,
}

impl Trees {
    pub(super) fn new(cache: &Path) -> Self {
        let dir = cache.join("outboards");
        let (known, roots) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { dir, known, roots, reading: Semaphore::new(1) }))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (Stamp, Known)>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roots(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], (PathBuf, String)>> {
        self.0.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, path: &Path) -> PathBuf {
        let key = blake3::hash(path.as_os_str().as_encoded_bytes());
        self.0.dir.join(HEXLOWER.encode(&key.as_bytes()[..16]))
    }

    /// How near a file's tree is; begins to make it if there is none. Blocks for some milliseconds, and wants to be called
    /// within a runtime.
    pub(super) fn state(&self, repo: &str, path: &Path) -> FileState {
        let Ok(stamp) = Stamp::of(path) else { return FileState::Absent };
        let progress = {
            let mut known = self.known();
            match known.get(path).filter(|(seen, _)| *seen == stamp).map(|(_, known)| known.clone()) {
                Some(Known::Ready { root }) => return FileState::Here { root },
                Some(Known::Bad) => return FileState::Absent,
                Some(Known::Reading(progress)) => {
                    return FileState::Coming { progress: progress.load(Relaxed) };
                }
                None => {
                    let progress = Arc::<AtomicU64>::default();
                    known.insert(path.to_owned(), (stamp, Known::Reading(progress.clone())));
                    progress
                }
            }
        };
        let trees = self.clone();
        let (repo, path, counted) = (repo.to_owned(), path.to_owned(), progress.clone());
        let read = move || {
            let made = trees.remembered(&path, stamp).map_or_else(|| trees.make(&path, stamp, &counted), Ok);
            trees.found(&repo, path, stamp, made)
        };
        if stamp.bytes <= AT_ONCE {
            return read();
        }
        let trees = self.clone();
        tokio::spawn(async move {
            let _turn = trees.0.reading.acquire().await;
            // A panic of it would leave the file for ever on its way; nobody waits for that longer than for any other.
            let _ = tokio::task::spawn_blocking(read).await;
        });
        FileState::Coming { progress: progress.load(Relaxed) }
    }

    fn found(&self, repo: &str, path: PathBuf, stamp: Stamp, made: io::Result<[u8; 32]>) -> FileState {
        let (known, state) = match made {
            Ok(root) => {
                self.roots().insert(root, (path.clone(), repo.to_owned()));
                (Known::Ready { root }, FileState::Here { root })
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a file cannot be given to other nodes");
                (Known::Bad, FileState::Absent)
            }
        };
        self.known().insert(path, (stamp, known));
        state
    }

    /// The root of a tree that was made before.
    fn remembered(&self, path: &Path, stamp: Stamp) -> Option<[u8; 32]> {
        let mut file = File::open(self.at(path)).ok()?;
        let size = BaoTree::new(stamp.bytes, IROH_BLOCK_SIZE).outboard_size();
        file.seek(SeekFrom::Start(size)).ok()?;
        let mut text = Vec::new();
        file.take(NOTE_BYTES).read_to_end(&mut text).ok()?;
        let note: Note = serde_json::from_slice(&text).ok()?;
        (note.path == path && note.stamp == stamp).then_some(note.root)
    }

    fn make(&self, path: &Path, stamp: Stamp, progress: &AtomicU64) -> io::Result<[u8; 32]> {
        fs::create_dir_all(&self.0.dir)?;
        let tree = BaoTree::new(stamp.bytes, IROH_BLOCK_SIZE);
        let fresh = tempfile::NamedTempFile::new_in(&self.0.dir)?;
        let data = Counted { file: BufReader::with_capacity(1 << 20, File::open(path)?), progress };
        let outboard = PreOrderOutboard { root: blake3::Hash::from([0; 32]), tree, data: fresh.as_file().try_clone()? };
        let root = *sync::outboard(data, tree, outboard)?.as_bytes();
        if Stamp::of(path)? != stamp {
            return Err(io::Error::other("it changed while it was read"));
        }
        self.keep(fresh, path, stamp, root)?;
        Ok(root)
    }

    /// Puts a finished tree where it is found again.
    fn keep(&self, mut tree: tempfile::NamedTempFile, path: &Path, stamp: Stamp, root: [u8; 32]) -> io::Result<()> {
        let size = BaoTree::new(stamp.bytes, IROH_BLOCK_SIZE).outboard_size();
        let note = serde_json::to_vec(&Note { path: path.to_owned(), stamp, root }).map_err(io::Error::other)?;
        tree.as_file().set_len(size)?;
        tree.seek(SeekFrom::Start(size))?;
        tree.write_all(&note)?;
        tree.persist(self.at(path))?;
        Ok(())
    }

    /// Takes over the tree that came with a download. Blocks.
    pub(super) fn adopt(&self, repo: &str, path: &Path, root: [u8; 32], outboard: &Path) {
        let adopted = || {
            let stamp = Stamp::of(path)?;
            fs::create_dir_all(&self.0.dir)?;
            let mut tree = tempfile::NamedTempFile::new_in(&self.0.dir)?;
            io::copy(&mut File::open(outboard)?, tree.as_file_mut())?;
            self.keep(tree, path, stamp, root)?;
            Ok::<_, io::Error>(stamp)
        };
        match adopted() {
            Ok(stamp) => drop(self.found(repo, path.to_owned(), stamp, Ok(root))),
            // It is made anew when somebody wants it.
            Err(error) => tracing::debug!(%error, "a tree was not kept"),
        }
    }

    /// What others may read under this root. Blocks.
    pub(super) fn open(&self, root: [u8; 32]) -> Option<Tree> {
        let (path, repo) = self.roots().get(&root).cloned()?;
        let stamp = Stamp::of(&path).ok()?;
        let same = self
            .known()
            .get(&path)
            .is_some_and(|(seen, known)| *seen == stamp && matches!(known, Known::Ready { root: its } if *its == root));
        if !same {
            return None;
        }
        let tree = BaoTree::new(stamp.bytes, IROH_BLOCK_SIZE);
        let data = File::open(self.at(&path)).ok()?;
        let outboard = PreOrderOutboard { root: blake3::Hash::from(root), tree, data };
        Some(Tree { file: File::open(&path).ok()?, path, repo, bytes: stamp.bytes, outboard })
    }

    /// A file turned out not to be what its tree says: a disk that forgets, or somebody wrote into it.
    pub(super) fn spoilt(&self, path: &Path) {
        if let Some((_, known)) = self.known().get_mut(path) {
            *known = Known::Bad;
        }
        let _ = fs::remove_file(self.at(path));
    }

    /// Forgets trees whose files are gone. Blocks.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.0.dir).into_iter().flatten().flatten() {
            let gone = match last_note(&entry.path()) {
                Some(note) => Stamp::of(&note.path).ok() != Some(note.stamp),
                // Being made by another node of this machine, or left by one that was killed.
                None => {
                    entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(is_old))
                }
            };
            if gone {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// No file takes a day to be read.
fn is_old(age: Duration) -> bool {
    age > Duration::from_secs(24 * 3600)
}

/// The note behind a tree whose size is not known; `None` also where a tree is being made.
fn last_note(path: &Path) -> Option<Note> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let tail = length.min(NOTE_BYTES);
    let mut bytes = vec![0; tail as usize];
    file.read_exact_at(&mut bytes, length - tail).ok()?;
    let starts = (0..bytes.len()).rev().filter(|at| bytes[*at..].starts_with(b"{\"path\""));
    starts.filter_map(|at| serde_json::from_slice(&bytes[at..]).ok()).next()
}

/// Tells how much was read.
struct Counted<'a, R> {
    file: R,
    progress: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.progress.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn a_tree_is_made_once_found_again_and_forgotten_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("cache"), dir.path().join("blob"));
        for length in [1, 16 << 10, (16 << 10) + 1, 300_000] {
            fs::write(&path, bytes(length)).unwrap();
            let trees = Trees::new(&cache);
            let root = *blake3::hash(&bytes(length)).as_bytes();
            assert_eq!(trees.state("org/x", &path), FileState::Here { root });
            let tree = trees.open(root).unwrap();
            assert_eq!((tree.bytes, tree.repo.as_str()), (length as u64, "org/x"));
            assert_eq!(Trees::new(&cache).remembered(&path, Stamp::of(&path).unwrap()), Some(root));
            trees.sweep();
            assert!(trees.at(&path).exists());
        }
        let trees = Trees::new(&cache);
        let FileState::Here { root } = trees.state("org/x", &path) else { panic!("it is here") };
        fs::write(&path, bytes(300_001)).unwrap();
        assert!(trees.open(root).is_none(), "it is another one now");
        fs::remove_file(&path).unwrap();
        assert_eq!(trees.state("org/x", &path), FileState::Absent);
        trees.sweep();
        assert!(!trees.at(&path).exists());
    }

    #[test]
    fn a_file_that_is_not_what_its_tree_says_is_nobodys_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        fs::write(&path, bytes(100_000)).unwrap();
        let trees = Trees::new(dir.path());
        let FileState::Here { root } = trees.state("org/x", &path) else { panic!("it is here") };
        trees.spoilt(&path);
        assert!(trees.open(root).is_none());
        assert_eq!(trees.state("org/x", &path), FileState::Absent);
    }
}
