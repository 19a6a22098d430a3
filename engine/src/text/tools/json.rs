//! JSON as a model writes it: values streamed as they come, and calls that are objects; must not know the tags around them.

use super::{Offer, Read, Reader, literal::escaped, offer::Types};
use crate::text::reader::Space;

/// Longest key, name or id, in bytes. Guess: OpenAI's names have 64.
pub(super) const MOST_NAME: usize = 512;

/// The keys of a call that is an object.
#[derive(Debug)]
pub(super) struct Keys {
    /// Of the function's name.
    pub(super) name: &'static [&'static str],
    /// Of the arguments.
    pub(super) arguments: &'static [&'static str],
    /// Of the call's id; empty where the model's are worth nothing.
    pub(super) id: &'static [&'static str],
}

/// OpenAI's keys, and LLaMA's.
pub(super) const KEYS: Keys = Keys { name: &["name"], arguments: &["arguments", "parameters"], id: &[] };

/// Reads calls that are objects, one behind another, whatever stands between them, up to `close`. `known`: only calls of
/// offered tools, with arguments, are calls.
pub(super) async fn objects(reader: &Reader, offer: &Offer, keys: &Keys, close: &str, known: bool) -> Read {
    let mut read = Read::Nothing;
    loop {
        reader.space().await;
        if reader.peek().await != Some('{') {
            break;
        }
        if !object(reader, offer, keys, close, known).await {
            return Read::Nothing;
        }
        read = Read::Calls;
        // A brace too many is a common slip, and would be a strange content.
        reader.scan(|c| c.is_ascii_whitespace() || [',', ';', ']', '}'].contains(&c), drop).await;
        if (!close.is_empty() && reader.eat(close).await) || reader.is_over().await {
            break;
        }
        reader.attempt();
    }
    read
}

/// Reads one call. False when it is none.
async fn object(reader: &Reader, offer: &Offer, keys: &Keys, close: &str, known: bool) -> bool {
    reader.take(1);
    let (mut name, mut id): (Option<String>, Option<String>) = (None, None);
    // Arguments that come before the name wait for it.
    let mut waiting: Option<String> = None;
    let (mut called, mut told) = (false, false);
    loop {
        reader.space().await;
        let Some(key) = string(reader, close).await else { break };
        reader.space().await;
        if !reader.eat(":").await {
            break;
        }
        reader.space().await;
        let is = |names: &[&str]| names.contains(&key.as_str());
        if is(keys.name) && name.is_none() {
            let Some(found) = string(reader, close).await.filter(|name| is_name(name)) else { break };
            if known && offer.tool(&found).is_none() {
                return false;
            }
            name = Some(found);
        } else if is(keys.id) {
            id = string(reader, close).await;
        } else if is(keys.arguments) && !told {
            if let (Some(name), false) = (&name, called) {
                reader.call(name.clone(), id.clone());
                called = true;
            }
            told = true;
            if called {
                arguments(reader, close).await;
            } else {
                let mut text = String::new();
                value(reader, close, |more| text.push_str(&more)).await;
                waiting = Some(text);
            }
        } else {
            value(reader, close, drop).await;
        }
        reader.space().await;
        let more = reader.eat(",").await;
        let whole = !more && reader.peek().await == Some('}');
        // The name alone is enough, unless bare JSON must be told from a call.
        if let (Some(name), false, true) = (&name, called, (more && !known) || whole || waiting.is_some()) {
            if known && !told {
                return false;
            }
            reader.call(name.clone(), id.clone());
            called = true;
            waiting.take().into_iter().for_each(|text| reader.arguments(whole_arguments(&text)));
        }
        if !more {
            break;
        }
    }
    if called {
        // Up to here it was one; if it breaks off, what follows is looked at anew.
        if reader.peek().await == Some('}') {
            reader.take(1);
            if !told {
                reader.arguments("{}");
            }
        }
    }
    called
}

/// Whether this can be a function's name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Reads a string that is wanted whole; `None` when it is none. What says so is not consumed.
async fn string(reader: &Reader, close: &str) -> Option<String> {
    if !reader.eat("\"").await {
        return None;
    }
    let mut raw = String::from("\"");
    // A closing tag has no business in a name.
    let ends = ["\"", "\\", "\n", close];
    let ends = if close.is_empty() { ends.get(..3) } else { Some(&ends[..]) }.unwrap_or_default();
    loop {
        let end = reader.stream(ends, Space::Kept, |text| raw.push_str(&text)).await;
        if raw.len() > MOST_NAME {
            return None;
        }
        match end {
            Some(0) => break,
            Some(1) => {
                raw.push_str(&reader.take(1));
                let escaped = reader.peek().await?;
                raw.push_str(&reader.take(escaped.len_utf8()));
            }
            _ => return None,
        }
    }
    raw.push_str(&reader.take(1));
    serde_json::from_str(&raw).ok()
}

/// Reads a call's arguments, an object or a string that holds one, and gives them out as they come; none where the call
/// ends at once.
pub(super) async fn arguments(reader: &Reader, close: &str) {
    reader.space().await;
    match reader.peek().await {
        Some('{') => value(reader, close, |text| reader.arguments(text)).await,
        Some('"' | '0'..='9' | '-' | '[' | 't' | 'f' | 'n') => {
            let mut text = String::new();
            value(reader, close, |more| text.push_str(&more)).await;
            reader.arguments(whole_arguments(&text));
        }
        Some(_) => reader.arguments("{}"),
        None => {}
    }
}

/// Arguments that came whole: some models write the object as a JSON string, as OpenAI's API does, or `null` for none.
fn whole_arguments(text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Null) => "{}".to_owned(),
        Ok(serde_json::Value::String(inner)) if inner.trim().is_empty() => "{}".to_owned(),
        Ok(serde_json::Value::String(inner)) => inner,
        Err(_) if text.starts_with('"') => String::new(),
        _ => text.to_owned(),
    }
}

/// Where in a JSON value one is.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    begun: bool,
    /// Not a string, list or object: it has no end of its own.
    bare: bool,
}

impl Scan {
    /// Whether the value goes on with this character; after its last one, it does not.
    fn goes_on(&mut self, c: char) -> bool {
        if self.begun && self.depth == 0 && !self.in_string {
            return self.bare && !c.is_whitespace() && ![',', '}', ']', '<', '[', '`'].contains(&c);
        }
        self.begun = true;
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.in_string => self.escaped = true,
            // A line break in a string is looked at.
            '\n' if self.in_string => return false,
            '"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth = self.depth.saturating_sub(1),
            _ if self.depth == 0 => self.bare = true,
            _ => {}
        }
        true
    }
}

/// Reads a value, and gives it as it comes. Control characters in strings, which JSON has not, are written as escapes. A
/// line break in a string and then `close` end a value whose quotation mark is missing.
pub(super) async fn value(reader: &Reader, close: &str, mut give: impl FnMut(String)) {
    let mut scan = Scan::default();
    let (mut in_string, mut escape) = (false, false);
    loop {
        let mut clean = |text: String| {
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                // Outside of strings control characters are white space.
                if in_string && u32::from(c) < 0x20 {
                    out.push_str(&escaped(&c.to_string()));
                } else {
                    out.push(c);
                }
                in_string ^= c == '"' && !escape;
                escape = c == '\\' && in_string && !escape;
            }
            give(out);
        };
        if !reader.scan(|c| scan.goes_on(c), &mut clean).await {
            return;
        }
        if !scan.in_string {
            return;
        }
        let cut = format!("\n{close}");
        if !close.is_empty() && reader.next(&[&cut]).await.is_some() {
            return;
        }
        if reader.take(1).is_empty() {
            return;
        }
        give("\\n".to_owned());
    }
}

/// Reads a value that stands in a tag up to `close`: streamed where it is a string, whole otherwise. The tag is consumed.
/// False at the end of the answer.
pub(super) async fn tagged(reader: &Reader, types: Types, close: &str, lines: bool) -> bool {
    let space = if lines { Space::Line } else { Space::Value };
    if lines {
        reader.eat("\n").await;
    }
    let closed = if types == Types::STRING {
        reader.arguments("\"");
        let closed = reader.stream(&[close], space, |text| reader.arguments(escaped(&text))).await.is_some();
        if closed {
            reader.arguments("\"");
        }
        closed
    } else {
        let mut text = String::new();
        let closed = reader.stream(&[close], space, |more| text.push_str(&more)).await.is_some();
        if closed {
            reader.arguments(super::literal::value(&text, types));
        }
        closed
    };
    if closed {
        if lines {
            reader.eat("\n").await;
        }
        reader.take(close.len());
    }
    closed
}
