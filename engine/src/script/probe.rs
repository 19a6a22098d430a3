//! A look into a scripted decoder from another thread, and a hand on it; must not know what it computes.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// What a scripted decoder did so far, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences open now.
    pub open: usize,
    /// Sequences opened so far.
    pub opened: u64,
    /// KV bytes of the open ones now.
    pub kv_bytes: u64,
    /// The most that it ever was.
    pub peak_kv_bytes: u64,
    /// KV bytes kept for reuse.
    pub prefix_bytes: u64,
    /// Steps submitted.
    pub steps: u64,
    /// Of these, how many were held until they were told how to choose.
    pub held: u64,
    /// Decoding rows in them.
    pub decode_rows: u64,
    /// Prompt tokens in them.
    pub prefill_tokens: u64,
    /// The most prompt tokens in one step.
    pub prefill_peak: u32,
    /// What broke the decoder's contract; empty in a correct program.
    pub violations: Vec<String>,
}

/// How a scripted decoder can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A sequence cannot be opened.
    Open,
    /// The device fails while a sequence is opened.
    OpenDevice,
    /// One sequence of a step cannot be submitted.
    SubmitSequence,
    /// The device fails at submission.
    SubmitDevice,
    /// The device fails while a held step is told how to choose.
    ChooseDevice,
    /// One sequence of a step fails while it is computed.
    CollectSequence,
    /// The device fails while a step is computed.
    CollectDevice,
    /// A step gives one token too few.
    MissingToken,
    /// The decoder panics while a step is collected.
    Panic,
}

#[derive(Default)]
struct State {
    counts: Counts,
    faults: VecDeque<Fault>,
    holds: u32,
}

/// A handle of a [`ScriptDecoder`](super::ScriptDecoder) that other threads may have.
#[derive(Clone, Default)]
pub struct Probe(Arc<(Mutex<State>, Condvar)>);

impl Probe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// Lets the next call that can fail so fail, once for each time this is called.
    pub fn fail_next(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Stops the decoder before it gives out its next step, until the returned guard is dropped.
    pub fn hold(&self) -> Hold {
        self.state().holds += 1;
        Hold(self.clone())
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }

    /// Whether to fail so now; then not again.
    pub(super) fn fails(&self, fault: Fault) -> bool {
        let mut state = self.state();
        let at = state.faults.iter().position(|next| *next == fault);
        at.is_some_and(|at| state.faults.remove(at).is_some())
    }

    pub(super) fn wait(&self) {
        let mut state = self.state();
        while state.holds > 0 {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Probe").field(&self.counts()).finish()
    }
}

/// Holds a scripted decoder still as long as it lives.
#[must_use]
pub struct Hold(Probe);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state().holds -= 1;
        self.0.0.1.notify_all();
    }
}
