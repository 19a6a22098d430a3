//! One request on the worker's thread: tokens in, events out, usage counted; must not know scheduler or decoder.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use mesh_proto::{Event, GenerateError, RequestId, Sampling, TokenId, Usage};

use crate::{
    local::{
        draft::{Draft, End},
        outbox::{Delivery, Outbox},
    },
    text::Piece,
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
    /// Tokens since the last ones that were told.
    since: Vec<TokenId>,
    pieces: Vec<Piece>,
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
        let prompt_tokens = draft.prompt_tokens;
        let mut request = Self {
            id,
            draft,
            sampling,
            outbox,
            stalled: false,
            over: false,
            opened_with: 0,
            computed: 0,
            since: Vec::new(),
            pieces: Vec::new(),
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
        self.cached.get_or_insert(cached.min(self.draft.prompt_tokens));
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
        let tokens = &self.draft.tokens;
        let computed = if self.computed < self.opened_with { self.computed as usize } else { tokens.len() };
        tokens.get(..computed).unwrap_or(tokens)
    }

    /// The next token of the answer. Says whether that ends it.
    pub(super) fn take(&mut self, token: TokenId, eos: &BTreeSet<TokenId>) -> bool {
        self.first.get_or_insert_with(Instant::now);
        self.since.push(token);
        let end = self.draft.push(token, eos, &mut self.pieces);
        self.say();
        if let Some(end) = end {
            self.finish(end);
        }
        self.over
    }

    /// Sends the pieces that are settled. The last of them takes the tokens: who has these has all that they settled.
    fn say(&mut self) {
        let last = self.pieces.len().saturating_sub(1);
        for (at, piece) in self.pieces.drain(..).enumerate() {
            let tokens = if at == last { std::mem::take(&mut self.since) } else { Vec::new() };
            match piece {
                Piece::Text { channel, text } => self.outbox.push(Event::Text { channel, text, tokens }),
                Piece::ToolCall(delta) => self.outbox.push(Event::ToolCall { delta, tokens }),
                // The draft keeps these.
                Piece::Stop(_) => {}
            }
        }
    }

    fn finish(&mut self, end: End) {
        // `Finished` closes what comes now: with tokens, a client that resumes behind these would be told it twice.
        self.since.clear();
        let End { reason, stop } = self.draft.finish(end, &mut self.pieces);
        self.say();
        let usage = self.usage();
        self.log(&format!("{reason:?}"));
        self.outbox.end(Event::Finished { reason, stop, usage });
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

    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.draft.prompt_tokens,
            cached_tokens: self.cached.unwrap_or(0),
            completion_tokens: self.draft.generated(),
            reasoning_tokens: self.draft.reasoning_tokens(),
        }
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
        let usage = self.usage();
        let here = usage.completion_tokens.saturating_sub(self.draft.resumed);
        let rate = self.first.map(|first| first.elapsed().as_secs_f64()).filter(|seconds| *seconds > 0.0);
        tracing::info!(
            request = %self.id,
            end,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            resumed_tokens = self.draft.resumed,
            queued_ms = self.started.map(|started| started.duration_since(self.arrived).as_millis() as u64),
            first_token_ms = self.first.map(|first| first.duration_since(self.arrived).as_millis() as u64),
            tokens_per_s = rate.map(|seconds| f64::from(here.saturating_sub(1)) / seconds),
            "a generation ended"
        );
    }
}
