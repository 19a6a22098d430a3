//! A request's body, read within limits; must not know what it says.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::ApiError;

/// Longest body taken. Prompts of a million tokens are some 4 MiB; memory is the cost. (guess)
pub(super) const MAX_BYTES: usize = 32 << 20;
/// Longest wait for more of a body. A connection and its buffer are the cost. (guess)
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a body that is too long is still read, and thrown away: most clients look at the answer only once
/// they have sent all, and would see a broken connection instead of the 413. (guess)
const COURTESY: (usize, Duration) = (512 << 20, Duration::from_secs(10));

/// Reads the whole body.
pub(super) async fn read(request: Request) -> Result<Bytes, ApiError> {
    let (head, mut body) = request.into_parts();
    let announced = number(&head.headers);
    if announced.is_some_and(|n| n > MAX_BYTES) {
        // Who asks first (`Expect: 100-continue`) is told at once, and need not send it.
        if !head.headers.contains_key(header::EXPECT) {
            discard(&mut body).await;
        }
        return Err(ApiError::too_large(MAX_BYTES));
    }
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0).min(1 << 20));
    while let Some(data) = next(&mut body).await? {
        if bytes.len() + data.len() > MAX_BYTES {
            drop(bytes);
            discard(&mut body).await;
            return Err(ApiError::too_large(MAX_BYTES));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn number(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        match timeout(PATIENCE, body.frame()).await {
            Err(_) => return Err(ApiError::too_slow()),
            Ok(None) => return Ok(None),
            Ok(Some(Err(e))) => return Err(ApiError::malformed(format!("the body broke off: {e}"))),
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing to us.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn discard(body: &mut Body) {
    let (mut left, until) = (COURTESY.0, Instant::now() + COURTESY.1);
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}
