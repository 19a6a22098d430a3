//! Who answers: this node's engines, and those of its mesh; must not know HTTP or how a model is computed.
//!
//! [`Router::find`] turns a name into a [`Target`] (what lowering must know of the model, wherever it is), and
//! [`Router::begin`] starts a generation there. Where more than one node could answer, [`attempt`] walks down the order
//! that `mesh_proto::routing` gives, and resumes on the next host what the last one left; [`rows`] asks the next one for the
//! vectors or scores that the last one did not give.

mod attempt;
mod rows;
mod target;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use engine::Generation;
use mesh_proto::{
    GenerateError, GenerateRequest, ModelId, PoolRequest, Pooled,
    identity::NodeId,
    placement::ModelKey,
    routing::{AttemptConfig, Candidate, Choice, Load, PrefixChain, SessionKey, Targets, Wish, route},
};
use tokio::{sync::mpsc, time::timeout};

pub use target::{Listed, RouteError, Target};

use crate::{
    local::{LocalEngines, LocalState, Served},
    mesh::{Mesh, View},
    metrics::Metrics,
    tunnel::Asking,
};

/// How long a request waits for a model that is being loaded somewhere, before it is told to come back. Unit: seconds;
/// default 8, a guess: below every SDK's own time-out. Cost: a connection that waits.
const LOAD_WAIT: Duration = Duration::from_secs(8);
/// What such a client is told to wait.
const RETRY_AFTER_S: u32 = 5;
/// Events that a client may leave unread before its host is made to wait.
const ROOM: usize = 16;

/// The way from a name to an answer. Cheap to clone.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    locals: LocalEngines,
    config: AttemptConfig,
    mesh: OnceLock<Arc<Mesh>>,
    targets: Mutex<Targets>,
    metrics: Arc<Metrics>,
}

/// A generation that was accepted, and who works on it.
pub struct Begun {
    /// Its events, `Started` first.
    pub generation: Generation,
    /// Who works on it now.
    pub trace: Arc<Trace>,
}

/// Vectors or scores, and who made them.
#[derive(Debug)]
pub struct Made {
    /// They.
    pub pooled: Pooled,
    /// Who made them.
    pub trace: Arc<Trace>,
}

/// Who works on a generation; changes when another host takes over.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Option<(NodeId, String)>>);

impl Trace {
    /// The node, and why it was chosen; absent outside a mesh.
    pub fn now(&self) -> Option<(NodeId, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, node: NodeId, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((node, reason));
    }
}

impl Router {
    /// A router over this node's engines.
    pub fn new(locals: LocalEngines, config: AttemptConfig) -> Self {
        let targets = Mutex::new(Targets::new(rand::random()));
        Self(Arc::new(Inner { locals, config, mesh: OnceLock::new(), targets, metrics: Arc::default() }))
    }

    /// From now on the mesh's nodes answer too. Once.
    pub fn join(&self, mesh: Arc<Mesh>) {
        // A node is in one mesh; the first one stays.
        let _ = self.0.mesh.set(mesh);
    }

    /// The mesh, if this node is in one.
    pub fn mesh(&self) -> Option<&Arc<Mesh>> {
        self.0.mesh.get()
    }

    /// This node's own models.
    pub fn locals(&self) -> &LocalEngines {
        &self.0.locals
    }

    /// What is counted of its requests.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    fn view(&self) -> Option<Arc<View>> {
        self.mesh().map(|mesh| mesh.view())
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.0.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who answers for this name, here or elsewhere. Never another model. Waits for one that is being loaded.
    ///
    /// # Errors
    /// When nobody does, or the model takes long to load, or failed to.
    pub async fn find(&self, id: &ModelId) -> Result<Target, RouteError> {
        if let Some(mesh) = self.mesh() {
            mesh.asked(id.clone());
        }
        if let Some(target) = self.known(id) {
            return Ok(target);
        }
        if !self.coming(id)? {
            let served = self.list().into_iter().map(|listed| listed.id).collect();
            return Err(RouteError::Unknown { asked: id.to_string(), served });
        }
        let appears = async {
            let mut locals = self.locals().subscribe();
            let mut view = self.mesh().map(|mesh| mesh.subscribe());
            loop {
                if let Some(target) = self.known(id) {
                    return Ok(target);
                }
                self.coming(id)?;
                tokio::select! {
                    // Their senders live as long as this router.
                    _ = locals.changed() => {}
                    _ = changed(view.as_mut()) => {}
                }
            }
        };
        match timeout(LOAD_WAIT, appears).await {
            Ok(found) => found,
            Err(_) => Err(RouteError::Loading { asked: id.to_string(), retry_after_s: RETRY_AFTER_S }),
        }
    }

    fn known(&self, id: &ModelId) -> Option<Target> {
        if let Some(served) = self.locals().find(id) {
            let key = self.locals().all().get(id).map(|model| model.key())?;
            return Some(Target::local(key, &served));
        }
        let view = self.view()?;
        let mut wish = wish(id.clone(), None, PrefixChain::default(), None, 0);
        wish.salt = rand::random();
        let best = self.choices(&wish).into_iter().next()?;
        Target::remote(view.served(&best.candidate.node, best.candidate.model)?)
    }

    /// Whether it may answer soon, though nobody answers now.
    fn coming(&self, id: &ModelId) -> Result<bool, RouteError> {
        let elsewhere = self.view().is_some_and(|view| view.may_come(id));
        match self.locals().all().get(id).map(|model| &model.state) {
            Some(LocalState::Loading) => Ok(true),
            Some(LocalState::Failed(reason)) if !elsewhere => {
                Err(RouteError::Failed { asked: id.to_string(), reason: reason.clone() })
            }
            // In a mesh, being asked for makes it wanted, and elections see to the rest.
            Some(LocalState::OnDisk) => Ok(self.mesh().is_some()),
            _ => Ok(elsewhere),
        }
    }

    /// Every model there is, each once by name.
    pub fn list(&self) -> Vec<Listed> {
        let mut listed = std::collections::BTreeMap::new();
        for (id, model) in self.view().map(|view| view.models()).unwrap_or_default() {
            listed.insert(id, Listed::remote(&model));
        }
        for (id, model) in self.locals().all().iter() {
            if let Some(served) = model.served() {
                let own = Listed::local(served);
                listed.entry(id.clone()).and_modify(|all: &mut Listed| all.add(&own)).or_insert(own);
            }
        }
        listed.into_values().collect()
    }

    /// Starts a generation for a target, on the best host. `session`: the client's own name for the conversation.
    ///
    /// # Errors
    /// As an engine's: nothing runs on after one.
    pub async fn begin(
        &self,
        target: &Target,
        mut request: GenerateRequest,
        session: Option<&str>,
    ) -> Result<Begun, GenerateError> {
        let trace = Arc::<Trace>::default();
        let local = self.locals().find(&request.model);
        let Some(mesh) = self.mesh() else {
            let served = local.ok_or_else(|| not_served(&request))?;
            return Ok(Begun { generation: served.engine.generate(request).await?, trace });
        };
        let view = mesh.view();
        let prefix = PrefixChain::of(&request.prompt, &view.mesh.0, target.key);
        let session = session.map(|name| SessionKey::of(name, &view.mesh.0, target.key));
        let mut wish = wish(request.model.clone(), Some(target.key), prefix, session, 1);
        wish.salt = rand::random();
        let choices = self.choices(&wish);
        if let ([only], Some(served)) = (choices.as_slice(), &local)
            && only.candidate.node == view.me
        {
            // The usual case of a mesh whose nodes serve different models: nothing stands between engine and client.
            trace.set(view.me, only.reason.to_string());
            mesh.sketches().cached(target.key, &wish.prefix, wish.session);
            return Ok(Begun { generation: served.engine.generate(request).await?, trace });
        }
        if request.sampling.draws() {
            // Whoever takes over must draw what the first host would have drawn.
            request.seed_drawn |= request.sampling.seed.is_none();
            request.sampling.seed.get_or_insert_with(rand::random);
        }
        // So must it render the prompt of this moment, also after midnight and in another time zone.
        let now = jiff::Zoned::now();
        request.local_time_s = Some(now.timestamp().as_second() + i64::from(now.offset().seconds()));
        let (events, received) = mpsc::channel(ROOM);
        let pump = attempt::Pump::new(
            self.clone(),
            mesh.clone(),
            wish,
            request,
            attempt::Client { events, trace: trace.clone() },
        );
        tokio::spawn(pump.run(choices));
        Ok(Begun { generation: Generation::new(received, None), trace })
    }

    /// Vectors or scores of texts, from the best host or the next one.
    ///
    /// # Errors
    /// As an engine's: nothing runs on after one.
    pub async fn pool(&self, target: &Target, request: PoolRequest) -> Result<Made, GenerateError> {
        let local = self.locals().find(&request.model);
        let Some(mesh) = self.mesh() else {
            let served = local.ok_or_else(|| GenerateError::NotServed { model: request.model.to_string() })?;
            return Ok(Made { pooled: served.engine.pool(request).await?, trace: Arc::default() });
        };
        rows::run(self, mesh, target, request).await
    }

    /// Who could be asked now, best first.
    fn choices(&self, wish: &Wish) -> Vec<Choice> {
        let Some(mesh) = self.mesh() else { return Vec::new() };
        let view = mesh.view();
        let mut candidates: Vec<Candidate> =
            view.candidates.iter().filter(|candidate| candidate.name == wish.name).cloned().collect();
        candidates.extend(self.own(&view, &wish.name));
        match route(&candidates, wish, &self.targets(), crate::mesh::local_time()) {
            Ok(routed) => routed.choices,
            Err(error) => {
                tracing::debug!(%error, "nobody can be asked");
                Vec::new()
            }
        }
    }

    /// This node as a candidate, as it is now rather than as its record said.
    fn own(&self, view: &View, name: &ModelId) -> Option<Candidate> {
        let all = self.locals().all();
        let model = all.get(name)?;
        let served: &Served = model.served()?;
        let (descriptor, load) = (served.descriptor(), served.engine.load());
        let key = model.key();
        Some(Candidate {
            node: view.me,
            name: name.clone(),
            model: key,
            context_tokens: descriptor.context_tokens,
            capabilities: served.capabilities,
            // Its own clients' requests run to their end; only peers' are handed over.
            draining: false,
            suspect: false,
            load: Load {
                in_flight: load.running,
                queued: load.waiting,
                slots: served.max_concurrency,
                ttft_ms: load.ttft_ms,
                prefill_per_second: 0,
            },
            sketch: self.mesh().map(|mesh| mesh.sketches().sketch(key)).unwrap_or_default(),
            lease: None,
        })
    }

    /// A try at a choice; `None` where it cannot even be begun.
    fn ask(&self, mesh: &Mesh, choice: &Choice, wish: &Wish, request: GenerateRequest) -> Option<Asking> {
        let (node, model): (NodeId, ModelKey) = (choice.candidate.node, choice.candidate.model);
        if node == mesh.view().me {
            let served = self.locals().find_key(model)?;
            mesh.sketches().cached(model, &wish.prefix, wish.session);
            return Some(Asking::local(served.engine, request));
        }
        let contact = mesh.view().contact(&node)?.clone();
        let ask = mesh_proto::infer::Ask::new(request, model);
        Some(Asking::remote(mesh.pool().clone(), contact, ask))
    }
}

fn wish(
    name: ModelId,
    model: Option<ModelKey>,
    prefix: PrefixChain,
    session: Option<SessionKey>,
    context_tokens: u32,
) -> Wish {
    Wish { name, model, context_tokens, needs: Default::default(), prefix, session, salt: 0 }
}

fn not_served(request: &GenerateRequest) -> GenerateError {
    GenerateError::NotServed { model: request.model.to_string() }
}

async fn changed(view: Option<&mut tokio::sync::watch::Receiver<Arc<View>>>) {
    match view {
        // Its sender lives as long as the mesh.
        Some(view) => drop(view.changed().await),
        None => std::future::pending().await,
    }
}
