//! What all open sequences remember; must not know tokens, sampling or families.
//!
//! [`Layout`] says what each layer remembers of a sequence: keys and values of all tokens, or of the last ones in a ring,
//! or a state that each token replaces. A sequence's prompt is computed into a **strip** of its own. When it starts to
//! decode, its strip joins the **pool** of its capacity, so that all sequences of about one length attend in one
//! operation. Capacities double from [`MIN_CAPACITY`]: one long sequence does not pad the short ones to its length, and of
//! a row beyond the first capacity less than half lies unused.
//!
//! A beginning of a sequence can be copied ([`Prefix`]) for another that begins alike. Where rings or states are part of
//! it that went on since, it is a [`Snapshot`]'s, taken where a piece of the prompt ended.
//!
//! Everything here is functional: a step's arrays stay what they were when it was issued, so a sequence may be
//! removed or moved while steps are in flight.

mod layout;
mod pool;
mod prefix;
mod strip;

use std::collections::{BTreeMap, HashMap};

use engine::decoder::SeqId;
pub(crate) use layout::{LayerCache, Layout, State, Track};
pub(crate) use pool::{Pool, PoolStep};
pub(crate) use prefix::{Prefix, Snapshot, columns};
pub(crate) use strip::{ChunkView, Strip};

use crate::sys::Result;

/// Tokens. Origin: mlx-lm's step. Cost: rows shorter than this waste up to 256 tokens of KV each.
const MIN_CAPACITY: i32 = 256;

/// The smallest capacity class that holds `tokens`.
pub(crate) fn capacity_for(tokens: i32) -> i32 {
    let mut capacity = MIN_CAPACITY;
    while capacity < tokens {
        capacity *= 2;
    }
    capacity
}

/// Snapshots that a sequence has at most: where its prompt ended, and where the piece before its last one did. Guess: the
/// first serves conversations that go on, the second those that only begin alike. Cost: a copy of all rings and states.
const SNAPSHOTS: usize = 2;

/// All open sequences' keys and values.
pub(crate) struct Kv {
    pub(crate) layout: Layout,
    strips: HashMap<SeqId, Strip>,
    /// By capacity, so that the order of rows in a step is the same in every run.
    pools: BTreeMap<i32, Pool>,
    homes: HashMap<SeqId, i32>,
    /// By length.
    snapshots: HashMap<SeqId, Vec<Snapshot>>,
}

impl Kv {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            strips: HashMap::new(),
            pools: BTreeMap::new(),
            homes: HashMap::new(),
            snapshots: HashMap::new(),
        }
    }

    /// Opens a sequence that will hold at least `tokens`; `prefix`: the memory of its first tokens.
    pub(crate) fn open(&mut self, seq: SeqId, tokens: i32, prefix: Option<&Prefix>) -> Result<()> {
        let mut strip = Strip::zeros(&self.layout, capacity_for(tokens))?;
        if let Some(prefix) = prefix {
            strip.write_prefix(&self.layout, prefix)?;
        }
        self.strips.insert(seq, strip);
        Ok(())
    }

    /// The strip of a sequence whose prompt is being computed.
    pub(crate) fn strip(&mut self, seq: SeqId) -> Option<&mut Strip> {
        self.strips.get_mut(&seq)
    }

    /// The strip of a sequence whose prompt is being computed, and what its layers remember.
    pub(crate) fn strip_and_layout(&mut self, seq: SeqId) -> Option<(&mut Strip, &Layout)> {
        self.strips.get_mut(&seq).map(|strip| (strip, &self.layout))
    }

    /// Keeps what could not be copied later of a sequence whose prompt is being computed.
    pub(crate) fn snapshot(&mut self, seq: SeqId) {
        if let Some(strip) = self.strips.get(&seq).filter(|_| self.layout.forgets()) {
            let kept = self.snapshots.entry(seq).or_default();
            if kept.len() == SNAPSHOTS {
                kept.remove(0);
            }
            kept.push(strip.snapshot(&self.layout));
        }
    }

    /// Moves a sequence whose prompt is computed into its pool.
    pub(crate) fn join(&mut self, seq: SeqId) -> Result<()> {
        if let Some(strip) = self.strips.remove(&seq) {
            let capacity = strip.capacity;
            self.pools.entry(capacity).or_insert_with(|| Pool::new(capacity)).push(seq, strip)?;
            self.homes.insert(seq, capacity);
        }
        Ok(())
    }

    /// Moves rows that have no room for one more token into the next capacity. A row in a pool always has this
    /// room afterwards, also one that does not advance: it is computed along with the others, and what it
    /// writes lies behind its end.
    pub(crate) fn make_room(&mut self) -> Result<()> {
        let full: Vec<(i32, SeqId)> =
            self.pools.iter().flat_map(|(capacity, pool)| pool.full().map(|seq| (*capacity, seq))).collect();
        for (capacity, seq) in full {
            let Some(pool) = self.pools.get_mut(&capacity) else { continue };
            let Some(strip) = pool.extract(seq)? else { continue };
            pool.remove(seq)?;
            let grown = strip.grown(&self.layout, capacity * 2)?;
            self.strips.insert(seq, grown);
            self.join(seq)?;
        }
        self.pools.retain(|_, pool| !pool.is_empty());
        Ok(())
    }

    /// Pools with at least one row, by capacity.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (i32, &Pool)> {
        self.pools.iter().map(|(capacity, pool)| (*capacity, pool))
    }

    pub(crate) fn pool(&mut self, capacity: i32) -> Option<&mut Pool> {
        self.pools.get_mut(&capacity)
    }

    pub(crate) fn pool_and_layout(&mut self, capacity: i32) -> Option<(&mut Pool, &Layout)> {
        self.pools.get_mut(&capacity).map(|pool| (pool, &self.layout))
    }

    /// The longest beginning of a sequence, of at most `tokens`, that can be copied.
    pub(crate) fn reach(&self, seq: SeqId, tokens: i32) -> i32 {
        let len = self.len(seq);
        let tokens = tokens.min(len);
        let capacity = self.homes.get(&seq).copied().or_else(|| self.strips.get(&seq).map(|strip| strip.capacity));
        if self.layout.least(len, capacity.unwrap_or(0)) <= tokens {
            return tokens;
        }
        self.snapshot_of(seq, tokens).map_or(0, |snapshot| snapshot.len)
    }

    /// The longest of a sequence's snapshots that has at most `tokens`.
    fn snapshot_of(&self, seq: SeqId, tokens: i32) -> Option<&Snapshot> {
        self.snapshots.get(&seq)?.iter().rev().find(|snapshot| snapshot.len <= tokens)
    }

    /// A copy of the memory of a sequence's first [`reach`](Self::reach) tokens.
    pub(crate) fn copy(&self, seq: SeqId, tokens: i32) -> Result<Option<Prefix>> {
        let strip = match self.homes.get(&seq) {
            Some(capacity) => match self.pools.get(capacity) {
                Some(pool) => pool.extract(seq)?,
                None => None,
            },
            None => None,
        };
        let strip = match &strip {
            Some(strip) => strip,
            None => match self.strips.get(&seq) {
                Some(strip) => strip,
                None => return Ok(None),
            },
        };
        let tokens = tokens.min(strip.len);
        if self.layout.least(strip.len, strip.capacity) <= tokens {
            return strip.prefix(&self.layout, tokens, None).map(Some);
        }
        match self.snapshot_of(seq, tokens) {
            Some(snapshot) => strip.prefix(&self.layout, snapshot.len, Some(snapshot)).map(Some),
            None => Ok(None),
        }
    }

    /// Tokens that a sequence holds.
    pub(crate) fn len(&self, seq: SeqId) -> i32 {
        let pooled = self.homes.get(&seq).and_then(|c| self.pools.get(c)).and_then(|pool| pool.len_of(seq));
        pooled.or_else(|| self.strips.get(&seq).map(|strip| strip.len)).unwrap_or(0)
    }

    /// Frees a sequence's place.
    pub(crate) fn close(&mut self, seq: SeqId) -> Result<()> {
        self.snapshots.remove(&seq);
        self.strips.remove(&seq);
        if let Some(capacity) = self.homes.remove(&seq)
            && let Some(pool) = self.pools.get_mut(&capacity)
        {
            pool.remove(seq)?;
            if pool.is_empty() {
                self.pools.remove(&capacity);
            }
        }
        Ok(())
    }

    /// Bytes allocated for open sequences, without their snapshots.
    pub(crate) fn bytes(&self) -> u64 {
        let place = |capacity| self.layout.bytes(capacity);
        let pools: u64 = self.pools.values().map(|pool| pool.slots() as u64 * place(pool.capacity)).sum();
        let strips: u64 = self.strips.values().map(|strip| place(strip.capacity)).sum();
        pools + strips
    }
}
