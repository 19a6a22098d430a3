//! Models as OpenAI lists them; must not know who is asking or how a model runs.

use axum::Json;
use serde::Serialize;

use crate::router::Listed;

/// A model as OpenAI lists it, and what its users ask for next.
#[derive(Debug, Serialize)]
pub struct ModelDto {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    context_length: u32,
    engine: String,
    family: String,
    quantization: String,
    /// Nodes of the mesh that answer for it.
    owners: usize,
    /// What can be asked of it, in words.
    capabilities: Vec<&'static str>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct ModelListDto {
    object: &'static str,
    data: Vec<ModelDto>,
}

impl From<Listed> for ModelDto {
    fn from(model: Listed) -> Self {
        Self {
            id: model.id,
            object: "model",
            created: model.created,
            owned_by: "mesh-llm",
            context_length: model.context_tokens,
            engine: model.engine,
            family: model.family,
            quantization: model.quantization,
            owners: model.owners,
            capabilities: model.capabilities.words(),
        }
    }
}

/// Lists the models.
pub(in crate::api) fn list(models: Vec<Listed>) -> Json<ModelListDto> {
    Json(ModelListDto { object: "list", data: models.into_iter().map(ModelDto::from).collect() })
}

/// One model.
pub(in crate::api) fn show(model: Listed) -> Json<ModelDto> {
    Json(model.into())
}
