//! Calls as Python writes them, `[f(a=1, b="x"), g()]`: LLaMA 3.2 and 4 bare, LFM2 between tags.

use serde_json::Value as Json;

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name},
    literal::{Unescape, escaped, quoted, value},
    offer::Types,
};
use crate::text::{
    grammar::{Writer, either, literal},
    reader::Reader,
};

#[derive(Debug)]
pub(super) struct Pythonic;

impl Dialect for Pythonic {
    fn name(&self) -> &'static str {
        "pythonic"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains("[func_name1(params_name1=params_value1")
    }

    fn opens(&self) -> &'static [&'static str] {
        &["<|python_start|>", "<|python_tag|>"]
    }

    fn bare(&self) -> &'static [&'static str] {
        &["["]
    }

    fn marks(&self) -> &'static [&'static str] {
        &["<|python_start|>", "<|python_end|>", "<|python_tag|>"]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, open: &'static str) -> Reads<'a> {
        Box::pin(calls(reader, offer, "<|python_end|>", open.is_empty()))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(one(writer))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        Calls { open: "", rest: list_grammar(tools, many, writer) }
    }
}

/// Reads a list of calls, and `close` behind it if it is there. `known`: only calls of offered tools are calls.
pub(super) async fn calls(reader: &Reader, offer: &Offer, close: &str, known: bool) -> Read {
    let mut read = Read::Nothing;
    reader.space().await;
    let list = reader.eat("[").await;
    loop {
        reader.space().await;
        let mut name = String::new();
        reader.scan(|c| c.is_alphanumeric() || ['_', '.', '-'].contains(&c), |text| name.push_str(&text)).await;
        let fits = is_name(&name) && name.len() <= json::MOST_NAME && (!known || offer.tool(&name).is_some());
        if !fits || reader.peek().await != Some('(') {
            break;
        }
        reader.take(1);
        reader.call(name.clone(), None);
        read = Read::Calls;
        if !arguments(reader, offer, &name).await {
            return read;
        }
        reader.attempt();
        reader.space().await;
        if !list || !reader.eat(",").await {
            break;
        }
    }
    if list && read == Read::Calls {
        reader.eat("]").await;
        reader.space().await;
    }
    if read == Read::Calls {
        reader.eat(close).await;
    }
    read
}

/// Reads arguments and the bracket behind them; false where they break off.
async fn arguments(reader: &Reader, offer: &Offer, name: &str) -> bool {
    reader.arguments("{");
    let mut first = true;
    loop {
        reader.space().await;
        match reader.peek().await {
            Some(')') => {
                reader.take(1);
                reader.arguments("}");
                return true;
            }
            Some(',') => {
                reader.take(1);
                continue;
            }
            Some(_) => {}
            None => return false,
        }
        let Some((key, which)) = reader.until(&["=", ")"], json::MOST_NAME).await else { return false };
        if which == 1 {
            // Something without a name: there is no argument to give it to.
            reader.arguments("}");
            return true;
        }
        let comma = if first { "" } else { ", " };
        first = false;
        reader.arguments(format!("{comma}{}: ", quoted(key.trim())));
        reader.space().await;
        let types = offer.types(name, key.trim());
        let whole = match reader.peek().await {
            Some(quote @ ('"' | '\'')) => string(reader, quote).await,
            Some(_) => literal_value(reader, types).await,
            None => false,
        };
        if !whole {
            return false;
        }
    }
}

/// Streams a string.
async fn string(reader: &Reader, quote: char) -> bool {
    reader.take(1);
    reader.arguments("\"");
    let mut unescape = Unescape::default();
    let mut begins_escape = false;
    let give = |text: String| {
        let mut out = String::new();
        text.chars().for_each(|c| unescape.push(c, &mut out));
        reader.arguments(escaped(&out));
    };
    let wanted = |c: char| {
        let ends = c == quote && !begins_escape;
        begins_escape = c == '\\' && !begins_escape;
        !ends
    };
    if !reader.scan(wanted, give).await {
        return false;
    }
    let mut out = String::new();
    unescape.finish(&mut out);
    reader.arguments(escaped(&out));
    reader.take(1);
    reader.arguments("\"");
    true
}

/// Reads a value that is no string, whole.
async fn literal_value(reader: &Reader, types: Types) -> bool {
    let mut text = String::new();
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    let wanted = |c: char| {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(' | '{') => depth += 1,
            (None, ')' | ',') if depth == 0 => return false,
            (None, ']' | ')' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        true
    };
    let whole = reader.scan(wanted, |more| text.push_str(&more)).await;
    if whole {
        // What is no literal after all, an expression, is given as the text it is.
        reader.arguments(value(text.trim(), Types { string: types.string, ..Types::ANY }));
    }
    whole
}

/// A list of one call of anything.
pub(super) fn one(writer: &mut Writer<'_>) -> String {
    let string = "/\"([^\"\\\\]|\\\\(?s:.))*\"|'([^'\\\\]|\\\\(?s:.))*'/";
    let inside = writer.recursive(|inside| {
        format!(
            "({string} | /[^\"'()\\[\\]{{}}]+/ | \"(\" {inside} \")\" | \"[\" {inside} \"]\" | \"{{\" {inside} \"}}\")*"
        )
    });
    format!("/\\[\\s*[a-zA-Z0-9_.\\-]+\\(/ {inside} /\\)\\s*\\]/")
}

/// The grammar of a list of calls.
pub(super) fn list_grammar(tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> String {
    let calls: Vec<String> = tools.iter().map(|tool| call_grammar(tool, writer)).collect();
    let call = writer.rule(&either(&calls));
    let more = if many { format!("(\", \" {call})*") } else { String::new() };
    format!("\"[\" {call} {more} \"]\"")
}

/// A call whose arguments are JSON, which is Python but for three words and a second quotation mark.
fn call_grammar(tool: &Tool, writer: &mut Writer<'_>) -> String {
    let arguments: Vec<(String, bool)> = tool
        .properties()
        .map(|(name, schema, required)| {
            let value = argument_grammar(tool, name, schema, writer);
            (writer.rule(&format!("{} {value}", literal(&format!("{name}=")))), required)
        })
        .collect();
    let list = comma_list(&arguments, ", ", writer);
    writer.rule(&format!("{} {list} \")\"", literal(&format!("{}(", tool.name))))
}

fn argument_grammar(tool: &Tool, name: &str, schema: &Json, writer: &mut Writer<'_>) -> String {
    let types = tool.types(name);
    if types == (Types { boolean: true, ..Types::default() }) {
        return "(\"True\" | \"False\")".to_owned();
    }
    let options: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    if types == Types::STRING && !options.is_empty() {
        let options =
            options.iter().flat_map(|text| [quoted(text), format!("'{}'", escaped(text).replace('\'', "\\'"))]);
        return either(&options.map(|option| literal(&option)).collect::<Vec<_>>());
    }
    let bounds = ["pattern", "format", "minLength", "maxLength", "const"];
    if types == Types::STRING && bounds.iter().all(|bound| schema.get(bound).is_none()) {
        return STRING.to_owned();
    }
    writer.json(&tool.property_schema(schema))
}

/// A string on one line.
const STRING: &str = "/\"([^\"\\\\\\n]|\\\\.)*\"|'([^'\\\\\\n]|\\\\.)*'/";

/// Items in their order with commas between; some may be left out.
pub(super) fn comma_list(items: &[(String, bool)], comma: &str, writer: &mut Writer<'_>) -> String {
    let comma = literal(comma);
    // From the last one on: what may follow behind an item, and what may follow where none has come yet.
    let (mut behind, mut start) = ("\"\"".to_owned(), "\"\"".to_owned());
    for (item, required) in items.iter().rev() {
        let (before_behind, before_start) = (behind.clone(), start.clone());
        let here = writer.rule(&format!("{item} {before_behind}"));
        (behind, start) = match required {
            true => (writer.rule(&format!("{comma} {here}")), here),
            false => (
                writer.rule(&format!("{comma} {here} | {before_behind}")),
                writer.rule(&format!("{here} | {before_start}")),
            ),
        };
    }
    start
}
