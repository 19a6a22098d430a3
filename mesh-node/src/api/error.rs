//! Whose fault an error is, told as HTTP; must not know any endpoint.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mesh_proto::GenerateError;
use serde::Serialize;

use crate::router::RouteError;

/// An error in OpenAI's shape, with its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// Seconds after which to try again, as a header.
    pub retry_after_s: Option<u32>,
    /// The `error` object.
    pub body: ErrorBody,
}

/// The `error` object: all four fields are always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// For people.
    pub message: String,
    /// The class.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The request's field that is at fault.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<&'static str>,
}

/// What is the caller's fault.
const CALLER: &str = "invalid_request_error";
/// What is ours.
const SERVER: &str = "server_error";

/// The one table: whose fault → status, type, code.
fn row(error: &GenerateError) -> (StatusCode, &'static str, Option<&'static str>) {
    match error {
        GenerateError::Invalid { .. } => (StatusCode::BAD_REQUEST, CALLER, None),
        GenerateError::ContextOverflow { .. } => (StatusCode::BAD_REQUEST, CALLER, Some("context_length_exceeded")),
        GenerateError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("busy")),
        GenerateError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("shutting_down")),
        // The model was there when the name was looked up: that it is gone by now is no fault of the caller's.
        GenerateError::NotServed { .. } | GenerateError::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("unavailable"))
        }
        GenerateError::Engine(_) => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("engine_failed")),
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        let (status, kind, code) = row(&error);
        let mut told = Self::new(status, kind, error.to_string());
        told.body.code = code;
        match error {
            GenerateError::Invalid { field, .. } => told.body.param = Some(field),
            GenerateError::Busy { retry_after_s, .. } => told.retry_after_s = Some(retry_after_s.max(1)),
            GenerateError::ShuttingDown | GenerateError::NotServed { .. } | GenerateError::Unavailable(_) => {
                told.retry_after_s = Some(1);
            }
            GenerateError::ContextOverflow { .. } | GenerateError::Engine(_) => {}
        }
        told
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let (status, kind, code) = match &error {
            RouteError::Unknown { .. } => (StatusCode::NOT_FOUND, CALLER, "model_not_found"),
            RouteError::Loading { .. } => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "model_loading"),
            RouteError::Failed { .. } => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "model_failed"),
        };
        let mut told = Self::new(status, kind, error.to_string());
        told.body.param = Some("model".into());
        told.body.code = Some(code);
        if let RouteError::Loading { retry_after_s, .. } = error {
            told.retry_after_s = Some(retry_after_s);
        }
        told
    }
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let body = ErrorBody { message: message.into(), kind, param: None, code: None };
        Self { status, retry_after_s: None, body }
    }

    fn caller(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut error = Self::new(status, CALLER, message);
        error.body.code = Some(code);
        error
    }

    /// The body is no JSON, or no object.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::caller(StatusCode::BAD_REQUEST, "malformed_body", message)
    }

    /// No key, or none of ours.
    pub fn unauthorized() -> Self {
        // LiteLLM knows a wrong key by OpenAI's first three words.
        let message =
            "Incorrect API key provided, or none: send one that this node knows, as \"Authorization: Bearer KEY\"";
        Self::caller(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// Nothing lives at this path.
    pub fn unknown_path(method: &str, path: &str) -> Self {
        let message =
            format!("there is no {method} {path} here; try /v1/chat/completions, /v1/completions or /v1/models");
        Self::caller(StatusCode::NOT_FOUND, "unknown_path", message)
    }

    /// Something lives at this path, but does not take this method.
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}");
        Self::caller(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// The body is longer than this node takes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {} MiB", limit >> 20);
        Self::caller(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// The body stopped coming.
    pub fn too_slow() -> Self {
        Self::caller(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body stopped coming")
    }

    /// It would be for another host, or for a page of another origin.
    pub fn foreign(message: impl Into<String>) -> Self {
        Self::caller(StatusCode::FORBIDDEN, "foreign_origin", message)
    }

    /// What only a node can do that has the model itself.
    pub fn elsewhere(model: &str) -> Self {
        let message = format!("{model:?} is served by other nodes of the mesh, and this is done where the model is");
        let mut error = Self::caller(StatusCode::NOT_FOUND, "model_elsewhere", message);
        error.body.param = Some("model".into());
        error
    }

    /// No model answers here, nor in the mesh.
    pub fn not_ready(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message);
        error.body.code = Some("not_ready");
        error.retry_after_s = Some(5);
        error
    }

    /// A bug of ours; what it was is in the log.
    pub fn bug() -> Self {
        let message = "this node made a mistake; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message)
    }

    /// The body as JSON text, for places that are not a whole response.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error": self.body }).to_string()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(serde_json::json!({ "error": &self.body }))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            // What is left of the body would be taken for the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For layers that tell it in another API's shape.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_row() {
        let rows = [
            (GenerateError::invalid("top_p", "no"), 400, CALLER, None, Some("top_p"), None),
            (
                GenerateError::ContextOverflow { prompt_tokens: 9, context_tokens: 8 },
                400,
                CALLER,
                Some("context_length_exceeded"),
                None,
                None,
            ),
            (
                GenerateError::Busy { waiting: 3, retry_after_s: 2 },
                429,
                "rate_limit_error",
                Some("busy"),
                None,
                Some(2),
            ),
            (GenerateError::ShuttingDown, 503, SERVER, Some("shutting_down"), None, Some(1)),
            (GenerateError::NotServed { model: "m".into() }, 503, SERVER, Some("unavailable"), None, Some(1)),
            (GenerateError::Unavailable("x".into()), 503, SERVER, Some("unavailable"), None, Some(1)),
            (GenerateError::Engine("x".into()), 500, SERVER, Some("engine_failed"), None, None),
        ];
        for (error, status, kind, code, param, retry) in rows {
            let told = ApiError::from(error);
            assert_eq!((told.status.as_u16(), told.body.kind, told.body.code), (status, kind, code));
            assert_eq!((told.body.param.as_deref(), told.retry_after_s), (param, retry));
        }
    }
}
