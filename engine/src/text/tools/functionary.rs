//! MeetKai's Functionary 3.1, and LLaMA 3.1 with tools of one's own: `<function=name>{…}</function>`.

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{self, is_name},
};
use crate::text::{
    grammar::{Writer, either},
    reader::Reader,
};

const OPEN: &str = "<function=";
const CLOSE: &str = "</function>";

#[derive(Debug)]
pub(super) struct Functionary;

impl Dialect for Functionary {
    fn name(&self) -> &'static str {
        "functionary"
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn opens(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn read<'a>(&'a self, reader: &'a Reader, _: &'a Offer, _: &'static str) -> Reads<'a> {
        Box::pin(async move {
            let Some((name, _)) = reader.until(&[">"], json::MOST_NAME).await else { return Read::Nothing };
            if !is_name(&name) {
                return Read::Nothing;
            }
            reader.call(name, None);
            json::arguments(reader, CLOSE).await;
            reader.space().await;
            reader.eat(CLOSE).await;
            Read::Calls
        })
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        Some(writer.until(CLOSE))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let calls = tools.iter().map(|tool| {
            let head = writer.text(&format!("{}>", tool.name));
            let arguments = writer.json(&tool.schema());
            writer.rule(&format!("{head} {arguments} {}", writer.text(CLOSE)))
        });
        let calls: Vec<String> = calls.collect();
        let call = writer.rule(&either(&calls));
        let more = if many { format!("({} {call})*", writer.text(OPEN)) } else { String::new() };
        Calls { open: OPEN, rest: format!("{call} {more}") }
    }
}
