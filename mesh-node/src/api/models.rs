//! `GET /v1/models`, one path for two dialects; must not know either's JSON.
//!
//! Both SDKs ask here, and each wants its own shape. Anthropic's clients say which release of its API they speak, on every
//! request; nobody else does.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};

use super::{
    ApiError, anthropic, openai,
    uri::{self, Id, Pairs},
};
use crate::router::{Listed, RouteError, Router};

/// All of them.
pub(super) async fn list(State(router): State<Router>, headers: HeaderMap, query: Pairs) -> Result<Response, ApiError> {
    let models = router.list();
    if anthropic::is_meant(&headers) {
        return Ok(anthropic::models::list(models, query)?.into_response());
    }
    // OpenAI's have no pages, and its clients add what other servers filter by.
    Ok(openai::models::list(models).into_response())
}

/// One model. Its id may hold slashes, percent-encoded or not.
pub(super) async fn show(State(router): State<Router>, headers: HeaderMap, id: Id) -> Result<Response, ApiError> {
    let id = uri::id(id)?;
    let models = router.list();
    let served = models.iter().map(|model| model.id.clone()).collect();
    let found: Option<Listed> = models.into_iter().find(|model| model.id == id);
    let model = found.ok_or(RouteError::Unknown { asked: id, served })?;
    Ok(match anthropic::is_meant(&headers) {
        true => anthropic::models::show(model).into_response(),
        false => openai::models::show(model).into_response(),
    })
}
