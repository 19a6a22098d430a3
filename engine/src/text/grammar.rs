//! What an answer must look like, in llguidance's variant of Lark: the pieces that grammars are put together from; must not know which dialect or constraint asks.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

/// Writes one grammar.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    /// Special tokens that may be markup, the longest first.
    special: Vec<&'a (u32, String)>,
    rules: String,
    count: usize,
    /// What no text up to a tag may hold.
    never: Option<&'static str>,
}

impl<'a> Writer<'a> {
    /// A grammar for a vocabulary with these special tokens.
    pub(crate) fn new(special: &'a [(u32, String)]) -> Self {
        let mut special: Vec<_> = special.iter().collect();
        special.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
        Self { special, rules: String::new(), count: 0, never: None }
    }

    /// From here on, no text up to a tag holds `never`. Where that is a special token, no text does anyhow.
    pub(crate) fn without(&mut self, never: Option<&'static str>) {
        self.never = never.filter(|never| self.special_in(never).is_none());
    }

    /// This very text, in which special tokens are themselves.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut out = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = self.special_in(rest);
            let (plain, tail) = rest.split_at(at.map_or(rest.len(), |(at, ..)| at));
            if !plain.is_empty() {
                out.push(literal(plain));
            }
            rest = tail;
            if let Some((_, id, length)) = at {
                out.push(format!("<[{id}]>"));
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        if out.is_empty() { "\"\"".to_owned() } else { out.join(" ") }
    }

    /// Where the first special token stands, its id and its length.
    fn special_in(&self, text: &str) -> Option<(usize, u32, usize)> {
        let found = self.special.iter().filter_map(|(id, name)| Some((text.find(name.as_str())?, *id, name.len())));
        found.min_by_key(|(at, _, length)| (*at, std::cmp::Reverse(*length)))
    }

    /// Any text up to the first `tag`, which belongs to it.
    pub(crate) fn until(&mut self, tag: &str) -> String {
        let plain = self.special_in(tag).map_or(tag.len(), |(at, ..)| at);
        let (plain, special) = tag.split_at(plain);
        if plain.is_empty() {
            return format!("{ANY} {}", self.text(special));
        }
        // Lazy: the first tag ends it, so no text holds one.
        let mut text = format!("/(?s:.*){}/", pattern(plain));
        if let Some(never) = self.never {
            let terminal = self.name().to_uppercase();
            let _ = writeln!(self.rules, "{terminal}: {text} & ~/(?s:.*){}(?s:.*)/", pattern(never));
            text = terminal;
        }
        let rule = self.name();
        let _ = writeln!(self.rules, "{rule}[lazy]: {text}");
        if special.is_empty() { rule } else { format!("{rule} {}", self.text(special)) }
    }

    /// [`Writer::until`], past marks that are special tokens, which no text holds.
    pub(crate) fn until_past(&mut self, tag: &str, marks: &[&str]) -> String {
        let special = marks.iter().filter(|mark| self.special_in(mark).is_some());
        let marks: Vec<String> = special.map(|mark| self.text(mark)).collect();
        let until = self.until(tag);
        if marks.is_empty() { until } else { format!("({ANY} {})* {until}", either(&marks)) }
    }

    /// [`Writer::until`], but not where the text starts with `unlike`.
    pub(crate) fn until_unless(&mut self, tag: &str, unlike: Option<&str>) -> String {
        let Some(unlike) = unlike.filter(|unlike| self.special_in(unlike).is_none()) else { return self.until(tag) };
        let plain = self.special_in(tag).map_or(tag.len(), |(at, ..)| at);
        let (plain, special) = tag.split_at(plain);
        let not = pattern(unlike);
        let terminal = self.name().to_uppercase();
        let _ = writeln!(self.rules, "{terminal}: /(?s:.*){}/ & ~/\\s*{not}(?s:.*)/", pattern(plain));
        if plain.is_empty() {
            return format!("{terminal} {}", self.text(special));
        }
        let rule = self.name();
        let _ = writeln!(self.rules, "{rule}[lazy]: {terminal}");
        if special.is_empty() { rule } else { format!("{rule} {}", self.text(special)) }
    }

    /// Any text that does not start with `unlike`, and does not hold `holds`.
    pub(crate) fn any_unless(&mut self, unlike: Option<&str>, holds: &str) -> String {
        let plain = |tag: &&str| self.special_in(tag).is_none();
        let unlike = unlike.filter(plain).map(|unlike| format!(" & ~/\\s*{}(?s:.*)/", pattern(unlike)));
        let holds = Some(holds).filter(plain).map(|holds| format!(" & ~/(?s:.*){}(?s:.*)/", pattern(holds)));
        let nots: String = unlike.into_iter().chain(holds).collect();
        if nots.is_empty() {
            return ANY.to_owned();
        }
        let terminal = self.name().to_uppercase();
        let _ = writeln!(self.rules, "{terminal}: {ANY}{nots}");
        terminal
    }

    /// Any text between two tags, and these.
    pub(crate) fn between(&mut self, open: &str, close: &str) -> String {
        if self.special_in(open).is_some() || self.special_in(close).is_some() {
            return format!("{} {}", self.text(open), self.until(close));
        }
        // One terminal, so that what else could stand here is told from it by its first characters.
        let rule = self.name();
        let _ = writeln!(self.rules, "{rule}[lazy]: /\\s*{}(?s:.*){}/", pattern(open), pattern(close));
        rule
    }

    /// JSON that fits a schema.
    pub(crate) fn json(&mut self, schema: &Json) -> String {
        let mut schema = if schema.is_object() { schema.clone() } else { json!({"allOf": [schema]}) };
        if let Some(schema) = schema.as_object_mut() {
            schema.entry(OPTIONS).or_insert_with(|| json!({"whitespace_pattern": SPACE}));
        }
        self.rule(&format!("%json {schema}"))
    }

    /// A rule of its own, by its name.
    pub(crate) fn rule(&mut self, body: &str) -> String {
        let rule = self.name();
        let _ = writeln!(self.rules, "{rule}: {body}");
        rule
    }

    /// A rule that refers to itself: `body` is given its name.
    pub(crate) fn recursive(&mut self, body: impl FnOnce(&str) -> String) -> String {
        let rule = self.name();
        let body = body(&rule);
        let _ = writeln!(self.rules, "{rule}: {body}");
        rule
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("r{}", self.count)
    }

    /// The grammar that starts with `start`.
    pub(crate) fn finish(self, start: &str) -> String {
        format!("start: {start}\n{}", self.rules)
    }
}

/// Where llguidance looks for its options in a schema.
const OPTIONS: &str = "x-guidance";
/// White space between JSON's tokens, as llama.cpp bounds it: small models write it without end where they may.
const SPACE: &str = "( |\\n{1,2}[ \\t]{0,20})?";

/// Any text, without special tokens.
const ANY: &str = "/(?s:.*)/";

/// One of these.
pub(crate) fn either(options: &[String]) -> String {
    match options {
        [one] => one.clone(),
        some => format!("({})", some.join(" | ")),
    }
}

/// A string literal of Lark: JSON's, and no control characters.
pub(crate) fn literal(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A regular expression, without its slashes, that matches this very text.
pub(crate) fn pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // The rest stands for itself, and `\<` would be the start of a word.
            '\\' | '/' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#' | '&'
            | '-' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_in_a_text_are_themselves_and_the_rest_is_literal() {
        let special = [(7, "<|a|>".to_owned()), (8, "<|a|>b".to_owned())];
        let writer = Writer::new(&special);
        assert_eq!(writer.text("x\n<|a|>b<|a|>"), "\"x\\n\" <[8]> <[7]>");
        assert_eq!(writer.text(""), "\"\"");
    }

    #[test]
    fn patterns_match_their_text_alone() {
        assert_eq!(pattern("\n</a_b｜>[.]"), "\\n<\\/a_b｜>\\[\\.\\]");
    }
}
