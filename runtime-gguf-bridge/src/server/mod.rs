//! `llama-server` as a child that starts, answers, crashes, hangs and ends, behind one handle; must not know models,
//! prompts or what an answer means.

mod child;
mod devices;
mod environment;
mod error;
mod find;
mod flight;
mod guard;
mod http;
mod life;
mod output;
mod probe;
mod process;
mod socket;
mod sse;
mod version;

use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use self::{
    child::{Shared, Wish, drive},
    flight::Open,
    http::SseLines,
};
pub use self::{
    devices::{Device, devices},
    error::{BridgeError, CallError},
    find::find,
    guard::guard_main,
    life::{Config, State},
    version::{Version, version},
};

/// How long a request waits for a child that restarts. Unit: time. Default: 30 s. Origin: the longest pause before a
/// restart, or the load of a middling model. Cost of more: clients that wait for what may not come.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long a stop is waited for. Unit: time. Default: 10 s. Origin: 2 s of grace, and a kill. Cost of less: the node may
/// end before its child, which its guard then ends.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long a broken request waits for the driver to see that the child is gone. Unit: time. Default: 500 ms. Origin:
/// 20 ms measured between a kill and the guard's end. Cost of more: a later error where only the connection broke.
const NOTICE_LIMIT: Duration = Duration::from_millis(500);

/// Between two words about a load. Unit: time. Default: 1 s. Origin: what people can read. Cost of less: a busy terminal.
const STAGE_EVERY: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `llama-server`.
    pub binary: PathBuf,
    /// The command that becomes [`guard_main`] with what is put behind it.
    pub guard: Vec<OsString>,
    /// Its arguments, but for where it listens.
    pub args: Vec<OsString>,
    /// The model's name, for errors and the log.
    pub name: String,
}

/// A child, alive as long as one of these is. Whatever happens to this process, it does not outlive it.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    wishes: mpsc::Sender<Wish>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}, {})", self.shared.name, self.state())
    }
}

impl Server {
    /// Starts one and returns when it is ready for the first time. `stage` hears of its progress. Dropping the future
    /// ends the child.
    pub async fn start(options: ServerOptions, stage: &mut dyn FnMut(&str)) -> Result<Self, BridgeError> {
        Self::start_with(options, Config::default(), stage).await
    }

    /// The same with times of one's own.
    pub async fn start_with(
        options: ServerOptions,
        config: Config,
        stage: &mut dyn FnMut(&str),
    ) -> Result<Self, BridgeError> {
        let (tell, state) = watch::channel(State::Starting { progress: None });
        let (wishes, wanted) = mpsc::channel(1);
        let shared = Arc::new(Shared::new(options.name.clone(), state));
        let this = Self { shared: shared.clone(), wishes };
        tokio::spawn(drive(options, config, shared, tell, wanted));
        this.first_ready(stage).await?;
        Ok(this)
    }

    async fn first_ready(&self, stage: &mut dyn FnMut(&str)) -> Result<(), BridgeError> {
        let mut watched = self.shared.state.clone();
        let mut told: Option<(Instant, String)> = None;
        loop {
            let state = watched.borrow_and_update().clone();
            if let Some(decided) = self.decided(&state) {
                return decided;
            }
            let words = state.to_string();
            let due = told.as_ref().is_none_or(|(at, before)| at.elapsed() >= STAGE_EVERY && *before != words);
            if due {
                stage(&words);
                told = Some((Instant::now(), words));
            }
            if watched.changed().await.is_err() {
                return Err(BridgeError::Stopped { name: self.shared.name.clone() });
            }
        }
    }

    /// What a state means to a request; none where it is to wait.
    fn decided(&self, state: &State) -> Option<Result<(), BridgeError>> {
        let name = || self.shared.name.clone();
        match state {
            State::Ready => Some(Ok(())),
            State::Failed { words } => Some(Err(BridgeError::Failed { name: name(), words: words.clone() })),
            State::Stopped => Some(Err(BridgeError::Stopped { name: name() })),
            State::Starting { .. } | State::Unhealthy | State::Restarting { .. } => None,
        }
    }

    /// Waits while it restarts or does not answer, for 30 s at most.
    pub async fn ready(&self) -> Result<(), BridgeError> {
        let mut watched = self.shared.state.clone();
        let decided = timeout(READY_LIMIT, async {
            loop {
                let state = watched.borrow_and_update().clone();
                if let Some(decided) = self.decided(&state) {
                    return decided;
                }
                if watched.changed().await.is_err() {
                    return Err(BridgeError::Stopped { name: self.shared.name.clone() });
                }
            }
        });
        decided.await.unwrap_or_else(|_| {
            let (name, state) = (self.shared.name.clone(), self.state().to_string());
            Err(BridgeError::NotReady { name, state, waited_s: READY_LIMIT.as_secs() })
        })
    }

    /// Starts it again where it was given up; nothing else anywhere else. [`Self::ready`] says what became of it.
    pub async fn revive(&self) {
        if matches!(self.state(), State::Failed { .. }) && self.wishes.send(Wish::Start).await.is_ok() {
            let mut watched = self.shared.state.clone();
            let _ = watched.wait_for(|state| !matches!(state, State::Failed { .. })).await;
        }
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Requests that are under way.
    pub fn in_flight(&self) -> usize {
        self.shared.flight.opened()
    }

    /// Asks (POST) for one JSON answer.
    pub async fn call(&self, path: &str, body: &Value, limit: Duration) -> Result<Value, CallError> {
        self.json(path, Some(body), limit).await
    }

    /// Asks (GET) for one JSON answer.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Value, CallError> {
        self.json(path, None, limit).await
    }

    async fn json(&self, path: &str, body: Option<&Value>, limit: Duration) -> Result<Value, CallError> {
        let socket = self.shared.socket()?;
        let open = self.shared.flight.open();
        let _waiting = open.wait();
        let answer = http::json(&socket, path, body, limit).await;
        open.progress();
        if let Err(error) = &answer {
            noticed(error, &self.shared.state).await;
        }
        answer
    }

    /// Asks for a stream of JSON events; returns when the first comes.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Stream, CallError> {
        let socket = self.shared.socket()?;
        let open = self.shared.flight.open();
        let lines = {
            let _waiting = open.wait();
            http::stream(&socket, path, body).await
        };
        open.progress();
        match lines {
            Ok(lines) => Ok(Stream { lines, open, state: self.shared.state.clone() }),
            Err(error) => {
                noticed(&error, &self.shared.state).await;
                Err(error)
            }
        }
    }

    /// How the last process ended; while one runs, the errors it has printed so far. One line, may be empty.
    pub fn last_words(&self) -> String {
        self.shared.last_words()
    }

    /// The guard's process and the child's, while they run.
    pub fn pids(&self) -> Option<(u32, u32)> {
        self.shared.pids()
    }

    /// Where it listens, while it runs.
    pub fn socket(&self) -> Option<PathBuf> {
        self.shared.socket().ok()
    }

    /// Ends it, for good, and waits for that.
    pub async fn stop(&self) {
        let _ = self.wishes.send(Wish::Stop).await;
        if timeout(STOP_LIMIT, self.wishes.closed()).await.is_err() {
            tracing::warn!(model = self.shared.name, "llama-server does not end; its guard goes on trying");
        }
    }
}

/// Events of one request. Dropping it cancels the request, at once.
#[derive(Debug)]
pub struct Stream {
    lines: SseLines,
    open: Open,
    state: watch::Receiver<State>,
}

impl Stream {
    /// The next event; none after the last one. An error is the last item. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Result<Value, CallError>> {
        let waiting = self.open.wait();
        let item = self.lines.next().await;
        drop(waiting);
        self.open.progress();
        if let Some(Err(error)) = &item {
            noticed(error, &self.state).await;
        }
        item
    }
}

/// After a broken connection, lets the driver notice the child's end before the caller asks for state, last words or a
/// new answer. Without this the next request would be sent to the same dead socket.
async fn noticed(error: &CallError, state: &watch::Receiver<State>) {
    if matches!(error, CallError::Unreachable(_)) {
        let mut state = state.clone();
        let _ = timeout(NOTICE_LIMIT, state.wait_for(|state| *state != State::Ready)).await;
    }
}
