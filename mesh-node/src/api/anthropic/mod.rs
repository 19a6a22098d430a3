//! Anthropic's Messages API, in and out; must not know how a model answers.

mod block;
mod count;
mod error;
mod lower;
pub(super) mod messages;
pub(super) mod models;
mod raise;

use axum::routing::post;

pub(super) use error::{REQUEST_ID, dress, is_meant};

use super::Route;
use crate::router::Target;

/// Its routes. [`dress`] has to be around them, and around all that may answer in their stead.
pub(super) fn table() -> Vec<Route> {
    vec![
        ("/v1/messages", &["POST"], post(messages::serve)),
        ("/v1/messages/count_tokens", &["POST"], post(count::serve)),
    ]
}

/// What every part of one answer knows of its request.
#[derive(Clone, Debug)]
struct Head {
    id: String,
    /// The request's own id, for errors in mid-stream.
    request: String,
    model: String,
    max_tokens: u32,
    thinking: Thinking,
}

impl Head {
    fn new(request: &str, target: &Target, max_tokens: u32, thinking: Thinking) -> Self {
        let (id, request, model) = (format!("msg_{request}"), request.to_owned(), target.id.to_string());
        Self { id, request, model, max_tokens, thinking }
    }
}

/// What the client wants to see of the model's thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thinking {
    /// Nothing: it did not ask for any, and may not know thinking blocks.
    Hidden,
    /// Blocks without text, for sending back.
    Sealed,
    /// All of it.
    Shown,
}
