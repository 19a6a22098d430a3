//! Kimi K2: a section of `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`.

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name},
};
use crate::text::{
    grammar::{Writer, either},
    reader::{Reader, Space},
};

const OPEN: &str = "<|tool_calls_section_begin|>";
const CLOSE: &str = "<|tool_calls_section_end|>";
const BEGIN: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const END: &str = "<|tool_call_end|>";

#[derive(Debug)]
pub(super) struct Kimi;

impl Dialect for Kimi {
    fn name(&self) -> &'static str {
        "kimi"
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
        &[OPEN, CLOSE, BEGIN, ARGUMENTS, END]
    }

    fn read<'a>(&'a self, reader: &'a Reader, _: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(async move {
            let mut read = Read::Nothing;
            loop {
                reader.space().await;
                match reader.next(&[BEGIN, CLOSE]).await {
                    Some(0) => drop(reader.take(BEGIN.len())),
                    Some(_) => {
                        reader.take(CLOSE.len());
                        return read;
                    }
                    None => return read,
                }
                let Some((id, _)) = reader.until(&[ARGUMENTS], json::MOST_NAME).await else { return Read::Nothing };
                // The whole is the call's id, and the template wants it back.
                let id = id.trim();
                let name = id.rsplit_once(':').filter(|(_, n)| n.parse::<u32>().is_ok()).map_or(id, |(name, _)| name);
                let name = name.strip_prefix("functions.").unwrap_or(name);
                if !is_name(name) {
                    return Read::Nothing;
                }
                reader.call(name.to_owned(), Some(id.to_owned()).filter(|id| id.contains(':')));
                json::arguments(reader, END).await;
                read = Read::Calls;
                if reader.stream(&[END], Space::Dropped, drop).await.is_none() {
                    return read;
                }
                reader.space().await;
                reader.take(END.len());
                reader.attempt();
            }
        })
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let end = writer.until_past(END, &[ARGUMENTS]);
        Some(format!("{} {end} {}", writer.text(BEGIN), writer.text(CLOSE)))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let end = writer.text(END);
        let calls: Vec<String> = tools
            .iter()
            .map(|tool| {
                let head = writer.text(&format!("{BEGIN}functions.{}:", tool.name));
                let arguments = writer.json(&tool.schema());
                writer.rule(&format!("{head} /[0-9]{{1,4}}/ {} {arguments} {end}", writer.text(ARGUMENTS)))
            })
            .collect();
        let call = writer.rule(&either(&calls));
        let plus = if many { "+" } else { "" };
        Calls { open: OPEN, rest: format!("{call}{plus} {}", writer.text(CLOSE)) }
    }
}
