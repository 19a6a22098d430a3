//! Keys and values of all open sequences; must not know tokens, sampling or families.
//!
//! A sequence's prompt is computed into a **strip** of its own, `[1, heads, capacity, dim]` a layer. When it starts
//! to decode, its strip joins the **pool** of its capacity, `[slots, heads, capacity, dim]`, so that all sequences
//! of about one length attend in one operation. Capacities double from [`MIN_CAPACITY`]: one long sequence
//! does not pad the short ones to its length, and of a row beyond the first capacity less than half lies unused.
//!
//! Everything here is functional: a step's arrays stay what they were when it was issued, so a sequence may be
//! removed or moved while steps are in flight.

mod pool;
mod strip;

use std::collections::{BTreeMap, HashMap};

use engine::decoder::SeqId;
use mlx_rs::{Array, Dtype};

pub(crate) use pool::{Pool, PoolStep};
pub(crate) use strip::{LayerKv, Strip};

use crate::{families::ModelShape, sys::Result};

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

/// Sizes of one token's keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) heads: i32,
    pub(crate) dim: i32,
    pub(crate) dtype: Dtype,
}

impl KvShape {
    pub(crate) fn new(model: ModelShape, dtype: Dtype) -> Self {
        Self { layers: model.layers, heads: model.kv_heads, dim: model.head_dim, dtype }
    }

    /// Bytes of one token's keys and values over all layers.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        let item = if self.dtype == Dtype::Float32 { 4 } else { 2 };
        2 * self.layers as u64 * self.heads as u64 * self.dim as u64 * item
    }
}

/// All open sequences' keys and values.
pub(crate) struct Kv {
    pub(crate) shape: KvShape,
    strips: HashMap<SeqId, Strip>,
    /// By capacity, so that the order of rows in a step is the same in every run.
    pools: BTreeMap<i32, Pool>,
    homes: HashMap<SeqId, i32>,
}

impl Kv {
    pub(crate) fn new(shape: KvShape) -> Self {
        Self { shape, strips: HashMap::new(), pools: BTreeMap::new(), homes: HashMap::new() }
    }

    /// Opens a sequence that will hold at least `tokens`; `prefix`: keys and values of its first tokens.
    pub(crate) fn open(&mut self, seq: SeqId, tokens: i32, prefix: Option<&Prefix>) -> Result<()> {
        let mut strip = Strip::zeros(&self.shape, capacity_for(tokens))?;
        if let Some(prefix) = prefix {
            strip.write_prefix(prefix)?;
        }
        self.strips.insert(seq, strip);
        Ok(())
    }

    /// The strip of a sequence whose prompt is being computed.
    pub(crate) fn strip(&mut self, seq: SeqId) -> Option<&mut Strip> {
        self.strips.get_mut(&seq)
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
            let grown = strip.grown(&self.shape, capacity * 2)?;
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

    /// A copy of a sequence's first `tokens` keys and values, fewer if it has fewer.
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
        strip.prefix(tokens.min(strip.len)).map(Some)
    }

    /// Tokens that a sequence holds.
    pub(crate) fn len(&self, seq: SeqId) -> i32 {
        let pooled = self.homes.get(&seq).and_then(|c| self.pools.get(c)).and_then(|pool| pool.len_of(seq));
        pooled.or_else(|| self.strips.get(&seq).map(|strip| strip.len)).unwrap_or(0)
    }

    /// Frees a sequence's place.
    pub(crate) fn close(&mut self, seq: SeqId) -> Result<()> {
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

    /// Bytes allocated for open sequences.
    pub(crate) fn bytes(&self) -> u64 {
        let rows: i64 = self.pools.values().map(|pool| i64::from(pool.slots()) * i64::from(pool.capacity)).sum();
        let strips: i64 = self.strips.values().map(|strip| i64::from(strip.capacity)).sum();
        (rows + strips) as u64 * self.shape.bytes_per_token()
    }
}

/// Keys and values of the first tokens of some sequence, cut to their length.
#[derive(Clone)]
pub(crate) struct Prefix {
    pub(crate) layers: Vec<LayerKv>,
    pub(crate) len: i32,
}

impl Prefix {
    /// Its first `len` tokens, as views.
    pub(crate) fn first(&self, len: i32) -> Result<Prefix> {
        let layers = self.layers.iter().map(|layer| layer.first(len)).collect::<Result<_>>()?;
        Ok(Prefix { layers, len })
    }

    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values])
    }
}
