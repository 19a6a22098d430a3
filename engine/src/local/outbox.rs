//! One client's events on their way out; must not know what they say.

use std::collections::VecDeque;

use mesh_proto::{Event, GenerateError};
use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};

use crate::house::Place;

/// How far an outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// All that there is was sent; more may come.
    Sent,
    /// The client does not read: some is kept.
    Stalled,
    /// The last event was sent, or nobody listens any more.
    Over,
}

/// Sends what the client has room for and keeps the rest, in order. Room for the last event is set aside from the
/// start, so that a client is told of a failure whether it reads or not. Dropped without a last event, it says that
/// the engine failed: so no client hangs, even if the worker panics.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Event>,
    kept: VecDeque<Event>,
    last: Option<Event>,
    /// The room for `last`; `None` once it is sent.
    permit: Option<OwnedPermit<Event>>,
    place: Place,
}

impl Outbox {
    /// An outbox, and where its events come out: at most `room` unread ones, and the last.
    pub(super) fn new(room: usize, place: Place) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(room.max(1) + 1);
        let permit = sender.clone().try_reserve_owned().ok();
        (Self { sender, kept: VecDeque::new(), last: None, permit, place }, receiver)
    }

    /// One more event, not the last.
    pub(super) fn push(&mut self, event: Event) {
        self.kept.push_back(event);
    }

    /// The last event, after all others.
    pub(super) fn end(&mut self, last: Event) {
        self.last = Some(last);
    }

    /// Whether nobody listens.
    pub(super) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it still counts as a request in the house.
    pub(super) fn has_place(&self) -> bool {
        self.place.counts()
    }

    /// Sends what there is room for.
    pub(super) fn flush(&mut self) -> Delivery {
        while let Some(event) = self.kept.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.kept.push_front(event);
                    return Delivery::Stalled;
                }
                Err(TrySendError::Closed(_)) => return Delivery::Over,
            }
        }
        let Some(last) = self.last.take() else { return Delivery::Sent };
        self.send_last(last);
        Delivery::Over
    }

    /// The last event instead of all that the client has not read.
    pub(super) fn fail(&mut self, error: GenerateError) {
        self.kept.clear();
        self.last = Some(Event::Failed(error));
    }

    fn send_last(&mut self, last: Event) {
        self.place.free();
        if let Some(permit) = self.permit.take() {
            permit.send(last);
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // An end after events that were never sent would be a lie.
        let last = self.last.take().filter(|_| self.kept.is_empty());
        let stopped = || GenerateError::Engine("the engine stopped before the answer's end".to_owned());
        self.send_last(last.unwrap_or_else(|| Event::Failed(stopped())));
    }
}
