//! One request on the worker's thread: tokens in, events out, usage counted; must not know scheduler or decoder.

use std::collections::BTreeSet;

use mesh_proto::{Event, FinishReason, GenerateError, RequestId, Sampling, TokenId, Usage};
use tokio::sync::oneshot;

use crate::{
    decoder::{Sampled, SeqId, SequenceSpec, Steering},
    draft::{Draft, End},
    local::{
        outbox::{Delivery, Outbox},
        steer::Steer,
    },
    pool::Pooling,
    times::Times,
};

/// How a request's tokens are chosen, and what is told of them.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) sampling: Sampling,
    pub(super) logprobs: Option<u8>,
    pub(super) steer: Steer,
    /// Nothing is chosen: this is made of the prompt.
    pub(super) pool: Option<Made>,
}

/// What is made of a prompt instead of an answer.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pooling: Pooling,
    /// Tokens at the prompt's start that later ones may begin with.
    pub(super) kept: usize,
    /// Who waits for it.
    pub(super) tell: Option<oneshot::Sender<Vec<f32>>>,
}

/// A request from acceptance to its end. Its sequence may change: a preempted one is opened again under a new id.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) draft: Draft,
    choice: Choice,
    pub(super) outbox: Outbox,
    /// Whether the scheduler was told that the client does not read.
    pub(super) stalled: bool,
    /// Whether its last event is in the outbox.
    pub(super) over: bool,
    /// Tokens that its sequence was opened with, and how many of them are computed or on their way.
    pub(super) opened_with: u32,
    pub(super) computed: u32,
    /// On their way to the outbox.
    events: Vec<Event>,
    /// Prompt tokens that were not computed again, once it was opened.
    cached: Option<u32>,
    pub(super) times: Times,
}

impl Request {
    /// Accepts a request: says `Started`, and the end too if there is nothing to compute. `times`: of when it came,
    /// before it was tokenised.
    pub(super) fn new(id: RequestId, draft: Draft, choice: Choice, outbox: Outbox, times: Times) -> Self {
        let prompt_tokens = draft.prompt_tokens();
        let mut request = Self {
            id,
            draft,
            choice,
            outbox,
            stalled: false,
            over: false,
            opened_with: 0,
            computed: 0,
            events: Vec::new(),
            cached: None,
            times,
        };
        request.outbox.push(Event::Started { prompt_tokens });
        match request.draft.take_end() {
            Some(end) => request.finish(end),
            None => request.choice.steer.look_ahead(),
        }
        request
    }

    /// Its sequence, to be opened under this name with all its tokens so far.
    pub(super) fn spec(&self, seq: SeqId) -> SequenceSpec {
        SequenceSpec {
            logprobs: self.choice.logprobs,
            ban: self.choice.steer.ban(self.draft.prompt_tokens()),
            pool: self.choice.pool.as_ref().map(|made| made.pooling.clone()),
            ..SequenceSpec::new(seq, self.draft.tokens().to_vec(), self.choice.sampling.clone())
        }
    }

    /// Whether its next token may depend on what only the host knows.
    pub(super) fn is_steered(&self) -> bool {
        self.choice.steer.is_needed(&self.draft)
    }

    /// What the decoder is told of its next choice, once all tokens before it are read.
    pub(super) fn steering(&mut self, seq: SeqId) -> Result<Option<Steering>, GenerateError> {
        self.choice.steer.steering(seq, &self.draft).map_err(GenerateError::Engine)
    }

    /// Sends what there is room for; says whether there is nothing left to do for it.
    pub(super) fn is_told(&mut self) -> bool {
        self.outbox.flush() == Delivery::Over
    }

    /// Its sequence is open, and `cached` tokens need not be computed. The first time is what counts as reuse: later
    /// ones only repeat what this request computed itself. Of a resumed answer only the prompt counts.
    pub(super) fn opened(&mut self, cached: u32) {
        self.opened_with = self.draft.len();
        self.computed = cached;
        self.cached.get_or_insert(cached.min(self.draft.prompt_tokens()));
        self.times.start();
    }

    /// Its sequence is closed, and there will be another.
    pub(super) fn closed(&mut self) {
        (self.opened_with, self.computed) = (0, 0);
    }

    /// Whether the decoder knows its sequence.
    pub(super) fn is_open(&self) -> bool {
        self.opened_with > 0
    }

    /// The tokens whose KV its open sequence may hold.
    pub(super) fn held(&self) -> &[TokenId] {
        let tokens = self.draft.tokens();
        let computed = if self.computed < self.opened_with { self.computed as usize } else { tokens.len() };
        let computed = self.choice.pool.as_ref().map_or(computed, |made| made.kept.min(computed));
        tokens.get(..computed).unwrap_or(tokens)
    }

    /// Whether something is made of its prompt, and no token is chosen.
    pub(super) fn pools(&self) -> bool {
        self.choice.pool.is_some()
    }

    /// What the decoder made of its prompt, which ends it.
    ///
    /// # Errors
    /// When that is nothing.
    pub(super) fn pooled(&mut self, made: Option<Vec<f32>>) -> Result<bool, GenerateError> {
        let nothing = || GenerateError::Engine("the decoder made nothing of this text".to_owned());
        let made = made.ok_or_else(nothing)?;
        if let Some(tell) = self.choice.pool.as_mut().and_then(|pool| pool.tell.take()) {
            // Nobody waits any more: its sequence is swept with the others of its request.
            tell.send(made).ok();
        }
        self.finish(End::STOP);
        Ok(true)
    }

    /// The next token of the answer. Says whether that ends it.
    ///
    /// # Errors
    /// Its grammar cannot be followed any further.
    pub(super) fn take(&mut self, sampled: Sampled, eos: &BTreeSet<TokenId>) -> Result<bool, GenerateError> {
        let mut end = self.draft.take(sampled.token, sampled.odds, eos, &mut self.events);
        self.say();
        // An answer that is complete just where it would be cut is complete.
        if end.as_ref().is_none_or(|end| end.reason == FinishReason::Length) {
            let complete = self.choice.steer.take(sampled.token).map_err(GenerateError::Engine)?;
            if complete {
                end = Some(End::STOP);
            }
        }
        match end {
            Some(end) => self.finish(end),
            None => self.choice.steer.look_ahead(),
        }
        Ok(self.over)
    }

    fn say(&mut self) {
        self.events.drain(..).for_each(|event| self.outbox.push(event));
    }

    fn finish(&mut self, end: End) {
        let reason = self.draft.finish(end, self.cached.unwrap_or(0), &mut self.events);
        let last = self.events.pop();
        self.say();
        self.log(&format!("{reason:?}"));
        last.into_iter().for_each(|last| self.outbox.end(last));
        self.over = true;
    }

    /// Ends it as it should not end; what the client has not read is lost.
    pub(super) fn fail(&mut self, error: GenerateError) {
        self.log(&error.to_string());
        self.outbox.fail(error);
    }

    /// Its client is gone.
    pub(super) fn cancel(&self) {
        self.log("cancelled");
    }

    fn log(&self, end: &str) {
        if self.pools() {
            let Usage { prompt_tokens, cached_tokens, .. } = self.draft.usage(self.cached.unwrap_or(0));
            return tracing::debug!(request = %self.id, end, prompt_tokens, cached_tokens, "a text was pooled");
        }
        self.times.log(&self.id, &self.draft, self.cached.unwrap_or(0), end);
    }
}
