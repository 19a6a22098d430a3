//! What watches a node: is it alive, is it ready, what does it count; must not know endpoints for clients.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::ApiError;
use crate::{
    local::{LocalModel, LocalState},
    manage::MeshControl,
    router::Router,
};

/// OpenMetrics, which Prometheus reads by this name.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /health`: the process answers.
pub(super) async fn health() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /ready`: some model answers, here or in the mesh; else why none does.
pub(super) async fn ready(State(router): State<Router>) -> Result<Json<serde_json::Value>, ApiError> {
    let models: Vec<String> = router.list().into_iter().map(|model| model.id).collect();
    if !models.is_empty() {
        return Ok(Json(json!({ "status": "ready", "models": models })));
    }
    let all = router.locals().all();
    let reasons: Vec<String> = all.values().filter_map(reason).collect();
    Err(ApiError::not_ready(match reasons.as_slice() {
        [] if router.mesh().is_some() => "no model answers in this mesh yet".to_owned(),
        [] => "this node has no model: mesh-llm load NAME".to_owned(),
        reasons => reasons.join("; "),
    }))
}

fn reason(model: &LocalModel) -> Option<String> {
    match &model.state {
        LocalState::Ready(_) => None,
        LocalState::Loading => Some(format!("{} is loading", model.id)),
        LocalState::OnDisk => Some(format!("{} is not in memory", model.id)),
        LocalState::Failed(reason) => Some(format!("{} could not be loaded: {reason}", model.id)),
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(router): State<Router>) -> Result<Response, ApiError> {
    let mesh = router.mesh().map(|mesh| mesh.status());
    let text = router.metrics().text(router.locals(), mesh).map_err(|_| ApiError::bug())?;
    Ok(([(header::CONTENT_TYPE, METRICS)], text).into_response())
}
