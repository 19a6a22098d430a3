//! The detector as a machine: inputs in, effects out; must not know sockets or clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Config, Death, Doubt, Health, ProbeFrame, peer::Peer};
use crate::{dice::Dice, identity::NodeId, time::Millis};

/// What the detector is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A member's record says that it is there, in this life. New ones are probed. Call it for each newer
    /// record: a later life revives the dead into suspects.
    Watch {
        /// Who.
        node: NodeId,
        /// Its record's incarnation.
        incarnation: u64,
    },
    /// The same of a member that is not watched. Clears it of what it was accused of in an earlier life.
    Said {
        /// Who.
        node: NodeId,
        /// Its record's incarnation.
        incarnation: u64,
    },
    /// It is not watched any more.
    Forget(NodeId),
    /// Anything came from it, by its own connection: bytes, a pong, QUIC's acknowledgement of a keep-alive.
    Heard(NodeId),
    /// Its last connection closed without a goodbye.
    Closed(NodeId),
    /// A probe could not be sent, or the dial for it failed.
    ProbeFailed(NodeId),
    /// A probe frame from a member. Counts as heard, too. Accusations of those who have no record that stands are to
    /// be dropped before.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// What.
        frame: ProbeFrame,
    },
    /// This node goes on under a higher incarnation for another reason than [`Effect::Refute`]. Without knowing, it
    /// would neither refute what it is accused of nor say goodbye to the life it leads.
    Outran {
        /// The new one.
        incarnation: u64,
    },
    /// The time of [`Suspicion::next_wakeup`] has come.
    Wake,
}

impl Input {
    /// The peers that it can change something for.
    fn about(&self) -> [Option<NodeId>; 2] {
        match *self {
            Self::Watch { node, .. } | Self::Said { node, .. } => [Some(node), None],
            Self::Forget(node) | Self::Heard(node) | Self::Closed(node) | Self::ProbeFailed(node) => [Some(node), None],
            Self::Frame { from, frame } => match frame {
                ProbeFrame::Ask(node) | ProbeFrame::Vouch(node) | ProbeFrame::Accuse { node, .. } => {
                    [Some(from), Some(node)]
                }
                ProbeFrame::Ping(_) | ProbeFrame::Pong(_) | ProbeFrame::Leave { .. } => [Some(from), None],
            },
            Self::Outran { .. } | Self::Wake => [None, None],
        }
    }
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame; where there is no connection, dial (1.5 s at most), and say [`Input::ProbeFailed`] if it fails.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: ProbeFrame,
    },
    /// A peer's state changed. The dead are told to the directory ([`crate::directory::Input::Dead`]) unless the
    /// cause is [`Death::Unreachable`]: then others hear it, and its record stands without being routed to.
    Changed {
        /// Whose.
        node: NodeId,
        /// The life it is about.
        incarnation: u64,
        /// To what.
        health: Health,
    },
    /// Send [`ProbeFrame::Accuse`] to all linked peers (where not everybody watches everybody, by gossip). Only
    /// makes them look for themselves.
    Declare {
        /// Who.
        node: NodeId,
        /// Which life.
        incarnation: u64,
    },
    /// This node is called dead: publish a record of this incarnation.
    Refute {
        /// One above the accused one.
        incarnation: u64,
    },
}

/// One node's failure detector.
#[derive(Debug)]
pub struct Suspicion {
    pub(super) me: NodeId,
    pub(super) incarnation: u64,
    pub(super) config: Config,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// When something is due for each peer, or before that; and the same in that order. In a mesh that falls apart a
    /// thousand are looked at, and each thing that is heard concerns one or two.
    dues: BTreeMap<NodeId, Millis>,
    agenda: BTreeSet<(Millis, NodeId)>,
    /// Who asked about whom, and until when the word is of use.
    pub(super) asked: BTreeMap<NodeId, BTreeMap<NodeId, Millis>>,
    pub(super) refuted: Option<Millis>,
    promised: Option<Millis>,
    nonce: u64,
    pub(super) dice: Dice,
    pub(super) effects: VecDeque<Effect>,
}

impl Suspicion {
    /// The detector of `me` in this life of it.
    pub fn new(me: NodeId, incarnation: u64, config: Config, seed: u64) -> Self {
        Self {
            me,
            incarnation,
            config,
            peers: BTreeMap::new(),
            dues: BTreeMap::new(),
            agenda: BTreeSet::new(),
            asked: BTreeMap::new(),
            refuted: None,
            promised: None,
            nonce: 0,
            dice: Dice::new(seed),
            effects: VecDeque::new(),
        }
    }

    /// A peer's state; `None`: not watched.
    pub fn health(&self, node: &NodeId) -> Option<Health> {
        self.peers.get(node).map(|peer| peer.health)
    }

    /// All that are watched or lately were.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, Health)> {
        self.peers.iter().map(|(node, peer)| (node, peer.health))
    }

    /// What this node says when it goes.
    pub fn farewell(&self) -> ProbeFrame {
        ProbeFrame::Leave { incarnation: self.incarnation }
    }

    /// This node's present life.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The next thing to do; `None` until the next input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to be woken; `None`: nobody is watched.
    pub fn next_wakeup(&self) -> Option<Millis> {
        self.promised
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now: Millis) {
        self.own_stall(now);
        let about = input.about();
        match input {
            Input::Watch { node, incarnation } => self.watch(node, incarnation, now),
            Input::Said { node, incarnation } => self.said(node, incarnation),
            Input::Forget(node) => {
                self.peers.remove(&node);
            }
            Input::Heard(node) => self.heard(node, now),
            Input::Closed(node) => self.doubt(node, Doubt::Closed, now),
            Input::ProbeFailed(node) => self.doubt(node, Doubt::ProbeFailed, now),
            Input::Frame { from, frame } => self.frame(from, frame, now),
            Input::Outran { incarnation } => self.incarnation = self.incarnation.max(incarnation),
            Input::Wake => {}
        }
        for node in about.into_iter().flatten() {
            self.note(node);
        }
        let due = self.agenda.iter().take_while(|(at, _)| *at <= now).map(|(_, node)| *node);
        let mut due: Vec<NodeId> = due.filter(|node| self.due_at(node).is_some_and(|at| at <= now)).collect();
        due.sort_unstable();
        for node in due {
            self.step(node, now);
            self.note(node);
        }
        self.promised = self.first_due();
    }

    /// Puts down when something is due for this peer, if that is before what is put down: most that is heard only puts
    /// it off.
    fn note(&mut self, node: NodeId) {
        let (due, held) = (self.due_at(&node), self.dues.get(&node).copied());
        if held.is_none_or(|held| due.is_none_or(|due| due < held)) {
            self.put_down(node, due);
        }
    }

    fn put_down(&mut self, node: NodeId, due: Option<Millis>) {
        if let Some(held) = self.dues.remove(&node) {
            self.agenda.remove(&(held, node));
        }
        if let Some(due) = due {
            self.agenda.insert((due, node));
            self.dues.insert(node, due);
        }
    }

    /// When something is due for any peer. Puts down anew what was put off meanwhile.
    fn first_due(&mut self) -> Option<Millis> {
        loop {
            let (at, node) = *self.agenda.first()?;
            let due = self.due_at(&node);
            if due == Some(at) {
                return due;
            }
            self.put_down(node, due);
        }
    }

    fn due_at(&self, node: &NodeId) -> Option<Millis> {
        self.peers.get(node).map(|peer| self.due(peer))
    }

    /// Woken late, the node itself was not there (stopped, asleep, starved): its silence is not the others'.
    fn own_stall(&mut self, now: Millis) {
        let Some(late) = self.promised.map(|promised| now.since(promised)) else { return };
        if late <= self.config.own_stall {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.heard = (peer.heard + late).min(now).max(peer.heard);
            peer.vouched = peer.vouched.map(|until| until + late);
        }
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|node| self.note(node));
    }

    pub(super) fn doubt(&mut self, node: NodeId, why: Doubt, now: Millis) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.health != Health::Alive {
            if let Health::Suspect { why: held, .. } = &mut peer.health
                && why == Doubt::Closed
            {
                *held = why;
            }
            return;
        }
        peer.health = Health::Suspect { why, vouched: false };
        self.changed(node);
        self.probe(node, now);
        self.ask(node, now);
    }

    pub(super) fn probe(&mut self, node: NodeId, now: Millis) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.probed = now;
            self.ping(node);
        }
    }

    pub(super) fn ping(&mut self, node: NodeId) {
        self.nonce = self.nonce.wrapping_add(1);
        self.effects.push_back(Effect::Send { to: node, frame: ProbeFrame::Ping(self.nonce) });
    }

    /// Asks some that are alive.
    pub(super) fn ask(&mut self, node: NodeId, now: Millis) {
        let mut alive: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(other, peer)| **other != node && peer.health == Health::Alive)
            .map(|(other, _)| *other)
            .collect();
        let mut helpers = BTreeSet::new();
        while helpers.len() < self.config.helpers && !alive.is_empty() {
            helpers.insert(alive.swap_remove(self.dice.below(alive.len())));
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.asked = Some(now);
        }
        self.effects.extend(helpers.into_iter().map(|to| Effect::Send { to, frame: ProbeFrame::Ask(node) }));
    }

    /// When something about this peer is to be done next.
    fn due(&self, peer: &Peer) -> Millis {
        let c = &self.config;
        match peer.health {
            Health::Alive => {
                let probe = (peer.heard + c.probe_every).max(peer.probed + c.probe_every);
                probe.min(peer.heard + c.suspect_after)
            }
            Health::Suspect { .. } => {
                let ask = peer.asked.map_or(peer.heard + c.suspect_after, |at| at + c.ask_every);
                (peer.probed + c.probe_every).min(ask).min(self.verdict(peer))
            }
            Health::Dead { .. } | Health::Left => peer.ended.unwrap_or_default() + c.forget_after,
        }
    }

    /// When a suspected peer is dead, as things stand.
    fn verdict(&self, peer: &Peer) -> Millis {
        let silent = peer.heard + peer.patience;
        let vouched = peer.vouched.map_or(silent, |until| until.max(silent));
        vouched.min(silent + self.config.vouched_at_most)
    }

    fn step(&mut self, node: NodeId, now: Millis) {
        let c = self.config.clone();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match peer.health {
            Health::Alive if now.since(peer.heard) >= c.suspect_after => self.doubt(node, Doubt::Silent, now),
            Health::Alive => self.probe(node, now),
            Health::Suspect { why, .. } => {
                let (asked, probed, heard) = (peer.asked, peer.probed, peer.heard);
                let peer = peer.clone();
                if self.verdict(&peer) <= now {
                    return self.declare(node, why, peer.vouched.is_some_and(|until| until > now), now);
                }
                if asked.map_or(heard + c.suspect_after, |at| at + c.ask_every) <= now {
                    self.ask(node, now);
                }
                if probed + c.probe_every <= now {
                    self.probe(node, now);
                }
            }
            Health::Dead { .. } | Health::Left => {
                self.peers.remove(&node);
            }
        }
    }

    fn declare(&mut self, node: NodeId, doubt: Doubt, vouched: bool, now: Millis) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let why = match doubt {
            _ if vouched => Death::Unreachable,
            Doubt::Closed => Death::Closed,
            _ => Death::Silent,
        };
        (peer.health, peer.ended) = (Health::Dead { why }, Some(now));
        let (incarnation, accused) = (peer.incarnation, peer.accused);
        self.changed(node);
        // Who only looked because all were told need not tell all: a death would cost as many broadcasts as nodes.
        if !accused {
            self.effects.push_back(Effect::Declare { node, incarnation });
        }
    }

    pub(super) fn changed(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get(&node) {
            let (incarnation, health) = (peer.incarnation, peer.health);
            self.effects.push_back(Effect::Changed { node, incarnation, health });
        }
    }
}
