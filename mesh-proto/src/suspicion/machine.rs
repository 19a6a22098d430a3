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
    /// A probe frame from a member. Counts as heard, too. Accusations of others go through [`ProbeFrame::of_known`] before.
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
    /// The peers by when something is due for each ([`Peer::noted`]). In a mesh that falls apart a thousand are looked at,
    /// and each thing that is heard concerns one or two.
    agenda: BTreeSet<(Millis, NodeId)>,
    /// Who asked about whom, and until when the word is of use.
    pub(super) asked: BTreeMap<NodeId, BTreeMap<NodeId, Millis>>,
    /// When those whose time is over were last taken out of it.
    pub(super) swept: Millis,
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
            agenda: BTreeSet::new(),
            asked: BTreeMap::new(),
            swept: Millis(0),
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
        // In a big mesh most of what is heard comes from those whom others watch.
        if let Input::Heard(node) = input
            && self.promised.is_none_or(|at| at > now)
            && !self.peers.contains_key(&node)
            && !self.asked.contains_key(&node)
        {
            return;
        }
        self.own_stall(now);
        let about = input.about();
        match input {
            Input::Watch { node, incarnation } => self.watch(node, incarnation, now),
            Input::Said { node, incarnation } => self.said(node, incarnation),
            Input::Forget(node) => self.forget(&node),
            Input::Heard(node) => self.heard(node, now),
            Input::Closed(node) => self.doubt(node, Doubt::Closed, now),
            Input::ProbeFailed(node) => self.doubt(node, Doubt::ProbeFailed, now),
            Input::Frame { from, frame } => self.frame(from, frame, now),
            Input::Outran { incarnation } => self.incarnation = self.incarnation.max(incarnation),
            Input::Wake => {}
        }
        for node in about.into_iter().flatten() {
            self.note(&node);
        }
        if self.agenda.first().is_some_and(|(at, _)| *at <= now) {
            self.steps(now);
        }
        self.promised = self.first_due();
    }

    fn steps(&mut self, now: Millis) {
        let due = self.agenda.iter().take_while(|(at, _)| *at <= now).map(|(_, node)| *node);
        let mut due: Vec<NodeId> = due.filter(|node| self.due_at(node).is_some_and(|at| at <= now)).collect();
        due.sort_unstable();
        for node in due {
            self.step(node, now);
            self.note(&node);
        }
    }

    /// Puts down when something is due for this peer, if that is before what is put down: most that is heard only puts
    /// it off.
    fn note(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let due = self.config.due(peer);
        if peer.noted.is_none_or(|held| due < held) {
            if let Some(held) = peer.noted.replace(due) {
                self.agenda.remove(&(held, *node));
            }
            self.agenda.insert((due, *node));
        }
    }

    /// When something is due for any peer. Puts down anew what was put off meanwhile.
    fn first_due(&mut self) -> Option<Millis> {
        loop {
            let &(at, node) = self.agenda.first()?;
            let peer = self.peers.get_mut(&node);
            let due = peer.as_ref().map(|peer| self.config.due(peer));
            if due == Some(at) {
                return due;
            }
            self.agenda.remove(&(at, node));
            if let Some(peer) = peer {
                peer.noted = due;
                self.agenda.extend(due.map(|due| (due, node)));
            }
        }
    }

    /// Puts a peer in, in place of what was known of it.
    pub(super) fn put(&mut self, node: NodeId, mut peer: Peer) {
        peer.noted = self.peers.get(&node).and_then(|old| old.noted);
        self.peers.insert(node, peer);
    }

    pub(super) fn forget(&mut self, node: &NodeId) {
        if let Some(noted) = self.peers.remove(node).and_then(|peer| peer.noted) {
            self.agenda.remove(&(noted, *node));
        }
    }

    fn due_at(&self, node: &NodeId) -> Option<Millis> {
        self.peers.get(node).map(|peer| self.config.due(peer))
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
        peers.iter().for_each(|node| self.note(node));
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

    fn step(&mut self, node: NodeId, now: Millis) {
        let c = self.config.clone();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match peer.health {
            Health::Alive if now.since(peer.heard) >= c.suspect_after => self.doubt(node, Doubt::Silent, now),
            // Who lets itself be called dead for so long, and answers nonetheless, is not waited for.
            Health::Alive if peer.told.is_some() && now.since(peer.ended.unwrap_or_default()) >= c.forget_after => {
                self.forget(&node);
            }
            Health::Alive => self.probe(node, now),
            Health::Suspect { why, .. } => {
                if c.verdict(peer) <= now {
                    let vouched = peer.vouched.is_some_and(|until| until > now);
                    return self.declare(node, why, vouched, now);
                }
                let (ask, probed) = (c.ask_at(peer), peer.probed);
                if ask.is_some_and(|at| at <= now) {
                    self.ask(node, now);
                }
                if probed + c.probe_every <= now {
                    self.probe(node, now);
                }
            }
            Health::Dead { .. } | Health::Left => self.forget(&node),
        }
    }

    fn declare(&mut self, node: NodeId, doubt: Doubt, vouched: bool, now: Millis) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let why = match doubt {
            _ if vouched => Death::Unreachable,
            Doubt::Closed => Death::Closed,
            _ => Death::Silent,
        };
        // Who only looked because all were told need not tell all: a death would cost as many broadcasts as nodes. And who
        // was called dead before, and has no record here since, is dead to all that were told then.
        let silent = peer.accused || peer.told.take().is_some();
        (peer.health, peer.ended) = (Health::Dead { why }, Some(now));
        let incarnation = peer.incarnation;
        self.changed(node);
        if !silent {
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
