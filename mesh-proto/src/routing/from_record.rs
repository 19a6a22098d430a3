//! What routing reads out of a record and puts into one; must not know how records travel.

use super::{Candidate, Load, Sketch};
use crate::{
    placement::{HostView, Lease},
    record::{ModelState, PrefixSketch, Record},
};

/// [`PrefixSketch::kind`] of this module's sketches: hashes of 4 bytes, little-endian, rising.
pub const SKETCH_KIND: u8 = 1;

impl Candidate {
    /// The models that a record's node answers for. `suspect` is the reader's own suspicion.
    pub fn of(record: &Record, suspect: bool) -> Vec<Self> {
        let view = HostView::of(record);
        let ready = record.models.iter().filter(|served| served.state == ModelState::Ready);
        ready
            .map(|served| {
                let model = served.identity.key();
                let said = view.models.iter().find(|said| said.model == model);
                let claim = said.and_then(|said| said.claim);
                Self {
                    node: record.node,
                    name: served.id.clone(),
                    model,
                    context_tokens: served.context_tokens,
                    capabilities: served.capabilities,
                    draining: record.draining,
                    suspect,
                    load: Load {
                        in_flight: served.load.in_flight,
                        queued: served.load.queued,
                        slots: served.max_concurrency,
                        ttft_ms: served.load.ttft_ms,
                        prefill_per_second: 0,
                    },
                    sketch: record.prefixes.iter().find(|s| s.model == model).map(Sketch::of).unwrap_or_default(),
                    lease: claim.map(|claim| Lease { model, node: record.node, claim }),
                }
            })
            .collect()
    }
}

impl Sketch {
    /// Out of a record; one of another kind tells nothing.
    pub fn of(sketch: &PrefixSketch) -> Self {
        let (words, _) = sketch.bytes.as_chunks::<4>();
        let known = sketch.kind == SKETCH_KIND;
        Self::new(words.iter().filter(|_| known).map(|word| u32::from_le_bytes(*word)))
    }

    /// For a record.
    pub fn for_record(&self, model: crate::placement::ModelKey) -> PrefixSketch {
        PrefixSketch { model, kind: SKETCH_KIND, bytes: self.hashes().flat_map(u32::to_le_bytes).collect() }
    }
}
