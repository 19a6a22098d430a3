//! Directory and failure detector together, wired as a node wires them: births, deaths, returns, partitions.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{codec, directory, identity::*, record::*, suspicion, suspicion::ProbeFrame, time::*};
use support::*;

/// A node: the two machines and what it publishes.
struct Node {
    key: NodeKey,
    chain: CertChain,
    directory: directory::Directory,
    suspicion: suspicion::Suspicion,
    version: Version,
    next_record: u64,
}

#[derive(Clone)]
enum Msg {
    Sync(Vec<u8>),
    Gossip(Vec<u8>),
    Probe(ProbeFrame),
}

#[derive(Clone)]
enum Event {
    Deliver { from: NodeId, to: NodeId, msg: Msg },
    Closed { at: NodeId, peer: NodeId },
    ProbeFailed { at: NodeId, peer: NodeId },
    Wake(NodeId),
}

/// QUIC's idle time here.
const IDLE: u64 = 2_000;
const EVERY: u64 = 2_000;

#[derive(Default)]
struct World {
    now: u64,
    nodes: BTreeMap<NodeId, Node>,
    down: BTreeSet<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    links: BTreeSet<(NodeId, NodeId)>,
    queue: BTreeMap<(u64, u64), Event>,
    count: u64,
    gone: Vec<(u64, NodeId, NodeId, directory::Gone)>,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl World {
    /// A mesh of `size` that found together by the first one's ticket.
    fn new(size: u64) -> Self {
        let mut world = Self::default();
        let mut desk = founder();
        for number in 0..size {
            let key = key(number);
            let chain = if number == 0 { desk.chain().clone() } else { server(&mut desk, &key) };
            world.start(key, chain);
        }
        for number in 1..size {
            world.dial(key(number).id(), key(0).id());
        }
        world.run(world.now + 5_000);
        world
    }

    fn start(&mut self, key: NodeKey, chain: CertChain) {
        let (id, life) = (key.id(), DAY.0 + self.now);
        self.down.remove(&id);
        let node = Node {
            directory: directory::Directory::new(id, Revocations::new(mesh()), life, Millis(self.now)),
            suspicion: suspicion::Suspicion::new(id, life, suspicion::Config::default(), life),
            version: Version { incarnation: life, sequence: 0 },
            next_record: self.now,
            key,
            chain,
        };
        self.nodes.insert(id, node);
        self.later(0, Event::Wake(id));
    }

    fn kill(&mut self, id: NodeId) {
        self.down.insert(id);
        self.sever();
    }

    fn reachable(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.contains(&pair(a, b)) && ![a, b].iter().any(|id| self.down.contains(id))
    }

    /// Links that carry nothing any more close after QUIC's idle time.
    fn sever(&mut self) {
        for (a, b) in self.links.clone() {
            if !self.reachable(a, b) {
                self.links.remove(&(a, b));
                self.later(IDLE, Event::Closed { at: a, peer: b });
                self.later(IDLE, Event::Closed { at: b, peer: a });
            }
        }
    }

    fn dial(&mut self, from: NodeId, to: NodeId) -> bool {
        if !self.reachable(from, to) || !self.nodes.contains_key(&to) {
            return false;
        }
        if self.links.insert(pair(from, to)) {
            self.directory(from, directory::Input::LinkUp(to));
            self.directory(to, directory::Input::LinkUp(from));
            self.suspicion(from, suspicion::Input::Heard(to));
            self.suspicion(to, suspicion::Input::Heard(from));
        }
        true
    }

    fn later(&mut self, wait: u64, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + wait, self.count), event);
    }

    fn send(&mut self, from: NodeId, to: NodeId, msg: Msg) {
        if self.links.contains(&pair(from, to)) || self.dial(from, to) {
            self.later(2, Event::Deliver { from, to, msg });
        } else {
            self.later(1_000, Event::ProbeFailed { at: from, peer: to });
        }
    }

    fn directory(&mut self, id: NodeId, input: directory::Input) {
        let now = at(self.now);
        self.nodes.get_mut(&id).unwrap().directory.handle(input, now);
        while let Some(effect) = self.nodes.get_mut(&id).unwrap().directory.poll_effect() {
            match effect {
                directory::Effect::Send { to, frame } => self.send(id, to, Msg::Sync(codec::encode(&frame).unwrap())),
                directory::Effect::Broadcast(announce) => {
                    let bytes = codec::encode(&announce).unwrap();
                    for (a, b) in self.links.clone() {
                        if a == id || b == id {
                            self.send(id, if a == id { b } else { a }, Msg::Gossip(bytes.clone()));
                        }
                    }
                }
                directory::Effect::Changed(node) if node != id => {
                    let incarnation = self.nodes[&id].directory.get(&node).unwrap().record.version.incarnation;
                    self.suspicion(id, suspicion::Input::Watch { node, incarnation });
                }
                directory::Effect::Gone { node, why } => {
                    self.gone.push((self.now, id, node, why));
                    if why == directory::Gone::Expired {
                        self.suspicion(id, suspicion::Input::Forget(node));
                    }
                }
                directory::Effect::Reach(contact) => {
                    self.dial(id, contact.node);
                }
                directory::Effect::Outrun(version) => {
                    let node = self.nodes.get_mut(&id).unwrap();
                    node.version = Version { incarnation: version.incarnation + 1, sequence: 0 };
                    node.next_record = self.now;
                }
                _ => {}
            }
        }
        self.wake_later(id);
    }

    fn suspicion(&mut self, id: NodeId, input: suspicion::Input) {
        let now = Millis(self.now);
        self.nodes.get_mut(&id).unwrap().suspicion.handle(input, now);
        while let Some(effect) = self.nodes.get_mut(&id).unwrap().suspicion.poll_effect() {
            match effect {
                suspicion::Effect::Send { to, frame } => self.send(id, to, Msg::Probe(frame)),
                suspicion::Effect::Changed { node, incarnation, health } => match health {
                    suspicion::Health::Dead { why: suspicion::Death::Silent | suspicion::Death::Closed } => {
                        self.directory(id, directory::Input::Dead { node, incarnation });
                    }
                    suspicion::Health::Left => self.directory(id, directory::Input::Left { node, incarnation }),
                    _ => {}
                },
                suspicion::Effect::Declare { node, incarnation } => {
                    for (a, b) in self.links.clone() {
                        if a == id || b == id {
                            let to = if a == id { b } else { a };
                            self.send(id, to, Msg::Probe(ProbeFrame::Accuse { node, incarnation }));
                        }
                    }
                }
                suspicion::Effect::Refute { incarnation } => {
                    let node = self.nodes.get_mut(&id).unwrap();
                    node.version = Version { incarnation, sequence: 0 };
                    node.next_record = self.now;
                }
            }
        }
        self.wake_later(id);
    }

    fn wake_later(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let next = node.directory.next_wakeup().0.min(node.next_record);
        let next = node.suspicion.next_wakeup().map_or(next, |at| next.min(at.0));
        let wait = next.saturating_sub(self.now);
        self.later(wait, Event::Wake(id));
    }

    fn wake(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.next_record <= self.now {
            let record = bare(&node.key, &node.chain, node.version.sequence, at(self.now));
            let record = Record { version: node.version, ..record };
            node.version.sequence += 1;
            node.next_record = self.now + EVERY;
            let signed = Signed::sign(&record, &node.key).unwrap();
            self.directory(id, directory::Input::Own(signed));
        }
        let now = Millis(self.now);
        if self.nodes[&id].directory.next_wakeup() <= now {
            self.directory(id, directory::Input::Wake);
        }
        if self.nodes[&id].suspicion.next_wakeup().is_some_and(|at| at <= now) {
            self.suspicion(id, suspicion::Input::Wake);
        }
    }

    fn run(&mut self, end: u64) {
        while let Some((&(at, count), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let event = self.queue.remove(&(at, count)).unwrap();
            self.now = self.now.max(at);
            match event {
                Event::Deliver { from, to, msg } if self.reachable(from, to) => match msg {
                    Msg::Sync(bytes) => self.directory(to, directory::Input::Frame { from, bytes }),
                    Msg::Gossip(bytes) => self.directory(to, directory::Input::Gossip { from, bytes }),
                    Msg::Probe(frame) => self.suspicion(to, suspicion::Input::Frame { from, frame }),
                },
                Event::Closed { at, peer } if !self.down.contains(&at) && !self.links.contains(&pair(at, peer)) => {
                    self.directory(at, directory::Input::LinkDown(peer));
                    self.suspicion(at, suspicion::Input::Closed(peer));
                }
                Event::ProbeFailed { at, peer } if !self.down.contains(&at) => {
                    self.suspicion(at, suspicion::Input::ProbeFailed(peer));
                }
                Event::Wake(id) if !self.down.contains(&id) => self.wake(id),
                _ => {}
            }
        }
        self.now = end;
    }

    /// What each running node routes to: records that stand, of nodes that are alive.
    fn views(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let running = self.nodes.iter().filter(|(id, _)| !self.down.contains(id));
        let view = |node: &Node| {
            let alive = |id: &NodeId| node.suspicion.health(id) == Some(suspicion::Health::Alive);
            node.directory.iter().map(|(id, _)| *id).filter(|id| *id == node.key.id() || alive(id)).collect()
        };
        running.map(|(id, node)| (*id, view(node))).collect()
    }

    /// Whether all running nodes see exactly these.
    fn agree(&self, on: &BTreeSet<NodeId>) -> bool {
        self.views().values().all(|view| view == on)
    }
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(|number| key(number).id()).collect()
}

#[test]
fn who_comes_by_one_ticket_soon_knows_all() {
    let world = World::new(6);
    assert!(world.agree(&ids(0..6)), "{:?}", world.views());
    assert!(world.gone.is_empty());
}

#[test]
fn nobody_falls_in_ten_quiet_minutes() {
    let mut world = World::new(4);
    world.run(600_000);
    assert!(world.gone.is_empty() && world.agree(&ids(0..4)), "{:?}", world.gone);
}

#[test]
fn a_killed_node_is_out_of_every_view_within_three_seconds_and_never_comes_back_by_itself() {
    for moment in (7_000..9_000).step_by(170) {
        let mut world = World::new(5);
        world.run(moment);
        world.kill(key(4).id());
        world.run(moment + 3_000);
        assert!(world.agree(&ids(0..4)), "killed at {moment}");
        world.run(moment + 60_000);
        assert!(world.agree(&ids(0..4)));
        assert_eq!(world.gone.len(), 4, "each lost it once: {:?}", world.gone);
    }
}

#[test]
fn a_node_restarted_at_once_is_back_for_all_within_seconds() {
    for pause in [50, 500, 1_900, 2_500, 10_000] {
        let mut world = World::new(4);
        let start = world.now;
        let (id, chain) = (key(3).id(), world.nodes[&key(3).id()].chain.clone());
        world.kill(id);
        world.run(start + pause);
        world.start(key(3), chain);
        world.dial(id, key(1).id());
        world.run(start + pause + 4_000);
        assert!(world.agree(&ids(0..4)), "after {pause} ms: {:?}", world.views());
        world.run(start + pause + 30_000);
        assert!(world.agree(&ids(0..4)), "later, after {pause} ms: {:?}", world.views());
    }
}

#[test]
fn a_partition_of_two_and_three_splits_in_time_and_heals_by_itself() {
    let mut world = World::new(5);
    let start = world.now;
    for (a, b) in (0..2).flat_map(|a| (2..5).map(move |b| (a, b))) {
        world.cut.insert(pair(key(a).id(), key(b).id()));
    }
    world.sever();
    world.run(start + 3_000);
    let views = world.views();
    assert!((0..2).all(|n| views[&key(n).id()] == ids(0..2)), "{views:?}");
    assert!((2..5).all(|n| views[&key(n).id()] == ids(2..5)), "{views:?}");
    world.run(start + 20_000);
    world.cut.clear();
    world.run(start + 30_000);
    assert!(world.agree(&ids(0..5)), "{:?}", world.views());
}

#[test]
fn a_goodbye_is_heard_by_all_at_once() {
    let mut world = World::new(4);
    let id = key(2).id();
    let farewell = world.nodes[&id].suspicion.farewell();
    for other in ids([0, 1, 3]) {
        world.send(id, other, Msg::Probe(farewell));
    }
    let end = world.now + 10;
    world.run(end);
    world.kill(id);
    assert!(world.agree(&ids([0, 1, 3])));
    world.run(end + 60_000);
    assert!(world.agree(&ids([0, 1, 3])));
    assert!(world.gone.iter().all(|(_, _, _, why)| *why == directory::Gone::Left), "{:?}", world.gone);
}
