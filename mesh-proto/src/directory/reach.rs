//! Whom a node tries to reach that it is not linked with, and how often; must not know how it is dialled.

use std::collections::VecDeque;

use super::{Directory, Effect, Judge};
use crate::{identity::Contact, time::Millis};

/// How many of a whole mesh try each fallen node in such a round: with 10,000 nodes, all of them would dial one dead node
/// 1,600 times a second. Guess. Cost: one dial each 0.75 s at each of the fallen. Up to so many nodes, all try.
const REACHERS: usize = 8;
/// After one of the fallen was reached, until another is tried; where more stand than fell, so many times longer, since all
/// of them try. Guess. Cost: two dials a second from each who lost most of the mesh, and two to each whom most lost, until
/// the first one's word on each has come to all.
const REACH_AGAIN: Millis = Millis(500);

/// Between two tries of those whom only the disk or a ticket names, and between two at last: each time all were tried in
/// vain, twice as long. Guess. Cost: one dial each minute for who keeps the address of a node that is no more.
const KNOCK: Millis = Millis(2000);
const KNOCK_AT_LAST: Millis = Millis(60_000);

/// Whom the disk or a ticket names, and nobody here has told of yet.
///
/// Links alone are no proof of being in the mesh. Who comes back with an old revocation list may be answered by the
/// expelled alone, who know no better; and where it said goodbye before, no member looks for it.
#[derive(Debug)]
pub(super) struct Doors {
    contacts: VecDeque<Contact>,
    /// How many are left of this turn.
    turn: usize,
    pause: Millis,
    at: Millis,
}

impl Default for Doors {
    fn default() -> Self {
        Self { contacts: VecDeque::new(), turn: 0, pause: KNOCK, at: Millis(0) }
    }
}

impl Doors {
    pub(super) fn next(&self) -> Option<Millis> {
        (!self.contacts.is_empty()).then_some(self.at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.iter()
    }
}

impl<J: Judge> Directory<J> {
    /// Those whom the disk or a ticket names and of whom nothing was heard yet, and the fallen that may be back: to be kept
    /// on the disk beside those that stand, or a node that fell among strangers forgets its mesh.
    pub fn missed(&self) -> impl Iterator<Item = &Contact> {
        let unmet = self.doors.iter().filter(|contact| self.store.version(&contact.node).is_none());
        unmet.chain(self.store.lost())
    }

    pub(super) fn know(&mut self, contacts: Vec<Contact>, now: Millis) {
        if self.doors.contacts.is_empty() {
            self.doors.at = now + KNOCK;
        }
        self.doors.contacts.extend(contacts);
        (self.doors.turn, self.doors.pause) = (self.doors.contacts.len(), KNOCK);
    }

    /// Tries the next one of them.
    pub(super) fn knock(&mut self, now: Millis) {
        if self.doors.next().is_none_or(|at| at > now) {
            return;
        }
        // Who was met once is remembered otherwise, as standing or as fallen.
        let (me, store) = (self.me, &self.store);
        let unmet =
            |contact: &Contact| store.version(&contact.node).is_none() && !store.revocations.expels(&contact.node);
        self.doors.contacts.retain(|contact| contact.node != me && unmet(contact));
        let doors = &mut self.doors;
        if doors.turn == 0 {
            (doors.turn, doors.pause) = (doors.contacts.len(), Millis(doors.pause.0 * 2).min(KNOCK_AT_LAST));
        }
        doors.turn = doors.turn.min(doors.contacts.len()).saturating_sub(1);
        doors.at = now + doors.pause;
        // What many keep the address of, some of them try.
        let (turns, all) = (REACHERS * doors.contacts.len(), self.store.live().len());
        let others = (1..all).contains(&turns) && self.dice.below(all) >= turns;
        if let Some(contact) = self.doors.contacts.pop_front() {
            if !others && !self.links.contains_key(&contact.node) {
                self.effects.push_back(Effect::Reach(contact.clone()));
            }
            self.doors.contacts.push_back(contact);
        }
    }

    /// Tries one node that is not linked: a fallen one, or in a mesh where few are linked a standing one. `shared`: with all
    /// others, so that each of the fallen is tried by some of them.
    pub(super) fn reach(&mut self, shared: bool) -> bool {
        let mut contacts = self.store.lost();
        contacts.retain(|contact| !self.links.contains_key(&contact.node));
        if self.links.len() < 3 {
            let standing = self.store.live().iter().filter(|(node, _)| **node != self.me);
            let apart = standing.filter(|(node, _)| !self.links.contains_key(node));
            contacts.extend(apart.map(|(_, entry)| &entry.record.contact));
        } else if shared {
            let (turns, all) = (REACHERS * contacts.len(), self.store.live().len());
            if (1..all).contains(&turns) && self.dice.below(all) >= turns {
                return false;
            }
        }
        let at = self.dice.below(contacts.len());
        let contact = contacts.get(at).map(|contact| (*contact).clone());
        let found = contact.is_some();
        self.effects.extend(contact.map(Effect::Reach));
        found
    }

    /// One of the fallen stands at a peer. Either the peer has yet to notice, or nobody but this node was wrong: then nobody
    /// else would tell it. Who is linked is asked for its word, which shows that it lives.
    pub(super) fn look_again(&mut self, contact: Contact, now: Millis) {
        if self.looked.is_some_and(|at| now.since(at) < REACH_AGAIN) {
            return;
        }
        self.looked = Some(now);
        if self.links.contains_key(&contact.node) {
            self.ask(contact.node);
        } else {
            self.effects.push_back(Effect::Reach(contact));
        }
    }

    /// One of the fallen was reached: it was cut off, and seldom alone. A try each few seconds would take minutes for a
    /// thousand.
    pub(super) fn reached(&mut self, now: Millis) {
        let others = self.store.live().len() / self.store.lost().len().max(1);
        self.reach_at = Some(now + Millis(REACH_AGAIN.0 * others.max(1) as u64));
    }
}
