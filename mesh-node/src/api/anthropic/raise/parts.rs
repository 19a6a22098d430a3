//! A message as it comes: blocks that start, grow and stop; must not know the request.

use mesh_proto::{Channel, Event, GenerateError, ToolCallDelta, Usage};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    super::{Head, Thinking, error::ErrorDto},
    Block, MessageOut, UsageOut, ending,
    fold::out_of_order,
};
use crate::api::{ApiError, named::Raise, thought};

/// One event of the stream.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in super::super) enum Part {
    /// All but errors.
    Known(Known),
    /// It ends here, and not as it should.
    Error(ErrorDto),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in super::super) enum Known {
    MessageStart { message: Box<MessageOut> },
    Ping,
    ContentBlockStart { index: u32, content_block: Block },
    ContentBlockDelta { index: u32, delta: Delta },
    ContentBlockStop { index: u32 },
    MessageDelta { delta: Ending, usage: UsageOut },
    MessageStop,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(in super::super) enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
}

#[derive(Debug, Serialize)]
pub(in super::super) struct Ending {
    stop_reason: &'static str,
    stop_sequence: Option<String>,
}

/// What the last block is, while it grows.
#[derive(Debug)]
enum Open {
    Text,
    /// All that was thought so far: its mark comes last.
    Thinking(String),
    Call(u32),
}

/// Raises a conversation's events to the stream's.
#[derive(Debug)]
pub(in super::super) struct Parts {
    head: Head,
    prompt_tokens: u32,
    open: Option<Open>,
    /// The open block's, or else the next one's.
    index: u32,
    calls: u32,
}

impl Parts {
    pub(in super::super) fn new(head: Head, prompt_tokens: u32) -> Self {
        Self { head, prompt_tokens, open: None, index: 0, calls: 0 }
    }

    fn close(&mut self, out: &mut Vec<Part>) {
        let index = self.index;
        let Some(open) = self.open.take() else { return };
        if let Open::Thinking(all) = open {
            let signature = match self.head.thinking {
                Thinking::Sealed => thought::seal(&all),
                _ => thought::mark(&all),
            };
            out.push(Part::Known(Known::ContentBlockDelta { index, delta: Delta::Signature { signature } }));
        }
        out.push(Part::Known(Known::ContentBlockStop { index }));
        self.index += 1;
    }

    fn start(&mut self, open: Open, content_block: Block, out: &mut Vec<Part>) {
        self.close(out);
        self.open = Some(open);
        out.push(Part::Known(Known::ContentBlockStart { index: self.index, content_block }));
    }

    fn delta(&self, delta: Delta, out: &mut Vec<Part>) {
        out.push(Part::Known(Known::ContentBlockDelta { index: self.index, delta }));
    }

    fn thought(&mut self, text: String, out: &mut Vec<Part>) {
        if self.head.thinking == Thinking::Hidden {
            return;
        }
        if !matches!(self.open, Some(Open::Thinking(_))) {
            let block = Block::Thinking { thinking: String::new(), signature: String::new() };
            self.start(Open::Thinking(String::new()), block, out);
        }
        if let Some(Open::Thinking(all)) = &mut self.open {
            all.push_str(&text);
        }
        if self.head.thinking == Thinking::Shown {
            self.delta(Delta::Thinking { thinking: text }, out);
        }
    }

    fn call(&mut self, delta: ToolCallDelta, out: &mut Vec<Part>) -> Result<(), GenerateError> {
        let ToolCallDelta { index, id, name, arguments } = delta;
        match (id, &self.open) {
            (Some(id), _) if index == self.calls => {
                self.calls += 1;
                let block = Block::ToolUse { id, name: name.unwrap_or_default(), input: nothing() };
                self.start(Open::Call(index), block, out);
            }
            (_, Some(Open::Call(open))) if *open == index => {}
            _ => return Err(out_of_order(index)),
        }
        if !arguments.is_empty() {
            self.delta(Delta::InputJson { partial_json: arguments }, out);
        }
        Ok(())
    }
}

/// A call's input, which comes in deltas.
fn nothing() -> Box<RawValue> {
    RawValue::from_string("{}".into()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Raise for Parts {
    type Chunk = Part;

    fn name(part: &Part) -> &'static str {
        match part {
            Part::Known(Known::MessageStart { .. }) => "message_start",
            Part::Known(Known::Ping) => "ping",
            Part::Known(Known::ContentBlockStart { .. }) => "content_block_start",
            Part::Known(Known::ContentBlockDelta { .. }) => "content_block_delta",
            Part::Known(Known::ContentBlockStop { .. }) => "content_block_stop",
            Part::Known(Known::MessageDelta { .. }) => "message_delta",
            Part::Known(Known::MessageStop) => "message_stop",
            Part::Error(_) => "error",
        }
    }

    fn opening(&mut self) -> Vec<Part> {
        // How much of the prompt is reused is known at the end, and told there.
        let usage = UsageOut {
            output_tokens_details: None,
            ..Usage { prompt_tokens: self.prompt_tokens, ..Usage::default() }.into()
        };
        let message = Box::new(MessageOut::new(&self.head, Vec::new(), usage));
        vec![Part::Known(Known::MessageStart { message }), Part::Known(Known::Ping)]
    }

    fn event(&mut self, event: Event) -> Result<Vec<Part>, GenerateError> {
        let mut out = Vec::new();
        match event {
            Event::Started { .. } => {}
            Event::Text { channel: Channel::Reasoning, text, .. } => self.thought(text, &mut out),
            Event::Text { channel: Channel::Content, text, .. } => {
                if !matches!(self.open, Some(Open::Text)) {
                    self.start(Open::Text, Block::Text { text: String::new() }, &mut out);
                }
                self.delta(Delta::Text { text }, &mut out);
            }
            Event::ToolCall { delta, .. } => self.call(delta, &mut out)?,
            Event::Finished { reason, stop, usage } => {
                self.close(&mut out);
                let (stop_reason, stop_sequence) = ending(&self.head, reason, stop, usage);
                let delta = Ending { stop_reason, stop_sequence };
                out.push(Part::Known(Known::MessageDelta { delta, usage: usage.into() }));
                out.push(Part::Known(Known::MessageStop));
            }
            Event::Failed(error) => return Err(error),
        }
        Ok(out)
    }

    fn failure(&mut self, error: ApiError) -> Part {
        Part::Error(ErrorDto::new(error, &self.head.request))
    }
}
