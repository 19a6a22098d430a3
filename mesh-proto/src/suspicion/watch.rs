//! Who watches whom; must not know why.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::NodeId;

/// Up to so many nodes everybody watches everybody. Default 64, from the prototype: connections to all cost
/// 7 MB and 15 kB/s. Cost above it: a death reaches those who do not watch as an accusation, one hop later.
pub const FULL_WATCH: usize = 64;
/// In bigger meshes, how many nodes each watches, and is watched by. Default 5: all of a node's watchers fail
/// together with it once in 10¹⁰ where one in a hundred is down.
pub const WATCHERS: usize = 5;

/// Whom `me` watches among `members`: all of them, or its successors on a ring of hashed ids. Every node is
/// then watched by its [`WATCHERS`] predecessors, and the ring moves little when one goes. Whom a node routes
/// to it watches besides.
pub fn watched(me: &NodeId, members: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let others = members.iter().filter(|node| *node != me);
    if members.len() <= FULL_WATCH {
        return others.copied().collect();
    }
    let here = place(me);
    let mut ring: Vec<([u8; 32], NodeId)> = others.map(|node| (place(node), *node)).collect();
    ring.sort_unstable();
    let start = ring.partition_point(|(place, _)| *place <= here);
    ring.iter().cycle().skip(start).take(WATCHERS).map(|(_, node)| *node).collect()
}

/// Whom a node watches, kept as members come and go: what [`watched`] would say of them all, at the cost of one change.
#[derive(Clone, Debug)]
pub struct Watchlist {
    me: [u8; 32],
    /// The other members, in the ring's order.
    ring: BTreeMap<[u8; 32], NodeId>,
    watched: BTreeSet<NodeId>,
}

/// What a member's coming or going changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewatch {
    /// To be watched from now on.
    pub watch: Vec<NodeId>,
    /// Members that others watch from now on.
    pub forget: Vec<NodeId>,
}

impl Watchlist {
    /// Of a node that knows nobody yet.
    pub fn new(me: &NodeId) -> Self {
        Self { me: place(me), ring: BTreeMap::new(), watched: BTreeSet::new() }
    }

    /// Whether this member is watched here.
    pub fn watches(&self, node: &NodeId) -> bool {
        self.watched.contains(node)
    }

    /// A member came; nothing if it is there.
    pub fn came(&mut self, node: NodeId) -> Rewatch {
        let place = place(&node);
        if place == self.me || self.ring.insert(place, node).is_some() {
            return Rewatch::default();
        }
        self.settle()
    }

    /// A member went; nothing if it was not there. It is not among those to be forgotten: how it went, others know.
    pub fn went(&mut self, node: &NodeId) -> Rewatch {
        if self.ring.remove(&place(node)).is_none() {
            return Rewatch::default();
        }
        self.watched.remove(node);
        self.settle()
    }

    fn settle(&mut self) -> Rewatch {
        let all = self.ring.len() < FULL_WATCH;
        let behind = self.ring.range(self.me..).chain(self.ring.range(..self.me)).map(|(_, node)| *node);
        let now: BTreeSet<NodeId> = behind.take(if all { self.ring.len() } else { WATCHERS }).collect();
        let watch = now.difference(&self.watched).copied().collect();
        let forget = self.watched.difference(&now).copied().collect();
        self.watched = now;
        Rewatch { watch, forget }
    }
}

fn place(node: &NodeId) -> [u8; 32] {
    *blake3::hash(&node.0).as_bytes()
}
