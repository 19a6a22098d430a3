//! Push-pull anti-entropy: what is answered to each frame; must not know why a record is believed.

use super::{Aged, Directory, Effect, Item, Judge, ROUND, Range, RangeDigest, SyncFrame};
use crate::{
    codec::{self, Ext},
    identity::NodeId,
    record::Version,
    time::{Millis, Now},
};

/// Up to so many records of both sides together a range is listed instead of split. Guess: 16 sub-digests take
/// as many bytes as 9 items, and a split costs a round trip.
const LEAF: u32 = 32;
/// Bytes of a record in a frame beside its body: signature, lengths, age.
const OVERHEAD: usize = 80;
/// What a frame is charged beside its bytes.
const FRAME_CHARGE: u64 = 256;

impl<J: Judge> Directory<J> {
    /// Opens a round with a peer.
    pub(super) fn ask(&mut self, peer: NodeId) {
        if self.links.contains_key(&peer) {
            let all = self.store.digest(Range::ALL);
            self.send_digest(peer, vec![all], false);
        }
    }

    /// Tells every peer but one that the revocation list is newer; who lacks it asks by its own number.
    pub(super) fn tell_number(&mut self, except: Option<NodeId>) {
        let peers: Vec<NodeId> = self.links.keys().copied().filter(|peer| Some(*peer) != except).collect();
        for peer in peers {
            self.send_digest(peer, Vec::new(), false);
        }
    }

    fn send_digest(&mut self, to: NodeId, ranges: Vec<RangeDigest>, more: bool) {
        let revocations = self.store.revocations.number();
        let frame = SyncFrame::Digest { ranges, revocations, more, ext: Ext::default() };
        self.effects.push_back(Effect::Send { to, frame });
    }

    pub(super) fn frame(&mut self, from: NodeId, bytes: &[u8], now: Now) {
        if !self.affords(from, bytes.len() as u64 + FRAME_CHARGE, now.local) {
            return;
        }
        let frame = match codec::decode::<SyncFrame>(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.unreadable(from, error),
        };
        match frame {
            SyncFrame::Digest { ranges, revocations, more, .. } => {
                self.compare_numbers(from, revocations, now.local);
                self.compare(from, &ranges, now.local);
                if more {
                    self.ask_again(from, now.local);
                }
            }
            SyncFrame::Items { ranges, items, .. } => self.reconcile(from, &ranges, &items, now),
            SyncFrame::Want { nodes, .. } => self.push(from, &nodes, now.local),
            SyncFrame::Records { records, more, .. } => {
                for aged in &records {
                    self.take_from(from, aged, now);
                }
                if more {
                    self.ask_again(from, now.local);
                }
            }
            SyncFrame::Revocations { root, list, .. } => self.revoke(root, &list, Some(from), now),
        }
    }

    fn compare_numbers(&mut self, peer: NodeId, theirs: u64, now: Millis) {
        let ours = self.store.revocations.number();
        if ours > theirs {
            let Some((root, list)) = self.store.revocations.signed().cloned() else { return };
            if self.may_send(peer, list.len(), now) {
                let frame = SyncFrame::Revocations { root, list, ext: Ext::default() };
                self.effects.push_back(Effect::Send { to: peer, frame });
            }
        } else if ours < theirs {
            self.send_digest(peer, Vec::new(), false);
        }
    }

    /// Answers digests: equal ranges with nothing, empty ones with records, small ones with a list, big ones
    /// with their parts.
    fn compare(&mut self, peer: NodeId, theirs: &[RangeDigest], now: Millis) {
        let (mut parts, mut leaves, mut gift) = (Vec::new(), Vec::new(), Vec::new());
        let (mut listed, mut more, mut disputed) = (0, false, None);
        for their in theirs {
            if !their.range.is_valid() {
                self.count("range");
                continue;
            }
            let our = self.store.digest(their.range);
            if our == *their {
                continue;
            }
            disputed = disputed.or_else(|| self.store.disputed(&our, their).cloned());
            if their.count == 0 {
                gift.extend(self.store.live().range(their.range).map(|(node, _)| *node));
            } else if our.count == 0 {
                parts.push(our);
            } else if our.count.saturating_add(their.count) <= LEAF || their.range.bits == Range::DEEPEST {
                let items = self.store.items(their.range);
                if listed + items.len() > SyncFrame::MAX_ITEMS {
                    more = true;
                    continue;
                }
                listed += items.len();
                leaves.push((their.range, items));
            } else {
                parts.extend(self.store.parts(their.range));
            }
        }
        if let Some(contact) = disputed {
            self.look_again(contact, now);
        }
        more |= parts.len() > SyncFrame::MAX_RANGES;
        parts.truncate(SyncFrame::MAX_RANGES);
        if !parts.is_empty() && self.may_send(peer, parts.len() * 32, now) {
            self.send_digest(peer, parts, more);
        }
        if !leaves.is_empty() && self.may_send(peer, listed * 48, now) {
            let ranges = leaves.iter().map(|(range, _)| *range).collect();
            let items = leaves.into_iter().flat_map(|(_, items)| items).collect();
            self.effects
                .push_back(Effect::Send { to: peer, frame: SyncFrame::Items { ranges, items, ext: Ext::default() } });
        }
        self.push(peer, &gift, now);
    }

    /// Answers a list: sends what the peer lacks, asks for what it has newer.
    fn reconcile(&mut self, peer: NodeId, ranges: &[Range], items: &[Item], now: Now) {
        let theirs: std::collections::BTreeMap<NodeId, _> = items.iter().map(|i| (i.node, i.version)).collect();
        let mut lacks = Vec::new();
        for range in ranges.iter().filter(|range| range.is_valid()) {
            for (node, entry) in self.store.live().range(*range) {
                if theirs.get(node).is_none_or(|version| *version < entry.record.version) {
                    lacks.push(*node);
                }
            }
        }
        let news = theirs.iter().filter(|(node, version)| {
            self.store.version(node).is_none_or(|known| known < **version) && !self.store.revocations.expels(node)
        });
        let nodes: Vec<NodeId> = news.map(|(node, _)| *node).filter(|node| *node != self.me).collect();
        if let Some(version) = theirs.get(&self.me) {
            self.told_of_oneself(*version, now);
        }
        // The peer itself leads an earlier life than one that fell here: its clock went back. There is no record to show
        // it, and nobody but those who remember its fall can tell it.
        let fell = self.store.version(&peer).filter(|_| self.store.live().get(&peer).is_none());
        if let Some(version) = fell.filter(|fell| theirs.get(&peer).is_some_and(|said| said < fell))
            && self.may_send(peer, 48, now.local)
        {
            let items = vec![Item { node: peer, version }];
            self.effects.push_back(Effect::Send {
                to: peer,
                frame: SyncFrame::Items { ranges: Vec::new(), items, ext: Ext::default() },
            });
        }
        if !nodes.is_empty() && self.may_send(peer, nodes.len() * 32, now.local) {
            self.effects.push_back(Effect::Send { to: peer, frame: SyncFrame::Want { nodes, ext: Ext::default() } });
        }
        self.push(peer, &lacks, now.local);
    }

    /// Somebody knows a later life of this node than it does itself. The claim is not signed, so it counts once a
    /// round, and only where following it does not lead into the future: an incarnation ahead of this node's clock
    /// is refused by all whose clocks are behind, and a liar could make it vanish so. A node whose clock went back
    /// behind its last start is told again, until its clock has passed that.
    fn told_of_oneself(&mut self, version: Version, now: Now) {
        let own = self.store.version(&self.me).unwrap_or_default();
        let rested = self.outran.is_none_or(|at| now.local.since(at) >= ROUND);
        if version > own && version.incarnation <= now.unix.0 && rested {
            self.outran = Some(now.local);
            self.effects.push_back(Effect::Outrun(version));
        }
    }

    /// Sends records, as many as one frame and the peer's budget hold.
    fn push(&mut self, peer: NodeId, nodes: &[NodeId], now: Millis) {
        let (mut records, mut bytes, mut more) = (Vec::<Aged>::new(), 0, false);
        for entry in nodes.iter().filter_map(|node| self.store.live().get(node)) {
            let size = entry.signed.len() + OVERHEAD;
            if bytes + size > SyncFrame::RECORD_BYTES || records.len() == SyncFrame::MAX_RECORDS {
                more = true;
                break;
            }
            bytes += size;
            records.push(entry.aged(now));
        }
        if !records.is_empty() && self.may_send(peer, bytes, now) {
            let frame = SyncFrame::Records { records, more, ext: Ext::default() };
            self.effects.push_back(Effect::Send { to: peer, frame });
        }
    }

    fn may_send(&mut self, peer: NodeId, bytes: usize, now: Millis) -> bool {
        let may = self.links.get_mut(&peer).is_some_and(|link| link.send.take(bytes as u64, now));
        if !may {
            self.count("send_budget");
        }
        may
    }
}
