//! DeepSeek: a section of calls, with the arguments bare (V3.1) or in a fenced block behind the call's type (V3, R1).

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name},
};
use crate::text::{
    grammar::{Writer, either},
    reader::{Reader, Space},
};

const OPEN: &str = "<｜tool▁calls▁begin｜>";
const CLOSE: &str = "<｜tool▁calls▁end｜>";
const BEGIN: &str = "<｜tool▁call▁begin｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";
const END: &str = "<｜tool▁call▁end｜>";
const MARKS: &[&str] = &[OPEN, CLOSE, BEGIN, SEPARATOR, END];
const FENCE: &str = "\n```json\n";

#[derive(Debug)]
pub(super) struct DeepSeekV31;

#[derive(Debug)]
pub(super) struct DeepSeekV3;

impl Dialect for DeepSeekV31 {
    fn name(&self) -> &'static str {
        "deepseek-v3.1"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(SEPARATOR) && !template.contains("```json")
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        MARKS
    }

    fn read<'a>(&'a self, reader: &'a Reader, _: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(section(reader, false))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(one(writer))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let calls = tools.iter().map(|tool| {
            let head = writer.text(&format!("{BEGIN}{}{SEPARATOR}", tool.name));
            let arguments = writer.json(&tool.schema());
            let end = writer.text(END);
            writer.rule(&format!("{head} {arguments} {end}"))
        });
        let calls: Vec<String> = calls.collect();
        let call = writer.rule(&either(&calls));
        let plus = if many { "+" } else { "" };
        Calls { open: OPEN, rest: format!("{call}{plus} {}", writer.text(CLOSE)) }
    }
}

impl Dialect for DeepSeekV3 {
    fn name(&self) -> &'static str {
        "deepseek-v3"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(SEPARATOR) || template.contains("<｜tool▁outputs▁begin｜>")
    }

    fn token(&self) -> Option<&'static str> {
        Some(OPEN)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        MARKS
    }

    fn read<'a>(&'a self, reader: &'a Reader, _: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(section(reader, true))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(one(writer))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let calls = tools.iter().map(|tool| {
            let head = writer.text(&format!("{BEGIN}function{SEPARATOR}{}{FENCE}", tool.name));
            let arguments = writer.json(&tool.schema());
            let end = writer.text(&format!("\n```{END}"));
            writer.rule(&format!("{head} {arguments} {end}"))
        });
        let calls: Vec<String> = calls.collect();
        let call = writer.rule(&either(&calls));
        let more = if many { format!("(\"\\n\" {call})*") } else { String::new() };
        Calls { open: OPEN, rest: format!("{call} {more} {}", writer.text(CLOSE)) }
    }
}

/// One call of anything.
fn one(writer: &mut Writer<'_>) -> String {
    let end = writer.until_past(END, &[SEPARATOR]);
    format!("{} {end} {}", writer.text(BEGIN), writer.text(CLOSE))
}

/// Reads a section. The two versions' calls cannot be told apart by their first tags, so `fenced` says which it is.
async fn section(reader: &Reader, fenced: bool) -> Read {
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
        let Some((mut name, _)) = reader.until(&[SEPARATOR], json::MOST_NAME).await else { return Read::Nothing };
        if fenced {
            let Some((line, _)) = reader.until(&["\n"], json::MOST_NAME).await else { return Read::Nothing };
            name = line;
            reader.space().await;
            if reader.eat("```").await {
                reader.eat("json").await;
            }
        }
        let name = name.trim();
        if !is_name(name) {
            return Read::Nothing;
        }
        reader.call(name.to_owned(), None);
        json::arguments(reader, END).await;
        read = Read::Calls;
        // The fence's end goes too.
        if reader.stream(&[END], Space::Dropped, drop).await.is_none() {
            return read;
        }
        reader.space().await;
        reader.take(END.len());
        reader.attempt();
    }
}
