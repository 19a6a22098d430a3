//! Several answers of one request, begun and read together; must not know what they look like to a client.

use axum::{
    Json,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures_util::future::try_join_all;
use mesh_proto::{Event, GenerateError, GenerateRequest};
use serde::Serialize;

use super::{
    lower::Told,
    raise::Tally,
    stream::{self, Raise},
};
use crate::{
    api::answer::Answer,
    router::{Router, Target},
};

/// Gathers one answer's events.
pub(in crate::api) trait Fold: Default + Send {
    /// Takes the next event; the error of `Failed` is handed back.
    fn add(&mut self, event: Event) -> Result<(), GenerateError>;
}

/// Tells answers that were begun as was asked for: `chunks` of what they cost so far and of how many there are, or `whole`
/// of what was gathered of each.
pub(super) async fn tell<F: Fold, R: Raise, T: Serialize>(
    answers: Vec<Answer>,
    told: Told,
    chunks: impl FnOnce(Tally, usize) -> R,
    whole: impl FnOnce(Vec<F>, Tally) -> T,
) -> Result<Response, GenerateError> {
    let tally = tally(&answers, told.choices);
    if told.stream {
        let (origin, count) = (origin(&answers), answers.len());
        return Ok((origin, stream::respond(answers, chunks(tally, count))).into_response());
    }
    let (folds, origin) = fold(answers).await?;
    Ok((origin, Json(whole(folds, tally))).into_response())
}

/// Begins them all at the same time. One refusal refuses all; the others are dropped, and so cancelled.
pub(in crate::api) async fn begin(
    router: &Router,
    target: &Target,
    requests: Vec<GenerateRequest>,
    session: Option<&str>,
) -> Result<Vec<Answer>, GenerateError> {
    try_join_all(requests.into_iter().map(|request| Answer::begin(router, target, request, session))).await
}

/// What they cost so far: their prompts.
fn tally(answers: &[Answer], choices: u32) -> Tally {
    let prompts = answers.iter().step_by(choices.max(1) as usize).map(Answer::prompt_tokens);
    Tally::new(choices, prompts.fold(0, u32::saturating_add))
}

/// Who works on the first of them.
pub(in crate::api) fn origin(answers: &[Answer]) -> HeaderMap {
    answers.first().map(Answer::origin).unwrap_or_default()
}

/// Reads them all to their ends.
pub(in crate::api) async fn fold<F: Fold>(answers: Vec<Answer>) -> Result<(Vec<F>, HeaderMap), GenerateError> {
    let read = |mut answer: Answer| async move {
        let mut fold = F::default();
        while let Some(event) = answer.next().await {
            fold.add(event)?;
        }
        Ok::<_, GenerateError>((fold, answer.origin()))
    };
    let (folds, origins): (Vec<F>, Vec<HeaderMap>) =
        try_join_all(answers.into_iter().map(read)).await?.into_iter().unzip();
    Ok((folds, origins.into_iter().next().unwrap_or_default()))
}
