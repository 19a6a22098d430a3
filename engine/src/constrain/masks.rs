//! Threads that compute masks beside the device's step; must not know what a grammar is for.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use llguidance::Matcher;

use super::in_short;
use crate::decoder::TokenSet;

/// Most threads of one model. Default 4, a guess: a mask takes tens of microseconds, and a step milliseconds, so that a
/// thread computes the masks of many rows; more of them would take cores from a model that runs on the CPU.
const MAX_THREADS: usize = 4;

/// A matcher that comes back with what may come next, or with why that is not known.
pub(super) type Computed = (Box<Matcher>, Result<TokenSet, String>);

/// The threads, started with the first job. They end with the last handle.
#[derive(Default)]
pub(super) struct Masks(OnceLock<Option<Sender<Job>>>);

struct Job {
    matcher: Box<Matcher>,
    done: Sender<Computed>,
}

impl Masks {
    /// Computes a matcher's mask on another thread; gives it back where there is none.
    pub(super) fn compute(&self, matcher: Box<Matcher>) -> Result<Receiver<Computed>, Box<Matcher>> {
        let Some(jobs) = self.0.get_or_init(start) else { return Err(matcher) };
        let (done, computed) = mpsc::channel();
        jobs.send(Job { matcher, done }).map_err(|refused| refused.0.matcher)?;
        Ok(computed)
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Masks").field(&self.0.get().is_some()).finish()
    }
}

fn start() -> Option<Sender<Job>> {
    let (jobs, work) = mpsc::channel::<Job>();
    let work = Arc::new(Mutex::new(work));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut started = 0;
    for _ in 0..(cores / 2).clamp(1, MAX_THREADS) {
        let work = work.clone();
        let run = move || {
            loop {
                let job = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { mut matcher, done }) = job else { return };
                let mask = mask(&mut matcher);
                // Whoever asked may be gone.
                done.send((matcher, mask)).ok();
            }
        };
        match thread::Builder::new().name("masks".to_owned()).spawn(run) {
            Ok(_) => started += 1,
            Err(error) => tracing::warn!(%error, "a thread for grammars cannot be started"),
        }
    }
    (started > 0).then_some(jobs)
}

/// What may come next; never nothing.
pub(super) fn mask(matcher: &mut Matcher) -> Result<TokenSet, String> {
    let mask = matcher.compute_mask().map_err(|error| in_short(&error.to_string()))?;
    let mask = TokenSet::from_words(mask.into());
    if mask.is_empty() { Err("the grammar allows no token".to_owned()) } else { Ok(mask) }
}
