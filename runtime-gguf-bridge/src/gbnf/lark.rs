//! The part of Lark that the text pipeline writes, read; must not know GBNF.

use serde_json::Value as Json;

use super::Unsayable;

/// A piece of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// This very text.
    Text(String),
    /// A special token.
    Token(u32),
    /// Another rule.
    Rule(String),
    /// A regular expression, without its slashes.
    Regex(String),
    /// JSON of the schema with this number.
    Schema(usize),
    /// `(`, `)`, `|`, `*`, `+` or `?`.
    Mark(char),
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) name: String,
    /// It ends as early as it can.
    pub(super) lazy: bool,
    pub(super) parts: Vec<Part>,
}

/// Rules, and the schemas in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Grammar {
    pub(super) rules: Vec<Rule>,
    pub(super) schemas: Vec<Json>,
}

/// Reads a grammar, one rule a line.
pub(super) fn read(lark: &str) -> Result<Grammar, Unsayable> {
    let mut grammar = Grammar::default();
    for line in lark.lines().filter(|line| !line.trim().is_empty()) {
        let unread = || Unsayable(format!("the rule {:?}", line.chars().take(80).collect::<String>()));
        let (head, body) = line.split_once(':').ok_or_else(unread)?;
        let (name, lazy) = match head.trim().split_once('[') {
            Some((name, "lazy]")) => (name, true),
            Some(_) => return Err(unread()),
            None => (head.trim(), false),
        };
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(in_name);
        if !is_name {
            return Err(unread());
        }
        let parts = parts(body.trim(), &mut grammar.schemas).ok_or_else(unread)?;
        grammar.rules.push(Rule { name: name.to_owned(), lazy, parts });
    }
    Ok(grammar)
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `None`: something else stands there.
fn parts(body: &str, schemas: &mut Vec<Json>) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        let (part, length) = match first {
            ' ' | '\t' => {
                rest = rest.get(1..)?;
                continue;
            }
            '(' | ')' | '|' | '*' | '+' | '?' => (Part::Mark(first), 1),
            '"' => text(rest)?,
            '/' => regex(rest)?,
            '<' => {
                let id = rest.strip_prefix("<[")?.split_once("]>")?.0;
                (Part::Token(id.parse().ok()?), id.len() + 4)
            }
            '%' => {
                let json = rest.strip_prefix("%json ")?;
                let mut values = serde_json::Deserializer::from_str(json).into_iter::<Json>();
                let mut schema = values.next()?.ok()?;
                if let Some(schema) = schema.as_object_mut() {
                    // llguidance's options are nothing to llama.cpp.
                    schema.remove("x-guidance");
                }
                schemas.push(schema);
                (Part::Schema(schemas.len() - 1), "%json ".len() + values.byte_offset())
            }
            c if c.is_ascii_alphabetic() => {
                let length = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
                (Part::Rule(rest.get(..length)?.to_owned()), length)
            }
            _ => return None,
        };
        parts.push(part);
        rest = rest.get(length..)?;
    }
    Some(parts)
}

/// A literal: JSON's.
fn text(rest: &str) -> Option<(Part, usize)> {
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let text = values.next()?.ok()?;
    let length = values.byte_offset();
    // Flags behind it mean something else.
    let flagged = rest.get(length..)?.starts_with(|c: char| c.is_ascii_alphabetic());
    (!flagged).then_some((Part::Text(text), length))
}

fn regex(rest: &str) -> Option<(Part, usize)> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '/' => {
                let flagged = rest.get(at + 1..)?.starts_with(|c: char| c.is_ascii_alphabetic());
                return (!flagged).then_some((Part::Regex(rest.get(1..at)?.replace("\\/", "/")), at + 1));
            }
            _ => {}
        }
    }
    None
}
