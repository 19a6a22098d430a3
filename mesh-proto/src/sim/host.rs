//! A modelled serving node: prefill, tokens, heartbeats, and ways to fail; must not know who asks.

use std::collections::BTreeMap;

use rand::{RngExt, rngs::ChaCha8Rng};

use crate::{
    ModelId,
    identity::NodeId,
    placement::ModelKey,
    record::Capabilities,
    routing::{Candidate, Load, Sketch},
    time::Millis,
};

/// A host that is well again is found within this: seen (2 s), its breaker half-open again (less than 10 s after so
/// few failures), asked anew (0.25 s).
const FOUND_AFTER: Millis = Millis(12_000);

/// How a host serves badly, without dying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vice {
    /// Its heartbeats never get anywhere.
    Stalls,
    /// It sends a token twice.
    Repeats,
    /// It leaves one out.
    Skips,
}

/// One generation at a host: (door, request, try).
pub(super) type Job = (usize, usize, u32);

#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) at: u32,
    pub(super) of: u32,
    pub(super) prefill_until: Millis,
    /// No frame arrives before the one before it.
    pub(super) arrived: Millis,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) model: ModelKey,
    pub(super) up: bool,
    pub(super) start: u32,
    pub(super) hung_until: Millis,
    /// Since when nothing has befallen it.
    pub(super) well_since: Millis,
    pub(super) draining: bool,
    pub(super) slots: usize,
    pub(super) token_ms: u64,
    pub(super) vice: Option<Vice>,
    pub(super) jobs: BTreeMap<Job, Running>,
}

impl Host {
    pub(super) fn new(index: usize, steady: bool, rng: &mut ChaCha8Rng) -> Self {
        let vice = match rng.random_range(0..12) {
            0 => Some(Vice::Stalls),
            1 => Some(Vice::Repeats),
            2 => Some(Vice::Skips),
            _ => None,
        };
        Self {
            id: NodeId([index as u8 + 1; 32]),
            // Another model by the same name, now and then.
            model: ModelKey([if !steady && rng.random_ratio(1, 8) { 2 } else { 1 }; 32]),
            up: true,
            start: 0,
            hung_until: Millis(0),
            well_since: Millis(0),
            draining: false,
            slots: if steady { 1_000 } else { rng.random_range(1..8) },
            token_ms: rng.random_range(5..60),
            vice: vice.filter(|_| !steady),
            jobs: BTreeMap::new(),
        }
    }

    /// Whether it has been able to take a request of this model for long enough to be found.
    pub(super) fn could_take(&self, model: Option<ModelKey>, now: Millis) -> bool {
        let right = model.is_none_or(|model| model == self.model);
        let well = self.up && !self.draining && self.vice.is_none() && now.since(self.well_since) >= FOUND_AFTER;
        right && well && self.jobs.len() < self.slots
    }

    /// What its record says.
    pub(super) fn candidate(&self, draining: bool) -> Candidate {
        let in_flight = self.jobs.len() as u32;
        Candidate {
            node: self.id,
            name: ModelId::new("m"),
            model: self.model,
            context_tokens: 4096,
            capabilities: Capabilities::RESUME,
            draining,
            suspect: false,
            load: Load { in_flight, queued: 0, slots: self.slots as u32, ttft_ms: 0, prefill_per_second: 1000 },
            sketch: Sketch::default(),
            lease: None,
        }
    }
}

/// Token `at` of a request's answer by a model: what every honest host of it generates.
pub(super) fn token(model: ModelKey, door: usize, request: usize, at: u32) -> u32 {
    let words = [u64::from(model.0[0]), door as u64, request as u64, u64::from(at)];
    words.iter().fold(0x9E37u64, |sum, word| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)) as u32
}
