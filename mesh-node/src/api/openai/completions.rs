//! `POST /v1/completions`, the legacy one: its request, and the way through; must not know how fields become sampling.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::future::try_join_all;
use mesh_proto::{GenerateError, ModelId, RequestId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    Head,
    chat::{ResponseFormat, StreamOptions},
    lower::{self, Facts},
    parse::parse,
    raise::{CompletionChunks, CompletionFold},
    stream,
    wire::{Number, Object, Prompts, Strings, Whole},
};
use crate::{
    api::{ApiError, answer::Answer, body},
    router::Router,
};

/// The request; its three groups are those of the chat's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompletionRequest {
    pub(super) model: String,
    pub(super) prompt: Prompts,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<Object<StreamOptions>>,
    pub(super) max_tokens: Option<Whole>,
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<Whole>,
    pub(super) min_p: Option<Number>,
    pub(super) seed: Option<Whole>,
    pub(super) stop: Option<Strings>,
    pub(super) logit_bias: Option<BTreeMap<String, Number>>,
    pub(super) ignore_eos: Option<bool>,
    /// Names the conversation: its requests go where its KV is.
    pub(super) prompt_cache_key: Option<String>,

    // Refused by name, but for the values that ask for nothing.
    pub(super) n: Option<Whole>,
    pub(super) best_of: Option<Whole>,
    pub(super) echo: Option<bool>,
    pub(super) suffix: Option<String>,
    pub(super) logprobs: Option<Value>,
    pub(super) response_format: Option<Object<ResponseFormat>>,
    pub(super) frequency_penalty: Option<Number>,
    pub(super) presence_penalty: Option<Number>,
    pub(super) repetition_penalty: Option<Number>,
    pub(super) repeat_penalty: Option<Number>,
    pub(super) typical_p: Option<Number>,
    pub(super) xtc_probability: Option<Number>,
    pub(super) dry_multiplier: Option<Number>,
    pub(super) min_tokens: Option<Whole>,

    // Harmless.
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    #[serde(rename = "store")]
    _store: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<IgnoredAny>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<IgnoredAny>,
}

/// Answers one or several prompts, all at the same time.
pub async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut dto: CompletionRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let head = Head::new("cmpl", &id.0, &target);
    let session = dto.prompt_cache_key.take();
    let asked = lower::completions(dto, id, &Facts::of(&target))?;
    // One refusal refuses all; the others are dropped, and so cancelled.
    let begin = asked.requests.into_iter().map(|request| Answer::begin(&router, &target, request, session.as_deref()));
    let answers = try_join_all(begin).await?;
    if asked.stream {
        let origin = answers.first().map(Answer::origin);
        let streamed = stream::respond(answers, CompletionChunks::new(head, asked.include_usage));
        return Ok((origin.unwrap_or_default(), streamed).into_response());
    }
    let folds = try_join_all(answers.into_iter().map(|mut answer| async move {
        let mut fold = CompletionFold::default();
        while let Some(event) = answer.next().await {
            fold.add(event)?;
        }
        Ok::<_, GenerateError>((fold, answer.origin()))
    }))
    .await?;
    let (folds, origins): (Vec<_>, Vec<_>) = folds.into_iter().unzip();
    let origin = origins.into_iter().next().unwrap_or_default();
    Ok((origin, Json(CompletionFold::finish(folds, &head))).into_response())
}
