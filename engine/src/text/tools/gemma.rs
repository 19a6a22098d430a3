//! Gemma 4: `<|tool_call>call:name{key:<|"|>text<|"|>,n:5}<tool_call|>`, where only strings are quoted, by a mark of their own.

use serde_json::Value as Json;

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name},
    literal::{GEMMA_QUOTE, escaped, quoted, to_json, value},
    offer::Types,
    pythonic::comma_list,
};
use crate::text::{
    grammar::{Writer, either, literal},
    reader::{Reader, Space},
};

const OPEN: &str = "<|tool_call>";
const CLOSE: &str = "<tool_call|>";

/// Deepest object whose schema is followed; below it any value will do (guess).
const MAX_DEPTH: usize = 6;

#[derive(Debug)]
pub(super) struct Gemma;

impl Dialect for Gemma {
    fn name(&self) -> &'static str {
        "gemma"
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
        &[OPEN, CLOSE, GEMMA_QUOTE]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(read(reader, offer))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(writer.until_past(CLOSE, &[GEMMA_QUOTE]))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let any = any_value(writer);
        let calls: Vec<String> = tools
            .iter()
            .map(|tool| {
                let head = literal(&format!("call:{}", tool.name));
                let object = object_grammar(&Json::Object(tool.parameters.clone()), &any, 0, writer);
                writer.rule(&format!("{head} {object} {}", writer.text(CLOSE)))
            })
            .collect();
        let call = writer.rule(&either(&calls));
        let more = if many { format!("({} {call})*", writer.text(OPEN)) } else { String::new() };
        Calls { open: OPEN, rest: format!("{call} {more}") }
    }
}

async fn read(reader: &Reader, offer: &Offer) -> Read {
    reader.space().await;
    reader.eat("call:").await;
    let mut name = String::new();
    if reader.stream(&["{", CLOSE, "\n"], Space::Kept, |text| name.push_str(&text)).await != Some(0) {
        return Read::Nothing;
    }
    let name = name.trim();
    if !is_name(name) || name.len() > json::MOST_NAME {
        return Read::Nothing;
    }
    reader.take(1);
    reader.call(name.to_owned(), None);
    reader.arguments("{");
    let mut first = true;
    loop {
        reader.scan(|c| c.is_whitespace() || c == ',', drop).await;
        if reader.eat("}").await {
            reader.arguments("}");
            break;
        }
        let Some((key, _)) = reader.until(&[":"], json::MOST_NAME).await else { return Read::Calls };
        let key = key.trim().trim_matches('"').to_owned();
        let comma = if first { "" } else { ", " };
        first = false;
        reader.arguments(format!("{comma}{}: ", quoted(&key)));
        reader.space().await;
        let whole = match reader.eat(GEMMA_QUOTE).await {
            true => string(reader).await,
            false => other(reader, offer.types(name, &key)).await,
        };
        if !whole {
            return Read::Calls;
        }
    }
    reader.space().await;
    reader.eat(CLOSE).await;
    Read::Calls
}

/// Streams a string behind its mark.
async fn string(reader: &Reader) -> bool {
    reader.arguments("\"");
    let whole = reader.stream(&[GEMMA_QUOTE], Space::Value, |text| reader.arguments(escaped(&text))).await.is_some();
    if whole {
        reader.take(GEMMA_QUOTE.len());
        reader.arguments("\"");
    }
    whole
}

/// Reads a number, a word, a list or an object, whole.
async fn other(reader: &Reader, types: Types) -> bool {
    let mut text = String::new();
    let mut depth = 0usize;
    loop {
        let wanted = |c: char| match c {
            '<' => false,
            '[' | '{' => {
                depth += 1;
                true
            }
            ',' | '}' if depth == 0 => false,
            ']' | '}' => {
                depth = depth.saturating_sub(1);
                true
            }
            _ => true,
        };
        if !reader.scan(wanted, |more| text.push_str(&more)).await {
            return false;
        }
        if reader.next(&[GEMMA_QUOTE]).await.is_some() {
            // The mark may be a special token, which no text holds: it is written anew.
            reader.take(GEMMA_QUOTE.len());
            text.push_str(GEMMA_QUOTE);
            if reader.stream(&[GEMMA_QUOTE], Space::Kept, |more| text.push_str(&more)).await.is_none() {
                return false;
            }
            reader.take(GEMMA_QUOTE.len());
            text.push_str(GEMMA_QUOTE);
        } else if reader.peek().await == Some('<') && reader.next(&[CLOSE]).await.is_none() {
            text.push_str(&reader.take(1));
        } else {
            break;
        }
    }
    let text = text.trim();
    let json = to_json(text).unwrap_or_else(|| value(text, Types { string: types.string, ..Types::ANY }));
    reader.arguments(json);
    true
}

/// A rule for any value.
fn any_value(writer: &mut Writer<'_>) -> String {
    let string = string_grammar(writer);
    let number = NUMBER;
    let name = writer.rule("/[a-zA-Z_][a-zA-Z0-9_]*/");
    // The rule refers to itself, so its name must be known before it is written.
    writer.recursive(|any| {
        format!(
            "{string} | {number} | \"true\" | \"false\" | \"null\" | \"[\" ({any} (\",\" {any})*)? \"]\" | \
             \"{{\" ({name} \":\" {any} (\",\" {name} \":\" {any})*)? \"}}\""
        )
    })
}

const NUMBER: &str = "/-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?/";

fn string_grammar(writer: &mut Writer<'_>) -> String {
    let open = writer.text(GEMMA_QUOTE);
    let rest = writer.until(GEMMA_QUOTE);
    writer.rule(&format!("{open} {rest}"))
}

fn object_grammar(schema: &Json, any: &str, depth: usize, writer: &mut Writer<'_>) -> String {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let properties = schema["properties"].as_object();
    let items: Vec<(String, bool)> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| {
            let value = value_grammar(schema, any, depth + 1, writer);
            (writer.rule(&format!("{} {value}", literal(&format!("{name}:")))), required(name))
        })
        .collect();
    let list = comma_list(&items, ",", writer);
    writer.rule(&format!("\"{{\" {list} \"}}\""))
}

fn value_grammar(schema: &Json, any: &str, depth: usize, writer: &mut Writer<'_>) -> String {
    let options: Vec<&Json> = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const")).collect();
    if !options.is_empty() {
        let options: Vec<String> = options
            .into_iter()
            .map(|option| match option.as_str() {
                Some(text) => writer.text(&format!("{GEMMA_QUOTE}{text}{GEMMA_QUOTE}")),
                None => literal(&option.to_string()),
            })
            .collect();
        return writer.rule(&either(&options));
    }
    match schema["type"].as_str() {
        Some("string") => string_grammar(writer),
        Some("integer") => "/-?(0|[1-9][0-9]*)/".to_owned(),
        Some("number") => NUMBER.to_owned(),
        Some("boolean") => "(\"true\" | \"false\")".to_owned(),
        Some("null") => "\"null\"".to_owned(),
        Some("array") if depth < MAX_DEPTH => {
            let item = match &schema["items"] {
                items @ Json::Object(_) => value_grammar(items, any, depth + 1, writer),
                _ => any.to_owned(),
            };
            let item = writer.rule(&item);
            writer.rule(&format!("\"[\" ({item} (\",\" {item})*)? \"]\""))
        }
        Some("object") if depth < MAX_DEPTH && schema["properties"].is_object() => {
            object_grammar(schema, any, depth, writer)
        }
        _ => any.to_owned(),
    }
}
