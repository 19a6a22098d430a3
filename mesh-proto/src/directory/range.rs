//! Ranges of node ids and what two nodes compare of them; must not know records.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{identity::NodeId, record::Version};

/// All node ids that begin with the first `bits` bits of `prefix`. Ids are keys, hence evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// 0, 4, 8, 12 or 16.
    pub bits: u8,
    /// The first two bytes, big endian; bits after the first `bits` are 0.
    pub prefix: u16,
}

/// How much is in a range, and a sum that differs when the content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeDigest {
    /// Which.
    pub range: Range,
    /// How many live records.
    pub count: u32,
    /// The sum, modulo 2¹²⁸, of the first 16 bytes of BLAKE3(node ‖ incarnation ‖ sequence), little endian.
    pub sum: [u8; 16],
}

impl Range {
    /// Everybody.
    pub const ALL: Self = Self { bits: 0, prefix: 0 };
    /// The finest, 65,536 of them: what is in one is listed whatever its size.
    pub const DEEPEST: u8 = 16;

    /// Whether this is a range at all.
    pub fn is_valid(&self) -> bool {
        self.bits <= Self::DEEPEST && self.bits.is_multiple_of(4) && self.prefix & !self.mask() == 0
    }

    fn mask(&self) -> u16 {
        u16::MAX.checked_shl(16 - u32::from(self.bits)).unwrap_or(0)
    }

    /// Whether a node lies in it.
    pub fn contains(&self, node: &NodeId) -> bool {
        u16::from_be_bytes([node.0[0], node.0[1]]) & self.mask() == self.prefix
    }

    /// Its first and its last id.
    pub fn ids(&self) -> RangeInclusive<NodeId> {
        let (mut first, mut last) = ([0u8; 32], [0xff; 32]);
        first[..2].copy_from_slice(&self.prefix.to_be_bytes());
        last[..2].copy_from_slice(&(self.prefix | !self.mask()).to_be_bytes());
        NodeId(first)..=NodeId(last)
    }

    /// Its sixteen parts; none of the deepest.
    pub fn split(&self) -> impl Iterator<Item = Self> + use<> {
        let (bits, prefix) = (self.bits + 4, self.prefix);
        let parts = if bits <= Self::DEEPEST { 16u16 } else { 0 };
        (0..parts).map(move |part| Self { bits, prefix: prefix | (part << (16 - bits)) })
    }
}

/// What an entry adds to its range's sum.
pub(super) fn term(node: &NodeId, version: Version) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.0).update(&version.incarnation.to_le_bytes()).update(&version.sequence.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// The digest of a range out of the terms of all that is in it.
pub(super) fn digest(range: Range, terms: impl Iterator<Item = u128>) -> RangeDigest {
    let add = |(count, sum): (u32, u128), term| (count.saturating_add(1), sum.wrapping_add(term));
    let (count, sum) = terms.fold((0, 0), add);
    RangeDigest { range, count, sum: sum.to_le_bytes() }
}

/// Counts and sums of all ranges of up to 8 bits, kept as entries come and go: 273 of them, 9 KB. The digest of a
/// whole mesh is asked for each round, and a walk over 10,000 entries costs 100 µs.
#[derive(Debug)]
pub(super) struct Sums(Vec<(u32, u128)>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![(0, 0); Self::START[3]])
    }
}

impl Sums {
    /// Where the ranges of 0, 4 and 8 bits begin, and their end.
    const START: [usize; 4] = [0, 1, 17, 273];
    pub(super) const DEEPEST: u8 = 8;

    fn places(node: &NodeId) -> [usize; 3] {
        let first = usize::from(node.0[0]);
        [Self::START[0], Self::START[1] + (first >> 4), Self::START[2] + first]
    }

    pub(super) fn add(&mut self, node: &NodeId, term: u128) {
        for place in Self::places(node) {
            let (count, sum) = &mut self.0[place];
            (*count, *sum) = (count.saturating_add(1), sum.wrapping_add(term));
        }
    }

    pub(super) fn remove(&mut self, node: &NodeId, term: u128) {
        for place in Self::places(node) {
            let (count, sum) = &mut self.0[place];
            (*count, *sum) = (count.saturating_sub(1), sum.wrapping_sub(term));
        }
    }

    /// A range's digest, if it is one of those that are kept.
    pub(super) fn digest(&self, range: Range) -> Option<RangeDigest> {
        let start = Self::START.get(usize::from(range.bits / 4)).filter(|_| range.bits <= Self::DEEPEST)?;
        let (count, sum) = *self.0.get(start + (usize::from(range.prefix) >> (16 - range.bits)))?;
        Some(RangeDigest { range, count, sum: sum.to_le_bytes() })
    }
}
