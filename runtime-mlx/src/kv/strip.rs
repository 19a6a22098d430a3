//! One sequence's keys and values, `[1, heads, capacity, dim]` a layer; must not know other sequences.

use mlx_rs::{Array, ops};

use super::{KvShape, Prefix};
use crate::sys::{self, Result};

/// Keys and values of one layer.
#[derive(Clone)]
pub(crate) struct LayerKv {
    pub(crate) keys: Array,
    pub(crate) values: Array,
}

impl LayerKv {
    /// The first `len` tokens, as views.
    pub(crate) fn first(&self, len: i32) -> Result<LayerKv> {
        Ok(LayerKv { keys: first(&self.keys, len)?, values: first(&self.values, len)? })
    }
}

fn first(a: &Array, len: i32) -> Result<Array> {
    let shape = a.shape();
    sys::slice(a, &[0, 0, 0, 0], &[shape[0], shape[1], len, shape[3]])
}

/// One sequence's keys and values.
pub(crate) struct Strip {
    pub(crate) layers: Vec<LayerKv>,
    pub(crate) capacity: i32,
    pub(crate) len: i32,
}

impl Strip {
    pub(crate) fn zeros(shape: &KvShape, capacity: i32) -> Result<Self> {
        let zeros = || ops::zeros_dtype(&[1, shape.heads, capacity, shape.dim], shape.dtype);
        let layers =
            (0..shape.layers).map(|_| Ok(LayerKv { keys: zeros()?, values: zeros()? })).collect::<Result<_>>()?;
        Ok(Self { layers, capacity, len: 0 })
    }

    /// Starts with another sequence's first tokens.
    pub(crate) fn write_prefix(&mut self, prefix: &Prefix) -> Result<()> {
        for (mine, theirs) in self.layers.iter_mut().zip(&prefix.layers) {
            mine.keys = put(&mine.keys, &theirs.keys, 0)?;
            mine.values = put(&mine.values, &theirs.values, 0)?;
        }
        self.len = prefix.len;
        Ok(())
    }

    /// Writes `[1, heads, n, dim]` keys and values of `layer` at token `at`; returns those of the first `at + n`
    /// tokens.
    pub(crate) fn write(&mut self, layer: usize, keys: &Array, values: &Array, at: i32) -> Result<LayerKv> {
        let slot = &mut self.layers[layer];
        slot.keys = put(&slot.keys, keys, at)?;
        slot.values = put(&slot.values, values, at)?;
        slot.first(at + keys.dim(2))
    }

    /// The same tokens with more room.
    pub(crate) fn grown(&self, shape: &KvShape, capacity: i32) -> Result<Self> {
        let mut grown = Self::zeros(shape, capacity)?;
        let prefix = Prefix { layers: self.layers.clone(), len: self.len };
        grown.write_prefix(&prefix.first(self.len)?)?;
        Ok(grown)
    }

    /// A copy of the first `len` tokens that holds nothing else alive.
    pub(crate) fn prefix(&self, len: i32) -> Result<Prefix> {
        let cut = |a: &Array| first(a, len)?.contiguous();
        let layers = self
            .layers
            .iter()
            .map(|layer| Ok(LayerKv { keys: cut(&layer.keys)?, values: cut(&layer.values)? }))
            .collect::<Result<_>>()?;
        Ok(Prefix { layers, len })
    }
}

/// `a` with `update` written from token `at` on.
fn put(a: &Array, update: &Array, at: i32) -> Result<Array> {
    let (heads, dim, n) = (a.dim(1), a.dim(3), update.dim(2));
    sys::slice_update(a, update, &[0, 0, at, 0], &[1, heads, at + n, dim])
}
