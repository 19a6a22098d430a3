//! gpt-oss's harmony: an answer is a row of messages on channels, and calls are messages to `functions.name`.

use std::sync::Arc;

use mesh_proto::Channel;

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name},
    literal::escaped,
};
use crate::text::{
    grammar::{Writer, either},
    reader::{Reader, Space},
};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";

/// What ends a message; the two last end the answer.
const ENDS: [&str; 4] = [END, START, CALL, RETURN];

/// What a header starts with, where the model writes one.
const HEADS: [&str; 4] = [CHANNEL, START, CONSTRAIN, " to="];

/// Longest header, in bytes (guess: a name and four marks).
const MOST_HEADER: usize = 1024;

/// What opens the reasoning.
pub(crate) const REASONING_OPEN: &str = "<|channel|>analysis<|message|>";
/// What closes it, and opens the answer itself.
pub(crate) const REASONING_CLOSE: &str = "<|end|><|start|>assistant<|channel|>final<|message|>";

/// Where in the grammar of an answer the first message's header stands: behind the prompt's `<|start|>assistant`.
const FINAL: &str = "<|channel|>final<|message|>";

#[derive(Debug)]
pub(crate) struct Harmony;

impl Harmony {
    /// Whether a template is laid out in channels.
    pub(crate) fn lays_out(template: &str) -> bool {
        template.contains(CHANNEL) && template.contains(MESSAGE)
    }

    /// All its markup.
    pub(crate) const MARKS: &'static [&'static str] = &[START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN];

    /// The grammar of an answer that reasons freely first and then is one of `bodies`: with `content`, a final message
    /// of that form.
    pub(crate) fn grammar_of_answer(calls: Option<&str>, content: Option<&str>, writer: &mut Writer<'_>) -> String {
        let reasoning = format!("{} {}", writer.text(REASONING_OPEN), writer.until(&format!("{END}{START}assistant")));
        let content = content.map(|content| format!("{} {content}", writer.text(FINAL)));
        let bodies: Vec<String> = calls.map(str::to_owned).into_iter().chain(content).collect();
        format!("({reasoning})* {}", either(&bodies))
    }
}

impl Dialect for Harmony {
    fn name(&self) -> &'static str {
        "harmony"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        Self::lays_out(template)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[]
    }

    fn marks(&self) -> &'static [&'static str] {
        Self::MARKS
    }

    fn read<'a>(&'a self, _: &'a Reader, _: &'a Offer, _: &'static str) -> Reads<'a> {
        // Calls are messages: `read` below sees them.
        Box::pin(async { Read::Nothing })
    }

    fn one(&self, _: &mut Writer<'_>) -> Option<String> {
        None
    }

    fn grammar(&self, tools: &[&Tool], _: bool, writer: &mut Writer<'_>) -> Calls {
        // One call ends an answer: the token behind it does.
        let calls: Vec<String> = tools
            .iter()
            .map(|tool| {
                let after = format!("{CHANNEL}commentary to=functions.{} {CONSTRAIN}json{MESSAGE}", tool.name);
                let before = format!(" to=functions.{}{CHANNEL}commentary {CONSTRAIN}json{MESSAGE}", tool.name);
                let heads = [writer.text(&after), writer.text(&before)];
                let arguments = writer.json(&tool.schema());
                writer.rule(&format!("{} {arguments}", either(&heads)))
            })
            .collect();
        Calls { open: "", rest: writer.rule(&either(&calls)) }
    }
}

/// Reads an answer behind `<|start|>assistant`.
pub(crate) async fn read(reader: Reader, offer: Option<Arc<Offer>>) {
    loop {
        if reader.next(&HEADS).await.is_none() {
            // No header: a text is content.
            if reader.is_over().await {
                return;
            }
            body(&reader, Channel::Content).await;
            continue;
        }
        let Some(header) = reader.raw_until(MESSAGE, MOST_HEADER).await else {
            if reader.holds_more_than(MOST_HEADER + MESSAGE.len()) {
                // None after all.
                body(&reader, Channel::Content).await;
                continue;
            }
            // A header cut short.
            return reader.take_all();
        };
        let channel = header.split(CHANNEL).nth(1).unwrap_or_default().trim_start();
        let recipient = header.split("to=").nth(1).map(|to| to.split(|c: char| c.is_whitespace() || c == '<').next());
        match recipient.flatten().map(|to| to.strip_prefix("functions.").unwrap_or(to)) {
            Some(name) if offer.is_some() && is_name(name) && name != "assistant" => call(&reader, name).await,
            _ if channel.starts_with("analysis") => {
                reader.set_reasoning(true);
                body(&reader, Channel::Reasoning).await;
                reader.set_reasoning(false);
            }
            _ => body(&reader, Channel::Content).await,
        }
    }
}

/// Reads a message's text, and what ends it if that is not the next one's start.
async fn body(reader: &Reader, channel: Channel) {
    let end = reader.stream(&ENDS, Space::Kept, |text| reader.text(channel, text)).await;
    skip_end(reader, end);
}

fn skip_end(reader: &Reader, end: Option<usize>) {
    if let Some(end) = end.filter(|end| *end != 1).and_then(|end| ENDS.get(end)) {
        reader.take(end.len());
    }
}

async fn call(reader: &Reader, name: &str) {
    reader.call(name.to_owned(), None);
    reader.space().await;
    if reader.next(&ENDS).await.is_some() || reader.peek().await == Some('{') {
        json::arguments(reader, "").await;
        let end = reader.stream(&ENDS, Space::Dropped, drop).await;
        reader.space().await;
        return skip_end(reader, end);
    }
    if reader.is_over().await {
        return;
    }
    // Built-in tools take text that is no JSON: it is given as a string.
    reader.arguments("\"");
    let end = reader.stream(&ENDS, Space::Value, |text| reader.arguments(escaped(&text))).await;
    if end.is_some() {
        reader.arguments("\"");
    }
    skip_end(reader, end);
}
