//! Multi-head latent attention (DeepSeek 2024): all heads' keys and values lie in one vector a token; must not know caches.
//!
//! What is remembered of a token is its latent and its rotated part, one behind the other. A decoding row attends to the
//! latents themselves, its queries brought into their space and its result out of it ("absorbed"); a piece of a prompt
//! makes keys and values of them first, which costs less where many queries share them.

use mlx_rs::{Array, ops};

use crate::{
    layers::{Matrix, split},
    step::{Attend, Seen, Span, Step, attend},
    sys::Result,
};

/// The way between heads and latents.
pub(crate) struct Latents {
    /// `[heads, rank, nope]`: a head's query into the latents' space.
    pub(crate) embed_q: Matrix,
    /// `[heads, v_dim, rank]`: what a head saw out of it.
    pub(crate) unembed_out: Matrix,
    /// Numbers of a latent.
    pub(crate) rank: i32,
    /// Numbers of the rotated part.
    pub(crate) rotated: i32,
    pub(crate) scale: f32,
}

impl Latents {
    /// `q_nope` `[tokens, heads, 1, nope]`, `q_rope` `[tokens, heads, 1, rotated]`, `latent` `[tokens, 1, 1, rank]`, `k_rope`
    /// `[tokens, 1, 1, rotated]`, positions applied → `[tokens, heads · v_dim]`.
    pub(crate) fn attend(
        &self,
        layer: usize,
        [q_nope, q_rope]: [&Array; 2],
        [latent, k_rope]: [&Array; 2],
        step: &mut Step<'_>,
    ) -> Result<Array> {
        let entry = ops::concatenate(&[latent, k_rope], -1)?;
        let seen = step.extend(layer, &[&entry])?;
        step.by_group(&[q_nope, q_rope], |group, q| match &seen[group].span {
            Span::Rows(_) => self.absorbed(q, &seen[group]),
            Span::Chunk { .. } => self.expanded(q, &seen[group]),
        })
    }

    fn absorbed(&self, q: &[Array], seen: &Seen) -> Result<Array> {
        let q = ops::concatenate(&[&self.embed_q.product(&q[0])?, &q[1]], -1)?;
        let [latents, _] = split(&seen.tracks[0], [self.rank, self.rotated])?;
        let out = attend(&q, &seen.tracks[0], &latents, &seen.span, &Attend::scaled(self.scale))?;
        self.unembed_out.product(&out)
    }

    fn expanded(&self, q: &[Array], seen: &Seen) -> Result<Array> {
        let [latents, k_rope] = split(&seen.tracks[0], [self.rank, self.rotated])?;
        let heads = q[0].dim(1);
        let k_rope = ops::broadcast_to(&k_rope, &[1, heads, k_rope.dim(2), self.rotated])?;
        let k = ops::concatenate(&[&self.embed_q.product_transposed(&latents)?, &k_rope], -1)?;
        let v = self.unembed_out.product(&latents)?;
        let q = ops::concatenate(&[&q[0], &q[1]], -1)?;
        attend(&q, &k, &v, &seen.span, &Attend::scaled(self.scale))
    }
}
