//! Grouped-query attention (Ainslie et al. 2023) in its usual form; must not know caches.

use mlx_rs::Array;

use crate::{
    error::MlxError,
    layers::{Linear, RmsNorm, Rope},
    loader::Loader,
    step::{Attend, Step},
    sys::Result,
};

/// Sizes of an attention block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) hidden: i32,
    pub(crate) heads: i32,
    pub(crate) kv_heads: i32,
    pub(crate) dim: i32,
}

/// Which projections have biases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Biases {
    pub(crate) qkv: bool,
    pub(crate) o: bool,
}

/// Projections, optional norms of each head, rotary positions, attention. What a family adds, it sets after loading.
pub(crate) struct GroupedQuery {
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    /// Over each head, before positions.
    pub(crate) q_norm: Option<RmsNorm>,
    pub(crate) k_norm: Option<RmsNorm>,
    pub(crate) rope: Option<Rope>,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) sinks: Option<Array>,
    pub(crate) sizes: Heads,
}

impl GroupedQuery {
    /// Reads `{prefix}.{q,k,v,o}_proj`; no norms, no positions, the usual scale.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        sizes: Heads,
        biases: Biases,
    ) -> std::result::Result<Self, MlxError> {
        Self::load_named(loader, prefix, ["q_proj", "k_proj", "v_proj", "o_proj"], (sizes, biases))
    }

    /// The same with other names.
    pub(crate) fn load_named(
        loader: &mut Loader<'_>,
        prefix: &str,
        [q, k, v, o]: [&str; 4],
        (sizes, biases): (Heads, Biases),
    ) -> std::result::Result<Self, MlxError> {
        let Heads { hidden, heads, kv_heads, dim } = sizes;
        Ok(Self {
            q: loader.linear(&format!("{prefix}.{q}"), hidden, heads * dim, biases.qkv)?,
            k: loader.linear(&format!("{prefix}.{k}"), hidden, kv_heads * dim, biases.qkv)?,
            v: loader.linear(&format!("{prefix}.{v}"), hidden, kv_heads * dim, biases.qkv)?,
            o: loader.linear(&format!("{prefix}.{o}"), heads * dim, hidden, biases.o)?,
            q_norm: None,
            k_norm: None,
            rope: None,
            scale: (dim as f32).powf(-0.5),
            softcap: None,
            sinks: None,
            sizes,
        })
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`; `layer` says which memory belongs to it.
    pub(crate) fn forward(&self, x: &Array, layer: usize, step: &mut Step<'_>) -> Result<Array> {
        let Heads { heads, kv_heads, dim, .. } = self.sizes;
        let q = self.q.forward(x)?.reshape(&[-1, heads, 1, dim])?;
        let k = self.k.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?;
        let v = self.v.forward(x)?.reshape(&[-1, kv_heads, 1, dim])?;
        let place = |x: Array, norm: &Option<RmsNorm>, step: &Step<'_>| {
            let x = norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))?;
            self.rope.as_ref().map_or(Ok(x.clone()), |rope| rope.forward(&x, step.positions()))
        };
        let (q, k) = (place(q, &self.q_norm, step)?, place(k, &self.k_norm, step)?);
        let how = Attend { scale: self.scale, sinks: self.sinks.as_ref(), softcap: self.softcap };
        self.o.forward(&step.attend(layer, [&q, &k, &v], &how)?)
    }
}
