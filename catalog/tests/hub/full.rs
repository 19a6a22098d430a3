//! A disk that fills midway, though it had room at first: a clear line, nothing half, and on from there.

use std::{
    fs,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use catalog::hub::{Hub, HubError};
use test_hub::{Content, Repo};

use crate::support::{Bench, REPO, generated, line, names, selection};

const FILE: &str = "model.safetensors";
const SIZE: u64 = 12 << 20;

fn large() -> Repo {
    Repo::new(REPO).lfs(FILE, Content::generated(1, SIZE))
}

/// Nobody looks first.
fn plenty(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

async fn fetch(hub: &Hub) -> Result<catalog::hub::Snapshot, HubError> {
    let listing = hub.files(REPO, "main").await?;
    hub.download(&selection(listing), |_| {}).await
}

fn is_right(snapshot: &catalog::hub::Snapshot) {
    assert!(fs::read(snapshot.dir.join(FILE)).unwrap() == generated(1, SIZE), "other bytes");
}

/// What is left behind by a full disk: parts, and no name of a file that is not whole.
fn nothing_half(cache: &Path) {
    let repo = cache.join("models--org--model");
    assert!(!repo.join("snapshots").exists() && !repo.join("refs").exists());
    let blobs = names(&repo.join("blobs"));
    assert!(!blobs.is_empty() && blobs.iter().all(|name| name.contains(".incomplete")), "{blobs:?}");
}

/// Bytes that the disk still takes.
static ROOM: AtomicU64 = AtomicU64::new(0);

/// A disk that takes bytes until it is full, and some of the last ones.
fn scarce(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    let taken = ROOM.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| {
        Some(room.saturating_sub((bytes.len() as u64).min(room)))
    });
    match taken.unwrap_or_default() {
        0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
        room => file.write_at(&bytes[..bytes.len().min(room as usize)], at),
    }
}

#[tokio::test]
async fn what_came_is_kept_and_gone_on_with_once_there_is_space() {
    for (bench, slack) in [(Bench::of(large()), 100), (Bench::of(large()).spread(), (2 << 20) + 1000)] {
        let mut bench = bench.with(|tuning| (tuning.free, tuning.write, tuning.connections) = (plenty, scarce, 2));
        let hub = bench.hub();
        for room in [7_u64 << 20, 0, 1 << 20] {
            let before = bench.arrived();
            ROOM.store(room, Ordering::SeqCst);
            let said = line(fetch(&hub).await.unwrap_err());
            assert!(said.contains("the disk is full") && said.contains("still to come"), "{said}");
            assert!(said.contains(bench.cache().to_str().unwrap()), "{said}");
            nothing_half(bench.cache());
            // The server's name for it takes some; with ranges, the last piece of each connection finds no room for its line.
            assert!(bench.arrived() >= before + room.saturating_sub(slack), "{before} {}", bench.arrived());
        }
        let here = bench.arrived();
        bench.renew(large());
        ROOM.store(u64::MAX, Ordering::SeqCst);
        is_right(&fetch(&bench.hub()).await.unwrap());
        assert_eq!(bench.server.bytes_sent(FILE), SIZE - here, "only the rest");
        assert!(bench.blob_names().iter().all(|name| !name.contains('.')), "{:?}", bench.blob_names());
    }
}

/// A file system of its own, until it is dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None`: that is not for everybody to do.
    fn tmpfs(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "mesh-llm-test"]).arg(dir.path()).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(dir))
    }

    fn grow(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        assert!(Command::new("mount").args(["-o", &size]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// The same on a real one, where this may mount it; the test above needs nothing.
#[tokio::test]
async fn a_real_disk_that_fills_is_gone_on_with_too() {
    for bench in [Bench::of(large()), Bench::of(large()).spread()] {
        let Some(disk) = Mounted::tmpfs(5 << 20) else { return };
        let mut bench = bench.with(|tuning| tuning.free = plenty);
        let hub = Hub::new(bench.config_at(disk.0.path())).unwrap();
        let error = fetch(&hub).await.unwrap_err();
        let HubError::Full { missing, .. } = &error else { panic!("{error}") };
        assert!((SIZE - (5 << 20)..SIZE - (2 << 20)).contains(missing), "{missing}");
        let (missing, said) = (*missing, line(error));
        assert!(said.contains("No space left") && said.contains(disk.0.path().to_str().unwrap()), "{said}");
        nothing_half(disk.0.path());
        bench.renew(large());
        disk.grow(64 << 20);
        let hub = Hub::new(bench.config_at(disk.0.path())).unwrap();
        is_right(&fetch(&hub).await.unwrap());
        assert_eq!(bench.server.bytes_sent(FILE), missing, "only the rest");
    }
}
