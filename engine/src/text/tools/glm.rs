//! GLM 4.5 and later, and who took it up: `<tool_call>name`, then `<arg_key>` and `<arg_value>` for each argument.

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name, tagged},
    literal::quoted,
    offer::Types,
    tagged::value_grammar,
};
use crate::text::{
    grammar::{Writer, either},
    reader::{Reader, Space},
};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";

#[derive(Debug)]
pub(super) struct Glm;

impl Dialect for Glm {
    fn name(&self) -> &'static str {
        "glm"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(KEY)
    }

    fn token(&self) -> Option<&'static str> {
        Some(KEY)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[OPEN, CLOSE, KEY, KEY_END, VALUE, VALUE_END]
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(read(reader, offer))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(writer.until_past(CLOSE, &[KEY, KEY_END, VALUE, VALUE_END]))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let calls: Vec<String> = tools.iter().map(|tool| call_grammar(tool, writer)).collect();
        let call = writer.rule(&either(&calls));
        let more = if many { format!("({} {call})*", writer.text(&format!("\n{OPEN}"))) } else { String::new() };
        Calls { open: OPEN, rest: format!("{call} {more}") }
    }
}

async fn read(reader: &Reader, offer: &Offer) -> Read {
    let mut name = String::new();
    let ends = [KEY, CLOSE, "\n"];
    reader.space().await;
    if reader.peek().await == Some('{') {
        // Other families' form between the same tags, which small models mix up.
        return json::objects(reader, offer, &json::KEYS, CLOSE, false).await;
    }
    let Some(end) = reader.stream(&ends, Space::Dropped, |text| name.push_str(&text)).await else {
        return Read::Nothing;
    };
    let name = name.trim();
    if !is_name(name) || name.len() > json::MOST_NAME {
        return Read::Nothing;
    }
    if end == 2 && !line(reader).await {
        // Where nothing but the line's end follows, the call was cut here.
        reader.space().await;
        return Read::Nothing;
    }
    reader.call(name.to_owned(), None);
    reader.arguments("{");
    let mut first = true;
    while let Some(end) = reader.stream(&[KEY, CLOSE], Space::Dropped, drop).await {
        reader.space().await;
        if end == 1 {
            reader.take(CLOSE.len());
            reader.arguments("}");
            break;
        }
        reader.take(KEY.len());
        let Some((key, _)) = reader.until(&[KEY_END], json::MOST_NAME).await else { break };
        reader.space().await;
        if !reader.eat(VALUE).await {
            continue;
        }
        let comma = if first { "" } else { ", " };
        first = false;
        reader.arguments(format!("{comma}{}: ", quoted(key.trim())));
        if !tagged(reader, offer.types(name, key.trim()), VALUE_END, false).await {
            break;
        }
    }
    Read::Calls
}

/// Whether behind a name's line something follows that belongs to a call.
async fn line(reader: &Reader) -> bool {
    reader.ahead(&[KEY, CLOSE]).await.is_some()
}

fn call_grammar(tool: &Tool, writer: &mut Writer<'_>) -> String {
    let mut call = writer.text(&format!("{}\n", tool.name));
    for (name, schema, required) in tool.properties() {
        let string = tool.types(name) == Types::STRING;
        let open = writer.text(&format!("{KEY}{name}{KEY_END}\n{VALUE}"));
        let value = value_grammar(tool, schema, string, VALUE_END, writer);
        let pair = writer.rule(&format!("{open} {value} \"\\n\""));
        call.push(' ');
        call.push_str(&pair);
        if !required {
            call.push('?');
        }
    }
    let close = writer.text(CLOSE);
    writer.rule(&format!("{call} {close}"))
}
