//! Events to OpenAI's chunks and answers, pure; must not know where events come from or how chunks travel.

mod chat;
mod completions;
mod logprobs;
mod usage;

use mesh_proto::FinishReason;

pub(super) use chat::{ChatChunks, ChatFold};
pub(super) use completions::{CompletionChunks, CompletionFold};
pub(super) use usage::{Tally, UsageTold};

fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

#[cfg(test)]
mod tests;
