//! The directory as a machine: inputs in, effects out; must not know sockets or clocks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{Aged, Announce, Believed, Effect, Entry, Gone, Input, Judge, budget::Budget, reach::Doors, store::Store};
use crate::{
    codec::{self, CodecError, Ext},
    dice::Dice,
    identity::{NodeId, RevocationList, Revocations, Signed},
    record::{Checker, RecordRefusal, Version},
    time::{Millis, Now},
};

/// Most nodes. The mesh is built for 10,000; a record in memory takes some 3 KiB.
pub const MAX_NODES: usize = 16_384;
/// Between two rounds of anti-entropy, give or take a quarter. Default 2 s, from the prototype. Cost: 30 bytes a
/// round while all is equal; what gossip loses arrives so much later, times the logarithm of the nodes.
pub const ROUND: Millis = Millis(2000);
/// Each so-manieth round a fallen or not linked node is tried instead, so that halves of a mesh find each
/// other. Default 3, from the prototype. Cost: one dial to a dead node every 6 s.
pub const REACH_EVERY: u64 = 3;
/// When a peer has more to send. Guess: above a LAN's round trip.
const AGAIN: Millis = Millis(50);
/// Between two rounds of anti-entropy that new links open, and how many may be opened at once. Guess: a round's frames go
/// back and forth in a quarter of a second. When a cut heals, a node gets some ten links a second, and would be sent by
/// each, and send to each, what the first one brought.
const ASK_PAUSE: Millis = Millis(250);
const ASK_BURST: u64 = 4;
/// What one peer may make this node send: 1 MiB/s, bursts of 2 MiB. Guess: a joiner of a mesh of 10,000 (7 MB)
/// is whole in 6 s. Cost: that much upstream, at most, for each linked peer that floods.
const SEND_BUDGET: (u64, u64) = (1 << 20, 2 << 20);
/// What one peer may make this node read and check; a record is charged [`RECORD_CHARGE`] on top of its bytes.
const READ_BUDGET: (u64, u64) = (4 << 20, 8 << 20);
/// After so long both budgets are full again, and a lost link's are forgotten.
const REST: Millis = Millis(2000);
/// For a signature check, 50 to 120 µs: with the budget above a flooding member takes half a core at most.
const RECORD_CHARGE: u64 = 1024;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) send: Budget,
    pub(super) read: Budget,
}

/// One node's view of the mesh.
#[derive(Debug)]
pub struct Directory<J = Checker> {
    pub(super) me: NodeId,
    pub(super) store: Store<J>,
    pub(super) links: BTreeMap<NodeId, Link>,
    resting: BTreeMap<NodeId, (Millis, Link)>,
    pub(super) effects: VecDeque<Effect>,
    refused: BTreeMap<&'static str, u64>,
    pub(super) dice: Dice,
    round: u64,
    next_round: Millis,
    pub(super) again: Option<(Millis, NodeId)>,
    /// Another of the fallen is tried then, since one of them was reached.
    pub(super) reach_at: Option<Millis>,
    /// When one of the fallen was last tried since it stands at a peer.
    pub(super) looked: Option<Millis>,
    pub(super) doors: Doors,
    /// New links that wait for their first round.
    unasked: VecDeque<NodeId>,
    /// When those that were begun would be over, one after the other.
    asked_until: Millis,
    /// When somebody's unsigned word on this node was last followed.
    pub(super) outran: Option<Millis>,
}

impl Directory {
    /// An empty directory of the node `me`, with the revocations it knows from its disk.
    pub fn new(me: NodeId, revocations: Revocations, seed: u64, now: Millis) -> Self {
        Self::with_judge(me, revocations, Checker::default(), seed, now)
    }
}

impl<J: Judge> Directory<J> {
    /// The same with a judge of the caller's.
    pub fn with_judge(me: NodeId, revocations: Revocations, judge: J, seed: u64, now: Millis) -> Self {
        let mut dice = Dice::new(seed);
        let first = now + Millis(dice.below(ROUND.0 as usize) as u64);
        Self {
            me,
            store: Store::new(me, revocations, judge),
            links: BTreeMap::new(),
            resting: BTreeMap::new(),
            effects: VecDeque::new(),
            refused: BTreeMap::new(),
            dice,
            round: 0,
            next_round: first,
            again: None,
            reach_at: None,
            looked: None,
            doors: Doors::default(),
            unasked: VecDeque::new(),
            asked_until: Millis(0),
            outran: None,
        }
    }

    /// Puts in records that were judged elsewhere, with their ages, as if they had come in frames: for simulators, whose
    /// nodes share a judge.
    pub(crate) fn fill<'a>(&mut self, records: impl Iterator<Item = (&'a Arc<Believed>, Millis)> + Clone, now: Now) {
        self.store.reserve(records.clone().map(|(body, _)| &body.record.node));
        for (body, age) in records {
            self.store.fill(body, age, now);
        }
    }

    /// A node's record, if one stands.
    pub fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.store.live().get(node)
    }

    /// All records that stand, this node's own too, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.store.live().iter()
    }

    /// How many records stand.
    pub fn len(&self) -> usize {
        self.store.live().len()
    }

    /// Whether none stands.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many nodes are remembered as fallen.
    pub fn tombstones(&self) -> usize {
        self.store.tombs()
    }

    /// The list that counts.
    pub fn revocations(&self) -> &Revocations {
        &self.store.revocations
    }

    /// How often each reason turned something away, by label.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// A node's record with its age, to hand on beside one's own (a loser of an election forwards the winner's).
    pub fn announce(&self, node: &NodeId, now: Millis) -> Option<Announce> {
        self.get(node).map(|entry| Announce { aged: entry.aged(now), ext: Ext::default() })
    }

    /// When to be woken, whatever else happens.
    pub fn next_wakeup(&self) -> Millis {
        let ends = self.store.next_end().unwrap_or(self.next_round);
        let again = self.again.map_or(self.next_round, |(at, _)| at);
        let ask = if self.unasked.is_empty() { self.next_round } else { self.ask_at() };
        let reach = [self.reach_at, self.doors.next()].into_iter().flatten();
        reach.fold(self.next_round.min(ends).min(again).min(ask), Millis::min)
    }

    /// The next thing to do; `None` until the next input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Takes an input. Anything wrong in it is counted under [`Directory::refused`].
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Own(record) => self.publish(record, now),
            Input::Gossip { from, bytes } => self.gossip(from, &bytes, now),
            Input::Frame { from, bytes } => self.frame(from, &bytes, now),
            Input::Known(contacts) => self.know(contacts, now.local),
            Input::LinkUp(node) => self.link_up(node, now.local),
            Input::LinkDown(node) => self.link_down(node, now.local),
            Input::Dead { node, incarnation } => self.ended(node, incarnation, Gone::Dead, now),
            Input::Left { node, incarnation } => self.ended(node, incarnation, Gone::Left, now),
            Input::Revoke { root, list } => self.revoke(root, &list, None, now),
            Input::Wake => {}
        }
        self.wake(now);
    }

    fn wake(&mut self, now: Now) {
        for node in self.store.due(now.local) {
            self.fall(node, Gone::Expired, now);
        }
        if let Some((at, peer)) = self.again
            && at <= now.local
        {
            self.again = None;
            self.ask(peer);
        }
        while self.ask_at() <= now.local
            && let Some(peer) = self.unasked.pop_front()
        {
            if self.links.contains_key(&peer) {
                self.asked_until = self.asked_until.max(now.local) + ASK_PAUSE;
                self.ask(peer);
            }
        }
        if self.reach_at.is_some_and(|at| at <= now.local) {
            self.reach_at = None;
            self.reach(false);
        }
        self.knock(now.local);
        if self.next_round > now.local {
            return;
        }
        self.round += 1;
        let jitter = self.dice.below(ROUND.0 as usize / 2) as u64;
        self.next_round = now.local + Millis(ROUND.0 * 3 / 4 + jitter);
        if self.round.is_multiple_of(REACH_EVERY) && self.reach(true) {
            return;
        }
        let at = self.dice.below(self.links.len());
        if let Some(peer) = self.links.keys().nth(at).copied() {
            self.ask(peer);
        }
    }

    fn link_up(&mut self, node: NodeId, now: Millis) {
        if node == self.me || self.store.revocations.expels(&node) {
            return;
        }
        if self.links.contains_key(&node) {
            return;
        }
        // Who comes back at once finds its budgets as it left them.
        let rested = self.resting.remove(&node).map(|(_, link)| link);
        let link = rested.unwrap_or_else(|| Link {
            send: Budget::new(SEND_BUDGET.0, SEND_BUDGET.1, now),
            read: Budget::new(READ_BUDGET.0, READ_BUDGET.1, now),
        });
        self.links.insert(node, link);
        if self.store.is_lost(&node) {
            self.reached(now);
        }
        // One of the two begins, or each record would cross twice.
        if self.me < node {
            self.unasked.push_back(node);
        }
    }

    /// When the next new link may have its round.
    fn ask_at(&self) -> Millis {
        self.asked_until - Millis(ASK_PAUSE.0 * (ASK_BURST - 1))
    }

    fn link_down(&mut self, node: NodeId, now: Millis) {
        self.resting.retain(|_, (since, _)| now.since(*since) < REST);
        if let Some(link) = self.links.remove(&node) {
            self.resting.insert(node, (now, link));
        }
    }

    fn ended(&mut self, node: NodeId, incarnation: u64, why: Gone, now: Now) {
        if self.get(&node).is_some_and(|entry| entry.record.version.incarnation <= incarnation) {
            self.fall(node, why, now);
        }
    }

    fn publish(&mut self, record: Signed<crate::record::Record>, now: Now) {
        let aged = Aged { age: Millis(0), record };
        let claim = self.store.judge.claim(&aged.record).map_err(RecordRefusal::Codec);
        match claim.and_then(|claim| self.store.insert(claim, &aged, now).map(|()| claim.0)) {
            Ok(node) => {
                self.effects.push_back(Effect::Changed(node));
                self.effects.push_back(Effect::Broadcast(Announce { aged, ext: Ext::default() }));
            }
            Err(refusal) => self.count(refusal.label()),
        }
    }

    fn gossip(&mut self, from: NodeId, bytes: &[u8], now: Now) {
        if !self.affords(from, bytes.len() as u64 + RECORD_CHARGE, now.local) {
            return;
        }
        // Gossip passes on what it cannot judge, so nothing in it is the neighbour's offence.
        let taken = match codec::decode::<Announce>(bytes) {
            Ok(announce) => self.take(&announce.aged, now),
            Err(error) => Err(RecordRefusal::Codec(error)),
        };
        if let Err(refusal) = taken {
            self.count(refusal.label());
        }
    }

    /// Whether the peer is linked and within its budget.
    pub(super) fn affords(&mut self, from: NodeId, charge: u64, now: Millis) -> bool {
        let paid = self.links.get_mut(&from).map(|link| link.read.take(charge, now));
        match paid {
            None => self.count("not_linked"),
            Some(false) => self.count("over_budget"),
            Some(true) => {}
        }
        paid == Some(true)
    }

    /// Takes a record that came over the anti-entropy ALPN, where every peer answers for what it sends.
    pub(super) fn take_from(&mut self, from: NodeId, aged: &Aged, now: Now) {
        if let Some(link) = self.links.get_mut(&from) {
            link.read.owe(RECORD_CHARGE);
        }
        if let Err(refusal) = self.take(aged, now) {
            self.count(refusal.label());
            if refusal.is_offence() {
                self.effects.push_back(Effect::Offence { from, what: refusal.label() });
            }
        }
    }

    fn take(&mut self, aged: &Aged, now: Now) -> Result<(), RecordRefusal> {
        let (node, version) = self.store.judge.claim(&aged.record)?;
        if node == self.me {
            self.own_echo(aged, version);
            return Err(RecordRefusal::Own);
        }
        self.store.insert((node, version), aged, now)?;
        self.effects.push_back(Effect::Changed(node));
        Ok(())
    }

    /// A record of this node, from outside: not to be taken, but to be outrun if it is not older.
    fn own_echo(&mut self, aged: &Aged, version: Version) {
        let own = self.get(&self.me);
        let echo = own.is_some_and(|own| own.signed == aged.record || own.record.version > version);
        if !echo && aged.record.verify(&self.me).is_ok() {
            self.effects.push_back(Effect::Outrun(version));
        }
    }

    /// A frame that cannot be read. Another release's limits are no offence; nonsense is.
    pub(super) fn unreadable(&mut self, from: NodeId, error: CodecError) {
        self.count(error.label());
        let nonsense =
            matches!(error, CodecError::Malformed { .. } | CodecError::Trailing { .. } | CodecError::Empty { .. });
        if nonsense {
            self.effects.push_back(Effect::Offence { from, what: error.label() });
        }
    }

    pub(super) fn count(&mut self, label: &'static str) {
        *self.refused.entry(label).or_insert(0) += 1;
    }

    fn fall(&mut self, node: NodeId, why: Gone, now: Now) {
        if node != self.me && self.store.bury(&node, why, now) {
            self.effects.push_back(Effect::Gone { node, why });
        }
    }

    pub(super) fn revoke(&mut self, root: NodeId, list: &Signed<RevocationList>, from: Option<NodeId>, now: Now) {
        if let Err(refusal) = self.store.revocations.apply(root, list) {
            self.count(refusal.label());
            let forged = !matches!(refusal, crate::identity::RevocationRefusal::Stale { .. });
            if let (true, Some(from)) = (forged, from) {
                self.effects.push_back(Effect::Offence { from, what: refusal.label() });
            }
            return;
        }
        self.effects.push_back(Effect::Revoked);
        let mut expelled = self.store.revoked();
        expelled.extend(self.links.keys().filter(|node| self.store.revocations.expels(node)));
        expelled.sort_unstable();
        expelled.dedup();
        for node in expelled {
            self.fall(node, Gone::Revoked, now);
            self.links.remove(&node);
            self.effects.push_back(Effect::Expel(node));
        }
        self.tell_number(from);
    }

    /// A peer said that there is more.
    pub(super) fn ask_again(&mut self, peer: NodeId, now: Millis) {
        self.again = Some((now + AGAIN, peer));
    }
}
