//! What the detector makes of what it hears; must not know when anything is due.

use super::{Death, Doubt, Effect, Health, ProbeFrame, Suspicion, peer::Peer};
use crate::{identity::NodeId, time::Millis};

/// Most peers that others wait for this node's word on, and most of those that wait for one; and how many are looked
/// at together because of an accusation.
const MAX_ASKED: usize = 64;
/// Of those, how many this node does not watch, and has to dial: 3 a second at most, whatever a liar asks.
const MAX_STRANGERS: usize = 8;
/// Most that wait for a look because of an accusation: a tenth of the biggest mesh falling at once. 120 bytes each.
const MAX_ACCUSED: usize = 1024;

impl Suspicion {
    pub(super) fn watch(&mut self, node: NodeId, incarnation: u64, now: Millis) {
        if node == self.me {
            return;
        }
        let mut revisit = false;
        if self.outlived(node, incarnation) {
            return;
        }
        let fresh = match self.peers.get_mut(&node) {
            None => true,
            Some(peer) if peer.is_over() => {
                let dead = matches!(peer.health, Health::Dead { .. });
                revisit = dead && now.since(peer.probed) >= self.config.revisit_every;
                incarnation > peer.incarnation
            }
            Some(peer) => {
                (peer.accused, peer.patience) = (false, self.config.dead_after);
                let refuted = incarnation > peer.incarnation;
                if incarnation >= peer.incarnation {
                    (peer.told, peer.ended) = (None, None);
                }
                peer.incarnation = peer.incarnation.max(incarnation);
                // A later life, signed by the node itself, is as good as another's word that it lives.
                if refuted && peer.is_suspect() {
                    peer.vouched = Some(now + self.config.vouch_for);
                }
                false
            }
        };
        if fresh {
            self.put(node, Peer::new(incarnation, self.config.dead_after, now));
            self.changed(node);
        }
        if fresh || revisit {
            self.probe(node, now);
        }
    }

    pub(super) fn heard(&mut self, node: NodeId, now: Millis) {
        if let Some(peer) = self.peers.get_mut(&node) {
            // Who left may still have bytes under way; only a later life brings it back.
            if peer.health == Health::Left {
                return;
            }
            let (was, incarnation) = (peer.health, peer.incarnation);
            (peer.heard, peer.health) = (now, Health::Alive);
            (peer.asked, peer.vouched) = (None, None);
            // Its record fell when it was declared dead, and nobody takes that record again. It cannot know: the
            // accusation was made where it could not hear it. So it hears it now, and begins another life; and again as
            // often as it may answer, until that life is heard of, since a frame can be lost.
            let fell = matches!(was, Health::Dead { why } if why != Death::Unreachable);
            let again = peer.told.is_some_and(|at| now.since(at) >= self.config.refute_every);
            if fell || again {
                (peer.told, peer.accused) = (Some(now), false);
                self.effects.push_back(Effect::Send { to: node, frame: ProbeFrame::Accuse { node, incarnation } });
            }
            let accused = peer.accused;
            if was != Health::Alive {
                self.changed(node);
            }
            if accused {
                self.forget(&node);
            }
        }
        if self.asked.is_empty() {
            return;
        }
        for (asker, until) in self.asked.remove(&node).unwrap_or_default() {
            if until >= now {
                self.effects.push_back(Effect::Send { to: asker, frame: ProbeFrame::Vouch(node) });
            }
        }
    }

    pub(super) fn frame(&mut self, from: NodeId, frame: ProbeFrame, now: Millis) {
        if let ProbeFrame::Leave { incarnation } = frame {
            return self.left(from, incarnation, now);
        }
        self.heard(from, now);
        match frame {
            ProbeFrame::Ping(number) => {
                self.effects.push_back(Effect::Send { to: from, frame: ProbeFrame::Pong(number) });
            }
            ProbeFrame::Ask(node) => self.asked_about(from, node, now),
            ProbeFrame::Vouch(node) => {
                let until = now + self.config.vouch_for;
                let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.is_suspect()) else { return };
                // Only an answer: nobody vouches unasked.
                if node == from || peer.asked.is_none() {
                    return;
                }
                peer.vouched = Some(until);
                if let Health::Suspect { vouched, .. } = &mut peer.health
                    && !*vouched
                {
                    *vouched = true;
                    self.changed(node);
                }
            }
            ProbeFrame::Accuse { node, incarnation } if node == self.me => self.refute(incarnation, now),
            ProbeFrame::Accuse { node, incarnation } => self.accused(node, incarnation, now),
            ProbeFrame::Pong(_) | ProbeFrame::Leave { .. } => {}
        }
    }

    /// Somebody calls it dead: look for oneself.
    fn accused(&mut self, node: NodeId, incarnation: u64, now: Millis) {
        if let Some(peer) = self.peers.get(&node) {
            // What was just heard needs no second look.
            let silent = now.since(peer.heard) >= self.config.probe_every;
            if incarnation >= peer.incarnation && silent {
                self.doubt(node, Doubt::Accused, now);
            }
            return;
        }
        let accused = self.peers.values().filter(|peer| peer.accused && peer.is_suspect()).count();
        if accused >= MAX_ACCUSED {
            return;
        }
        // All members hear an accusation at once. If all looked at once, one lie would make a whole mesh dial one node.
        let c = &self.config;
        let turn = c.second_look.0 * (accused / MAX_ASKED) as u64;
        let wait = c.refutable.0 + turn + self.dice.below(c.look_within.0 as usize) as u64;
        let look = now + Millis(wait);
        let mut peer = Peer::new(incarnation, c.second_look, look);
        (peer.accused, peer.health) = (true, Health::Suspect { why: Doubt::Accused, vouched: false });
        peer.probed = look - c.probe_every;
        self.put(node, peer);
        self.changed(node);
    }

    /// A record of a node that is not watched: a later life than the accused one clears it. And where one of the fallen has
    /// a record that stands again, it lives, whatever life it was accused of, and others watch it.
    pub(super) fn said(&mut self, node: NodeId, incarnation: u64) {
        if self.outlived(node, incarnation) {
            return;
        }
        let Some(peer) = self.peers.get(&node) else { return };
        let cleared = peer.accused && peer.incarnation < incarnation;
        if cleared || peer.is_over() || peer.told.is_some() {
            self.forget(&node);
        }
    }

    /// A goodbye can overtake the record of the life that it ends. So that of who is not watched counts, and a second one of
    /// who left before: in between it was back, and its record, still under way, would bring it back once more.
    fn left(&mut self, node: NodeId, incarnation: u64, now: Millis) {
        if !self.peers.contains_key(&node) {
            self.put(node, Peer::new(incarnation, self.config.dead_after, now));
        }
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let known = incarnation == peer.incarnation && peer.health == Health::Left;
        if incarnation < peer.incarnation || known {
            return;
        }
        (peer.health, peer.ended, peer.incarnation) = (Health::Left, Some(now), incarnation);
        self.changed(node);
    }

    /// Whether a record is of a life that said goodbye: then it is told again that this one is over.
    fn outlived(&mut self, node: NodeId, incarnation: u64) -> bool {
        let left = |peer: &Peer| peer.health == Health::Left && incarnation <= peer.incarnation;
        let outlived = self.peers.get(&node).is_some_and(left);
        if outlived {
            self.changed(node);
        }
        outlived
    }

    /// Somebody wants this node's word: it is given when the peer is next heard, which a probe sees to. Also on one that
    /// is not watched here: in a big mesh nobody whom a node watches watches its first successor, and a node that is
    /// asked in vain is no help against lost messages.
    fn asked_about(&mut self, from: NodeId, node: NodeId, now: Millis) {
        let until = now + self.config.dead_after;
        if from == node || node == self.me || self.peers.get(&node).is_some_and(Peer::is_over) {
            return;
        }
        // Not for each question: when a part of a mesh falls, hundreds come each second.
        let quarter = Millis(self.config.probe_every.0 / 4);
        if now.since(self.swept) >= quarter {
            self.swept = now;
            self.asked.retain(|_, askers| {
                askers.retain(|_, until| *until >= now);
                !askers.is_empty()
            });
        }
        let strange = !self.peers.contains_key(&node);
        if !self.asked.contains_key(&node) {
            let strangers = || self.asked.keys().filter(|asked| !self.peers.contains_key(asked)).count();
            if self.asked.len() >= MAX_ASKED || (strange && strangers() >= MAX_STRANGERS) {
                return;
            }
        }
        let askers = self.asked.entry(node).or_default();
        let last = askers.values().max().copied();
        if askers.len() < MAX_ASKED || askers.contains_key(&from) {
            askers.insert(from, until);
        }
        // One probe serves all who ask within a quarter of the probing interval.
        match self.peers.get(&node) {
            Some(peer) if now.since(peer.probed) >= quarter => self.probe(node, now),
            None if last.is_none_or(|last| until.since(last) >= quarter) => self.ping(node),
            Some(_) | None => {}
        }
    }

    fn refute(&mut self, accused: u64, now: Millis) {
        let late = self.refuted.is_none_or(|at| now.since(at) >= self.config.refute_every);
        // Of earlier lives it is late news. Of lives that never were it is a lie, and those who heard it look for themselves
        // all the same.
        if accused >= self.incarnation && late {
            self.incarnation = self.incarnation.saturating_add(1);
            self.refuted = Some(now);
            self.effects.push_back(Effect::Refute { incarnation: self.incarnation });
        }
    }
}
