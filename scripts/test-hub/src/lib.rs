//! A Hugging Face hub for tests: the parts of its API that a download uses, and every way they can fail.
//!
//! It runs in a thread of its own, so that a test may block, and ends when it is dropped. Files in LFS are served by a
//! second port, as the hub has its CDN on another host: a client that sends its token there is refused.
//!
//! ```
//! use test_hub::{Content, Fault, Hub, Repo, Rule};
//!
//! let hub = Hub::new()
//!     .repo(
//!         Repo::new("org/model").file("config.json", "{}").lfs("model.safetensors", Content::generated(1, 1_000_000)),
//!     )
//!     .rule(Rule::new("model.safetensors", Fault::Cut(1000)).first(1))
//!     .start()?;
//! assert!(hub.url().starts_with("http://127.0.0.1:"));
//! assert_eq!(hub.bytes_sent("model.safetensors"), 0);
//! # std::io::Result::Ok(())
//! ```

mod answer;
mod api;
mod body;
mod content;
mod count;
mod fault;
mod reply;
mod repo;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::{answer::State, count::Log, repo::Served};

pub use content::Content;
pub use count::Request;
pub use fault::{Fault, Rule, Stage};
pub use repo::Repo;

/// Entries of a page of a listing, where nothing else was said. Origin: the hub's own.
const PAGE: usize = 1000;

/// A hub that has not started.
#[derive(Debug)]
pub struct Hub {
    repos: Vec<Repo>,
    rules: Vec<Rule>,
    tokens: Vec<String>,
    page: usize,
    resolve_cache: bool,
    rate: Option<u64>,
    port: u16,
}

impl Default for Hub {
    fn default() -> Self {
        let (repos, rules, tokens) = (Vec::new(), Vec::new(), Vec::new());
        Self { repos, rules, tokens, page: PAGE, resolve_cache: true, rate: None, port: 0 }
    }
}

impl Hub {
    /// A hub without repositories.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a repository.
    #[must_use]
    pub fn repo(mut self, repo: Repo) -> Self {
        self.repos.push(repo);
        self
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds a token that the hub knows and that opens nothing. Those of repositories are known without it.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens.push(token.into());
        self
    }

    /// Entries of a page of a listing: 1,000 unless told.
    #[must_use]
    pub fn page(mut self, entries: usize) -> Self {
        self.page = entries;
        self
    }

    /// Whether small files come by way of a second address, as on the hub: they do unless told.
    #[must_use]
    pub fn resolve_cache(mut self, on: bool) -> Self {
        self.resolve_cache = on;
        self
    }

    /// Bytes a second of every answer with a file's content: no limit unless told.
    #[must_use]
    pub fn throttle(mut self, bytes_a_second: Option<u64>) -> Self {
        self.rate = bytes_a_second;
        self
    }

    /// The port on 127.0.0.1: any unless told.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts it: it answers from now on.
    ///
    /// # Errors
    /// When the port is taken, or a file on disk cannot be read.
    pub fn start(self) -> io::Result<RunningHub> {
        let (hub, cdn) = (listener(self.port)?, listener(0)?);
        let address = |listener: &TcpListener| listener.local_addr().map(|address| format!("http://{address}"));
        let mut repos = BTreeMap::new();
        for repo in self.repos {
            let served: Served = repo.serve()?;
            repos.insert(served.repo.id.clone(), Arc::new(served));
        }
        let state = Arc::new(State {
            url: address(&hub)?,
            cdn: address(&cdn)?,
            repos: Mutex::new(repos),
            rules: Mutex::new(self.rules.into_iter().map(Arc::new).collect()),
            log: Log::default(),
            tokens: self.tokens,
            page: self.page,
            resolve_cache: self.resolve_cache,
            rate: self.rate,
            expired: AtomicU64::new(0),
            busy: Arc::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new().name("test-hub".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => Ok(()),
                    ended = accept(hub, Arc::clone(&shared), false) => ended,
                    ended = accept(cdn, shared, true) => ended,
                }
            })
        })?;
        Ok(RunningHub { state, stop: Some(stop), thread: Some(thread) })
    }
}

fn listener(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(listener: TcpListener, state: Arc<State>, at_cdn: bool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| answer::answer(&state, at_cdn, request));
            // How a connection ends is the client's affair, or a rule's.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A hub that answers, until it is dropped.
#[derive(Debug)]
pub struct RunningHub {
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl RunningHub {
    /// Where it is: what `HF_ENDPOINT` takes. Without a slash at the end.
    pub fn url(&self) -> &str {
        &self.state.url
    }

    /// Where it serves files in LFS.
    pub fn cdn_url(&self) -> &str {
        &self.state.cdn
    }

    /// Puts a repository, in the place of the one that had its name: somebody pushed.
    ///
    /// # Errors
    /// When a file on disk cannot be read.
    pub fn put(&self, repo: Repo) -> io::Result<()> {
        let served = repo.serve()?;
        let mut repos = self.state.repos.lock().unwrap_or_else(PoisonError::into_inner);
        repos.insert(served.repo.id.clone(), Arc::new(served));
        Ok(())
    }

    /// The commit that a revision of a repository means.
    pub fn commit(&self, repo: &str, revision: &str) -> Option<String> {
        let repos = self.state.repos.lock().unwrap_or_else(PoisonError::into_inner);
        repos.get(repo)?.commit(revision).map(|(sha, _)| sha.to_owned())
    }

    /// Adds a rule; it counts requests from now on.
    pub fn rule(&self, rule: Rule) {
        self.state.rules.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(rule));
    }

    /// Forgets all rules. Answers that are on their way stay as they are.
    pub fn clear_rules(&self) {
        self.state.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes every address that was handed out at the CDN useless: 403 until the hub is asked for another one.
    pub fn expire(&self) {
        self.state.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// How many answers with a file's content were on their way at once, at most.
    pub fn most_at_once(&self) -> u64 {
        self.state.busy.most()
    }

    /// All requests since the start or the last [`clear_log`](RunningHub::clear_log), in the order of their arrival.
    pub fn log(&self) -> Vec<Request> {
        self.state.log.all()
    }

    /// Forgets all requests. Those that go on are not counted any more.
    pub fn clear_log(&self) {
        self.state.log.clear();
    }

    /// Requests of a method (`""`: any) whose decoded path contains `path`.
    pub fn requests(&self, method: &str, path: &str) -> usize {
        let meant = |request: &&Request| (method.is_empty() || request.method == method) && request.path.contains(path);
        self.log().iter().filter(meant).count()
    }

    /// Bytes of a file's content that were sent: `org/name/path`, or a path's last parts.
    pub fn bytes_sent(&self, file: &str) -> u64 {
        self.log().iter().filter(|request| request.is_of(file)).map(|request| request.sent).sum()
    }

    /// Bytes of all files' content that were sent.
    pub fn content_bytes_sent(&self) -> u64 {
        self.log().iter().filter(|request| request.file.is_some()).map(|request| request.sent).sum()
    }
}

impl Drop for RunningHub {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
