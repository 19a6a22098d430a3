//! One request on the worker's thread: tokens in, events out, usage counted; must not know scheduler or decoder.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use mesh_proto::{Event, FinishReason, GenerateError, RequestId, Sampling, TokenId, Usage};

use crate::{
    local::outbox::Outbox,
    text::{Answer, Piece},
};

/// A request from acceptance to its end. Its sequence may change: a preempted one is opened again under a new id.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: RequestId,
    /// The prompt, and the answer so far.
    pub(super) tokens: Vec<TokenId>,
    pub(super) prompt_tokens: u32,
    /// Most tokens of the answer; within the context, at least one.
    pub(super) most: u32,
    pub(super) ignore_eos: bool,
    pub(super) sampling: Sampling,
    pub(super) outbox: Outbox,
    /// Whether the scheduler was told that the client does not read.
    pub(super) stalled: bool,
    /// Tokens that its sequence was opened with, and how many of them are computed or on their way.
    pub(super) opened_with: u32,
    pub(super) computed: u32,
    answer: Answer,
    /// Tokens since the last text event.
    since: Vec<TokenId>,
    pieces: Vec<Piece>,
    /// Prompt tokens that were not computed again, once it was opened.
    cached: Option<u32>,
    arrived: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
}

/// What a [`Request`] is made of.
pub(super) struct Order {
    pub(super) id: RequestId,
    pub(super) prompt: Vec<TokenId>,
    pub(super) most: u32,
    pub(super) ignore_eos: bool,
    pub(super) sampling: Sampling,
}

impl Request {
    /// Accepts an order: says `Started`. `arrived`: when it came, before it was tokenised.
    pub(super) fn new(order: Order, answer: Answer, mut outbox: Outbox, arrived: Instant) -> Self {
        let prompt_tokens = order.prompt.len() as u32;
        outbox.push(Event::Started { prompt_tokens });
        Self {
            id: order.id,
            tokens: order.prompt,
            prompt_tokens,
            most: order.most,
            ignore_eos: order.ignore_eos,
            sampling: order.sampling,
            outbox,
            stalled: false,
            opened_with: 0,
            computed: 0,
            answer,
            since: Vec::new(),
            pieces: Vec::new(),
            cached: None,
            arrived,
            started: None,
            first: None,
        }
    }

    /// Tokens of the answer so far.
    pub(super) fn generated(&self) -> u32 {
        self.tokens.len() as u32 - self.prompt_tokens
    }

    /// Its sequence is open, and `cached` tokens need not be computed. The first time is what counts as reuse: later
    /// ones only repeat what this request computed itself.
    pub(super) fn opened(&mut self, cached: u32) {
        self.opened_with = self.tokens.len() as u32;
        self.computed = cached;
        self.cached.get_or_insert(cached);
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
        let computed = if self.computed < self.opened_with { self.computed as usize } else { self.tokens.len() };
        self.tokens.get(..computed).unwrap_or(&self.tokens)
    }

    /// The next token of the answer. Says whether that ends it.
    pub(super) fn take(&mut self, token: TokenId, eos: &BTreeSet<TokenId>) -> bool {
        self.tokens.push(token);
        self.first.get_or_insert_with(Instant::now);
        self.since.push(token);
        if eos.contains(&token) && !self.ignore_eos {
            self.finish(FinishReason::Stop, None);
            return true;
        }
        self.answer.push(token, &mut self.pieces);
        let stop = self.say();
        let ended = stop.is_some() || self.generated() >= self.most;
        if ended {
            self.finish(if stop.is_some() { FinishReason::Stop } else { FinishReason::Length }, stop);
        }
        ended
    }

    /// Sends the pieces that are settled; returns the stop string if one was met. The first text takes the tokens.
    fn say(&mut self) -> Option<String> {
        for piece in self.pieces.drain(..) {
            match piece {
                Piece::Text { channel, text } => {
                    self.outbox.push(Event::Text { channel, text, tokens: std::mem::take(&mut self.since) });
                }
                Piece::ToolCall(delta) => self.outbox.push(Event::ToolCall(delta)),
                Piece::Stop(stop) => return Some(stop),
            }
        }
        None
    }

    fn finish(&mut self, reason: FinishReason, stop: Option<String>) {
        let stop = stop.or_else(|| {
            self.answer.finish(&mut self.pieces);
            self.say()
        });
        let reason = match reason {
            _ if stop.is_some() => FinishReason::Stop,
            FinishReason::Stop if self.answer.called_tools() => FinishReason::ToolCalls,
            reason => reason,
        };
        let usage = self.usage();
        self.log(&format!("{reason:?}"));
        self.outbox.end(Event::Finished { reason, stop, usage });
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
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached.unwrap_or(0),
            completion_tokens: self.generated(),
            reasoning_tokens: self.answer.reasoning_tokens(),
        }
    }

    /// How long it was computed; `None` if it never was.
    pub(super) fn ran_for(&self) -> Option<Duration> {
        self.started.map(|started| started.elapsed())
    }

    fn log(&self, end: &str) {
        let usage = self.usage();
        let rate = self.first.map(|first| first.elapsed().as_secs_f64()).filter(|seconds| *seconds > 0.0);
        tracing::info!(
            request = %self.id,
            end,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            queued_ms = self.started.map(|started| started.duration_since(self.arrived).as_millis() as u64),
            first_token_ms = self.first.map(|first| first.duration_since(self.arrived).as_millis() as u64),
            tokens_per_s = rate.map(|seconds| f64::from(usage.completion_tokens.saturating_sub(1)) / seconds),
            "a generation ended"
        );
    }
}
