//! Counts what is in flight to the child and what comes back; must not know what it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Notify;

/// Shared by all requests to one child and its driver. The counters order nothing, so relaxed ones do.
#[derive(Debug, Default)]
pub(super) struct Flight {
    open: AtomicUsize,
    waiting: AtomicUsize,
    tokens: AtomicU64,
    first: Notify,
}

impl Flight {
    /// One more, until dropped.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        if self.open.fetch_add(1, Relaxed) == 0 {
            self.first.notify_one();
        }
        Open(self.clone())
    }

    pub(super) fn opened(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Of those, whose turn it is the child's. One whose reader does not read must not make the child look hung.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How much came back, ever.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens.load(Relaxed)
    }

    /// Ends when a first request opens.
    pub(super) async fn first(&self) {
        self.first.notified().await;
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Open(Arc<Flight>);

impl Open {
    /// It is the child's turn, until dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.0.waiting.fetch_add(1, Relaxed);
        Waiting(&self.0)
    }

    /// Something came back.
    pub(super) fn progress(&self) {
        self.0.tokens.fetch_add(1, Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A request that waits for the child.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Flight);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
