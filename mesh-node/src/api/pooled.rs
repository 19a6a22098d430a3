//! One request for vectors or scores on its way: asked, counted, logged; must not know any API's JSON.

use std::time::Instant;

use axum::http::HeaderMap;
use mesh_proto::{GenerateError, PoolRequest, PoolTask, Pooled};
use serde::Serialize;

use super::{answer, observe};
use crate::router::{Made, Router, Target};

/// `usage`, as both APIs have it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cost {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Cost {
    /// What an answer cost: nothing is generated.
    pub(super) fn of(pooled: &Pooled) -> Self {
        Self { prompt_tokens: pooled.prompt_tokens, total_tokens: pooled.prompt_tokens }
    }
}

/// Asks, and waits for all of it. Dropping the future, as a client does who hangs up, cancels.
pub(super) async fn answer(
    router: &Router,
    target: &Target,
    request: PoolRequest,
) -> Result<(Pooled, HeaderMap), GenerateError> {
    let (model, began) = (request.model.to_string(), Instant::now());
    observe::asks_for(&model);
    let task = match request.task {
        PoolTask::Embed { .. } => "embeddings",
        PoolTask::Rerank { .. } => "rerank",
    };
    let made = router.pool(target, request).await;
    router.metrics().pooled(&model, task, made.as_ref().map(|made| &made.pooled));
    let ms = began.elapsed().as_millis() as u64;
    match made {
        Ok(Made { pooled, trace }) => {
            tracing::info!(model, task, inputs = pooled.rows.len(), prompt_tokens = pooled.prompt_tokens, ms, "pooled");
            Ok((pooled, answer::origin(&trace)))
        }
        Err(error) => {
            tracing::warn!(model, task, %error, ms, "not pooled");
            Err(error)
        }
    }
}
