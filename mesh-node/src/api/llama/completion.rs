//! `POST /completion`: its request, and the way through; must not know how fields become sampling.

use std::time::Instant;

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use mesh_proto::{ModelId, RequestId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    lower::{self, Biases},
    named,
    prompt::Given,
    raise::{Chunks, Whole as Answered},
};
use crate::{
    api::{
        ApiError,
        openai::{
            gather,
            lower::Facts,
            parse::parse,
            stream,
            wire::{Number, Strings, Whole},
        },
    },
    router::Router,
};

/// The request; its groups are those of the chat's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct LlamaRequest {
    pub(super) model: String,
    pub(super) prompt: Given,
    pub(super) stream: Option<bool>,
    pub(super) n_predict: Option<Whole>,
    pub(super) n_probs: Option<Whole>,
    pub(super) return_tokens: Option<bool>,
    pub(super) response_fields: Option<Vec<String>>,

    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<Whole>,
    pub(super) min_p: Option<Number>,
    pub(super) typical_p: Option<Number>,
    pub(super) seed: Option<Whole>,
    pub(super) logit_bias: Option<Biases>,
    pub(super) frequency_penalty: Option<Number>,
    pub(super) presence_penalty: Option<Number>,
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
    pub(super) ignore_eos: Option<bool>,
    pub(super) json_schema: Option<Box<RawValue>>,

    // Refused by name, but for the values that ask for nothing.
    pub(super) grammar: Option<String>,
    pub(super) mirostat: Option<Whole>,
    pub(super) dynatemp_range: Option<Number>,
    pub(super) top_n_sigma: Option<Number>,
    pub(super) post_sampling_probs: Option<bool>,
    pub(super) timings_per_token: Option<bool>,
    pub(super) return_progress: Option<bool>,

    // Harmless: where and for how long keys and values are kept, which no answer depends on.
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<IgnoredAny>,
    #[serde(rename = "id_slot")]
    _id_slot: Option<IgnoredAny>,
    #[serde(rename = "n_keep")]
    _n_keep: Option<IgnoredAny>,
    #[serde(rename = "n_cache_reuse")]
    _n_cache_reuse: Option<IgnoredAny>,
}

/// Answers one or several prompts, all at the same time.
pub(super) async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let began = Instant::now();
    let dto: LlamaRequest = parse(&named(&router, request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let engine = router.locals().find(&target.id).map(|served| served.engine);
    let asked = lower::completion(dto, id, &Facts::of(&target), engine.as_ref()).await?;
    let answers = gather::begin(&router, &target, asked.requests, None).await?;
    let prompt_tokens = answers.iter().map(|answer| answer.prompt_tokens()).collect();
    if asked.stream {
        let origin = gather::origin(&answers);
        return Ok((origin, stream::respond(answers, Chunks::new(asked.told, prompt_tokens, began))).into_response());
    }
    let (folds, origin) = gather::fold::<Answered>(answers).await?;
    let told = asked.told.answers(folds, prompt_tokens, began);
    Ok((origin, Json(told)).into_response())
}
