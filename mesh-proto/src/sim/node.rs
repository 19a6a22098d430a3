//! One node of the cluster: its machine, its clock, what it knows; must not know the others' insides.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::Lie;
use crate::{
    identity::NodeId,
    placement::{Claim, HostView, MAX_WEIGHT, ModelKey, Phase, Placement, Slot, TERM_CEILING, Term, Weight},
    time::Millis,
};

/// A node's published word.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) version: Version,
    pub(super) view: HostView,
}

/// (start, sequence): orders a node's records.
pub(super) type Version = (u32, u64);

/// The own clock: another origin, and a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) origin: u64,
    /// Local milliseconds per 1000 of the world's.
    pub(super) rate: u64,
}

impl Clock {
    pub(super) fn local(self, world: Millis) -> Millis {
        Millis(self.origin + world.0 * self.rate / 1000)
    }

    /// The first moment of the world at which the local clock shows at least `local`.
    pub(super) fn world(self, local: Millis) -> Millis {
        Millis((local.0.saturating_sub(self.origin) * 1000).div_ceil(self.rate))
    }
}

#[derive(Debug)]
pub(super) struct SimNode {
    pub(super) id: NodeId,
    pub(super) up: bool,
    pub(super) leaving: bool,
    pub(super) start: u32,
    pub(super) sequence: u64,
    pub(super) clock: Clock,
    pub(super) slow: bool,
    pub(super) lie: Option<Lie>,
    pub(super) machine: Placement,
    /// The models it has files of, by index.
    pub(super) models: Vec<usize>,
    pub(super) weight: Weight,
    /// Who shares a model with it.
    pub(super) peers: Vec<usize>,
    /// Their newest words.
    pub(super) known: BTreeMap<usize, Rc<Published>>,
    /// Whom it believes dead, and the last word it had of them.
    pub(super) dead: BTreeMap<usize, Version>,
    pub(super) published: Option<Rc<Published>>,
    pub(super) published_at: Millis,
    pub(super) loading: BTreeSet<ModelKey>,
    /// The highest terms it has claimed or heard of since its start.
    pub(super) terms: BTreeMap<(ModelKey, Slot), Term>,
    /// Its claims after the step before.
    pub(super) claims: BTreeMap<ModelKey, (Slot, Term)>,
    pub(super) wake: Option<Millis>,
}

impl SimNode {
    pub(super) fn version(&self) -> Version {
        (self.start, self.sequence)
    }

    /// What it publishes: the truth, or its lie.
    pub(super) fn word(&self) -> HostView {
        let mut view = self.machine.view();
        let claim = |phase| Claim { slot: Slot(0), term: TERM_CEILING, weight: MAX_WEIGHT, phase };
        for model in &mut view.models {
            match self.lie {
                None => {}
                Some(Lie::Heavy) => model.weight = MAX_WEIGHT,
                Some(Lie::Usurper) => {
                    model.ready = true;
                    model.claim = Some(claim(Phase::Serving));
                }
                Some(Lie::EverLoading) => model.claim = Some(claim(Phase::Loading)),
            }
        }
        view
    }

    /// Whether `version` of `of` is news.
    pub(super) fn is_news(&self, of: usize, version: Version) -> bool {
        let known = self.known.get(&of).map(|published| published.version);
        let last = known.max(self.dead.get(&of).copied());
        last.is_none_or(|last| version > last)
    }
}
