//! Whom a node watches, kept as members come and go; must not know what watching is.
//!
//! [`suspicion::watched`] sorts all members anew each time, which 10,000 nodes at each of 10,000 records cannot.
//! Here the ring of all nodes that ever are is sorted once, and each node goes along it past those it does not
//! know. [`World::watches_rightly`] compares both.

use std::collections::BTreeSet;

use super::World;
use crate::{
    identity::NodeId,
    suspicion::{self, FULL_WATCH, WATCHERS, watched},
};

/// All nodes in the ring's order, and each one's place in it.
#[derive(Debug, Default)]
pub(super) struct Ring {
    order: Vec<usize>,
    place: Vec<usize>,
}

impl Ring {
    pub(super) fn new(ids: &[NodeId]) -> Self {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|node| *blake3::hash(&ids[*node].0).as_bytes());
        let mut place = vec![0; ids.len()];
        for (at, node) in order.iter().enumerate() {
            place[*node] = at;
        }
        Self { order, place }
    }

    /// How far along the ring `to` comes after `from`.
    fn after(&self, from: usize, to: usize) -> usize {
        (self.place[to] + self.order.len() - self.place[from]) % self.order.len()
    }

    fn successors(&self, of: usize) -> impl Iterator<Item = usize> + '_ {
        let start = self.place[of] + 1;
        (start..start + self.order.len() - 1).map(|at| self.order[at % self.order.len()])
    }
}

impl World {
    /// A record of `node` came to `at`; `new`: none stood there before.
    pub(super) fn watch(&mut self, at: usize, node: usize, incarnation: u64, new: bool) {
        let id = self.nodes[node].id;
        let members = self.nodes[at].own.directory.len();
        if members <= FULL_WATCH && !self.nodes[at].few {
            return self.suspicion(at, suspicion::Input::Watch { node: id, incarnation });
        }
        if !self.nodes[at].few {
            self.nodes[at].few = true;
            self.watch_few(at);
        } else if new {
            let far = self.nodes[at].watched.iter().copied().max_by_key(|peer| self.ring.after(at, *peer));
            let near = far.is_none_or(|far| self.ring.after(at, node) < self.ring.after(at, far));
            if near || self.nodes[at].watched.len() < WATCHERS {
                self.nodes[at].watched.insert(node);
                if let Some(far) = far.filter(|_| self.nodes[at].watched.len() > WATCHERS) {
                    self.nodes[at].watched.remove(&far);
                    let far = self.nodes[far].id;
                    self.suspicion(at, suspicion::Input::Forget(far));
                }
            }
        }
        if self.nodes[at].watched.contains(&node) {
            self.suspicion(at, suspicion::Input::Watch { node: id, incarnation });
        } else if self.nodes[at].own.suspicion.health(&id).is_some() {
            self.suspicion(at, suspicion::Input::Said { node: id, incarnation });
        }
    }

    /// All that is known to `at` came at once.
    pub(super) fn watch_the_standing(&mut self, at: usize) {
        self.nodes[at].few = true;
        self.watch_few(at);
    }

    /// No record of `node` stands at `at` any more.
    pub(super) fn unwatch(&mut self, at: usize, node: usize) {
        let members = self.nodes[at].own.directory.len();
        if members <= FULL_WATCH && self.nodes[at].few {
            self.nodes[at].few = false;
            self.nodes[at].watched.clear();
            self.watch_these(at, (0..self.nodes.len()).filter(|peer| self.nodes[at].is_member(*peer)).collect());
        } else if self.nodes[at].watched.remove(&node) {
            let last = self.nodes[at].watched.clone();
            self.nodes[at].watched = self.few(at);
            let new = self.nodes[at].watched.difference(&last).copied().collect();
            self.watch_these(at, new);
        }
    }

    fn few(&self, at: usize) -> BTreeSet<usize> {
        self.ring.successors(at).filter(|node| self.nodes[at].is_member(*node)).take(WATCHERS).collect()
    }

    fn watch_few(&mut self, at: usize) {
        let few = self.few(at);
        let held = self.nodes[at].own.suspicion.iter().filter_map(|(id, _)| self.find(id));
        let others: Vec<usize> = held.filter(|peer| self.nodes[at].is_member(*peer) && !few.contains(peer)).collect();
        for peer in others {
            let id = self.nodes[peer].id;
            self.suspicion(at, suspicion::Input::Forget(id));
        }
        self.nodes[at].watched.clone_from(&few);
        self.watch_these(at, few);
    }

    fn watch_these(&mut self, at: usize, these: BTreeSet<usize>) {
        for peer in these.into_iter().filter(|peer| *peer != at) {
            let node = self.nodes[peer].id;
            let Some(incarnation) = self.nodes[at].own.directory.get(&node).map(|e| e.record.version.incarnation)
            else {
                continue;
            };
            self.suspicion(at, suspicion::Input::Watch { node, incarnation });
        }
    }

    /// Whether `at` watches whom [`watched`] says.
    pub(super) fn watches_rightly(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let members: BTreeSet<NodeId> = node.own.directory.iter().map(|(id, _)| *id).collect();
        let ids: BTreeSet<NodeId> = node.watched.iter().map(|peer| self.nodes[*peer].id).collect();
        members.len() <= FULL_WATCH || ids == watched(&node.id, &members)
    }
}
