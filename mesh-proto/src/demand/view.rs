//! Everybody's demand, added up; must not know how it travelled.

use std::collections::BTreeMap;

use super::{DecayedRate, rate::decay};
use crate::{ModelId, identity::NodeId, time::Millis};

/// Most models one node may name. Unit: models. Default: 64. Origin: the cap on a record's lists (iroh.md 5).
/// Cost: the least asked for of more than 64 models count only where their own door hosts them.
pub const MAX_DEMANDED_MODELS: usize = 64;

/// Most that one node's word counts for. Unit: thousandths of a request per second. Default: 100,000
/// (100 req/s). Origin: guess, above what one door can pass on. Cost: a liar can claim this much and no more.
pub const MAX_NODE_RATE: u32 = 100_000;

/// A model asked for less often than this is not wanted. Unit: requests per second. Default: 0.001.
/// Origin: one request counts 0.0116 at once, so it keeps its model wanted for three and a half minutes.
/// Cost of less: forgotten models stay loaded longer.
pub const UNWANTED_BELOW: f64 = 0.001;

/// One line of a node's published demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDemand {
    /// The model, by the name that clients used.
    pub model: ModelId,
    /// Thousandths of a request per second, as of publication.
    pub millis: u32,
}

/// What this node's own door is asked for.
#[derive(Clone, Debug, Default)]
pub struct DemandMeter {
    rates: BTreeMap<ModelId, DecayedRate>,
}

impl DemandMeter {
    /// Counts one request for `model`.
    pub fn asked(&mut self, model: ModelId, now: Millis) {
        self.rates.entry(model).or_default().count(1, now);
    }

    /// What to publish: the [`MAX_DEMANDED_MODELS`] most wanted, in the models' order. Forgets the unwanted.
    pub fn report(&mut self, now: Millis) -> Vec<ModelDemand> {
        self.rates.retain(|_, rate| rate.per_second(now) >= UNWANTED_BELOW);
        let mut lines: Vec<ModelDemand> = self
            .rates
            .iter()
            .map(|(model, rate)| ModelDemand { model: model.clone(), millis: to_millis(rate.per_second(now)) })
            .collect();
        lines.sort_by(|a, b| b.millis.cmp(&a.millis).then_with(|| a.model.cmp(&b.model)));
        lines.truncate(MAX_DEMANDED_MODELS);
        lines.sort_by(|a, b| a.model.cmp(&b.model));
        lines
    }
}

/// Rounds up, so that what is wanted at all is never published as nothing.
fn to_millis(per_second: f64) -> u32 {
    (per_second * 1000.0).ceil().clamp(0.0, f64::from(MAX_NODE_RATE)) as u32
}

/// The mesh's demand as one node knows it. Merging is idempotent and order-free: a node's newest word
/// replaces its older one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DemandView {
    models: BTreeMap<ModelId, BTreeMap<NodeId, Said>>,
    nodes: BTreeMap<NodeId, Vec<ModelId>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    millis: u32,
    at: Millis,
}

impl DemandView {
    /// Takes `node`'s own words in place of what it said before. `now` is the time of arrival here: between
    /// two records a node's word decays like everything else, so a silent node is forgotten by itself.
    pub fn merge(&mut self, node: NodeId, lines: &[ModelDemand], now: Millis) {
        self.forget(node);
        let mut said = Vec::new();
        for line in lines.iter().take(MAX_DEMANDED_MODELS) {
            let entry = Said { millis: line.millis.min(MAX_NODE_RATE), at: now };
            if self.models.entry(line.model.clone()).or_default().insert(node, entry).is_none() {
                said.push(line.model.clone());
            }
        }
        if !said.is_empty() {
            self.nodes.insert(node, said);
        }
    }

    /// `node` is gone, and its users with it.
    pub fn forget(&mut self, node: NodeId) {
        for model in self.nodes.remove(&node).unwrap_or_default() {
            if let Some(by_node) = self.models.get_mut(&model) {
                by_node.remove(&node);
                if by_node.is_empty() {
                    self.models.remove(&model);
                }
            }
        }
    }

    /// Requests per second for `model`, all doors together.
    pub fn per_second(&self, model: &ModelId, now: Millis) -> f64 {
        let by_node = self.models.get(model).into_iter().flat_map(BTreeMap::values);
        by_node.map(|said| f64::from(said.millis) / 1000.0 * decay(now.since(said.at))).sum()
    }

    /// Every model that is wanted now, with its rate in requests per second, in the models' order.
    pub fn wanted(&self, now: Millis) -> Vec<(ModelId, f64)> {
        let rates = self.models.keys().map(|model| (model.clone(), self.per_second(model, now)));
        rates.filter(|(_, rate)| *rate >= UNWANTED_BELOW).collect()
    }
}
