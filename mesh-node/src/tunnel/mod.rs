//! Generations, vectors and scores between nodes, `mesh-llm/infer/1`: asked for, served, cancelled; must not know routing or HTTP.
//!
//! The asking side is [`ask`], the serving side [`Serve`], which is handed the local engines and nothing else: a request
//! from a peer cannot be passed on. [`speech`] turns an engine's events into frames, for peers and for this node's own
//! door alike, so that both look the same to whoever resumes.

mod ask;
pub(crate) mod io;
mod rows;
mod serve;
mod speech;

pub(crate) use ask::{Asking, Pool, Said};
pub(crate) use rows::{Rows, speak_rows};
pub(crate) use serve::{Handover, HandsOver, Serve};
pub(crate) use speech::speak;
