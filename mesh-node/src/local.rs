//! This node's own models and how near each is to answering; must not know peers, files or HTTP.
//!
//! The one registry of them. The API's router reads it, the mesh publishes it, the tunnel's serving side is handed it
//! and nothing else, so that a request from a peer can reach a local engine and never a third node. The shelf writes it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use engine::Engine;
use futures_util::future::join_all;
use mesh_proto::{
    ModelDescriptor, ModelId, Sampling,
    placement::ModelKey,
    record::{Capabilities, ModelIdentity},
};
use tokio::sync::watch;

/// A model that answers.
#[derive(Clone)]
pub struct Served {
    /// Who answers.
    pub engine: Arc<dyn Engine>,
    /// Sampling of requests that do not say. Its seed and biases are empty.
    pub defaults: Sampling,
    /// Most generations at once.
    pub max_concurrency: u32,
    /// What can be asked of it.
    pub capabilities: Capabilities,
}

impl Served {
    /// What it is.
    pub fn descriptor(&self) -> &ModelDescriptor {
        self.engine.descriptor()
    }
}

/// What is known of a model from its files alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// What it is, whatever it is called.
    pub identity: ModelIdentity,
    /// The engine that will compute it: `mlx`, `gguf`, `script`.
    pub engine: String,
    /// The family, e.g. `qwen3`.
    pub family: String,
    /// Most tokens of prompt and answer together, before memory is looked at.
    pub context_tokens: u32,
    /// Bytes of weights in memory, about.
    pub weight_bytes: u64,
}

/// How near a model is to answering.
#[derive(Clone)]
pub enum LocalState {
    /// The files are here.
    OnDisk,
    /// On its way into memory.
    Loading,
    /// Answers.
    Ready(Served),
    /// Failed to load; the reason.
    Failed(String),
}

/// One model of this node.
#[derive(Clone)]
pub struct LocalModel {
    /// The name that clients use.
    pub id: ModelId,
    /// What its files say.
    pub facts: ModelFacts,
    /// Its operator named it: elections never unload it.
    pub pinned: bool,
    /// How near it is.
    pub state: LocalState,
}

impl LocalModel {
    /// What the mesh compares it by.
    pub fn key(&self) -> ModelKey {
        self.facts.identity.key()
    }

    /// If it answers, who.
    pub fn served(&self) -> Option<&Served> {
        match &self.state {
            LocalState::Ready(served) => Some(served),
            _ => None,
        }
    }
}

/// All models of this node by name, to be read from anywhere. Cheap to clone; every clone sees every change.
#[derive(Clone)]
pub struct LocalEngines {
    models: watch::Sender<Arc<BTreeMap<ModelId, LocalModel>>>,
}

impl Default for LocalEngines {
    fn default() -> Self {
        Self { models: watch::Sender::new(Arc::default()) }
    }
}

impl LocalEngines {
    /// As they are now.
    pub fn all(&self) -> Arc<BTreeMap<ModelId, LocalModel>> {
        self.models.borrow().clone()
    }

    /// Wakes whenever one of them changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<BTreeMap<ModelId, LocalModel>>> {
        self.models.subscribe()
    }

    /// Who answers by this name here.
    pub fn find(&self, id: &ModelId) -> Option<Served> {
        self.models.borrow().get(id).and_then(|model| model.served().cloned())
    }

    /// Who answers for this very model here, whatever it is called.
    pub fn find_key(&self, key: ModelKey) -> Option<Served> {
        let models = self.models.borrow();
        // The same files may be here under two names, and answer under one.
        models.values().filter(|model| model.key() == key).find_map(|model| model.served().cloned())
    }

    /// Adds an engine that answers already, with what it says of itself for its files' facts. For nodes without files,
    /// as tests have them.
    pub fn add_served(&self, served: Served) -> bool {
        let descriptor = served.descriptor();
        let content = *blake3::hash(descriptor.id.as_str().as_bytes()).as_bytes();
        let facts = ModelFacts {
            identity: ModelIdentity { content, ..ModelIdentity::default() },
            engine: descriptor.engine.clone(),
            family: descriptor.family.clone(),
            context_tokens: descriptor.context_tokens,
            weight_bytes: 0,
        };
        let id = descriptor.id.clone();
        self.add(LocalModel { id, facts, pinned: true, state: LocalState::Ready(served) })
    }

    /// Adds a model. Says whether its name was free; if not, nothing changes.
    pub fn add(&self, model: LocalModel) -> bool {
        self.models.send_if_modified(|models| match Arc::make_mut(models).entry(model.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(model);
                true
            }
            Entry::Occupied(_) => false,
        })
    }

    /// Changes a model in place; nothing where there is none by this name.
    pub fn change(&self, id: &ModelId, change: impl FnOnce(&mut LocalModel)) {
        self.models.send_if_modified(|models| Arc::make_mut(models).get_mut(id).map(change).is_some());
    }

    /// Takes a model off the list.
    pub fn remove(&self, id: &ModelId) {
        self.models.send_if_modified(|models| Arc::make_mut(models).remove(id).is_some());
    }

    /// Takes no more requests anywhere; ends when all running ones have ended.
    pub async fn drain(&self) {
        let models = self.all();
        join_all(models.values().filter_map(LocalModel::served).map(|served| served.engine.drain())).await;
    }

    /// Generations running and waiting, in all.
    pub fn busy(&self) -> u32 {
        let load = |served: &Served| served.engine.load();
        self.all().values().filter_map(LocalModel::served).map(load).map(|load| load.running + load.waiting).sum()
    }
}
