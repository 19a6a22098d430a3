//! What one request cost, whose answers may be several; must not know chunks.

use std::collections::BTreeMap;

use mesh_proto::{Channel, Event, Usage};
use serde::Serialize;

/// `usage`.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct UsageDto {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

#[derive(Clone, Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u32,
}

impl From<Usage> for UsageDto {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens: usage.reasoning_tokens },
        }
    }
}

/// What chunks say of the cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum UsageTold {
    /// Nothing.
    Never,
    /// The last one says it, and the others null.
    AtTheEnd,
    /// Each says what it has cost so far.
    Always,
}

/// Counts each prompt once, however many answers it has, and all answers.
#[derive(Clone, Debug)]
pub(in super::super) struct Tally {
    /// Answers to each prompt.
    choices: u32,
    prompt_tokens: u32,
    /// Of each prompt, the least that an answer did not compute: another one may reuse what this very request computed.
    cached: BTreeMap<u32, u32>,
    /// Of each answer, tokens so far, and how many of them are reasoning.
    spent: BTreeMap<u32, (u32, u32)>,
}

impl Tally {
    pub(in super::super) fn new(choices: u32, prompt_tokens: u32) -> Self {
        Self { choices: choices.max(1), prompt_tokens, cached: BTreeMap::new(), spent: BTreeMap::new() }
    }

    /// What an event of an answer says of its cost.
    pub(super) fn note(&mut self, choice: u32, event: &Event) {
        let spent = self.spent.entry(choice).or_default();
        match event {
            Event::Text { channel, tokens, .. } => {
                let tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                spent.0 = spent.0.saturating_add(tokens);
                if *channel == Channel::Reasoning {
                    spent.1 = spent.1.saturating_add(tokens);
                }
            }
            Event::ToolCall { tokens, .. } => {
                spent.0 = spent.0.saturating_add(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
            }
            Event::Finished { usage, .. } => self.finished(choice, *usage),
            Event::Started { .. } | Event::Failed(_) => {}
        }
    }

    /// What an answer cost in the end.
    pub(super) fn finished(&mut self, choice: u32, usage: Usage) {
        self.spent.insert(choice, (usage.completion_tokens, usage.reasoning_tokens));
        let cached = self.cached.entry(choice / self.choices).or_insert(usage.cached_tokens);
        *cached = usage.cached_tokens.min(*cached);
    }

    /// All of it, so far.
    pub(super) fn usage(&self) -> UsageDto {
        let sum = |of: fn(&(u32, u32)) -> u32| self.spent.values().map(of).fold(0, u32::saturating_add);
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached.values().copied().fold(0, u32::saturating_add),
            completion_tokens: sum(|spent| spent.0),
            reasoning_tokens: sum(|spent| spent.1),
        };
        usage.into()
    }

    /// The `usage` of a chunk that is not the last.
    pub(super) fn of_chunk(&self, told: UsageTold) -> Option<Option<UsageDto>> {
        match told {
            UsageTold::Never => None,
            UsageTold::AtTheEnd => Some(None),
            UsageTold::Always => Some(Some(self.usage())),
        }
    }
}
