//! Where this node's model files are, and who brings them into memory and out of it; must not know HTTP, peers or who
//! asked.
//!
//! How near each model is shows in [`LocalEngines`], which everybody else reads and only the shelf writes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use catalog::{CatalogError, Format, ModelFiles};
use mesh_proto::{ModelId, placement::ModelKey, record::ModelIdentity};
use thiserror::Error;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use crate::{
    cli::{GgufServing, Serving, say},
    load::Runtimes,
    local::{LocalEngines, LocalModel, LocalState, ModelFacts, Served},
};

/// How long answers that run may take to end when their model is unloaded. (as when the node ends)
const DRAIN: Duration = Duration::from_secs(30);
/// How long to wait for those who still hold an engine that has nothing to do, before it is dropped behind them.
const RELEASE: Duration = Duration::from_secs(2);

/// How models are served here.
#[derive(Clone, Debug)]
pub struct ServingOptions {
    /// Where bundled models are laid out and hashes remembered.
    pub cache: PathBuf,
    /// Most tokens of a sequence; `None`: the model's own limit.
    pub context_tokens: Option<u32>,
    /// Most sequences at once, for each model.
    pub parallel: u32,
    /// Most bytes of memory, for each model.
    pub max_memory: Option<u64>,
    /// What GGUF models are served with.
    pub gguf: GgufServing,
    /// How many models were named at the start: they share what the machine has.
    pub named: u32,
    /// Find out what models are by reading their files whole. A node that is alone compares them with nobody's.
    pub identify: bool,
}

impl From<&Serving> for ServingOptions {
    fn from(serving: &Serving) -> Self {
        Self {
            cache: serving.cache.clone(),
            context_tokens: serving.context_tokens,
            parallel: serving.parallel,
            max_memory: serving.max_memory,
            gguf: serving.gguf.clone(),
            named: u32::try_from(serving.models.len()).unwrap_or(u32::MAX),
            identify: serving.mesh.is_some(),
        }
    }
}

/// What is to be loaded.
#[derive(Clone, Debug)]
pub struct LoadJob {
    /// Its files.
    pub files: ModelFiles,
    /// How many models share the machine's memory, this one included.
    pub sharers: u32,
}

/// Brings models into memory. The node's own does so by MLX or llama-server; tests have scripted ones.
pub trait Loader: Send + Sync + 'static {
    /// Blocks until the model answers. `stage` hears what is going on.
    ///
    /// # Errors
    /// Why it cannot be served, in one line.
    fn load(&self, job: LoadJob, stage: &mut dyn FnMut(&str)) -> Result<Served, String>;
}

/// Why a model does not get onto the shelf. One line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// Its files.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Two models of one name.
    #[error("two models would be called {0}: rename a folder, or leave one out")]
    SameName(ModelId),
    /// A bug of ours.
    #[error("looking at its files failed: {0}")]
    Panicked(String),
}

/// The node's models. Cheap to clone; all clones are one shelf.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    locals: LocalEngines,
    options: ServingOptions,
    loader: Arc<dyn Loader>,
    books: Mutex<BTreeMap<ModelId, Book>>,
}

struct Book {
    files: ModelFiles,
    /// Named at the start.
    named: bool,
    /// Its identity stands; otherwise it is a placeholder.
    identified: bool,
    /// A load or an unload that has begun: how it ended, once it has.
    work: Option<watch::Receiver<Ended>>,
    /// What that work is.
    loads: bool,
}

type Ended = Option<Result<(), String>>;

impl Shelf {
    /// An empty shelf whose models MLX or llama-server computes.
    pub fn new(locals: LocalEngines, options: ServingOptions) -> Self {
        let loader = Arc::new(Runtimes(options.clone()));
        Self::with_loader(locals, options, loader)
    }

    /// An empty shelf whose models this loader loads.
    pub fn with_loader(locals: LocalEngines, options: ServingOptions, loader: Arc<dyn Loader>) -> Self {
        Self(Arc::new(Inner { locals, options, loader, books: Mutex::default() }))
    }

    /// Where its models show.
    pub fn locals(&self) -> &LocalEngines {
        &self.0.locals
    }

    /// Puts a model onto the shelf that the operator named at the start. It shows as on its way into memory at once,
    /// so that clients are told to wait; [`Shelf::load`] is to follow.
    ///
    /// # Errors
    /// When its files are no good, or its name is taken.
    pub async fn name(&self, files: ModelFiles) -> Result<(), ShelfError> {
        let facts = self.facts(&files).await?;
        let id = files.id.clone();
        self.put(files, facts, true, true).then_some(()).ok_or(ShelfError::SameName(id))
    }

    /// Puts a model onto the shelf, from which the operator or an election may load it.
    ///
    /// # Errors
    /// When its files are no good, or its name is taken.
    pub async fn offer(&self, files: ModelFiles, pinned: bool) -> Result<(), ShelfError> {
        let mut facts = self.facts(&files).await?;
        if self.0.options.identify {
            facts.identity.content = self.content(&files).await?;
        }
        let id = files.id.clone();
        self.add(files, facts, pinned).then_some(()).ok_or(ShelfError::SameName(id))
    }

    /// Puts a model onto the shelf of which everything is known. Says whether its name was free.
    pub fn add(&self, files: ModelFiles, facts: ModelFacts, pinned: bool) -> bool {
        self.put(files, facts, pinned, false)
    }

    fn put(&self, files: ModelFiles, facts: ModelFacts, pinned: bool, named: bool) -> bool {
        let id = files.id.clone();
        let state = if named { LocalState::Loading } else { LocalState::OnDisk };
        let mut books = self.books();
        if !self.0.locals.add(LocalModel { id: id.clone(), facts, pinned, state }) {
            return false;
        }
        books.insert(id, Book { files, named, identified: !named, work: None, loads: false });
        true
    }

    /// The model of this name: one of the shelf's, or one of this machine's, which comes onto the shelf with that.
    /// `format`: which of its files, where it has several.
    ///
    /// # Errors
    /// When there is none, or its files are no good; when another one has its name.
    pub async fn find(&self, name: &str, format: Option<Format>) -> Result<ModelId, ShelfError> {
        let id = ModelId::new(name);
        if let Some(book) = self.books().get(&id) {
            let other = format.is_some_and(|format| format != book.files.format());
            return if other { Err(ShelfError::SameName(id)) } else { Ok(id) };
        }
        let (name, cache) = (name.to_owned(), self.0.options.cache.clone());
        let files = blocking(move || catalog::resolve(&name, &cache, format, None)).await?;
        let id = files.id.clone();
        let same = self.books().get(&id).map(|book| book.files == files);
        match same {
            Some(true) => Ok(id),
            Some(false) => Err(ShelfError::SameName(id)),
            None => self.offer(files, false).await.map(|()| id),
        }
    }

    /// Says whether the operator wants a model in memory: then no election unloads it.
    pub fn pin(&self, id: &ModelId, pinned: bool) {
        self.0.locals.change(id, |model| model.pinned = pinned);
    }

    /// Brings a model into memory; done at once if it is there. Goes on if nobody waits for it any more, and whoever
    /// asks meanwhile waits for the same.
    ///
    /// # Errors
    /// Why it cannot be served, in one line; the model is `Failed` then.
    pub async fn load(&self, id: &ModelId) -> Result<(), String> {
        self.work(id, true).await
    }

    /// Takes a model out of memory: no new requests, half a minute for those that run, then the memory is free. Goes
    /// on if nobody waits for it any more.
    ///
    /// # Errors
    /// When it is not in memory, in one line.
    pub async fn unload(&self, id: &ModelId) -> Result<(), String> {
        self.work(id, false).await
    }

    /// [`Shelf::load`] by what the model is.
    ///
    /// # Errors
    /// As there.
    pub async fn load_key(&self, key: ModelKey) -> Result<(), String> {
        self.load(&self.id(key)?).await
    }

    /// [`Shelf::unload`] by what the model is.
    ///
    /// # Errors
    /// As there.
    pub async fn unload_key(&self, key: ModelKey) -> Result<(), String> {
        self.unload(&self.id(key)?).await
    }

    fn id(&self, key: ModelKey) -> Result<ModelId, String> {
        let all = self.0.locals.all();
        let found = all.values().find(|model| model.key() == key);
        found.map(|model| model.id.clone()).ok_or_else(|| "no model of this identity is here".to_owned())
    }

    fn books(&self) -> MutexGuard<'_, BTreeMap<ModelId, Book>> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the work that has begun if it is the same, waits for it if it is the opposite, or begins it.
    async fn work(&self, id: &ModelId, load: bool) -> Result<(), String> {
        loop {
            let (mut ended, same) = {
                let mut books = self.books();
                let book = books.get_mut(id).ok_or_else(|| format!("no model called {id} is on this node"))?;
                let running = book.work.as_ref().filter(|work| work.borrow().is_none() && work.has_changed().is_ok());
                match running {
                    Some(work) => (work.clone(), book.loads == load),
                    None => {
                        let (tell, told) = watch::channel(None);
                        (book.work, book.loads) = (Some(told.clone()), load);
                        let (shelf, id) = (self.clone(), id.clone());
                        tokio::spawn(async move {
                            let result = if load { shelf.bring(&id).await } else { shelf.take(&id).await };
                            tell.send_replace(Some(result));
                        });
                        (told, true)
                    }
                }
            };
            let result = match ended.wait_for(Option::is_some).await {
                Ok(result) => result.clone().unwrap_or(Ok(())),
                Err(_) => Err(format!("{id}: a bug ended the work on it; the log says more")),
            };
            if same {
                return result;
            }
        }
    }

    async fn bring(&self, id: &ModelId) -> Result<(), String> {
        if self.0.locals.find(id).is_some() {
            return Ok(());
        }
        self.set(id, LocalState::Loading);
        let loaded = self.read(id).await;
        let (state, result) = match loaded {
            Ok(served) => (LocalState::Ready(served), Ok(())),
            Err(reason) => (LocalState::Failed(reason.clone()), Err(reason)),
        };
        self.set(id, state);
        result
    }

    async fn read(&self, id: &ModelId) -> Result<Served, String> {
        let (files, identified) = {
            let books = self.books();
            let book = books.get(id).ok_or_else(|| format!("no model called {id} is on this node"))?;
            (book.files.clone(), book.identified)
        };
        if self.0.options.identify && !identified {
            let content = self.content(&files).await.map_err(|error| error.to_string())?;
            self.0.locals.change(id, |model| model.facts.identity.content = content);
            if let Some(book) = self.books().get_mut(id) {
                book.identified = true;
            }
        }
        let job = LoadJob { sharers: self.sharers(id), files };
        let (loader, name) = (self.0.loader.clone(), id.clone());
        let load = move || loader.load(job, &mut |stage| say::note(format!("{name}: {stage}")));
        spawn_blocking(load).await.unwrap_or_else(|panic| Err(format!("loading it failed: {panic}")))
    }

    /// Those named at the start get equal parts. One that comes later gets its part of what those in memory left: half
    /// of it beside one, a quarter beside two.
    fn sharers(&self, id: &ModelId) -> u32 {
        if self.books().get(id).is_some_and(|book| book.named) {
            return self.0.options.named.max(1);
        }
        let all = self.0.locals.all();
        let taking = |model: &&LocalModel| matches!(model.state, LocalState::Ready(_) | LocalState::Loading);
        let others = all.values().filter(|model| model.id != *id).filter(taking).count();
        u32::try_from(others).unwrap_or(u32::MAX).saturating_mul(2).max(1)
    }

    async fn take(&self, id: &ModelId) -> Result<(), String> {
        let mut taken = None;
        self.0.locals.change(id, |model| {
            if let LocalState::Ready(served) = &model.state {
                taken = Some(served.engine.clone());
                model.state = LocalState::OnDisk;
            }
        });
        let Some(engine) = taken else { return Err(format!("{id} is not in memory")) };
        if timeout(DRAIN, engine.drain()).await.is_err() {
            say::note(format!("{id}: some answers had not ended after {} s and are cut off", DRAIN.as_secs()));
        }
        // A request that has just ended may hold it still; whoever drops it last waits for the device's thread.
        let patience = Instant::now() + RELEASE;
        while Arc::strong_count(&engine) > 1 && Instant::now() < patience {
            sleep(Duration::from_millis(10)).await;
        }
        spawn_blocking(move || drop(engine)).await.map_err(|panic| format!("unloading {id} failed: {panic}"))
    }

    fn set(&self, id: &ModelId, state: LocalState) {
        self.0.locals.change(id, |model| model.state = state);
    }

    async fn facts(&self, files: &ModelFiles) -> Result<ModelFacts, ShelfError> {
        let theirs = files.clone();
        let facts = blocking(move || catalog::facts(&theirs)).await?;
        // Until the files have been read whole it is nobody else's model; alone, it never meets another.
        let content = if self.0.options.identify { rand::random() } else { [0; 32] };
        let most = self.0.options.context_tokens.unwrap_or(u32::MAX);
        Ok(ModelFacts {
            identity: ModelIdentity {
                repository: String::new(),
                revision: String::new(),
                quantization: facts.quantization,
                content,
            },
            engine: facts.engine.to_owned(),
            family: facts.family,
            context_tokens: facts.context_tokens.min(most),
            weight_bytes: facts.weight_bytes,
        })
    }

    async fn content(&self, files: &ModelFiles) -> Result<[u8; 32], ShelfError> {
        let (files, cache) = (files.clone(), self.0.options.cache.clone());
        blocking(move || content(&files, &cache)).await
    }
}

fn content(files: &ModelFiles, cache: &Path) -> Result<[u8; 32], CatalogError> {
    catalog::content(files, cache, &mut |progress| say::note(format!("{}: {progress}", files.id)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, ShelfError> {
    match spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(ShelfError::Panicked(panic.to_string())),
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
