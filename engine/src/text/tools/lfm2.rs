//! Liquid's LFM2: a Python list of calls between two tags, `<|tool_call_start|>[f(a="x")]<|tool_call_end|>`.

use super::{Calls, Dialect, Offer, Reads, Tool, json, pythonic};
use crate::text::{grammar::Writer, reader::Reader};

const OPEN: &str = "<|tool_call_start|>";
const CLOSE: &str = "<|tool_call_end|>";

#[derive(Debug)]
pub(super) struct Lfm2;

impl Dialect for Lfm2 {
    fn name(&self) -> &'static str {
        "lfm2"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        // Its templates show the tools, and not how they are called.
        [OPEN, "<|tool_list_start|>", "List of tools: "].iter().any(|tag| template.contains(tag))
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
            // Asked for JSON by the system's message, the models write JSON between the same tags.
            match reader.ahead(&["[{", "{"]).await {
                Some(0) => {
                    reader.eat("[").await;
                    json::objects(reader, offer, &json::KEYS, CLOSE, false).await
                }
                Some(_) => json::objects(reader, offer, &json::KEYS, CLOSE, false).await,
                None => pythonic::calls(reader, offer, CLOSE, false).await,
            }
        })
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let list = pythonic::one(writer);
        Some(format!("{list} {}", writer.text(CLOSE)))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let list = pythonic::list_grammar(tools, many, writer);
        Calls { open: OPEN, rest: format!("{list} {}", writer.text(CLOSE)) }
    }
}
