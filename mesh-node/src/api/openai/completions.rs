//! `POST /v1/completions`, the legacy one: its request, and the way through; must not know how fields become sampling.

use std::collections::BTreeMap;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use futures_util::future::try_join_all;
use mesh_proto::{GenerateError, GenerateRequest, ModelId, Prompt, RequestId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    Head,
    chat::StreamOptions,
    gather,
    lower::{self, Facts, form::ResponseFormat},
    parse::parse,
    raise::{CompletionChunks, CompletionFold},
    wire::{Number, Object, Prompts, Strings, Whole},
};
use crate::{
    api::{ApiError, body},
    router::Router,
};

/// The request; its three groups are those of the chat's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CompletionRequest {
    pub(super) model: String,
    pub(super) prompt: Prompts,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<Object<StreamOptions>>,
    pub(super) n: Option<Whole>,
    pub(super) logprobs: Option<Whole>,
    pub(super) echo: Option<bool>,
    pub(super) max_tokens: Option<Whole>,
    /// llama-server's name of the same.
    pub(super) n_predict: Option<Whole>,

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

    // Refused by name, but for the values that ask for nothing.
    pub(super) best_of: Option<Whole>,
    pub(super) suffix: Option<String>,

    // Harmless.
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
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<IgnoredAny>,
    #[serde(rename = "id_slot")]
    _id_slot: Option<IgnoredAny>,
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
    let echoes = if asked.echo { echoes(&router, &asked.requests).await? } else { Vec::new() };
    let answers = gather::begin(&router, &target, asked.requests, session.as_deref()).await?;
    let told = asked.told;
    let chunks = |tally, _| CompletionChunks::new(head.clone(), told.usage, tally, echoes.clone());
    let whole = |folds, tally| CompletionFold::finish(folds, &head, tally, echoes.clone(), told.logprobs);
    Ok(gather::tell(answers, told, chunks, whole).await?)
}

/// What each answer begins with where `echo` asks for it: its prompt.
async fn echoes(router: &Router, requests: &[GenerateRequest]) -> Result<Vec<String>, GenerateError> {
    let echo = async |request: &GenerateRequest| match &request.prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Tokens(tokens) => {
            let Some(served) = router.locals().find(&request.model) else {
                let message = "`echo` of token ids needs a node that has the model itself: send the prompt as text";
                return Err(GenerateError::invalid("echo", message));
            };
            served.engine.detokenize(tokens.clone()).await
        }
        Prompt::Chat(_) => Ok(String::new()),
    };
    try_join_all(requests.iter().map(echo)).await
}
