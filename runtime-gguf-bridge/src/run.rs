//! One request in llama-server, from its place to its last event; must not know processes or HTTP.
//!
//! An answer comes in portions where something changes in its middle, the next one from the tokens so far: up to its least
//! length its end is banned; and where its reasoning has gone on long enough, what closes that is put behind it.
//!
//! A request whose child dies goes on in the next one, from the tokens so far, which are computed as part of the prompt.
//! But where a client gave a seed, the answer is sampled again from its start, since llama-server draws its random
//! numbers in a row: what comes then must be what came before, token for token, or the request fails.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use engine::{
    draft::{Draft, End, UNTOLD},
    house::Place,
    times::Times,
};
use mesh_proto::{Event, FinishReason, GenerateError, RequestId, TokenId};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use crate::{
    chunk::{Chunks, Said, Told},
    engine::{Running, Shared},
    prepare::Ask,
    server::CallError,
    wishes,
};

/// How often one request is begun again because its child died. Unit: times; default 2, a guess: the request itself may
/// be what kills it. More of it: one bad request restarts the child more often, for everybody.
pub(crate) const MOST_RETRIES: u32 = 2;

/// Tokens beyond a least length that are asked for where it falls within a character: llama-server tells none of them until
/// the character is whole. Unit: tokens; a character has four bytes, and the next may be split too.
const SPARE: u32 = 8;

/// A request that was accepted.
pub(crate) struct Run {
    shared: Arc<Shared>,
    id: RequestId,
    draft: Draft,
    ask: Ask,
    /// Tokens of the answer with which its last portion began, as far as the least length decides that.
    base: u32,
    /// Tokens asked for beyond the least length.
    spare: u32,
    events: mpsc::Sender<Event>,
    place: Place,
    times: Times,
    cached: u32,
    running: Option<Running>,
}

/// Who waits for an answer, and since when.
pub(crate) struct Client {
    pub(crate) id: RequestId,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) place: Place,
    pub(crate) times: Times,
}

/// How an answer ended.
enum Ended {
    /// So.
    Answer(End),
    /// The client is gone.
    Gone,
    /// It cannot go on.
    Failed(GenerateError),
}

/// Why an answer is asked for again.
enum Again {
    /// The child is gone; another one may go on.
    Lost(String),
    /// The next portion of it is due.
    Onward,
    /// The next portion is due within a character, whose tokens nobody told.
    Split,
}

/// How a stream ended.
type Stream = Result<Ended, Again>;

impl Run {
    /// Of a request that was prepared.
    pub(crate) fn new(shared: Arc<Shared>, (draft, ask): (Draft, Ask), client: Client) -> Self {
        let Client { id, events, place, times } = client;
        // What came elsewhere came in portions there, too.
        let base = if draft.resumed() >= ask.min_tokens { ask.min_tokens } else { 0 };
        Self { shared, id, draft, ask, base, spare: 0, events, place, times, cached: 0, running: None }
    }

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
            Ended::Failed(error) => out.push(self.fail(error)),
        }
        let last = out.pop();
        if !self.tell(out).await {
            return;
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
        self.times.start();
        let mut tries = 0;
        let ended = loop {
            let ready = tokio::select! {
                ready = self.shared.ready() => ready,
                () = self.events.closed() => break Ended::Gone,
            };
            if let Err(error) = ready {
                break Ended::Failed(GenerateError::Engine(error.to_string()));
            }
            if let Some(ended) = self.force().await {
                break ended;
            }
            match self.stream().await {
                Ok(ended) => break ended,
                Err(Again::Lost(message)) if tries >= MOST_RETRIES => {
                    break Ended::Failed(GenerateError::Engine(message));
                }
                Err(Again::Lost(message)) => {
                    tries += 1;
                    tracing::warn!(request = %self.id, message, tries, "the request goes on in a new llama-server");
                }
                Err(Again::Onward) => self.base = self.draft.generated(),
                Err(Again::Split) => {
                    self.base = self.draft.generated();
                    self.spare += SPARE;
                }
            }
        };
        self.running = None;
        if let Some(time) = self.times.ran_for() {
            self.shared.house.took(time);
        }
        ended
    }

    /// Tells the tokens that must come next.
    async fn force(&mut self) -> Option<Ended> {
        while let Some(token) = self.draft.forced() {
            self.came(1);
            let mut out = Vec::new();
            let end = self.draft.take(token, None, &BTreeSet::new(), &mut out);
            if !self.tell(out).await {
                return Some(Ended::Gone);
            }
            if let Some(end) = end {
                return Some(Ended::Answer(end));
            }
        }
        None
    }

    /// Says whether somebody listens.
    async fn tell(&mut self, events: Vec<Event>) -> bool {
        for event in events {
            if self.events.send(event).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Asks once, and tells what comes.
    async fn stream(&mut self) -> Stream {
        let began = self.began();
        let prompt = self.draft.tokens().get(..(self.draft.prompt_tokens() + began) as usize).unwrap_or_default();
        let replay = self.draft.tokens().get(prompt.len()..).unwrap_or_default().to_vec();
        if prompt.contains(&UNTOLD) || replay.contains(&UNTOLD) {
            return failed("llama-server did not tell the answer's tokens so far well enough to go on from them");
        }
        let body = self.body(prompt, began);
        let shared = self.shared.clone();
        let asked = tokio::select! {
            asked = shared.server.stream("/completion", &body) => asked,
            () = self.events.closed() => return Ok(Ended::Gone),
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
                () = self.events.closed() => return Ok(Ended::Gone),
            };
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return self.refused(error),
                None => return lost("llama-server broke off", &shared),
            };
            if let Err(error) = chunks.read(&chunk, &mut said) {
                return failed(&error.to_string());
            }
            for said in said.drain(..) {
                if let ControlFlow::Break(ended) = self.take(said, &mut replayed, began).await {
                    return ended;
                }
            }
        }
    }

    /// Tokens of the answer that the next stream goes on from. Those behind them will come again.
    fn began(&self) -> u32 {
        if self.ask.exact { self.base.max(self.draft.forced_to()) } else { self.draft.generated() }
    }

    /// Whether the answer may not end yet in a stream that goes on from so many tokens.
    fn is_short(&self, began: u32) -> bool {
        began < self.ask.min_tokens
    }

    fn body(&self, prompt: &[TokenId], began: u32) -> Json {
        let Ask { sampling, ignore_eos, logprobs, grammar, exact, min_tokens } = &self.ask;
        // One that was drawn is not used twice in one answer: the same random numbers would be drawn again.
        let seed = sampling.seed.unwrap_or_default().wrapping_add(u64::from(began).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let prompt: Vec<u32> = prompt.iter().map(|token| token.0).collect();
        let left = self.draft.left() + (self.draft.generated() - began);
        let short = self.is_short(began);
        let mut body = json!({
            "prompt": prompt,
            "n_predict": if short { left.min((min_tokens - began).saturating_add(self.spare)) } else { left },
            "stream": true,
            "return_tokens": true,
            "return_progress": true,
            // A prompt that is computed in other portions gives slightly other logits, and a seed then other tokens.
            "cache_prompt": !exact,
            "seed": seed_of(seed),
            "ignore_eos": *ignore_eos || short,
        });
        wishes::sampling(sampling, &mut body);
        wishes::likelihoods(*logprobs, &mut body);
        wishes::grammar(grammar.as_deref(), &mut body);
        body
    }

    /// What the child says becomes events.
    async fn take(
        &mut self,
        said: Said,
        replayed: &mut (impl Iterator<Item = TokenId> + Send),
        began: u32,
    ) -> ControlFlow<Stream> {
        self.shared.house.stepped(0);
        let mut out = Vec::new();
        let mut end = None;
        let mut onward = false;
        match said {
            Said::Prompt { cached } => self.cache(cached),
            Said::Tokens(tokens) => {
                for Told { token, mut odds } in tokens {
                    if let (Some(odds), Some(most)) = (&mut odds, self.ask.logprobs) {
                        odds.top.truncate(most.into());
                    }
                    if let Some(before) = replayed.next() {
                        if before != token {
                            return ControlFlow::Break(other_answer());
                        }
                        continue;
                    }
                    self.came(1);
                    end = self.draft.take(token, odds, &BTreeSet::new(), &mut out);
                    onward = self.draft.forced().is_some();
                    if end.is_some() || onward {
                        break;
                    }
                }
                // Where no more was asked for than the least length, the stream is about to end by itself.
                onward |= self.is_short(began) && self.spare > 0 && !self.is_short(self.draft.generated());
            }
            Said::Untold { text, count } => {
                if replayed.next().is_some() {
                    return ControlFlow::Break(other_answer());
                }
                self.came(count);
                end = self.draft.take_untold(&text, count, &mut out);
            }
            Said::End { eos, silent, cached } => {
                if replayed.next().is_some() {
                    return ControlFlow::Break(other_answer());
                }
                if let Some(cached) = cached.filter(|_| self.cached == 0) {
                    self.cache(cached);
                }
                if eos.is_none() && self.is_short(began) && silent < self.draft.left() {
                    return ControlFlow::Break(Err(if silent > 0 { Again::Split } else { Again::Onward }));
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
        if !self.tell(out).await {
            return ControlFlow::Break(Ok(Ended::Gone));
        }
        match end {
            Some(end) => ControlFlow::Break(Ok(Ended::Answer(end))),
            None if onward => ControlFlow::Break(Err(Again::Onward)),
            None => ControlFlow::Continue(()),
        }
    }

    fn cache(&mut self, cached: u32) {
        // What a retry finds is what this request computed itself.
        if !self.times.has_token() {
            self.cached = cached.min(self.draft.prompt_tokens());
        }
    }

    fn came(&mut self, tokens: u32) {
        if let Some(running) = &mut self.running {
            running.came(tokens);
        }
        if let Some(after) = self.times.token() {
            self.shared.house.first_token(after);
        }
    }

    /// The child did not take it, or broke off.
    fn refused(&self, error: CallError) -> Stream {
        match error {
            CallError::Unreachable(_) => lost("llama-server ended", &self.shared),
            CallError::Status { message, .. } => failed(&format!("llama-server: {message}")),
            error => failed(&error.to_string()),
        }
    }

    fn log(&self, end: &str) {
        self.times.log(&self.id, &self.draft, self.cached, end);
    }
}

fn failed(message: &str) -> Stream {
    Ok(Ended::Failed(GenerateError::Engine(message.to_owned())))
}

fn lost(what: &str, shared: &Shared) -> Stream {
    Err(Again::Lost(format!("{what}: {}", shared.server.last_words())))
}

fn other_answer() -> Stream {
    failed("the answer was begun again with its seed, and llama-server sampled other tokens: it cannot go on")
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
