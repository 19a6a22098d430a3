//! Who watches whom; must not know why.

use std::collections::BTreeSet;

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
    let place = |node: &NodeId| *blake3::hash(&node.0).as_bytes();
    let here = place(me);
    let mut ring: Vec<([u8; 32], NodeId)> = others.map(|node| (place(node), *node)).collect();
    ring.sort_unstable();
    let start = ring.partition_point(|(place, _)| *place <= here);
    ring.iter().cycle().skip(start).take(WATCHERS).map(|(_, node)| *node).collect()
}
