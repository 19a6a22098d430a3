//! LLaMA 3: a bare JSON object, `{"name": …, "parameters": {…}}`, sometimes behind `<|python_tag|>`.

use super::{Calls, Dialect, Offer, Reads, Tool, hermes::object_grammar, json};
use crate::text::{grammar::Writer, reader::Reader};

const TAG: &str = "<|python_tag|>";

#[derive(Debug)]
pub(super) struct LlamaJson;

impl Dialect for LlamaJson {
    fn name(&self) -> &'static str {
        "llama3"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(TAG) || template.contains("\"parameters\": dictionary of argument name")
    }

    fn opens(&self) -> &'static [&'static str] {
        &[TAG]
    }

    fn bare(&self) -> &'static [&'static str] {
        &["{"]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[TAG]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, open: &'static str) -> Reads<'a> {
        // JSON without a tag may be an answer too.
        Box::pin(json::objects(reader, offer, &json::KEYS, "", open.is_empty()))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(writer.json(&serde_json::json!({"type": "object"})))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let call = object_grammar(tools, "name", "parameters", writer);
        let more = if many { format!("(\"; \" {call})*") } else { String::new() };
        Calls { open: "", rest: format!("{call} {more}") }
    }
}
