//! Decoding sequences of one capacity class, `[slots, …]` a track; must not know prompts.
//!
//! Rows lie densely in slots `0..rows`: attention reads them as one view, without a copy.

use engine::decoder::SeqId;
use mlx_rs::{Array, ops};

use super::{Layout, Strip, Track};
use crate::sys::{self, Result};

/// One capacity class.
pub(crate) struct Pool {
    pub(crate) capacity: i32,
    layers: Vec<Vec<Array>>,
    slots: i32,
    rows: Vec<SeqId>,
    lens: Vec<i32>,
}

/// Where a step's new entries go, and what its rows may see; one for all layers.
pub(crate) struct PoolStep {
    /// `[rows]`: 0, 1, 2, …
    slots: Array,
    /// Of the tracks that hold all tokens.
    all: Columns,
    /// Of rings, by their window.
    rings: Vec<(i32, Columns)>,
    /// `[rows]`, true for those that advance; `None`: all do.
    advancing: Option<Array>,
}

/// Where a step writes in one kind of track, and what it reads there.
#[derive(Clone)]
pub(crate) struct Columns {
    /// The first row's.
    first: i32,
    /// `[rows]`
    write: Array,
    /// Columns that are read, from the first on.
    read: i32,
    /// `[rows, 1, 1, read]`, or `None` where all rows see all of these.
    pub(crate) mask: Option<Array>,
}

impl Columns {
    /// For rows of these lengths in tracks of `size` columns, each row seeing its last `window` tokens.
    fn new(lens: &[i32], size: i32, window: i32) -> Result<Self> {
        let rows = lens.len() as i32;
        let longest = lens.iter().max().copied().unwrap_or(0) + 1;
        let read = longest.min(size);
        // The token that a row's column holds lies this far behind its newest.
        let behind = |len: i32, column: i32| (len - column).rem_euclid(size);
        let sees = |len: i32, column: i32| behind(len, column) <= len && behind(len, column) < window;
        let all = lens.iter().all(|len| (0..read).all(|column| sees(*len, column)));
        let mask = match all {
            true => None,
            false => {
                let seen: Vec<bool> = lens.iter().flat_map(|len| (0..read).map(|c| sees(*len, c))).collect();
                Some(Array::from_slice(&seen, &[rows, 1, 1, read]))
            }
        };
        let write: Vec<i32> = lens.iter().map(|len| len % size).collect();
        let first = write.first().copied().unwrap_or(0);
        Ok(Self { first, write: Array::from_slice(&write, &[rows]), read, mask })
    }
}

impl Pool {
    pub(crate) fn new(capacity: i32) -> Self {
        Self { capacity, layers: Vec::new(), slots: 0, rows: Vec::new(), lens: Vec::new() }
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
        self.slots
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
        let rows = self.rows.len() as i32;
        if rows == 0 {
            self.layers = strip.layers;
            self.slots = 1;
        } else {
            let full = rows == self.slots;
            for (a, new) in self.layers.iter_mut().flatten().zip(strip.layers.iter().flatten()) {
                // Doubling: each row is copied a bounded number of times on average.
                *a = if full { extend(a, new)? } else { put_row(a, new, rows)? };
            }
            self.slots = if full { 2 * self.slots } else { self.slots };
        }
        self.rows.push(seq);
        self.lens.push(strip.len);
        Ok(())
    }

    /// A view of one sequence's row.
    pub(crate) fn extract(&self, seq: SeqId) -> Result<Option<Strip>> {
        let Some(slot) = self.slot(seq) else { return Ok(None) };
        let view = |tracks: &Vec<Array>| tracks.iter().map(|a| row(a, slot as i32)).collect();
        let layers = self.layers.iter().map(view).collect::<Result<_>>()?;
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
            self.slots = 0;
            return Ok(());
        }
        let rows = self.rows.len() as i32;
        let shrinks = rows * 4 <= self.slots;
        for a in self.layers.iter_mut().flatten() {
            if slot != last {
                *a = put_row(a, &row(a, last as i32)?, slot as i32)?;
            }
            if shrinks {
                *a = rows_of(a, 0, rows * 2)?.contiguous()?;
            }
        }
        if shrinks {
            self.slots = rows * 2;
        }
        Ok(())
    }

    /// Prepares one step of all rows, of which those advance that are in `advancing`.
    pub(crate) fn step(&self, layout: &Layout, advancing: &[SeqId]) -> Result<PoolStep> {
        let rows = self.rows.len() as i32;
        let slots: Vec<i32> = (0..rows).collect();
        let mut rings: Vec<(i32, Columns)> = Vec::new();
        for track in layout.tracks() {
            if let Track::Ring { window, .. } = track
                && rings.iter().all(|(known, _)| known != window)
            {
                rings.push((*window, Columns::new(&self.lens, track.columns(self.capacity), *window)?));
            }
        }
        let advance: Vec<bool> = self.rows.iter().map(|seq| advancing.contains(seq)).collect();
        Ok(PoolStep {
            slots: Array::from_slice(&slots, &[rows]),
            all: Columns::new(&self.lens, self.capacity, self.capacity)?,
            rings,
            advancing: advance.contains(&false).then(|| Array::from_slice(&advance, &[rows])),
        })
    }

    /// Writes one token's entry `[rows, heads, 1, dim]` for each track of `layer` behind each row's end; returns what
    /// the rows attend to, `[rows, heads, read, dim]` each, and which of it each one sees.
    pub(crate) fn write(
        &mut self,
        layout: &Layout,
        layer: usize,
        new: &[Array],
        step: &PoolStep,
    ) -> Result<(Vec<Array>, Option<Array>)> {
        let rows = self.rows.len() as i32;
        let mut columns = &step.all;
        let mut seen = Vec::with_capacity(new.len());
        for ((a, new), track) in self.layers[layer].iter_mut().zip(new).zip(&layout.layers()[layer]) {
            if let Track::Ring { window, .. } = track
                && let Some((_, ring)) = step.rings.iter().find(|(known, _)| known == window)
            {
                columns = ring;
            }
            let (heads, dim, at) = (a.dim(1), a.dim(3), columns.first);
            *a = match rows {
                1 => sys::slice_update(a, new, &[0, 0, at, 0], &[1, heads, at + 1, dim])?,
                _ => sys::scatter_rows(a, &step.slots, &columns.write, &new.reshape(&[rows, 1, heads, 1, dim])?)?,
            };
            seen.push(sys::slice(a, &[0, 0, 0, 0], &[rows, heads, columns.read, dim])?);
        }
        Ok((seen, columns.mask.clone()))
    }

    /// The rows' states of a recurrent layer, `[rows, …]` each.
    pub(crate) fn states(&self, layer: usize) -> Result<Vec<Array>> {
        let rows = self.rows.len() as i32;
        let view = |a: &Array| if rows == self.slots { Ok(a.clone()) } else { rows_of(a, 0, rows) };
        self.layers[layer].iter().map(view).collect()
    }

    /// Replaces the states of the rows that advance.
    pub(crate) fn set_states(&mut self, layer: usize, new: Vec<Array>, step: &PoolStep) -> Result<()> {
        let rows = self.rows.len() as i32;
        let old = self.states(layer)?;
        for ((a, old), new) in self.layers[layer].iter_mut().zip(old).zip(new) {
            let new = new.as_dtype(a.dtype())?;
            let new = match &step.advancing {
                Some(advancing) => {
                    let shape: Vec<i32> = std::iter::once(rows).chain(old.shape()[1..].iter().map(|_| 1)).collect();
                    ops::select(&advancing.reshape(&shape)?, &new, &old)?
                }
                None => new,
            };
            *a = match rows == self.slots {
                true => new,
                false => {
                    let (start, mut stop) = (vec![0; a.ndim()], a.shape().to_vec());
                    stop[0] = rows;
                    sys::slice_update(a, &new, &start, &stop)?
                }
            };
        }
        Ok(())
    }

    /// Counts the token that a step wrote for `seq`.
    pub(crate) fn advance(&mut self, seq: SeqId) {
        if let Some(slot) = self.slot(seq) {
            self.lens[slot] += 1;
        }
    }
}

fn rows_of(a: &Array, from: i32, to: i32) -> Result<Array> {
    let (mut start, mut stop) = (vec![0; a.ndim()], a.shape().to_vec());
    (start[0], stop[0]) = (from, to);
    sys::slice(a, &start, &stop)
}

fn row(a: &Array, slot: i32) -> Result<Array> {
    rows_of(a, slot, slot + 1)
}

fn put_row(a: &Array, row: &Array, slot: i32) -> Result<Array> {
    let (mut start, mut stop) = (vec![0; a.ndim()], a.shape().to_vec());
    (start[0], stop[0]) = (slot, slot + 1);
    sys::slice_update(a, row, &start, &stop)
}

/// Twice the slots, `row` in the first new one.
fn extend(a: &Array, row: &Array) -> Result<Array> {
    let mut shape = a.shape().to_vec();
    shape[0] -= 1;
    if shape[0] == 0 {
        return ops::concatenate(&[a, row], 0);
    }
    ops::concatenate(&[a, row, &ops::zeros_dtype(&shape, a.dtype())?], 0)
}
