//! An answer's grammar as the text pipeline writes it (llguidance's Lark) in llama.cpp's own form (GBNF); must not know
//! requests, or where schemas are converted.
//!
//! What the pipeline writes of Lark is understood, and no more: one rule a line, literals, special tokens (`<[7]>`),
//! regular expressions, `%json` with a schema, groups, `|`, `*`, `+`, `?`, and lazy rules of any text up to a tag. Schemas
//! are converted by llama-server itself, so that they mean there what they mean to its other clients.

mod expression;
mod lark;
mod rename;

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value as Json;
use thiserror::Error;

use lark::{Grammar, Part, Rule};

/// Why a grammar cannot be said in GBNF.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("llama.cpp's grammars cannot say {0}")]
pub(crate) struct Unsayable(String);

/// A grammar whose schemas are to be converted.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    grammar: Grammar,
}

impl Draft {
    /// Reads a grammar.
    pub(crate) fn read(lark: &str) -> Result<Self, Unsayable> {
        Ok(Self { grammar: lark::read(lark)? })
    }

    /// The schemas in it, in the order in which [`Draft::finish`] wants them.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &Json> {
        self.grammar.schemas.iter()
    }

    /// The grammar; `schemas`: each schema's own, whose first rule is `root`.
    pub(crate) fn finish(&self, schemas: &[String]) -> Result<String, Unsayable> {
        let mut out = String::new();
        for rule in &self.grammar.rules {
            write_rule(rule, &mut out)?;
        }
        for (index, schema) in schemas.iter().enumerate() {
            out.push_str(&rename::with_prefix(schema, &schema_name(index)));
            out.push('\n');
        }
        Ok(out)
    }
}

/// A Lark rule's name here: letters, digits and dashes, and nobody else's.
fn rule_name(name: &str) -> String {
    if name == "start" { "root".to_owned() } else { format!("x-{}", name.replace('_', "-")) }
}

fn schema_name(index: usize) -> String {
    format!("j{index}")
}

fn write_rule(rule: &Rule, out: &mut String) -> Result<(), Unsayable> {
    let name = rule_name(&rule.name);
    if rule.lazy {
        let [Part::Regex(pattern)] = rule.parts.as_slice() else {
            return Err(Unsayable("a lazy rule of several parts".to_owned()));
        };
        let (before, tag) = expression::until(pattern)?;
        let rest = format!("{name}-0");
        let _ = writeln!(out, "{name} ::= {before} {rest}");
        write_until(&rest, &tag, out);
        return Ok(());
    }
    let parts: Result<Vec<String>, Unsayable> = rule.parts.iter().map(write_part).collect();
    let _ = writeln!(out, "{name} ::= {}", parts?.join(" "));
    Ok(())
}

fn write_part(part: &Part) -> Result<String, Unsayable> {
    Ok(match part {
        Part::Text(text) => expression::quoted(text),
        Part::Token(id) => format!("<[{id}]>"),
        Part::Rule(name) => rule_name(name),
        Part::Regex(pattern) => expression::gbnf(pattern)?,
        Part::Schema(index) => format!("{}-root", schema_name(*index)),
        Part::Mark(mark) => mark.to_string(),
    })
}

/// Any text up to the first `tag`, and the tag: a rule for each prefix of the tag that the text may end with (Knuth, Morris
/// & Pratt 1977).
fn write_until(name: &str, tag: &[char], out: &mut String) {
    let letters: BTreeSet<char> = tag.iter().copied().collect();
    let at = |length: usize| if length == 0 { name.to_owned() } else { format!("{name}-{length}") };
    for length in 0..tag.len() {
        let mut ways = Vec::new();
        for letter in &letters {
            let then = prefix_after(tag, length, *letter);
            let text = expression::quoted(&letter.to_string());
            ways.push(if then == tag.len() { text } else { format!("{text} {}", at(then)) });
        }
        let others: String = letters.iter().map(|letter| expression::in_class(*letter)).collect();
        ways.push(format!("[^{others}] {}", at(0)));
        let _ = writeln!(out, "{} ::= {}", at(length), ways.join(" | "));
    }
}

/// The longest prefix of `tag` that the text ends with, after so much of it and this letter.
fn prefix_after(tag: &[char], length: usize, letter: char) -> usize {
    let text: Vec<char> = tag.iter().take(length).copied().chain([letter]).collect();
    (0..=text.len()).rev().find(|end| text.ends_with(tag.get(..*end).unwrap_or(&['\0']))).unwrap_or(0)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
