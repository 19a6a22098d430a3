//! A request's body, read within limits; must not know what it says.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::ApiError;

/// Longest body taken. Prompts of a million tokens are some 4 MiB; memory is the cost. (guess)
pub(super) const MAX_BYTES: usize = 32 << 20;
/// Longest wait for more of a body. A connection and its buffer are the cost. (guess)
const PATIENCE: Duration = Duration::from_secs(60);
/// Slowest pace at which a long body may come, behind the first [`PATIENCE`]. Unit: bytes a second; default 4 KiB, a guess: a
/// bad mobile network is ten times as fast. Who sends a byte a minute would hold a connection for years.
const SLOWEST: u64 = 4 << 10;
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
    let began = Instant::now();
    loop {
        let until = began + PATIENCE + Duration::from_secs(bytes.len() as u64 / SLOWEST);
        let Some(data) = next(&mut body, until).await? else { break };
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

async fn next(body: &mut Body, until: Instant) -> Result<Option<Bytes>, ApiError> {
    loop {
        let until = until.min(Instant::now() + PATIENCE);
        match timeout_at(until, body.frame()).await {
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
    while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use tokio::time::sleep;

    use super::*;

    /// A body that brings `size` bytes every `pause`, `times` over.
    fn dripping(size: usize, pause: Duration, times: usize) -> Request {
        let drops = stream::unfold(0, move |sent| async move {
            sleep(pause).await;
            (sent < times).then(|| (Ok::<_, Infallible>(Bytes::from(vec![b' '; size])), sent + 1))
        });
        Request::new(Body::from_stream(drops))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_or_stops_is_a_408_and_a_slow_one_is_read() {
        let began = Instant::now();
        for (size, pause) in [(1, 20), (0, 20), (1, 100)] {
            let error = read(dripping(size, Duration::from_secs(pause), 1 << 20)).await.unwrap_err();
            assert_eq!(error.status, 408, "{size} bytes every {pause} s");
        }
        assert!(began.elapsed() < 4 * PATIENCE, "none of them holds its connection for long");
        let slow = dripping(64 << 10, Duration::from_secs(8), 40);
        assert_eq!(read(slow).await.unwrap().len(), 40 * (64 << 10));
    }
}
