//! IBM's Granite 3, and Phi-4-mini: a JSON list of calls behind `<|tool_call|>`.

use super::{Calls, Dialect, Offer, Reads, Tool, hermes::object_grammar, json};
use crate::text::{grammar::Writer, reader::Reader};

const OPEN: &str = "<|tool_call|>";
const CLOSE: &str = "<|/tool_call|>";

#[derive(Debug)]
pub(super) struct Granite;

impl Dialect for Granite {
    fn name(&self) -> &'static str {
        "granite"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(OPEN)
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
            json::objects(reader, offer, &json::KEYS, CLOSE, false).await
        })
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let object = writer.json(&serde_json::json!({"type": "object"}));
        Some(format!("/\\s*\\[\\s*/ {object} /\\s*\\]/"))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let call = object_grammar(tools, "name", "arguments", writer);
        let more = if many { format!("(\", \" {call})*") } else { String::new() };
        Calls { open: OPEN, rest: format!("\"[\" {call} {more} \"]\"") }
    }
}
