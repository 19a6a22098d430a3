//! Gossip where not everybody is linked to everybody: HyParView's five neighbours and Plumtree's tree among them;
//! must not know what is gossiped.
//!
//! As in iroh-gossip: what is new goes on to the eager neighbours at once and is named to the lazy ones a little
//! later; a second copy makes its link lazy on both ends, a name that no copy follows makes its link eager again.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use rand::RngExt;

use super::{Event, World, node::Msg};
use crate::time::Millis;

/// Neighbours that a node wants, and bears at most. Origin: HyParView's active view in iroh-gossip is 5.
const WANTED: usize = 5;
const MOST: usize = 8;
/// Names are collected for so long. Guess; iroh-gossip's 5 ms would be one message a name.
const COLLECT: Millis = Millis(200);
/// How long a named message may still come by itself. Origin: iroh-gossip waits 80 ms.
const PATIENCE: Millis = Millis(150);
/// How often a missing message is asked for.
const TRIES: u32 = 3;
/// How long messages are kept to be sent again. iroh-gossip: 30 s.
const KEPT: Millis = Millis::secs(30);

/// One node's place in the tree.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    eager: BTreeSet<usize>,
    lazy: BTreeSet<usize>,
    named: Vec<u32>,
    missing: BTreeMap<u32, Vec<usize>>,
}

/// A gossip message.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) bytes: Rc<Vec<u8>>,
    pub(super) probe: bool,
    id: [u8; 32],
    at: Millis,
    seen: Vec<u64>,
}

impl Item {
    /// Whether this is the first time.
    fn see(&mut self, node: usize) -> bool {
        let Some(bits) = self.seen.get_mut(node / 64) else { return false };
        let first = *bits >> (node % 64) & 1 == 0;
        *bits |= 1 << (node % 64);
        first
    }

    fn was_seen(&self, node: usize) -> bool {
        self.seen.get(node / 64).is_none_or(|bits| bits >> (node % 64) & 1 == 1)
    }
}

impl Overlay {
    pub(super) fn part(&mut self, peer: usize) {
        self.eager.remove(&peer);
        self.lazy.remove(&peer);
    }

    fn has(&self, peer: usize) -> bool {
        self.eager.contains(&peer) || self.lazy.contains(&peer)
    }

    fn len(&self) -> usize {
        self.eager.len() + self.lazy.len()
    }

    fn set_eager(&mut self, peer: usize) {
        if self.lazy.remove(&peer) {
            self.eager.insert(peer);
        }
    }

    fn set_lazy(&mut self, peer: usize) -> bool {
        let was = self.eager.remove(&peer);
        if was {
            self.lazy.insert(peer);
        }
        was
    }

    pub(super) fn keeps(&self, peer: usize) -> bool {
        self.has(peer)
    }
}

impl World {
    pub(super) fn item(&self, number: u32) -> Option<&Item> {
        let at = number.checked_sub(self.items_gone)?;
        self.items.get(at as usize)
    }

    fn item_mut(&mut self, number: u32) -> Option<&mut Item> {
        let at = number.checked_sub(self.items_gone)?;
        self.items.get_mut(at as usize)
    }

    /// Gossips something new: a record's announcement, or (`probe`) an accusation. A message's id is its content's hash, as
    /// in iroh-gossip: what all five watchers of one node say of it is one message, wherever two of them meet.
    pub(super) fn gossip(&mut self, from: usize, bytes: Vec<u8>, probe: bool) {
        let now = self.now();
        while let Some(old) = self.items.pop_front_if(|item| now.since(item.at) > KEPT) {
            self.item_ids.remove(&old.id);
            self.items_gone += 1;
        }
        let id = *blake3::hash(&bytes).as_bytes();
        let number = self.item_ids.get(&id).copied().unwrap_or_else(|| {
            let seen = vec![0; self.nodes.len().div_ceil(64)];
            self.items.push_back(Item { bytes: Rc::new(bytes), probe, id, at: now, seen });
            let number = self.items_gone + self.items.len() as u32 - 1;
            self.item_ids.insert(id, number);
            number
        });
        self.first_time(from, number);
        self.relay(from, number, None);
    }

    fn first_time(&mut self, node: usize, number: u32) -> bool {
        self.item_mut(number).is_some_and(|item| item.see(node))
    }

    fn relay(&mut self, node: usize, number: u32, from: Option<usize>) {
        let overlay = &mut self.nodes[node].overlay;
        let eager: Vec<usize> = overlay.eager.iter().copied().filter(|peer| Some(*peer) != from).collect();
        if !overlay.lazy.is_empty() {
            overlay.named.push(number);
            if overlay.named.len() == 1 {
                let life = self.nodes[node].life;
                self.put_in(COLLECT, Event::Name { node, life });
            }
        }
        for to in eager {
            self.send(node, to, Msg::Eager(number));
        }
    }

    /// The whole message came. What it is for is the caller's, if this is the first time.
    pub(super) fn came(&mut self, node: usize, from: usize, number: u32) -> Option<(Rc<Vec<u8>>, bool)> {
        if self.first_time(node, number) {
            let overlay = &mut self.nodes[node].overlay;
            overlay.missing.remove(&number);
            overlay.set_eager(from);
            self.relay(node, number, Some(from));
            return self.item(number).map(|item| (Rc::clone(&item.bytes), item.probe));
        }
        if self.nodes[node].overlay.set_lazy(from) {
            self.send(node, from, Msg::Prune);
        }
        None
    }

    /// Names what came lately to the lazy neighbours.
    pub(super) fn name(&mut self, node: usize) {
        let overlay = &mut self.nodes[node].overlay;
        let names = Rc::new(std::mem::take(&mut overlay.named));
        let lazy: Vec<usize> = overlay.lazy.iter().copied().collect();
        for to in lazy {
            self.send(node, to, Msg::Have(Rc::clone(&names)));
        }
    }

    pub(super) fn named(&mut self, node: usize, from: usize, numbers: &[u32]) {
        for number in numbers {
            if self.item(*number).is_none_or(|item| item.was_seen(node)) {
                continue;
            }
            let sources = self.nodes[node].overlay.missing.entry(*number).or_default();
            sources.push(from);
            if sources.len() == 1 {
                let life = self.nodes[node].life;
                self.put_in(PATIENCE, Event::Missing { node, life, number: *number, tries: TRIES });
            }
        }
    }

    pub(super) fn missing(&mut self, node: usize, number: u32, tries: u32) {
        let seen = self.item(number).is_none_or(|item| item.was_seen(node));
        let overlay = &mut self.nodes[node].overlay;
        if seen || tries == 0 {
            overlay.missing.remove(&number);
            return;
        }
        let Some(sources) = overlay.missing.get_mut(&number).filter(|sources| !sources.is_empty()) else { return };
        let from = sources[tries as usize % sources.len()];
        overlay.set_eager(from);
        self.send(node, from, Msg::Graft(number));
        let life = self.nodes[node].life;
        let wait = Millis(PATIENCE.0 * 2);
        self.put_in(wait, Event::Missing { node, life, number, tries: tries - 1 });
    }

    pub(super) fn grafted(&mut self, node: usize, from: usize, number: u32) {
        self.nodes[node].overlay.set_eager(from);
        if self.item(number).is_some() {
            self.send(node, from, Msg::Eager(number));
        }
    }

    pub(super) fn pruned(&mut self, node: usize, from: usize) {
        self.nodes[node].overlay.set_lazy(from);
    }

    /// Looks for neighbours: among the linked, or by dialling a random member.
    pub(super) fn neighbours(&mut self, node: usize) {
        if self.nodes[node].overlay.len() >= WANTED {
            return;
        }
        for _ in 0..4 {
            let peer = self.rng.random_range(0..self.nodes.len());
            let known = self.nodes[node].is_member(peer) && peer != node;
            if !known || self.nodes[peer].overlay.len() >= MOST || self.nodes[node].overlay.has(peer) {
                continue;
            }
            if self.linked(node, peer) {
                self.nodes[node].overlay.eager.insert(peer);
                self.nodes[peer].overlay.eager.insert(node);
            } else {
                self.dial(node, peer);
            }
        }
        let linked: Vec<usize> = self.nodes[node].links.keys().copied().collect();
        for peer in linked {
            let few = self.nodes[node].overlay.len() < WANTED && self.nodes[peer].overlay.len() < MOST;
            // Not those that are linked for being watched: their ring is no good tree.
            let other = !self.nodes[node].watched.contains(&peer) && !self.nodes[peer].watched.contains(&node);
            if few && other && !self.nodes[node].overlay.has(peer) && self.linked(node, peer) {
                self.nodes[node].overlay.eager.insert(peer);
                self.nodes[peer].overlay.eager.insert(node);
            }
        }
    }

    /// Both ends have the same connection.
    pub(super) fn linked(&self, a: usize, b: usize) -> bool {
        let end = |a: usize, b: usize| self.nodes[a].links.get(&b).map(|conn| conn.id);
        self.reachable(a, b) && end(a, b).is_some() && end(a, b) == end(b, a)
    }
}
