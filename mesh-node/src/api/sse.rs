//! Server-sent events: chunks framed for the wire; must not know what a chunk says.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::timeout;

use super::ApiError;

/// Longest silence. Proxies cut connections that are silent for 30 to 60 s. (guess, half of the shortest)
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One thing to tell the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A chunk, JSON text in one line.
    Data(String),
    /// A chunk under a name of its own, JSON text in one line.
    Named(&'static str, String),
    /// It ends here, and not as it should.
    Error(ApiError),
    /// It ends here, as it should.
    Done,
}

impl Frame {
    fn to_bytes(&self) -> Bytes {
        match self {
            Self::Data(json) => format!("data: {json}\n\n").into(),
            Self::Named(name, json) => format!("event: {name}\ndata: {json}\n\n").into(),
            Self::Error(error) => format!("data: {}\n\n", error.to_json()).into(),
            Self::Done => Bytes::from_static(b"data: [DONE]\n\n"),
        }
    }
}

/// A response that sends the frames as they come. Dropped (the client is gone), it drops them.
pub(super) fn respond(frames: impl Stream<Item = Frame> + Send + 'static) -> Response {
    respond_filling(frames, KEEP_ALIVE, b": keep-alive\n\n")
}

/// As [`respond`]; after so much silence `filler` is sent.
pub(super) fn respond_filling(
    frames: impl Stream<Item = Frame> + Send + 'static,
    silence: Duration,
    filler: &'static [u8],
) -> Response {
    let body = Body::from_stream(keep_alive(frames, silence, filler).map(Ok::<_, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would otherwise hold the stream back until its buffer is full.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

fn keep_alive(
    frames: impl Stream<Item = Frame> + Send + 'static,
    silence: Duration,
    filler: &'static [u8],
) -> impl Stream<Item = Bytes> {
    stream::unfold(Box::pin(frames), move |mut frames| async move {
        let bytes = match timeout(silence, frames.next()).await {
            Ok(frame) => frame?.to_bytes(),
            Err(_) => Bytes::from_static(filler),
        };
        Some((bytes, frames))
    })
}

#[cfg(test)]
mod tests {
    use mesh_proto::GenerateError;

    use super::*;

    #[test]
    fn each_frame_is_one_event() {
        let text = |frame: Frame| String::from_utf8(frame.to_bytes().to_vec()).unwrap();
        assert_eq!(text(Frame::Data("{\"a\":\"x\\ny\"}".into())), "data: {\"a\":\"x\\ny\"}\n\n");
        assert_eq!(text(Frame::Named("ping", "{}".into())), "event: ping\ndata: {}\n\n");
        assert_eq!(text(Frame::Done), "data: [DONE]\n\n");
        let error = text(Frame::Error(GenerateError::Engine("line\nbreak".into()).into()));
        assert!(error.starts_with("data: {\"error\":{") && error.ends_with("}\n\n"));
        assert_eq!(error.matches('\n').count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_comments() {
        let frames = stream::once(async {
            tokio::time::sleep(Duration::from_secs(40)).await;
            Frame::Done
        });
        let sent: Vec<Bytes> = keep_alive(frames, KEEP_ALIVE, b": keep-alive\n\n").collect().await;
        assert_eq!(sent, [": keep-alive\n\n", ": keep-alive\n\n", "data: [DONE]\n\n"]);
    }
}
