//! What is missing of a file, over as many connections as it may have; must not know locks or checksums.
//!
//! Bytes are written and hashed on a thread of their own, which owns the part and its lock: a disk that stalls does not
//! stall the node, and when a download is dropped, what has arrived is written before the lock is free.
//!
//! The first connection goes ahead: whether the server knows ranges, where the hub sends us, and what the bytes are called
//! is known before the others ask.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE},
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use super::{
    HubError,
    http::{Failure, Tries},
    journal::PIECE,
    part::{Part, is_strong},
    progress::{FileMeter, Stage},
    ranges::Todo,
    transfer::{Job, PROGRESS},
};

/// Bits on their way to the disk, at most; a bit is what one read of a socket gave (some 16 KiB).
const QUEUE: usize = 64;

/// Why what has arrived is of no use.
#[derive(Debug)]
pub(crate) struct Anew {
    /// An answer that has the whole file.
    pub(crate) whole: Option<Response>,
    /// The bytes are others than they were. If not, the server has no ranges.
    pub(crate) another: bool,
    pub(crate) why: &'static str,
}

/// Why a connection does not go on.
#[derive(Debug)]
enum Stop {
    Again(Failure),
    Anew(Box<Anew>),
    Failed(HubError),
    /// The writer has ended, and says why itself.
    Gone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Again(failure)
    }
}

/// What goes to the writer.
enum Order {
    Bytes(u64, Bytes),
    /// What the server calls them.
    Called(String),
}

/// Fetches what is missing: from `whole`, an answer that has all of it; else in ranges over `many` connections, or in order
/// over one. An error: nothing more can be done, so the part stays for the next run.
pub(crate) async fn round(
    job: &Job<'_>,
    part: Part,
    many: bool,
    whole: Option<Response>,
    meter: &mut FileMeter<'_>,
) -> Result<(Part, Option<Anew>), HubError> {
    let tuning = &job.client.tuning;
    let step = if many { tuning.range.max(1).next_multiple_of(PIECE) } else { u64::MAX };
    let todo = Todo::new(part.gaps(), step);
    let connections = if many { todo.count().clamp(1, tuning.connections.max(1) as u64) } else { 1 };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let flow = Flow {
        job,
        many,
        sender,
        ahead: watch::Sender::new(false),
        shared: Mutex::new(Shared { todo, validator: part.validator().map(str::to_owned), direct: None }),
        meter: Mutex::new((part.arrived(), meter)),
    };
    let writer = spawn_blocking(move || write(part, receiver));
    let mut whole = whole;
    let connections = (0..connections).map(|number| flow.connection(number == 0, whole.take()));
    let result = try_join_all(connections).await;
    // That ends the writer.
    drop(flow);
    let part = writer.await.map_err(|panic| HubError::Panicked(panic.to_string()))??;
    match result {
        Ok(_) => Ok((part, None)),
        Err(Stop::Anew(anew)) => Ok((part, Some(*anew))),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Again(_) | Stop::Gone) => Err(HubError::Panicked("a download ended early".into())),
    }
}

fn write(mut part: Part, mut orders: mpsc::Receiver<Order>) -> Result<Part, HubError> {
    let mut failed = None;
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Bytes(at, bytes) => failed = part.add(at, &bytes).err(),
            Order::Called(name) => part.call(Some(&name)),
        }
        if failed.is_some() {
            break;
        }
    }
    // What came before a failure counts.
    let settled = part.settle();
    match failed {
        Some(error) => Err(error),
        None => settled.map(|()| part),
    }
}

/// What the connections of one file share.
struct Flow<'a, 'b> {
    job: &'a Job<'a>,
    many: bool,
    sender: mpsc::Sender<Order>,
    /// Whether the first connection got what it asked for.
    ahead: watch::Sender<bool>,
    shared: Mutex<Shared>,
    /// Bytes that are here, and who hears it.
    meter: Mutex<(u64, &'a mut FileMeter<'b>)>,
}

struct Shared {
    todo: Todo,
    validator: Option<String>,
    /// Where the hub sent us. Its signature grows old.
    direct: Option<Url>,
}

impl Flow<'_, '_> {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self, first: bool, mut whole: Option<Response>) -> Result<(), Stop> {
        if !first {
            // The sender lives as long as this does.
            let _ = self.ahead.subscribe().wait_for(|ahead| *ahead).await;
        }
        loop {
            let Some(mut range) = self.shared().todo.take() else { return Ok(()) };
            let mut tries = Tries::new(&self.job.client.tuning);
            let mut best = range.start;
            while let Err(stop) = self.attempt(&mut range, whole.take()).await {
                let Stop::Again(failure) = stop else { return Err(stop) };
                if range.start >= best + PROGRESS {
                    best = range.start;
                    tries.forget();
                }
                self.tell(0, Stage::Retrying);
                tries.after(failure).await.map_err(Stop::Failed)?;
            }
        }
    }

    /// Asks for a range once; what arrives is no part of it any more.
    async fn attempt(&self, range: &mut Range<u64>, whole: Option<Response>) -> Result<(), Stop> {
        // It is never closed.
        let _line = self.job.client.lines.acquire().await;
        let mut response = match whole {
            Some(whole) => {
                self.name(&whole).await?;
                whole
            }
            None => self.ask(range).await?,
        };
        self.ahead.send_replace(true);
        while range.start < range.end {
            let Some(mut bytes) = self.job.client.chunk(&mut response, self.job.about).await? else {
                let cause = format!("it ended after {} of {} bytes", range.start, range.end);
                return Err(Failure::cut(self.job.about, cause).into());
            };
            bytes.truncate(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
            let count = bytes.len() as u64;
            self.sender.send(Order::Bytes(range.start, bytes)).await.map_err(|_| Stop::Gone)?;
            range.start += count;
            self.tell(count, Stage::Fetching);
        }
        Ok(())
    }

    async fn ask(&self, range: &Range<u64>) -> Result<Response, Stop> {
        let size = self.job.file.bytes;
        let mut headers = HeaderMap::new();
        let validator = self.shared().validator.clone();
        let ranged = self.many || range.start > 0;
        if ranged {
            let last = if range.end < size { (range.end - 1).to_string() } else { String::new() };
            headers.insert(RANGE, value(&format!("bytes={}-{last}", range.start))?);
            if let Some(validator) = &validator {
                headers.insert(IF_RANGE, value(validator)?);
            }
        }
        let response = self.get(&headers).await?;
        let anew = |whole, another, why| Err(Stop::Anew(Box::new(Anew { whole, another, why })));
        match response.status() {
            StatusCode::PARTIAL_CONTENT if ranged && continues(&response, range, size) => {
                let name = name(&response);
                if name.is_some() && validator.is_some() && name != validator {
                    return anew(None, true, "the file changed on the server");
                }
                self.name(&response).await?;
                Ok(response)
            }
            StatusCode::OK if !ranged => {
                self.name(&response).await?;
                Ok(response)
            }
            // The server knows no ranges, or the bytes are others by now: from the start.
            StatusCode::OK => {
                let another = validator.is_some();
                let why = if another { "the file changed on the server" } else { "the server knows no ranges" };
                anew(Some(response), another, why)
            }
            _ => anew(None, false, "the server gave another range than it was asked for"),
        }
    }

    /// Where the hub sent us before, as long as that is good for it; else the hub.
    async fn get(&self, headers: &HeaderMap) -> Result<Response, Stop> {
        let (client, about) = (self.job.client, self.job.about);
        let direct = self.shared().direct.clone();
        if let Some(url) = direct {
            match client.get(&url, headers, about).await {
                Ok(response) => return Ok(response),
                Err(patience @ Failure::Again { wait: Some(_), .. }) => return Err(patience.into()),
                Err(_) => {
                    let mut shared = self.shared();
                    if shared.direct.as_ref() == Some(&url) {
                        shared.direct = None;
                    }
                }
            }
        }
        let response = client.get(&self.job.url, headers, about).await?;
        // The hub's own addresses go with the token, by the hub's own way.
        if self.many && response.url().origin() != client.endpoint.origin() {
            self.shared().direct = Some(response.url().clone());
        }
        Ok(response)
    }

    /// Remembers what the server calls the bytes.
    async fn name(&self, response: &Response) -> Result<(), Stop> {
        let Some(name) = name(response) else { return Ok(()) };
        let known = self.shared().validator.replace(name.clone());
        if known.as_ref() != Some(&name) {
            self.sender.send(Order::Called(name)).await.map_err(|_| Stop::Gone)?;
        }
        Ok(())
    }

    fn tell(&self, more: u64, stage: Stage) {
        let mut told = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += more;
        let arrived = told.0;
        told.1.at(arrived, stage);
    }
}

/// What a server calls its bytes, if that says that they are the same.
fn name(response: &Response) -> Option<String> {
    let tag = response.headers().get(ETAG)?.to_str().ok()?;
    is_strong(tag).then(|| tag.to_owned())
}

/// Whether an answer has exactly the bytes that were asked for, of a file of the right length.
fn continues(response: &Response, asked: &Range<u64>, size: u64) -> bool {
    let text = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let parsed = text.and_then(|text| {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (start, end) = range.split_once('-')?;
        Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()?, total.to_owned()))
    });
    // One that ends early goes on with the next request; one that ends late is cut.
    parsed.is_some_and(|(start, end, total)| {
        start == asked.start && end >= start && (total == "*" || total.parse() == Ok(size))
    })
}

fn value(text: &str) -> Result<HeaderValue, Stop> {
    HeaderValue::from_str(text).map_err(|error| Stop::Failed(HubError::Panicked(error.to_string())))
}
