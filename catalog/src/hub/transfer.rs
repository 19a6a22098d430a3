//! One file from the hub into its blob: wait for the lock, go on where it stopped, ask again, check; must not know what the
//! file is for.
//!
//! Bytes are written and hashed on a thread of their own, which owns the part and its lock: a disk that stalls does not
//! stall the node, and when a download is dropped, what has arrived is written before the lock is free.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE},
};
use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};

use super::{
    Elsewhere, FileInfo, HubError, elsewhere,
    http::{About, Client, Failure, Tries},
    layout::{self, Place},
    part::Part,
    progress::{FileMeter, Stage},
};

/// How often whoever waits for another process looks again. It costs one system call.
const LOOK: Duration = Duration::from_millis(200);
/// Pieces on their way to the disk, at most; a piece is what one read of the socket gave (some 16 KiB).
const QUEUE: usize = 64;
/// Progress that makes earlier failures forgotten: a line that drops now and then still brings twenty gigabytes, and a
/// server that gives less each time is given up.
const PROGRESS: u64 = 1 << 20;

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
            meter.at(self.place.arrived(name), Stage::Waiting);
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

    async fn fill(&self, mut part: Part, meter: &mut FileMeter<'_>) -> Result<(), HubError> {
        let mut tries = Tries::new(&self.client.tuning);
        let (mut best, mut wrong) = (part.length(), false);
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
            let (back, result) = self.attempt(part, meter).await?;
            part = back;
            if part.length() >= best + PROGRESS {
                best = part.length();
                tries.forget();
            }
            if let Err(failure) = result {
                meter.at(part.length(), Stage::Retrying);
                tries.after(failure).await?;
            }
        }
    }

    /// Asks for the rest once. Outer error: nothing more can be done, so the part stays for the next run.
    async fn attempt(
        &self,
        mut part: Part,
        meter: &mut FileMeter<'_>,
    ) -> Result<(Part, Result<(), Failure>), HubError> {
        let mut headers = HeaderMap::new();
        if part.length() > 0 {
            headers.insert(RANGE, value(&format!("bytes={}-", part.length()))?);
            if let Some(validator) = part.validator() {
                headers.insert(IF_RANGE, value(validator)?);
            }
        }
        let response = match self.client.get(&self.url, &headers, self.about).await {
            Ok(response) => response,
            Err(failure) => return Ok((part, Err(failure))),
        };
        let path = self.place.blobs();
        let fits = match response.status() {
            StatusCode::PARTIAL_CONTENT => continues(&response, part.length(), self.file.bytes),
            StatusCode::OK => {
                // The server knows no ranges, or the bytes are others by now: from the start.
                part.restart().map_err(HubError::io(&path))?;
                part.call(response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()));
                true
            }
            _ => false,
        };
        if !fits {
            part.restart().map_err(HubError::io(&path))?;
            return Ok((part, Err(Failure::cut(self.about, "the server gave another range than it was asked for"))));
        }
        self.pour(part, response, meter).await
    }

    async fn pour(
        &self,
        part: Part,
        mut response: Response,
        meter: &mut FileMeter<'_>,
    ) -> Result<(Part, Result<(), Failure>), HubError> {
        let mut length = part.length();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = spawn_blocking(move || write(part, receiver));
        let result = loop {
            if length >= self.file.bytes {
                break Ok(());
            }
            match self.client.chunk(&mut response, self.about).await {
                Ok(Some(chunk)) => {
                    length += chunk.len() as u64;
                    // A writer that is gone says why below.
                    if sender.send(chunk).await.is_err() {
                        break Ok(());
                    }
                    meter.at(length, Stage::Fetching);
                }
                Ok(None) => {
                    let cause = format!("it ended after {length} of {} bytes", self.file.bytes);
                    break Err(Failure::cut(self.about, cause));
                }
                Err(failure) => break Err(failure),
            }
        };
        drop(sender);
        let part = writer.await.map_err(|panic| HubError::Panicked(panic.to_string()))??;
        Ok((part, result))
    }
}

fn write(mut part: Part, mut pieces: mpsc::Receiver<Bytes>) -> Result<Part, HubError> {
    while let Some(piece) = pieces.blocking_recv() {
        part.add(&piece)?;
    }
    Ok(part)
}

/// Whether an answer goes on exactly where the part ends, in a file of the right length.
fn continues(response: &Response, from: u64, size: u64) -> bool {
    let text = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let parsed = text.and_then(|text| {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (start, _) = range.split_once('-')?;
        Some((start.parse::<u64>().ok()?, total.to_owned()))
    });
    parsed.is_some_and(|(start, total)| start == from && (total == "*" || total.parse() == Ok(size)))
}

fn value(text: &str) -> Result<HeaderValue, HubError> {
    HeaderValue::from_str(text).map_err(|error| HubError::Panicked(error.to_string()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HubError> {
    spawn_blocking(work).await.map_err(|panic| HubError::Panicked(panic.to_string()))
}
