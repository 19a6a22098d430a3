//! The response, its items and their parts, as JSON; must not know how they come to be.

use mesh_proto::{Likelihood, TokenLogprob, Usage};
use serde::Serialize;

use super::{Echo, Head};

/// `response`.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct ResponseOut {
    id: String,
    object: &'static str,
    created_at: u64,
    pub(super) status: &'static str,
    background: bool,
    pub(super) error: Option<ErrorOut>,
    pub(super) incomplete_details: Option<Incomplete>,
    model: String,
    pub(super) output: Vec<ItemOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<UsageOut>,
    #[serde(flatten)]
    echo: Echo,
}

impl ResponseOut {
    pub(super) fn new(head: &Head, echo: Echo) -> Self {
        Self {
            id: head.id(),
            object: "response",
            created_at: head.created,
            status: "in_progress",
            background: false,
            error: None,
            incomplete_details: None,
            model: head.model.clone(),
            output: Vec::new(),
            usage: None,
            echo,
        }
    }

    pub(in super::super) fn id(&self) -> &str {
        &self.id
    }

    pub(in super::super) fn item_ids(&self) -> Vec<String> {
        self.output.iter().map(|item| item.id().to_owned()).collect()
    }
}

/// `error`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ErrorOut {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// `incomplete_details`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Incomplete {
    pub(super) reason: &'static str,
}

/// An item of the output.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ItemOut {
    Message {
        id: String,
        status: &'static str,
        role: &'static str,
        content: Vec<PartOut>,
    },
    Reasoning {
        id: String,
        status: &'static str,
        summary: [(); 0],
        content: Vec<PartOut>,
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
    },
    FunctionCall {
        id: String,
        status: &'static str,
        call_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        name: String,
        arguments: String,
    },
    CustomToolCall {
        id: String,
        status: &'static str,
        call_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        name: String,
        input: String,
    },
}

impl ItemOut {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Message { id, .. }
            | Self::Reasoning { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::CustomToolCall { id, .. } => id,
        }
    }

    pub(super) fn status(&mut self) -> &mut &'static str {
        match self {
            Self::Message { status, .. }
            | Self::Reasoning { status, .. }
            | Self::FunctionCall { status, .. }
            | Self::CustomToolCall { status, .. } => status,
        }
    }
}

/// A part of an item's content.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum PartOut {
    OutputText { text: String, annotations: [(); 0], logprobs: Vec<LogprobOut> },
    ReasoningText { text: String },
}

impl PartOut {
    pub(super) fn text(text: String, logprobs: Vec<LogprobOut>) -> Self {
        Self::OutputText { text, annotations: [], logprobs }
    }
}

/// How likely a token was.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LogprobOut {
    #[serde(flatten)]
    chosen: Likely,
    top_logprobs: Vec<Likely>,
}

#[derive(Clone, Debug, Serialize)]
struct Likely {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<Likelihood> for Likely {
    fn from(likelihood: Likelihood) -> Self {
        // JSON has no infinity; OpenAI writes this for what was next to impossible.
        let logprob = likelihood.logprob.max(-9999.0);
        Self { token: String::from_utf8_lossy(&likelihood.bytes).into_owned(), logprob, bytes: likelihood.bytes }
    }
}

impl From<TokenLogprob> for LogprobOut {
    fn from(told: TokenLogprob) -> Self {
        Self { chosen: told.chosen.into(), top_logprobs: told.top.into_iter().map(Likely::from).collect() }
    }
}

/// `usage`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct UsageOut {
    input_tokens: u32,
    input_tokens_details: InputDetails,
    output_tokens: u32,
    output_tokens_details: OutputDetails,
    total_tokens: u32,
}

#[derive(Clone, Debug, Serialize)]
struct InputDetails {
    cached_tokens: u32,
    cache_write_tokens: u32,
}

#[derive(Clone, Debug, Serialize)]
struct OutputDetails {
    reasoning_tokens: u32,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens, cache_write_tokens: 0 },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        }
    }
}
