//! One generation, asked for; must not know who serves it.

use serde::{Deserialize, Serialize};

use crate::{ChatPrompt, ModelId, RequestId, Sampling, TokenId, codec::at_most};

/// What the model continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Prompt {
    /// A conversation: rendered by the model's template; reasoning and tool calls are split out of the answer.
    Chat(ChatPrompt),
    /// Plain text, tokenised with the tokenizer's own special tokens; the answer is plain text.
    Text(String),
    /// Tokens as they are; the answer is plain text.
    Tokens(Vec<TokenId>),
}

/// Whether the model may call the tools that a chat offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No calls: the tools are not shown to the model, and what looks like a call is text.
    None,
    /// At least one call, of any tool; enforced by a grammar.
    Required,
    /// A call of this tool; enforced by a grammar.
    Named(String),
}

/// What an answer's content must look like; enforced by a grammar. Reasoning before it is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// A JSON object.
    JsonObject,
    /// JSON that fits this schema (JSON text).
    JsonSchema(String),
    /// All of it matches this regular expression.
    Regex(String),
    /// It follows this grammar, in llguidance's variant of Lark.
    Lark(String),
}

impl Constraint {
    /// Most bytes of a schema, expression or grammar. Guess: OpenAI takes 120,000 characters in all of a schema's names.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Its text; none where there is nothing to say.
    pub fn text(&self) -> &str {
        match self {
            Self::JsonObject => "",
            Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text) => text,
        }
    }
}

/// Everything an engine needs for one generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// For logs and for cancelling across the wire.
    pub id: RequestId,
    /// Which model.
    pub model: ModelId,
    /// What to continue.
    pub prompt: Prompt,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Whether tools may be called.
    pub tool_choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// What the content must look like. Not together with calls that are required.
    pub constraint: Option<Constraint>,
    /// Tells of each token how likely it was, and so many of the likeliest others; `None`: nothing.
    pub logprobs: Option<u8>,
    /// Most tokens to generate; `None`: up to the model's context.
    pub max_tokens: Option<u32>,
    /// Tokens before which the answer may not end by itself.
    pub min_tokens: u32,
    /// Strings that end the answer; not part of it. Matched on the answer's visible text.
    #[serde(deserialize_with = "at_most::<{ GenerateRequest::MAX_STOPS }, _, _>")]
    pub stop: Vec<String>,
    /// Go on past the end-of-sequence token (benchmarks).
    pub ignore_eos: bool,
    /// Tokens of the answer that the client already has, from another host: the generation goes on behind them as if it
    /// had not been interrupted, and says nothing of them again. The seed must be set, or the sampling greedy.
    pub resume: Vec<TokenId>,
    /// The wall clock where the client asked, in seconds since 1970-01-01 00:00 there, for chat templates that tell the
    /// date: a host that takes over must render the same prompt. `None`: the engine's own clock.
    pub local_time_s: Option<i64>,
    /// The seed was drawn, not asked for: an engine that cannot go on exactly as another one began may sample anew from
    /// the resumed tokens. On the wire it is an addition of [`Ask`](crate::infer::Ask).
    #[serde(skip)]
    pub seed_drawn: bool,
}

impl GenerateRequest {
    /// Most stop strings.
    pub const MAX_STOPS: usize = 64;
    /// Most alternatives of a token. Origin: OpenAI.
    pub const MAX_LOGPROBS: u8 = 20;

    /// A greedy request without limits.
    pub fn new(model: ModelId, prompt: Prompt) -> Self {
        Self {
            id: RequestId::default(),
            model,
            prompt,
            sampling: Sampling::default(),
            tool_choice: ToolChoice::default(),
            parallel_tool_calls: true,
            constraint: None,
            logprobs: None,
            max_tokens: None,
            min_tokens: 0,
            stop: Vec::new(),
            ignore_eos: false,
            resume: Vec::new(),
            local_time_s: None,
            seed_drawn: false,
        }
    }
}
