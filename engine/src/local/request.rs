//! One request on the worker's thread: tokens in, events out, usage counted; must not know scheduler or decoder.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use mesh_proto::{Event, GenerateError, RequestId, Sampling, TokenId};

use crate::{
    draft::{Draft, End},
    local::outbox::{Delivery, Outbox},
};

/// A request from acceptance to its end. Its sequence may change: a preempted one is opened again under a new id.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) draft: Draft,
    pub(super) sampling: Sampling,
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
    arrived: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
    first_told: bool,
}

impl Request {
    /// Accepts a request: says `Started`, and the end too if there is nothing to compute. `arrived`: when it came,
    /// before it was tokenised.
    pub(super) fn new(id: RequestId, draft: Draft, sampling: Sampling, outbox: Outbox, arrived: Instant) -> Self {
        let prompt_tokens = draft.prompt_tokens();
        let mut request = Self {
            id,
            draft,
            sampling,
            outbox,
            stalled: false,
            over: false,
            opened_with: 0,
            computed: 0,
            events: Vec::new(),
            cached: None,
            arrived,
            started: None,
            first: None,
            first_told: false,
        };
        request.outbox.push(Event::Started { prompt_tokens });
        if let Some(end) = request.draft.take_end() {
            request.finish(end);
        }
        request
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
        self.started.get_or_insert_with(Instant::now);
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
        tokens.get(..computed).unwrap_or(tokens)
    }

    /// The next token of the answer. Says whether that ends it.
    pub(super) fn take(&mut self, token: TokenId, eos: &BTreeSet<TokenId>) -> bool {
        self.first.get_or_insert_with(Instant::now);
        let end = self.draft.take(token, eos, &mut self.events);
        self.say();
        if let Some(end) = end {
            self.finish(end);
        }
        self.over
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

    /// How long its first token took, said once.
    pub(super) fn first_after(&mut self) -> Option<Duration> {
        let told = self.first_told;
        self.first_told = self.first.is_some();
        self.first.filter(|_| !told).map(|first| first.duration_since(self.arrived))
    }

    /// How long it was computed; `None` if it never was.
    pub(super) fn ran_for(&self) -> Option<Duration> {
        self.started.map(|started| started.elapsed())
    }

    fn log(&self, end: &str) {
        let usage = self.draft.usage(self.cached.unwrap_or(0));
        let here = usage.completion_tokens.saturating_sub(self.draft.resumed());
        let rate = self.first.map(|first| first.elapsed().as_secs_f64()).filter(|seconds| *seconds > 0.0);
        tracing::info!(
            request = %self.id,
            end,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            resumed_tokens = self.draft.resumed(),
            queued_ms = self.started.map(|started| started.duration_since(self.arrived).as_millis() as u64),
            first_token_ms = self.first.map(|first| first.duration_since(self.arrived).as_millis() as u64),
            tokens_per_s = rate.map(|seconds| f64::from(here.saturating_sub(1)) / seconds),
            "a generation ended"
        );
    }
}
