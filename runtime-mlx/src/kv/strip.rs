//! One sequence's memory, `[1, …]` a track; must not know other sequences.

use mlx_rs::{Array, ops};

use super::{
    Layout, Prefix, Snapshot, Track,
    prefix::{columns, first, per_token},
};
use crate::sys::{self, Result};

/// What a piece of a prompt sees in one layer: tokens `from..` of its sequence, its own last.
pub(crate) struct ChunkView {
    /// `[1, heads, tokens, dim]` each.
    pub(crate) tracks: Vec<Array>,
    pub(crate) from: i32,
    /// How many tokens each one sees, itself included; `None`: all before it.
    pub(crate) window: Option<i32>,
}

/// One sequence's memory.
pub(crate) struct Strip {
    pub(crate) layers: Vec<Vec<Array>>,
    pub(crate) capacity: i32,
    pub(crate) len: i32,
}

impl Strip {
    pub(crate) fn zeros(layout: &Layout, capacity: i32) -> Result<Self> {
        let zeros = |track: &Track| track.zeros(capacity, layout.dtype);
        let layers = layout.layers().iter().map(|tracks| tracks.iter().map(zeros).collect());
        Ok(Self { layers: layers.collect::<Result<_>>()?, capacity, len: 0 })
    }

    /// Starts with another sequence's first tokens.
    pub(crate) fn write_prefix(&mut self, layout: &Layout, prefix: &Prefix) -> Result<()> {
        for ((mine, theirs), tracks) in self.layers.iter_mut().zip(&prefix.layers).zip(layout.layers()) {
            for ((mine, theirs), track) in mine.iter_mut().zip(theirs).zip(tracks) {
                *mine = match track {
                    Track::State { .. } => theirs.contiguous()?,
                    Track::Ring { .. } if mine.dim(2) == theirs.dim(2) => theirs.contiguous()?,
                    // Of different sizes: then neither has come round yet, and token p lies in column p of both.
                    Track::Ring { .. } => put(mine, &first(theirs, mine.dim(2).min(theirs.dim(2)))?, 0)?,
                    Track::Tokens { .. } => put(mine, theirs, 0)?,
                };
            }
        }
        self.len = prefix.len;
        Ok(())
    }

    /// Writes `[1, heads, n, dim]` for each track of `layer` at token `at`; returns what these tokens see.
    pub(crate) fn write(&mut self, layout: &Layout, layer: usize, new: &[Array], at: i32) -> Result<ChunkView> {
        let mut view = ChunkView { tracks: Vec::with_capacity(new.len()), from: 0, window: None };
        for ((slot, new), track) in self.layers[layer].iter_mut().zip(new).zip(&layout.layers()[layer]) {
            if let Track::Ring { window, .. } = track {
                view.from = (at + 1 - window).max(0);
                view.window = Some(*window);
                let before = ring_read(slot, view.from, at)?;
                *slot = ring_write(slot, new, at)?;
                view.tracks.push(match before {
                    Some(before) => ops::concatenate(&[&before, new], 2)?,
                    None => new.clone(),
                });
            } else {
                *slot = put(slot, new, at)?;
                view.tracks.push(first(slot, at + new.dim(2))?);
            }
        }
        Ok(view)
    }

    /// The same tokens with more room.
    pub(crate) fn grown(&self, layout: &Layout, capacity: i32) -> Result<Self> {
        let mut grown = Self::zeros(layout, capacity)?;
        let all = Prefix {
            layers: self.layers.clone(),
            len: self.len,
            least: layout.least(self.len, self.capacity),
            per_token: per_token(layout),
        };
        grown.write_prefix(layout, &all.first(self.len)?)?;
        Ok(grown)
    }

    /// What a later copy of the first [`Strip::len`] tokens will need and not find.
    pub(crate) fn snapshot(&self, layout: &Layout) -> Snapshot {
        let keep = |(a, track): (&Array, &Track)| (!matches!(track, Track::Tokens { .. })).then(|| a.clone());
        let layers = self.layers.iter().zip(layout.layers());
        let layers = layers.map(|(arrays, tracks)| arrays.iter().zip(tracks).map(keep).collect()).collect();
        Snapshot { len: self.len, layers }
    }

    /// A copy of the first `len` tokens that holds nothing else alive; rings and states are those of `snapshot` if
    /// there is one, which then is of `len` tokens.
    pub(crate) fn prefix(&self, layout: &Layout, len: i32, snapshot: Option<&Snapshot>) -> Result<Prefix> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for (i, (arrays, tracks)) in self.layers.iter().zip(layout.layers()).enumerate() {
            let copy = |(j, (a, track)): (usize, (&Array, &Track))| match (track, snapshot) {
                (Track::Tokens { .. }, _) => first(a, len)?.contiguous(),
                (_, Some(snapshot)) => snapshot.layers[i][j].as_ref().unwrap_or(a).contiguous(),
                _ => a.contiguous(),
            };
            layers.push(arrays.iter().zip(tracks).enumerate().map(copy).collect::<Result<_>>()?);
        }
        let of = if snapshot.is_some() { len } else { self.len };
        Ok(Prefix { layers, len, least: layout.least(of, self.capacity).min(len), per_token: per_token(layout) })
    }
}

/// `a` with `update` written from column `at` on.
fn put(a: &Array, update: &Array, at: i32) -> Result<Array> {
    let (heads, dim, n) = (a.dim(1), a.dim(3), update.dim(2));
    sys::slice_update(a, update, &[0, 0, at, 0], &[1, heads, at + n, dim])
}

/// Tokens `from..to` of a ring, in their order; `None`: there are none.
fn ring_read(ring: &Array, from: i32, to: i32) -> Result<Option<Array>> {
    if from == to {
        return Ok(None);
    }
    let size = ring.dim(2);
    let (start, end) = (from % size, from % size + to - from);
    if end <= size {
        return columns(ring, start, end).map(Some);
    }
    ops::concatenate(&[columns(ring, start, size)?, columns(ring, 0, end - size)?], 2).map(Some)
}

/// A ring with `new` as tokens `at..`, of which as many stay as it holds.
fn ring_write(ring: &Array, new: &Array, at: i32) -> Result<Array> {
    let (size, n) = (ring.dim(2), new.dim(2));
    let kept = n.min(size);
    let (start, skip) = ((at + n - kept) % size, n - kept);
    let head = kept.min(size - start);
    let ring = put(ring, &columns(new, skip, skip + head)?, start)?;
    if head == kept { Ok(ring) } else { put(&ring, &columns(new, skip + head, n)?, 0) }
}
