//! Directories wired to each other, and members to fill them; must not decide anything.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_proto::{codec, directory::*, identity::*, record::*, time::*};

use super::support::*;

/// Directories that speak to each other at once; links can be cut.
pub struct Net {
    pub now: u64,
    pub nodes: BTreeMap<NodeId, Directory>,
    pub queue: VecDeque<(NodeId, NodeId, Vec<u8>)>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub seen: Vec<(NodeId, Effect)>,
    pub bytes: usize,
    pub frames: usize,
    pub largest: usize,
}

impl Net {
    pub fn new(ids: &[NodeId]) -> Self {
        let directory =
            |(seed, id): (u64, &NodeId)| (*id, Directory::new(*id, Revocations::new(mesh()), seed, Millis(0)));
        Self {
            now: 0,
            nodes: (1..).zip(ids).map(directory).collect(),
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            seen: Vec::new(),
            bytes: 0,
            frames: 0,
            largest: 0,
        }
    }

    pub fn tell(&mut self, node: NodeId, input: Input) {
        self.nodes.get_mut(&node).unwrap().handle(input, at(self.now));
        self.drain(node);
    }

    pub fn drain(&mut self, node: NodeId) {
        while let Some(effect) = self.nodes.get_mut(&node).unwrap().poll_effect() {
            if let Effect::Send { to, frame } = &effect {
                let bytes = codec::encode(frame).unwrap();
                self.bytes += bytes.len();
                self.frames += 1;
                self.largest = self.largest.max(bytes.len());
                if !self.cut.contains(&(node, *to)) && self.nodes.contains_key(to) {
                    self.queue.push_back((node, *to, bytes));
                }
            } else {
                self.seen.push((node, effect));
            }
        }
    }

    pub fn settle(&mut self) {
        while let Some((from, to, bytes)) = self.queue.pop_front() {
            self.tell(to, Input::Frame { from, bytes });
        }
    }

    pub fn link(&mut self, a: NodeId, b: NodeId) {
        self.tell(a, Input::LinkUp(b));
        self.tell(b, Input::LinkUp(a));
        self.settle();
    }

    pub fn link_all(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for a in &ids {
            for b in ids.iter().filter(|b| a < *b) {
                self.link(*a, *b);
            }
        }
    }

    pub fn run_until(&mut self, end: u64) {
        loop {
            let next = self.nodes.iter().map(|(id, node)| (node.next_wakeup(), *id)).min().unwrap();
            if next.0.0 > end {
                break;
            }
            self.now = self.now.max(next.0.0);
            self.tell(next.1, Input::Wake);
            self.settle();
        }
        self.now = end;
    }

    pub fn views(&self) -> BTreeSet<Vec<(NodeId, Version)>> {
        let view = |node: &Directory| node.iter().map(|(id, entry)| (*id, entry.record.version)).collect();
        self.nodes.values().map(view).collect()
    }
}

/// Members with their keys and certificates.
pub fn members(count: u64) -> Vec<(NodeKey, CertChain)> {
    let mut desk = founder();
    let mut all = vec![(key(0), desk.chain().clone())];
    all.extend((1..count).map(|number| (key(number), server(&mut desk, &key(number)))));
    all
}

pub fn ids(members: &[(NodeKey, CertChain)]) -> Vec<NodeId> {
    members.iter().map(|(key, _)| key.id()).collect()
}

pub fn lasting(key: &NodeKey, chain: &CertChain, sequence: u64, now: u64) -> Signed<Record> {
    let record = Record { lifetime: Record::MAX_LIFETIME, ..bare(key, chain, sequence, at(now)) };
    Signed::sign(&record, key).unwrap()
}
