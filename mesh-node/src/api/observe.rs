//! Every request gets an id and a span, and its answer a line in the log; must not know what is asked.

use std::time::Instant;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use mesh_proto::RequestId;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

/// The header that carries a request's id back.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers the request. Bodies and headers stay out of the log: they hold prompts and keys.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let span = info_span!("request", %id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    async move {
        let began = Instant::now();
        let mut response = next.run(request).await;
        if let Ok(value) = HeaderValue::try_from(id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        debug!(status = response.status().as_u16(), ms = began.elapsed().as_millis() as u64, "answered");
        response
    }
    .instrument(span)
    .await
}
