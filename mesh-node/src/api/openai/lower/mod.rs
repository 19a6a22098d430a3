//! DTO to [`GenerateRequest`], pure: every field is honoured or refused by name; must not know engines or HTTP.

mod chat;
mod completions;
mod knobs;

use mesh_proto::{GenerateRequest, Sampling};

pub(super) use chat::chat;
pub(super) use completions::completions;

use crate::router::Target;

/// What lowering must know of the model.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Token ids lie below it.
    pub(super) vocab_size: u32,
    /// Sampling where the request is silent.
    pub(super) defaults: Sampling,
}

impl Facts {
    pub(super) fn of(target: &Target) -> Self {
        Self { vocab_size: target.vocab_size, defaults: target.defaults.clone() }
    }
}

/// A chat, lowered.
#[derive(Debug)]
pub(super) struct AskedChat {
    pub(super) request: GenerateRequest,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// A legacy completion, lowered: one request for each prompt.
#[derive(Debug)]
pub(super) struct AskedCompletions {
    pub(super) requests: Vec<GenerateRequest>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

#[cfg(test)]
mod tests;
