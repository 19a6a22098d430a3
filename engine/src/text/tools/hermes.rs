//! Hermes and Qwen: a JSON object between two tags, `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

use super::{Calls, Dialect, Offer, Reads, Tool, json};
use crate::text::{
    grammar::{Writer, either, literal},
    reader::Reader,
};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

#[derive(Debug)]
pub(super) struct Hermes;

impl Dialect for Hermes {
    fn name(&self) -> &'static str {
        "hermes"
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
        Box::pin(json::objects(reader, offer, &json::KEYS, CLOSE, false))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(writer.until(CLOSE))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let call = object_grammar(tools, "name", "arguments", writer);
        let one = format!("{} {call} {}", writer.text("\n"), writer.text(&format!("\n{CLOSE}")));
        let again = writer.text(&format!("\n{OPEN}"));
        Calls { open: OPEN, rest: if many { format!("{one} ({again} {one})*") } else { one } }
    }
}

/// A call of one of `tools` as a JSON object with these keys.
pub(super) fn object_grammar(tools: &[&Tool], name: &str, arguments: &str, writer: &mut Writer<'_>) -> String {
    let calls: Vec<String> = tools
        .iter()
        .map(|tool| {
            let head = format!("{{\"{name}\": {}, \"{arguments}\": ", super::literal::quoted(&tool.name));
            let arguments = writer.json(&tool.schema());
            writer.rule(&format!("{} {arguments} \"}}\"", literal(&head)))
        })
        .collect();
    writer.rule(&either(&calls))
}
