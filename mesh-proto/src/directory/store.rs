//! The map itself: records that stand, tombstones of those that fell; must not know peers or frames.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Aged, Believed, Entry, Item, Judge, MAX_NODES, Range, RangeDigest,
    live::Live,
    range::{Sums, digest},
};
use crate::{
    identity::{Contact, NodeId, Revocations, SKEW},
    record::{RecordRefusal, Version},
    time::{Millis, Now, UnixMillis},
};

/// Most tombstones (some 200 bytes each); beyond that the ones that end first are dropped.
const MAX_TOMBS: usize = 65_536;
/// Most tombstones that keep an address to try.
const MAX_CONTACTS: usize = 256;

/// Why a record does not stand any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// It said goodbye.
    Left,
    /// The failure detector declares it dead.
    Dead,
    /// No newer record came in its lifetime, or its certificate ended.
    Expired,
    /// The founder took its membership back.
    Revoked,
}

#[derive(Clone, Debug)]
struct Tomb {
    version: Version,
    /// What a record of that version adds to the sums of those where it stands.
    term: u128,
    since: Millis,
    /// No record with the certificate of the last one is believed after this.
    until: UnixMillis,
    contact: Option<Contact>,
}

#[derive(Debug)]
pub(super) struct Store<J> {
    me: NodeId,
    live: Live,
    sums: Sums,
    /// No record ends before this. Found anew when it has passed: renewals move it far ahead.
    first_end: Option<Millis>,
    tombs: BTreeMap<NodeId, Tomb>,
    /// How many of them keep an address.
    contacts: usize,
    /// None of them ends before this. Found anew when it has passed: a mesh that falls apart buries hundreds a second.
    first_over: UnixMillis,
    pub(super) judge: J,
    pub(super) revocations: Revocations,
}

impl<J: Judge> Store<J> {
    pub(super) fn new(me: NodeId, revocations: Revocations, judge: J) -> Self {
        Self {
            me,
            live: Live::default(),
            sums: Sums::default(),
            first_end: None,
            tombs: BTreeMap::new(),
            contacts: 0,
            first_over: UnixMillis(u64::MAX),
            judge,
            revocations,
        }
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    pub(super) fn tombs(&self) -> usize {
        self.tombs.len()
    }

    /// The newest version known, standing or fallen.
    pub(super) fn version(&self, node: &NodeId) -> Option<Version> {
        let live = self.live.get(node).map(|entry| entry.record.version);
        live.max(self.tombs.get(node).map(|tomb| tomb.version))
    }

    /// Takes a record that claims to be this node's in this version, if it is believed and newer.
    pub(super) fn insert(
        &mut self,
        (node, version): (NodeId, Version),
        aged: &Aged,
        now: Now,
    ) -> Result<(), RecordRefusal> {
        if let Some(known) = self.version(&node) {
            let equal = version == known && self.live.get(&node).is_some_and(|e| e.signed != aged.record);
            // A replay is turned away before it costs a signature check; a second word of one version is not.
            if version < known || (version == known && !equal) {
                return Err(RecordRefusal::Stale);
            }
            if equal {
                self.judge.judge(&aged.record, &self.revocations, now.unix)?;
                return Err(RecordRefusal::Equivocation);
            }
        }
        if self.live.len() >= MAX_NODES && self.live.get(&node).is_none() {
            return Err(RecordRefusal::Full);
        }
        let body = self.judge.judge(&aged.record, &self.revocations, now.unix)?;
        let record = &body.record;
        // Nobody can make a record younger than its own date allows.
        let age = aged.age.max(now.unix.since(record.issued_at.after(SKEW)));
        if age >= record.lifetime {
            return Err(RecordRefusal::Expired);
        }
        if let Some(tomb) = self.tombs.get_mut(&node)
            && version.incarnation == tomb.version.incarnation
            && now.local.since(tomb.since) <= age
        {
            // Said before it fell, heard after: the fence moves, the dead stay dead. A later start is another life.
            (tomb.version, tomb.term) = (version, body.term);
            tomb.until = tomb.until.max(body.cert.not_after.after(SKEW));
            return Err(RecordRefusal::Stale);
        }
        self.unbury(&node);
        let until = Self::end(&body, age, now);
        self.stand(Entry::new(body, age, now.local, until));
        Ok(())
    }

    pub(super) fn reserve<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId>) {
        self.live.reserve(nodes);
    }

    /// Takes a record that was judged, if it is newer.
    pub(super) fn fill(&mut self, body: &Arc<Believed>, age: Millis, now: Now) {
        let (node, version) = (&body.record.node, body.record.version);
        if self.version(node).is_none_or(|known| known < version) {
            let until = Self::end(body, age, now);
            self.stand(Entry::new(Arc::clone(body), age, now.local, until));
        }
    }

    fn end(body: &Believed, age: Millis, now: Now) -> Millis {
        let member = body.cert.not_after.after(SKEW).since(now.unix);
        now.local + (body.record.lifetime - age).min(member)
    }

    fn stand(&mut self, entry: Entry) {
        let (node, term, until) = (entry.record.node, entry.term, entry.until());
        if node != self.me {
            self.first_end = Some(self.first_end.map_or(until, |first| first.min(until)));
        }
        if let Some(old) = self.live.insert(entry) {
            self.sums.remove(&node, old.term);
        }
        self.sums.add(&node, term);
    }

    /// The record falls and leaves a tombstone. Whether there was one.
    pub(super) fn bury(&mut self, node: &NodeId, why: Gone, now: Now) -> bool {
        let Some(entry) = self.live.remove(node) else { return false };
        self.sums.remove(node, entry.term);
        if self.first_over < now.unix {
            self.tombs.retain(|_, tomb| tomb.until >= now.unix);
            self.contacts = self.tombs.values().filter(|tomb| tomb.contact.is_some()).count();
            self.first_over = self.tombs.values().map(|tomb| tomb.until).min().unwrap_or(UnixMillis(u64::MAX));
        }
        if self.tombs.len() >= MAX_TOMBS
            && let Some(first) = self.tombs.iter().min_by_key(|(_, tomb)| tomb.until).map(|(node, _)| *node)
        {
            self.unbury(&first);
        }
        // Who went on purpose comes back by itself.
        let worth = matches!(why, Gone::Dead | Gone::Expired) && self.contacts < MAX_CONTACTS;
        let tomb = Tomb {
            version: entry.record.version,
            term: entry.term,
            since: now.local,
            until: entry.cert.not_after.after(SKEW),
            contact: worth.then(|| entry.record.contact.clone()),
        };
        self.unbury(node);
        self.contacts += usize::from(worth);
        self.first_over = self.first_over.min(tomb.until);
        self.tombs.insert(*node, tomb);
        true
    }

    fn unbury(&mut self, node: &NodeId) {
        if self.tombs.remove(node).is_some_and(|tomb| tomb.contact.is_some()) {
            self.contacts -= 1;
        }
    }

    /// Whose records end by now.
    pub(super) fn due(&mut self, now: Millis) -> Vec<NodeId> {
        if self.first_end.is_none_or(|first| first > now) {
            return Vec::new();
        }
        let others = || self.live.iter().filter(|(node, _)| **node != self.me);
        let due: Vec<NodeId> = others().filter(|(_, entry)| entry.until() <= now).map(|(node, _)| *node).collect();
        self.first_end = others().map(|(_, entry)| entry.until()).filter(|until| *until > now).min();
        due
    }

    /// Nothing ends before this.
    pub(super) fn next_end(&self) -> Option<Millis> {
        self.first_end
    }

    /// Everybody whose membership the present list takes back.
    pub(super) fn revoked(&self) -> Vec<NodeId> {
        let list = &self.revocations;
        let taken = |entry: &Entry| {
            let issuer = || entry.record.chain.issuer.as_ref().and_then(|signed| signed.claim().ok());
            list.covers(&entry.cert) || issuer().is_some_and(|issuer| list.covers(&issuer))
        };
        self.live.iter().filter(|(_, entry)| taken(entry)).map(|(node, _)| *node).collect()
    }

    /// Addresses of the fallen, who may be back without anybody knowing.
    pub(super) fn lost(&self) -> Vec<&Contact> {
        let expelled = |node: &NodeId| self.revocations.expels(node);
        self.tombs.iter().filter(|(node, _)| !expelled(node)).filter_map(|(_, tomb)| tomb.contact.as_ref()).collect()
    }

    /// Whether it is one of these.
    pub(super) fn is_lost(&self, node: &NodeId) -> bool {
        self.tombs.get(node).is_some_and(|tomb| tomb.contact.is_some())
    }

    /// The one of the fallen that makes all the difference to a peer's digest: it stands there.
    pub(super) fn disputed(&self, ours: &RangeDigest, theirs: &RangeDigest) -> Option<&Contact> {
        if theirs.count != ours.count.saturating_add(1) {
            return None;
        }
        let term = u128::from_le_bytes(theirs.sum).wrapping_sub(u128::from_le_bytes(ours.sum));
        let mut fallen = self.tombs.range(theirs.range.ids());
        let (node, tomb) = fallen.find(|(_, tomb)| tomb.term == term)?;
        tomb.contact.as_ref().filter(|_| !self.revocations.expels(node))
    }

    pub(super) fn digest(&self, range: Range) -> RangeDigest {
        self.sums.digest(range).unwrap_or_else(|| digest(range, self.live.range(range).map(|(_, entry)| entry.term)))
    }

    /// The digests of a range's sixteen parts, in one walk where they are not kept.
    pub(super) fn parts(&self, range: Range) -> Vec<RangeDigest> {
        let split = || range.split();
        if split().all(|part| part.bits <= Sums::DEEPEST) {
            return split().map(|part| self.digest(part)).collect();
        }
        let mut parts: Vec<(Range, u32, u128)> = split().map(|part| (part, 0, 0)).collect();
        for (node, entry) in self.live.range(range) {
            if let Some((_, count, sum)) = parts.iter_mut().find(|(part, ..)| part.contains(node)) {
                (*count, *sum) = (*count + 1, sum.wrapping_add(entry.term));
            }
        }
        parts.into_iter().map(|(range, count, sum)| RangeDigest { range, count, sum: sum.to_le_bytes() }).collect()
    }

    /// All that is known in a range, the fallen too, so that nobody sends them again.
    pub(super) fn items(&self, range: Range) -> Vec<Item> {
        let live = self.live.range(range).map(|(node, entry)| (node, entry.record.version));
        let tombs = self.tombs.range(range.ids()).map(|(node, tomb)| (node, tomb.version));
        live.chain(tombs).map(|(node, version)| Item { node: *node, version }).collect()
    }
}
