//! OpenAI's Responses API, in and out; must not know how a model answers.

pub(super) mod create;
mod item;
mod kept;
mod lower;
mod raise;
mod store;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension,
    http::StatusCode,
    routing::{get, post},
};

use super::{ApiError, ErrorBody, Route};
use crate::router::Target;

/// Its routes, and the memory behind them: a node's own, which ends with it.
pub(super) fn table() -> Vec<Route> {
    let kept = Extension(Arc::new(store::Store::default()));
    let all: [Route; 4] = [
        ("/v1/responses", &["POST"], post(create::serve)),
        ("/v1/responses/{id}", &["DELETE", "GET"], get(kept::show).delete(kept::forget)),
        ("/v1/responses/{id}/cancel", &["POST"], post(kept::cancel)),
        ("/v1/responses/{id}/input_items", &["GET"], get(kept::input_items)),
    ];
    all.into_iter().map(|(path, methods, answer)| (path, methods, answer.layer(kept.clone()))).collect()
}

/// What every part of one response repeats.
#[derive(Clone, Debug)]
struct Head {
    /// Of the request; the ids of the response and its items are made of it.
    number: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(request: &str, target: &Target) -> Self {
        Self {
            number: request.replace('-', ""),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            model: target.id.to_string(),
        }
    }

    fn id(&self) -> String {
        format!("resp_{}", self.number)
    }
}

/// Something that was kept, and is no more, or never was.
fn not_found(message: String, param: Option<&str>, code: Option<&'static str>) -> ApiError {
    let body = ErrorBody { message, kind: "invalid_request_error", param: param.map(str::to_owned), code };
    ApiError { status: StatusCode::NOT_FOUND, retry_after_s: None, body }
}
