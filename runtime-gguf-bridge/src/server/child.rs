//! Drives a child's life with real processes; must not decide anything, which `life` does, nor know what is asked of it.

use std::{
    future::pending,
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh_proto::time::Millis;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    CallError, ServerOptions,
    flight::Flight,
    http,
    life::{Config, Effect, Input, Life, State},
    output::Output,
    process::{Note, Process},
};

/// Notes that wait for the driver. Unit: notes. Default: 64. Origin: a load tells its progress five times a second. Cost
/// of less: progress left out.
const NOTES: usize = 64;

/// What the driver and all handles share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) flight: Arc<Flight>,
    pub(super) state: watch::Receiver<State>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    socket: Option<PathBuf>,
    pids: Option<(u32, Arc<AtomicU32>)>,
    output: Arc<Output>,
    /// Of the process before this one.
    words: String,
}

impl Shared {
    pub(super) fn new(name: String, state: watch::Receiver<State>) -> Self {
        Self { name, flight: Arc::default(), state, now: Mutex::default() }
    }

    fn now<T>(&self, look: impl FnOnce(&mut Now) -> T) -> T {
        look(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where it can be asked.
    pub(super) fn socket(&self) -> Result<PathBuf, CallError> {
        self.now(|now| now.socket.clone()).ok_or_else(|| CallError::Unreachable("it does not run".to_owned()))
    }

    /// The guard's process and the child's, once known.
    pub(super) fn pids(&self) -> Option<(u32, u32)> {
        let (guard, child) = self.now(|now| now.pids.clone())?;
        Some((guard, child.load(Relaxed))).filter(|(_, child)| *child != 0)
    }

    /// How the last process ended, or what the present one says.
    pub(super) fn last_words(&self) -> String {
        let (words, output) = self.now(|now| (now.words.clone(), now.output.clone()));
        if words.is_empty() { output.last_words() } else { words }
    }
}

/// What handles want of the driver.
pub(super) enum Wish {
    /// Try again after failure.
    Start,
    /// End.
    Stop,
}

/// Runs until the child is stopped and gone: by a wish, or because no handle is left.
pub(super) async fn drive(
    options: ServerOptions,
    config: Config,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    mut wishes: mpsc::Receiver<Wish>,
) {
    let (tell, mut heard) = mpsc::channel(NOTES);
    let mut driver = Driver {
        options,
        life: Life::new(config),
        limit: Duration::from_millis(config.health_limit.0),
        shared,
        state,
        began: Instant::now(),
        tell,
        process: None,
        number: 0,
        tokens: 0,
    };
    let every = Duration::from_millis(config.measure_every.0);
    driver.input(Input::Start);
    let mut wanted = true;
    while !driver.life.is_over() {
        let flight = driver.shared.flight.clone();
        // Somebody may begin or cease to wait without a word.
        let busy = (flight.opened() > 0).then(|| Instant::now() + every);
        let due = driver.life.next_wakeup().map(|at| driver.began + Duration::from_millis(at.0));
        let due = [busy, due].into_iter().flatten().min();
        let input = tokio::select! {
            wish = wishes.recv(), if wanted => match wish {
                Some(Wish::Start) => Input::Start,
                Some(Wish::Stop) | None => {
                    wanted = false;
                    Input::StopWanted
                }
            },
            note = heard.recv() => match note {
                Some((number, input)) if number == driver.number => input,
                // Of a process that is gone.
                _ => continue,
            },
            status = ended(&mut driver.process) => driver.gone(status).await,
            () = flight.first() => Input::Wake,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Input::Wake,
        };
        driver.input(input);
    }
}

/// The end of the process, if there is one.
async fn ended(process: &mut Option<Process>) -> Option<ExitStatus> {
    match process {
        Some(process) => process.ended().await,
        None => pending().await,
    }
}

struct Driver {
    options: ServerOptions,
    life: Life,
    limit: Duration,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    began: Instant,
    tell: mpsc::Sender<Note>,
    process: Option<Process>,
    /// Of the present process, counted from 1.
    number: u64,
    /// What the flight's counter was.
    tokens: u64,
}

impl Driver {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Hands one on, with what the counters say, and does all that follows.
    fn input(&mut self, input: Input) {
        let now = self.now();
        let tokens = self.shared.flight.tokens();
        if tokens != self.tokens {
            self.tokens = tokens;
            self.life.handle(Input::TokenProgress, now);
        }
        self.life.handle(Input::Streams(self.shared.flight.waiting()), now);
        self.life.handle(input, now);
        while let Some(effect) = self.life.poll_effect() {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn => {
                let input = self.spawn();
                self.life.handle(input, self.now());
            }
            Effect::Stop => {
                if let Some(process) = &mut self.process {
                    process.stop();
                }
            }
            Effect::Kill => {
                if let Some(process) = &self.process {
                    process.kill();
                }
            }
            Effect::CheckHealth => self.check(),
            Effect::MeasureCpu => self.measure(),
            Effect::TellState(state) => {
                let name = &self.shared.name;
                match &state {
                    State::Failed { words } => tracing::error!(model = name, "llama-server is given up: {words}"),
                    State::Restarting { attempt, .. } => {
                        let words = self.shared.last_words();
                        tracing::warn!(model = name, attempt, "llama-server crashed and is restarted: {words}");
                    }
                    State::Unhealthy => tracing::warn!(model = name, "llama-server does not answer"),
                    State::Ready | State::Stopped => tracing::info!(model = name, "llama-server is {state}"),
                    State::Starting { .. } => tracing::debug!(model = name, "llama-server is {state}"),
                }
                self.state.send_replace(state);
            }
        }
    }

    fn spawn(&mut self) -> Input {
        self.number += 1;
        let output = Arc::<Output>::default();
        match Process::spawn(&self.options, self.number, &self.tell, &output) {
            Ok(process) => {
                self.shared.now(|now| {
                    *now =
                        Now { socket: Some(process.socket()), pids: Some(process.pids()), output, words: String::new() }
                });
                self.process = Some(process);
                Input::Spawned
            }
            Err(why) => {
                self.shared.now(|now| *now = Now { words: why.clone(), ..Now::default() });
                Input::SpawnFailed(why)
            }
        }
    }

    /// The process is no more.
    async fn gone(&mut self, status: Option<ExitStatus>) -> Input {
        let words = match self.process.take() {
            Some(process) => process.bury(status).await,
            None => String::new(),
        };
        self.shared.now(|now| *now = Now { words: words.clone(), ..Now::default() });
        // What comes late from it is not the next one's.
        self.number += 1;
        Input::Exited { words }
    }

    fn check(&self) {
        let Ok(socket) = self.shared.socket() else { return };
        let (tell, number, limit) = (self.tell.clone(), self.number, self.limit);
        tokio::spawn(async move {
            let healthy = http::json(&socket, "/health", None::<&Value>, limit).await.is_ok();
            let input = if healthy { Input::HealthOk } else { Input::HealthFailed };
            let _ = tell.send((number, input)).await;
        });
    }

    fn measure(&self) {
        let Some((guard, _)) = self.shared.now(|now| now.pids.clone()) else { return };
        let (tell, number) = (self.tell.clone(), self.number);
        tokio::task::spawn_blocking(move || {
            if let Some(ms) = Process::cpu_time(guard) {
                let _ = tell.blocking_send((number, Input::CpuTime(ms)));
            }
        });
    }
}
