//! Claims, leases, terms and fences; must not know why a node claims.

use std::{collections::BTreeMap, fmt};

use super::{ModelKey, Weight, score};
use crate::identity::NodeId;

/// The number of an election of one place; grows by one with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(pub u64);

/// No term counts for more than this. Unit: elections. Default: 2^40. Origin: one election a second for
/// 30,000 years. Cost: none; without it a liar's `u64::MAX` would leave no term above it. At the ceiling
/// elections go by score alone.
pub const TERM_CEILING: Term = Term(1 << 40);

impl Term {
    /// The next election's.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1)).min(TERM_CEILING)
    }
}

/// One of a model's places, from 0; a model with k hosts has k of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u8);

/// How far a claimant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Reads the weights.
    Loading,
    /// Answers.
    Serving,
}

/// What a node says of itself in its record: "this place is mine". Signed with the record, so it binds
/// nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which place.
    pub slot: Slot,
    /// Under which election.
    pub term: Term,
    /// The claimant's weight when it claimed. Fixed with the claim, so that both sides of a conflict
    /// compute the same winner whatever their loads do meanwhile.
    pub weight: Weight,
    /// How far it is.
    pub phase: Phase,
}

/// A claim with its claimant: what a router, a log or a losing node needs to know of the winner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The model.
    pub model: ModelKey,
    /// Who holds it.
    pub node: NodeId,
    /// The claim.
    pub claim: Claim,
}

impl Lease {
    /// Whether this lease stands where `other` claims the same place: the higher (term, score, id).
    pub fn beats(&self, other: &Lease) -> bool {
        let key = |lease: &Lease| lease.claim.term.min(TERM_CEILING);
        key(self)
            .cmp(&key(other))
            .then_with(|| self.score().total_cmp(&other.score()))
            .then_with(|| self.node.cmp(&other.node))
            .is_gt()
    }

    fn score(&self) -> f64 {
        score(self.model, self.node, self.claim.weight)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { slot, term, phase, .. } = self.claim;
        write!(f, "{}#{} term {} held by {} ({phase:?})", self.model, slot.0, term.0, self.node.short())
    }
}

/// The highest terms seen. Whatever must not be touched by a host of the past (a shared store, a quota)
/// keeps one and asks [`Fence::admit`]; elections keep one to know the next term.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    highest: BTreeMap<(ModelKey, Slot), Term>,
}

/// A term that has been succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("term {} has been succeeded by term {}", given.0, known.0)]
pub struct Stale {
    /// The term that was shown.
    pub given: Term,
    /// The highest one known.
    pub known: Term,
}

impl Fence {
    /// Lets `term` pass and remembers it.
    ///
    /// # Errors
    /// [`Stale`] where a higher term has been seen.
    pub fn admit(&mut self, model: ModelKey, slot: Slot, term: Term) -> Result<(), Stale> {
        let term = term.min(TERM_CEILING);
        let known = self.highest.entry((model, slot)).or_default();
        if term < *known {
            return Err(Stale { given: term, known: *known });
        }
        *known = term;
        Ok(())
    }

    /// The highest term seen; zero where there was none.
    pub fn highest(&self, model: ModelKey, slot: Slot) -> Term {
        self.highest.get(&(model, slot)).copied().unwrap_or_default()
    }
}
