//! Why a generation could not be, and whose fault that is; must not know HTTP.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The one error of a generation. The API's table maps each variant to a status.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum GenerateError {
    /// Caller: a field asks for what cannot be.
    #[error("{message}")]
    Invalid {
        /// The request's field, by its wire name.
        field: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// Caller: prompt (and asked-for answer) exceed the model's context.
    #[error(
        // OpenAI's own words first, and llama-server's: clients look for them before they shorten a conversation.
        "this model's maximum context length is {context_tokens} tokens, and the prompt has {prompt_tokens}, \
         which exceeds the available context size: shorten the prompt, or serve the model with a larger context"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens that the context holds.
        context_tokens: u32,
    },
    /// Nobody's: too much asked at once. Try again later.
    #[error("this node is busy: {waiting} requests wait already")]
    Busy {
        /// Requests in the queue.
        waiting: u32,
        /// Seconds after which a place may be free.
        retry_after_s: u32,
    },
    /// Nobody's: the node is stopping.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// Nobody's: the model is not served here (any more).
    #[error("{model} is not served here")]
    NotServed {
        /// Its name.
        model: String,
    },
    /// Link: no node could (go on to) answer.
    #[error("{0}")]
    Unavailable(String),
    /// Engine: it failed.
    #[error("the engine failed: {0}")]
    Engine(String),
}

impl GenerateError {
    /// A caller's mistake in `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}
