//! llama.cpp's `llama-server` as a watched child of a node; it must not know iroh or HTTP surfaces of ours.
//!
//! [`start`] gives an [`engine::Engine`] over a stock `llama-server`. Of llama-server only the middle is used: tokens in
//! (`/completion`), tokens out. What is around it is the engine crate's, as it is for MLX: chat templates, stop strings,
//! reasoning, tool calls, queue limits, resumption. So the same request is answered, or refused, alike on both.
//!
//! - `server`: the child's life. A guard process stands between, so that the child ends whenever the node does.
//! - `plan`: context, slots and layers on the GPU, from the GGUF header and the machine's memory.
//! - `vocabulary`, `chunk`: from the header and the child's stream to tokens that the text pipeline reads.
//! - `engine`, `prepare`, `run`: requests in, events out; a request whose child dies goes on in the next one.
//! - `kind`, `pool`: models whose header says that they were made for embeddings or reranking, and do nothing else here.

mod arguments;
mod chunk;
mod engine;
mod gbnf;
mod grammar;
mod kind;
mod plan;
mod pool;
mod prepare;
mod run;
mod server;
mod vocabulary;
mod wishes;

use std::{ffi::OsString, path::PathBuf};

use ::engine::text::TextError;
use catalog::{CatalogError, ModelFiles};
use mesh_proto::Sampling;
use thiserror::Error;

pub use arguments::{KvBits, check as check_arguments};
pub use engine::GgufEngine;
pub use plan::{Account, PlanError, account};
pub use server::{BridgeError, find as find_llama_server, guard_main};

/// The child's handle, for this crate's own tests.
#[doc(hidden)]
pub mod testing {
    pub use mesh_proto::time::Millis;

    pub use crate::server::{
        BridgeError, CallError, Config, Device, Server, ServerOptions, State, Stream, Version, devices, find, version,
    };
}

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct GgufOptions {
    /// The model's files; its `gguf` is set.
    pub files: ModelFiles,
    /// The llama-server to run; `None`: the one beside this binary, or in PATH.
    pub llama_server: Option<PathBuf>,
    /// The command that runs [`guard_main`]; its arguments follow.
    pub guard: Vec<OsString>,
    /// Most tokens of a sequence; `None`: from the header and the memory.
    pub context_tokens: Option<u32>,
    /// Most sequences at once; fewer where memory is short.
    pub parallel: u32,
    /// Most requests that wait for a place.
    pub max_waiting: u32,
    /// Most bytes of memory; `None`: what the machine has.
    pub max_memory: Option<u64>,
    /// How many models share the machine's memory, this one included.
    pub sharers: u32,
    /// How keys and values are stored; `None`: 16 bits.
    pub kv_bits: Option<KvBits>,
    /// Layers on the GPU; `None`: as many as fit.
    pub gpu_layers: Option<u32>,
    /// A smaller model of the same vocabulary that guesses ahead.
    pub draft: Option<PathBuf>,
    /// Arguments for llama-server that nothing here knows.
    pub extra: Vec<String>,
}

/// A model that answers, and what its makers recommend.
#[derive(Debug)]
pub struct Started {
    /// Who answers.
    pub engine: GgufEngine,
    /// Sampling of requests that do not say; `None`: the header does not say either.
    pub recommended: Option<Sampling>,
    /// Sequences at once.
    pub slots: u32,
}

/// Why a GGUF model cannot be served. One line.
#[derive(Debug, Error)]
pub enum GgufError {
    /// Its files.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What the header says about text cannot be used.
    #[error("this GGUF file cannot be served: {0}")]
    Vocabulary(String),
    /// Text files beside it.
    #[error(transparent)]
    Text(#[from] TextError),
    /// It does not fit.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// The child.
    #[error(transparent)]
    Server(#[from] BridgeError),
    /// A projector or draft model.
    #[error("{}: {}", .0.display(), .1)]
    Beside(PathBuf, std::io::Error),
    /// The machine does not tell its memory.
    #[error("this machine does not tell its memory ({0}): pass --max-memory")]
    Memory(String),
    /// An argument of `--llama-arg` that is ours to set.
    #[error("{0}")]
    Argument(String),
}

/// Starts llama-server with a model, and returns when it answers: minutes, for a large one. `stage` hears how far it is.
/// To be called within a tokio runtime.
///
/// # Errors
/// When no llama-server is found or it is too old, the file is no good, the model does not fit, or the child ends: with
/// its last words.
pub async fn start(options: GgufOptions, stage: &mut dyn FnMut(&str)) -> Result<Started, GgufError> {
    engine::start(options, stage).await
}
