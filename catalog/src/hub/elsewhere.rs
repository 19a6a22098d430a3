//! Others who may have a file of the hub, asked before the hub is; must not know who they are or how they are reached.
//!
//! What comes from them lies in a file beside the part until it is whole and its checksum is the hub's: what others say
//! counts for nothing here. Where they fail in the middle, the hub is asked for the rest only.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use futures_util::future::BoxFuture;

use super::{
    FileInfo, HubError, Stage, layout,
    layout::Place,
    part::{self, Sum},
    progress::FileMeter,
    transfer::Job,
};

/// How often others may bring a whole file whose bytes are wrong. Each time whoever sent them is believed no more; this
/// many wrong files are a mesh to stay away from. (ours)
const TRIES: u32 = 3;

/// A file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// The repository, `org/name`.
    pub repo: String,
    /// What the hub calls its bytes: a SHA-256, or git's SHA-1, in hexadecimal.
    pub name: String,
    /// Its length; not 0.
    pub bytes: u64,
    /// Where to put the bytes. What was put there before is there still; it may be anything.
    pub beside: PathBuf,
}

/// What hears how far it is.
pub type Hears<'a> = &'a mut (dyn FnMut(u64, Stage) + Send);

/// Others who may have what the hub has.
pub trait Elsewhere: Debug + Send + Sync {
    /// A repository that the hub lists, and whether everybody may read it there.
    fn listed(&self, repo: &str, open: bool);

    /// Brings a file from others if they have it; waits while one of them fetches it. Comes back when all of it is here, or
    /// when it is for this node to ask the hub. When it is dropped it stops, and what has arrived stays for the next time.
    fn ask<'a>(&'a self, wanted: &'a WantedFile, hear: Hears<'a>) -> BoxFuture<'a, Answer>;
}

/// What came of asking.
pub struct Answer {
    /// So many bytes, from the first on, are in [`WantedFile::beside`]. All of them, or what others gave before they failed.
    pub arrived: u64,
    /// Kept until the file is here, or given up.
    pub turn: Box<dyn Turn>,
}

/// This node is about to have a file; others may wait for it. Over when dropped.
pub trait Turn: Send {
    /// So many bytes are here.
    fn at(&mut self, arrived: u64);
    /// How the bytes from others turned out; if they are right, they lie at this path now.
    fn judged(&mut self, right: Option<&Path>);
}

/// Whether all of a file came from others, and is right. If not, what came is where the part is, and `meter` has the turn.
pub(crate) async fn bring(job: &Job<'_>, name: &str, meter: &mut FileMeter<'_>) -> Result<bool, HubError> {
    let Some(elsewhere) = job.elsewhere.filter(|_| job.file.bytes > 0) else { return Ok(false) };
    let bytes = job.file.bytes;
    let beside = job.place.beside(name);
    let wanted = WantedFile { repo: job.about.repo.to_owned(), name: name.to_owned(), bytes, beside: beside.clone() };
    for _ in 0..TRIES {
        let Answer { arrived, mut turn } = elsewhere.ask(&wanted, &mut |done, stage| meter.at(done, stage)).await;
        let (place, file, beside) = (job.place.clone(), job.file.clone(), beside.clone());
        if arrived < bytes {
            tokio::task::spawn_blocking(move || become_part(&place, &file, &beside, arrived))
                .await
                .map_err(|panic| HubError::Panicked(panic.to_string()))??;
            meter.turn = Some(turn);
            return Ok(false);
        }
        let settled = tokio::task::spawn_blocking(move || settle(&place, &file, &beside));
        let blob = settled.await.map_err(|panic| HubError::Panicked(panic.to_string()))??;
        turn.judged(blob.as_deref());
        if blob.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives a whole file its name if its bytes are right, and throws it away if not.
fn settle(place: &Place, file: &FileInfo, beside: &Path) -> Result<Option<PathBuf>, HubError> {
    let failed = HubError::io(beside);
    let name = layout::blob_name(file).unwrap_or_default();
    let mut open = layout::open(beside, OpenOptions::new().read(true)).map_err(&failed)?;
    let length = open.metadata().map_err(&failed)?.len();
    if length != file.bytes || part::read_sum(&mut open, Sum::new(name, length)).map_err(&failed)? != name {
        fs::remove_file(beside).map_err(&failed)?;
        return Ok(None);
    }
    open.sync_all().map_err(&failed)?;
    let blob = place.blob(name);
    fs::rename(beside, &blob).map_err(&failed)?;
    // Without it the new name may be gone after a power cut. Not every file system can.
    let _ = File::open(place.blobs()).and_then(|dir| dir.sync_all());
    // What the hub had sent of it before, if anything.
    for rest in [place.part(name), validator(place, name), place.pieces(name), place.journal(name)] {
        let _ = fs::remove_file(rest);
    }
    Ok(Some(blob))
}

/// Lets the hub's download go on behind what others gave, where that is more than the hub itself has sent so far.
fn become_part(place: &Place, file: &FileInfo, beside: &Path, arrived: u64) -> Result<(), HubError> {
    let name = layout::blob_name(file).unwrap_or_default();
    let failed = HubError::io(beside);
    if arrived <= place.arrived(name, file.bytes) {
        return match fs::remove_file(beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
    }
    let open = layout::open(beside, OpenOptions::new().write(true)).map_err(&failed)?;
    open.set_len(arrived).map_err(&failed)?;
    // These bytes are of no server; and the hash over all of them is what counts in the end.
    let _ = fs::remove_file(validator(place, name));
    // A download that finds pieces too takes these, and without their journal none.
    for rest in [place.journal(name), place.pieces(name)] {
        let _ = fs::remove_file(rest);
    }
    fs::rename(beside, place.part(name)).map_err(failed)
}

fn validator(place: &Place, name: &str) -> PathBuf {
    place.blobs().join(format!("{name}.incomplete.etag"))
}
