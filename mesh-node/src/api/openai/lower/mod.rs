//! DTO to [`GenerateRequest`], pure: every field is honoured or refused by name; must not know engines or HTTP.

mod chat;
pub(in crate::api) mod check;
mod completions;
mod embeddings;
pub(in crate::api) mod form;
pub(in crate::api) mod knobs;
pub(in crate::api) mod message;
pub(in crate::api) mod tools;

use mesh_proto::{GenerateRequest, Sampling};

pub(in crate::api) use chat::chat;
pub(super) use completions::completions;
pub(super) use embeddings::embeddings;

use super::{chat::StreamOptions, raise::UsageTold, wire::Object};
use crate::router::Target;

/// What lowering must know of the model.
#[derive(Clone, Debug)]
pub(in crate::api) struct Facts {
    /// Token ids lie below it.
    pub(in crate::api) vocab_size: u32,
    /// Sampling where the request is silent.
    pub(in crate::api) defaults: Sampling,
}

impl Facts {
    pub(in crate::api) fn of(target: &Target) -> Self {
        Self { vocab_size: target.vocab_size, defaults: target.defaults.clone() }
    }
}

/// How the answers are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// In chunks.
    pub(super) stream: bool,
    /// What chunks say of the cost.
    pub(super) usage: UsageTold,
    /// Each token, and how likely it was.
    pub(super) logprobs: bool,
    /// Answers to each prompt.
    pub(super) choices: u32,
}

/// A chat, lowered: one request for each answer.
#[derive(Debug)]
pub(in crate::api) struct AskedChat {
    pub(in crate::api) requests: Vec<GenerateRequest>,
    pub(super) told: Told,
    /// Types of tools that the model is not offered, though the client did.
    pub(super) left_out: Vec<String>,
}

/// A legacy completion, lowered: one request for each answer to each prompt.
#[derive(Debug)]
pub(super) struct AskedCompletions {
    pub(super) requests: Vec<GenerateRequest>,
    pub(super) told: Told,
    /// The prompt comes before the answer.
    pub(super) echo: bool,
}

fn usage(options: Option<Object<StreamOptions>>) -> UsageTold {
    match options {
        Some(Object(options)) if options.continuous_usage_stats == Some(true) => UsageTold::Always,
        Some(Object(options)) if options.include_usage == Some(true) => UsageTold::AtTheEnd,
        _ => UsageTold::Never,
    }
}

#[cfg(test)]
mod tests;
