//! What the placement reads out of a record and puts into one; must not know how records travel.

use std::collections::BTreeMap;

use super::{Capacity, Claim, HostView, ModelKey, ModelView, Phase, Slot, Term, Weight};
use crate::{
    codec::Ext,
    record::{self, ModelState, Record, ServedModel},
};

impl HostView {
    /// A node's view out of its record. A model that it lists under two names counts once, the readier one.
    pub fn of(record: &Record) -> Self {
        let mut models: BTreeMap<ModelKey, ModelView> = BTreeMap::new();
        for served in &record.models {
            let model = served.identity.key();
            let claim = record.claims.iter().find(|claim| claim.model == model).map(Claim::of);
            let ready = served.state == ModelState::Ready;
            let view = ModelView { model, ready, weight: weight(record, served), claim };
            let kept = models.entry(model).or_insert(view);
            if view.ready && !kept.ready {
                *kept = view;
            }
        }
        Self { node: record.node, draining: record.draining, models: models.into_values().collect() }
    }

    /// The claims of this view, for the node's own record.
    pub fn record_claims(&self) -> Vec<record::Claim> {
        let claims = self.models.iter().filter_map(|said| Some((said.model, said.claim?)));
        claims.map(|(model, claim)| claim.for_record(model)).collect()
    }
}

impl Claim {
    fn of(claim: &record::Claim) -> Self {
        let phase = if claim.serving { Phase::Serving } else { Phase::Loading };
        Self { slot: Slot(claim.slot), term: Term(claim.term), weight: Weight(claim.weight), phase }
    }

    fn for_record(self, model: ModelKey) -> record::Claim {
        let serving = self.phase == Phase::Serving;
        let ext = Ext::default();
        record::Claim { model, slot: self.slot.0, term: self.term.0, weight: self.weight.0, serving, ext }
    }
}

/// How much of a model the node that signed `record` can take, by that record alone: every reader finds the
/// same. 0 where it does not fit, or failed to load.
pub fn weight(record: &Record, served: &ServedModel) -> Weight {
    let loaded = matches!(served.state, ModelState::Ready | ModelState::Loading);
    let able = loaded || served.state == ModelState::OnDisk;
    // One token reads every weight once, so bandwidth bounds the speed nobody has measured yet.
    let bound = record.memory.bandwidth / served.weight_bytes.max(1);
    let measured = served.load.tokens_per_kilosecond / 1000;
    let speed = if measured > 0 { measured } else { bound };
    let capacity = Capacity {
        tokens_per_second: u32::try_from(speed).unwrap_or(u32::MAX),
        need_bytes: served.weight_bytes,
        free_bytes: record.memory.free.saturating_add(if loaded { served.weight_bytes } else { 0 }),
        busy: served.load.in_flight.saturating_add(served.load.queued),
        slots: served.max_concurrency,
    };
    if able { capacity.weight() } else { Weight(0) }
}
