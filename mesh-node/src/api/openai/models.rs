//! `GET /v1/models`: what is served; must not know who is asking or how a model runs.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;

use crate::{
    api::ApiError,
    router::{Listed, RouteError, Router},
};

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
pub async fn list(State(router): State<Router>) -> Json<ModelListDto> {
    let data = router.list().into_iter().map(ModelDto::from).collect();
    Json(ModelListDto { object: "list", data })
}

/// One model. Its id may hold slashes, percent-encoded or not.
pub async fn show(State(router): State<Router>, Path(id): Path<String>) -> Result<Json<ModelDto>, ApiError> {
    let models = router.list();
    let served = models.iter().map(|model| model.id.clone()).collect();
    let found = models.into_iter().find(|model| model.id == id);
    Ok(Json(found.ok_or(RouteError::Unknown { asked: id, served })?.into()))
}
