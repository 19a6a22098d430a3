//! One answer as a stream of named events; must not know what they say.

use std::collections::VecDeque;

use axum::response::Response;
use futures_util::stream;
use mesh_proto::{Event, GenerateError};
use serde::Serialize;

use super::{
    ApiError,
    answer::Answer,
    sse::{self, Frame},
};

/// Events to chunks. Pure: the same events give the same chunks.
pub(super) trait Raise: Send + 'static {
    /// What one `data:` line says.
    type Chunk: Serialize;

    /// What the `event:` line above it says.
    fn name(chunk: &Self::Chunk) -> &'static str;

    /// What comes before the first event.
    fn opening(&mut self) -> Vec<Self::Chunk>;

    /// What an event says, the last of which ends the stream; the error of `Failed` is handed back.
    fn event(&mut self, event: Event) -> Result<Vec<Self::Chunk>, GenerateError>;

    /// How it is told that it ends here, and not as it should.
    fn failure(&mut self, error: ApiError) -> Self::Chunk;
}

/// The frames of an answer, in `raise`'s words. Dropping them drops, and so cancels, the answer.
pub(super) fn frames<R: Raise>(answer: Answer, raise: R) -> impl futures_util::Stream<Item = Frame> + Send + 'static {
    let mut live = Live { answer, raise, frames: VecDeque::new(), ended: false };
    let opening = live.raise.opening();
    live.push(opening);
    stream::unfold(live, |mut live| async move {
        loop {
            if let Some(frame) = live.frames.pop_front() {
                return Some((frame, live));
            }
            if live.ended {
                return None;
            }
            match live.answer.next().await {
                Some(event) => live.event(event),
                None => live.ended = true,
            }
        }
    })
}

/// Streams an answer, with comments where nothing comes.
pub(super) fn respond(answer: Answer, raise: impl Raise) -> Response {
    sse::respond(frames(answer, raise))
}

struct Live<R> {
    answer: Answer,
    raise: R,
    frames: VecDeque<Frame>,
    ended: bool,
}

impl<R: Raise> Live<R> {
    fn event(&mut self, event: Event) {
        match self.raise.event(event) {
            Ok(chunks) => self.push(chunks),
            Err(error) => self.fail(error.into()),
        }
    }

    fn push(&mut self, chunks: Vec<R::Chunk>) {
        for chunk in chunks {
            match serde_json::to_string(&chunk) {
                Ok(json) => self.frames.push_back(Frame::Named(R::name(&chunk), json)),
                Err(_) => return self.fail(ApiError::bug()),
            }
        }
    }

    /// Nothing comes after this: a client must not take it for the whole answer.
    fn fail(&mut self, error: ApiError) {
        let chunk = self.raise.failure(error);
        if let Ok(json) = serde_json::to_string(&chunk) {
            self.frames.push_back(Frame::Named(R::name(&chunk), json));
        }
        self.ended = true;
    }
}
