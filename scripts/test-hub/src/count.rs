//! What was asked for and how much was sent; must not know how it is answered.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU16, AtomicU64, Ordering},
};

use crate::Stage;

/// One request, as it is in the log.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Its path, percent-decoded.
    pub path: String,
    /// What follows the question mark, as it was sent.
    pub query: String,
    /// Its `Range` header.
    pub range: Option<String>,
    /// Whether it carried a token.
    pub authorized: bool,
    /// What it was for.
    pub stage: Stage,
    /// The file that it got bytes of, as `org/name/path`.
    pub file: Option<String>,
    /// The status of the answer; 0: none was given.
    pub status: u16,
    /// Bytes of the answer's body that were handed to the connection. A client that leaves may have received less.
    pub sent: u64,
}

/// A request that may still be going on.
#[derive(Debug)]
pub(crate) struct Live {
    request: Request,
    file: Mutex<Option<String>>,
    status: AtomicU16,
    sent: AtomicU64,
}

impl Live {
    pub(crate) fn answered(&self, status: u16, file: Option<String>) {
        self.status.store(status, Ordering::Relaxed);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn now(&self) -> Request {
        Request {
            status: self.status.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            file: self.file.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..self.request.clone()
        }
    }
}

/// How many answers with a file's content are on their way, and were at most.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    now: AtomicU64,
    most: AtomicU64,
}

impl Busy {
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Line(Arc<Busy>);

impl Line {
    pub(crate) fn open(busy: &Arc<Busy>) -> Self {
        let now = busy.now.fetch_add(1, Ordering::Relaxed) + 1;
        busy.most.fetch_max(now, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Arc<Live>>>);

impl Log {
    pub(crate) fn add(&self, request: Request) -> Arc<Live> {
        let live = Live { request, file: Mutex::default(), status: AtomicU16::new(0), sent: AtomicU64::new(0) };
        let live = Arc::new(live);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&live));
        live
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|live| live.now()).collect()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Request {
    /// Whether it got bytes of this file: `org/name/path`, or a path's last parts.
    pub fn is_of(&self, file: &str) -> bool {
        self.file.as_deref().and_then(|own| own.strip_suffix(file)).is_some_and(|rest| {
            // A file's name must not count for another one that merely ends like it.
            rest.is_empty() || rest.ends_with('/')
        })
    }
}
