//! `POST /apply-template` and `/v1/chat/completions/input_tokens`: what becomes of a chat before a model sees it; must not
//! know templates.

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use engine::text::TextRequest;
use mesh_proto::{GenerateError, GenerateRequest, ModelId, RequestId};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::named;
use crate::{
    api::{
        ApiError,
        answer::Answer,
        openai::{
            chat::ChatRequest,
            lower::{self, Facts},
            parse::parse,
        },
    },
    router::{Router, Target},
};

/// The answer of `/apply-template`.
#[derive(Debug, Serialize)]
pub(super) struct Rendered {
    prompt: String,
}

/// The answer of `…/input_tokens`.
#[derive(Debug, Serialize)]
pub(super) struct Count {
    object: &'static str,
    input_tokens: u32,
}

/// A chat as its model's template writes it.
pub(super) async fn apply(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Rendered>, ApiError> {
    let (target, request) = chat(&router, id, request).await?;
    let served = router.locals().find(&target.id).ok_or_else(|| ApiError::elsewhere(target.id.as_str()))?;
    let text = served.engine.text_model().cloned();
    let text = text.ok_or_else(|| GenerateError::Unavailable("this engine does not tell its template".to_owned()))?;
    let render = move || {
        let now = engine::arrival::check(&request, target.vocab_size)?;
        text.rendered(TextRequest::from(&request), now)
    };
    let rendered = spawn_blocking(render).await;
    let prompt = rendered.map_err(|error| GenerateError::Engine(format!("the text pipeline failed: {error}")))??;
    Ok(Json(Rendered { prompt }))
}

/// Counts, by asking for an answer of no tokens: so the model's own host does it, wherever that is.
pub(super) async fn count(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Count>, ApiError> {
    let (target, request) = chat(&router, id, request).await?;
    let request = GenerateRequest { max_tokens: Some(0), min_tokens: 0, ..request };
    let input_tokens = match Answer::begin(&router, &target, request, None).await {
        Ok(mut answer) => {
            // To its end, so that the log has no client that left.
            while answer.next().await.is_some() {}
            answer.prompt_tokens()
        }
        // Too many is an answer, too: who counts wants to know by how much.
        Err(GenerateError::ContextOverflow { prompt_tokens, .. }) => prompt_tokens,
        Err(error) => return Err(error.into()),
    };
    Ok(Json(Count { object: "response.input_tokens", input_tokens }))
}

async fn chat(router: &Router, id: RequestId, request: Request) -> Result<(Target, GenerateRequest), ApiError> {
    let dto: ChatRequest = parse(&named(router, request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let mut asked = lower::chat(dto, id, &Facts::of(&target))?;
    let request = asked.requests.pop().ok_or_else(ApiError::bug)?;
    Ok((target, request))
}
