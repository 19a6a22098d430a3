//! Text in, events out: the seam where engines differ; it must not know HTTP, iroh, MLX or llama.cpp.
//!
//! Two traits carry it. An [`Engine`] takes a request and returns a [`Generation`], and dropping the
//! generation cancels it, down to the freed KV cache. A [`Decoder`] is what a runtime of this process
//! offers: tokens in, tokens out, one batched step. Between the two, [`LocalEngine`] does once, for all
//! runtimes, what does not depend on a device: scheduling, templates, detokenising, stops, reasoning, tools, vectors and scores.

pub mod arrival;
pub mod constrain;
pub mod decoder;
pub mod draft;
pub mod dry;
mod generation;
pub mod house;
pub mod local;
pub mod pool;
pub mod prefix;
pub mod scheduler;
pub mod script;
pub mod text;
pub mod times;

pub use decoder::Decoder;
pub use generation::{Engine, EngineLoad, Generation, Nudge};
pub use local::{LocalEngine, LocalOptions, StartError};
