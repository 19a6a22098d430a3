//! HTTP/1.1 over the child's Unix socket, one connection a request; must not know what is asked or what the child does.
//!
//! A connection to a Unix socket is cheap, and a kept one would be closed by the child at any moment (after 5 s or 100 requests).

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

use super::{CallError, sse::Splitter};

/// The longest answer that is no stream. Unit: bytes. Default: 64 MiB. Origin: 2048 embeddings of 4096 numbers are
/// 100 MB of JSON, more than one request should ask for. Cost of less: large batches refused; of more: memory.
const BODY: usize = 64 << 20;

/// How much of a refusal is read. Unit: bytes. Default: 1 MiB. Origin: a schema that it refuses may be quoted. Cost of
/// less: the reason is lost.
const REFUSAL: usize = 1 << 20;

/// A connection whose end closes it, at once: that is what cancels in the child.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks and waits for the whole answer, JSON or nothing.
pub(super) async fn json(socket: &Path, path: &str, body: Option<&Value>, limit: Duration) -> Result<Value, CallError> {
    let answer = async {
        let (response, _connection) = send(socket, path, body).await?;
        let bytes = whole(response, BODY).await?;
        serde_json::from_slice(&bytes).map_err(|error| CallError::Malformed(error.to_string()))
    };
    let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    timeout(limit, answer).await.unwrap_or(Err(CallError::Timeout { ms }))
}

/// Asks for a stream of events. Waits for the child to begin, which may be as long as others are before it.
pub(super) async fn stream(socket: &Path, path: &str, body: &Value) -> Result<SseLines, CallError> {
    let (response, connection) = send(socket, path, Some(body)).await?;
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return Err(CallError::Malformed(format!("no event stream but {kind:?} (was `stream` asked for?)")));
    }
    Ok(SseLines { body: Some(response.into_body()), splitter: Splitter::default(), _connection: connection })
}

async fn send(socket: &Path, path: &str, body: Option<&Value>) -> Result<(Response<Incoming>, Connection), CallError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| CallError::Unreachable(error.to_string()))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = Connection(tokio::spawn(async move {
        let _ = driver.await;
    }));
    let method = if body.is_some() { "POST" } else { "GET" };
    let bytes = body.map(serde_json::to_vec).transpose().map_err(|error| CallError::Malformed(error.to_string()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes.unwrap_or_default())))
        .map_err(|error| CallError::Malformed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    if status.is_success() {
        return Ok((response, connection));
    }
    let refusal = whole(response, REFUSAL).await?;
    Err(CallError::refused(status.as_u16(), &refusal))
}

async fn whole(response: Response<Incoming>, limit: usize) -> Result<Vec<u8>, CallError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(CallError::TooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn broken(error: hyper::Error) -> CallError {
    // hyper keeps the cause apart, and it says more.
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(" ({cause})"));
    CallError::Unreachable(format!("{error}{cause}"))
}

/// The payloads of an event stream. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct SseLines {
    /// None after its end.
    body: Option<Incoming>,
    splitter: Splitter,
    _connection: Connection,
}

impl SseLines {
    /// The next payload; none after the last one. An error is the last item. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Result<Value, CallError>> {
        let item = loop {
            let body = self.body.as_mut()?;
            if let Some(data) = self.splitter.next() {
                break payload(&data);
            }
            match body.frame().await {
                None => break None,
                Some(Err(error)) => break Some(Err(broken(error))),
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if let Err(error) = self.splitter.feed(&bytes) {
                        break Some(Err(error));
                    }
                }
            }
        };
        if !matches!(item, Some(Ok(_))) {
            self.body = None;
        }
        item
    }
}

/// None at the end mark.
fn payload(data: &[u8]) -> Option<Result<Value, CallError>> {
    if data == b"[DONE]" {
        return None;
    }
    Some(match serde_json::from_slice::<Value>(data) {
        // The headers are out by then, so it refuses inside of the stream.
        Ok(Value::Object(mut event)) if event.len() == 1 && event.contains_key("error") => {
            Err(CallError::from_error(500, event.remove("error").unwrap_or_default()))
        }
        Ok(event) => Ok(event),
        Err(error) => Err(CallError::Malformed(error.to_string())),
    })
}
