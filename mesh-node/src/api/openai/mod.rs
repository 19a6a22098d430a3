//! OpenAI's JSON, in and out; must not know how a model answers.

pub mod chat;
pub mod completions;
pub mod embeddings;
pub(in crate::api) mod gather;
pub(in crate::api) mod lower;
pub(in crate::api) mod message;
pub mod models;
pub(in crate::api) mod parse;
mod raise;
pub(in crate::api) mod stream;
pub(in crate::api) mod wire;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::router::Target;

/// What every chunk and answer of one request repeats.
#[derive(Clone, Debug)]
struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Head {
    fn new(prefix: &str, request: &str, target: &Target) -> Self {
        Self {
            id: format!("{prefix}-{request}"),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            model: target.id.to_string(),
            fingerprint: format!("mesh-llm-{}-{}", env!("CARGO_PKG_VERSION"), target.engine),
        }
    }
}
