//! Decoding sequences of one capacity class, `[slots, heads, capacity, dim]` a layer; must not know prompts.
//!
//! Rows lie densely in slots `0..rows`: attention reads them as one view, without a copy.

use engine::decoder::SeqId;
use mlx_rs::{Array, ops};

use super::{LayerKv, Strip};
use crate::sys::{self, Result};

/// One capacity class.
pub(crate) struct Pool {
    pub(crate) capacity: i32,
    layers: Vec<LayerKv>,
    rows: Vec<SeqId>,
    lens: Vec<i32>,
}

/// Where a step's new keys and values go, and what its rows may see; one for all layers.
pub(crate) struct PoolStep {
    /// `[rows]`: 0, 1, 2, …
    slots: Array,
    /// `[rows]`: each row's length before the step.
    columns: Array,
    /// `[rows, 1, 1, longest]`, or `None` where all rows have one length.
    pub(crate) mask: Option<Array>,
    /// Tokens of the longest row, the new one included.
    longest: i32,
}

impl Pool {
    pub(crate) fn new(capacity: i32) -> Self {
        Self { capacity, layers: Vec::new(), rows: Vec::new(), lens: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Sequences, by slot.
    pub(crate) fn rows(&self) -> &[SeqId] {
        &self.rows
    }

    /// Lengths, by slot.
    pub(crate) fn lens(&self) -> &[i32] {
        &self.lens
    }

    pub(crate) fn len_of(&self, seq: SeqId) -> Option<i32> {
        self.slot(seq).map(|slot| self.lens[slot])
    }

    /// Slots allocated, used or not.
    pub(crate) fn slots(&self) -> i32 {
        self.layers.first().map_or(0, |layer| layer.keys.dim(0))
    }

    /// Sequences that have no room for one more token.
    pub(crate) fn full(&self) -> impl Iterator<Item = SeqId> {
        let capacity = self.capacity;
        self.rows.iter().zip(&self.lens).filter(move |(_, len)| **len >= capacity).map(|(seq, _)| *seq)
    }

    fn slot(&self, seq: SeqId) -> Option<usize> {
        self.rows.iter().position(|row| *row == seq)
    }

    /// Takes a sequence in.
    pub(crate) fn push(&mut self, seq: SeqId, strip: Strip) -> Result<()> {
        let (rows, slots) = (self.rows.len() as i32, self.slots());
        if rows == 0 {
            self.layers = strip.layers;
        } else if rows < slots {
            for (layer, new) in self.layers.iter_mut().zip(&strip.layers) {
                layer.keys = put_row(&layer.keys, &new.keys, rows)?;
                layer.values = put_row(&layer.values, &new.values, rows)?;
            }
        } else {
            // Doubling: each row is copied a bounded number of times on average.
            for (layer, new) in self.layers.iter_mut().zip(&strip.layers) {
                layer.keys = extend(&layer.keys, &new.keys)?;
                layer.values = extend(&layer.values, &new.values)?;
            }
        }
        self.rows.push(seq);
        self.lens.push(strip.len);
        Ok(())
    }

    /// A view of one sequence's row.
    pub(crate) fn extract(&self, seq: SeqId) -> Result<Option<Strip>> {
        let Some(slot) = self.slot(seq) else { return Ok(None) };
        let layers = self
            .layers
            .iter()
            .map(|layer| Ok(LayerKv { keys: row(&layer.keys, slot as i32)?, values: row(&layer.values, slot as i32)? }))
            .collect::<Result<_>>()?;
        Ok(Some(Strip { layers, capacity: self.capacity, len: self.lens[slot] }))
    }

    /// Lets a sequence go; the last row moves into its slot, and a pool that is mostly empty shrinks.
    pub(crate) fn remove(&mut self, seq: SeqId) -> Result<()> {
        let Some(slot) = self.slot(seq) else { return Ok(()) };
        let last = self.rows.len() - 1;
        self.rows.swap_remove(slot);
        self.lens.swap_remove(slot);
        if self.rows.is_empty() {
            self.layers.clear();
            return Ok(());
        }
        let (rows, slots) = (self.rows.len() as i32, self.slots());
        for layer in &mut self.layers {
            for a in [&mut layer.keys, &mut layer.values] {
                if slot != last {
                    *a = put_row(a, &row(a, last as i32)?, slot as i32)?;
                }
                if rows * 4 <= slots {
                    let shape = a.shape().to_vec();
                    *a = sys::slice(a, &[0, 0, 0, 0], &[rows * 2, shape[1], shape[2], shape[3]])?.contiguous()?;
                }
            }
        }
        Ok(())
    }

    /// Prepares one step of all rows.
    pub(crate) fn step(&self) -> Result<PoolStep> {
        let rows = self.rows.len() as i32;
        let longest = self.lens.iter().max().copied().unwrap_or(0) + 1;
        let slots: Vec<i32> = (0..rows).collect();
        let columns = Array::from_slice(&self.lens, &[rows]);
        let mask = if self.lens.iter().all(|len| len + 1 == longest) {
            None
        } else {
            let positions = ops::arange::<_, i32>(0, longest, None)?;
            Some(columns.reshape(&[rows, 1, 1, 1])?.ge(&positions)?)
        };
        Ok(PoolStep { slots: Array::from_slice(&slots, &[rows]), columns, mask, longest })
    }

    /// Writes one token's keys and values `[rows, heads, 1, dim]` of `layer` behind each row's end; returns what the
    /// rows attend to, `[rows, heads, longest, dim]`.
    pub(crate) fn write(&mut self, layer: usize, keys: &Array, values: &Array, step: &PoolStep) -> Result<LayerKv> {
        let rows = self.rows.len() as i32;
        let slot = &mut self.layers[layer];
        let put = |a: &Array, update: &Array| -> Result<Array> {
            let (heads, dim) = (a.dim(1), a.dim(3));
            if rows == 1 {
                let at = self.lens[0];
                return sys::slice_update(a, update, &[0, 0, at, 0], &[1, heads, at + 1, dim]);
            }
            sys::scatter_rows(a, &step.slots, &step.columns, &update.reshape(&[rows, 1, heads, 1, dim])?)
        };
        slot.keys = put(&slot.keys, keys)?;
        slot.values = put(&slot.values, values)?;
        let view = |a: &Array| sys::slice(a, &[0, 0, 0, 0], &[rows, a.dim(1), step.longest, a.dim(3)]);
        Ok(LayerKv { keys: view(&slot.keys)?, values: view(&slot.values)? })
    }

    /// Counts the token that a step wrote for `seq`.
    pub(crate) fn advance(&mut self, seq: SeqId) {
        if let Some(slot) = self.slot(seq) {
            self.lens[slot] += 1;
        }
    }
}

fn row(a: &Array, slot: i32) -> Result<Array> {
    let shape = a.shape();
    sys::slice(a, &[slot, 0, 0, 0], &[slot + 1, shape[1], shape[2], shape[3]])
}

fn put_row(a: &Array, row: &Array, slot: i32) -> Result<Array> {
    let shape = a.shape();
    sys::slice_update(a, row, &[slot, 0, 0, 0], &[slot + 1, shape[1], shape[2], shape[3]])
}

/// Twice the slots, `row` in the first new one.
fn extend(a: &Array, row: &Array) -> Result<Array> {
    let shape = a.shape();
    let spare = shape[0] - 1;
    if spare == 0 {
        return ops::concatenate(&[a, row], 0);
    }
    let zeros = ops::zeros_dtype(&[spare, shape[1], shape[2], shape[3]], a.dtype())?;
    ops::concatenate(&[a, row, &zeros], 0)
}
