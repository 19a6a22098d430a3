//! Mistral: `[TOOL_CALLS]` and a JSON list of calls, or since the eleventh tokenizer `[TOOL_CALLS]name[ARGS]{…}` for each.

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    hermes::object_grammar,
    ids::new_short_id,
    json::{self, is_name},
};
use crate::text::{
    grammar::{Writer, either},
    reader::{Reader, Space},
};

const OPEN: &str = "[TOOL_CALLS]";
const ID: &str = "[CALL_ID]";
const ARGUMENTS: &str = "[ARGS]";

#[derive(Debug)]
pub(super) struct MistralList;

#[derive(Debug)]
pub(super) struct MistralNamed;

impl Dialect for MistralList {
    fn name(&self) -> &'static str {
        "mistral"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[OPEN, ID, ARGUMENTS]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(read(reader, offer))
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

    fn ids(&self) -> fn() -> String {
        new_short_id
    }
}

impl Dialect for MistralNamed {
    fn name(&self) -> &'static str {
        "mistral-args"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(OPEN) && template.contains(ARGUMENTS)
    }

    fn token(&self) -> Option<&'static str> {
        Some(ARGUMENTS)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[OPEN, ID, ARGUMENTS]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(read(reader, offer))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let object = writer.json(&serde_json::json!({"type": "object"}));
        let tag = writer.text(ARGUMENTS);
        Some(format!("/[^\\[\\{{]+/ ({} /[a-zA-Z0-9]{{9}}/)? {tag} {object}", writer.text(ID)))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let id = format!("({} /[a-zA-Z0-9]{{9}}/)?", writer.text(ID));
        let calls = tools.iter().map(|tool| {
            let arguments = writer.json(&tool.schema());
            let (name, tag) = (writer.text(&tool.name), writer.text(ARGUMENTS));
            writer.rule(&format!("{name} {id} {tag} {arguments}"))
        });
        let calls: Vec<String> = calls.collect();
        let call = writer.rule(&either(&calls));
        let more = if many { format!("({} {call})*", writer.text(OPEN)) } else { String::new() };
        Calls { open: OPEN, rest: format!("{call} {more}") }
    }

    fn ids(&self) -> fn() -> String {
        new_short_id
    }
}

/// Both forms can be told apart, and models trained on one sometimes write the other.
async fn read(reader: &Reader, offer: &Offer) -> Read {
    reader.space().await;
    if reader.eat("[").await {
        return json::objects(reader, offer, &json::KEYS, "", false).await;
    }
    if reader.peek().await == Some('{') {
        return json::objects(reader, offer, &json::KEYS, "", false).await;
    }
    let mut name = String::new();
    // The marks are special tokens in some vocabularies and left out by others: a brace will do.
    let ends = [ID, ARGUMENTS, "{", "\n"];
    let end = reader.stream(&ends, Space::Kept, |text| name.push_str(&text)).await;
    let name = name.trim().to_owned();
    if !is_name(&name) || name.len() > json::MOST_NAME || end.is_none_or(|end| end == 3) {
        return Read::Nothing;
    }
    let mut id = None;
    if reader.eat(ID).await {
        let Some((text, _)) = reader.until(&[ARGUMENTS], json::MOST_NAME).await else { return Read::Nothing };
        id = Some(text.trim().to_owned()).filter(|id| !id.is_empty());
    } else {
        reader.eat(ARGUMENTS).await;
    }
    reader.call(name, id);
    json::arguments(reader, OPEN).await;
    Read::Calls
}
