//! What families are composed of; must not know any family's name.
//!
//! Activations are `[tokens, hidden]`: all rows of a step, decoding ones and prompt chunks, lie in one flat
//! axis, so that every matrix is read once a step. Only attention and recurrences tell rows apart ([`crate::step::Step`]).

mod args;
mod attention;
mod conv;
mod delta;
mod delta_net;
mod linear;
mod mla;
mod mlp;
mod moe;
mod norm;
mod rope;
mod stack;

pub(crate) use args::{DenseArgs, capping, grouped, layers, only, positive};
pub(crate) use attention::{Biases, GroupedQuery, Heads};
pub(crate) use conv::CausalConv;
pub(crate) use delta::{DeltaTokens, gated_delta, log_decay, unit_keys};
pub(crate) use delta_net::{DeltaNetSizes, GatedDeltaNet};
pub(crate) use linear::{Embedding, Linear, Matrix, SwitchLinear, split};
pub(crate) use mla::Latents;
pub(crate) use mlp::{Gate, Mlp};
pub(crate) use moe::{ExpertSizes, Experts, Grouped, Routes, largest};
pub(crate) use norm::RmsNorm;
pub(crate) use rope::{Rope, RopeArgs, yarn_temperature};
pub(crate) use stack::{FeedForward, Frame, Layer, Mixer, PreNorm, Sandwich, Stack, place, softcap};
