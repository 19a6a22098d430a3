//! One file from the hub into its blob: wait for the lock, go on where it stopped, check; must not know what the file is for.

use std::time::Duration;

use reqwest::Url;
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Elsewhere, FileInfo, HubError, elsewhere,
    flow::{self, Anew},
    http::{About, Client, Failure, Tries},
    layout::{self, Place},
    part::Part,
    progress::{FileMeter, Stage},
};

/// How often whoever waits for another process looks again. It costs one system call.
const LOOK: Duration = Duration::from_millis(200);
/// Progress that makes earlier failures forgotten: a line that drops now and then still brings twenty gigabytes, and a
/// server that gives less each time is given up.
pub(crate) const PROGRESS: u64 = 1 << 20;

/// Where a file is fetched from, and where to.
pub(crate) struct Job<'a> {
    pub(crate) client: &'a Client,
    pub(crate) place: &'a Place,
    pub(crate) file: &'a FileInfo,
    pub(crate) url: Url,
    pub(crate) about: About<'a>,
    pub(crate) elsewhere: Option<&'a dyn Elsewhere>,
}

impl Job<'_> {
    /// Fetches it, unless it is here.
    pub(crate) async fn run(&self, meter: &mut FileMeter<'_>) -> Result<(), HubError> {
        let Some(name) = layout::blob_name(self.file) else {
            return Err(HubError::Nonsense { what: self.about.what(), why: "no checksum".into() });
        };
        let size = self.file.bytes;
        let lock = loop {
            if self.place.has(name, size)? {
                meter.at(size, Stage::Done);
                return Ok(());
            }
            if let Some(lock) = self.place.try_lock(name)? {
                break lock;
            }
            meter.at(self.place.arrived(name, size), Stage::Waiting);
            sleep(LOOK).await;
        };
        // It may have been finished between the two looks above.
        if !self.place.has(name, size)? && !elsewhere::bring(self, name, meter).await? {
            let (place, name) = (self.place.clone(), name.to_owned());
            let part = blocking(move || Part::open(&place, &name, size, lock)).await??;
            self.fill(part, meter).await?;
        }
        meter.at(size, Stage::Done);
        Ok(())
    }

    async fn fill(&self, part: Part, meter: &mut FileMeter<'_>) -> Result<(), HubError> {
        let tuning = &self.client.tuning;
        let mut part = part.written_by(tuning.write);
        let mut many = self.file.bytes > tuning.large && tuning.connections > 1;
        if many {
            part = blocking(|| part.spread()).await??;
        }
        let mut tries = Tries::new(tuning);
        let (mut best, mut wrong, mut changed, mut given) = (part.arrived(), false, false, None);
        loop {
            if part.is_whole() {
                match blocking(|| part.finish()).await?? {
                    None => return Ok(()),
                    Some((part, why)) if wrong => {
                        part.discard()?;
                        let (repo, file) = (self.about.repo.to_owned(), self.file.path.clone());
                        return Err(HubError::Corrupt { repo, file, why });
                    }
                    Some((empty, _)) => {
                        (part, wrong, best) = (empty, true, 0);
                        meter.at(0, Stage::Retrying);
                        continue;
                    }
                }
            }
            let (back, ended) = flow::round(self, part, many, given.take(), meter).await?;
            part = back;
            if part.arrived() >= best + PROGRESS {
                best = part.arrived();
                tries.forget();
            }
            let Some(Anew { whole, another, why }) = ended else { continue };
            part.restart().map_err(HubError::io(&self.place.blobs()))?;
            meter.at(0, Stage::Retrying);
            // Other bytes than before come in ranges again, but only once: a server may call the same bytes by several
            // names, and then ranges have no end.
            many = many && another && !std::mem::replace(&mut changed, true);
            given = whole.filter(|_| !many);
            let pause = tries.count(Failure::cut(self.about, why))?;
            if given.is_none() {
                sleep(pause).await;
            }
        }
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HubError> {
    spawn_blocking(work).await.map_err(|panic| HubError::Panicked(panic.to_string()))
}
