//! One node's machines, wired as a node wires them; must not know what must hold.

use std::rc::Rc;

use rand::RngExt;

use super::{Event, World, beginning, node::Msg, warm};
use crate::{
    codec, demand, directory,
    directory::Announce,
    identity::NodeId,
    placement::{self, HostView, StepDown},
    record::Record,
    suspicion::{self, Death, FULL_WATCH, Health, ProbeFrame},
    time::{Millis, Now, UnixMillis},
};

/// A load takes between these, and a step-down's last requests. Unit: milliseconds.
const LOADING: std::ops::Range<u64> = 100..3_000;
const DRAINING: std::ops::Range<u64> = 0..2_000;

impl World {
    pub(super) fn clock(&self, node: usize) -> Now {
        let (node, now) = (&self.nodes[node], self.now());
        Now::new(node.clock.local(now), UnixMillis(node.wall + now.0))
    }

    pub(super) fn find(&self, id: &NodeId) -> Option<usize> {
        self.index.get(&beginning(id)).copied().filter(|node| self.nodes[*node].id == *id)
    }

    pub(super) fn directory(&mut self, at: usize, input: directory::Input) {
        let now = self.clock(at);
        self.nodes[at].own.directory.handle(input, now);
        while let Some(effect) = self.nodes[at].own.directory.poll_effect() {
            match effect {
                // Who asks before the mesh stands would be sent all that it is given a moment later.
                directory::Effect::Send { .. } if self.plan.warm && self.now() < warm::STANDS => {}
                directory::Effect::Send { to, frame } => {
                    if let (Some(to), Ok(bytes)) = (self.find(&to), codec::encode(&frame)) {
                        self.send(at, to, Msg::Sync(Rc::new(bytes)));
                    }
                }
                directory::Effect::Broadcast(announce) => self.announce(at, &announce),
                directory::Effect::Changed(node) => self.changed(at, node),
                directory::Effect::Gone { node, why } => self.gone(at, node, why),
                directory::Effect::Expel(node) => {
                    self.suspicion(at, suspicion::Input::Forget(node));
                    if let Some(peer) = self.find(&node) {
                        self.close(at, peer);
                    }
                }
                directory::Effect::Reach(contact) => {
                    if let Some(peer) = self.find(&contact.node) {
                        self.dial(at, peer);
                    }
                }
                directory::Effect::Outrun(version) => {
                    self.trace.note(self.agenda.now(), at, "outrun", version.incarnation);
                    let incarnation = version.incarnation.saturating_add(1);
                    self.rise(at, incarnation);
                    self.suspicion(at, suspicion::Input::Outran { incarnation });
                }
                directory::Effect::Offence { from, what } => {
                    if let Some(by) = self.find(&from) {
                        self.offended(at, by, what);
                    }
                }
                directory::Effect::Revoked => {}
            }
        }
    }

    /// The node goes on under a higher incarnation.
    fn rise(&mut self, at: usize, incarnation: u64) {
        let node = &mut self.nodes[at];
        if incarnation > node.version.incarnation {
            node.version = crate::record::Version { incarnation, sequence: 0 };
            node.dirty = true;
        }
    }

    /// Up to [`FULL_WATCH`] straight to everybody, above that by gossip.
    fn announce(&mut self, at: usize, announce: &Announce) {
        let Ok(bytes) = codec::encode(announce) else { return };
        if self.nodes[at].own.directory.len() <= FULL_WATCH {
            let bytes = Rc::new(bytes);
            self.send_all(at, || Msg::Word(Rc::clone(&bytes)));
        } else {
            self.gossip(at, bytes, false);
        }
    }

    fn changed(&mut self, at: usize, id: NodeId) {
        let (Some(node), Some(entry)) = (self.find(&id), self.nodes[at].own.directory.get(&id)) else { return };
        let body = Rc::new(std::sync::Arc::clone(entry.body()));
        let record = &body.record;
        if self.nodes[at].honest() {
            let said = self.nodes[node].said.get(&record.version);
            if !said.is_some_and(|said| said.contains(&body.signed)) {
                self.breaks(format!("node {at} believes a record of node {node} that it never signed"));
            }
            if self.nodes[at].own.directory.revocations().expels(&id) {
                self.breaks(format!("node {at} takes a record of node {node}, which was expelled"));
            }
        }
        let now = self.clock(at).local;
        self.wanted(at, id, record, now);
        let new = self.nodes[at].set_member(node, true);
        if node == at {
            return;
        }
        if self.shares(at, node) {
            self.placement(at, placement::Input::Peer(HostView::of(record)));
        }
        self.watch(at, node, record.version.incarnation, new);
    }

    pub(super) fn wanted(&mut self, at: usize, id: NodeId, record: &Record, now: Millis) {
        let lines: Vec<demand::ModelDemand> = record
            .demand
            .iter()
            .map(|line| demand::ModelDemand {
                model: line.model.clone(),
                millis: u32::try_from(line.requests_per_kilosecond).unwrap_or(u32::MAX),
            })
            .collect();
        self.nodes[at].own.demand.merge(id, &lines, now);
    }

    fn gone(&mut self, at: usize, id: NodeId, why: directory::Gone) {
        let Some(node) = self.find(&id) else { return };
        self.trace.note(self.agenda.now(), at, "gone", node as u64);
        self.nodes[at].set_member(node, false);
        self.nodes[at].own.demand.forget(id);
        self.placement(at, placement::Input::Gone(id));
        if matches!(why, directory::Gone::Expired | directory::Gone::Revoked) {
            self.suspicion(at, suspicion::Input::Forget(id));
        }
        self.unwatch(at, node);
    }

    pub(super) fn suspicion(&mut self, at: usize, input: suspicion::Input) {
        let now = self.clock(at).local;
        self.nodes[at].own.suspicion.handle(input, now);
        while let Some(effect) = self.nodes[at].own.suspicion.poll_effect() {
            match effect {
                suspicion::Effect::Send { to, frame } => {
                    if let Some(to) = self.find(&to) {
                        self.probe(at, to, frame);
                    }
                }
                suspicion::Effect::Changed { node, incarnation, health } => {
                    self.judged(at, node, incarnation, health);
                }
                suspicion::Effect::Declare { node, incarnation } => {
                    let frame = ProbeFrame::Accuse { node, incarnation };
                    let Ok(bytes) = codec::encode(&frame) else { continue };
                    if self.nodes[at].own.directory.len() <= FULL_WATCH {
                        let bytes = Rc::new(bytes);
                        self.send_all(at, || Msg::Probe(Rc::clone(&bytes)));
                    } else {
                        self.gossip(at, bytes, true);
                    }
                }
                suspicion::Effect::Refute { incarnation } => {
                    self.trace.note(self.agenda.now(), at, "refutes", incarnation);
                    self.rise(at, incarnation);
                }
            }
        }
    }

    fn judged(&mut self, at: usize, id: NodeId, incarnation: u64, health: Health) {
        let Some(node) = self.find(&id) else { return };
        match health {
            Health::Dead { why: Death::Unreachable } => self.trace.note(self.agenda.now(), at, "cut off", node as u64),
            Health::Dead { .. } => {
                self.trace.note(self.agenda.now(), at, "declares dead", node as u64);
                self.declared(at, node);
                self.directory(at, directory::Input::Dead { node: id, incarnation });
            }
            Health::Left => self.directory(at, directory::Input::Left { node: id, incarnation }),
            Health::Alive | Health::Suspect { .. } => {}
        }
    }

    pub(super) fn placement(&mut self, at: usize, input: placement::Input) {
        let now = self.clock(at).local;
        self.nodes[at].own.placement.handle(input, now);
        let life = self.nodes[at].life;
        while let Some(effect) = self.nodes[at].own.placement.poll_effect() {
            match effect {
                placement::Effect::Announce => self.nodes[at].dirty = true,
                placement::Effect::Load(model) => {
                    self.nodes[at].loading.insert(model);
                    let well = self.rng.random_range(0..1000) >= self.plan.failing;
                    let wait = Millis(self.rng.random_range(LOADING));
                    self.put_in(wait, Event::Loaded { node: at, life, model, well });
                }
                placement::Effect::StepDown { lease, why } => {
                    self.trace.note(self.agenda.now(), at, "steps down", lease.claim.term.0);
                    let wait = Millis(self.rng.random_range(DRAINING));
                    self.put_in(wait, Event::Drained { node: at, life, model: lease.model });
                    if let StepDown::Lost { winner } = why {
                        let now = self.clock(at).local;
                        if let Some(word) = self.nodes[at].own.directory.announce(&winner.node, now) {
                            self.announce(at, &word);
                        }
                    }
                }
                placement::Effect::Unload(_) => {}
            }
        }
    }

    /// A message came.
    pub(super) fn hear(&mut self, at: usize, from: usize, msg: Msg) {
        let id = self.nodes[from].id;
        if let Msg::Probe(bytes) = &msg {
            return self.probed(at, id, bytes);
        }
        self.suspicion(at, suspicion::Input::Heard(id));
        match msg {
            Msg::Sync(bytes) => {
                self.directory(at, directory::Input::Frame { from: id, bytes: bytes.to_vec() });
            }
            Msg::Word(bytes) => self.word(at, id, &bytes, false),
            Msg::Eager(number) => {
                if let Some((bytes, probe)) = self.came(at, from, number) {
                    self.word(at, id, &bytes, probe);
                }
            }
            Msg::Have(numbers) => self.named(at, from, &numbers),
            Msg::Graft(number) => self.grafted(at, from, number),
            Msg::Prune => self.pruned(at, from),
            Msg::Probe(_) => {}
        }
    }

    fn word(&mut self, at: usize, from: NodeId, bytes: &[u8], probe: bool) {
        if !probe {
            self.directory(at, directory::Input::Gossip { from, bytes: bytes.to_vec() });
        } else {
            self.probed(at, from, bytes);
        }
    }

    /// A frame of the failure detector's. Who is accused and no member is not its concern.
    fn probed(&mut self, at: usize, from: NodeId, bytes: &[u8]) {
        let Ok(frame) = codec::decode::<ProbeFrame>(bytes) else { return };
        let own = &self.nodes[at];
        let frame = match frame {
            ProbeFrame::Accuse { node, .. } if node == own.id => Some(frame),
            _ => frame.of_known(|node| own.own.directory.get(node).map(|entry| entry.record.version.incarnation)),
        };
        let input = frame.map_or(suspicion::Input::Heard(from), |frame| suspicion::Input::Frame { from, frame });
        self.suspicion(at, input);
    }

    /// The node's alarm: whatever is due.
    pub(super) fn wake(&mut self, at: usize) {
        let local = self.clock(at).local;
        if self.nodes[at].own.directory.next_wakeup() <= local {
            self.directory(at, directory::Input::Wake);
        }
        if self.nodes[at].own.suspicion.next_wakeup().is_some_and(|due| due <= local) {
            self.suspicion(at, suspicion::Input::Wake);
        }
        if self.nodes[at].own.placement.next_wakeup().is_some_and(|due| due <= local) {
            self.placement(at, placement::Input::Wake);
        }
        if self.nodes[at].next_record <= local {
            self.nodes[at].dirty = true;
        }
    }

    /// After anything that touched the node: publishes what changed, and sets the alarm.
    pub(super) fn finish(&mut self, at: usize) {
        if !self.nodes[at].up {
            return;
        }
        // What is published can change what the own machines know, but not for ever.
        for _ in 0..3 {
            if self.nodes[at].dirty {
                self.publish(at);
            }
        }
        let now = self.now();
        let node = &mut self.nodes[at];
        let mut next = node.own.directory.next_wakeup().min(node.next_record);
        for due in [node.own.suspicion.next_wakeup(), node.own.placement.next_wakeup()].into_iter().flatten() {
            next = next.min(due);
        }
        let wake = node.clock.world(next).max(now + Millis(1));
        if node.wake.is_none_or(|held| held > wake || held <= now) {
            let life = node.life;
            node.wake = Some(wake);
            self.agenda.put(wake, Event::Wake { node: at, life });
        }
    }
}
