//! One request's times, and what the log says of it in the end; must not know how it is computed.

use std::time::{Duration, Instant};

use mesh_proto::RequestId;

use crate::draft::Draft;

/// When one request came, began and had its first token.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    arrived: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
}

impl Times {
    /// Of a request that comes now.
    pub fn arrived() -> Self {
        Self { arrived: Instant::now(), started: None, first: None }
    }

    /// It is computed from now on, unless it was already.
    pub fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// A token is there. If it is the first one: how long that took.
    pub fn token(&mut self) -> Option<Duration> {
        if self.first.is_some() {
            return None;
        }
        let now = Instant::now();
        self.first = Some(now);
        Some(now.duration_since(self.arrived))
    }

    /// Whether a token was there.
    pub fn has_token(&self) -> bool {
        self.first.is_some()
    }

    /// How long it has been computed; `None` if it never was.
    pub fn ran_for(&self) -> Option<Duration> {
        self.started.map(|started| started.elapsed())
    }

    /// Logs that it ended, and how. `cached`: tokens of its prompt that were not computed.
    pub fn log(&self, request: &RequestId, draft: &Draft, cached: u32, end: &str) {
        let usage = draft.usage(cached);
        let here = usage.completion_tokens.saturating_sub(draft.resumed());
        let rate = self.first.map(|first| first.elapsed().as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let after = |then: Instant| then.duration_since(self.arrived).as_millis() as u64;
        tracing::info!(
            %request,
            end,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            resumed_tokens = draft.resumed(),
            queued_ms = self.started.map(after),
            first_token_ms = self.first.map(after),
            tokens_per_s = rate.map(|seconds| f64::from(here.saturating_sub(1)) / seconds),
            "a generation ended"
        );
    }
}
