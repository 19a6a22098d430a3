//! The MLX engine: one machine's arithmetic over `mlx-rs`; it must not know HTTP, catalogs or clients.
//!
//! [`start`] takes a model folder (config.json, safetensors, tokenizer) and returns an engine that serves it. What
//! lies between: [`families`](crate) composed of shared layers, a batched KV cache in capacity classes, sampling on
//! the device, and prefixes kept for reuse; all of it on the engine's own thread, since MLX's arrays and streams are
//! bound to theirs.
//!
//! ```no_run
//! use std::path::PathBuf;
//! use mesh_proto::ModelId;
//! use runtime_mlx::{MlxOptions, start};
//!
//! let options = MlxOptions::new(PathBuf::from("models/mesh-tiny"), ModelId::new("mesh-tiny"));
//! let engine = start(options, &mut |stage| eprintln!("{stage}"))?;
//! # Ok::<(), runtime_mlx::MlxError>(())
//! ```

mod config;
mod decoder;
mod error;
mod families;
mod kv;
mod layers;
mod load;
mod loader;
mod memory;
#[cfg(test)]
mod parity;
mod pool;
mod prefix;
mod quantization;
mod sampling;
mod sentence;
mod step;
mod sys;
mod warm;
mod weights;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use engine::{
    Decoder, LocalEngine, LocalOptions, StartError,
    pool::{Embedding, Judge, Pooling, Pools},
    text::TextModel,
};
use mesh_proto::{ModelDescriptor, ModelId};

pub use error::MlxError;
use load::{LoadOptions, Loaded};
use sentence::MadeFor;

/// Every `model_type` of a `config.json` that this engine computes.
pub fn families() -> Vec<&'static str> {
    families::names()
}

/// The family that computes a `model_type`, by its own name; `None`: none does.
pub fn family_of(model_type: &str) -> Option<&'static str> {
    families::find(model_type).ok().map(families::Family::name)
}

/// What to serve, and how much of the machine to take for it.
#[derive(Clone, Debug)]
pub struct MlxOptions {
    /// The model's folder.
    pub dir: PathBuf,
    /// The name that clients will use.
    pub id: ModelId,
    /// Context in tokens; `None`: the model's own, as far as memory allows.
    pub context_tokens: Option<u32>,
    /// Bytes for weights and caches; `None`: this model's share of four fifths of what the machine has free.
    pub max_memory: Option<u64>,
    /// How many models share the machine's memory where `max_memory` is silent, this one included.
    pub sharers: u32,
    /// Sequences computed at once.
    pub max_running: u32,
    /// Requests that wait beyond these.
    pub max_waiting: u32,
}

impl MlxOptions {
    /// With the engine's defaults.
    pub fn new(dir: PathBuf, id: ModelId) -> Self {
        let LocalOptions { max_running, max_waiting, .. } = LocalOptions::default();
        Self { dir, id, context_tokens: None, max_memory: None, sharers: 1, max_running, max_waiting }
    }
}

/// Loads a model, warms its kernels, and serves it. Blocks while it loads: not for an async thread. `stage` hears what
/// is going on, in a few words each.
///
/// # Errors
/// Whatever would make serving fail: see [`MlxError`]. Nothing is left running.
pub fn start(options: MlxOptions, stage: &mut dyn FnMut(&str)) -> Result<LocalEngine, MlxError> {
    let (say, said) = mpsc::channel::<String>();
    // The model is loaded on the engine's own thread; what it says is passed on from the caller's.
    thread::scope(|scope| {
        let starting = scope.spawn(move || load_and_serve(options, say));
        said.iter().for_each(|text| stage(&text));
        starting.join().unwrap_or_else(|_| Err(MlxError::Start("loading panicked: see the log".into())))
    })
}

fn load_and_serve(options: MlxOptions, say: mpsc::Sender<String>) -> Result<LocalEngine, MlxError> {
    let mut stage = move |text: &str| {
        // Nobody listens any more only if the caller panicked.
        say.send(text.to_owned()).ok();
    };
    let config = config::Config::read(&options.dir)?;
    families::find(&config.model_type)?;
    let made_for = sentence::made_for(&options.dir, options.id.as_str(), &config)?;
    stage("reading the tokenizer");
    let text = Arc::new(TextModel::load(&options.dir)?);
    let pools = pools(made_for, config.hidden_size(), &text)?;
    let needed = pools.as_ref().is_some_and(|pools| !pools.skills().generates);
    let (able, told) = mpsc::channel();
    let eos = match config.eos.is_empty() {
        true => text.eos_from_tokenizer(),
        false => config.eos,
    };
    if eos.is_empty() {
        tracing::warn!("neither config.json nor the tokenizer names an end token: answers end at their limits only");
    }
    let local =
        LocalOptions { max_running: options.max_running, max_waiting: options.max_waiting, ..LocalOptions::default() };
    let make = move || {
        let load_options = LoadOptions {
            context_tokens: options.context_tokens,
            max_memory: options.max_memory,
            sharers: options.sharers,
            max_running: options.max_running,
            residency: None,
        };
        let Loaded { mut decoder, family, quantization } = load::load(&options.dir, load_options, &mut stage)?;
        if needed && !decoder.pools() {
            let message = "was made for embeddings or reranking, and this version makes none of this family's models";
            return Err(MlxError::Config(format!("this model {message}")));
        }
        // Who waits for it has not gone.
        able.send(decoder.pools()).ok();
        stage("warming kernels");
        warm::warm(&mut decoder, sys::on_gpu())
            .map_err(|error| MlxError::Start(format!("the first step failed: {error}")))?;
        let limits = decoder.limits();
        let descriptor = ModelDescriptor {
            id: options.id,
            engine: "mlx".into(),
            family,
            quantization,
            context_tokens: limits.context_tokens,
            vocab_size: limits.vocab_size,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        Ok::<_, MlxError>((decoder, descriptor))
    };
    let engine = LocalEngine::start(text, eos, local, make).map_err(|error| match error {
        StartError::Decoder(cause) => match cause.downcast::<MlxError>() {
            Ok(error) => *error,
            Err(cause) => MlxError::Start(cause.to_string()),
        },
        other => MlxError::Start(other.to_string()),
    })?;
    Ok(match pools.filter(|_| told.recv().unwrap_or(false)) {
        Some(pools) => engine.with_pools(pools),
        None => engine,
    })
}

/// What is made of a model's texts beside answers, if its family can.
fn pools(made_for: MadeFor, width: u32, text: &TextModel) -> Result<Option<Pools>, MlxError> {
    let embeds =
        |pooling, normalise, alone| Pools::Embeds { embedding: Embedding { pooling, normalise, width }, alone };
    Ok(match made_for {
        _ if width == 0 => None,
        MadeFor::Answers => Some(embeds(Pooling::Mean, true, false)),
        MadeFor::Vectors { pooling, normalise } => Some(embeds(pooling, normalise, true)),
        MadeFor::Scores => Some(Pools::Reranks(
            Judge::new(text)
                .map_err(|message| MlxError::Start(format!("this reranker cannot be served: {message}")))?,
        )),
    })
}
