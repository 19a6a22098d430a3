//! A chat's answer, whole and in chunks; must not know the request.

use mesh_proto::{Channel, Event, FinishReason, GenerateError, ToolCallDelta, Usage};
use serde::Serialize;

use super::{
    super::{Head, gather::Fold, stream::Raise},
    Tally, UsageTold,
    logprobs::ChatLogprobs,
    usage::UsageDto,
    word,
};

/// `chat.completion`.
#[derive(Debug, Serialize)]
pub(in super::super) struct ChatResponse {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<ChatChoice>,
    usage: UsageDto,
}

#[derive(Debug, Serialize)]
struct ChatChoice {
    index: u32,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct AnswerMessage {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    /// Two names, since half of the clients read each.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDto>,
}

#[derive(Debug, Serialize)]
struct CallDto {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionDto,
}

#[derive(Debug, Default, Serialize)]
struct FunctionDto {
    name: String,
    arguments: String,
}

/// Gathers the events of one of a chat's answers.
#[derive(Debug, Default)]
pub(in super::super) struct ChatFold {
    content: String,
    reasoning: String,
    calls: Vec<CallDto>,
    logprobs: ChatLogprobs,
    end: Option<(FinishReason, Usage)>,
}

impl Fold for ChatFold {
    fn add(&mut self, event: Event) -> Result<(), GenerateError> {
        match event {
            Event::Started { .. } => {}
            Event::Text { channel: Channel::Content, text, logprobs, .. } => {
                self.content.push_str(&text);
                self.logprobs.add(logprobs);
            }
            Event::Text { channel: Channel::Reasoning, text, .. } => self.reasoning.push_str(&text),
            Event::ToolCall { delta, .. } => self.call(delta)?,
            Event::Finished { reason, usage, .. } => self.end = Some((reason, usage)),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }
}

impl ChatFold {
    fn call(&mut self, delta: ToolCallDelta) -> Result<(), GenerateError> {
        let index = delta.index as usize;
        if index == self.calls.len() {
            self.calls.push(CallDto { id: String::new(), kind: "function", function: FunctionDto::default() });
        }
        let Some(call) = self.calls.get_mut(index) else {
            return Err(GenerateError::Engine(format!("it called tool {index} before the one before that")));
        };
        if let Some(id) = delta.id {
            call.id = id;
        }
        call.function.name.push_str(delta.name.as_deref().unwrap_or_default());
        call.function.arguments.push_str(&delta.arguments);
        Ok(())
    }

    /// The whole response, when all events of all answers are in.
    pub(in super::super) fn finish(all: Vec<Self>, head: &Head, mut tally: Tally, logprobs: bool) -> ChatResponse {
        let choices = (0..).zip(all).map(|(index, one)| {
            let (reason, usage) = one.end.unwrap_or((FinishReason::Length, Usage::default()));
            tally.finished(index, usage);
            one.choice(index, reason, logprobs)
        });
        ChatResponse {
            id: head.id.clone(),
            object: "chat.completion",
            created: head.created,
            model: head.model.clone(),
            system_fingerprint: head.fingerprint.clone(),
            choices: choices.collect(),
            usage: tally.usage(),
        }
    }

    fn choice(self, index: u32, reason: FinishReason, logprobs: bool) -> ChatChoice {
        let reasoning = (!self.reasoning.is_empty()).then_some(self.reasoning);
        ChatChoice {
            index,
            message: AnswerMessage {
                role: "assistant",
                // null says that there is none because there are calls; an empty answer is "".
                content: (!self.content.is_empty() || self.calls.is_empty()).then_some(self.content),
                refusal: None,
                reasoning_content: reasoning.clone(),
                reasoning,
                tool_calls: self.calls,
            },
            logprobs: logprobs.then_some(self.logprobs),
            finish_reason: word(reason),
        }
    }
}

/// `chat.completion.chunk`.
#[derive(Debug, Serialize)]
pub(in super::super) struct ChatChunk {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<ChunkChoice>,
    /// Absent unless asked for; null in all chunks but the last if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageDto>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta; 1]>,
}

#[derive(Debug, Serialize)]
struct CallDelta {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Raises the events of a chat's answers to chunks.
#[derive(Debug)]
pub(in super::super) struct ChatChunks {
    head: Head,
    told: UsageTold,
    tally: Tally,
    answers: u32,
}

impl ChatChunks {
    pub(in super::super) fn new(head: Head, told: UsageTold, tally: Tally, answers: usize) -> Self {
        Self { head, told, tally, answers: u32::try_from(answers).unwrap_or(u32::MAX) }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Option<UsageDto>>) -> ChatChunk {
        ChatChunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk",
            created: self.head.created,
            model: self.head.model.clone(),
            system_fingerprint: self.head.fingerprint.clone(),
            choices,
            usage,
        }
    }

    fn delta(&self, index: u32, delta: Delta, logprobs: Option<ChatLogprobs>) -> ChatChunk {
        let choice = ChunkChoice { index, delta, logprobs, finish_reason: None };
        self.chunk(vec![choice], self.tally.of_chunk(self.told))
    }
}

impl Raise for ChatChunks {
    type Chunk = ChatChunk;

    fn opening(&mut self) -> Vec<ChatChunk> {
        let role = || Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        (0..self.answers).map(|index| self.delta(index, role(), None)).collect()
    }

    fn event(&mut self, choice: u32, event: Event) -> Result<Vec<ChatChunk>, GenerateError> {
        self.tally.note(choice, &event);
        let (delta, logprobs) = match event {
            Event::Started { .. } => return Ok(Vec::new()),
            Event::Text { channel: Channel::Content, text, logprobs, .. } => {
                (Delta { content: Some(text), ..Delta::default() }, ChatLogprobs::of(logprobs))
            }
            Event::Text { channel: Channel::Reasoning, text, .. } => {
                (Delta { reasoning_content: Some(text.clone()), reasoning: Some(text), ..Delta::default() }, None)
            }
            Event::ToolCall { delta: ToolCallDelta { index, id, name, arguments }, .. } => {
                let kind = id.is_some().then_some("function");
                let call = CallDelta { index, id, kind, function: FunctionDelta { name, arguments } };
                (Delta { tool_calls: Some([call]), ..Delta::default() }, None)
            }
            Event::Finished { reason, .. } => {
                let finish_reason = Some(word(reason));
                let last = ChunkChoice { index: choice, delta: Delta::default(), logprobs: None, finish_reason };
                return Ok(vec![self.chunk(vec![last], self.tally.of_chunk(self.told))]);
            }
            Event::Failed(error) => return Err(error),
        };
        Ok(vec![self.delta(choice, delta, logprobs)])
    }

    fn closing(&mut self) -> Option<ChatChunk> {
        (self.told != UsageTold::Never).then(|| self.chunk(Vec::new(), Some(Some(self.tally.usage()))))
    }
}
