//! What each layer of a model remembers of a sequence, and in arrays of which shapes; must not know sequences.
//!
//! A layer's memory is a list of **tracks**, one array each, whose first axis is the sequences:
//!
//! | track | shape of one sequence | grows | can be cut back |
//! | --- | --- | --- | --- |
//! | `Tokens` | `[heads, capacity, dim]` | with each token | to any length |
//! | `Ring` | `[heads, columns, dim]`, token p in column p mod columns | until it is full | by [`SLACK`] tokens |
//! | `State` | any | never | no: [`Snapshot`](super::Snapshot)s instead |

use mlx_rs::{Array, Dtype, ops};

use crate::sys::Result;

/// Tokens that a ring remembers beyond its window, so that a sequence can be cut back to the end of its answer although
/// steps in flight went on. Guess: look-ahead writes two, and drafts of up to 14 can be refused.
const SLACK: i32 = 16;

/// What one layer remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LayerCache {
    /// Keys and values of all tokens.
    Full { heads: i32, k_dim: i32, v_dim: i32 },
    /// Keys and values of the last `window` tokens: a token sees itself and `window - 1` before it.
    Sliding { heads: i32, k_dim: i32, v_dim: i32, window: i32 },
    /// One vector a token, for all heads (multi-head latent attention, DeepSeek 2024).
    Latent { dim: i32 },
    /// Named by their order: arrays that each token replaces.
    State(Vec<State>),
    /// Nothing of its own: it attends to that layer's keys and values, which lies before it.
    Shared(usize),
}

impl LayerCache {
    /// Keys and values of one width, of all tokens or of the last `window`.
    pub(crate) fn attention(heads: i32, dim: i32, window: Option<i32>) -> Self {
        match window {
            Some(window) => Self::Sliding { heads, k_dim: dim, v_dim: dim, window },
            None => Self::Full { heads, k_dim: dim, v_dim: dim },
        }
    }
}

/// One array of a recurrent layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Of one sequence.
    pub(crate) dims: Vec<i32>,
    /// `None`: that of the activations.
    pub(crate) dtype: Option<Dtype>,
}

/// One array of a layer's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Track {
    Tokens { heads: i32, dim: i32 },
    Ring { heads: i32, dim: i32, window: i32 },
    State { dims: Vec<i32>, dtype: Dtype },
}

impl Track {
    /// Columns allocated for a sequence of a capacity class.
    pub(crate) fn columns(&self, capacity: i32) -> i32 {
        match self {
            Self::Tokens { .. } => capacity,
            Self::Ring { window, .. } => capacity.min(window + SLACK),
            Self::State { .. } => 0,
        }
    }

    pub(crate) fn zeros(&self, capacity: i32, dtype: Dtype) -> Result<Array> {
        match self {
            Self::Tokens { heads, dim } | Self::Ring { heads, dim, .. } => {
                ops::zeros_dtype(&[1, *heads, self.columns(capacity), *dim], dtype)
            }
            Self::State { dims, dtype } => ops::zeros_dtype(&[&[1], &dims[..]].concat(), *dtype),
        }
    }

    /// The shortest beginning that can be cut out of `len` tokens' memory in a place of `capacity`.
    fn least(&self, len: i32, capacity: i32) -> i32 {
        match self {
            Self::Tokens { .. } => 0,
            // What a query at `to` sees begins at `to + 1 - window`. The ring begins at `len + 1 - columns`: a row that
            // was computed along with others has written behind its end.
            Self::Ring { window, .. } if len >= self.columns(capacity) => {
                (len - self.columns(capacity) + window).min(len)
            }
            Self::Ring { .. } => 0,
            Self::State { .. } => len,
        }
    }

    fn bytes(&self, capacity: i32, dtype: Dtype) -> u64 {
        match self {
            Self::Tokens { heads, dim } | Self::Ring { heads, dim, .. } => {
                *heads as u64 * *dim as u64 * self.columns(capacity) as u64 * item_bytes(dtype)
            }
            Self::State { dims, dtype } => dims.iter().map(|n| *n as u64).product::<u64>() * item_bytes(*dtype),
        }
    }
}

fn item_bytes(dtype: Dtype) -> u64 {
    if dtype == Dtype::Float32 { 4 } else { 2 }
}

/// A model's memory of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    layers: Vec<Vec<Track>>,
    /// Layers to whose keys and values others attend too.
    lenders: Vec<usize>,
    pub(crate) dtype: Dtype,
}

impl Layout {
    pub(crate) fn new(caches: &[LayerCache], dtype: Dtype) -> Self {
        let lenders = caches.iter().filter_map(|cache| match cache {
            LayerCache::Shared(lender) => Some(*lender),
            _ => None,
        });
        Self { lenders: lenders.collect(), layers: caches.iter().map(|cache| tracks(cache, dtype)).collect(), dtype }
    }

    pub(crate) fn layers(&self) -> &[Vec<Track>] {
        &self.layers
    }

    pub(crate) fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.layers.iter().flatten()
    }

    /// Whether another layer attends to what this one remembers.
    pub(crate) fn lends(&self, layer: usize) -> bool {
        self.lenders.contains(&layer)
    }

    /// Whether some beginnings of a sequence cannot be cut out of its memory, so that they are copied in passing.
    pub(crate) fn forgets(&self) -> bool {
        self.tracks().any(|track| !matches!(track, Track::Tokens { .. }))
    }

    /// The shortest beginning that can be cut out of `len` tokens' memory in a place of `capacity`.
    pub(crate) fn least(&self, len: i32, capacity: i32) -> i32 {
        self.tracks().map(|track| track.least(len, capacity)).max().unwrap_or(0)
    }

    /// Bytes of a place of `capacity` tokens.
    pub(crate) fn bytes(&self, capacity: i32) -> u64 {
        self.tracks().map(|track| track.bytes(capacity, self.dtype)).sum()
    }

    /// Bytes that one more token takes at most. Rings count too, although they end to grow.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        self.bytes(1) - self.fixed_bytes()
    }

    /// Bytes that a sequence takes whatever its length.
    pub(crate) fn fixed_bytes(&self) -> u64 {
        self.bytes(0)
    }
}

fn tracks(cache: &LayerCache, activations: Dtype) -> Vec<Track> {
    match *cache {
        LayerCache::Full { heads, k_dim, v_dim } => [k_dim, v_dim].map(|dim| Track::Tokens { heads, dim }).into(),
        LayerCache::Sliding { heads, k_dim, v_dim, window } => {
            [k_dim, v_dim].map(|dim| Track::Ring { heads, dim, window }).into()
        }
        LayerCache::Latent { dim } => vec![Track::Tokens { heads: 1, dim }],
        LayerCache::State(ref states) => states
            .iter()
            .map(|state| Track::State { dims: state.dims.clone(), dtype: state.dtype.unwrap_or(activations) })
            .collect(),
        LayerCache::Shared(_) => Vec::new(),
    }
}
