//! `POST /v1/chat/completions`: its request, and the way through; must not know how fields become sampling.

use std::collections::BTreeMap;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use mesh_proto::{ModelId, RequestId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use super::{
    Head, gather,
    lower::{self, Facts, form::ResponseFormat},
    message::MessageDto,
    parse::parse,
    raise::{ChatChunks, ChatFold},
    wire::{Number, Object, Strings, Whole},
};
use crate::{
    api::{ApiError, body},
    router::Router,
};

/// The request. Every field that clients may send stands here: those that work, those that are refused unless they
/// say what is the case anyway, and those that change nothing for the caller. Any other is a 400.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ChatRequest {
    pub(in crate::api) model: String,
    pub(super) messages: Vec<Object<MessageDto>>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<Object<StreamOptions>>,
    pub(super) n: Option<Whole>,
    pub(super) logprobs: Option<bool>,
    pub(super) top_logprobs: Option<Whole>,
    pub(super) max_tokens: Option<Whole>,
    pub(super) max_completion_tokens: Option<Whole>,

    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<Whole>,
    pub(super) min_p: Option<Number>,
    pub(super) typical_p: Option<Number>,
    pub(super) seed: Option<Whole>,
    pub(super) logit_bias: Option<BTreeMap<String, Number>>,
    pub(super) frequency_penalty: Option<Number>,
    pub(super) presence_penalty: Option<Number>,
    pub(super) repetition_penalty: Option<Number>,
    /// llama.cpp's name of the same.
    pub(super) repeat_penalty: Option<Number>,
    pub(super) repeat_last_n: Option<Whole>,
    pub(super) dry_multiplier: Option<Number>,
    pub(super) dry_base: Option<Number>,
    pub(super) dry_allowed_length: Option<Whole>,
    pub(super) dry_penalty_last_n: Option<Whole>,
    pub(super) dry_sequence_breakers: Option<Vec<String>>,
    pub(super) xtc_probability: Option<Number>,
    pub(super) xtc_threshold: Option<Number>,

    pub(super) stop: Option<Strings>,
    pub(super) min_tokens: Option<Whole>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) response_format: Option<Object<ResponseFormat>>,
    pub(super) regex: Option<String>,
    /// vLLM's name of the same.
    pub(super) guided_regex: Option<String>,
    pub(super) lark: Option<String>,
    /// llama-server's, beside `response_format`.
    pub(super) json_schema: Option<Box<RawValue>>,
    /// Names the conversation: its requests go where its KV is.
    pub(super) prompt_cache_key: Option<String>,

    pub(super) tools: Option<Vec<Box<RawValue>>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) chat_template_kwargs: Option<BTreeMap<String, Value>>,
    pub(super) reasoning_effort: Option<String>,
    pub(super) reasoning_budget: Option<Whole>,
    /// llama-server's name of the same.
    pub(super) thinking_budget_tokens: Option<Whole>,

    // Refused by name, but for the values that ask for nothing.
    pub(super) functions: Option<Value>,
    pub(super) function_call: Option<Value>,
    pub(super) modalities: Option<Vec<String>>,
    pub(super) audio: Option<Value>,
    pub(super) prediction: Option<Value>,
    pub(super) web_search_options: Option<Value>,

    // Harmless: accounting, storage and caching of a service that this is not. No answer depends on them.
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    #[serde(rename = "store")]
    _store: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "client_metadata")]
    _client_metadata: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<IgnoredAny>,
    #[serde(rename = "prompt_cache_options")]
    _prompt_cache_options: Option<IgnoredAny>,
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<IgnoredAny>,
    #[serde(rename = "id_slot")]
    _id_slot: Option<IgnoredAny>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<IgnoredAny>,
    #[serde(rename = "verbosity")]
    _verbosity: Option<IgnoredAny>,
}

/// `stream_options`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    /// vLLM's: in every chunk, what it has cost so far. Implies the other.
    pub(super) continuous_usage_stats: Option<bool>,
    // Padding against eavesdroppers on the length of chunks; we never send it, which clients must bear.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// Answers a chat.
pub async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut dto: ChatRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let head = Head::new("chatcmpl", &id.0, &target);
    let session = dto.prompt_cache_key.take();
    let asked = lower::chat(dto, id, &Facts::of(&target))?;
    if !asked.left_out.is_empty() {
        tracing::info!(tools = asked.left_out.join(", "), "the model is not offered tools that only a service has");
    }
    let answers = gather::begin(&router, &target, asked.requests, session.as_deref()).await?;
    let told = asked.told;
    let chunks = |tally, answers| ChatChunks::new(head.clone(), told.usage, tally, answers);
    let whole = |folds, tally| ChatFold::finish(folds, &head, tally, told.logprobs);
    Ok(gather::tell(answers, told, chunks, whole).await?)
}
