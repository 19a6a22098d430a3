//! One generation, as it comes; must not know how a client is told.

use serde::{Deserialize, Serialize};

use crate::{GenerateError, GenerateRequest, TokenId, codec::at_most};

/// Which part of the answer a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channel {
    /// What the person reads.
    Content,
    /// What the model thought before.
    Reasoning,
}

/// A piece of a tool call. The first piece of a call carries `id` and `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Which call of the answer, from 0.
    pub index: u32,
    /// Set on the call's first piece.
    pub id: Option<String>,
    /// Set on the call's first piece.
    pub name: Option<String>,
    /// More of the arguments' JSON text.
    pub arguments: String,
}

/// Why a generation ended as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model ended, or a stop string was met.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The model called tools.
    ToolCalls,
}

/// Tokens of one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, the reused ones included.
    pub prompt_tokens: u32,
    /// Of these, how many were not computed again.
    pub cached_tokens: u32,
    /// Tokens generated, the end-of-sequence token included.
    pub completion_tokens: u32,
    /// Of these, how many were spent on reasoning.
    pub reasoning_tokens: u32,
}

/// How likely a token was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// Which.
    pub token: TokenId,
    /// The bytes that it stands for, which may be half a character; of markup, its name.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability, by the model alone: before biases, penalties, truncation and temperature.
    pub logprob: f32,
}

/// A token of the answer, how likely it was, and which others were likeliest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token that was chosen.
    pub chosen: Likelihood,
    /// As many of the likeliest as were asked for, the likeliest first; the chosen one among them if it is one of them.
    #[serde(deserialize_with = "at_most::<{ GenerateRequest::MAX_LOGPROBS as usize }, _, _>")]
    pub top: Vec<Likelihood>,
}

/// What a generation says, in order: `Started`, then any number of `Text` and `ToolCall`, then exactly
/// one `Finished` or `Failed`.
///
/// One token may settle several events. The last of these carries the tokens, the others none: whoever means to resume
/// elsewhere takes events only with the tokens that close them, or with `Finished`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The prompt is accepted and tokenised.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// More text. Never splits a character.
    Text {
        /// Where it belongs.
        channel: Channel,
        /// The text; never empty.
        text: String,
        /// The tokens consumed since the last tokens that were told; none where more of the same token follows.
        tokens: Vec<TokenId>,
        /// Of the tokens that this text came from, where the request asks for it: those since the last ones told.
        logprobs: Vec<TokenLogprob>,
    },
    /// A piece of a tool call.
    ToolCall {
        /// The piece.
        delta: ToolCallDelta,
        /// As with `Text`.
        tokens: Vec<TokenId>,
        /// As with `Text`.
        logprobs: Vec<TokenLogprob>,
    },
    /// The end, as it should be.
    Finished {
        /// Why.
        reason: FinishReason,
        /// The stop string that was met, if one was.
        stop: Option<String>,
        /// What it cost.
        usage: Usage,
    },
    /// The end, as it should not be.
    Failed(GenerateError),
}
