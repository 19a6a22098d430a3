//! A model as a door knows it, wherever it is served, and why a name is none; must not know how it is asked.

use mesh_proto::{
    ModelId, Sampling,
    placement::ModelKey,
    record::{Capabilities, ServedModel},
};
use thiserror::Error;

use crate::{local::Served, mesh::MeshModel};

/// What a request's lowering and answer must know of its model.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name that was asked for.
    pub id: ModelId,
    /// Which model that is; no other may answer.
    pub key: ModelKey,
    /// The engine's kind.
    pub engine: String,
    /// Token ids lie below it.
    pub vocab_size: u32,
    /// Sampling where the request is silent.
    pub defaults: Sampling,
}

impl Target {
    pub(super) fn local(key: ModelKey, served: &Served) -> Self {
        let descriptor = served.descriptor();
        Self {
            id: descriptor.id.clone(),
            key,
            engine: descriptor.engine.clone(),
            vocab_size: descriptor.vocab_size,
            defaults: served.defaults.clone(),
        }
    }

    pub(super) fn remote(served: &ServedModel) -> Option<Self> {
        Some(Self {
            id: served.id.clone(),
            key: served.identity.key(),
            engine: served.engine.clone(),
            vocab_size: served.vocab_size,
            defaults: served.defaults.sampling(),
        })
    }
}

/// A model in the list of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// When it was loaded, Unix seconds; the first owner's.
    pub created: u64,
    /// The largest context among its owners, in tokens.
    pub context_tokens: u32,
    /// The engine's kind.
    pub engine: String,
    /// The family.
    pub family: String,
    /// How the weights are stored.
    pub quantization: String,
    /// Nodes that answer for it.
    pub owners: usize,
    /// What can be asked of it.
    pub capabilities: Capabilities,
}

impl Listed {
    pub(super) fn local(served: &Served) -> Self {
        let descriptor = served.descriptor();
        Self {
            id: descriptor.id.to_string(),
            created: descriptor.created,
            context_tokens: descriptor.context_tokens,
            engine: descriptor.engine.clone(),
            family: descriptor.family.clone(),
            quantization: descriptor.quantization.clone(),
            owners: 1,
            capabilities: served.capabilities,
        }
    }

    pub(super) fn remote(model: &MeshModel) -> Self {
        let served = &model.served;
        Self {
            id: served.id.to_string(),
            created: served.created,
            context_tokens: model.context_tokens,
            engine: served.engine.clone(),
            family: served.family.clone(),
            quantization: served.identity.quantization.clone(),
            owners: model.owners,
            capabilities: served.capabilities,
        }
    }

    pub(super) fn add(&mut self, own: &Self) {
        self.owners += own.owners;
        self.context_tokens = self.context_tokens.max(own.context_tokens);
        self.capabilities = self.capabilities.and(own.capabilities);
    }
}

/// Why no engine answers for a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    /// There is no such model.
    #[error("there is no model {asked:?} here; there are: {}", list(served))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What there is.
        served: Vec<String>,
    },
    /// It is on its way into memory.
    #[error("the model {asked:?} is still loading; try again in {retry_after_s} s")]
    Loading {
        /// What was asked for.
        asked: String,
        /// When to come back.
        retry_after_s: u32,
    },
    /// It should be here, and could not be loaded.
    #[error("the model {asked:?} could not be loaded: {reason}")]
    Failed {
        /// What was asked for.
        asked: String,
        /// Why.
        reason: String,
    },
}

fn list(served: &[String]) -> String {
    if served.is_empty() { "none".into() } else { served.join(", ") }
}
