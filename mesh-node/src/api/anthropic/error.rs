//! Errors as Anthropic's clients read them; must not know what went wrong.

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use mesh_proto::{GenerateError, RequestId};
use serde::Serialize;

use crate::api::ApiError;

/// Where Anthropic's SDKs look for a request's id.
pub(in crate::api) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// The paths that speak this dialect.
const PATH: &str = "/v1/messages";
/// The path that both dialects have.
const SHARED: &str = "/v1/models";
/// What this dialect's clients send with every request, and no others.
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// What tells the SDKs to send whole conversations instead.
const NO_THREAD: &str = "thread_unsupported_request";

/// The body of an error, and the last event of a stream that broke.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ErrorDto {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorObject,
    request_id: String,
}

#[derive(Clone, Debug, Serialize)]
struct ErrorObject {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Clone, Debug, Serialize)]
struct Details {
    error_code: &'static str,
}

impl ErrorDto {
    pub(super) fn new(error: ApiError, request: &str) -> Self {
        let (_, kind) = row(&error);
        let details = error.body.code.filter(|code| *code == NO_THREAD).map(|error_code| Details { error_code });
        let error = ErrorObject { kind, message: error.body.message, details };
        Self { kind: "error", error, request_id: request.to_owned() }
    }
}

/// The one table: our status → Anthropic's status and type. 529 is its own number for "come back later".
fn row(error: &ApiError) -> (u16, &'static str) {
    match error.status {
        StatusCode::UNAUTHORIZED => (401, "authentication_error"),
        StatusCode::FORBIDDEN => (403, "permission_error"),
        StatusCode::NOT_FOUND => (404, "not_found_error"),
        StatusCode::PAYLOAD_TOO_LARGE => (413, "request_too_large"),
        StatusCode::TOO_MANY_REQUESTS => (429, "rate_limit_error"),
        // A model that could not be loaded is not busy.
        StatusCode::SERVICE_UNAVAILABLE if error.body.code == Some("model_failed") => (500, "api_error"),
        StatusCode::SERVICE_UNAVAILABLE => (529, "overloaded_error"),
        status if status.is_server_error() => (status.as_u16(), "api_error"),
        status => (status.as_u16(), "invalid_request_error"),
    }
}

/// A generation's error. Clients look for these words before they shorten a conversation.
pub(super) fn told(error: GenerateError) -> ApiError {
    let words = match &error {
        GenerateError::ContextOverflow { prompt_tokens, context_tokens } => {
            Some(format!("prompt is too long: {prompt_tokens} tokens > {context_tokens} maximum"))
        }
        _ => None,
    };
    let mut told = ApiError::from(error);
    if let Some(words) = words {
        told.body.message = words;
    }
    told
}

/// The refusal of `thread`.
pub(super) fn no_thread(error: GenerateError) -> ApiError {
    let mut told = ApiError::from(error);
    told.body.code = Some(NO_THREAD);
    told
}

/// Whether whoever asks speaks this dialect.
pub(in crate::api) fn is_meant(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION)
}

/// Puts whatever error is answered on this dialect's paths, by whichever layer, into its shape, and the request's id
/// where its clients look for it.
pub(in crate::api) async fn dress(request: Request, next: Next) -> Response {
    if !is_ours(&request) {
        return next.run(request).await;
    }
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = reshape(error, response, &id);
    }
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn is_ours(request: &Request) -> bool {
    let path = request.uri().path();
    let below = |root| path.strip_prefix(root).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
    below(PATH) || below(SHARED) && is_meant(request.headers())
}

fn reshape(error: ApiError, response: Response, id: &str) -> Response {
    let (status, _) = row(&error);
    let status = StatusCode::from_u16(status).unwrap_or(error.status);
    let mut dressed = (status, Json(ErrorDto::new(error, id))).into_response();
    let (head, _) = response.into_parts();
    for (name, value) in &head.headers {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            dressed.headers_mut().insert(name.clone(), value.clone());
        }
    }
    dressed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_row() {
        let of = |error: GenerateError| row(&told(error));
        assert_eq!(of(GenerateError::invalid("top_p", "no")), (400, "invalid_request_error"));
        let overflow = GenerateError::ContextOverflow { prompt_tokens: 9, context_tokens: 8 };
        assert_eq!(of(overflow.clone()), (400, "invalid_request_error"));
        assert_eq!(told(overflow).body.message, "prompt is too long: 9 tokens > 8 maximum");
        assert_eq!(of(GenerateError::Busy { waiting: 1, retry_after_s: 1 }), (429, "rate_limit_error"));
        assert_eq!(of(GenerateError::ShuttingDown), (529, "overloaded_error"));
        assert_eq!(of(GenerateError::Unavailable("x".into())), (529, "overloaded_error"));
        assert_eq!(of(GenerateError::Engine("x".into())), (500, "api_error"));
        assert_eq!(row(&ApiError::unauthorized()), (401, "authentication_error"));
        assert_eq!(row(&ApiError::unknown_path("GET", "/v1/messages/x")), (404, "not_found_error"));
        assert_eq!(row(&ApiError::wrong_method("GET", "/v1/messages")), (405, "invalid_request_error"));
        assert_eq!(row(&ApiError::too_large(1)), (413, "request_too_large"));
        assert_eq!(row(&ApiError::too_slow()), (408, "invalid_request_error"));
        assert_eq!(row(&ApiError::bug()), (500, "api_error"));
    }
}
