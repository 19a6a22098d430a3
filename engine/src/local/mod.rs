//! `LocalEngine`: an `Engine` over any `Decoder` of this process; must not know which one it is.
//!
//! One OS thread makes the decoder, owns it and steps it (device objects are bound to their thread). Requests reach
//! it through a mailbox, events leave it through bounded channels into which it never waits:
//!
//! - [`generate`](Engine::generate) takes a place (or says busy at once), tokenises on a blocking thread, and posts;
//! - the worker plans a step, submits it, reads the one before it meanwhile, and tells the clients;
//! - a client that does not read stalls its own sequence only; one that leaves frees its KV within one step.
//!
//! What lies between the two seams and does not depend on a device is here once: scheduling, look-ahead, end of
//! sequence, stop strings, lengths, grammars, usage, preemption, resumption, failures. See [`crate::script`] for a decoder to try
//! it with.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use engine::{Engine, LocalEngine, LocalOptions, script, text::TextModel};
//! use mesh_proto::{Event, GenerateRequest, ModelDescriptor, ModelId, Prompt, TokenId};
//!
//! let dir = tempfile::tempdir()?;
//! script::write_text_model(dir.path())?;
//! let text = Arc::new(TextModel::load(dir.path())?);
//! let engine = LocalEngine::start(text, vec![script::END], LocalOptions::default(), || {
//!     let echo = script::Script::echo(TokenId(b'!'.into()), script::END);
//!     let decoder = script::ScriptDecoder::new(echo, Default::default(), Default::default());
//!     Ok::<_, std::io::Error>((decoder, script::descriptor("parrot")))
//! })?;
//!
//! let said = tokio::runtime::Runtime::new()?.block_on(async {
//!     let request = GenerateRequest::new(ModelId::new("parrot"), Prompt::Text("Hello!".into()));
//!     let mut generation = engine.generate(request).await?;
//!     let mut said = String::new();
//!     while let Some(event) = generation.next().await {
//!         if let Event::Text { text, .. } = event { said += &text }
//!     }
//!     Ok::<_, mesh_proto::GenerateError>(said)
//! })?;
//! assert_eq!(said, "Hello");
//! # Ok(())
//! # }
//! ```

mod mailbox;
mod outbox;
mod pool;
mod prepare;
mod request;
mod steer;
mod worker;

use std::{
    collections::BTreeSet,
    error::Error,
    fmt, io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use futures_core::future::BoxFuture;
use mesh_proto::{GenerateError, GenerateRequest, ModelDescriptor, PoolRequest, Pooled, TokenId};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::{
    Decoder, Engine, EngineLoad, Generation, arrival,
    constrain::Grammars,
    house::{House, Place},
    local::{mailbox::Mailbox, outbox::Outbox, prepare::Model, request::Request},
    pool::{Pools, Skills},
    scheduler::SchedulerLimits,
    text::TextModel,
    times::Times,
};

/// How much a local engine does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// Most sequences computed together. Default 32: where a peer's throughput stopped growing (published). More of
    /// it: memory for KV is shared by more, and each gets fewer tokens a second.
    pub max_running: u32,
    /// Most requests that wait while all places are taken. Default 128, a guess at what clients wait for. More of it:
    /// refusals come later, as time-outs.
    pub max_waiting: u32,
    /// Most prompt tokens in one step. Default 512, mlx-lm's and llama.cpp's. More of it: prompts go faster, and
    /// every answer stalls longer beside one.
    pub step_tokens: u32,
    /// Events that a client may leave unread before its sequence is stopped. Default 64, about a second of text. More
    /// of it: memory, and tokens computed for a client that has hung up without saying so.
    pub event_buffer: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { max_running: 32, max_waiting: 128, step_tokens: 512, event_buffer: 64 }
    }
}

/// Of the sequences computed together, those that are pooled: one in so many, the others stay free for answers. Guess:
/// several texts fill a step as well as many do.
const POOLED_PART: usize = 2;

/// Why a local engine does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The decoder could not be made.
    #[error("{0}")]
    Decoder(Box<dyn Error + Send + Sync>),
    /// It panicked while it was made.
    #[error("the decoder's thread panicked while the model was loaded: see the log")]
    Panicked,
    /// There is no thread for it.
    #[error("the decoder's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// A decoder's thread, and the way to it. See the module's page. Dropping it stops the thread and waits for that, a
/// step at most; what runs then gets `Failed(ShuttingDown)`. To let it end, [`drain`](Engine::drain) first.
pub struct LocalEngine {
    descriptor: ModelDescriptor,
    model: Arc<Model>,
    event_buffer: usize,
    mailbox: Arc<Mailbox>,
    worker: Option<JoinHandle<()>>,
    pools: Option<Pools>,
    /// Sequences that are pooled at once, over all requests.
    pooled: Arc<Semaphore>,
}

impl LocalEngine {
    /// Starts the decoder's thread, on which `make` makes the decoder and says what it serves; returns when that is
    /// done, which can be minutes: not for an async thread. `eos`: the tokens that end an answer.
    ///
    /// The descriptor's context is cut to what the decoder's memory can hold for one sequence.
    ///
    /// # Errors
    /// `make`'s error; or its panic; or no thread.
    pub fn start<D, E>(
        text: Arc<TextModel>,
        eos: Vec<TokenId>,
        options: LocalOptions,
        make: impl FnOnce() -> Result<(D, ModelDescriptor), E> + Send + 'static,
    ) -> Result<Self, StartError>
    where
        D: Decoder + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let max_running = options.max_running.max(1);
        let house = Arc::new(House::new(max_running, options.max_waiting));
        let mailbox = Arc::new(Mailbox::new(house));
        let (made, ready) = mpsc::sync_channel(1);
        let eos = Arc::new(eos.into_iter().collect::<BTreeSet<_>>());
        let theirs = (eos.clone(), mailbox.clone());
        let work = move || {
            let (decoder, mut descriptor) = match make() {
                Ok(made) => made,
                Err(error) => {
                    made.send(Err(StartError::Decoder(error.into()))).ok();
                    return;
                }
            };
            let device = decoder.limits();
            let limits = SchedulerLimits {
                max_running,
                max_waiting: options.max_waiting,
                step_tokens: options.step_tokens,
                context_tokens: device.context_tokens.min(descriptor.context_tokens),
                kv_bytes_per_token: device.kv_bytes_per_token,
                kv_budget_bytes: device.kv_budget_bytes,
            };
            descriptor.context_tokens = limits.ceiling_tokens();
            made.send(Ok(descriptor)).ok();
            drop(made);
            worker::run(decoder, limits, theirs.0, theirs.1);
        };
        let worker = thread::Builder::new().name("decoder".to_owned()).spawn(work).map_err(StartError::Thread)?;
        let descriptor = ready.recv().map_err(|_| StartError::Panicked)??;
        let model = Model {
            grammars: Grammars::new(text.clone(), eos.clone(), descriptor.vocab_size),
            text,
            eos,
            vocab_size: descriptor.vocab_size,
            ceiling_tokens: descriptor.context_tokens,
        };
        Ok(Self {
            descriptor,
            model: Arc::new(model),
            event_buffer: options.event_buffer,
            mailbox,
            worker: Some(worker),
            pools: None,
            pooled: Arc::new(Semaphore::new((max_running as usize / POOLED_PART).max(1))),
        })
    }

    /// The same, which also makes this of texts. Its decoder can ([`Decoder::pooled`]).
    #[must_use]
    pub fn with_pools(mut self, pools: Pools) -> Self {
        self.pools = Some(pools);
        self
    }

    /// The model's text pipeline, for whoever only counts or cuts tokens.
    pub fn text(&self) -> &Arc<TextModel> {
        &self.model.text
    }

    async fn accept(&self, request: GenerateRequest, place: Place) -> Result<Generation, GenerateError> {
        let times = Times::arrived();
        let now = arrival::check(&request, self.descriptor.vocab_size)?;
        let id = request.id.clone();
        let model = self.model.clone();
        let prepared = tokio::task::spawn_blocking(move || model.prepare(request, now)).await;
        let prepared = prepared.map_err(|error| GenerateError::Engine(format!("the text pipeline failed: {error}")));
        let (draft, choice) = prepared??;
        let (outbox, events) = Outbox::new(self.event_buffer, place);
        let mut request = Request::new(id, draft, choice, outbox, times);
        if request.is_told() {
            return Ok(Generation::new(events, None));
        }
        self.mailbox.post(request)?;
        let mailbox = self.mailbox.clone();
        Ok(Generation::new(events, Some(Arc::new(move || mailbox.ring()))))
    }
}

impl Engine for LocalEngine {
    fn descriptor(&self) -> &ModelDescriptor {
        &self.descriptor
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, GenerateError>> {
        let place = self.mailbox.house.place();
        Box::pin(async move {
            self.skills().check_generates(request.model.as_str())?;
            self.accept(request, place?).await
        })
    }

    fn skills(&self) -> Skills {
        self.pools.as_ref().map_or_else(Skills::default, Pools::skills)
    }

    fn pool(&self, request: PoolRequest) -> BoxFuture<'_, Result<Pooled, GenerateError>> {
        let place = self.mailbox.house.place();
        Box::pin(async move {
            self.skills().check(&request.task, request.model.as_str())?;
            self.make(request, place?).await
        })
    }

    fn text_model(&self) -> Option<&Arc<TextModel>> {
        Some(self.text())
    }

    fn load(&self) -> EngineLoad {
        self.mailbox.house.load()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.mailbox.house.drain())
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.mailbox.stop();
        if let Some(worker) = self.worker.take() {
            worker.join().ok();
        }
    }
}

impl fmt::Debug for LocalEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEngine").field("descriptor", &self.descriptor).field("load", &self.load()).finish()
    }
}
