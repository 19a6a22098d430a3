//! One model's election as one node sees it; must not know the other models.

use std::collections::BTreeMap;

use super::{Claim, Fence, Lease, ModelKey, ModelView, Phase, Ranked, Slot, Wanted, Weight, score};
use crate::{identity::NodeId, time::Millis};

/// A place must be vacant this long before the first in rank claims it. Unit: milliseconds. Default: 150.
/// Origin: iroh.md 6.3; a winner's record crosses 10,000 nodes in 0.7 s, a usual mesh in a tenth of this.
/// Cost: added to each take-over; less makes double claims likelier.
pub const SETTLE: Millis = Millis(150);

/// Each next in rank waits this much longer. Unit: milliseconds. Default: 1000. Origin: above the time a claim
/// needs to be seen (0.7 s for 10,000 nodes, simulated in iroh.md 6.1). Cost: how long a silent first-ranked
/// node holds the model back.
pub const STAGGER: Millis = Millis(1000);

/// A started node claims nothing for this long: it must hear who hosts what. Unit: milliseconds. Default: 2500.
/// Origin: one round of anti-entropy (2 s) and a margin. Cost: a new mesh's first election is that much later.
pub const WARM_UP: Millis = Millis(2500);

/// Who claims and has not loaded after this long is passed over, until it is ready or has claimed nothing for as long. Unit: seconds. Default: 120. Origin: guess, 60 GB
/// from a disk of 0.5 GB/s. Cost: how long a node that only says that it loads can keep a model from the mesh.
pub const LOAD_BOUND: Millis = Millis::secs(120);

/// After a failed load the node offers the model again this much later, doubling each time. Unit: seconds.
/// Default: 30. Origin: guess, longer than memory pressure's usual cause. Cost: as long without this node.
pub const LOAD_RETRY: Millis = Millis::secs(30);

/// The longest pause between two tries to load. Unit: seconds. Default: 900. Origin: guess. Cost: as above.
pub const LOAD_RETRY_CEILING: Millis = Millis::secs(900);

/// Why a node gives up a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDown {
    /// Another one's claim stands. The node forwards that lease with its own step-down, so that nobody sees
    /// the place vacant in between.
    Lost {
        /// The lease that stands.
        winner: Lease,
    },
    /// The demand needs fewer hosts.
    Surplus,
    /// This node stops.
    Draining,
    /// The engine failed, or the files are gone.
    Failed,
}

/// What settling one model came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Claimed { load: bool },
    Left { claim: Claim, why: StepDown },
}

/// What holds for every model of the node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    pub(super) now: Millis,
    pub(super) warm_at: Millis,
    pub(super) draining: bool,
    pub(super) shunned: &'a BTreeMap<NodeId, Millis>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    draining: bool,
    ready: bool,
    weight: Weight,
    claim: Option<Claim>,
    /// Since when it says that it loads and was not ready. Neither another term, nor another place, nor a pause
    /// between two claims begins this anew.
    loading_since: Option<Millis>,
    /// When it last claimed to load.
    loading_at: Millis,
    score: f64,
}

/// One model at this node, and what the others say of it.
#[derive(Clone, Debug)]
pub(super) struct ModelState {
    model: ModelKey,
    me: NodeId,
    pub(super) pinned: bool,
    pub(super) ready: bool,
    pub(super) loading: bool,
    pub(super) weight: Weight,
    pub(super) claim: Option<Claim>,
    pub(super) rate: f64,
    failures: u32,
    retry_at: Option<Millis>,
    wanted: Wanted,
    fence: Fence,
    peers: BTreeMap<NodeId, Peer>,
    vacant_since: BTreeMap<Slot, Millis>,
    due: Option<Millis>,
}

impl ModelState {
    pub(super) fn new(model: ModelKey, me: NodeId) -> Self {
        Self {
            model,
            me,
            pinned: false,
            ready: false,
            loading: false,
            weight: Weight::default(),
            claim: None,
            rate: 0.0,
            failures: 0,
            retry_at: None,
            wanted: Wanted::default(),
            fence: Fence::default(),
            peers: BTreeMap::new(),
            vacant_since: BTreeMap::new(),
            due: None,
        }
    }

    /// What this node's record should say of the model.
    pub(super) fn view(&self) -> ModelView {
        let weight = if self.retry_at.is_some() { Weight(0) } else { self.weight };
        ModelView { model: self.model, ready: self.ready, weight, claim: self.claim }
    }

    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }

    pub(super) fn hosts_wanted(&self) -> u8 {
        self.wanted.hosts()
    }

    /// Takes what `node` says of this model, or that it says nothing any more.
    pub(super) fn peer(&mut self, node: NodeId, said: Option<(&ModelView, bool)>, at: &Situation<'_>) {
        let Some((view, draining)) = said else {
            self.peers.remove(&node);
            return;
        };
        let before = self.peers.get(&node).copied();
        let loads = view.claim.is_some_and(|claim| claim.phase == Phase::Loading) && !view.ready;
        let serves = view.ready || view.claim.is_some_and(|claim| claim.phase == Phase::Serving);
        let (mut loading_since, mut loading_at) =
            before.map_or((None, at.now), |old| (old.loading_since, old.loading_at));
        if before.is_some_and(|old| old.loading()) {
            loading_at = at.now;
        }
        if serves || at.now.since(loading_at) >= LOAD_BOUND {
            loading_since = None;
        }
        if loads {
            (loading_since, loading_at) = (loading_since.or(Some(at.now)), at.now);
        }
        if let Some(claim) = view.claim {
            // A claim of the past is harmless here: it loses against the one that succeeded it.
            let _ = self.fence.admit(self.model, claim.slot, claim.term);
        }
        let score = score(self.model, node, view.weight);
        let peer = Peer {
            draining,
            ready: view.ready,
            weight: view.weight,
            claim: view.claim,
            loading_since,
            loading_at,
            score,
        };
        self.peers.insert(node, peer);
        let left = before.and_then(|old| old.claim).filter(|_| view.claim.is_none());
        if let Some(claim) = left
            && !draining
            && view.ready
        {
            let holders = self.holders(at);
            if !holders.contains_key(&claim.slot) {
                self.wanted.follow_down(holders.len() as u8);
            }
        }
    }

    /// The engine failed: no place, and no other try for a while.
    pub(super) fn failed(&mut self, now: Millis) {
        self.ready = false;
        self.loading = false;
        let doubled = Millis(LOAD_RETRY.0 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + doubled.min(LOAD_RETRY_CEILING));
    }

    pub(super) fn loaded(&mut self) {
        self.ready = true;
        self.loading = false;
        self.failures = 0;
        self.retry_at = None;
        if let Some(claim) = &mut self.claim {
            claim.phase = Phase::Serving;
        }
    }

    /// The leases that stand in this node's view, by place.
    pub(super) fn holders(&self, at: &Situation<'_>) -> BTreeMap<Slot, Lease> {
        let mut holders: BTreeMap<Slot, Lease> = BTreeMap::new();
        let peers = self.peers.iter().filter(|(node, peer)| peer.counts(**node, at));
        let claims = peers.filter_map(|(&node, peer)| Some((node, peer.claim?)));
        for (node, claim) in claims.chain(self.claim.map(|claim| (self.me, claim))) {
            let lease = Lease { model: self.model, node, claim };
            let held = holders.entry(claim.slot).or_insert(lease);
            if lease.beats(held) {
                *held = lease;
            }
        }
        holders
    }

    /// Decides, and says what has changed. Call until it says nothing.
    pub(super) fn settle(&mut self, at: &Situation<'_>) -> Option<Outcome> {
        self.wanted.update(self.rate, at.now);
        self.retry_at = self.retry_at.filter(|retry| *retry > at.now);
        let holders = self.holders(at);
        if let Some(claim) = self.claim
            && let Some(why) = self.reason_to_leave(claim, &holders, at)
        {
            self.claim = None;
            return Some(Outcome::Left { claim, why });
        }
        let vacancies = self.vacancies(&holders, at.now);
        let claim_at = self.claim_at(&vacancies, at);
        if let Some((slot, when)) = claim_at
            && when <= at.now
        {
            self.take(slot);
            let load = !self.ready && !self.loading;
            self.loading |= load;
            return Some(Outcome::Claimed { load });
        }
        let overdue = |peer: &Peer| peer.load_ends().filter(|end| *end > at.now);
        let shunned = at.shunned.iter().filter(|(node, _)| self.peers.contains_key(*node)).map(|(_, until)| *until);
        self.due = (claim_at.map(|(_, when)| when).into_iter())
            .chain(self.wanted.next_wakeup())
            .chain(self.retry_at)
            .chain(self.peers.values().filter_map(overdue))
            .chain(shunned)
            .min();
        None
    }

    fn reason_to_leave(&self, own: Claim, holders: &BTreeMap<Slot, Lease>, at: &Situation<'_>) -> Option<StepDown> {
        if at.draining {
            return Some(StepDown::Draining);
        }
        if !self.ready && !self.loading {
            return Some(StepDown::Failed);
        }
        if let Some(winner) = holders.get(&own.slot).filter(|lease| lease.node != self.me) {
            return Some(StepDown::Lost { winner: *winner });
        }
        let last = holders.keys().next_back() == Some(&own.slot);
        (last && holders.len() > usize::from(self.wanted.hosts())).then_some(StepDown::Surplus)
    }

    fn vacancies(&mut self, holders: &BTreeMap<Slot, Lease>, now: Millis) -> Vec<Slot> {
        let missing = usize::from(self.wanted.hosts()).saturating_sub(holders.len());
        let free = (0..=u8::MAX).map(Slot).filter(|slot| !holders.contains_key(slot));
        let vacant: Vec<Slot> = free.take(missing).collect();
        self.vacant_since.retain(|slot, _| vacant.contains(slot));
        for slot in &vacant {
            self.vacant_since.entry(*slot).or_insert(now);
        }
        vacant
    }

    /// Which vacancy is this node's, and when: the first in rank takes the first one at once, and so on; who
    /// comes after the last vacancy stands in for those before, a [`STAGGER`] later.
    fn claim_at(&self, vacant: &[Slot], at: &Situation<'_>) -> Option<(Slot, Millis)> {
        let able = !at.draining && self.claim.is_none() && self.retry_at.is_none() && self.weight.0 > 0;
        if !able || vacant.is_empty() {
            return None;
        }
        let own = Ranked { node: self.me, ready: self.ready, score: score(self.model, self.me, self.weight) };
        let before_me = |(node, peer): (&NodeId, &Peer)| {
            let candidate = peer.claim.is_none() && peer.weight.0 > 0 && peer.counts(*node, at);
            candidate && Ranked { node: *node, ready: peer.ready, score: peer.score }.order(&own).is_lt()
        };
        let rank = self.peers.iter().filter(|(node, peer)| before_me((node, peer))).count();
        let slot = *vacant.get(rank % vacant.len())?;
        let since = *self.vacant_since.get(&slot)?;
        let turn = (rank / vacant.len()) as u64;
        Some((slot, (since + SETTLE).max(at.warm_at) + Millis(STAGGER.0.saturating_mul(turn))))
    }

    fn take(&mut self, slot: Slot) {
        let term = self.fence.highest(self.model, slot).next();
        let _ = self.fence.admit(self.model, slot, term);
        let phase = if self.ready { Phase::Serving } else { Phase::Loading };
        self.claim = Some(Claim { slot, term, weight: self.weight, phase });
        self.vacant_since.remove(&slot);
    }
}

impl Peer {
    fn loading(&self) -> bool {
        self.claim.is_some_and(|claim| claim.phase == Phase::Loading)
    }

    /// When its load has taken too long, if it loads.
    fn load_ends(&self) -> Option<Millis> {
        self.loading_since.filter(|_| self.loading()).map(|since| since + LOAD_BOUND)
    }

    /// Whether this peer hosts or could host at all.
    fn counts(&self, node: NodeId, at: &Situation<'_>) -> bool {
        let overdue = self.load_ends().is_some_and(|end| end <= at.now);
        let shunned = at.shunned.get(&node).is_some_and(|until| *until > at.now);
        !self.draining && !overdue && !shunned
    }
}
