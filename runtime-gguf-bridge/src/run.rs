//! One request in llama-server, from its place to its last event; must not know processes or HTTP.
//!
//! A request whose child dies goes on in the next one, from the tokens so far, which are computed as part of the prompt.
//! But where a client gave a seed, the answer is sampled again from its start, since llama-server draws its random
//! numbers in a row: what comes then must be what came before, token for token, or the request fails.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use engine::{
    draft::{Draft, End, UNTOLD},
    house::Place,
};
use mesh_proto::{Event, FinishReason, GenerateError, RequestId, Sampling, TokenId};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use crate::{
    chunk::{Chunks, Said, Told},
    engine::{Running, Shared},
    server::CallError,
    wishes,
};

/// How often one request is begun again because its child died. Unit: times; default 2, a guess: the request itself may
/// be what kills it. More of it: one bad request restarts the child more often, for everybody.
pub(crate) const MOST_RETRIES: u32 = 2;

/// A request that was accepted.
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: RequestId,
    pub(crate) draft: Draft,
    pub(crate) sampling: Sampling,
    pub(crate) ignore_eos: bool,
    pub(crate) logprobs: Option<u8>,
    /// What the answer must look like, in GBNF. It is followed from the answer's start.
    pub(crate) grammar: Option<String>,
    /// Begun again from its start where it has to go on: it is sampled with a seed that somebody asked for, and the same
    /// seed must give the same tokens; or it follows a grammar.
    pub(crate) exact: bool,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) place: Place,
    pub(crate) arrived: Instant,
    pub(crate) cached: u32,
    pub(crate) started: Option<Instant>,
    pub(crate) first: Option<Instant>,
    pub(crate) running: Option<Running>,
}

/// How a stream ended.
enum Ended {
    /// So.
    Answer(End),
    /// The client is gone.
    Gone,
    /// The child is; another one may go on.
    Lost(String),
    /// It cannot go on.
    Failed(GenerateError),
}

impl Run {
    /// Runs to the end, or until nobody listens.
    pub(crate) async fn run(mut self) {
        let prompt_tokens = self.draft.prompt_tokens();
        if self.events.send(Event::Started { prompt_tokens }).await.is_err() {
            return self.log("cancelled");
        }
        let end = match self.draft.take_end() {
            Some(end) => Ended::Answer(end),
            None => self.compute().await,
        };
        let mut out = Vec::new();
        match end {
            Ended::Answer(end) => {
                let reason = self.draft.finish(end, self.cached, &mut out);
                self.log(&format!("{reason:?}"));
            }
            Ended::Gone => return self.log("cancelled"),
            Ended::Lost(message) => out.push(self.fail(GenerateError::Engine(message))),
            Ended::Failed(error) => out.push(self.fail(error)),
        }
        let last = out.pop();
        for event in out {
            if self.events.send(event).await.is_err() {
                return;
            }
        }
        // A client that asks again at once finds the place free.
        self.place.free();
        if let Some(last) = last {
            let _ = self.events.send(last).await;
        }
    }

    fn fail(&self, error: GenerateError) -> Event {
        self.log(&error.to_string());
        Event::Failed(error)
    }

    async fn compute(&mut self) -> Ended {
        let slot = tokio::select! {
            slot = self.shared.slots.clone().acquire_owned() => slot,
            () = self.events.closed() => return Ended::Gone,
        };
        let Ok(_slot) = slot else { return Ended::Failed(GenerateError::ShuttingDown) };
        self.running = Some(self.shared.running(self.draft.len()));
        let began = Instant::now();
        self.started = Some(began);
        let mut tries = 0;
        let ended = loop {
            let ready = tokio::select! {
                ready = self.shared.ready() => ready,
                () = self.events.closed() => break Ended::Gone,
            };
            if let Err(error) = ready {
                break Ended::Failed(GenerateError::Engine(error.to_string()));
            }
            match self.stream().await {
                Ended::Lost(message) if tries < MOST_RETRIES => {
                    tries += 1;
                    tracing::warn!(request = %self.id, message, tries, "the request goes on in a new llama-server");
                }
                ended => break ended,
            }
        };
        self.running = None;
        self.shared.house.took(began.elapsed());
        ended
    }

    /// Asks once, and tells what comes.
    async fn stream(&mut self) -> Ended {
        let replay = self.replayed();
        if replay.contains(&UNTOLD) || (replay.is_empty() && self.draft.tokens().contains(&UNTOLD)) {
            return Ended::Failed(GenerateError::Engine(
                "llama-server ended, and the answer's tokens so far are not known well enough to go on".to_owned(),
            ));
        }
        let body = self.body(replay.len());
        let shared = self.shared.clone();
        let asked = tokio::select! {
            asked = shared.server.stream("/completion", &body) => asked,
            () = self.events.closed() => return Ended::Gone,
        };
        let mut stream = match asked {
            Ok(stream) => stream,
            Err(error) => return self.refused(error),
        };
        let mut chunks = Chunks::new(&shared.text, &shared.fragments);
        let (mut said, mut replayed) = (Vec::new(), replay.into_iter());
        loop {
            let chunk = tokio::select! {
                chunk = stream.next() => chunk,
                () = self.events.closed() => return Ended::Gone,
            };
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return self.refused(error),
                None => return Ended::Lost(format!("llama-server broke off: {}", shared.server.last_words())),
            };
            if let Err(error) = chunks.read(&chunk, &mut said) {
                return Ended::Failed(GenerateError::Engine(error.to_string()));
            }
            for said in said.drain(..) {
                match self.take(said, &mut replayed).await {
                    Ok(None) => {}
                    Ok(Some(end)) => return Ended::Answer(end),
                    Err(ended) => return ended,
                }
            }
        }
    }

    /// Tokens that will come again: of an answer with a seed, those so far.
    fn replayed(&self) -> Vec<TokenId> {
        if !self.exact {
            return Vec::new();
        }
        self.draft.tokens().get(self.draft.prompt_tokens() as usize..).unwrap_or_default().to_vec()
    }

    fn body(&self, replayed: usize) -> Json {
        let tokens = self.draft.tokens();
        // One that was drawn is not used twice in one answer: the same random numbers would be drawn again.
        let began = if self.exact { 0 } else { u64::from(self.draft.generated()) };
        let seed = self.sampling.seed.unwrap_or_default().wrapping_add(began.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let prompt = tokens.get(..tokens.len() - replayed).unwrap_or_default();
        let prompt: Vec<u32> = prompt.iter().map(|token| token.0).collect();
        let mut body = json!({
            "prompt": prompt,
            "n_predict": u64::from(self.draft.left()) + replayed as u64,
            "stream": true,
            "return_tokens": true,
            "return_progress": true,
            // A prompt that is computed in other portions gives slightly other logits, and a seed then other tokens.
            "cache_prompt": !self.exact,
            "seed": seed_of(seed),
            "ignore_eos": self.ignore_eos,
        });
        wishes::sampling(&self.sampling, &mut body);
        wishes::likelihoods(self.logprobs, &mut body);
        wishes::grammar(self.grammar.as_deref(), &mut body);
        body
    }

    /// What the child says becomes events. `Some`: the answer ends with it.
    async fn take(
        &mut self,
        said: Said,
        replayed: &mut (impl Iterator<Item = TokenId> + Send),
    ) -> Result<Option<End>, Ended> {
        self.shared.house.stepped(0);
        let mut out = Vec::new();
        let mut end = None;
        match said {
            Said::Prompt { cached } => self.cache(cached),
            Said::Tokens(tokens) => {
                for Told { token, mut odds } in tokens {
                    if let (Some(odds), Some(most)) = (&mut odds, self.logprobs) {
                        odds.top.truncate(most.into());
                    }
                    if let Some(before) = replayed.next() {
                        if before != token {
                            return Err(other_answer());
                        }
                        continue;
                    }
                    self.came(1);
                    end = self.draft.take(token, odds, &BTreeSet::new(), &mut out);
                    if end.is_some() {
                        break;
                    }
                }
            }
            Said::Untold { text, count } => {
                if replayed.next().is_some() {
                    return Err(other_answer());
                }
                self.came(count);
                end = self.draft.take_untold(&text, count, &mut out);
            }
            Said::End { eos, silent, cached } => {
                if replayed.next().is_some() {
                    return Err(other_answer());
                }
                if let Some(cached) = cached.filter(|_| self.cached == 0) {
                    self.cache(cached);
                }
                if silent > 0 {
                    self.came(silent);
                    self.draft.take_untold("", silent, &mut out);
                }
                end = Some(match eos {
                    Some(token) => {
                        self.came(1);
                        let ends = BTreeSet::from([token]);
                        let end = self.draft.take(token, None, &ends, &mut out);
                        end.unwrap_or(End { reason: FinishReason::Stop, stop: None })
                    }
                    None => End { reason: FinishReason::Length, stop: None },
                });
            }
        }
        for event in out {
            if self.events.send(event).await.is_err() {
                return Err(Ended::Gone);
            }
        }
        Ok(end)
    }

    fn cache(&mut self, cached: u32) {
        // What a retry finds is what this request computed itself.
        if self.first.is_none() {
            self.cached = cached.min(self.draft.prompt_tokens());
        }
    }

    fn came(&mut self, tokens: u32) {
        if let Some(running) = &mut self.running {
            running.came(tokens);
        }
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.shared.house.first_token(self.arrived.elapsed());
        }
    }

    /// The child did not take it, or broke off.
    fn refused(&self, error: CallError) -> Ended {
        match error {
            CallError::Unreachable(_) => {
                Ended::Lost(format!("llama-server ended: {}", self.shared.server.last_words()))
            }
            CallError::Status { message, .. } => {
                Ended::Failed(GenerateError::Engine(format!("llama-server: {message}")))
            }
            error => Ended::Failed(GenerateError::Engine(error.to_string())),
        }
    }

    fn log(&self, end: &str) {
        let usage = self.draft.usage(self.cached);
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

fn other_answer() -> Ended {
    Ended::Failed(GenerateError::Engine(
        "the answer was begun again with its seed, and llama-server sampled other tokens: it cannot go on".to_owned(),
    ))
}

/// llama-server's seeds have 32 bits, and its highest means a random one.
fn seed_of(seed: u64) -> u32 {
    let folded = (seed ^ (seed >> 32)) as u32;
    if folded == u32::MAX { 0x5EED_5EED } else { folded }
}

#[cfg(test)]
mod tests {
    use super::seed_of;

    #[test]
    fn no_seed_becomes_the_one_that_means_random() {
        assert_eq!(seed_of(7), 7);
        assert_ne!(seed_of(u64::from(u32::MAX)), u32::MAX);
        assert_ne!(seed_of(1 << 32), seed_of(0));
    }
}
