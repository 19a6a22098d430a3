//! Whom a node tries to reach that it is not linked with, and how often; must not know how it is dialled.

use super::{Directory, Effect, Judge};
use crate::{identity::Contact, time::Millis};

/// How many of a whole mesh try each fallen node in such a round: with 10,000 nodes, all of them would dial one dead node
/// 1,600 times a second. Guess. Cost: one dial each 0.75 s at each of the fallen. Up to so many nodes, all try.
const REACHERS: usize = 8;
/// After one of the fallen was reached, until another is tried; where more stand than fell, so many times longer, since all
/// of them try. Guess. Cost: two dials a second from each who lost most of the mesh, and two to each whom most lost, until
/// the first one's word on each has come to all.
const REACH_AGAIN: Millis = Millis(500);

impl<J: Judge> Directory<J> {
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
