//! A legacy completion's answer, whole and in chunks (which look alike); must not know the request.

use std::collections::BTreeMap;

use mesh_proto::{Event, FinishReason, GenerateError, Usage};
use serde::Serialize;

use super::{
    super::{Head, gather::Fold, stream::Raise},
    Tally, UsageTold,
    logprobs::{LegacyLogprobs, Offset},
    usage::UsageDto,
    word,
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
    logprobs: Option<LegacyLogprobs>,
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

/// Gathers one answer's events.
#[derive(Debug, Default)]
pub(in super::super) struct CompletionFold {
    text: String,
    logprobs: LegacyLogprobs,
    offset: Offset,
    end: Option<(FinishReason, Usage)>,
}

impl Fold for CompletionFold {
    fn add(&mut self, event: Event) -> Result<(), GenerateError> {
        match event {
            Event::Started { .. } | Event::ToolCall { .. } => {}
            Event::Text { text, logprobs, .. } => {
                self.text.push_str(&text);
                self.logprobs.add(&mut self.offset, logprobs);
            }
            Event::Finished { reason, usage, .. } => self.end = Some((reason, usage)),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }
}

impl CompletionFold {
    /// The whole response, when all events of all answers are in. `echoes`: what each begins with, if anything.
    pub(in super::super) fn finish(
        all: Vec<Self>,
        head: &Head,
        mut tally: Tally,
        echoes: Vec<String>,
        logprobs: bool,
    ) -> Completion {
        let mut echoes = echoes.into_iter();
        let choices = (0..).zip(all).map(|(index, one)| {
            let (reason, usage) = one.end.unwrap_or((FinishReason::Length, Usage::default()));
            tally.finished(index, usage);
            let text = echoes.next().unwrap_or_default() + &one.text;
            let logprobs = logprobs.then_some(one.logprobs);
            Choice { index, text, logprobs, finish_reason: Some(reason_word(reason)) }
        });
        let choices = choices.collect();
        completion(head, choices, Some(Some(tally.usage())))
    }
}

/// Raises the events of one or several answers to chunks.
#[derive(Debug)]
pub(in super::super) struct CompletionChunks {
    head: Head,
    told: UsageTold,
    tally: Tally,
    /// What each answer begins with, if anything.
    echoes: Vec<String>,
    offsets: BTreeMap<u32, Offset>,
}

impl CompletionChunks {
    pub(in super::super) fn new(head: Head, told: UsageTold, tally: Tally, echoes: Vec<String>) -> Self {
        Self { head, told, tally, echoes, offsets: BTreeMap::new() }
    }

    fn chunk(&self, choice: Choice) -> Completion {
        completion(&self.head, vec![choice], self.tally.of_chunk(self.told))
    }
}

impl Raise for CompletionChunks {
    type Chunk = Completion;

    fn opening(&mut self) -> Vec<Completion> {
        let echoes = (0..).zip(std::mem::take(&mut self.echoes));
        echoes.map(|(index, text)| self.chunk(Choice { index, text, logprobs: None, finish_reason: None })).collect()
    }

    fn event(&mut self, index: u32, event: Event) -> Result<Vec<Completion>, GenerateError> {
        self.tally.note(index, &event);
        let choice = match event {
            Event::Started { .. } | Event::ToolCall { .. } => return Ok(Vec::new()),
            Event::Text { text, logprobs, .. } => {
                let logprobs = LegacyLogprobs::of(self.offsets.entry(index).or_default(), logprobs);
                Choice { index, text, logprobs, finish_reason: None }
            }
            Event::Finished { reason, .. } => {
                Choice { index, text: String::new(), logprobs: None, finish_reason: Some(reason_word(reason)) }
            }
            Event::Failed(error) => return Err(error),
        };
        Ok(vec![self.chunk(choice)])
    }

    fn closing(&mut self) -> Option<Completion> {
        let usage = || completion(&self.head, Vec::new(), Some(Some(self.tally.usage())));
        (self.told != UsageTold::Never).then(usage)
    }
}
