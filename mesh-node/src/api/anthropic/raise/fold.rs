//! A whole message; must not know the request.

use mesh_proto::{Channel, Event, FinishReason, GenerateError, ToolCallDelta, Usage};

use super::{
    super::{Head, Thinking},
    Block, MessageOut, ending, input,
};
use crate::api::thought;

/// Gathers a conversation's events into one message.
#[derive(Debug, Default)]
pub(in super::super) struct Fold {
    pieces: Vec<Piece>,
    calls: u32,
    end: Option<(FinishReason, Option<String>, Usage)>,
}

#[derive(Debug)]
enum Piece {
    Text(Channel, String),
    Call { id: String, name: String, arguments: String },
}

impl Fold {
    /// Takes the next event; the error of `Failed` is handed back.
    pub(in super::super) fn add(&mut self, event: Event) -> Result<(), GenerateError> {
        match event {
            Event::Started { .. } => {}
            Event::Text { channel, text, .. } => match self.pieces.last_mut() {
                Some(Piece::Text(last, all)) if *last == channel => all.push_str(&text),
                _ => self.pieces.push(Piece::Text(channel, text)),
            },
            Event::ToolCall { delta, .. } => self.call(delta)?,
            Event::Finished { reason, stop, usage } => self.end = Some((reason, stop, usage)),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn call(&mut self, delta: ToolCallDelta) -> Result<(), GenerateError> {
        let ToolCallDelta { index, id, name, arguments } = delta;
        if let (Some(id), true) = (id, index == self.calls) {
            self.calls += 1;
            self.pieces.push(Piece::Call { id, name: name.unwrap_or_default(), arguments });
            return Ok(());
        }
        match self.pieces.last_mut() {
            Some(Piece::Call { arguments: all, .. }) if index + 1 == self.calls => all.push_str(&arguments),
            _ => return Err(out_of_order(index)),
        }
        Ok(())
    }

    /// The message, when all events are in.
    pub(in super::super) fn finish(self, head: &Head) -> MessageOut {
        let (reason, stop, usage) = self.end.unwrap_or((FinishReason::Length, None, Usage::default()));
        let cut = reason == FinishReason::Length;
        let last = self.pieces.len().saturating_sub(1);
        let block = |(at, piece)| match piece {
            Piece::Text(Channel::Content, text) => Some(Block::Text { text }),
            Piece::Text(Channel::Reasoning, text) => match head.thinking {
                Thinking::Hidden => None,
                Thinking::Sealed => Some(Block::Thinking { thinking: String::new(), signature: thought::seal(&text) }),
                Thinking::Shown => Some(Block::Thinking { signature: thought::mark(&text), thinking: text }),
            },
            // Half a call is none.
            Piece::Call { arguments, .. }
                if cut && at == last && serde_json::from_str::<&serde_json::value::RawValue>(&arguments).is_err() =>
            {
                None
            }
            Piece::Call { id, name, arguments } => Some(Block::ToolUse { id, name, input: input(arguments)? }),
        };
        let content = self.pieces.into_iter().enumerate().filter_map(block).collect();
        let mut message = MessageOut::new(head, content, usage.into());
        let (reason, stop) = ending(head, reason, stop, usage);
        (message.stop_reason, message.stop_sequence) = (Some(reason), stop);
        message
    }
}

pub(super) fn out_of_order(index: u32) -> GenerateError {
    GenerateError::Engine(format!("it went on with call {index} out of order"))
}
