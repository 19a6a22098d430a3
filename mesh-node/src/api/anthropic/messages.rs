//! `POST /v1/messages`: its request, and the way through; must not know how fields become sampling.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use mesh_proto::{ModelId, RequestId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use super::{
    Head,
    block::{Content, MessageDto},
    error::told,
    lower,
    raise::{Fold, Parts},
};
use crate::{
    api::{
        ApiError,
        answer::Answer,
        body, named,
        openai::{
            parse::parse,
            wire::{Number, Object, Whole},
        },
        sse,
    },
    router::Router,
};

/// Longest silence before a ping. (guess: what Anthropic's own streams were seen to keep to)
const PING_EVERY: Duration = Duration::from_secs(10);
/// A ping on the wire.
const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The request; that of `count_tokens` is the same with less. Every field that clients may send stands here: those that
/// work, those that are refused unless they ask for nothing, and those that change nothing for the caller. Any other is
/// a 400.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct MessagesRequest {
    pub(super) model: String,
    pub(super) messages: Vec<Object<MessageDto>>,
    pub(super) max_tokens: Option<Whole>,
    pub(super) system: Option<Content>,
    pub(super) stop_sequences: Option<Vec<String>>,
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<Whole>,
    pub(super) stream: Option<bool>,
    pub(super) tools: Option<Vec<Box<RawValue>>>,
    pub(super) tool_choice: Option<Object<ToolChoiceDto>>,
    pub(super) thinking: Option<Object<ThinkingDto>>,
    pub(super) output_config: Option<Object<OutputConfig>>,
    /// The older name of `output_config.format`.
    pub(super) output_format: Option<Object<OutputFormat>>,
    pub(super) context_management: Option<Object<ContextManagement>>,
    pub(super) metadata: Option<Object<Metadata>>,

    // Refused by name, but for the values that ask for nothing.
    pub(super) container: Option<Value>,
    pub(super) mcp_servers: Option<Value>,
    /// A conversation that the server would hold; the SDKs' tool runner asks for one, and goes on without.
    pub(super) thread: Option<Value>,

    // Harmless: accounting and caching of a service that this is not, and speed, of which all that there is is given.
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(rename = "speed")]
    _speed: Option<IgnoredAny>,
    #[serde(rename = "diagnostics")]
    _diagnostics: Option<IgnoredAny>,
    #[serde(rename = "billing_policy")]
    _billing_policy: Option<IgnoredAny>,
    #[serde(rename = "user_profile_id")]
    _user_profile_id: Option<IgnoredAny>,
    #[serde(rename = "workspace_id")]
    _workspace_id: Option<IgnoredAny>,
}

/// `tool_choice`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolChoiceDto {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) disable_parallel_tool_use: Option<bool>,
}

/// `thinking`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThinkingDto {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) budget_tokens: Option<Whole>,
    pub(super) display: Option<String>,
}

/// `output_config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputConfig {
    pub(super) effort: Option<String>,
    pub(super) format: Option<Object<OutputFormat>>,
}

/// What the answer must look like.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputFormat {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) schema: Option<Box<RawValue>>,
}

/// `context_management`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContextManagement {
    pub(super) edits: Option<Vec<Object<EditDto>>>,
}

/// An edit of the conversation before the model sees it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EditDto {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) keep: Option<Value>,
}

/// `metadata`.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    /// Names whose conversation it is: its requests go where its KV is. Claude Code's has the session's id in it.
    pub(super) user_id: Option<String>,
}

/// Answers a conversation.
pub(super) async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let dto: MessagesRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let number = id.0.clone();
    let asked = lower::messages(dto, id, &target.defaults)?;
    let head = Head::new(&number, &target, asked.max_tokens, asked.thinking);
    let mut answer = Answer::begin(&router, &target, asked.request, asked.session.as_deref()).await.map_err(told)?;
    if asked.stream {
        let origin = answer.origin();
        let parts = Parts::new(head, answer.prompt_tokens());
        let streamed = sse::respond_filling(named::frames(answer, parts), PING_EVERY, PING);
        return Ok((origin, streamed).into_response());
    }
    let mut fold = Fold::default();
    while let Some(event) = answer.next().await {
        fold.add(event).map_err(told)?;
    }
    // Another host may have taken over meanwhile.
    Ok((answer.origin(), Json(fold.finish(&head))).into_response())
}
