//! A legacy completion's answer, whole and in chunks (which look alike); must not know the request.

use mesh_proto::{Event, FinishReason, GenerateError, Usage};
use serde::Serialize;

use super::{
    super::{Head, stream::Raise},
    UsageDto, sum, word,
};

/// `text_completion`.
#[derive(Debug, Serialize)]
pub(in super::super) struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<Choice>,
    /// Absent from chunks unless asked for; null in all chunks but the last if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageDto>>,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: u32,
    text: String,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

fn completion(head: &Head, choices: Vec<Choice>, usage: Option<Option<UsageDto>>) -> Completion {
    Completion {
        id: head.id.clone(),
        object: "text_completion",
        created: head.created,
        model: head.model.clone(),
        system_fingerprint: head.fingerprint.clone(),
        choices,
        usage,
    }
}

/// This endpoint knows no tools; a model that would call one has stopped.
fn reason_word(reason: FinishReason) -> &'static str {
    word(if reason == FinishReason::ToolCalls { FinishReason::Stop } else { reason })
}

/// Gathers one prompt's events.
#[derive(Debug, Default)]
pub(in super::super) struct CompletionFold {
    text: String,
    end: Option<(FinishReason, Usage)>,
}

impl CompletionFold {
    /// Takes the next event; the error of `Failed` is handed back.
    pub(in super::super) fn add(&mut self, event: Event) -> Result<(), GenerateError> {
        match event {
            Event::Started { .. } | Event::ToolCall { .. } => {}
            Event::Text { text, .. } => self.text.push_str(&text),
            Event::Finished { reason, usage, .. } => self.end = Some((reason, usage)),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// The answer, when all events of all prompts are in.
    pub(in super::super) fn finish(all: Vec<Self>, head: &Head) -> Completion {
        let mut usage = Usage::default();
        let choices = (0..).zip(all).map(|(index, one)| {
            let (reason, spent) = one.end.unwrap_or((FinishReason::Length, Usage::default()));
            usage = sum(usage, spent);
            Choice { index, text: one.text, logprobs: None, finish_reason: Some(reason_word(reason)) }
        });
        let choices = choices.collect();
        completion(head, choices, Some(Some(usage.into())))
    }
}

/// Raises the events of one or several prompts to chunks.
#[derive(Debug)]
pub(in super::super) struct CompletionChunks {
    head: Head,
    include_usage: bool,
    usage: Usage,
}

impl CompletionChunks {
    pub(in super::super) fn new(head: Head, include_usage: bool) -> Self {
        Self { head, include_usage, usage: Usage::default() }
    }

    fn chunk(&self, choice: Choice) -> Vec<Completion> {
        vec![completion(&self.head, vec![choice], self.include_usage.then_some(None))]
    }
}

impl Raise for CompletionChunks {
    type Chunk = Completion;

    fn opening(&mut self) -> Vec<Completion> {
        Vec::new()
    }

    fn event(&mut self, index: u32, event: Event) -> Result<Vec<Completion>, GenerateError> {
        match event {
            Event::Started { .. } | Event::ToolCall { .. } => Ok(Vec::new()),
            Event::Text { text, .. } => Ok(self.chunk(Choice { index, text, logprobs: None, finish_reason: None })),
            Event::Finished { reason, usage, .. } => {
                self.usage = sum(self.usage, usage);
                let finish_reason = Some(reason_word(reason));
                Ok(self.chunk(Choice { index, text: String::new(), logprobs: None, finish_reason }))
            }
            Event::Failed(error) => Err(error),
        }
    }

    fn closing(&mut self) -> Option<Completion> {
        self.include_usage.then(|| completion(&self.head, Vec::new(), Some(Some(self.usage.into()))))
    }
}
