//! Cohere's Command R7B and later: a JSON list of `{"tool_call_id", "tool_name", "parameters"}` in an action.

use super::{Calls, Dialect, Offer, Reads, Tool, json};
use crate::text::{
    grammar::{Writer, either, literal},
    reader::Reader,
};

const OPEN: &str = "<|START_ACTION|>";
const CLOSE: &str = "<|END_ACTION|>";

/// Its ids count from 0 in each answer: they are no names for calls in a conversation.
const KEYS: json::Keys = json::Keys { name: &["tool_name", "name"], arguments: &["parameters", "arguments"], id: &[] };

#[derive(Debug)]
pub(super) struct Cohere;

impl Dialect for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn token(&self) -> Option<&'static str> {
        Some(OPEN)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[OPEN, CLOSE]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(async move {
            reader.space().await;
            reader.eat("[").await;
            json::objects(reader, offer, &KEYS, CLOSE, false).await
        })
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let object = writer.json(&serde_json::json!({"type": "object"}));
        Some(format!("/\\s*\\[\\s*/ {object} /\\s*\\]/ {}", writer.text(CLOSE)))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let calls: Vec<String> = tools
            .iter()
            .map(|tool| {
                let head = format!("\", \"tool_name\": {}, \"parameters\": ", super::literal::quoted(&tool.name));
                let parameters = writer.json(&tool.schema());
                writer.rule(&format!(
                    "\"{{\\\"tool_call_id\\\": \\\"\" /[0-9]{{1,3}}/ {} {parameters} \"}}\"",
                    literal(&head)
                ))
            })
            .collect();
        let call = writer.rule(&either(&calls));
        let more = if many { format!("(\",\\n    \" {call})*") } else { String::new() };
        Calls { open: OPEN, rest: format!("\"[\\n    \" {call} {more} {}", writer.text(&format!("\n]{CLOSE}"))) }
    }
}
