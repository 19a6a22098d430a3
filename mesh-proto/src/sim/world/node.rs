//! One node of the mesh: its machines and its connections; must not know the others' insides.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{notary::Notary, overlay::Overlay, plan::Lying, traffic::Traffic};
use crate::{
    demand::{DemandMeter, DemandView},
    directory::Directory,
    identity::{CertChain, NodeId, NodeKey, Signed},
    placement::{ModelKey, Placement, Slot, Term},
    record::{Memory, Record, Version},
    sim::node::Clock,
    suspicion::Suspicion,
    time::Millis,
};

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub(super) id: u64,
    /// Which of the peer's lives it leads to.
    pub(super) life: u32,
    pub(super) since: Millis,
}

/// What is sent. Bytes are encoded frames.
#[derive(Clone, Debug)]
pub(super) enum Msg {
    Sync(Rc<Vec<u8>>),
    Probe(Rc<Vec<u8>>),
    /// A record's announcement, straight from whoever tells it.
    Word(Rc<Vec<u8>>),
    /// A gossip message on its way down the tree, by its number in the world's list.
    Eager(u32),
    /// "I have these."
    Have(Rc<Vec<u32>>),
    /// "Send me this one, and all from now on."
    Graft(u32),
    /// "Only tell me what you have, from now on."
    Prune,
}

/// A process.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) directory: Directory<Notary>,
    pub(super) suspicion: Suspicion,
    pub(super) placement: Placement,
    pub(super) meter: DemandMeter,
    pub(super) demand: DemandView,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) key: NodeKey,
    pub(super) chain: CertChain,
    pub(super) lie: Option<Lying>,
    pub(super) slow: bool,
    pub(super) door: bool,
    pub(super) expelled: bool,
    pub(super) up: bool,
    pub(super) leaving: bool,
    pub(super) life: u32,
    pub(super) booted: Millis,
    pub(super) clock: Clock,
    /// The wall clock's distance from the truth, and from an hour ago.
    pub(super) wall: u64,
    pub(super) own: Machines,
    pub(super) version: Version,
    pub(super) next_record: Millis,
    pub(super) dirty: bool,
    pub(super) wake: Option<Millis>,
    pub(super) memory: Memory,
    /// Models that it has files of.
    pub(super) offers: Vec<usize>,
    pub(super) loading: BTreeSet<ModelKey>,
    pub(super) terms: BTreeMap<(ModelKey, Slot), Term>,
    /// Places that it claims, and since when.
    pub(super) claims: BTreeMap<ModelKey, (Slot, Term, Millis)>,
    pub(super) links: BTreeMap<usize, Conn>,
    pub(super) dialing: BTreeMap<usize, Vec<Msg>>,
    pub(super) banned: BTreeMap<usize, Millis>,
    /// Whether it watches only a few.
    pub(super) few: bool,
    /// Whom it watches where not everybody watches everybody.
    pub(super) watched: BTreeSet<usize>,
    /// Which nodes' records stand here: a bit each.
    pub(super) members: Vec<u64>,
    pub(super) overlay: Overlay,
    /// Everything it ever signed, by version.
    pub(super) said: BTreeMap<Version, Vec<Signed<Record>>>,
    pub(super) said_at: Millis,
    pub(super) traffic: Traffic,
}

impl Node {
    /// Bound by the laws, and protected by them.
    pub(super) fn honest(&self) -> bool {
        self.lie.is_none() && !self.expelled
    }

    pub(super) fn is_member(&self, node: usize) -> bool {
        self.members.get(node / 64).is_some_and(|bits| bits >> (node % 64) & 1 == 1)
    }

    /// Sets or clears a bit; whether it was otherwise before.
    pub(super) fn set_member(&mut self, node: usize, standing: bool) -> bool {
        let Some(bits) = self.members.get_mut(node / 64) else { return false };
        let mask = 1 << (node % 64);
        let changed = (*bits & mask != 0) != standing;
        *bits = if standing { *bits | mask } else { *bits & !mask };
        changed
    }
}
