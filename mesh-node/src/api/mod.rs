//! The HTTP surface: routes and the layers around them; must not know any endpoint's JSON.

mod answer;
mod anthropic;
mod auth;
mod body;
mod error;
mod fields;
mod named;
mod observe;
pub mod openai;
mod responses;
mod sse;
mod thought;
mod turns;

use std::{any::Any, time::Duration};

use axum::{
    Json,
    extract::Request,
    http::{Method, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, Any as AnyOrigin, CorsLayer},
};

pub use auth::Keys;
pub use error::{ApiError, ErrorBody};

use crate::router::Router;

/// The routes of this node. With `keys`, every route but `/health` wants one of them.
pub fn routes(router: Router, keys: Keys) -> axum::Router {
    axum::Router::new()
        .route("/", get(hello))
        .route("/health", get(health))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::show))
        .route("/v1/chat/completions", post(openai::chat::serve))
        .route("/v1/completions", post(openai::completions::serve))
        .merge(anthropic::routes())
        .merge(responses::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(router)
        // The last layer is the outermost: ids and CORS headers are on every answer, a refusal's too, and a
        // browser's preflight, which carries no key, ends before the keys are asked for.
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(keys, auth::check))
        .layer(middleware::from_fn(anthropic::dress))
        .layer(cors())
        .layer(middleware::from_fn(observe::observe))
}

/// Pages of any origin may use this node; what guards it is its key, and by default the loopback address.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AnyOrigin)
        .allow_methods([Method::GET, Method::POST, Method::DELETE, Method::HEAD, Method::OPTIONS])
        // Mirrored, not `*`: a star does not cover `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([observe::REQUEST_ID, anthropic::REQUEST_ID, answer::NODE, answer::ROUTE, header::RETRY_AFTER])
        .max_age(Duration::from_secs(86_400))
}

async fn hello() -> Json<serde_json::Value> {
    Json(json!({
        "name": "mesh-llm",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": ["/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/health"],
    }))
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::unknown_path(request.method().as_str(), request.uri().path())
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::wrong_method(request.method().as_str(), request.uri().path())
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = said, "a handler panicked");
    ApiError::bug().into_response()
}
