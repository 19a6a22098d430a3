//! The map itself: records that stand, tombstones of those that fell; must not know peers or frames.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Aged, Item, MAX_NODES, Range, RangeDigest,
    range::{digest, term},
};
use crate::{
    identity::{Contact, MembershipCert, NodeId, Revocations, SKEW, Signed},
    record::{Checker, Record, RecordRefusal, Version},
    time::{Millis, Now, UnixMillis},
};

/// Most tombstones (some 200 bytes each); beyond that the ones that end first are dropped.
const MAX_TOMBS: usize = 65_536;
/// Most tombstones that keep an address to try.
const MAX_CONTACTS: usize = 256;

/// A record that stands.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it says.
    pub record: Record,
    /// As it was signed, to hand on.
    pub signed: Signed<Record>,
    /// Its node's certificate.
    pub cert: MembershipCert,
    age: Millis,
    since: Millis,
    until: Millis,
    term: u128,
}

impl Entry {
    /// How long ago it was signed.
    pub fn age(&self, now: Millis) -> Millis {
        self.age + now.since(self.since)
    }

    /// When it falls, unless a newer one comes.
    pub fn until(&self) -> Millis {
        self.until
    }

    pub(super) fn aged(&self, now: Millis) -> Aged {
        Aged { age: self.age(now), record: self.signed.clone() }
    }
}

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
pub(super) struct Store {
    me: NodeId,
    live: BTreeMap<NodeId, Entry>,
    ends: BTreeSet<(Millis, NodeId)>,
    tombs: BTreeMap<NodeId, Tomb>,
    checker: Checker,
    pub(super) revocations: Revocations,
}

impl Store {
    pub(super) fn new(me: NodeId, revocations: Revocations) -> Self {
        Self {
            me,
            live: BTreeMap::new(),
            ends: BTreeSet::new(),
            tombs: BTreeMap::new(),
            checker: Checker::default(),
            revocations,
        }
    }

    pub(super) fn live(&self) -> &BTreeMap<NodeId, Entry> {
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

    /// Takes a record if it is believed and newer. Gives the node.
    pub(super) fn insert(&mut self, aged: &Aged, now: Now) -> Result<NodeId, RecordRefusal> {
        let claim = aged.record.claim()?;
        let (node, version) = (claim.node, claim.version);
        if let Some(known) = self.version(&node) {
            let equal = version == known && self.live.get(&node).is_some_and(|e| e.signed != aged.record);
            // A replay is turned away before it costs a signature check; a second word of one version is not.
            if version < known || (version == known && !equal) {
                return Err(RecordRefusal::Stale);
            }
            if equal {
                self.checker.check(&aged.record, &self.revocations, now.unix)?;
                return Err(RecordRefusal::Equivocation);
            }
        }
        if self.live.len() >= MAX_NODES && !self.live.contains_key(&node) {
            return Err(RecordRefusal::Full);
        }
        let (record, cert) = self.checker.check(&aged.record, &self.revocations, now.unix)?;
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
            tomb.until = tomb.until.max(cert.not_after.after(SKEW));
            return Err(RecordRefusal::Stale);
        }
        self.tombs.remove(&node);
        self.stand(Entry {
            signed: aged.record.clone(),
            age,
            since: now.local,
            until: Self::end(&record, &cert, age, now),
            term: term(&node, version),
            record,
            cert,
        });
        Ok(node)
    }

    fn end(record: &Record, cert: &MembershipCert, age: Millis, now: Now) -> Millis {
        let member = cert.not_after.after(SKEW).since(now.unix);
        now.local + (record.lifetime - age).min(member)
    }

    fn stand(&mut self, entry: Entry) {
        let node = entry.record.node;
        if let Some(old) = self.live.get(&node) {
            self.ends.remove(&(old.until, node));
        }
        if node != self.me {
            self.ends.insert((entry.until, node));
        }
        self.live.insert(node, entry);
    }

    /// The record falls and leaves a tombstone. Whether there was one.
    pub(super) fn bury(&mut self, node: &NodeId, why: Gone, now: Now) -> bool {
        let Some(entry) = self.live.remove(node) else { return false };
        self.ends.remove(&(entry.until, *node));
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
            contact: (worth && contacts < MAX_CONTACTS).then_some(entry.record.contact),
        };
        self.tombs.insert(*node, tomb);
        true
    }

    /// The first end that is due, if one is.
    pub(super) fn due(&self, now: Millis) -> Option<NodeId> {
        self.ends.first().filter(|(end, _)| *end <= now).map(|(_, node)| *node)
    }

    pub(super) fn next_end(&self) -> Option<Millis> {
        self.ends.first().map(|(end, _)| *end)
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

    pub(super) fn digest(&self, range: Range) -> RangeDigest {
        digest(&self.live, range, |entry| entry.term)
    }

    /// All that is known in a range, the fallen too, so that nobody sends them again.
    pub(super) fn items(&self, range: Range) -> Vec<Item> {
        let live = self.live.range(range.ids()).map(|(node, entry)| (node, entry.record.version));
        let tombs = self.tombs.range(range.ids()).map(|(node, tomb)| (node, tomb.version));
        live.chain(tombs).map(|(node, version)| Item { node: *node, version }).collect()
    }
}
