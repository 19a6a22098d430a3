//! `POST /v1/messages/count_tokens`; must not know how a prompt is rendered or tokenised.

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use mesh_proto::{GenerateError, ModelId, RequestId};
use serde::Serialize;

use super::{error::told, lower, messages::MessagesRequest};
use crate::{
    api::{ApiError, answer::Answer, body, openai::parse::parse},
    router::Router,
};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Count {
    input_tokens: u32,
}

/// Counts, by asking for an answer of no tokens: so the model's own host does it, wherever that is.
pub(super) async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Count>, ApiError> {
    let dto: MessagesRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let asked = lower::count(dto, id, &target.defaults)?;
    let input_tokens = match Answer::begin(&router, &target, asked.request, asked.session.as_deref()).await {
        Ok(mut answer) => {
            // To its end, so that the log has no client that left.
            while answer.next().await.is_some() {}
            answer.prompt_tokens()
        }
        // Too many is an answer, too: who counts wants to know by how much.
        Err(GenerateError::ContextOverflow { prompt_tokens, .. }) => prompt_tokens,
        Err(error) => return Err(told(error)),
    };
    Ok(Json(Count { input_tokens }))
}
