//! Events to Anthropic's messages and stream events, pure; must not know where events come from or how they travel.

mod fold;
mod parts;

use mesh_proto::{FinishReason, Usage};
use serde::Serialize;
use serde_json::value::RawValue;

pub(super) use fold::Fold;
pub(super) use parts::Parts;

use super::Head;

/// `message`.
#[derive(Debug, Serialize)]
pub(super) struct MessageOut {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    stop_reason: Option<&'static str>,
    stop_sequence: Option<String>,
    usage: UsageOut,
}

impl MessageOut {
    fn new(head: &Head, content: Vec<Block>, usage: UsageOut) -> Self {
        let (id, model) = (head.id.clone(), head.model.clone());
        let (stop_reason, stop_sequence) = (None, None);
        Self { id, kind: "message", role: "assistant", model, content, stop_reason, stop_sequence, usage }
    }
}

/// A content block.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block {
    Thinking { thinking: String, signature: String },
    Text { text: String },
    ToolUse { id: String, name: String, input: Box<RawValue> },
}

/// `usage`. The three kinds of input tokens sum up to the prompt.
#[derive(Clone, Debug, Serialize)]
pub(super) struct UsageOut {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Debug, Serialize)]
struct OutputDetails {
    thinking_tokens: u32,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
            output_tokens_details: Some(OutputDetails { thinking_tokens: usage.reasoning_tokens }),
        }
    }
}

/// `stop_reason` and `stop_sequence`.
fn ending(head: &Head, reason: FinishReason, stop: Option<String>, usage: Usage) -> (&'static str, Option<String>) {
    match reason {
        FinishReason::ToolCalls => ("tool_use", None),
        FinishReason::Stop if stop.is_some() => ("stop_sequence", stop),
        FinishReason::Stop => ("end_turn", None),
        FinishReason::Length if usage.completion_tokens < head.max_tokens => ("model_context_window_exceeded", None),
        FinishReason::Length => ("max_tokens", None),
    }
}

/// A call's arguments as the object that they should be. What is none is handed on under a name that says so.
fn input(arguments: String) -> Option<Box<RawValue>> {
    let text = if arguments.trim().is_empty() { "{}".to_owned() } else { arguments };
    match RawValue::from_string(text.trim().to_owned()) {
        Ok(object) if object.get().starts_with('{') => Some(object),
        _ => serde_json::value::to_raw_value(&serde_json::json!({ "INVALID_JSON": text })).ok(),
    }
}

#[cfg(test)]
mod tests;
