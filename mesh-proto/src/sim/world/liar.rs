//! What liars do beside publishing lies; must not know whether it helps them.

use std::rc::Rc;

use rand::RngExt;

use super::{World, node::Msg, plan::Lying};
use crate::{
    codec::{self, Ext},
    directory::{Aged, Announce, Item, Range, RangeDigest, SyncFrame},
    identity::{Contact, NodeId, Signed},
    record::{Record, Version},
    suspicion::ProbeFrame,
    time::Millis,
};

impl World {
    /// A liar's second.
    pub(super) fn deceive(&mut self, liar: usize) {
        match self.nodes[liar].lie {
            Some(Lying::Accuses) => self.accuse(liar),
            Some(Lying::Forges) => self.forge(liar),
            _ => {}
        }
    }

    fn someone(&mut self, but: usize) -> usize {
        let other = self.rng.random_range(0..self.nodes.len() - 1);
        if other >= but { other + 1 } else { other }
    }

    /// The incarnation that the liar knows of a node, or knew.
    fn life_of(&self, liar: usize, node: usize) -> u64 {
        let entry = self.nodes[liar].own.directory.get(&self.nodes[node].id);
        entry.map_or(self.nodes[node].version.incarnation, |entry| entry.record.version.incarnation)
    }

    fn accuse(&mut self, liar: usize) {
        let node = self.someone(liar);
        let (id, incarnation) = (self.nodes[node].id, self.life_of(liar, node));
        let frame = match self.rng.random_range(0..6) {
            0..3 => ProbeFrame::Accuse { node: id, incarnation },
            3 => ProbeFrame::Accuse { node: id, incarnation: u64::MAX },
            4 => ProbeFrame::Vouch(id),
            _ => ProbeFrame::Ask(id),
        };
        let Ok(bytes) = codec::encode(&frame) else { return };
        let accuses = matches!(frame, ProbeFrame::Accuse { .. });
        if accuses && self.plan.nodes > crate::suspicion::FULL_WATCH {
            return self.gossip(liar, bytes, true);
        }
        let bytes = Rc::new(bytes);
        self.send_all(liar, || Msg::Probe(Rc::clone(&bytes)));
    }

    fn forge(&mut self, liar: usize) {
        let victim = self.someone(liar);
        let peers: Vec<usize> = self.nodes[liar].links.keys().copied().collect();
        let Some(&to) = peers.get(self.rng.random_range(0..peers.len().max(1))) else { return };
        let ext = Ext::default;
        let version = Version { incarnation: u64::MAX, sequence: 0 };
        let frame = match self.rng.random_range(0..8) {
            0 => self.in_the_name_of(liar, victim).map(|record| SyncFrame::Records {
                records: vec![Aged { age: Millis(0), record }],
                more: false,
                ext: ext(),
            }),
            1 | 2 => self.replayed(victim).map(|record| SyncFrame::Records {
                records: vec![Aged { age: Millis(0), record }],
                more: false,
                ext: ext(),
            }),
            3 => Some(self.items(victim, version)),
            4 => {
                // What the receiver itself said, or a little more: it is to run from its own shadow.
                let now = self.clock(liar).unix.0 + self.rng.random_range(0..200_000);
                Some(self.items(to, Version { incarnation: now, sequence: 1 << 40 }))
            }
            5 => {
                let mut list = self.list.next(self.clock(liar).unix);
                list.nodes.push(self.nodes[victim].id);
                let signed = self.lab.sign(&list, liar);
                let root = self.nodes[0].chain.root;
                signed.map(|(_, list)| SyncFrame::Revocations { root, list, ext: ext() })
            }
            6 => {
                let range = RangeDigest { range: Range::ALL, count: u32::MAX, sum: [7; 16] };
                Some(SyncFrame::Digest { ranges: vec![range; 64], revocations: u64::MAX, more: true, ext: ext() })
            }
            _ => {
                self.gossip_forgeries(liar, victim);
                None
            }
        };
        if let Some(bytes) = frame.and_then(|frame| codec::encode(&frame).ok()) {
            self.send(liar, to, Msg::Sync(Rc::new(bytes)));
        }
    }

    fn items(&self, node: usize, version: Version) -> SyncFrame {
        let items = vec![Item { node: self.nodes[node].id, version }];
        SyncFrame::Items { ranges: vec![Range { bits: 16, prefix: 0xFFFF }], items, ext: Ext::default() }
    }

    /// Gossip is passed on by those who cannot judge it, so any of this may come from an honest neighbour.
    fn gossip_forgeries(&mut self, liar: usize, victim: usize) {
        let record = if self.rng.random() { self.in_the_name_of(liar, victim) } else { self.replayed(victim) };
        let Some(record) = record else { return };
        let announce = Announce { aged: Aged { age: Millis(0), record }, ext: Ext::default() };
        let Ok(mut bytes) = codec::encode(&announce) else { return };
        if self.rng.random_ratio(1, 3) {
            let at = self.rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << self.rng.random_range(0..8);
        }
        if self.plan.nodes > crate::suspicion::FULL_WATCH {
            return self.gossip(liar, bytes, false);
        }
        let bytes = Rc::new(bytes);
        self.send_all(liar, || Msg::Word(Rc::clone(&bytes)));
    }

    /// A newer record of the victim, as good as the liar can make it: signed with its own key.
    fn in_the_name_of(&mut self, liar: usize, victim: usize) -> Option<Signed<Record>> {
        let now = self.clock(liar).unix;
        let last = self.nodes[victim].said.values().last()?.last()?.claim().ok()?;
        let node: NodeId = self.nodes[victim].id;
        let version = Version { sequence: last.version.sequence + 1000, ..last.version };
        let contact = Contact { node, direct: vec![([10, 0, 0, 66], 666).into()], relay: None };
        let record = Record { version, issued_at: now, draining: true, contact, ..last };
        Signed::sign(&record, &self.nodes[liar].key).ok()
    }

    /// Something that the victim did sign, some time.
    fn replayed(&mut self, victim: usize) -> Option<Signed<Record>> {
        let count = self.nodes[victim].said.len();
        let at = self.rng.random_range(0..count.max(1));
        self.nodes[victim].said.values().nth(at)?.first().cloned()
    }
}
