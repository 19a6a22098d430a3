//! The HTTP surface: routes and the layers around them; must not know any endpoint's JSON.

mod answer;
mod anthropic;
mod auth;
mod body;
mod definition;
mod door;
mod error;
mod fields;
mod llama;
mod models;
mod named;
mod observe;
pub mod openai;
mod openapi;
mod pooled;
mod rerank;
mod responses;
mod sse;
mod thought;
mod tokens;
mod turns;
mod uri;
mod watch;

use std::{any::Any, time::Duration};

use axum::{
    Json,
    extract::Request,
    http::{Method, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use serde_json::json;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};

pub use auth::Keys;
pub use door::Door;
pub use error::{ApiError, ErrorBody};

use crate::router::Router;

/// A path, the methods that it takes (`HEAD` comes with `GET`), and who answers.
type Route = (&'static str, &'static [&'static str], MethodRouter<Router>);

/// Every route. What stands here stands in `/openapi.json` too; a test compares them.
fn table() -> Vec<Route> {
    let own: Vec<Route> = vec![
        ("/", &["GET"], get(hello)),
        ("/health", &["GET"], get(watch::health)),
        ("/ready", &["GET"], get(watch::ready)),
        ("/metrics", &["GET"], get(watch::metrics)),
        ("/openapi.json", &["GET"], get(openapi::serve)),
        ("/v1/models", &["GET"], get(models::list)),
        ("/v1/models/{*id}", &["GET"], get(models::show)),
        ("/v1/chat/completions", &["POST"], post(openai::chat::serve)),
        ("/v1/completions", &["POST"], post(openai::completions::serve)),
        ("/v1/embeddings", &["POST"], post(openai::embeddings::serve)),
        ("/tokenize", &["POST"], post(tokens::tokenize)),
        ("/detokenize", &["POST"], post(tokens::detokenize)),
    ];
    let own = own.into_iter().chain(rerank::table()).chain(llama::table());
    own.chain(anthropic::table()).chain(responses::table()).collect()
}

/// The routes of this node, behind their door.
pub fn routes(router: Router, door: impl Into<Door>) -> axum::Router {
    let door = door.into();
    let guard = door::Guard::new(&door);
    let all = table().into_iter().fold(axum::Router::new(), |all, (path, _, answer)| all.route(path, answer));
    all.route("/v1/models/", get(models::list))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(router.clone())
        // The last layer is the outermost: ids and CORS headers are on every answer, a refusal's too, and a
        // browser's preflight, which carries no key, ends before the keys are asked for.
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(door.keys, auth::check))
        .layer(middleware::from_fn_with_state(guard, door::check))
        .layer(middleware::from_fn(anthropic::dress))
        .layer(cors())
        .layer(middleware::from_fn_with_state(router, observe::observe))
}

/// Pages of any origin may use this node, as far as its [`Door`] lets them in. Each is told so by its name, as llama-server does.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::GET, Method::POST, Method::DELETE, Method::HEAD, Method::OPTIONS])
        // Mirrored, not `*`: a star does not cover `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([observe::REQUEST_ID, anthropic::REQUEST_ID, answer::NODE, answer::ROUTE, header::RETRY_AFTER])
        .max_age(Duration::from_secs(86_400))
}

async fn hello() -> Json<serde_json::Value> {
    let endpoints: Vec<&str> = table().into_iter().map(|(path, ..)| path).collect();
    Json(json!({ "name": "mesh-llm", "version": env!("CARGO_PKG_VERSION"), "endpoints": endpoints }))
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
