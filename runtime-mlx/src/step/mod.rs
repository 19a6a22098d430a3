//! One step of the whole batch, as the families see it: positions, attention over each row's own memory, recurrences
//! through each row's own states; must not know tokens or sampling.
//!
//! A family computes over `[tokens, …]`, all rows' tokens in one axis. Where rows matter, the step splits that axis into
//! **groups**: the rows of a pool, one token each, or a piece of one prompt. Three calls are all that a layer needs:
//!
//! - [`Step::attend`]: extend this layer's keys and values, and attend to them (`attend_shared`: to another layer's);
//! - [`Step::extend`] and [`Step::by_group`]: the same in two halves, for layers that read their memory in another way;
//! - [`Step::recur`]: pass each row's tokens through its states.

mod attend;

use std::collections::HashMap;

use engine::decoder::SeqId;
use mlx_rs::{Array, ops};

pub(crate) use attend::{Attend, Span, attend};

use crate::{
    kv::{ChunkView, Kv, PoolStep},
    sys::{self, Result},
};

/// Some of the step's rows, computed in one operation.
enum Group {
    /// All rows of one pool, one token each.
    Pool { capacity: i32, rows: i32, step: PoolStep },
    /// A piece of one prompt.
    Chunk { seq: SeqId, at: i32, len: i32 },
}

impl Group {
    fn tokens(&self) -> i32 {
        match self {
            Self::Pool { rows, .. } => *rows,
            Self::Chunk { len, .. } => *len,
        }
    }

    /// Rows, and tokens of each.
    fn shape(&self) -> (i32, i32) {
        match self {
            Self::Pool { rows, .. } => (*rows, 1),
            Self::Chunk { len, .. } => (1, *len),
        }
    }

    /// `[tokens, heads, 1, dim]` → `[rows, heads, tokens of each, dim]`.
    fn heads_first(&self, a: &Array) -> Result<Array> {
        match self {
            Self::Pool { .. } => Ok(a.clone()),
            Self::Chunk { .. } => a.transpose_axes(&[2, 1, 0, 3]),
        }
    }

    /// `[rows, heads, tokens of each, dim]` → `[tokens, heads · dim]`.
    fn flat(&self, a: &Array) -> Result<Array> {
        let width = a.dim(1) * a.dim(3);
        match self {
            Self::Pool { .. } => a.reshape(&[-1, width]),
            Self::Chunk { .. } => a.transpose_axes(&[0, 2, 1, 3])?.reshape(&[-1, width]),
        }
    }
}

/// What a group sees of a layer.
#[derive(Clone)]
pub(crate) struct Seen {
    /// `[rows, heads, keys, dim]` for each of the layer's tracks.
    pub(crate) tracks: Vec<Array>,
    pub(crate) span: Span,
}

/// One step being built.
pub(crate) struct Step<'a> {
    kv: &'a mut Kv,
    groups: Vec<Group>,
    positions: Array,
    /// By layer, of those that lend theirs to others.
    lent: HashMap<usize, Vec<Seen>>,
}

impl<'a> Step<'a> {
    /// If any sequence decodes, all pools' rows, in pool order; then `chunks` (sequence, first token, tokens).
    pub(crate) fn new(kv: &'a mut Kv, decode: &[SeqId], chunks: &[(SeqId, i32, i32)]) -> Result<Self> {
        let mut groups = Vec::new();
        let mut positions: Vec<i32> = Vec::new();
        if !decode.is_empty() {
            for (capacity, pool) in kv.pools() {
                positions.extend_from_slice(pool.lens());
                let step = pool.step(&kv.layout, decode)?;
                groups.push(Group::Pool { capacity, rows: pool.rows().len() as i32, step });
            }
        }
        for &(seq, at, len) in chunks {
            positions.extend(at..at + len);
            groups.push(Group::Chunk { seq, at, len });
        }
        let positions = Array::from_slice(&positions, &[positions.len() as i32]);
        Ok(Self { kv, groups, positions, lent: HashMap::new() })
    }

    /// Each token's position in its sequence, `[tokens]`.
    pub(crate) fn positions(&self) -> &Array {
        &self.positions
    }

    /// Extends each row's keys and values of `layer` and attends to them. `q` `[tokens, heads, 1, k_dim]`, `k` and `v`
    /// `[tokens, kv_heads, 1, dim]`; returns `[tokens, heads · v_dim]`.
    pub(crate) fn attend(&mut self, layer: usize, [q, k, v]: [&Array; 3], how: &Attend<'_>) -> Result<Array> {
        let seen = self.extend(layer, &[k, v])?;
        self.by_group(&[q], |group, q| {
            attend(&q[0], &seen[group].tracks[0], &seen[group].tracks[1], &seen[group].span, how)
        })
    }

    /// Attends to what `lender` (a layer before this one) remembers, this step's tokens included.
    pub(crate) fn attend_shared(&mut self, lender: usize, q: &Array, how: &Attend<'_>) -> Result<Array> {
        let seen = self.lent.get(&lender).cloned().ok_or_else(|| {
            mlx_rs::error::Exception::custom(format!("layer {lender} has not attended yet, or is not shared"))
        })?;
        self.by_group(&[q], |group, q| {
            attend(&q[0], &seen[group].tracks[0], &seen[group].tracks[1], &seen[group].span, how)
        })
    }

    /// Writes each token's entry of `layer`, `[tokens, heads, 1, dim]` a track; returns what each group then sees.
    pub(crate) fn extend(&mut self, layer: usize, new: &[&Array]) -> Result<Vec<Seen>> {
        let mut all = Vec::with_capacity(self.groups.len());
        let mut start = 0;
        for group in &self.groups {
            let new: Vec<Array> = new
                .iter()
                .map(|a| group.heads_first(&part(a, start, group.tokens(), self.groups.len() == 1)?))
                .collect::<Result<_>>()?;
            let gone = || mlx_rs::error::Exception::custom("a row of the step is gone");
            all.push(match group {
                Group::Pool { capacity, step, .. } => {
                    let (pool, layout) = self.kv.pool_and_layout(*capacity).ok_or_else(gone)?;
                    let (tracks, mask) = pool.write(layout, layer, &new, step)?;
                    Seen { tracks, span: Span::Rows(mask) }
                }
                Group::Chunk { seq, at, .. } => {
                    let (strip, layout) = self.kv.strip_and_layout(*seq).ok_or_else(gone)?;
                    let ChunkView { tracks, from, window } = strip.write(layout, layer, &new, *at)?;
                    Seen { tracks, span: Span::Chunk { at: *at, from, window } }
                }
            });
            start += group.tokens();
        }
        if self.kv.layout.lends(layer) {
            self.lent.insert(layer, all.clone());
        }
        Ok(all)
    }

    /// Calls `f` with each group's number and its parts of `flat` (`[tokens, heads, 1, dim]` each) as
    /// `[rows, heads, tokens of each, dim]`; it returns one more of this kind. All of these as `[tokens, heads · dim]`.
    pub(crate) fn by_group(
        &self,
        flat: &[&Array],
        mut f: impl FnMut(usize, &[Array]) -> Result<Array>,
    ) -> Result<Array> {
        let mut outputs = Vec::with_capacity(self.groups.len());
        let mut start = 0;
        for (i, group) in self.groups.iter().enumerate() {
            let parts: Vec<Array> = flat
                .iter()
                .map(|a| group.heads_first(&part(a, start, group.tokens(), self.groups.len() == 1)?))
                .collect::<Result<_>>()?;
            outputs.push(group.flat(&f(i, &parts)?)?);
            start += group.tokens();
        }
        joined(outputs)
    }

    /// Passes each row's tokens through its states of `layer`. `flat` are `[tokens, …]` each; `f` gets the parts of a
    /// group as `[rows, tokens of each, …]` and its states `[rows, …]`, and returns `[rows, tokens of each, …]` and the
    /// new states. Returns `[tokens, …]`.
    pub(crate) fn recur(
        &mut self,
        layer: usize,
        flat: &[&Array],
        mut f: impl FnMut(&[Array], &[Array]) -> Result<(Array, Vec<Array>)>,
    ) -> Result<Array> {
        let mut outputs = Vec::with_capacity(self.groups.len());
        let mut start = 0;
        for group in &self.groups {
            let (rows, len) = group.shape();
            let split = |a: &&Array| {
                let part = part(a, start, group.tokens(), self.groups.len() == 1)?;
                part.reshape(&[&[rows, len], &part.shape()[1..]].concat())
            };
            let parts: Vec<Array> = flat.iter().map(split).collect::<Result<_>>()?;
            let gone = || mlx_rs::error::Exception::custom("a row of the step is gone");
            let output = match group {
                Group::Pool { capacity, step, .. } => {
                    let pool = self.kv.pool(*capacity).ok_or_else(gone)?;
                    let (output, states) = f(&parts, &pool.states(layer)?)?;
                    pool.set_states(layer, states, step)?;
                    output
                }
                Group::Chunk { seq, .. } => {
                    let strip = self.kv.strip(*seq).ok_or_else(gone)?;
                    let (output, states) = f(&parts, &strip.layers[layer])?;
                    for (old, new) in strip.layers[layer].iter_mut().zip(states) {
                        *old = new.as_dtype(old.dtype())?;
                    }
                    output
                }
            };
            outputs.push(output.reshape(&[&[rows * len], &output.shape()[2..]].concat())?);
            start += group.tokens();
        }
        joined(outputs)
    }
}

/// `n` tokens of `[tokens, …]` from `start` on.
fn part(a: &Array, start: i32, n: i32, alone: bool) -> Result<Array> {
    if alone {
        return Ok(a.clone());
    }
    let (mut from, mut to) = (vec![0; a.ndim()], a.shape().to_vec());
    (from[0], to[0]) = (start, start + n);
    sys::slice(a, &from, &to)
}

fn joined(mut outputs: Vec<Array>) -> Result<Array> {
    if outputs.len() == 1 { Ok(outputs.remove(0)) } else { ops::concatenate(&outputs, 0) }
}
