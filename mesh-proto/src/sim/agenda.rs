//! What happens next; must not know what it is.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Millis;

/// Events by time; those of one time in the order in which they were put down.
#[derive(Clone, Debug)]
pub(super) struct Agenda<E> {
    now: Millis,
    events: BTreeMap<Millis, VecDeque<E>>,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { now: Millis(0), events: BTreeMap::new() }
    }

    pub(super) fn now(&self) -> Millis {
        self.now
    }

    /// Puts `event` down for `at`, or for now where that is past.
    pub(super) fn put(&mut self, at: Millis, event: E) {
        self.events.entry(at.max(self.now)).or_default().push_back(event);
    }

    /// The next event before `end`; time moves on to it.
    pub(super) fn next(&mut self, end: Millis) -> Option<E> {
        loop {
            let mut entry = self.events.first_entry()?;
            let at = *entry.key();
            if at >= end {
                return None;
            }
            self.now = at;
            match entry.get_mut().pop_front() {
                Some(event) => return Some(event),
                None => drop(entry.remove()),
            }
        }
    }
}
