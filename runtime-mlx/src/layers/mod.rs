//! What families are composed of; must not know any family's name.
//!
//! Activations are `[tokens, hidden]`: all rows of a step, decoding ones and prompt chunks, lie in one flat
//! axis, so that every matrix is read once a step. Only attention tells rows apart ([`crate::step::Step`]).

mod linear;
mod mlp;
mod norm;
mod rope;
mod stack;

pub(crate) use linear::{Embedding, Linear, Matrix};
pub(crate) use mlp::SwiGlu;
pub(crate) use norm::RmsNorm;
pub(crate) use rope::{Rope, RopeArgs};
pub(crate) use stack::{Attention, DenseArgs, Stack};
