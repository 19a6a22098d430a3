//! Texts made into vectors and scores beside the answers: sequences like theirs, so many at once; must not know devices.

use std::{collections::VecDeque, sync::Arc};

use jiff::civil::DateTime;
use mesh_proto::{Event, GenerateError, PoolRequest, Pooled, Prompt, RequestId, Sampling, TokenId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    LocalEngine,
    outbox::Outbox,
    prepare::Model,
    request::{Choice, Made, Request},
    steer::Steer,
};
use crate::{
    Generation,
    draft::{Draft, Opening},
    house::Place,
    pool::{self, Pooling, Pools},
    text::TextRequest,
    times::Times,
};

/// One text on its way. Dropping it frees its sequence.
struct Part {
    generation: Generation,
    made: oneshot::Receiver<Vec<f32>>,
    _permit: OwnedSemaphorePermit,
}

impl Part {
    async fn end(mut self) -> Result<Vec<f32>, GenerateError> {
        let stopped = || GenerateError::Engine("it stopped before all texts were pooled".to_owned());
        loop {
            match self.generation.next().await {
                Some(Event::Failed(error)) => return Err(error),
                Some(Event::Finished { .. }) => return self.made.await.map_err(|_| stopped()),
                Some(_) => {}
                None => return Err(stopped()),
            }
        }
    }
}

impl LocalEngine {
    /// All rows of a task. `place`: the request's, which its first sequence takes over.
    pub(super) async fn make(&self, request: PoolRequest, place: Place) -> Result<Pooled, GenerateError> {
        let (times, closed) = (Times::arrived(), |_| GenerateError::ShuttingDown);
        let PoolRequest { id, task, .. } = request;
        let Some(pools) = self.pools.clone() else { return Err(GenerateError::Engine("it does not pool".to_owned())) };
        if let Pools::Embeds { embedding, .. } = &pools {
            pool::check_dimensions(&task, embedding.width)?;
        }
        let (model, pooling, sizes) = (self.model.clone(), pools.pooling(), self.descriptor.clone());
        let opened = tokio::task::spawn_blocking(move || {
            // Room for the token that a scheduler counts with, though none is chosen.
            let most = sizes.context_tokens.saturating_sub(1);
            let sequences = pools.sequences(&task, &model.text, sizes.vocab_size, most)?;
            let kept = if matches!(pooling, Pooling::Logits(_)) { shared(&sequences) } else { 0 };
            let drafts: Vec<Draft> =
                sequences.into_iter().map(|tokens| model.unanswered(tokens)).collect::<Result<_, _>>()?;
            Ok((task, pools, pooling, kept, drafts))
        });
        let failed = |error| GenerateError::Engine(format!("the text pipeline failed: {error}"));
        let (task, pools, pooling, kept, drafts) = opened.await.map_err(failed)??;
        let prompt_tokens = drafts.iter().map(Draft::prompt_tokens).fold(0, u32::saturating_add);
        let (mut rows, mut pending) = (Vec::with_capacity(drafts.len()), VecDeque::<Part>::new());
        let mut place = Some(place);
        for draft in drafts {
            let permit = loop {
                if let Ok(permit) = self.pooled.clone().try_acquire_owned() {
                    break permit;
                }
                match pending.pop_front() {
                    Some(part) => rows.push(pools.row(part.end().await?, &task)?),
                    None => break self.pooled.clone().acquire_owned().await.map_err(closed)?,
                }
            };
            let place = place.take().unwrap_or_else(|| self.mailbox.house.part());
            let (tell, made) = oneshot::channel();
            let made_of = Made { pooling: pooling.clone(), kept, tell: Some(tell) };
            let generation = self.post(id.clone(), draft, made_of, (place, times))?;
            pending.push_back(Part { generation, made, _permit: permit });
        }
        for part in pending {
            rows.push(pools.row(part.end().await?, &task)?);
        }
        Ok(Pooled { rows, prompt_tokens })
    }

    /// Hands one sequence to the worker.
    fn post(
        &self,
        id: RequestId,
        draft: Draft,
        made: Made,
        (place, times): (Place, Times),
    ) -> Result<Generation, GenerateError> {
        let (outbox, events) = Outbox::new(self.event_buffer, place);
        let sampling = Sampling { seed: Some(0), ..Sampling::default() };
        let choice = Choice { sampling, logprobs: None, steer: Steer::default(), pool: Some(made) };
        self.mailbox.post(Request::new(id, draft, choice, outbox, times))?;
        let mailbox = self.mailbox.clone();
        Ok(Generation::new(events, Some(Arc::new(move || mailbox.ring()))))
    }
}

impl Model {
    /// A prompt to which there will be no answer.
    fn unanswered(&self, prompt: Vec<TokenId>) -> Result<Draft, GenerateError> {
        let asked = Prompt::Tokens(prompt);
        let prepared = self.text.prepare(TextRequest::new(&asked), DateTime::default())?;
        let answer = self.text.answer(&prepared, &[]);
        let ceiling_tokens = self.ceiling_tokens;
        let opening = Opening { prompt: prepared.tokens, max_tokens: Some(1), ceiling_tokens, ..Opening::default() };
        Draft::open(opening, answer, &self.eos)
    }
}

/// Tokens with which all sequences begin, where there is more than one.
fn shared(sequences: &[Vec<TokenId>]) -> usize {
    let Some((first, others)) = sequences.split_first().filter(|(_, others)| !others.is_empty()) else { return 0 };
    let common = |other: &Vec<TokenId>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    others.iter().map(common).min().unwrap_or(0)
}
