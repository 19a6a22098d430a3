//! `GgufEngine`: an `Engine` over a llama-server; must not know how the child is kept alive.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use catalog::gguf::{self, Header};
use engine::{
    Engine, EngineLoad, Generation, arrival,
    house::{House, Place},
    pool::Skills,
    text::TextModel,
    times::Times,
};
use futures_util::future::BoxFuture;
use mesh_proto::{GenerateError, GenerateRequest, ModelDescriptor, PoolRequest, Pooled, TokenId};
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
};

use crate::{
    GgufError, GgufOptions, Started,
    arguments::{arguments, threads},
    chunk::Fragments,
    grammar::Schemas,
    kind::Kind,
    plan::{self, Machine, Wishes},
    pool,
    run::{Client, Run},
    server::{self, BridgeError, CallError, Device, Server, ServerOptions},
    vocabulary,
};

/// Events that a client may leave unread before its stream waits. As the engine crate's.
const EVENT_BUFFER: usize = 64;
/// Prompts that are tokenised at once. Unit: requests; 8: fewer than llama-server's spare threads. More of it: those
/// threads run out, and /health with them.
const TOKENIZED_AT_ONCE: usize = 8;
/// How long tokenising may take. A prompt of 32 MiB takes seconds. (guess)
const TOKENIZE: Duration = Duration::from_secs(60);
/// Between two starts of a child that was given up. Unit: time; 1 min, a guess: long enough to cost nothing, short enough
/// for a person who has just mended what was wrong.
const REVIVE_EVERY: Duration = Duration::from_secs(60);
/// Share of the machine's memory that models may take unasked. As the MLX engine's.
const MEMORY_SHARE: f64 = 0.8;

/// What requests share.
pub(crate) struct Shared {
    pub(crate) server: Server,
    pub(crate) text: Arc<TextModel>,
    pub(crate) fragments: Fragments,
    pub(crate) house: Arc<House>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) slot_count: u32,
    tokenizing: Semaphore,
    kv_bytes_per_token: u64,
    running: AtomicU32,
    kv_tokens: AtomicU64,
    pub(crate) schemas: Schemas,
    /// When a child that had been given up was last started again.
    revived: Mutex<Option<Instant>>,
}

/// A request that is computed, while this lives.
pub(crate) struct Running {
    shared: Arc<Shared>,
    tokens: u64,
}

impl Shared {
    pub(crate) fn running(self: &Arc<Self>, tokens: u32) -> Running {
        self.running.fetch_add(1, SeqCst);
        self.kv_tokens.fetch_add(u64::from(tokens), SeqCst);
        self.publish();
        Running { shared: self.clone(), tokens: u64::from(tokens) }
    }

    /// Waits until the child answers. One that was given up, after crash upon crash, gets another chance when somebody
    /// asks for it, now and then.
    pub(crate) async fn ready(&self) -> Result<(), BridgeError> {
        match self.server.ready().await {
            Err(BridgeError::Failed { .. }) if self.may_revive() => {
                tracing::info!("a request came for a llama-server that was given up: it is started again");
                self.server.revive().await;
                self.server.ready().await
            }
            decided => decided,
        }
    }

    fn may_revive(&self) -> bool {
        let mut revived = self.revived.lock().unwrap_or_else(PoisonError::into_inner);
        let due = revived.is_none_or(|at| at.elapsed() >= REVIVE_EVERY);
        if due {
            *revived = Some(Instant::now());
        }
        due
    }

    fn publish(&self) {
        self.house.publish_counts(self.running.load(SeqCst), 0);
        self.house.publish_memory(self.kv_tokens.load(SeqCst).saturating_mul(self.kv_bytes_per_token), 0);
    }

    pub(crate) async fn tokenize(&self, text: &str, specials: bool) -> Result<Vec<TokenId>, GenerateError> {
        let engine = |error: CallError| GenerateError::Engine(format!("llama-server did not tokenise: {error}"));
        let _turn = self.tokenizing.acquire().await.map_err(|_| GenerateError::ShuttingDown)?;
        self.ready().await.map_err(|error| GenerateError::Engine(error.to_string()))?;
        let body = json!({"content": text, "add_special": specials, "parse_special": true});
        let answer = self.server.call("/tokenize", &body, TOKENIZE).await.map_err(engine)?;
        let ids = answer["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
        let token = |id: &serde_json::Value| Some(TokenId(u32::try_from(id.as_u64()?).ok()?));
        let tokens: Option<Vec<TokenId>> = ids.iter().map(token).collect();
        tokens.ok_or_else(|| GenerateError::Engine("llama-server tokenised into what are no tokens".to_owned()))
    }
}

impl Running {
    /// Tokens were generated.
    pub(crate) fn came(&mut self, tokens: u32) {
        self.tokens += u64::from(tokens);
        self.shared.kv_tokens.fetch_add(u64::from(tokens), SeqCst);
        self.shared.house.stepped(tokens as usize);
        self.shared.publish();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, SeqCst);
        self.shared.kv_tokens.fetch_sub(self.tokens, SeqCst);
        self.shared.publish();
    }
}

/// A model that a llama-server serves. Dropping it ends the child.
pub struct GgufEngine {
    descriptor: ModelDescriptor,
    shared: Arc<Shared>,
    kind: Kind,
}

impl GgufEngine {
    /// The model's text pipeline.
    pub fn text(&self) -> &Arc<TextModel> {
        &self.shared.text
    }

    async fn accept(&self, request: GenerateRequest, place: Place) -> Result<Generation, GenerateError> {
        let times = Times::arrived();
        let ModelDescriptor { vocab_size, context_tokens, .. } = self.descriptor;
        let now = arrival::check(&request, vocab_size)?;
        let id = request.id.clone();
        let (shared, runtime) = (self.shared.clone(), Handle::current());
        let prepare = move || shared.prepare(request, now, (vocab_size, context_tokens), &runtime);
        let prepared = spawn_blocking(prepare).await;
        let prepared = prepared.map_err(|error| GenerateError::Engine(format!("the text pipeline failed: {error}")));
        let (events, told) = mpsc::channel(EVENT_BUFFER);
        let run = Run::new(self.shared.clone(), prepared??, Client { id, events, place, times });
        tokio::spawn(run.run());
        Ok(Generation::new(told, None))
    }
}

impl Engine for GgufEngine {
    fn descriptor(&self) -> &ModelDescriptor {
        &self.descriptor
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, GenerateError>> {
        let place = self.shared.house.place();
        Box::pin(async move {
            self.skills().check_generates(request.model.as_str())?;
            self.accept(request, place?).await
        })
    }

    fn skills(&self) -> Skills {
        self.kind.skills()
    }

    fn pool(&self, request: PoolRequest) -> BoxFuture<'_, Result<Pooled, GenerateError>> {
        let place = self.shared.house.place();
        Box::pin(async move {
            self.skills().check(&request.task, request.model.as_str())?;
            pool::make(self.shared.clone(), self.kind, request, place?).await
        })
    }

    fn text_model(&self) -> Option<&Arc<TextModel>> {
        Some(&self.shared.text)
    }

    /// The text pipeline's own tokenizer only decodes.
    fn tokenize(&self, text: String, specials: bool) -> BoxFuture<'_, Result<Vec<TokenId>, GenerateError>> {
        Box::pin(async move { self.shared.tokenize(&text, specials).await })
    }

    fn load(&self) -> EngineLoad {
        self.shared.house.load()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.house.drain())
    }
}

impl fmt::Debug for GgufEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufEngine").field("descriptor", &self.descriptor).field("load", &self.load()).finish()
    }
}

/// What was read and found out before the child is started.
struct Prepared {
    text: Arc<TextModel>,
    fragments: Fragments,
    descriptor: ModelDescriptor,
    recommended: Option<mesh_proto::Sampling>,
    kind: Kind,
    plan: plan::Plan,
    server: ServerOptions,
}

pub(crate) async fn start(options: GgufOptions, stage: &mut dyn FnMut(&str)) -> Result<Started, GgufError> {
    let max_waiting = options.max_waiting;
    let binary = server::find(options.llama_server.as_deref())?;
    server::version(&binary).await?;
    let devices = server::devices(&binary).await?;
    let prepared = spawn_blocking(move || prepare(&options, binary, devices)).await;
    let Prepared { text, fragments, descriptor, recommended, kind, plan, server } =
        prepared.map_err(|error| GgufError::Vocabulary(format!("reading it failed: {error}")))??;
    stage(&format!(
        "llama-server: {} answers at once of {} tokens each, {} layers on the GPU",
        plan.slots, plan.context_tokens, plan.gpu_layers
    ));
    let server = Server::start(server, stage).await?;
    let house = Arc::new(House::new(plan.slots, max_waiting));
    house.publish_budget(plan.kv_budget_bytes);
    let shared = Shared {
        server,
        text,
        fragments,
        house,
        slots: Arc::new(Semaphore::new(plan.slots as usize)),
        slot_count: plan.slots,
        tokenizing: Semaphore::new(TOKENIZED_AT_ONCE),
        kv_bytes_per_token: plan.kv_bytes_per_token,
        running: AtomicU32::new(0),
        kv_tokens: AtomicU64::new(0),
        schemas: Schemas::default(),
        revived: Mutex::default(),
    };
    let engine = GgufEngine { descriptor, shared: Arc::new(shared), kind };
    Ok(Started { engine, recommended, slots: plan.slots })
}

/// All that reads files.
fn prepare(options: &GgufOptions, binary: PathBuf, devices: Vec<Device>) -> Result<Prepared, GgufError> {
    let parts = options.files.gguf.as_ref().map(|gguf| gguf.parts.as_slice()).unwrap_or_default();
    let headers: Vec<Header> = parts.iter().map(|part| gguf::read(part)).collect::<Result<_, _>>()?;
    let Some(header) = headers.first() else {
        return Err(GgufError::Vocabulary("no .gguf file was named".to_owned()));
    };
    let text = vocabulary::text_model(header)?;
    let kind = Kind::of(header);
    let beside = beside(options)?;
    let wishes = Wishes {
        context_tokens: options.context_tokens,
        parallel: options.parallel,
        kv_bits: options.kv_bits,
        gpu_layers: options.gpu_layers,
        max_memory: options.max_memory.map(|bytes| bytes.saturating_sub(beside)),
    };
    let plan =
        plan::plan(&headers, &wishes, &Machine { memory: memory(options.sharers)?.saturating_sub(beside), devices })?;
    let facts = catalog::facts(&options.files)?;
    let descriptor = ModelDescriptor {
        id: options.files.id.clone(),
        engine: "gguf".to_owned(),
        family: facts.family,
        quantization: facts.quantization,
        context_tokens: plan.context_tokens,
        vocab_size: text.vocab_size(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    let server = ServerOptions {
        binary,
        guard: options.guard.clone(),
        args: arguments(options, &plan, kind, threads())?,
        name: options.files.id.to_string(),
    };
    Ok(Prepared {
        fragments: Fragments::of(&text),
        recommended: vocabulary::recommended(header),
        kind,
        text,
        descriptor,
        plan,
        server,
    })
}

/// Bytes that a projector and a draft model take, about: their files, and half of a draft again for its cache. (guess)
fn beside(options: &GgufOptions) -> Result<u64, GgufError> {
    let size = |path: &PathBuf| std::fs::metadata(path).map(|meta| meta.len());
    let named = |path: &PathBuf, error: std::io::Error| GgufError::Beside(path.clone(), error);
    let projector = options.files.gguf.as_ref().and_then(|gguf| gguf.mmproj.as_ref());
    let projector = projector.map_or(Ok(0), |path| size(path).map_err(|error| named(path, error)))?;
    let draft = options.draft.as_ref().map_or(Ok(0), |path| size(path).map_err(|error| named(path, error)))?;
    Ok(projector.saturating_add(draft).saturating_add(draft / 2))
}

/// One model's part of what the machine and its control group have.
fn memory(sharers: u32) -> Result<u64, GgufError> {
    let mut system = sysinfo::System::new().map_err(|error| GgufError::Memory(error.to_string()))?;
    system.refresh_memory();
    let machine = system.available_memory();
    let available = match system.cgroup_limits() {
        Some(group) if group.total_memory > 0 => machine.min(group.free_memory),
        _ => machine,
    };
    Ok((available as f64 * MEMORY_SHARE / f64::from(sharers.max(1))) as u64)
}
