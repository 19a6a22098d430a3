//! A response as it is written, item by item, and what is told of each step; must not know the request.

use mesh_proto::{Channel, Event, FinishReason, GenerateError, TokenLogprob, ToolCallDelta};
use serde::{Deserialize, Serialize};

use super::{
    Echo, Head, Names,
    object::{ErrorOut, Incomplete, ItemOut, LogprobOut, PartOut, ResponseOut},
};
use crate::api::{ApiError, thought};

/// One event of the stream.
#[derive(Debug, Serialize)]
pub(in super::super) struct Told {
    #[serde(rename = "type")]
    name: &'static str,
    sequence_number: u64,
    #[serde(flatten)]
    body: Body,
}

impl Told {
    /// What the `event:` line says.
    pub(in super::super) fn name(&self) -> &'static str {
        self.name
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body {
    Response { response: Box<ResponseOut> },
    Item { output_index: usize, item: ItemOut },
    Part { item_id: String, output_index: usize, content_index: usize, part: PartOut },
    Delta { item_id: String, output_index: usize, content_index: usize, delta: String },
    TextDelta { item_id: String, output_index: usize, content_index: usize, delta: String, logprobs: Vec<LogprobOut> },
    Thought { item_id: String, output_index: usize, content_index: usize, text: String },
    Text { item_id: String, output_index: usize, content_index: usize, text: String, logprobs: Vec<LogprobOut> },
    CallDelta { item_id: String, output_index: usize, delta: String },
    Arguments { item_id: String, output_index: usize, name: String, arguments: String },
    Input { item_id: String, output_index: usize, input: String },
}

/// The item that grows: always the last of the output.
#[derive(Debug)]
enum Open {
    Text { text: String, logprobs: Vec<LogprobOut> },
    Thought(String),
    Call { index: u32, arguments: String },
}

/// Where a part's events say that it is: every item has one part.
const PART: usize = 0;

/// Writes one response.
#[derive(Debug)]
pub(in super::super) struct Writer {
    head: Head,
    names: Names,
    seals: bool,
    response: ResponseOut,
    open: Option<Open>,
    calls: u32,
    told: u64,
}

impl Writer {
    /// `names`: what the model's functions are to the client; `seals`: reasoning is told in a form for sending back, too.
    pub(in super::super) fn new(head: Head, echo: Echo, names: Names, seals: bool) -> Self {
        let response = ResponseOut::new(&head, echo);
        Self { head, names, seals, response, open: None, calls: 0, told: 0 }
    }

    /// As it is now.
    pub(in super::super) fn response(&self) -> ResponseOut {
        self.response.clone()
    }

    /// Whether it has ended as it should.
    pub(in super::super) fn is_whole(&self) -> bool {
        matches!(self.response.status, "completed" | "incomplete")
    }

    /// What is told before the first event.
    pub(in super::super) fn opening(&mut self) -> Vec<Told> {
        let mut out = Vec::new();
        for name in ["response.created", "response.in_progress"] {
            let response = Box::new(self.response.clone());
            self.tell(name, Body::Response { response }, &mut out);
        }
        out
    }

    /// What an event says; the error of `Failed` is handed back.
    pub(in super::super) fn event(&mut self, event: Event) -> Result<Vec<Told>, GenerateError> {
        let mut out = Vec::new();
        match event {
            Event::Started { .. } => {}
            Event::Text { channel: Channel::Content, text, logprobs, .. } => self.text(text, logprobs, &mut out),
            Event::Text { channel: Channel::Reasoning, text, .. } => self.thought(text, &mut out),
            Event::ToolCall { delta, .. } => self.call(delta, &mut out)?,
            Event::Finished { reason, usage, .. } => {
                let cut = reason == FinishReason::Length;
                if self.response.output.is_empty() {
                    self.open_text(&mut out);
                }
                self.close(cut, &mut out);
                self.response.usage = Some(usage.into());
                let (status, name) =
                    if cut { ("incomplete", "response.incomplete") } else { ("completed", "response.completed") };
                self.response.status = status;
                self.response.incomplete_details = cut.then_some(Incomplete { reason: "max_output_tokens" });
                let response = Box::new(self.response.clone());
                self.tell(name, Body::Response { response }, &mut out);
            }
            Event::Failed(error) => return Err(error),
        }
        Ok(out)
    }

    /// The end, as it should not be. Items that were not finished stay in progress.
    pub(in super::super) fn failure(&mut self, error: ApiError) -> Told {
        let code = match error.status.as_u16() {
            429 => "rate_limit_exceeded",
            400 => "invalid_prompt",
            _ => "server_error",
        };
        self.response.status = "failed";
        self.response.error = Some(ErrorOut { code, message: error.body.message });
        let response = Box::new(self.response.clone());
        Told { name: "response.failed", sequence_number: self.told, body: Body::Response { response } }
    }

    fn tell(&mut self, name: &'static str, body: Body, out: &mut Vec<Told>) {
        out.push(Told { name, sequence_number: self.told, body });
        self.told += 1;
    }

    /// The open item's index and id.
    fn place(&self) -> (usize, String) {
        let id = self.response.output.last().map_or_else(String::new, |item| item.id().to_owned());
        (self.response.output.len().saturating_sub(1), id)
    }

    fn new_id(&self, prefix: &str) -> String {
        format!("{prefix}_{}{:02}", self.head.number, self.response.output.len())
    }

    fn start(&mut self, open: Open, item: ItemOut, out: &mut Vec<Told>) {
        self.close(false, out);
        self.open = Some(open);
        self.response.output.push(item.clone());
        let output_index = self.response.output.len() - 1;
        self.tell("response.output_item.added", Body::Item { output_index, item }, out);
    }

    fn part(&mut self, name: &'static str, part: PartOut, out: &mut Vec<Told>) {
        let (output_index, item_id) = self.place();
        self.tell(name, Body::Part { item_id, output_index, content_index: PART, part }, out);
    }

    fn open_text(&mut self, out: &mut Vec<Told>) {
        let id = self.new_id("msg");
        let item = ItemOut::Message { id, status: "in_progress", role: "assistant", content: Vec::new() };
        self.start(Open::Text { text: String::new(), logprobs: Vec::new() }, item, out);
        self.part("response.content_part.added", PartOut::text(String::new(), Vec::new()), out);
    }

    fn text(&mut self, delta: String, told: Vec<TokenLogprob>, out: &mut Vec<Told>) {
        if !matches!(self.open, Some(Open::Text { .. })) {
            self.open_text(out);
        }
        let new: Vec<LogprobOut> = told.into_iter().map(LogprobOut::from).collect();
        if let Some(Open::Text { text, logprobs }) = &mut self.open {
            text.push_str(&delta);
            logprobs.extend(new.iter().cloned());
        }
        let (output_index, item_id) = self.place();
        let body = Body::TextDelta { item_id, output_index, content_index: PART, delta, logprobs: new };
        self.tell("response.output_text.delta", body, out);
    }

    fn thought(&mut self, delta: String, out: &mut Vec<Told>) {
        if !matches!(self.open, Some(Open::Thought(_))) {
            let (id, status) = (self.new_id("rs"), "in_progress");
            let item = ItemOut::Reasoning { id, status, summary: [], content: Vec::new(), encrypted_content: None };
            self.start(Open::Thought(String::new()), item, out);
            self.part("response.content_part.added", PartOut::ReasoningText { text: String::new() }, out);
        }
        if let Some(Open::Thought(text)) = &mut self.open {
            text.push_str(&delta);
        }
        let (output_index, item_id) = self.place();
        let body = Body::Delta { item_id, output_index, content_index: PART, delta };
        self.tell("response.reasoning_text.delta", body, out);
    }

    fn call(&mut self, delta: ToolCallDelta, out: &mut Vec<Told>) -> Result<(), GenerateError> {
        let ToolCallDelta { index, id, name, arguments: more } = delta;
        match (id, &self.open) {
            (Some(call_id), _) if index == self.calls => {
                self.calls += 1;
                let item = self.call_item(call_id, name.unwrap_or_default());
                self.start(Open::Call { index, arguments: String::new() }, item, out);
            }
            (_, Some(Open::Call { index: open, .. })) if *open == index => {}
            _ => return Err(GenerateError::Engine(format!("it went on with call {index} out of order"))),
        }
        if let Some(Open::Call { arguments, .. }) = &mut self.open {
            arguments.push_str(&more);
        }
        // A text that is still within its JSON says nothing yet.
        let is_function = matches!(self.response.output.last(), Some(ItemOut::FunctionCall { .. }));
        if is_function && !more.is_empty() {
            let (output_index, item_id) = self.place();
            let body = Body::CallDelta { item_id, output_index, delta: more };
            self.tell("response.function_call_arguments.delta", body, out);
        }
        Ok(())
    }

    fn call_item(&self, call_id: String, name: String) -> ItemOut {
        let status = "in_progress";
        match self.names.get(&name) {
            Some(known) if known.is_custom => ItemOut::CustomToolCall {
                id: self.new_id("ctc"),
                status,
                call_id,
                namespace: known.namespace.clone(),
                name: known.name.clone(),
                input: String::new(),
            },
            known => ItemOut::FunctionCall {
                id: self.new_id("fc"),
                status,
                call_id,
                namespace: known.and_then(|known| known.namespace.clone()),
                name: known.map_or(name, |known| known.name.clone()),
                arguments: String::new(),
            },
        }
    }

    /// Ends the open item. `cut`: not as it should.
    fn close(&mut self, cut: bool, out: &mut Vec<Told>) {
        let Some(open) = self.open.take() else { return };
        let (output_index, item_id) = self.place();
        let content_index = PART;
        match open {
            Open::Text { text, logprobs } => {
                let part = PartOut::text(text.clone(), logprobs.clone());
                let done = Body::Text { item_id, output_index, content_index, text, logprobs };
                self.tell("response.output_text.done", done, out);
                self.part("response.content_part.done", part.clone(), out);
                if let Some(ItemOut::Message { content, .. }) = self.response.output.last_mut() {
                    content.push(part);
                }
            }
            Open::Thought(text) => {
                let (part, sealed) = (PartOut::ReasoningText { text: text.clone() }, thought::seal(&text));
                let done = Body::Thought { item_id, output_index, content_index, text };
                self.tell("response.reasoning_text.done", done, out);
                self.part("response.content_part.done", part.clone(), out);
                if let Some(ItemOut::Reasoning { content, encrypted_content, .. }) = self.response.output.last_mut() {
                    content.push(part);
                    *encrypted_content = self.seals.then_some(sealed);
                }
            }
            Open::Call { arguments, .. } => self.close_call(arguments, out),
        }
        let Some(item) = self.response.output.last_mut() else { return };
        *item.status() = if cut { "incomplete" } else { "completed" };
        let item = item.clone();
        self.tell("response.output_item.done", Body::Item { output_index, item }, out);
    }

    fn close_call(&mut self, told: String, out: &mut Vec<Told>) {
        let (output_index, item_id) = self.place();
        match self.response.output.last_mut() {
            Some(ItemOut::FunctionCall { name, arguments, .. }) => {
                *arguments = told;
                let (name, arguments) = (name.clone(), arguments.clone());
                let body = Body::Arguments { item_id, output_index, name, arguments };
                self.tell("response.function_call_arguments.done", body, out);
            }
            Some(ItemOut::CustomToolCall { input, .. }) => {
                *input = text_of(told);
                let input = input.clone();
                let (delta, id) = (input.clone(), item_id.clone());
                let body = Body::CallDelta { item_id: id, output_index, delta };
                self.tell("response.custom_tool_call_input.delta", body, out);
                self.tell("response.custom_tool_call_input.done", Body::Input { item_id, output_index, input }, out);
            }
            _ => {}
        }
    }
}

/// The text that a custom tool was called with; whatever else the model wrote is handed on as it is.
fn text_of(arguments: String) -> String {
    #[derive(Deserialize)]
    struct Input {
        input: String,
    }
    serde_json::from_str::<Input>(&arguments).map_or(arguments, |Input { input }| input)
}
