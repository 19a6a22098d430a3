//! What happened, as a hash and as a tail to read; must not know what it means.

use std::{collections::VecDeque, fmt};

use crate::time::Millis;

/// Lines kept for a violation. Unit: events. Default: 60. Cost: none to speak of.
const TAIL: usize = 60;

#[derive(Clone, Copy, Debug)]
struct Line {
    at: Millis,
    node: usize,
    what: &'static str,
    detail: u64,
}

/// Hashes every event.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    hasher: blake3::Hasher,
    steps: u64,
    tail: VecDeque<Line>,
    test: &'static str,
}

impl Trace {
    /// `test`: the name of one that plays the seed in `MESH_SIM_SEED`.
    pub(super) fn new(test: &'static str) -> Self {
        Self { hasher: blake3::Hasher::new(), steps: 0, tail: VecDeque::new(), test }
    }

    /// Something that is part of the hash, and would only fill the tail.
    pub(super) fn pass(&mut self, at: Millis, node: usize, what: &'static str, detail: u64) {
        self.steps += 1;
        self.hasher.update(&at.0.to_le_bytes()).update(&(node as u64).to_le_bytes());
        self.hasher.update(what.as_bytes()).update(&detail.to_le_bytes());
    }

    pub(super) fn note(&mut self, at: Millis, node: usize, what: &'static str, detail: u64) {
        self.pass(at, node, what, detail);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(Line { at, node, what, detail });
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn violation(&self, seed: u64, at: Millis, what: String) -> Box<Violation> {
        let lines = self.tail.iter().map(|l| format!("{:>8} node {:>4} {} {}", l.at.0, l.node, l.what, l.detail));
        Box::new(Violation { seed, at, what, tail: lines.collect(), test: self.test })
    }
}

/// A run that broke no law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The hash of everything that happened.
    pub trace: [u8; 32],
    /// Events.
    pub steps: u64,
    /// Places claimed, or hosts tried, in all.
    pub moves: u64,
    /// Records, or frames, delivered.
    pub deliveries: u64,
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// The run's seed.
    pub seed: u64,
    /// When, in the world's time.
    pub at: Millis,
    /// Which law, and by whom.
    pub what: String,
    /// The last events before.
    pub tail: Vec<String>,
    /// The test that plays the seed again.
    pub test: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tail.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "seed {} at {}: {}", self.seed, self.at, self.what)?;
        write!(f, "again: MESH_SIM_SEED={} cargo nextest run -p mesh-proto {}", self.seed, self.test)
    }
}
