//! A mesh that stands already when the trouble begins; must not know what befalls it.
//!
//! To hand all records to everybody in frames takes a hundred million decisions at 10,000 nodes, all of them the same: five
//! of our minutes, before anything is simulated. So each record is judged once, and put into every directory.

use std::{collections::BTreeSet, sync::Arc};

use super::{World, plan::Lying};
use crate::{directory::Believed, identity::NodeId, placement, time::Millis};

/// When everybody has started and said its first word.
pub(super) const STANDS: Millis = Millis(2_000);

impl World {
    /// Everybody knows everybody's first record.
    pub(super) fn stand(&mut self) {
        let now = self.now();
        let mut first: Vec<(Arc<Believed>, Millis, usize)> = Vec::with_capacity(self.nodes.len());
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            let entry = node.own.directory.get(&node.id);
            first.extend(entry.map(|entry| (Arc::clone(entry.body()), now.since(node.said_at), number)));
        }
        first.sort_by_key(|(body, ..)| body.record.node);
        let mut members = vec![0u64; self.nodes.len().div_ceil(64)];
        first.iter().for_each(|(.., node)| members[node / 64] |= 1 << (node % 64));
        let busy: Vec<usize> = (0..first.len()).filter(|at| !first[*at].0.record.demand.is_empty()).collect();
        let sharing = self.sharing();
        for at in 0..self.nodes.len() {
            if !self.nodes[at].up {
                continue;
            }
            let clock = self.clock(at);
            let records = first.iter().map(|(body, age, _)| (body, *age));
            self.nodes[at].own.directory.fill(records, clock);
            self.nodes[at].members.clone_from(&members);
            for (body, ..) in busy.iter().map(|busy| &first[*busy]) {
                self.wanted(at, body.record.node, &body.record, clock.local);
            }
            let mut others: BTreeSet<usize> = sharing.0.iter().copied().collect();
            others.extend(self.nodes[at].offers.iter().flat_map(|model| &sharing.1[*model]).copied());
            for other in others.into_iter().filter(|other| *other != at) {
                let id: NodeId = self.nodes[other].id;
                let Some(body) = self.nodes[at].own.directory.get(&id).map(|entry| Arc::clone(entry.body())) else {
                    continue;
                };
                self.placement(at, placement::Input::Peer(placement::HostView::of(&body.record)));
            }
            self.watch_the_standing(at);
            self.finish(at);
        }
    }

    /// Who says that it has every model, and who has each.
    fn sharing(&self) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut each = vec![Vec::new(); self.plan.models];
        for (number, node) in self.nodes.iter().enumerate() {
            node.offers.iter().for_each(|model| each[*model].push(number));
        }
        let says = |number: &usize| self.nodes[*number].lie.is_some_and(Lying::claims);
        ((0..self.nodes.len()).filter(says).collect(), each)
    }
}
