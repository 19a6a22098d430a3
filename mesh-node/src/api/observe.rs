//! Every request gets an id and a span, and its answer a line in the log; must not know what is asked.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use mesh_proto::RequestId;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use crate::router::Router;

/// The header that carries a request's id back.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    /// The model that the request turns out to ask for.
    static MODEL: Arc<OnceLock<String>>;
}

/// Says which model the request at hand asks for, so that it is counted under that. Only of models that there are: what
/// clients make up would grow the counters without bound.
pub(super) fn asks_for(model: &str) {
    // Outside of a request nobody counts.
    let _ = MODEL.try_with(|slot| slot.get_or_init(|| model.to_owned()).len());
}

/// Numbers the request. Bodies and headers stay out of the log: they hold prompts and keys.
pub(super) async fn observe(State(router): State<Router>, mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let span = info_span!("request", %id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    // Paths that are none of ours are counted together.
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = method(request.method());
    let model = Arc::<OnceLock<String>>::default();
    let slot = model.clone();
    async move {
        let began = Instant::now();
        let mut response = MODEL.scope(slot, next.run(request)).await;
        let model = model.get().map_or("", String::as_str);
        router.metrics().answered(&route, method, response.status().as_u16(), model);
        if let Ok(value) = HeaderValue::try_from(id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        debug!(status = response.status().as_u16(), ms = began.elapsed().as_millis() as u64, "answered");
        response
    }
    .instrument(span)
    .await
}

/// Methods that clients make up are counted together.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
