//! What must hold in a cluster: after each step, every half second, and in the end; must not know why it would not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lie, Scenario, cluster::World, node::SimNode};
use crate::{
    placement::{Claim, Lease, MAX_HOSTS, ModelKey, Phase, Slot, TERM_CEILING},
    time::Millis,
};

/// A wanted model whose able nodes see each other has a host after this long. Unit: milliseconds. Made of: a death
/// noticed (3 s), a boot's warm-up (2.5 s), repair (2 rounds, 4 s), first ranks that fail to load (3 s each).
const VACANT: Millis = Millis(20_000);
/// Two nodes that see each other hold one place for at most this long. Made of: notice after a heal, repair, a slow
/// node's messages (20 times the delay).
const DOUBLE: Millis = Millis(25_000);

/// A word has reached everybody after this long. Made of: five rounds of repair.
const SPREAD: Millis = Millis(10_000);

/// The laws, with the memory they need.
#[derive(Debug)]
pub(super) struct Laws {
    vacant_since: BTreeMap<(usize, u64), Millis>,
    double_since: BTreeMap<(usize, u64, Slot), Millis>,
    cut: Option<u64>,
    still_moves: Option<u64>,
    budget: u64,
}

impl Laws {
    pub(super) fn new(world: &World) -> Self {
        // Each fault may move each place of each model the struck nodes share, there and back; loads may fail.
        let places = world.scenario.models as u64 * u64::from(MAX_HOSTS.min(world.scenario.able as u8));
        let struck = world.scenario.faults.len() as u64;
        let per_fault = if world.scenario.nodes > 100 { 12 } else { places };
        let cuts = if world.scenario.nodes > 100 { 2 * places } else { 0 };
        let budget = 4 * (places + cuts + struck * per_fault);
        Self { vacant_since: BTreeMap::new(), double_since: BTreeMap::new(), cut: None, still_moves: None, budget }
    }

    /// After a step at `index`: its machine and its word agree with what it knows.
    pub(super) fn after_step(&mut self, world: &mut World, index: usize) -> Option<String> {
        let now = world.now();
        let node = &mut world.nodes[index];
        let local = node.clock.local(now);
        let claims: Vec<(ModelKey, Claim)> = node.machine.claims().collect();
        if node.leaving && !claims.is_empty() {
            return Some(format!("node {index} drains and still claims {claims:?}"));
        }
        let before = std::mem::take(&mut node.claims);
        let mut begun = Vec::new();
        for (model, claim) in &claims {
            if let Some(lost) = lost(node, *model, *claim, local) {
                return Some(format!("node {index} holds {model} though it knows {lost}"));
            }
            node.claims.insert(*model, (claim.slot, claim.term));
            if before.get(model) == Some(&(claim.slot, claim.term)) {
                continue;
            }
            let highest = node.terms.insert((*model, claim.slot), claim.term);
            if let Some(term) = highest.filter(|known| *known >= claim.term && *known < TERM_CEILING) {
                return Some(format!("node {index} claimed {model} under {:?} and knew of {term:?}", claim.term));
            }
            begun.push(claim.term.0);
        }
        begun.into_iter().for_each(|term| world.moved(index, term));
        let moves = world.moves();
        (moves > self.budget).then(|| format!("{moves} moves, more than the {} the faults explain", self.budget))
    }

    /// Every half second: no wanted model is long without a host, no place long with two.
    pub(super) fn inspect(&mut self, world: &World) -> Option<String> {
        let now = world.now();
        if self.cut != world.cut {
            // Other sides, other bounds.
            self.cut = world.cut;
            self.vacant_since.clear();
            self.double_since.clear();
        }
        let sides: BTreeSet<u64> = (0..world.nodes.len()).map(|node| world.side(node)).collect();
        for (model, key) in world.keys.iter().enumerate() {
            for &side in &sides {
                let here =
                    || world.able[model].iter().copied().filter(|n| world.nodes[*n].up && world.side(*n) == side);
                let holders = holders(world, *key, here());
                let could = here().any(|n| could_host(&world.nodes[n], *key));
                let vacant = world.demand[model] > 0 && could && holders.is_empty();
                if held_too_long(&mut self.vacant_since, (model, side), vacant, now, VACANT) {
                    return Some(format!("model {model} has had no host on side {side} for {VACANT}"));
                }
                for slot in (0..MAX_HOSTS).map(Slot) {
                    let two = holders.iter().filter(|lease| lease.claim.slot == slot).count() > 1;
                    if held_too_long(&mut self.double_since, (model, side, slot), two, now, DOUBLE) {
                        return Some(format!("place {slot:?} of model {model} has had two hosts for {DOUBLE}"));
                    }
                }
            }
        }
        let still_from = world.scenario.trouble + Scenario::CALM - Scenario::STILL;
        if now >= still_from && may_be_still(world) {
            let before = *self.still_moves.get_or_insert(world.moves());
            if before != world.moves() {
                return Some("a host moved in the calm".into());
            }
        }
        None
    }

    /// In the end every view is the truth, and all agree on every lease.
    pub(super) fn at_the_end(&self, world: &World) -> Option<String> {
        for (index, node) in world.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            for &peer in &node.peers {
                let truth = world.nodes[peer].published.as_ref().filter(|_| world.nodes[peer].up);
                let known = node.known.get(&peer);
                if truth.is_some() && world.now().since(world.nodes[peer].published_at) < SPREAD {
                    continue;
                }
                if truth.map(|word| word.version) != known.map(|word| word.version) {
                    return Some(format!(
                        "node {index} does not know the truth on node {peer} (seed {})",
                        world.seed()
                    ));
                }
            }
        }
        for (model, key) in world.keys.iter().enumerate() {
            let mut agreed: Option<(usize, Vec<Lease>)> = None;
            let up = world.able[model].iter().copied().filter(|n| world.nodes[*n].up && world.nodes[*n].lie.is_none());
            for index in up {
                let node = &world.nodes[index];
                let mut leases = node.machine.leases(*key, node.clock.local(world.now()));
                leases.iter_mut().for_each(|lease| lease.claim.phase = Phase::Serving);
                match &agreed {
                    Some((first, other)) if *other != leases && may_be_still(world) => {
                        return Some(format!(
                            "nodes {first} and {index} disagree on model {model}: {other:?}, {leases:?}"
                        ));
                    }
                    Some(_) => {}
                    None => agreed = Some((index, leases)),
                }
            }
        }
        None
    }
}

/// Whether nothing has a reason of its own to move late: a node that loads for ever is passed over late, and
/// a failed load is tried again late.
fn may_be_still(world: &World) -> bool {
    world.scenario.failing == 0 && !matches!(world.scenario.liars, (1.., Lie::EverLoading))
}

/// Whether this node, honest and awake, could host.
fn could_host(node: &SimNode, model: ModelKey) -> bool {
    let view = node.machine.view();
    let can = view.models.iter().any(|said| said.model == model && said.weight.0 > 0);
    node.lie.is_none() && !node.leaving && !node.slow && can
}

/// The claims that stand published on one side.
fn holders(world: &World, model: ModelKey, nodes: impl Iterator<Item = usize>) -> Vec<Lease> {
    nodes
        .filter_map(|index| {
            let word = world.nodes[index].published.as_ref()?;
            let said = word.view.models.iter().find(|said| said.model == model)?;
            let claim = said.claim.filter(|_| !word.view.draining)?;
            // A liar never steps down; that its place is held twice is its doing.
            let honest = world.nodes[index].lie.is_none();
            let slot = if honest { claim.slot } else { Slot(u8::MAX) };
            Some(Lease { model, node: world.nodes[index].id, claim: Claim { slot, ..claim } })
        })
        .collect()
}

/// A lease that this node knows and that beats its own.
fn lost(node: &SimNode, model: ModelKey, own: Claim, local: Millis) -> Option<Lease> {
    let own = Lease { model, node: node.id, claim: own };
    let leases = node.machine.leases(model, local);
    leases.into_iter().find(|lease| lease.claim.slot == own.claim.slot && lease.beats(&own))
}

fn held_too_long<K: Ord>(since: &mut BTreeMap<K, Millis>, key: K, holds: bool, now: Millis, bound: Millis) -> bool {
    if holds {
        now.since(*since.entry(key).or_insert(now)) > bound
    } else {
        since.remove(&key);
        false
    }
}
