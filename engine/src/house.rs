//! Who may come in, and how much goes on: places, gauges and draining of one engine; must not know tokens or devices.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use mesh_proto::GenerateError;
use tokio::sync::watch;

use crate::EngineLoad;

/// Bounds of what a refused caller is told to wait. Unit: seconds; a guess: below one, clients hammer; beyond a
/// minute, they forget.
const RETRY_AFTER_S: (u64, u64) = (1, 60);

/// The shared part of one engine.
#[derive(Debug)]
pub struct House {
    /// Set once nothing more is taken; what callers are told from then on.
    closed: Mutex<Option<GenerateError>>,
    max_running: u32,
    /// Most requests accepted and not ended.
    most: u32,
    /// Requests that count against `most`.
    places: AtomicU32,
    /// Requests whose last event is not sent: what draining waits for.
    alive: watch::Sender<u32>,
    draining: AtomicBool,
    running: AtomicU32,
    /// Requests that have a place, are computed, and whose client has not read the end.
    leaving: AtomicU32,
    kv_bytes: AtomicU64,
    prefix_bytes: AtomicU64,
    steps: AtomicU64,
    tokens: AtomicU64,
    ttft_ms: AtomicU64,
    kv_budget_bytes: AtomicU64,
    /// Mean time of a request, running, in milliseconds.
    mean_ms: AtomicU64,
}

impl House {
    /// For `max_running` at once, and `max_waiting` behind them.
    pub fn new(max_running: u32, max_waiting: u32) -> Self {
        Self {
            closed: Mutex::default(),
            max_running,
            most: max_running.saturating_add(max_waiting),
            places: AtomicU32::new(0),
            alive: watch::Sender::new(0),
            draining: AtomicBool::new(false),
            running: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
            kv_bytes: AtomicU64::new(0),
            prefix_bytes: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            ttft_ms: AtomicU64::new(0),
            kv_budget_bytes: AtomicU64::new(0),
            mean_ms: AtomicU64::new(0),
        }
    }

    fn closed(&self) -> MutexGuard<'_, Option<GenerateError>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What callers are told now, if nothing more is taken.
    pub fn refusal(&self) -> Option<GenerateError> {
        self.closed().clone()
    }

    /// Takes nothing more: callers get `error` from now on; `None`: takes requests again.
    pub fn close(&self, error: Option<GenerateError>) {
        *self.closed() = error;
    }

    /// A place for one request, or why there is none.
    pub fn place(self: &Arc<Self>) -> Result<Place, GenerateError> {
        self.alive.send_modify(|alive| *alive += 1);
        let mut place = Place { house: self.clone(), counted: false };
        // After `alive` was raised: whoever drains either sees this request or is seen by it.
        if self.draining.load(SeqCst) {
            return Err(GenerateError::ShuttingDown);
        }
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let free = |taken: u32| (taken < self.most).then_some(taken + 1);
        if self.places.fetch_update(SeqCst, SeqCst, free).is_err() {
            let per_place_s = self.mean_ms.load(SeqCst) / u64::from(self.max_running) / 1000 + 1;
            let retry_after_s = per_place_s.clamp(RETRY_AFTER_S.0, RETRY_AFTER_S.1) as u32;
            return Err(GenerateError::Busy { waiting: self.load().waiting, retry_after_s });
        }
        place.counted = true;
        Ok(place)
    }

    /// A place for a part of a request that is in the house already: a full house lets it in, and so does a draining one.
    pub fn part(self: &Arc<Self>) -> Place {
        self.alive.send_modify(|alive| *alive += 1);
        self.places.fetch_add(1, SeqCst);
        Place { house: self.clone(), counted: true }
    }

    /// Who runs, and who is only being told the end.
    pub fn publish_counts(&self, running: u32, leaving: u32) {
        self.running.store(running, SeqCst);
        self.leaving.store(leaving, SeqCst);
    }

    /// Bytes of KV cache held by running sequences, and kept for reuse.
    pub fn publish_memory(&self, kv_bytes: u64, prefix_bytes: u64) {
        self.kv_bytes.store(kv_bytes, SeqCst);
        self.prefix_bytes.store(prefix_bytes, SeqCst);
    }

    /// A step was computed, and gave so many tokens.
    pub fn stepped(&self, tokens: usize) {
        self.steps.fetch_add(1, SeqCst);
        self.tokens.fetch_add(tokens as u64, SeqCst);
    }

    /// What all sequences together may take.
    pub fn publish_budget(&self, kv_budget_bytes: u64) {
        self.kv_budget_bytes.store(kv_budget_bytes, SeqCst);
    }

    /// A request had its first token after so long.
    pub fn first_token(&self, after: Duration) {
        decay(&self.ttft_ms, after);
    }

    /// A request had a place for so long.
    pub fn took(&self, time: Duration) {
        decay(&self.mean_ms, time);
    }

    /// What there is to do right now.
    pub fn load(&self) -> EngineLoad {
        let running = self.running.load(SeqCst);
        let started = running.saturating_add(self.leaving.load(SeqCst));
        EngineLoad {
            running,
            waiting: self.places.load(SeqCst).saturating_sub(started),
            kv_bytes: self.kv_bytes.load(SeqCst),
            prefix_bytes: self.prefix_bytes.load(SeqCst),
            steps: self.steps.load(SeqCst),
            tokens: self.tokens.load(SeqCst),
            ttft_ms: u32::try_from(self.ttft_ms.load(SeqCst)).unwrap_or(u32::MAX),
            kv_budget_bytes: self.kv_budget_bytes.load(SeqCst),
        }
    }

    /// Accepts nothing more from this call on. The future ends when all that was accepted has ended.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + use<> {
        self.draining.store(true, SeqCst);
        let mut alive = self.alive.subscribe();
        async move {
            alive.wait_for(|alive| *alive == 0).await.ok();
        }
    }
}

/// A mean of times in milliseconds in which the last eight count most.
fn decay(mean: &AtomicU64, time: Duration) {
    let (old, ms) = (mean.load(SeqCst), (time.as_millis() as u64).max(1));
    mean.store(if old == 0 { ms } else { (old * 7 + ms) / 8 }, SeqCst);
}

/// One request's place in the house, from acceptance to its last event.
#[derive(Debug)]
pub struct Place {
    house: Arc<House>,
    counted: bool,
}

impl Place {
    /// Lets somebody else in; draining still waits for this one. To be called before the client learns of its end, so
    /// that a client who asks again at once finds the place free.
    pub fn free(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.house.places.fetch_sub(1, SeqCst);
        }
    }

    /// Whether it still counts.
    pub fn counts(&self) -> bool {
        self.counted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.free();
        self.house.alive.send_modify(|alive| *alive -= 1);
    }
}
