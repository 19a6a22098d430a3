//! Calls whose every argument stands between tags of its own, as most families of 2025 write them; must not know which.

use serde_json::Value as Json;

use super::{
    Calls, Dialect, Offer, Read, Reads, Tool,
    json::{KEYS, MOST_NAME, is_name, objects, tagged},
    literal::quoted,
    offer::Types,
};
use crate::text::{
    grammar::{Writer, either, literal},
    reader::{Reader, Space},
};

/// The tags of one dialect.
#[derive(Debug)]
pub(super) struct Tagged {
    pub(super) name: &'static str,
    /// What its templates say, all of it.
    pub(super) shown: &'static [&'static str],
    /// Around all calls; empty where there is nothing.
    pub(super) section: [&'static str; 2],
    /// Before a call's name, behind it, and behind the call.
    pub(super) call: [&'static str; 3],
    /// Before a parameter's name, behind it, and behind the value.
    pub(super) parameter: [&'static str; 3],
    /// What opens calls: the section's tag, or the call's where models forget that.
    pub(super) opens: &'static [&'static str],
    /// All tags.
    pub(super) marks: &'static [&'static str],
    /// Values stand on lines of their own.
    pub(super) lines: bool,
    /// Tags stand on lines of their own.
    pub(super) broken: bool,
    /// Parameters say whether they are strings.
    pub(super) typed: bool,
    /// Values may be wrapped in CDATA.
    pub(super) cdata: bool,
    /// A section holds several calls, rather than each its own section.
    pub(super) shared: bool,
}

impl Dialect for Tagged {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_spoken_in(&self, template: &str) -> bool {
        self.shown.iter().all(|tag| template.contains(tag))
    }

    fn opens(&self) -> &'static [&'static str] {
        self.opens
    }

    fn marks(&self) -> &'static [&'static str] {
        self.marks
    }

    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, open: &'static str) -> Reads<'a> {
        Box::pin(self.calls(reader, offer, open))
    }

    fn one(&self, writer: &mut Writer<'_>) -> Option<String> {
        let call = writer.until(self.call[2]);
        let [open, close] = self.section;
        if open.is_empty() {
            return Some(call);
        }
        let head = literal(self.call[0]);
        Some(format!("/\\s*/ {head} {call} /\\s*/ {}", writer.text(close)))
    }

    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls {
        let end = if self.broken { "\n" } else { "" };
        let calls: Vec<String> = tools.iter().map(|tool| self.call_grammar(tool, end, writer)).collect();
        let call = writer.rule(&either(&calls));
        let [open, close] = self.section;
        let rest = if open.is_empty() {
            // The first call's tag is the open one.
            let more = format!("{} {call}", writer.text(self.call[0]));
            if many { format!("{call} ({more})*") } else { call }
        } else {
            let open_call = writer.text(&format!("{end}{}", self.call[0]));
            let close = writer.text(&format!("{end}{close}"));
            let one = format!("{open_call} {call}");
            match (many, self.shared) {
                (false, _) => format!("{one} {close}"),
                (true, true) => format!("({one})+ {close}"),
                (true, false) => {
                    let again = writer.text(&format!("\n{open}"));
                    format!("{one} {close} ({again} {one} {close})*")
                }
            }
        };
        Calls { open: if open.is_empty() { self.call[0] } else { open }, rest }
    }
}

impl Tagged {
    async fn calls(&self, reader: &Reader, offer: &Offer, open: &str) -> Read {
        let mut read = Read::Nothing;
        let mut in_call = open == self.call[0];
        loop {
            if !in_call {
                reader.space().await;
                match reader.next(&[self.call[0], self.section[1]]).await {
                    Some(0) => drop(reader.take(self.call[0].len())),
                    Some(_) if read == Read::Calls => {
                        reader.take(self.section[1].len());
                        return read;
                    }
                    // Other families' form between the same tags, which small models mix up.
                    None if read == Read::Nothing && reader.peek().await == Some('{') => {
                        return objects(reader, offer, &KEYS, self.section[1], false).await;
                    }
                    _ => return read,
                }
            }
            in_call = false;
            if !self.call(reader, offer).await {
                return Read::Nothing;
            }
            read = Read::Calls;
            if self.section[1].is_empty() {
                return read;
            }
            reader.attempt();
        }
    }

    /// Reads a call behind the tag before its name.
    async fn call(&self, reader: &Reader, offer: &Offer) -> bool {
        let Some((name, _)) = reader.until(&[self.call[1]], MOST_NAME).await else { return false };
        let name = name.trim().trim_matches('"');
        if !is_name(name) {
            return false;
        }
        reader.call(name.to_owned(), None);
        reader.arguments("{");
        let ends = [self.parameter[0], self.call[2], self.section[1]];
        let ends = if self.section[1].is_empty() { ends.get(..2) } else { Some(&ends[..]) }.unwrap_or_default();
        let mut first = true;
        // Between the tags is white space, and what there is else is lost.
        while let Some(end) = reader.stream(ends, Space::Dropped, drop).await {
            reader.space().await;
            if end > 0 {
                if end == 1 {
                    reader.take(self.call[2].len());
                }
                reader.arguments("}");
                break;
            }
            reader.take(self.parameter[0].len());
            if !self.parameter(reader, offer, name, first).await {
                break;
            }
            first = false;
        }
        true
    }

    async fn parameter(&self, reader: &Reader, offer: &Offer, name: &str, first: bool) -> bool {
        let Some((key, _)) = reader.until(&[self.parameter[1]], MOST_NAME).await else { return false };
        let mut types = offer.types(name, key.trim());
        if self.typed {
            let Some((attributes, _)) = reader.until(&[">"], MOST_NAME).await else { return false };
            types = match attributes.contains("\"true\"") {
                true => Types::STRING,
                false => Types { string: types.string && types != Types::ANY, ..Types::ANY },
            };
        }
        let comma = if first { "" } else { ", " };
        reader.arguments(format!("{comma}{}: ", quoted(key.trim())));
        if self.cdata && reader.eat("<![CDATA[").await {
            return tagged(reader, types, &format!("]]>{}", self.parameter[2]), false).await;
        }
        tagged(reader, types, self.parameter[2], self.lines).await
    }

    /// A call behind the tag before its name.
    fn call_grammar(&self, tool: &Tool, end: &str, writer: &mut Writer<'_>) -> String {
        let mut call = writer.text(&format!("{}{}", tool.name, self.call[1]));
        for (name, schema, required) in tool.properties() {
            let types = tool.types(name);
            let string = types == Types::STRING;
            let kind = match (self.typed, string) {
                (false, _) => "",
                (true, true) => " string=\"true\">",
                (true, false) => " string=\"false\">",
            };
            let line = if self.lines { "\n" } else { "" };
            let open = writer.text(&format!("{end}{}{name}{}{kind}{line}", self.parameter[0], self.parameter[1]));
            let close = format!("{line}{}", self.parameter[2]);
            let value = value_grammar(tool, schema, string, &close, writer);
            let whole = writer.rule(&format!("{open} {value}"));
            call.push(' ');
            call.push_str(&whole);
            if !required {
                call.push('?');
            }
        }
        let close = writer.text(&format!("{end}{}", self.call[2]));
        writer.rule(&format!("{call} {close}"))
    }
}

/// A value that stands in a tag up to `close`, which belongs to it.
pub(super) fn value_grammar(tool: &Tool, schema: &Json, string: bool, close: &str, writer: &mut Writer<'_>) -> String {
    let options = schema["enum"].as_array().filter(|_| string);
    let strings =
        || options.into_iter().flatten().chain(schema.get("const").filter(|_| string)).filter_map(Json::as_str);
    if strings().next().is_some() {
        let options: Vec<String> = strings().map(literal).collect();
        return format!("{} {}", either(&options), writer.text(close));
    }
    if !string {
        let json = writer.json(&tool.property_schema(schema));
        return format!("{json} {}", writer.text(close));
    }
    match schema["pattern"].as_str() {
        // Only whole patterns can be had: what matches a part of a string says little.
        Some(whole) if whole.starts_with('^') && whole.ends_with('$') && !whole.contains(['|', '/']) => {
            let inner = whole.trim_start_matches('^').trim_end_matches('$');
            format!("/{inner}/ {}", writer.text(close))
        }
        _ => writer.until(close),
    }
}
