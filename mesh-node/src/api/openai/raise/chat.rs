//! A chat's answer, whole and in chunks; must not know the request.

use mesh_proto::{Channel, Event, FinishReason, GenerateError, ToolCallDelta, Usage};
use serde::Serialize;

use super::{
    super::{Head, stream::Raise},
    UsageDto, word,
};

/// `chat.completion`.
#[derive(Debug, Serialize)]
pub(in super::super) struct ChatResponse {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: [ChatChoice; 1],
    usage: UsageDto,
}

#[derive(Debug, Serialize)]
struct ChatChoice {
    index: u32,
    message: AnswerMessage,
    logprobs: Option<()>,
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

/// Gathers a chat's events into one answer.
#[derive(Debug, Default)]
pub(in super::super) struct ChatFold {
    content: String,
    reasoning: String,
    calls: Vec<CallDto>,
    end: Option<(FinishReason, Usage)>,
}

impl ChatFold {
    /// Takes the next event; the error of `Failed` is handed back.
    pub(in super::super) fn add(&mut self, event: Event) -> Result<(), GenerateError> {
        match event {
            Event::Started { .. } => {}
            Event::Text { channel: Channel::Content, text, .. } => self.content.push_str(&text),
            Event::Text { channel: Channel::Reasoning, text, .. } => self.reasoning.push_str(&text),
            Event::ToolCall { delta, .. } => self.call(delta)?,
            Event::Finished { reason, usage, .. } => self.end = Some((reason, usage)),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

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

    /// The answer, when all events are in.
    pub(in super::super) fn finish(self, head: &Head) -> ChatResponse {
        let (reason, usage) = self.end.unwrap_or((FinishReason::Length, Usage::default()));
        let reasoning = (!self.reasoning.is_empty()).then_some(self.reasoning);
        ChatResponse {
            id: head.id.clone(),
            object: "chat.completion",
            created: head.created,
            model: head.model.clone(),
            system_fingerprint: head.fingerprint.clone(),
            choices: [ChatChoice {
                index: 0,
                message: AnswerMessage {
                    role: "assistant",
                    // null says that there is none because there are calls; an empty answer is "".
                    content: (!self.content.is_empty() || self.calls.is_empty()).then_some(self.content),
                    refusal: None,
                    reasoning_content: reasoning.clone(),
                    reasoning,
                    tool_calls: self.calls,
                },
                logprobs: None,
                finish_reason: word(reason),
            }],
            usage: usage.into(),
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
    logprobs: Option<()>,
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

/// Raises a chat's events to chunks.
#[derive(Debug)]
pub(in super::super) struct ChatChunks {
    head: Head,
    include_usage: bool,
    usage: Usage,
}

impl ChatChunks {
    pub(in super::super) fn new(head: Head, include_usage: bool) -> Self {
        Self { head, include_usage, usage: Usage::default() }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<UsageDto>) -> ChatChunk {
        ChatChunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk",
            created: self.head.created,
            model: self.head.model.clone(),
            system_fingerprint: self.head.fingerprint.clone(),
            choices,
            usage: self.include_usage.then_some(usage),
        }
    }

    fn delta(&self, delta: Delta) -> ChatChunk {
        self.chunk(vec![ChunkChoice { index: 0, delta, logprobs: None, finish_reason: None }], None)
    }
}

impl Raise for ChatChunks {
    type Chunk = ChatChunk;

    fn opening(&mut self) -> Vec<ChatChunk> {
        vec![self.delta(Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() })]
    }

    fn event(&mut self, _: u32, event: Event) -> Result<Vec<ChatChunk>, GenerateError> {
        let delta = match event {
            Event::Started { .. } => return Ok(Vec::new()),
            Event::Text { channel: Channel::Content, text, .. } => Delta { content: Some(text), ..Delta::default() },
            Event::Text { channel: Channel::Reasoning, text, .. } => {
                Delta { reasoning_content: Some(text.clone()), reasoning: Some(text), ..Delta::default() }
            }
            Event::ToolCall { delta: ToolCallDelta { index, id, name, arguments }, .. } => {
                let kind = id.is_some().then_some("function");
                let call = CallDelta { index, id, kind, function: FunctionDelta { name, arguments } };
                Delta { tool_calls: Some([call]), ..Delta::default() }
            }
            Event::Finished { reason, usage, .. } => {
                self.usage = usage;
                let finish_reason = Some(word(reason));
                let last = ChunkChoice { index: 0, delta: Delta::default(), logprobs: None, finish_reason };
                return Ok(vec![self.chunk(vec![last], None)]);
            }
            Event::Failed(error) => return Err(error),
        };
        Ok(vec![self.delta(delta)])
    }

    fn closing(&mut self) -> Option<ChatChunk> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(self.usage.into())))
    }
}
