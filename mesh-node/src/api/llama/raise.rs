//! Events to llama-server's own chunks and answers, pure but for the clock; must not know where events come from.

use std::time::Instant;

use mesh_proto::{Event, FinishReason, GenerateError, Likelihood, TokenLogprob, Usage};
use serde_json::{Map, Value, json};

use crate::api::openai::{gather::Fold, stream::Raise};

/// What stands for "so unlikely that there is no number", which JSON could not carry. As at OpenAI's endpoints.
const UNLIKELY: f32 = -9999.0;

/// How the answers are told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) model: String,
    /// What each answer goes on from.
    pub(super) prompts: Vec<Value>,
    /// What counted.
    pub(super) settings: Value,
    pub(super) n_predict: Option<u32>,
    /// The tokens of an answer that comes whole.
    pub(super) tokens: bool,
    /// How likely each token was.
    pub(super) probabilities: bool,
    /// Which fields are told; none: all. `a/b` tells `b` of `a`.
    pub(super) fields: Vec<String>,
    /// The prompts were an array, and so are the answers.
    pub(super) many: bool,
}

/// Gathers one answer's events.
#[derive(Debug, Default)]
pub(super) struct Whole {
    text: String,
    tokens: Vec<u32>,
    probabilities: Vec<Value>,
    has_new_line: bool,
    first: Option<Instant>,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    reason: FinishReason,
    stop: Option<String>,
    usage: Usage,
    at: Instant,
}

impl Fold for Whole {
    fn add(&mut self, event: Event) -> Result<(), GenerateError> {
        match event {
            Event::Started { .. } => {}
            Event::Text { text, tokens, logprobs, .. } => {
                self.first.get_or_insert_with(Instant::now);
                self.has_new_line |= text.contains('\n');
                self.text += &text;
                self.tokens.extend(tokens.into_iter().map(|token| token.0));
                self.probabilities.extend(logprobs.into_iter().map(probability));
            }
            Event::ToolCall { tokens, .. } => self.tokens.extend(tokens.into_iter().map(|token| token.0)),
            Event::Finished { reason, stop, usage } => {
                let at = Instant::now();
                self.first.get_or_insert(at);
                self.end = Some(End { reason, stop, usage, at });
            }
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }
}

fn probability(TokenLogprob { chosen, top }: TokenLogprob) -> Value {
    let mut told = likelihood(&chosen);
    told["top_logprobs"] = top.iter().map(likelihood).collect();
    told
}

/// Half a character becomes U+FFFD in the text; the bytes tell what it was.
fn likelihood(of: &Likelihood) -> Value {
    let logprob = if of.logprob.is_finite() { of.logprob } else { UNLIKELY };
    json!({"id": of.token.0, "token": String::from_utf8_lossy(&of.bytes), "bytes": of.bytes, "logprob": logprob})
}

impl Told {
    /// The response, when all events of all answers are in.
    pub(super) fn answers(&self, all: Vec<Whole>, prompt_tokens: Vec<u32>, began: Instant) -> Value {
        let told = all.into_iter().zip(prompt_tokens).enumerate();
        let mut told: Vec<Value> = told
            .map(|(index, (mut whole, prompt_tokens))| {
                let mut answer = self.last(index, &whole, prompt_tokens, began);
                answer["content"] = std::mem::take(&mut whole.text).into();
                if self.tokens {
                    answer["tokens"] = whole.tokens.into();
                }
                if self.probabilities {
                    answer["completion_probabilities"] = whole.probabilities.into();
                }
                self.only_fields(answer)
            })
            .collect();
        match told.pop() {
            Some(one) if !self.many => one,
            last => told.into_iter().chain(last).collect(),
        }
    }

    /// What is told at the end of an answer, but for its content.
    fn last(&self, index: usize, whole: &Whole, prompt_tokens: u32, began: Instant) -> Value {
        let (reason, stop, usage, at) = match &whole.end {
            Some(End { reason, stop, usage, at }) => (*reason, stop.as_deref(), *usage, *at),
            None => (FinishReason::Length, None, Usage::default(), Instant::now()),
        };
        let stop_type = match (reason, stop) {
            (FinishReason::Length, _) => "limit",
            (_, Some(_)) => "word",
            _ => "eos",
        };
        // Without a limit of its own, the context was one.
        let truncated = reason == FinishReason::Length && self.n_predict.is_none_or(|n| usage.completion_tokens < n);
        json!({
            "index": index,
            "content": "",
            "tokens": [],
            "stop": true,
            "model": self.model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": prompt_tokens,
            "generation_settings": self.settings,
            "prompt": self.prompts.get(index),
            "has_new_line": whole.has_new_line,
            "truncated": truncated,
            "stop_type": stop_type,
            "stopping_word": stop.unwrap_or_default(),
            "timings": timings(usage, prompt_tokens, [began, whole.first.unwrap_or(at), at]),
        })
    }

    fn only_fields(&self, answer: Value) -> Value {
        if self.fields.is_empty() {
            return answer;
        }
        let find = |field: &String| {
            let value = field.split('/').try_fold(&answer, |value, name| value.get(name))?;
            Some((field.clone(), value.clone()))
        };
        Value::Object(self.fields.iter().filter_map(find).collect::<Map<_, _>>())
    }
}

/// As this node's client sees them: the prompt's time ends with the first token, and holds the wait for a place.
fn timings(usage: Usage, prompt_tokens: u32, [began, first, end]: [Instant; 3]) -> Value {
    let prompt_ms = first.duration_since(began).as_secs_f64() * 1e3;
    let predicted_ms = end.duration_since(first).as_secs_f64() * 1e3;
    let computed = prompt_tokens.saturating_sub(usage.cached_tokens);
    let per = |ms: f64, count: u32| if count == 0 { 0.0 } else { ms / f64::from(count) };
    let rate = |ms: f64, count: u32| if ms > 0.0 { 1e3 / ms * f64::from(count) } else { 0.0 };
    // The first token comes with the prompt.
    let steps = usage.completion_tokens.saturating_sub(1);
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": per(prompt_ms, computed),
        "prompt_per_second": rate(prompt_ms, computed),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": per(predicted_ms, steps),
        "predicted_per_second": rate(predicted_ms, steps),
    })
}

/// Raises the events of one or several answers to chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    told: Told,
    prompt_tokens: Vec<u32>,
    began: Instant,
    answers: Vec<Whole>,
}

impl Chunks {
    pub(super) fn new(told: Told, prompt_tokens: Vec<u32>, began: Instant) -> Self {
        let answers = prompt_tokens.iter().map(|_| Whole::default()).collect();
        Self { told, prompt_tokens, began, answers }
    }
}

impl Raise for Chunks {
    type Chunk = Value;
    // Its clients take every line for JSON.
    const SAYS_DONE: bool = false;

    fn opening(&mut self) -> Vec<Value> {
        Vec::new()
    }

    fn event(&mut self, choice: u32, event: Event) -> Result<Vec<Value>, GenerateError> {
        let index = choice as usize;
        let Some(whole) = self.answers.get_mut(index) else { return Ok(Vec::new()) };
        whole.add(event)?;
        let prompt_tokens = self.prompt_tokens.get(index).copied().unwrap_or(0);
        if whole.end.is_some() {
            return Ok(vec![self.told.only_fields(self.told.last(index, whole, prompt_tokens, self.began))]);
        }
        let (text, tokens) = (std::mem::take(&mut whole.text), std::mem::take(&mut whole.tokens));
        let mut chunk = json!({"index": index, "content": text, "tokens": tokens, "stop": false});
        if self.told.probabilities {
            chunk["completion_probabilities"] = std::mem::take(&mut whole.probabilities).into();
        }
        Ok(vec![chunk])
    }

    fn closing(&mut self) -> Option<Value> {
        None
    }
}
