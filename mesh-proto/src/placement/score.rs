//! Weighted rendezvous: every node computes the same order of hosts; must not know leases or time.

use std::cmp::Ordering;

use super::ModelKey;
use crate::identity::NodeId;

/// How much a node can take of a model; 0: it cannot host it. A node twice as heavy wins twice as many models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(pub u32);

/// The most a weight counts for, and what a liar's can be. Unit: none. Default: 64, the product of the
/// classes' maxima. Cost: a liar of 64 among honest ones of 16 wins four times its share.
pub const MAX_WEIGHT: Weight = Weight(64);

/// What a weight is made of. Every input is put into a coarse class, so that a changing load does not
/// change the order with each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tokens per second the node decodes, measured or estimated.
    pub tokens_per_second: u32,
    /// Bytes the model needs with one full context.
    pub need_bytes: u64,
    /// Bytes the node has for models and KV, without this model.
    pub free_bytes: u64,
    /// Requests in flight and queued.
    pub busy: u32,
    /// Requests it can run at once.
    pub slots: u32,
}

impl Capacity {
    /// Speed class (1, 2, 4, 8) times memory class (1, 2) times load class (1, 2, 4). Origin of the borders:
    /// guesses, a factor of four apart in speed as machines are. 0 where the model does not fit.
    pub fn weight(&self) -> Weight {
        let speed = match self.tokens_per_second {
            0..10 => 1,
            10..40 => 2,
            40..160 => 4,
            _ => 8,
        };
        let memory = match self.free_bytes {
            free if free < self.need_bytes => 0,
            free if free / 2 < self.need_bytes => 1,
            _ => 2,
        };
        let load = match (self.busy, self.slots.max(1)) {
            (busy, slots) if busy >= slots => 1,
            (busy, slots) if busy.saturating_mul(2) >= slots => 2,
            _ => 4,
        };
        Weight(speed * memory * load)
    }
}

/// The rendezvous score of `node` for `model`: -weight / ln(u), with u in (0, 1) drawn from both ids
/// (Schindelhauer and Schomaker 2005). When a node leaves, exactly its models move; when a weight changes,
/// models move from or to that node only.
pub fn score(model: ModelKey, node: NodeId, weight: Weight) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mesh-llm rendezvous v1").update(&model.0).update(&node.0);
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    // 53 bits, the middle of each step: neither 0 nor 1 can come out.
    let u = ((u64::from_le_bytes(first) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(weight.min(MAX_WEIGHT).0) / -u.ln()
}

/// A node in a model's order of hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The node.
    pub node: NodeId,
    /// Whether the model is loaded there: such a node costs no load, so it goes first.
    pub ready: bool,
    /// Its [`score`].
    pub score: f64,
}

impl Ranked {
    /// The order of hosts, best first.
    pub fn order(&self, other: &Self) -> Ordering {
        other
            .ready
            .cmp(&self.ready)
            .then_with(|| other.score.total_cmp(&self.score))
            .then_with(|| self.node.cmp(&other.node))
    }
}

/// The order in which the able nodes among `nodes` (id, ready, weight) host `model`, best first.
pub fn rank(model: ModelKey, nodes: impl IntoIterator<Item = (NodeId, bool, Weight)>) -> Vec<Ranked> {
    let able = nodes.into_iter().filter(|(_, _, weight)| weight.0 > 0);
    let mut ranked: Vec<Ranked> =
        able.map(|(node, ready, weight)| Ranked { node, ready, score: score(model, node, weight) }).collect();
    ranked.sort_by(Ranked::order);
    ranked
}
