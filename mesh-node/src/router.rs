//! The models that this node serves, by name; must not know HTTP or how a model is computed.

use std::sync::Arc;

use engine::Engine;
use futures_util::future::join_all;
use mesh_proto::{ModelDescriptor, ModelId, Sampling};
use thiserror::Error;

/// A model, and what its makers recommend where a request is silent.
#[derive(Clone)]
pub struct Served {
    /// Who answers.
    pub engine: Arc<dyn Engine>,
    /// Sampling of requests that do not say. Its seed and biases are empty.
    pub defaults: Sampling,
}

impl Served {
    /// What it is.
    pub fn descriptor(&self) -> &ModelDescriptor {
        self.engine.descriptor()
    }
}

/// The local engines. Mesh peers join them here, with the machine that chooses among several.
#[derive(Clone, Default)]
pub struct Router {
    models: Arc<[Served]>,
}

/// No engine answers for this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the model {asked:?} is not served here; served are: {}", served.join(", "))]
pub struct RouteError {
    /// What was asked for.
    pub asked: String,
    /// What there is.
    pub served: Vec<String>,
}

impl Router {
    /// Serves these models; their names are distinct.
    pub fn new(models: Vec<Served>) -> Self {
        Self { models: models.into() }
    }

    /// All of them, in the order in which they were named at the start.
    pub fn models(&self) -> &[Served] {
        &self.models
    }

    /// Who answers for this name. Never another model.
    ///
    /// # Errors
    /// When nobody does.
    pub fn find(&self, id: &ModelId) -> Result<&Served, RouteError> {
        self.models.iter().find(|served| served.descriptor().id == *id).ok_or_else(|| RouteError {
            asked: id.to_string(),
            served: self.models.iter().map(|served| served.descriptor().id.to_string()).collect(),
        })
    }

    /// Takes no more requests anywhere; ends when all running ones have ended.
    pub async fn drain(&self) {
        join_all(self.models.iter().map(|served| served.engine.drain())).await;
    }
}
