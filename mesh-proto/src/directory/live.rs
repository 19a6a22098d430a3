//! The records that stand, by their nodes' ids; must not know why they stand.
//!
//! Sorted lists, one for each first byte of an id. Ids are keys and spread evenly, so in a mesh of 10,000 a list has some
//! forty entries of 24 bytes. A B-tree with the ids in it took four times as much, and every node holds an entry for
//! every other.

use std::{cmp::Ordering, ops::Deref, sync::Arc};

use super::{Aged, Believed, Range};
use crate::{identity::NodeId, time::Millis};

/// A record that stands.
#[derive(Clone, Debug)]
pub struct Entry {
    body: Arc<Believed>,
    /// When it was signed, by this node's clock; before that clock's beginning, where it is older.
    signed_at: i64,
    /// How long after that it falls, in milliseconds: a record's lifetime at most.
    span: u32,
    /// The id's second to fifth byte, so that most comparisons need not look into the record.
    hint: u32,
}

impl Deref for Entry {
    type Target = Believed;
    fn deref(&self) -> &Believed {
        &self.body
    }
}

impl Entry {
    pub(super) fn new(body: Arc<Believed>, age: Millis, now: Millis, until: Millis) -> Self {
        let signed_at = signed(now) - signed(age);
        let span = u32::try_from(signed(until) - signed_at).unwrap_or(u32::MAX);
        Self { signed_at, span, hint: hint(&body.record.node), body }
    }

    /// How long ago it was signed.
    pub fn age(&self, now: Millis) -> Millis {
        Millis(u64::try_from(signed(now) - self.signed_at).unwrap_or(0))
    }

    /// The record as it can be kept and shared.
    pub fn body(&self) -> &Arc<Believed> {
        &self.body
    }

    /// When it falls, unless a newer one comes.
    pub fn until(&self) -> Millis {
        Millis(u64::try_from(self.signed_at + i64::from(self.span)).unwrap_or(0))
    }

    pub(super) fn aged(&self, now: Millis) -> Aged {
        Aged { age: self.age(now), record: self.signed.clone() }
    }

    fn node(&self) -> &NodeId {
        &self.body.record.node
    }

    fn order(&self, hint: u32, node: &NodeId) -> Ordering {
        self.hint.cmp(&hint).then_with(|| self.node().cmp(node))
    }
}

/// As a number that can be subtracted from. Clocks do not reach 2⁶², 146 million years.
fn signed(time: Millis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX).min(1 << 62)
}

fn hint(node: &NodeId) -> u32 {
    u32::from_be_bytes([node.0[1], node.0[2], node.0[3], node.0[4]])
}

/// All that stand.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// None before the first insertion, then 256.
    lists: Vec<Vec<Entry>>,
    len: usize,
}

impl Live {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Entry> {
        let list = self.lists.get(usize::from(node.0[0]))?;
        list.get(place(list, node).ok()?)
    }

    /// Makes room for these, as exactly as can be.
    pub(super) fn reserve<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId>) {
        let mut more = [0; 256];
        nodes.for_each(|node| more[usize::from(node.0[0])] += 1);
        self.lists.resize_with(256, Vec::new);
        self.lists.iter_mut().zip(more).for_each(|(list, more)| list.reserve_exact(more));
    }

    /// Puts an entry in; gives back the one that was there for the same node.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        if self.lists.is_empty() {
            self.lists.resize_with(256, Vec::new);
        }
        let list = &mut self.lists[usize::from(entry.node().0[0])];
        match place(list, entry.node()) {
            Ok(at) => Some(std::mem::replace(&mut list[at], entry)),
            Err(at) => {
                if list.len() == list.capacity() {
                    // Doubling would leave a third of all entries' room empty.
                    list.reserve_exact((list.len() / 8).max(4));
                }
                list.insert(at, entry);
                self.len += 1;
                None
            }
        }
    }

    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Entry> {
        let list = self.lists.get_mut(usize::from(node.0[0]))?;
        let at = place(list, node).ok()?;
        self.len -= 1;
        Some(list.remove(at))
    }

    /// All, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.lists.iter().flatten().map(|entry| (entry.node(), entry))
    }

    /// Those in a range, by id.
    pub(super) fn range(&self, range: Range) -> impl Iterator<Item = (&NodeId, &Entry)> {
        let ids = range.ids();
        let (first, last) = (*ids.start(), *ids.end());
        let lists = self.lists.get(usize::from(first.0[0])..=usize::from(last.0[0])).unwrap_or_default();
        // A range begins and ends with an id's first two bytes, so the hint tells all.
        let (first, last) = (hint(&first), hint(&last));
        let within = lists.iter().flat_map(move |list| {
            let start = list.partition_point(|entry| entry.hint < first);
            list[start..].iter().take_while(move |entry| entry.hint <= last)
        });
        within.map(|entry| (entry.node(), entry))
    }
}

/// Where a node's entry is in its list, or would be.
fn place(list: &[Entry], node: &NodeId) -> Result<usize, usize> {
    let hint = hint(node);
    list.binary_search_by(|entry| entry.order(hint, node))
}
