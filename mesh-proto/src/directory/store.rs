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
            tomb.version = version;
            tomb.until = tomb.until.max(body.cert.not_after.after(SKEW));
            return Err(RecordRefusal::Stale);
        }
        self.tombs.remove(&node);
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
        self.tombs.retain(|_, tomb| tomb.until >= now.unix);
        if self.tombs.len() >= MAX_TOMBS
            && let Some(first) = self.tombs.iter().min_by_key(|(_, tomb)| tomb.until).map(|(node, _)| *node)
        {
            self.tombs.remove(&first);
        }
        let contacts = self.tombs.values().filter(|tomb| tomb.contact.is_some()).count();
        // Who went on purpose comes back by itself.
        let worth = matches!(why, Gone::Dead | Gone::Expired);
        let tomb = Tomb {
            version: entry.record.version,
            since: now.local,
            until: entry.cert.not_after.after(SKEW),
            contact: (worth && contacts < MAX_CONTACTS).then(|| entry.record.contact.clone()),
        };
        self.tombs.insert(*node, tomb);
        true
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

    pub(super) fn digest(&self, range: Range) -> RangeDigest {
        self.sums.digest(range).unwrap_or_else(|| digest(range, self.live.range(range).map(|(_, entry)| entry.term)))
    }

    /// All that is known in a range, the fallen too, so that nobody sends them again.
    pub(super) fn items(&self, range: Range) -> Vec<Item> {
        let live = self.live.range(range).map(|(node, entry)| (node, entry.record.version));
        let tombs = self.tombs.range(range.ids()).map(|(node, tomb)| (node, tomb.version));
        live.chain(tombs).map(|(node, version)| Item { node: *node, version }).collect()
    }
}
