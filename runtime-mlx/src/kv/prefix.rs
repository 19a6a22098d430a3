//! What a model remembers of some sequence's first tokens, apart from the sequence; must not know tokens.

use mlx_rs::Array;

use super::{Layout, Track};
use crate::sys::{self, Result};

/// The memory of the first tokens of some sequence.
#[derive(Clone)]
pub(crate) struct Prefix {
    pub(crate) layers: Vec<Vec<Array>>,
    pub(crate) len: i32,
    /// The fewest tokens to which it can be cut.
    pub(crate) least: i32,
    /// Layers' tracks that one entry a token have; the others are whole whatever the length.
    pub(crate) per_token: Vec<Vec<bool>>,
}

impl Prefix {
    /// Its first `len` tokens, as views; at least [`Prefix::least`].
    pub(crate) fn first(&self, len: i32) -> Result<Prefix> {
        let cut = |(a, per_token): (&Array, &bool)| if *per_token { first(a, len) } else { Ok(a.clone()) };
        let layers = self.layers.iter().zip(&self.per_token);
        let layers =
            layers.map(|(tracks, per)| tracks.iter().zip(per).map(cut).collect()).collect::<Result<Vec<Vec<_>>>>()?;
        Ok(Prefix { layers, len, ..self.clone() })
    }

    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().flatten()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.arrays().map(|a| a.nbytes() as u64).sum()
    }
}

/// What cannot be cut out of a sequence's memory later: its rings and states when it had `len` tokens.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) len: i32,
    /// By layer and track; `None` where all tokens are remembered.
    pub(crate) layers: Vec<Vec<Option<Array>>>,
}

/// Which tracks have one entry a token.
pub(super) fn per_token(layout: &Layout) -> Vec<Vec<bool>> {
    let is = |track: &Track| matches!(track, Track::Tokens { .. });
    layout.layers().iter().map(|tracks| tracks.iter().map(is).collect()).collect()
}

/// The first `len` columns of `[rows, heads, columns, dim]`.
pub(crate) fn first(a: &Array, len: i32) -> Result<Array> {
    columns(a, 0, len)
}

/// Some columns of `[rows, heads, columns, dim]`.
pub(crate) fn columns(a: &Array, from: i32, to: i32) -> Result<Array> {
    let shape = a.shape();
    sys::slice(a, &[0, 0, from, 0], &[shape[0], shape[1], to, shape[3]])
}
