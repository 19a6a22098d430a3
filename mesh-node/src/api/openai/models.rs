//! `GET /v1/models`: what is served; must not know who is asking or how a model runs.

use axum::{
    Json,
    extract::{Path, State},
};
use mesh_proto::{ModelDescriptor, ModelId};
use serde::Serialize;

use crate::{api::ApiError, router::Router};

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
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct ModelListDto {
    object: &'static str,
    data: Vec<ModelDto>,
}

impl From<&ModelDescriptor> for ModelDto {
    fn from(model: &ModelDescriptor) -> Self {
        Self {
            id: model.id.to_string(),
            object: "model",
            created: model.created,
            owned_by: "mesh-llm",
            context_length: model.context_tokens,
            engine: model.engine.clone(),
            family: model.family.clone(),
            quantization: model.quantization.clone(),
        }
    }
}

/// Lists the models.
pub async fn list(State(router): State<Router>) -> Json<ModelListDto> {
    let data = router.models().iter().map(|served| served.descriptor().into()).collect();
    Json(ModelListDto { object: "list", data })
}

/// One model. Its id may hold slashes, percent-encoded or not.
pub async fn show(State(router): State<Router>, Path(id): Path<String>) -> Result<Json<ModelDto>, ApiError> {
    Ok(Json(router.find(&ModelId::new(id))?.descriptor().into()))
}
