//! What happens next; must not know what it is.

use std::collections::BTreeMap;

use crate::time::Millis;

/// Events by time; those of one time in the order in which they were put down.
#[derive(Clone, Debug)]
pub(super) struct Agenda<E> {
    now: Millis,
    count: u64,
    events: BTreeMap<(Millis, u64), E>,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { now: Millis(0), count: 0, events: BTreeMap::new() }
    }

    pub(super) fn now(&self) -> Millis {
        self.now
    }

    /// Puts `event` down for `at`, or for now where that is past.
    pub(super) fn put(&mut self, at: Millis, event: E) {
        self.count += 1;
        self.events.insert((at.max(self.now), self.count), event);
    }

    /// The next event before `end`; time moves on to it.
    pub(super) fn next(&mut self, end: Millis) -> Option<E> {
        let entry = self.events.first_entry()?;
        let at = entry.key().0;
        if at >= end {
            return None;
        }
        self.now = at;
        Some(entry.remove())
    }
}
