//! Answers as a stream of frames; must not know what a chunk looks like.

use std::collections::VecDeque;

use axum::response::Response;
use futures_util::{
    StreamExt,
    stream::{self, SelectAll},
};
use mesh_proto::{Event, GenerateError};
use serde::Serialize;

use crate::api::{
    ApiError,
    answer::Answer,
    sse::{self, Frame},
};

/// Events to chunks. Pure: the same events give the same chunks.
pub(in crate::api) trait Raise: Send + 'static {
    /// What one `data:` line says.
    type Chunk: Serialize;
    /// Whether `[DONE]` is said behind the last chunk.
    const SAYS_DONE: bool = true;

    /// What comes before the first event.
    fn opening(&mut self) -> Vec<Self::Chunk>;

    /// What an event of one of the answers says; the error of `Failed` is handed back.
    fn event(&mut self, choice: u32, event: Event) -> Result<Vec<Self::Chunk>, GenerateError>;

    /// What comes after all answers have finished.
    fn closing(&mut self) -> Option<Self::Chunk>;
}

/// Streams one or several answers. Dropping the response drops, and so cancels, all of them.
pub(in crate::api) fn respond(answers: Vec<Answer>, raise: impl Raise) -> Response {
    let mut events = SelectAll::new();
    for (choice, answer) in (0u32..).zip(answers) {
        events.push(Box::pin(stream::unfold(answer, move |mut answer| async move {
            let event = answer.next().await?;
            Some(((choice, event), answer))
        })));
    }
    let mut live = Live { raise, frames: VecDeque::new(), ended: false };
    let opening = live.raise.opening();
    live.push(opening);
    sse::respond(stream::unfold((live, events), |(mut live, mut events)| async move {
        loop {
            if let Some(frame) = live.frames.pop_front() {
                return Some((frame, (live, events)));
            }
            if live.ended {
                return None;
            }
            match events.next().await {
                Some((choice, event)) => live.event(choice, event),
                None => live.close(),
            }
        }
    }))
}

struct Live<R> {
    raise: R,
    frames: VecDeque<Frame>,
    ended: bool,
}

impl<R: Raise> Live<R> {
    fn event(&mut self, choice: u32, event: Event) {
        match self.raise.event(choice, event) {
            Ok(chunks) => self.push(chunks),
            Err(error) => self.fail(error.into()),
        }
    }

    fn close(&mut self) {
        let closing = self.raise.closing();
        self.push(closing);
        if !self.ended {
            if R::SAYS_DONE {
                self.frames.push_back(Frame::Done);
            }
            self.ended = true;
        }
    }

    fn push(&mut self, chunks: impl IntoIterator<Item = R::Chunk>) {
        for chunk in chunks {
            match serde_json::to_string(&chunk) {
                Ok(json) => self.frames.push_back(Frame::Data(json)),
                Err(_) => return self.fail(ApiError::bug()),
            }
        }
    }

    /// No `[DONE]` and no finish reason after this: a client must not take it for the whole answer.
    fn fail(&mut self, error: ApiError) {
        self.frames.push_back(Frame::Error(error));
        self.ended = true;
    }
}
