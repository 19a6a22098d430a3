//! What this door has learned of each node by asking it; must not know what the nodes say of themselves.

use std::collections::BTreeMap;

use super::{Breaker, BreakerState, PeakEwma};
use crate::{identity::NodeId, time::Millis};

#[derive(Clone, Copy, Debug, Default)]
struct Target {
    latency: PeakEwma,
    breaker: Breaker,
    outstanding: u32,
}

/// Latency, breaker and requests in flight, by node.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    seed: u64,
    nodes: BTreeMap<NodeId, Target>,
}

impl Targets {
    /// `seed` spreads the breakers' back-offs; each door takes another.
    pub fn new(seed: u64) -> Self {
        Self { seed, nodes: BTreeMap::new() }
    }

    /// A request is on its way to `node`.
    pub fn sent(&mut self, node: NodeId, now: Millis) {
        let target = self.target(node);
        target.outstanding = target.outstanding.saturating_add(1);
        target.breaker.sent(now);
    }

    /// `node` has said its first event, so long after it was asked.
    pub fn answered(&mut self, node: NodeId, latency: Millis, now: Millis) {
        let target = self.target(node);
        target.latency.observe(latency, now);
        target.breaker.began();
    }

    /// A request at `node` was answered to its end.
    pub fn done(&mut self, node: NodeId) {
        let target = self.target(node);
        target.outstanding = target.outstanding.saturating_sub(1);
        target.breaker.succeeded();
    }

    /// A request at `node` was cancelled by the client.
    pub fn ended(&mut self, node: NodeId) {
        let target = self.target(node);
        target.outstanding = target.outstanding.saturating_sub(1);
        target.breaker.withdrawn();
    }

    /// `node` answered with a refusal (busy, draining, the caller's mistake): it is well.
    pub fn refused(&mut self, node: NodeId) {
        let target = self.target(node);
        target.outstanding = target.outstanding.saturating_sub(1);
        target.breaker.succeeded();
    }

    /// A request at `node` has ended because it cannot be reached, fell silent or broke off.
    pub fn failed(&mut self, node: NodeId, now: Millis) {
        let target = self.target(node);
        target.outstanding = target.outstanding.saturating_sub(1);
        target.breaker.failed(now);
    }

    /// `node` has left, or has come back as a new process: what was learned no longer holds.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// What `node`'s breaker lets through.
    pub fn breaker(&self, node: NodeId, now: Millis) -> BreakerState {
        self.nodes.get(&node).map_or(BreakerState::Closed, |target| target.breaker.state(now))
    }

    /// Peak EWMA of the time to the first event, milliseconds; `None` before the first.
    pub fn latency_ms(&self, node: NodeId) -> Option<f64> {
        self.nodes.get(&node).filter(|target| target.latency.is_known()).map(|target| target.latency.millis())
    }

    /// Requests on their way.
    pub fn outstanding(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |target| target.outstanding)
    }

    fn target(&mut self, node: NodeId) -> &mut Target {
        let mut seed = [0; 8];
        seed.copy_from_slice(&node.0[..8]);
        let breaker = Breaker::new(self.seed ^ u64::from_le_bytes(seed));
        self.nodes.entry(node).or_insert(Target { breaker, ..Target::default() })
    }
}
